//! The runner: how it is started, watched, stopped, and what is left of it cleared away.

mod alive;
pub(crate) mod console;
pub(crate) mod descendants;
pub(crate) mod jit;
mod lines;
pub(crate) mod listener;
pub(crate) mod machine;
#[cfg(test)]
mod machine_tests;
mod messages;
pub(crate) mod outcome;
pub(crate) mod perflog;
pub(crate) mod tail;
pub(crate) mod watchdog;
