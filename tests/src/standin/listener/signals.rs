//! SIGINT and SIGQUIT shut down with a word, SIGTERM without one and with a limit
//! (actions/runner `Runner.cs:350-391`, `Terminal.cs:40-44`). SIGHUP keeps its default: death.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::standin::diag::say;

/// Exit code of a process that SIGTERM ended.
const TERMINATED: i32 = 128 + 15;

/// Starts to listen. `forced_after`: how long a SIGTERM leaves before the process ends anyway. `deaf`:
/// how long SIGINT is swallowed, as between `Terminal` and its first subscriber (`Runner.cs:77`).
pub(super) fn listen(
    shutdown: &CancellationToken,
    forced_after: Duration,
    deaf: Duration,
) -> std::io::Result<()> {
    // .NET honours a SIGINT that was ignored at exec, and never sees it.
    if !ignored_at_exec(2) {
        tokio::spawn(shut_down_on(
            signal(SignalKind::interrupt())?,
            shutdown.clone(),
            Instant::now() + deaf,
        ));
    }
    tokio::spawn(shut_down_on(
        signal(SignalKind::quit())?,
        shutdown.clone(),
        Instant::now(),
    ));
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        if terminate.recv().await.is_some() {
            shutdown.cancel();
            tokio::time::sleep(forced_after).await;
            std::process::exit(TERMINATED);
        }
    });
    Ok(())
}

async fn shut_down_on(mut signals: Signal, shutdown: CancellationToken, from: Instant) {
    while signals.recv().await.is_some() {
        if Instant::now() < from {
            continue;
        }
        say("Exiting...");
        shutdown.cancel();
    }
}

/// Whether a signal came ignored from the parent.
fn ignored_at_exec(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << (number - 1)) != 0)
}
