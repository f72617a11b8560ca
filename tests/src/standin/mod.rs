//! A stand-in for the official runner: two binaries that start, print, log, exit and die as
//! `Runner.Listener` and `Runner.Worker` do (actions/runner 2.336.0), with a scenario file to make
//! them fail in the ways that are known of the real ones.
//!
//! Work comes from a scenario (no server at all), or from the runner endpoint of the fake GitHub
//! whose address the JIT configuration carries.

mod diag;
mod files;
mod http;
mod install;
pub mod listener;
pub mod protocol;
pub mod scenario;
pub mod script;
pub mod worker;

pub use self::files::{JitError, Settings};
pub use self::install::{InstallError, binaries, install_runner};
