//! The runner: how it is started, watched, stopped, and what is left of it cleared away.

pub(crate) mod account;
mod alive;
pub(crate) mod announce;
pub(crate) mod cgroup;
pub(crate) mod console;
pub(crate) mod descendants;
pub(crate) mod diagnostics;
#[cfg(test)]
mod drain_tests;
pub(crate) mod exit_record;
pub(crate) mod files;
pub(crate) mod grounds;
pub(crate) mod jit;
pub(crate) mod launch;
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
pub(crate) mod snapshot;
mod stop;
pub(crate) mod supervisor;
pub(crate) mod tail;
#[cfg(test)]
mod trouble_tests;
mod troubles;
pub(crate) mod unit;
pub(crate) mod watchdog;
