//! One job: acknowledged, acquired, given to a worker, watched until the worker has gone
//! (actions/runner `JobDispatcher.cs`).

use std::process::Stdio;

use http::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::Instant;

use super::idle::Polled;
use super::{Ending, Listener};
use crate::standin::files;
use crate::standin::protocol::{JobMessage, Message, Order, TaskResult};
use crate::standin::scenario::{Assign, InJob};

const RENEW_MS: u64 = 60_000;
/// The worker must have read the job by then (`JobDispatcher.cs:74-82`).
const CHANNEL_MS: u64 = 30_000;
/// What of a crashed worker's output goes into the log.
const KEPT_OUTPUT: u64 = 64 * 1024;

/// How the worker's run ended, as the listener sees it.
enum Run {
    Ended(TaskResult),
    Broken(InJob),
    ShutDown,
}

impl Listener {
    /// The one job of this runner.
    pub(super) async fn take_job(&mut self, request_id: u64, session: &str) -> Ending {
        self.perf.count("MessageReceived_RunnerJobRequest");
        self.diag.info(
            "Runner",
            &format!("Acknowledging runner request '{request_id}'"),
        );
        match self.scenario.assign {
            Assign::AckGone => {
                files::remove(&self.root);
                return Ending::Success;
            }
            Assign::AcquireHang => {
                self.shutdown.cancelled().await;
                return Ending::Success;
            }
            Assign::AcquireLost => return self.ghost(session).await,
            Assign::Normal
            | Assign::RenewFail
            | Assign::NoWorker
            | Assign::IpcTimeout
            | Assign::IpcHang => {}
        }
        if !self.wait(self.scenario.acquire_ms).await {
            return Ending::Success;
        }
        let Some(job) = self.acquire(request_id).await else {
            return self.ghost(session).await;
        };
        self.diag.info(
            "JobDispatcher",
            &format!(
                "Job request {request_id} for plan {0} job {0} received.",
                job.job_guid
            ),
        );
        self.say_now(&format!("Running job: {}", job.display_name));
        if self.scenario.assign == Assign::RenewFail {
            // Five tries, then the job is given up without a worker and without a word.
            return if self.wait(30_000).await {
                self.after_job(TaskResult::Abandoned)
            } else {
                Ending::Success
            };
        }
        self.perf.count(&format!("JobRequestRenewed_{request_id}"));
        if self.scenario.assign == Assign::NoWorker {
            self.shutdown.cancelled().await;
            return Ending::Success;
        }
        self.dispatch(job, session).await
    }

