//! The agent's binary against a coordinator in the test, with shell scripts as the runner.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test and its support, not a library"
)]

mod life;
mod split;
mod support;
