//! The runner's `RUNNER_PERFLOG` files: its life-cycle as lines `<counter>:<time>`.
//!
//! Undocumented and optional (HostContext.cs:165-178,633-650): read if it is there, never required. It
//! is the only sign that a job was assigned before the runner has fetched it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::lines::Lines;

/// Longest line that is looked at, in bytes.
const LINE_MAX: usize = 4 * 1024;
/// How much of one file is read over its life, in bytes. The job can write to it too.
const FILE_MAX: u64 = 1024 * 1024;

/// The meaning of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    /// The session exists: the runner listens.
    SessionCreated,
    /// GitHub gave the runner a job; it has yet to fetch it.
    JobAssigned,
    /// The runner has fetched the job, and its lock on it was renewed for the first time.
    JobAcquired,
    /// The runner makes a worker, or is about to send it the job.
    WorkerStarting,
    /// The worker lives.
    WorkerStarted,
    /// The job was sent to the worker.
    JobSent,
    /// The worker has read it.
    JobReceived,
    /// "Set up job" is over: hooks and steps follow.
    SetUpDone,
    /// The last step is over. No runner writes this: a completed hook may, as in
    /// `echo "MusterStepsDone:" >> "$RUNNER_PERFLOG/Worker.perf"`.
    StepsDone,
    /// GitHub cancels the job.
    JobCancelled,
    /// GitHub asks for an update of the runner.
    UpdateRequested,
    /// The lock on the job can't be renewed.
    RenewalFailing,
    /// It is renewed again.
    RenewalRecovered,
}

/// Counters by their whole names.
const NAMES: [(&str, Counter); 13] = [
    ("SessionCreated", Counter::SessionCreated),
    ("MessageReceived_RunnerJobRequest", Counter::JobAssigned),
    (
        "MessageReceived_PipelineAgentJobRequest",
        Counter::JobAssigned,
    ),
    ("MessageReceived_JobCancellation", Counter::JobCancelled),
    ("MessageReceived_RunnerRefresh", Counter::UpdateRequested),
    ("MessageReceived_AgentRefresh", Counter::UpdateRequested),
    ("StartingWorkerProcess", Counter::WorkerStarting),
    ("WorkerProcessStarted", Counter::WorkerStarted),
    ("WorkerWaitingForJobMessage", Counter::WorkerStarted),
    ("JobRenewReachLimit", Counter::RenewalFailing),
    ("ResetJobRenewConnection", Counter::RenewalFailing),
    ("JobRenewRecovered", Counter::RenewalRecovered),
    ("MusterStepsDone", Counter::StepsDone),
];

/// Counters whose names end in an id.
const PREFIXES: [(&str, Counter); 5] = [
    ("JobRequestRenewed_", Counter::JobAcquired),
    ("RunnerSendingJobToWorker_", Counter::WorkerStarting),
    ("SentJobToWorker_", Counter::JobSent),
    ("WorkerJobMessageReceived_", Counter::JobReceived),
    ("WorkerJobInitialized_", Counter::SetUpDone),
];

/// Reads one line of either file.
pub(crate) fn parse(line: &str) -> Option<Counter> {
    let (name, _) = line.split_once(':')?;
    let whole = NAMES.iter().find(|(known, _)| *known == name);
    let prefixed = || PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
    whole.or_else(prefixed).map(|(_, counter)| *counter)
}

/// Follows the two files of a directory.
#[derive(Debug)]
pub(crate) struct PerfLog {
    files: [Follower; 2],
}

impl PerfLog {
    /// Follows the files in `directory`, which need not exist yet.
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            files: ["Runner.perf", "Worker.perf"].map(|name| Follower::new(directory.join(name))),
        }
    }

    /// What was added since the last call.
    pub(crate) fn poll(&mut self) -> Vec<Counter> {
        let mut counters = Vec::new();
        for file in &mut self.files {
            counters.extend(file.poll().iter().filter_map(|line| parse(line)));
        }
        counters
    }
}

