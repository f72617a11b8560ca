//! What the store promises.

mod backup;
mod batches;
mod checkpoint;
mod damaged;
mod durability;
mod enrolments;
mod fleet;
mod followers;
mod inbox;
mod interrupted;
mod lease;
mod model;
mod outage;
mod owners;
mod prune;
mod refusals;
mod replaced;
mod retention;
mod schema;
mod slow;
mod timeline;
mod tls;
mod tokens;
