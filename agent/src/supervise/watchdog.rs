//! How long each step of a runner may take.

use std::time::Duration;

use serde_json::Value;

/// Longest time that a configuration may set, in seconds: a day.
const SECONDS_MAX: f64 = 24.0 * 3600.0;

/// The time limits of [`super::machine::Machine`]. The configuration's `runner_limits` names them as
/// they are here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From the process to "listening".
    pub(crate) connect: Duration,
    /// The same once the runner has met another session of its registration: it tries 8 times, 30 s
    /// apart (BrokerMessageListener.cs:36-37,472-492).
    pub(crate) connect_after_conflict: Duration,
    /// From "assigned" to the first renewal of the lock on the job. Fetching the job can hang for ever
    /// (<https://github.com/actions/runner/issues/4668>).
    pub(crate) acquire: Duration,
    /// From there to the worker's process.
    pub(crate) worker_start: Duration,
    /// From the worker's process until it has read its job; the runner itself gives up after 30 s
    /// (JobDispatcher.cs:74-82).
    pub(crate) worker_message: Duration,
    /// From there to the end of "Set up job". Only said.
    pub(crate) setup: Duration,
    /// From the end of the last step to the worker's end
    /// (<https://github.com/actions/runner/issues/4418>).
    pub(crate) worker_exit: Duration,
    /// Between two looks at the process table while a job runs.
    pub(crate) look: Duration,
    /// From a look that shows a job without a worker to its worker or its result. A job can stop its
    /// own runner, so that nobody would ever say more; its lock lasts no longer than this.
    pub(crate) worker_gone: Duration,
    /// From a cancellation to the job's end. The runner kills its worker 15 s before GitHub's five
    /// minutes are over (JobDispatcher.cs:677-698).
    pub(crate) cancel: Duration,
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
            worker_start: Duration::from_secs(60),
            worker_message: Duration::from_secs(45),
            setup: Duration::from_secs(600),
            worker_exit: Duration::from_secs(120),
            look: Duration::from_secs(30),
            worker_gone: Duration::from_secs(600),
            cancel: Duration::from_secs(600),
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

impl Limits {
    /// Reads the configuration's `runner_limits`: an object of seconds, fractions allowed; what it
    /// doesn't name keeps its default. Every problem is added to `problems`.
    pub(crate) fn parse(value: Option<Value>, problems: &mut Vec<String>) -> Self {
        const NAME: &str = "runner_limits";
        let mut limits = Self::default();
        let map = match value {
            None | Some(Value::Null) => return limits,
            Some(Value::Object(map)) => map,
            Some(_) => {
                problems.push(format!("{NAME}: not an object; expected one of seconds"));
                return limits;
            }
        };
        for (name, value) in map {
            let Some((_, limit)) = limits.fields().into_iter().find(|(n, _)| *n == name) else {
                problems.push(format!("{NAME}.{name}: not a known limit"));
                continue;
            };
            match value.as_f64().filter(|s| *s > 0.0 && *s <= SECONDS_MAX) {
                Some(seconds) => *limit = Duration::from_secs_f64(seconds),
                None => problems.push(format!(
                    "{NAME}.{name}: {value}; expected seconds, more than 0 and at most {SECONDS_MAX}"
                )),
            }
        }
        limits
    }

    /// Each with its name in the configuration.
    pub(crate) fn fields(&mut self) -> [(&'static str, &mut Duration); 17] {
        [
            ("connect", &mut self.connect),
            ("connect_after_conflict", &mut self.connect_after_conflict),
            ("acquire", &mut self.acquire),
            ("worker_start", &mut self.worker_start),
            ("worker_message", &mut self.worker_message),
            ("setup", &mut self.setup),
            ("worker_exit", &mut self.worker_exit),
            ("look", &mut self.look),
            ("worker_gone", &mut self.worker_gone),
            ("cancel", &mut self.cancel),
            ("exit_after_result", &mut self.exit_after_result),
            ("hang_grace", &mut self.hang_grace),
            ("repeat_interrupt", &mut self.repeat_interrupt),
            ("give_up", &mut self.give_up),
            ("orphaned_worker", &mut self.orphaned_worker),
            ("interrupt_lead", &mut self.interrupt_lead),
            ("stop_grace", &mut self.stop_grace),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::Limits;

    #[test]
    fn limits_are_read_by_name_and_the_others_stay() {
        let mut problems = Vec::new();
        let limits = Limits::parse(Some(json!({"acquire": 0.25, "connect": 3})), &mut problems);
        assert_eq!(problems, [] as [String; 0]);
        assert_eq!(limits.acquire, Duration::from_millis(250));
        assert_eq!(limits.connect, Duration::from_secs(3));
        assert_eq!(limits.stop_grace, Limits::default().stop_grace);
    }

    #[test]
    fn every_problem_of_the_limits_is_named() {
        let mut problems = Vec::new();
        let value =
            json!({"acquire": 0, "connect": "x", "give_up": 1e9, "surprise": 1, "setup": 1});
        Limits::parse(Some(value), &mut problems);
        Limits::parse(Some(json!(7)), &mut problems);
        assert_eq!(problems.len(), 5, "{problems:?}");
        assert!(
            problems
                .iter()
                .any(|p| p.contains("runner_limits.surprise"))
        );
    }

    #[test]
    fn every_limit_can_be_set() {
        let mut limits = Limits::default();
        let count = limits.fields().len();
        // The derived form names each field once.
        assert_eq!(format!("{limits:?}").matches(": ").count(), count);
    }
}
