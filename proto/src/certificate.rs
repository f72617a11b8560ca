//! What agents know of their certificates beside what is in them.

use std::time::Duration;

/// So long before it is issued the life of an agent's certificate begins: how far the clock of whoever checks it may lag
/// behind. An agent counts the life from when it was issued.
pub const BACKDATED: Duration = Duration::from_secs(60);
