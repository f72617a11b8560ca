//! A runner that is no process: it reports phases, and takes a job from the fake GitHub if it is of the
//! pool that has some.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use muster_proto::v1::{RunnerOutcome, RunnerPhase};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::ground::Ground;
use super::host::News;

/// Time between two renewals of a job.
const RENEW: Duration = Duration::from_secs(30);
/// Wait before a call to GitHub is made again.
const AGAIN: Duration = Duration::from_secs(1);

/// One runner.
pub(super) struct Runner {
    pub(super) ground: Arc<Ground>,
    pub(super) jit_config: String,
    /// Whether it is of the pool that has jobs.
    pub(super) works: bool,
    /// From its start to its listening.
    pub(super) start: Duration,
    /// How long its job lasts, if it ends by itself.
    pub(super) lasts: Option<Duration>,
    pub(super) news: mpsc::Sender<News>,
    pub(super) stop: CancellationToken,
}

impl Runner {
    /// Runs it to its end.
    pub(super) async fn run(self) {
        let stop = self.stop.clone();
        let (outcome, reason) = match stop.run_until_cancelled(self.listen()).await {
            None => (RunnerOutcome::Unused, "it was stopped and had no job"),
            Some(Err(end)) => end,
            // From here on it is not stopped: a job is let end.
            Some(Ok(job)) => self.job(job).await,
        };
        self.tell(News::Finished(outcome, reason)).await;
    }

    /// Waits for a job; gives its number.
    async fn listen(&self) -> Result<u64, (RunnerOutcome, &'static str)> {
        sleep(self.start).await;
        for phase in [RunnerPhase::Connected, RunnerPhase::Listening] {
            self.tell(News::Phase(phase, None)).await;
        }
        if !self.works {
            return std::future::pending().await;
        }
        let mut polling = self.ground.polling.subscribe();
        // The sender lives as long as the ground.
        let _ = polling.wait_for(|polling| *polling).await;
        let session = loop {
            match self.call(Method::POST, "session", Value::Null).await {
                (200, answer) => {
                    break answer["session_id"].as_str().unwrap_or_default().to_owned();
                }
                (401, _) => return Err((RunnerOutcome::Unused, "its registration was deleted")),
                _ => sleep(AGAIN).await,
            }
        };
        let path = format!("message?session={session}");
        loop {
            match self.call(Method::GET, &path, Value::Null).await {
                (200, message) if message["type"] == "job" => {
                    return Ok(message["request_id"].as_u64().unwrap_or_default());
                }
                (200 | 202, _) => {}
                (404, _) => return Err((RunnerOutcome::Unused, "its registration was deleted")),
                _ => sleep(AGAIN).await,
            }
        }
    }

    async fn job(&self, id: u64) -> (RunnerOutcome, &'static str) {
        self.tell(News::Phase(RunnerPhase::Assigned, None)).await;
        let about = json!({ "request_id": id });
        let (200, job) = self.call(Method::POST, "acquire", about.clone()).await else {
            return (RunnerOutcome::Abandoned, "the job was not its any more");
        };
        let name = job["display_name"].as_str().map(str::to_owned);
        self.tell(News::Phase(RunnerPhase::Running, name)).await;
        let mut end = self.ground.jobs_end.subscribe();
        let lasts = async {
            match self.lasts {
                Some(lasts) => sleep(lasts).await,
                None => std::future::pending().await,
            }
        };
        let renew = async {
            loop {
                sleep(RENEW).await;
                self.call(Method::POST, "renew", about.clone()).await;
            }
        };
        tokio::select! {
            _ = end.wait_for(|end| *end) => {}
            () = lasts => {}
            () = renew => {}
        }
        let complete = json!({ "request_id": id, "result": "Succeeded" });
        self.call(Method::POST, "complete", complete).await;
        (RunnerOutcome::Succeeded, "the job succeeded")
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let Some(credential) = credential(&self.jit_config) else {
            return (401, Value::Null);
        };
        let github = &self.ground.world.github;
        github.runner_call(&method, path, &credential, &body).await
    }

    async fn tell(&self, news: News) {
        // The agent is gone, as its instance is.
        let _ = self.news.send(news).await;
    }
}

/// What a runner shows to GitHub, out of its configuration.
fn credential(jit_config: &str) -> Option<String> {
    let json =
        |text: &str| -> Option<Value> { serde_json::from_slice(&STANDARD.decode(text).ok()?).ok() };
    let files = json(jit_config)?;
    let credentials = json(files[".credentials"].as_str()?)?;
    Some(credentials["Data"]["ClientId"].as_str()?.to_owned())
}
