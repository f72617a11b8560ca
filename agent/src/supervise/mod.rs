//! The runner: how it is started, watched, stopped, and what is left of it cleared away.

mod alive;
pub(crate) mod console;
pub(crate) mod descendants;
#[cfg(test)]
mod drain_tests;
pub(crate) mod jit;
mod lines;
pub(crate) mod listener;
pub(crate) mod machine;
#[cfg(test)]
mod machine_tests;
mod messages;
pub(crate) mod outcome;
#[cfg(test)]
mod outcome_tests;
pub(crate) mod perflog;
mod phase;
#[cfg(test)]
mod properties;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "for a supervisor that was restarted")
)]
pub(crate) mod snapshot;
mod stop;
pub(crate) mod tail;
#[cfg(test)]
mod trouble_tests;
mod troubles;
pub(crate) mod watchdog;
