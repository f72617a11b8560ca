//! What the store promises.

mod batches;
mod durability;
mod enrolments;
mod fleet;
mod inbox;
mod model;
mod prune;
mod timeline;
mod tokens;
