//! The runner on a simulated host: it listens at the fake GitHub, takes one job, and ends.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use muster_core::{HostPhase, Outcome};
use muster_tests::standin::protocol::JobMessage;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::plant::Plant;

/// The lock of a job is renewed this often (actions/runner `JobDispatcher.cs`).
const RENEW: Duration = Duration::from_mins(1);
/// Between two tries of what GitHub doesn't answer.
const AGAIN: Duration = Duration::from_secs(5);

/// What the agent sees of its runner.
#[derive(Debug)]
pub(crate) enum News {
    Phase(HostPhase, Option<String>),
    Finished(Outcome, String),
}

/// A runner with its registration.
pub(crate) struct Listener {
    pub(crate) plant: Arc<Plant>,
    pub(crate) instance: String,
    pub(crate) runner_name: String,
    pub(crate) credential: String,
    /// Cancelled by an interrupt.
    pub(crate) stop: CancellationToken,
    pub(crate) news: Sender<News>,
}

impl Listener {
    /// Runs until it ends by itself or by the interrupt.
    pub(crate) async fn run(self) {
        let (outcome, reason) = self.work().await;
        // An agent that is gone needs no news.
        let _ = self
            .news
            .try_send(News::Finished(outcome, reason.to_owned()));
    }

    fn phase(&self, phase: HostPhase, job: Option<&str>) {
        let _ = self
            .news
            .try_send(News::Phase(phase, job.map(str::to_owned)));
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let github = &self.plant.github;
        github
            .runner_call(&method, path, &self.credential, &body)
            .await
    }

    async fn work(&self) -> (Outcome, &'static str) {
        self.phase(HostPhase::Starting, None);
        if timeout(Duration::from_secs(2), self.stop.cancelled())
            .await
            .is_ok()
        {
            return (Outcome::Unused, "it was stopped as it started");
        }
        let session = loop {
            match self.call(Method::POST, "session", json!({})).await {
                (200, answer) => {
                    break answer["session_id"].as_str().unwrap_or_default().to_owned();
                }
                (401, _) => return (Outcome::Unused, "its registration was deleted"),
                _ if self.stop.is_cancelled() => return (Outcome::Unused, "it was stopped"),
                _ => sleep(AGAIN).await,
            }
        };
        self.plant
            .tally()
            .ran_on
            .insert(self.runner_name.clone(), self.instance.clone());
        self.phase(HostPhase::Listening, None);
        let path = format!("message?session={session}");
        loop {
            let polled = tokio::select! {
                polled = self.call(Method::GET, &path, Value::Null) => polled,
                () = self.stop.cancelled() => {
                    self.call(Method::DELETE, "session", Value::Null).await;
                    return (Outcome::Unused, "it was stopped and had no job");
                }
            };
            match polled {
                (200, message) if message["type"] == "job" => {
                    let id = message["request_id"].as_u64().unwrap_or_default();
                    return self.job(id).await;
                }
                (200 | 202, _) => {}
                (404, _) => return (Outcome::Unused, "its registration was deleted"),
                _ => sleep(AGAIN).await,
            }
        }
    }

    async fn job(&self, id: u64) -> (Outcome, &'static str) {
        self.phase(HostPhase::Assigned, None);
        sleep(Duration::from_millis(700)).await;
        let about = json!({ "request_id": id });
        let (200, message) = self.call(Method::POST, "acquire", about.clone()).await else {
            return (Outcome::Abandoned, "the job was not its any more");
        };
        let job: JobMessage = serde_json::from_value(message).unwrap();
        self.phase(HostPhase::Running, Some(&job.display_name));
        let (length, fails) = nature(self.plant.seed, &job.display_name);
        let complete = |result: &str| json!({ "request_id": id, "result": result });
        let renew = async {
            loop {
                sleep(RENEW).await;
                self.call(Method::POST, "renew", about.clone()).await;
            }
        };
        tokio::select! {
            () = sleep(length) => {}
            () = renew => {}
            () = self.stop.cancelled() => {
                self.plant.tally().given_up.insert(id, "its runner was interrupted".to_owned());
                self.call(Method::POST, "complete", complete("Canceled")).await;
                return (Outcome::Interrupted, "it was interrupted in its job");
            }
        }
        let result = if fails { "Failed" } else { "Succeeded" };
        if fails {
            self.plant.tally().meant_to_fail.insert(id);
        }
        self.call(Method::POST, "complete", complete(result)).await;
        if fails {
            (Outcome::Failed, "the job failed")
        } else {
            (Outcome::Succeeded, "the job succeeded")
        }
    }
}

/// How long a job takes, and whether it fails.
fn nature(seed: u64, name: &str) -> (Duration, bool) {
    let number: u64 = name.trim_start_matches("job-").parse().unwrap_or(0);
    let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003) ^ number);
    // Mostly half a minute to some minutes, now and then long.
    let seconds = if random.random_bool(0.05) {
        random.random_range(600.0..1_500.0)
    } else {
        random.random_range(20.0..180.0)
    };
    (Duration::from_secs_f64(seconds), random.random_bool(0.03))
}

/// What a runner shows to GitHub, out of its configuration.
pub(crate) fn credential(jit_config: &str) -> Option<String> {
    let json =
        |text: &str| -> Option<Value> { serde_json::from_slice(&STANDARD.decode(text).ok()?).ok() };
    let files = json(jit_config)?;
    let credentials = json(files[".credentials"].as_str()?)?;
    Some(credentials["Data"]["ClientId"].as_str()?.to_owned())
}
