//! What befalls a listener in the middle of a job, and ends both.

use super::{Ending, Listener};
use crate::standin::diag::complain;
use crate::standin::files;
use crate::standin::protocol::TaskResult;
use crate::standin::scenario::InJob;

impl Listener {
    /// Ends the listener once its worker has gone. Only an abandoned job has a result of its own.
    pub(super) fn after_break(&mut self, what: InJob, name: &str) -> Ending {
        if let InJob::Throw(_) = what {
            // The result of its dispatcher is preset, and nobody has said otherwise.
            return self.after_job(TaskResult::Succeeded);
        }
        if let InJob::Abandon(_) = what {
            self.say_now(&format!("Job {name} completed with result: Abandoned"));
            files::remove(&self.root);
            return self.after_job(TaskResult::Abandoned);
        }
        self.say_now(&format!("Job {name} completed with result: Canceled"));
        match what {
            InJob::Deprecated(_) => self.deprecated(),
            InJob::Deleted(_) => self.deleted(),
            _ => {
                complain("An error occurred: The HTTP request timed out after 00:01:40.");
                Ending::Retryable
            }
        }
    }
}
