//! How the fake is set up.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::model::default_path;
use crate::fakes::Clock;
use crate::fakes::imds::FakeImds;

/// How the fake is set up.
#[derive(Clone)]
pub struct Options {
    /// Where to listen.
    pub listen: std::net::SocketAddr,
    /// AWS's models, as `tests/install` prepares them.
    pub models: PathBuf,
    /// The AWS accounts, twelve digits each. The first is home: the static key is of it.
    pub accounts: Vec<String>,
    /// The regions, of each account. The first is home.
    pub regions: Vec<String>,
    /// The key that is there from the start, of a user in the first account.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// Where instances find their metadata, if anywhere.
    pub imds: Option<Arc<FakeImds>>,
    /// So many reads of an instance's identity credentials are answered 404 before they are there.
    pub late_credentials: usize,
    /// The instance profile's role, if instances have a profile. The credentials of the instance
    /// identity role are there in any case.
    pub instance_role: Option<String>,
    /// What private addresses instances get.
    pub addresses: Addresses,
    /// How long the stages of an instance's life last.
    pub stages: Stages,
    /// Whether request buckets are enforced (EC2's of the API throttling page, 40/s for SSM's reads).
    pub enforce_limits: bool,
    /// Whether each change of an instance's state puts a message on the queue.
    pub state_notifications: bool,
    /// The name of the queue in each account and region.
    pub queue: String,
    /// How long a received message is hidden unless the call says otherwise (SQS: 30 s).
    pub visibility_timeout: Duration,
    /// How many items a page has at most, whatever was asked for.
    pub largest_page: usize,
    /// What instances' lives, buckets and queues go by.
    pub clock: Clock,
    /// What signatures and credentials go by. SDKs sign with the system's time.
    pub wall: Clock,
}

/// What private addresses instances get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Each its own, of its subnet.
    OfSubnet,
    /// All the same, such as loopback's where agents run on the test's own machine.
    Fixed(Ipv4Addr),
}

/// How long the stages of an instance's life last.
#[derive(Clone, Copy, Debug)]
pub struct Stages {
    /// From launch to `running` (EC2: about 5 s).
    pub pending: Duration,
    /// From `shutting-down` to `terminated`.
    pub shutting_down: Duration,
    /// How long a terminated instance can be described still (EC2: about an hour).
    pub terminated: Duration,
    /// How long after its launch an instance is not known to other calls yet.
    pub unknown: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            models: default_path(),
            accounts: vec!["123456789012".to_owned()],
            regions: vec!["eu-central-1".to_owned()],
            access_key_id: "AKIAMUSTERCOORDINATE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            imds: None,
            late_credentials: 0,
            instance_role: None,
            addresses: Addresses::OfSubnet,
            stages: Stages::default(),
            enforce_limits: true,
            state_notifications: true,
            queue: "muster-events".to_owned(),
            visibility_timeout: Duration::from_secs(30),
            largest_page: 1000,
            clock: Clock::tokio(),
            wall: Clock::System,
        }
    }
}

impl Default for Stages {
    fn default() -> Self {
        Self {
            pending: Duration::from_millis(50),
            shutting_down: Duration::from_millis(50),
            terminated: Duration::from_hours(1),
            unknown: Duration::ZERO,
        }
    }
}
