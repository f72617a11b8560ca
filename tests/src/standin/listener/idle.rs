//! Waiting for a job, and what can come instead.

use http::{Method, StatusCode};
use serde_json::Value;

use super::{Ending, Listener};
use crate::standin::diag::{complain, say};
use crate::standin::files;
use crate::standin::protocol::Message;
use crate::standin::scenario::Idle;

/// Failed rounds that end the process (`BrokerMessageListener.cs:366-369`).
const ROUNDS: u32 = 10;
const SCRIPTED_REQUEST: u64 = 1;

/// What a poll brought.
pub(super) enum Polled {
    Message(Message),
    Nothing,
    Deleted,
    Failed(String),
}

impl Listener {
    /// Listens until something ends it.
    pub(super) async fn listen(&mut self, session: &str) -> Ending {
        match self.scenario.idle {
            Idle::Server if self.server.is_some() => self.listen_to_server(session).await,
            Idle::Server => {
                self.shutdown.cancelled().await;
                Ending::Success
            }
            Idle::Assign(after) => {
                if !self.wait(after).await {
                    return Ending::Success;
                }
                self.take_job(SCRIPTED_REQUEST, session).await
            }
            Idle::Deleted(after) => self.then(after, Self::deleted).await,
            Idle::Deprecated(after) => self.then(after, Self::deprecated).await,
            Idle::Revoked(after) => self.then(after, |_| Ending::Success).await,
            Idle::Update(after) => self.update(after).await,
            Idle::PollRefused(after) => self.then(after, |_| Self::refused()).await,
            Idle::PollErrors(rounds) => self.fail_to_poll(rounds).await,
        }
    }

    async fn then(&mut self, after: u64, end: impl Fn(&Self) -> Ending) -> Ending {
        if self.wait(after).await {
            end(self)
        } else {
            Ending::Success
        }
    }

    /// The registration is gone (`Runner.cs:823-830`).
    pub(super) fn deleted(&self) -> Ending {
        complain("The runner no longer exists on the server. Cleaning up local configuration.");
        files::remove(&self.root);
        Ending::Success
    }

    /// A poll's answer that no further try can better.
    fn refused() -> Ending {
        complain("An error occurred: Get next message failed with non-retryable error.");
        Ending::Terminated
    }

    pub(super) fn deprecated(&self) -> Ending {
        complain(&format!(
            "An error occurred: Runner version v{} is deprecated and cannot receive messages.",
            self.scenario.version
        ));
        if self.flag("ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE") {
            Ending::VersionDeprecated
        } else {
            Ending::Terminated
        }
    }

    /// `SelfUpdaterV2.cs:68-130`; `run.sh` would wait for `update.finished` in its working directory.
    async fn update(&mut self, after: u64) -> Ending {
        if !self.wait(after).await {
            return Ending::Success;
        }
        self.perf.count("MessageReceived_RunnerRefresh");
        say("Runner update in progress, do not shutdown runner.");
        say("Downloading 2.999.0 runner");
        if !self.wait(5_000).await {
            return Ending::Success;
        }
        for line in [
            "Waiting for current job finish running.",
            "Generate and execute update script.",
            "Runner will exit shortly for update, should be back online within 10 seconds.",
            "Runner update process finished.",
        ] {
            say(line);
        }
        drop(std::fs::write("update.finished", ""));
        Ending::RunOnceUpdating
    }

    async fn fail_to_poll(&mut self, rounds: u32) -> Ending {
        let problem = "The HTTP request timed out after 00:01:40.";
        for round in 1..=rounds {
            if let Some(ending) = self.failed_round(round, problem).await {
                return ending;
            }
        }
        self.shutdown.cancelled().await;
        Ending::Success
    }

    /// One failed round of polling, with its pause; the tenth ends the process.
    async fn failed_round(&self, round: u32, problem: &str) -> Option<Ending> {
        if round == 1 {
            self.complain_now(&format!(
                "Runner connect error: {problem}. Retrying until reconnected."
            ));
        }
        if round >= ROUNDS {
            complain(&format!("An error occurred: {problem}"));
            return Some(Ending::Retryable);
        }
        let pause = if round <= 5 { 22_000 } else { 45_000 };
        (!self.wait(pause).await).then_some(Ending::Success)
    }

    async fn listen_to_server(&mut self, session: &str) -> Ending {
        let mut failures = 0;
        loop {
            let polled = tokio::select! {
                polled = self.poll(session) => polled,
                () = self.shutdown.cancelled() => return Ending::Success,
            };
            match polled {
                Polled::Message(Message::Job { request_id }) => {
                    return self.take_job(request_id, session).await;
                }
                Polled::Message(Message::Cancel { .. }) | Polled::Nothing => {}
                Polled::Deleted => return self.deleted(),
                Polled::Failed(problem) => {
                    failures += 1;
                    if let Some(ending) = self.failed_round(failures, &problem).await {
                        return ending;
                    }
                }
            }
        }
    }

    /// Asks the server once.
    pub(super) async fn poll(&self, session: &str) -> Polled {
        let Some(server) = &self.server else {
            return std::future::pending().await;
        };
        match server
            .call(
                Method::GET,
                &format!("message?session={session}"),
                &Value::Null,
            )
            .await
        {
            Ok((StatusCode::OK, body)) => match serde_json::from_value(body) {
                Ok(message) => Polled::Message(message),
                Err(error) => Polled::Failed(error.to_string()),
            },
            Ok((StatusCode::ACCEPTED, _)) => Polled::Nothing,
            Ok((StatusCode::NOT_FOUND, _)) => Polled::Deleted,
            Ok((status, _)) => Polled::Failed(format!("Error: {status}")),
            Err(error) => Polled::Failed(error.to_string()),
        }
    }
}
