//! The agent's binary against a scripted coordinator, with shell scripts as the runner.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod connection;
mod life;
mod split;
mod steps;
mod stops;
mod sts;