/// Reads a file as it grows.
#[derive(Debug)]
struct Follower {
    path: PathBuf,
    file: Option<File>,
    left: u64,
    lines: Lines,
}

impl Follower {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            left: FILE_MAX,
            lines: Lines::new(LINE_MAX),
        }
    }

    fn poll(&mut self) -> Vec<String> {
        if self.left == 0 {
            return Vec::new();
        }
        if self.file.is_none() {
            self.file = self.open();
        }
        let Some(file) = &mut self.file else {
            return Vec::new();
        };
        let mut bytes = Vec::new();
        match file.take(self.left).read_to_end(&mut bytes) {
            Ok(count) => self.left -= u64::try_from(count).unwrap_or(self.left).min(self.left),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "perf file is not readable");
                self.left = 0;
            }
        }
        self.lines.push(&bytes)
    }

    fn open(&mut self) -> Option<File> {
        // The job can put a link or a pipe there, also between a look and this.
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&self.path)
            .and_then(|file| Ok((file.metadata()?.is_file(), file)));
        match opened {
            Ok((true, file)) => Some(file),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            _ => {
                self.left = 0;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rstest::rstest;

    use super::{Counter, FILE_MAX, PerfLog, parse};

    #[rstest]
    #[case(
        "SessionCreated:2026-08-01T10:00:00.0000000Z",
        Some(Counter::SessionCreated)
    )]
    #[case(
        "MessageReceived_RunnerJobRequest:2026-08-01T10:00:00Z",
        Some(Counter::JobAssigned)
    )]
    #[case(
        "JobRequestRenewed_12:2026-08-01T10:00:00Z",
        Some(Counter::JobAcquired)
    )]
    #[case(
        "WorkerProcessStarted:2026-08-01T10:00:00Z",
        Some(Counter::WorkerStarted)
    )]
    #[case("SentJobToWorker_12:2026", Some(Counter::JobSent))]
    #[case("WorkerJobMessageReceived_12:2026", Some(Counter::JobReceived))]
    #[case("WorkerJobInitialized_12:2026", Some(Counter::SetUpDone))]
    #[case("MessageReceived_JobCancellation:2026", Some(Counter::JobCancelled))]
    #[case("MessageReceived_RunnerRefresh:2026", Some(Counter::UpdateRequested))]
    #[case("JobRenewReachLimit:2026", Some(Counter::RenewalFailing))]
    #[case("JobRenewRecovered:2026", Some(Counter::RenewalRecovered))]
    #[case("RunnerProcessStarted:2026-08-01T10:00:00Z", None)]
    #[case("MessageReceived_ForceTokenRefresh:2026", None)]
    #[case("WorkerJobServerQueueStarted_12:2026", None)]
    #[case("SessionCreated", None)]
    fn counters(#[case] line: &str, #[case] counter: Option<Counter>) {
        assert_eq!(parse(line), counter);
    }

    #[test]
    fn lines_are_seen_once_as_the_files_grow() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = PerfLog::new(dir.path());
        assert_eq!(log.poll(), []);
        let mut file = std::fs::File::create(dir.path().join("Runner.perf")).unwrap();
        file.write_all(b"SessionCreated:2026\nMessageReceived_Run")
            .unwrap();
        assert_eq!(log.poll(), [Counter::SessionCreated]);
        assert_eq!(log.poll(), []);
        file.write_all(b"nerJobRequest:2026\n").unwrap();
        assert_eq!(log.poll(), [Counter::JobAssigned]);
    }

    #[test]
    fn a_flooded_file_is_read_to_its_bound_only() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = PerfLog::new(dir.path());
        let mut flood = vec![b'x'; usize::try_from(FILE_MAX).unwrap()];
        flood.extend_from_slice(b"\nSessionCreated:2026\n");
        std::fs::write(dir.path().join("Runner.perf"), flood).unwrap();
        assert_eq!(log.poll(), []);
        assert_eq!(log.poll(), []);
    }
}
