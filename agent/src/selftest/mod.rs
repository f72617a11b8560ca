//! `muster-agent selftest`: proves on a host that it is what the image should have made of it.
//!
//! Above all: who reaches the instance metadata service, and who doesn't. Each user is tried by a
//! process that runs as that user. It changes nothing, enrols nowhere, and powers nothing off.

mod host;
mod options;
mod probe;
mod reach;
mod report;

use std::process::ExitCode;

pub(crate) use self::options::{Order, parse};
use self::report::Report;

/// Does what the command line asked for. The exit code is 0 if no check failed, else 1.
pub(crate) fn run(order: Order) -> ExitCode {
    let options = match order {
        Order::Test(options) => options,
        Order::Probe(probe) => return probe::answer(&probe),
    };
    if !nix::unistd::geteuid().is_root() {
        return print(
            &mut std::io::stderr(),
            "selftest needs root: it looks at the host as each of its users\n",
            ExitCode::FAILURE,
        );
    }
    let mut report = Report::default();
    if options.part.has_imds() {
        reach::check(&options, &mut report);
    }
    if options.part.has_host() {
        host::check(&options, &mut report);
    }
    let code = if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    };
    let text = if options.json {
        report.json()
    } else {
        report.to_string()
    };
    print(&mut std::io::stdout(), &text, code)
}

/// A result that nobody can read is no success.
fn print(to: &mut dyn std::io::Write, text: &str, code: ExitCode) -> ExitCode {
    to.write_all(text.as_bytes())
        .map_or(ExitCode::FAILURE, |()| code)
}
