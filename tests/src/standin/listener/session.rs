//! Creating the session, with all the ways in which that fails
//! (actions/runner `BrokerMessageListener.cs:36-37,131-133,472-492`).

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Ending, Listener};
use crate::standin::diag::{complain, say};
use crate::standin::scenario::Start;

const RETRY_MS: u64 = 30_000;
const CONFLICTS: u32 = 8;
const CLOCK: &str = "The local machine's clock may be out of sync with the server time by more than five minutes. Please sync your clock with your domain or internet time and try again.";
const DELETED: &str = "Failed to create a session. The runner registration has been deleted from the server, please re-configure. Runner registrations are automatically deleted for runners that have not connected to the service recently.";

/// How one try went.
enum Try {
    Opened(String),
    Conflict,
    Deleted,
    Forbidden,
    ClockSkew,
    Unreachable(String),
}

impl Listener {
    /// Opens the session; the error is how the process ends instead.
    pub(super) async fn open_session(&mut self) -> Result<String, Ending> {
        let mut complained = false;
        let mut conflicts = 0;
        let mut failures = 0;
        if !self.wait(self.scenario.connect_ms).await {
            return Err(Ending::Success);
        }
        loop {
            say("");
            say("√ Connected to GitHub");
            say("");
            if !self.wait(self.scenario.session_ms).await {
                return Err(Ending::Success);
            }
            let problem = match self.try_session(conflicts, failures).await {
                Try::Opened(session) => {
                    if complained {
                        self.say_now("Runner reconnected.");
                    }
                    return Ok(session);
                }
                Try::Deleted => {
                    complain(DELETED);
                    return Err(Ending::Terminated);
                }
                Try::Forbidden => {
                    complain("Failed to create session. Error: Forbidden");
                    return Err(Ending::Terminated);
                }
                Try::ClockSkew => {
                    complain(CLOCK);
                    complain("Failed to create session. The clock skew is too large.");
                    return Err(Ending::Terminated);
                }
                Try::Conflict => {
                    complain("A session for this runner already exists.");
                    conflicts += 1;
                    "Error: Conflict".to_owned()
                }
                Try::Unreachable(problem) => {
                    failures += 1;
                    problem
                }
            };
            if conflicts == CONFLICTS {
                complain("Stop retry on SessionConflictException after retried for 240 seconds.");
                complain("Failed to create session. Error: Conflict");
                return Err(Ending::SessionConflict);
            }
            if !complained {
                self.complain_now(&format!(
                    "Runner connect error: {problem}. Retrying until reconnected."
                ));
                complained = true;
            }
            if !self.wait(RETRY_MS).await {
                return Err(Ending::Success);
            }
        }
    }

    async fn try_session(&self, conflicts: u32, failures: u32) -> Try {
        match self.scenario.start {
            Start::Conflict(until) if conflicts < until => return Try::Conflict,
            Start::Forbidden => return Try::Forbidden,
            Start::RegistrationDeleted => return Try::Deleted,
            Start::ClockSkew => return Try::ClockSkew,
            Start::Unreachable(until) if failures < until => {
                return Try::Unreachable("Name or service not known".to_owned());
            }
            Start::Normal | Start::Conflict(_) | Start::Unreachable(_) => {}
        }
        let Some(server) = &self.server else {
            return Try::Opened(String::new());
        };
        match server.call(Method::POST, "session", &json!({})).await {
            Ok((StatusCode::OK, body)) => {
                Try::Opened(body["session_id"].as_str().unwrap_or_default().to_owned())
            }
            Ok((StatusCode::CONFLICT, _)) => Try::Conflict,
            Ok((StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND, _)) => Try::Deleted,
            Ok((StatusCode::FORBIDDEN, _)) => Try::Forbidden,
            Ok((status, _)) => Try::Unreachable(format!("Error: {status}")),
            Err(error) => Try::Unreachable(error.to_string()),
        }
    }

    /// Deletes the session, whether or not it is still there.
    pub(super) async fn close_session(&self) {
        if let Some(server) = &self.server {
            drop(server.call(Method::DELETE, "session", &Value::Null).await);
        }
    }
}
