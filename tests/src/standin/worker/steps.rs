//! Hooks and steps, one after the other (actions/runner `StepsRunner.cs`, `JobExtension.cs`).

use std::path::Path;

use super::Worker;
use super::orders::Interruption;
use super::process::Outcome;
use crate::standin::protocol::TaskResult;
use crate::standin::script::Condition;

/// What a job runs: a hook that the administrator configured, or a step of the workflow.
enum Work {
    Hook(String),
    Script { run: String, condition: Condition },
}

impl Worker {
    /// Runs all that the job's state lets run; answers the job's result.
    pub(super) async fn run_steps(&mut self) -> TaskResult {
        let hook = |name: &str| self.env.get(name).filter(|path| !path.is_empty()).cloned();
        let started = hook("ACTIONS_RUNNER_HOOK_JOB_STARTED").map(Work::Hook);
        let completed = hook("ACTIONS_RUNNER_HOOK_JOB_COMPLETED").map(Work::Hook);
        let steps: Vec<Work> = self
            .job
            .script
            .steps
            .iter()
            .map(|step| Work::Script {
                run: step.run.clone(),
                condition: step.condition,
            })
            .collect();
        let mut result = TaskResult::Succeeded;
        for (index, work) in started
            .into_iter()
            .chain(steps)
            .chain(completed)
            .enumerate()
        {
            if self.orders.interruption() == Some(Interruption::Shutdown) {
                // All that is left is skipped, even `always()` and the completed hook.
                return TaskResult::Failed;
            }
            if self.orders.interruption() == Some(Interruption::Cancel) {
                result = TaskResult::Canceled;
            }
            if !due(&work, result) {
                continue;
            }
            let outcome = match work {
                Work::Hook(path) => self.run_hook(index, &path).await,
                Work::Script { run, .. } => self.run_script(index, &run).await,
            };
            result = match outcome {
                Outcome::Failed if result == TaskResult::Succeeded => TaskResult::Failed,
                Outcome::Done | Outcome::Failed => result,
                Outcome::Interrupted(Interruption::Cancel) => TaskResult::Canceled,
                Outcome::Interrupted(Interruption::Shutdown) => return TaskResult::Failed,
            };
        }
        result
    }

    async fn run_hook(&mut self, index: usize, path: &str) -> Outcome {
        let file = Path::new(path);
        let known = file
            .extension()
            .is_some_and(|it| it == "sh" || it == "ps1" || it == "js");
        if !known || !file.exists() {
            self.diag
                .info("JobExtension", &format!("File doesn't exist: {path}"));
            return Outcome::Failed;
        }
        self.run_file(index, file).await
    }

    async fn run_script(&mut self, index: usize, run: &str) -> Outcome {
        let file = self
            .temp()
            .join(format!("{}-{index}.sh", self.job.job_guid));
        if let Err(error) = std::fs::write(&file, run) {
            self.diag.info("ScriptHandler", &error.to_string());
            return Outcome::Failed;
        }
        self.run_file(index, &file).await
    }
}

/// Whether the work's condition holds.
fn due(work: &Work, result: TaskResult) -> bool {
    match work {
        Work::Hook(_) => true,
        Work::Script { condition, .. } => match condition {
            Condition::Success => result == TaskResult::Succeeded,
            Condition::Always => true,
            Condition::Failure => result == TaskResult::Failed,
            Condition::Cancelled => result == TaskResult::Canceled,
        },
    }
}
