//! How long each step of a runner may take.

use std::time::Duration;

/// The time limits of [`super::machine::Machine`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From the process to "listening".
    pub(crate) connect: Duration,
    /// The same once the runner has met another session of its registration: it tries 8 times, 30 s
    /// apart (BrokerMessageListener.cs:36-37,472-492).
    pub(crate) connect_after_conflict: Duration,
    /// From "assigned" to "running". Fetching the job can hang for ever
    /// (<https://github.com/actions/runner/issues/4668>).
    pub(crate) acquire: Duration,
    /// From the result on the console to the process's end.
    pub(crate) exit_after_result: Duration,
    /// From SIGINT to SIGKILL for a runner that hangs.
    pub(crate) hang_grace: Duration,
    /// Between two SIGINTs. The first one can fall into a moment in which the runner doesn't listen to
    /// it (Program.cs:38, Runner.cs:77); more of them do no harm.
    pub(crate) repeat_interrupt: Duration,
    /// From the first SIGKILL to the end of waiting.
    pub(crate) give_up: Duration,
    /// How long a worker may go on after its runner has died: as long as the job's lock lasts.
    pub(crate) orphaned_worker: Duration,
    /// How long before a deadline a runner is told to stop. The coordinator's to set.
    pub(crate) interrupt_lead: Duration,
    /// From SIGINT to SIGKILL for a runner that works. The coordinator's to set. A step alone may take
    /// 15 s to die (ProcessInvoker.cs:32-33,485-505).
    pub(crate) stop_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(120),
            connect_after_conflict: Duration::from_secs(360),
            acquire: Duration::from_secs(90),
            exit_after_result: Duration::from_secs(60),
            hang_grace: Duration::from_secs(10),
            repeat_interrupt: Duration::from_secs(5),
            give_up: Duration::from_secs(30),
            orphaned_worker: Duration::from_secs(600),
            interrupt_lead: Duration::from_secs(45),
            stop_grace: Duration::from_secs(45),
        }
    }
}
