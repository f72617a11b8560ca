//! One process of a step: started, watched, and stopped in three stages
//! (actions/runner `ProcessInvoker.cs:32-33,443-505,569-591,855-869`).

use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::Worker;
use super::orders::Interruption;

const INTERRUPT_MS: u64 = 7_500;
const TERMINATE_MS: u64 = 2_500;
/// A grandchild may hold the output open so long.
const OUTPUT_MS: u64 = 5_000;

/// How a step's process ended.
pub(super) enum Outcome {
    Done,
    Failed,
    Interrupted(Interruption),
}

impl Worker {
    /// `bash -e <file>` in the workspace; its output goes to `_diag/pages`.
    pub(super) async fn run_file(&mut self, index: usize, file: &Path) -> Outcome {
        let log = self
            .root
            .join(format!("_diag/pages/{}_{index}.log", self.job.job_guid));
        let mut child = match self.spawn(file) {
            Ok(child) => child,
            Err(error) => {
                self.diag.info("ProcessInvoker", &error.to_string());
                return Outcome::Failed;
            }
        };
        if let Some(pid) = child.id() {
            // Steps die before the runner does, when memory runs out. Lowering may not be allowed.
            let score = self
                .env
                .get("PIPELINE_JOB_OOMSCOREADJ")
                .map_or("500", String::as_str);
            drop(std::fs::write(format!("/proc/{pid}/oom_score_adj"), score));
        }
        let output = tokio::spawn(log_output(child.stdout.take(), child.stderr.take(), log));
        let outcome = match self.orders.unless_interrupted(child.wait()).await {
            Ok(Ok(status)) if status.success() => Outcome::Done,
            Ok(Ok(status)) => {
                // As ProcessInvoker does, so that the log tells which step it was.
                let file = file.file_name().unwrap_or_default().display();
                self.diag.info(
                    "ProcessInvokerWrapper",
                    &format!("Finished {file}: {status}"),
                );
                Outcome::Failed
            }
            Ok(Err(_)) => Outcome::Failed,
            Err(interruption) => {
                self.stop(&mut child).await;
                Outcome::Interrupted(interruption)
            }
        };
        self.finish_output(output).await;
        outcome
    }

    fn spawn(&self, file: &Path) -> std::io::Result<Child> {
        Command::new("bash")
            .arg("-e")
            .arg(file)
            .current_dir(self.workspace())
            .env_clear()
            .envs(self.environment())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    }

    /// SIGINT, SIGTERM, SIGKILL, with pauses; to that one process only.
    async fn stop(&self, child: &mut Child) {
        for (signal, pause) in [
            (Signal::SIGINT, INTERRUPT_MS),
            (Signal::SIGTERM, TERMINATE_MS),
            (Signal::SIGKILL, OUTPUT_MS),
        ] {
            let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else {
                return;
            };
            kill(Pid::from_raw(pid), signal).ok();
            if tokio::time::timeout(self.time(pause), child.wait())
                .await
                .is_ok()
            {
                return;
            }
        }
    }

    async fn finish_output(&self, mut output: JoinHandle<()>) {
        if tokio::time::timeout(self.time(OUTPUT_MS), &mut output)
            .await
            .is_err()
        {
            output.abort();
        }
    }
}

async fn log_output(
    out: Option<tokio::process::ChildStdout>,
    err: Option<tokio::process::ChildStderr>,
    path: std::path::PathBuf,
) {
    let Ok(mut file) = tokio::fs::File::create(path).await else {
        return;
    };
    let Ok(mut second) = file.try_clone().await else {
        return;
    };
    let copy_out = async {
        if let Some(mut out) = out {
            drop(tokio::io::copy(&mut out, &mut file).await);
            drop(file.flush().await);
        }
    };
    let copy_err = async {
        if let Some(mut err) = err {
            drop(tokio::io::copy(&mut err, &mut second).await);
            drop(second.flush().await);
        }
    };
    tokio::join!(copy_out, copy_err);
}
