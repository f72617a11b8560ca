//! `Runner.Worker`: runs one job that the listener gives it, and tells the server how it ended.

mod environment;
mod orders;
mod process;
mod steps;
mod sweep;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use self::orders::{Interruption, Orders};
use super::diag::{Diag, Perf, say};
use super::http::Server;
use super::protocol::{JobMessage, Order, TaskResult, guid};
use super::scenario::scaled;
use super::script::WorkerFault;

/// The exit code of an unhandled exception.
const UNHANDLED: u8 = 1;
const TERMINATED: i32 = 128 + 15;

/// One job under way.
struct Worker {
    root: PathBuf,
    job: JobMessage,
    credential: String,
    speed: f64,
    env: HashMap<String, String>,
    perf: Perf,
    diag: Diag,
    orders: Orders,
    tracking_id: String,
    /// Processes that were there before the job.
    before: Vec<i32>,
}

/// The whole program. Answers its exit code.
pub async fn run() -> u8 {
    let env: HashMap<String, String> = std::env::vars().collect();
    let Some(root) = std::env::current_exe()
        .ok()
        .and_then(|program| program.parent().and_then(Path::parent).map(Path::to_owned))
    else {
        return UNHANDLED;
    };
    let perf = Perf::new(env.get("RUNNER_PERFLOG"), "Worker");
    perf.count("WorkerProcessStarted");
    // SIGINT goes to the whole group at a terminal; the worker leaves it to the listener.
    let Ok(swallowed) = signal(SignalKind::interrupt()) else {
        return UNHANDLED;
    };
    let mut diag = Diag::open(&root, "Worker");
    perf.count("WorkerWaitingForJobMessage");
    let mut orders = Orders::listen();
    let Some(Order::Job {
        job,
        credential,
        speed,
    }) = orders.first().await
    else {
        return UNHANDLED;
    };
    perf.count(&format!("WorkerJobMessageReceived_{}", job.request_id));
    let text = serde_json::to_string_pretty(&job).unwrap_or_default();
    diag.info("Worker", &format!("Job message:\n {text}"));
    if let Ok(terminate) = signal(SignalKind::terminate()) {
        let interrupt = orders.interrupter();
        tokio::spawn(async move {
            let mut terminate = terminate;
            if terminate.recv().await.is_some() {
                interrupt.shut_down();
                tokio::time::sleep(scaled(30_000, speed)).await;
                std::process::exit(TERMINATED);
            }
        });
    }
    // Its own for each job: runners that share a machine must not sweep each other's steps.
    let tracking_id = format!("github_{}", guid());
    let worker = Worker {
        root,
        job: *job,
        credential,
        speed,
        env,
        perf,
        diag,
        orders,
        tracking_id,
        before: sweep::pids(),
    };
    let code = worker.run().await;
    drop(swallowed);
    code
}

impl Worker {
    async fn run(mut self) -> u8 {
        if self.job.script.worker == WorkerFault::Hang {
            self.orders.deafen();
        }
        let plan = self.job.job_guid.clone();
        self.perf.count(&format!(
            "WorkerJobServerQueueStarted_{}",
            self.job.request_id
        ));
        self.perf.count(&format!(
            "WorkerJobServerQueueAppendFirstConsoleOutput_{plan}"
        ));
        let result = match self.set_up().await {
            Err(result) => result,
            Ok(()) => match self.misbehave().await {
                Some(code) => return code,
                None => self.run_steps().await,
            },
        };
        let result = self.job.script.result.unwrap_or(result);
        sweep::orphans(&self.tracking_id, &self.before);
        self.complete(result).await;
        if self.job.script.worker == WorkerFault::Wedge {
            return std::future::pending().await;
        }
        result.exit_code()
    }

    /// "Set up job". The error is how the job ends without hooks and steps.
    async fn set_up(&mut self) -> Result<(), TaskResult> {
        let wait = self.time(self.job.script.setup_ms);
        match self
            .orders
            .unless_interrupted(tokio::time::sleep(wait))
            .await
        {
            Ok(()) if self.job.script.setup_fails => Err(TaskResult::Failed),
            Ok(()) => {
                self.perf
                    .count(&format!("WorkerJobInitialized_{}", self.job.request_id));
                self.prepare_folders().map_err(|_| TaskResult::Failed)
            }
            Err(Interruption::Cancel) => Err(TaskResult::Canceled),
            Err(Interruption::Shutdown) => Err(TaskResult::Failed),
        }
    }

    /// The exit code of a worker that dies of its fault here, if it does.
    async fn misbehave(&mut self) -> Option<u8> {
        match self.job.script.worker {
            WorkerFault::None | WorkerFault::Wedge => None,
            WorkerFault::Crash => {
                say(
                    "Unhandled exception. System.NullReferenceException: Object reference not set to an instance of an object.",
                );
                say(
                    "   at GitHub.Runner.Worker.JobRunner.RunAsync(AgentJobRequestMessage message, CancellationToken jobRequestCancellationToken)",
                );
                Some(1)
            }
            WorkerFault::DiskFull => {
                say(&format!(
                    "System.IO.IOException: No space left on device : '{}'",
                    self.diag.path.display()
                ));
                Some(1)
            }
            WorkerFault::Killed => {
                nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).ok();
                std::future::pending().await
            }
            WorkerFault::Hang => std::future::pending().await,
        }
    }

    /// Tells the server, in five tries; it may know already.
    async fn complete(&mut self, result: TaskResult) {
        self.diag.info(
            "JobRunner",
            &format!("Job result after all job steps finish: {result:?}"),
        );
        let Some(url) = self.job.server_url.clone() else {
            return;
        };
        let server = Server::new(&url, &self.credential);
        let body = json!({ "request_id": self.job.request_id, "result": result });
        for _ in 0..5 {
            match server.call(Method::POST, "complete", &body).await {
                Ok(_) => return,
                Err(error) => self
                    .diag
                    .info("JobRunner", &format!("completejob: {error}")),
            }
            tokio::time::sleep(self.time(5_000)).await;
        }
    }

    fn time(&self, millis: u64) -> Duration {
        scaled(millis, self.speed)
    }
}
