//! What goes into the machine, and what comes out.

use std::time::{Duration, Instant};

use muster_proto::v1::{RunnerOutcome, RunnerPhase, TroubleKind};

use super::console::ConsoleLine;
use super::outcome::Exit;
use super::perflog::Counter;

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The runner's process exists.
    Started,
    /// It could not be made, for this reason.
    StartFailed(String),
    /// It printed a line.
    Console(ConsoleLine),
    /// Lines that it printed may have been missed.
    ConsoleGap,
    /// A counter appeared in its perf files.
    Counter(Counter),
    /// It ended; `worker` says whether a worker process is still there.
    Exited {
        /// How.
        exit: Exit,
        /// Whether its worker goes on.
        worker: bool,
    },
    /// A look at the process table.
    Looked {
        /// Whether a worker process exists.
        worker: bool,
    },
    /// Take no new job; `deadline` is when the instance goes.
    Drain {
        /// When the instance goes, if that is known.
        deadline: Option<Instant>,
        /// A fresh look: whether a worker process exists.
        worker: bool,
    },
    /// The registration is gone.
    Retire {
        /// A fresh look: whether a worker process exists.
        worker: bool,
    },
    /// Stop whatever runs, for this reason.
    Shutdown(String),
    /// New settings; what is none stays as it was.
    Settings {
        /// How long before a deadline a runner is told to stop.
        interrupt_lead: Option<Duration>,
        /// How long it may take then.
        stop_grace: Option<Duration>,
    },
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Report that the runner advanced to this phase. Each is reported, also one that was passed
    /// without being seen.
    Phase {
        /// The phase.
        phase: RunnerPhase,
        /// Name of the job, once one runs and it is known.
        job: Option<String>,
    },
    /// Report what the look at the runner showed.
    Drained {
        /// Nothing is assigned to it.
        idle: bool,
        /// Its phase.
        phase: RunnerPhase,
    },
    /// Report that the runner is in trouble and goes on. `detail` may hold what the job printed.
    Trouble {
        /// Which.
        kind: TroubleKind,
        /// One sentence for people.
        detail: String,
    },
    /// Send SIGINT to the runner's process, and to it only.
    Interrupt,
    /// Kill the runner and every descendant.
    Kill,
    /// Report the end. Nothing follows.
    Finished(Finish),
}

/// The end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finish {
    /// What it came to.
    pub(crate) outcome: RunnerOutcome,
    /// How the process ended, if there was one.
    pub(crate) exit: Option<Exit>,
    /// Name of its job.
    pub(crate) job: Option<String>,
    /// One sentence for people. It may hold what the job printed.
    pub(crate) reason: String,
}
