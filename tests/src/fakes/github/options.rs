//! How the fake is set up.

use std::path::PathBuf;
use std::time::Duration;

use super::openapi::default_path;
use crate::fakes::Clock;

/// How the fake is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen.
    pub listen: std::net::SocketAddr,
    /// GitHub's description, as `tests/install` prepares it.
    pub description: PathBuf,
    /// The app's id.
    pub app_id: u64,
    /// The app's client id.
    pub client_id: String,
    /// What webhooks are signed with.
    pub webhook_secret: String,
    /// The organisation that is there from the start.
    pub organization: String,
    /// The enterprise above all organisations, if there is one.
    pub enterprise: Option<String>,
    /// Whether hourly budgets and points a minute are enforced.
    pub enforce_limits: bool,
    /// How long an installation token lives (GitHub: 1 h).
    pub token_lifetime: Duration,
    /// How long a runner may take from being told of a job to acquiring it (GitHub: 60 s).
    pub pickup_timeout: Duration,
    /// How long a job lives without a renewal (GitHub: 10 min).
    pub job_lock: Duration,
    /// When a cancelled job is ended although its runner goes on (GitHub: 5 min).
    pub cancel_timeout: Duration,
    /// When a runner that does not poll counts as offline (GitHub: about a minute).
    pub offline_after: Duration,
    /// How long a poll is held when there is nothing to say.
    pub poll_hold: Duration,
    /// What jobs, registrations and deliveries go by. Tokens go by the system's time.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
            description: default_path(),
            app_id: 4711,
            client_id: "Iv23liMusterFake".to_owned(),
            webhook_secret: "a webhook secret for tests".to_owned(),
            organization: "acme".to_owned(),
            enterprise: None,
            enforce_limits: true,
            token_lifetime: Duration::from_hours(1),
            pickup_timeout: Duration::from_mins(1),
            job_lock: Duration::from_mins(10),
            cancel_timeout: Duration::from_mins(5),
            offline_after: Duration::from_mins(1),
            poll_hold: Duration::from_secs(2),
            clock: Clock::System,
        }
    }
}
