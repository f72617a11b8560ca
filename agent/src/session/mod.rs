//! The one stream to the coordinator: held by a task for as long as it lasts, kept up by a policy.

pub(crate) mod keeper;
pub(crate) mod link;
pub(crate) mod outbox;
