//! The Muster agent: proves which instance it is, becomes one GitHub Actions runner, reports, ends.

mod agent;
mod backoff;
mod cli;
mod config;
mod enroll;
mod identity;
mod imds;
mod instance;
mod sample;
mod selftest;
mod session;
mod signals;
mod start;
mod supervise;
mod tls;
mod wire;

use std::io::Write;
use std::process::ExitCode;

use jiff::Timestamp;

use crate::cli::Command;

/// Usage or configuration, as in sysexits.h.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let started_at = Timestamp::now();
    let source = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(source)) => source,
        Ok(Command::Selftest(order)) => return selftest::run(order),
        Ok(Command::Version) => return print(concat!(env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Help) => return print(cli::USAGE),
        Err(error) => return unusable(&format!("{error}\n\n{}", cli::USAGE)),
    };
    let config = match start::load(&source) {
        Ok(config) => config,
        Err(error) => return unusable(&format!("{error:#}\n")),
    };
    tracing_subscriber::fmt()
        .json()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::INFO)
        .init();
    match start::run(config, started_at) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the agent failed");
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> ExitCode {
    write(&mut std::io::stdout(), text, ExitCode::SUCCESS)
}

fn unusable(text: &str) -> ExitCode {
    write(&mut std::io::stderr(), text, ExitCode::from(EXIT_USAGE))
}

/// If nobody reads it, nobody misses it.
fn write(to: &mut dyn Write, text: &str, code: ExitCode) -> ExitCode {
    to.write_all(text.as_bytes())
        .map_or(ExitCode::FAILURE, |()| code)
}
