//! The agent's binary with the stand-in as its runner, through every way in which the official runner is
//! known to end, hang, complain and be abused: exit codes, console lines, known failures by their issue
//! number at actions/runner, signals, and hostile jobs.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that can't go on fails"
)]

mod ends;
mod hangs;
mod hostile;
mod kit;
mod signals;
mod stops;
mod troubles;