    /// Lost the job but does not know that it is deregistered: listens for ever.
    async fn ghost(&mut self, session: &str) -> Ending {
        self.diag
            .info("Runner", "Skipping message Job. Job message not found");
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return Ending::Success,
                polled = self.poll(session) => match polled {
                    Polled::Deleted => return self.deleted(),
                    Polled::Failed(_) if !self.wait(22_000).await => return Ending::Success,
                    _ => {}
                },
            }
        }
    }

    /// The job itself: from the server, or from the scenario.
    async fn acquire(&self, request_id: u64) -> Option<JobMessage> {
        let Some(server) = &self.server else {
            return Some(self.scripted(request_id));
        };
        if !matches!(self.scenario.idle, crate::standin::scenario::Idle::Server) {
            return Some(self.scripted(request_id));
        }
        let body = json!({ "request_id": request_id });
        match server.call(Method::POST, "acquire", &body).await {
            Ok((StatusCode::OK, body)) => serde_json::from_value(body).ok(),
            _ => None,
        }
    }

    fn scripted(&self, request_id: u64) -> JobMessage {
        let job = &self.scenario.job;
        JobMessage {
            request_id,
            job_guid: "8a1d1f4e-6a1b-5c3f-9d0e-2b7c4d5e6f70".to_owned(),
            display_name: job.name.clone(),
            repository: job.repository.clone(),
            repository_id: 1,
            run_id: 1,
            run_number: 1,
            run_attempt: 1,
            workflow: "ci".to_owned(),
            runner_name: self.settings.agent_name.clone(),
            server_url: None,
            script: job.script.clone(),
        }
    }

    /// Has a worker run the job.
    async fn dispatch(&mut self, job: JobMessage, session: &str) -> Ending {
        let (name, request_id) = (job.display_name.clone(), job.request_id);
        self.perf.count("StartingWorkerProcess");
        let (mut worker, mut orders) = match self.start_worker() {
            Ok(started) => started,
            Err(error) => {
                self.diag.info("JobDispatcher", &format!("worker: {error}"));
                return self.after_job(TaskResult::Failed);
            }
        };
        self.perf
            .count(&format!("RunnerSendingJobToWorker_{}", job.job_guid));
        if self.scenario.assign == Assign::IpcHang {
            self.shutdown.cancelled().await;
            drop(worker.kill().await);
            return Ending::Success;
        }
        if self.scenario.assign == Assign::IpcTimeout {
            let in_time = self.wait(CHANNEL_MS).await;
            drop(worker.kill().await);
            return if in_time {
                self.after_job(TaskResult::Failed)
            } else {
                Ending::Success
            };
        }
        let order = Order::Job {
            job: Box::new(job),
            credential: self.settings.credential.clone(),
            speed: self.scenario.speed,
        };
        give(&mut orders, &order).await;
        self.perf.count(&format!("SentJobToWorker_{request_id}"));
        match self
            .watch(&mut worker, &mut orders, request_id, session)
            .await
        {
            Run::Broken(what) => self.after_break(what, &name),
            Run::ShutDown => {
                self.say_now(&format!("Job {name} completed with result: Canceled"));
                Ending::Success
            }
            Run::Ended(result) => {
                self.say_now(&format!("Job {name} completed with result: {result:?}"));
                files::remove(&self.root);
                self.wait(self.scenario.finish_ms).await;
                self.after_job(result)
            }
        }
    }

    fn start_worker(&self) -> std::io::Result<(Child, ChildStdin)> {
        let mut worker = Command::new(self.root.join("bin/Runner.Worker"))
            // The real one names two pipe handles; here the orders come on stdin.
            .args(["spawnclient", "0", "1"])
            .current_dir(&self.root)
            .env_clear()
            .envs(&self.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let orders = worker
            .stdin
            .take()
            .ok_or_else(|| std::io::Error::other("no stdin"))?;
        Ok((worker, orders))
    }

    /// Renews, passes a cancellation or a shutdown on, until the worker has gone. A shutdown waits
    /// for it without limit (`JobDispatcher.cs:238-251`).
    async fn watch(
        &mut self,
        worker: &mut Child,
        orders: &mut ChildStdin,
        request_id: u64,
        session: &str,
    ) -> Run {
        let output = tokio::spawn(drain(worker));
        let at =
            |millis: Option<u64>| millis.map(|millis| Instant::now() + self.scenario.wait(millis));
        let (mut cancel_at, die_at) = (
            at(self.scenario.cancel_after_ms),
            at(self.scenario.die_after_ms),
        );
        for counter in &self.scenario.renewal {
            self.perf.count(counter);
        }
        let in_job = self.scenario.in_job;
        let break_at = at(in_job.map(InJob::after_ms));
        let mut kill_at: Option<Instant> = None;
        let mut renew_at = Instant::now() + self.scenario.wait(RENEW_MS);
        let mut poll_at: Option<Instant> = None;
        let (mut told, mut cancelled) = (false, false);
        let mut broken = None;
        let status = loop {
            tokio::select! {
                status = worker.wait() => break status,
                () = self.shutdown.cancelled(), if !told => {
                    told = true;
                    give(orders, &Order::Shutdown).await;
                }
                () = until(Some(renew_at)) => {
                    self.renew(request_id).await;
                    renew_at = Instant::now() + self.scenario.wait(RENEW_MS);
                }
                () = until(die_at) => std::process::exit(die()),
                () = until(break_at), if !told => {
                    told = true;
                    broken = in_job;
                    if let Some(InJob::PollErrors(_)) = in_job {
                        let problem = "The HTTP request timed out after 00:01:40.";
                        self.complain_now(&format!(
                            "Runner connect error: {problem}. Retrying until reconnected."
                        ));
                    }
                    give(orders, &Order::Shutdown).await;
                }
                () = until(kill_at), if kill_at.is_some() => {
                    kill_at = None;
                    drop(worker.start_kill());
                }
                () = until(cancel_at), if !cancelled && !told => {
                    cancelled = true;
                    cancel_at = None;
                    kill_at = Some(self.cancel(orders, request_id, self.scenario.cancel_timeout_ms).await);
                }
                polled = self.poll_later(poll_at, session), if !told => match polled {
                    Polled::Message(Message::Cancel { timeout_ms, .. }) if !cancelled => {
                        cancelled = true;
                        kill_at = Some(self.cancel(orders, request_id, timeout_ms).await);
                    }
                    // The registration goes with the job, which the worker completes by itself.
                    Polled::Deleted | Polled::Failed(_) => {
                        poll_at = Some(Instant::now() + self.scenario.wait(15_000));
                    }
                    _ => {}
                },
            }
        };
        if let Some(what) = broken {
            return Run::Broken(what);
        }
        if told {
            return Run::ShutDown;
        }
        let code = status.ok().and_then(|status| status.code()).unwrap_or(137);
        match TaskResult::of_exit_code(code) {
            Some(result) => Run::Ended(result),
            None if cancelled => Run::Ended(TaskResult::Canceled),
            None => {
                let output = output.await.unwrap_or_default();
                self.diag.info(
                    "JobDispatcher",
                    &format!("Worker finished with code {code}: {output}"),
                );
                self.complete(request_id, TaskResult::Failed).await;
                Run::Ended(TaskResult::Failed)
            }
        }
    }

    async fn poll_later(&self, at: Option<Instant>, session: &str) -> Polled {
        if let Some(at) = at {
            tokio::time::sleep_until(at).await;
        }
        self.poll(session).await
    }

    /// Tells the worker; answers when it is killed: at the time-out, less 15 s
    /// (`JobDispatcher.cs:677-698,1269-1292`).
    async fn cancel(
        &mut self,
        orders: &mut ChildStdin,
        request_id: u64,
        timeout_ms: u64,
    ) -> Instant {
        self.perf.count("MessageReceived_JobCancellation");
        self.diag.info(
            "JobDispatcher",
            &format!(
                "Job cancellation request {request_id} received, cancellation timeout {} minutes.",
                timeout_ms / 60_000
            ),
        );
        for _ in 0..self.scenario.cancel_storm {
            self.perf.count("MessageReceived_JobCancellation");
        }
        give(orders, &Order::Cancel).await;
        Instant::now() + self.scenario.wait(timeout_ms.max(60_000) - 15_000)
    }

    async fn renew(&mut self, request_id: u64) {
        if let Some(server) = &self.server {
            let body = json!({ "request_id": request_id });
            drop(server.call(Method::POST, "renew", &body).await);
        }
        self.diag.info(
            "JobDispatcher",
            &format!("Successfully renew job {request_id}, job is valid till soon"),
        );
    }

    async fn complete(&self, request_id: u64, result: TaskResult) {
        if let Some(server) = &self.server {
            let body = json!({ "request_id": request_id, "result": result });
            drop(server.call(Method::POST, "complete", &body).await);
        }
    }
}

/// Writes an order; a worker that has gone is noticed by its exit.
async fn give(orders: &mut ChildStdin, order: &Order) {
    let mut line = serde_json::to_string(order).unwrap_or_default();
    line.push('\n');
    drop(orders.write_all(line.as_bytes()).await);
    drop(orders.flush().await);
}

/// Reads what a worker prints, so that it never blocks, and keeps the beginning.
fn drain(worker: &mut Child) -> impl Future<Output = String> + 'static {
    let (out, err) = (worker.stdout.take(), worker.stderr.take());
    async move {
        let mut kept = String::new();
        if let Some(out) = out {
            let mut limited = out.take(KEPT_OUTPUT);
            drop(limited.read_to_string(&mut kept).await);
            drop(tokio::io::copy(&mut limited.into_inner(), &mut tokio::io::sink()).await);
        }
        if let Some(mut err) = err {
            drop(tokio::io::copy(&mut err, &mut tokio::io::sink()).await);
        }
        kept
    }
}

/// Never, if there is no time.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Dies as by SIGKILL.
fn die() -> i32 {
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).ok();
    137
}
