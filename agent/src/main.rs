//! The Muster agent: proves which instance it is, becomes one GitHub Actions runner, reports, ends.

mod backoff;
mod boot;
mod cli;
mod config;
mod dial;
mod enroll;
mod front;
mod identity;
mod imds;
mod instance;
mod local;
mod sample;
mod selftest;
mod session;
mod signals;
mod start;
mod steady;
mod supervise;
mod systemd;
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
    let command = match cli::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(error) => return unusable(&format!("{error}\n\n{}", cli::USAGE)),
    };
    let ended = match command {
        Command::Version => return print(concat!(env!("CARGO_PKG_VERSION"), "\n")),
        Command::Help => return print(cli::USAGE),
        Command::Selftest(order) => return selftest::run(order),
        Command::Run(source) => match start::load_run(&source) {
            Ok(config) => logged(|| start::run(config, started_at)),
            Err(error) => return unusable(&format!("{error:#}\n")),
        },
        Command::Supervise(source) => match start::load_supervise(&source) {
            Ok(config) => logged(|| start::supervise(config)),
            Err(error) => return unusable(&format!("{error:#}\n")),
        },
        Command::LaunchRunner(socket) => logged(|| start::launch_runner(&socket)),
        Command::RecordExit(dir) => logged(|| start::record_exit(&dir)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the agent failed");
            ExitCode::FAILURE
        }
    }
}

/// Does `work` with the log on standard error.
fn logged(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .json()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::INFO)
        .init();
    work()
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
