//! The instance metadata service, version 2, for any number of instances: each has its own path
//! prefix, `/{instance_id}/latest/…`, in place of its own link-local address. Where there is but one, `/latest/…` is
//! its too, as on EC2.
//!
//! It can be told to misbehave, for all of an instance's paths or for one, and its clock can be moved.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>

mod answers;
mod profile;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::profile::Profile;

/// Where tokens are made, below `latest/`.
const TOKEN_PATH: &str = "api/token";
/// Where scheduled maintenance is listed, below `latest/`.
const MAINTENANCE_PATH: &str = "meta-data/events/maintenance/scheduled";
/// Where Auto Scaling says what it will do, below `latest/`.
const LIFECYCLE_PATH: &str = "meta-data/autoscaling/target-lifecycle-state";
/// Where the instance identity role's credentials are, below `latest/`.
const CREDENTIALS_PATH: &str =
    "meta-data/identity-credentials/ec2/security-credentials/ec2-instance";

/// What the service does with one request, in place of what it should.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answers with this status and no text.
    Status(u16),
    /// Answers with this text, whatever it means.
    Text(String),
    /// Answers as it should, after this time.
    Slow(Duration),
    /// Never answers.
    Silence,
}

/// What one instance can read of itself.
#[derive(Clone, Debug, Default)]
struct Instance {
    /// Path below `latest/` to text, such as `meta-data/placement/region`.
    values: HashMap<String, String>,
    tokens: HashMap<String, Instant>,
    /// How many requests came, by path.
    requests: HashMap<String, u64>,
    broken: bool,
    /// What happens to the next requests, by path.
    faults: HashMap<String, VecDeque<Fault>>,
    /// So many reads are answered 401 still, whatever their token.
    refusals: u32,
    /// Tokens live no longer than this, whatever was asked for.
    longest_ttl: Option<Duration>,
    /// How far the clock is ahead.
    ahead: Duration,
}

impl Instance {
    fn now(&self) -> Instant {
        Instant::now() + self.ahead
    }

    /// Counts a request and says what is to happen to it.
    fn begin(&mut self, path: &str) -> Option<Fault> {
        *self.requests.entry(path.to_owned()).or_default() += 1;
        if self.broken {
            return Some(Fault::Status(500));
        }
        self.faults.get_mut(path)?.pop_front()
    }
}

type Instances = Arc<Mutex<HashMap<String, Instance>>>;

/// The fake. Stops when dropped.
pub struct FakeImds {
    url: String,
    instances: Instances,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for FakeImds {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl FakeImds {
    /// Starts on a free port of loopback.
    ///
    /// # Errors
    ///
    /// If no port can be had.
    pub async fn start() -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let instances = Instances::default();
        let router = answers::router(Arc::clone(&instances));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let stopped = stop.clone();
        tasks.spawn(async move {
            let served =
                axum::serve(listener, router).with_graceful_shutdown(stopped.cancelled_owned());
            drop(served.await);
        });
        tasks.close();
        Ok(Self {
            url,
            instances,
            stop,
            tasks,
        })
    }

    /// Stops serving and waits for it.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    /// The base address for one instance, in place of `http://169.254.169.254`.
    pub fn endpoint(&self, instance_id: &str) -> String {
        format!("{}/{instance_id}", self.url)
    }

    /// Makes an instance known with its usual metadata.
    pub fn add_instance(&self, instance_id: &str, instance_type: &str, region: &str, spot: bool) {
        let zone = format!("{region}a");
        let document = json!({
            "accountId": "123456789012", "architecture": "x86_64", "availabilityZone": zone,
            "imageId": "ami-0123456789abcdef0", "instanceId": instance_id,
            "instanceType": instance_type, "pendingTime": "2024-01-01T00:00:00Z",
            "privateIp": "10.0.0.1", "region": region, "version": "2017-09-30",
        });
        let credentials = json!({
            "Code": "Success", "LastUpdated": "2024-01-01T00:00:00Z", "Type": "AWS-HMAC",
            "AccessKeyId": "ASIAIOSFODNN7EXAMPLE",
            "SecretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "Token": format!("token-of-{instance_id}"), "Expiration": "2099-01-01T00:00:00Z",
        });
        let market = if spot { "spot" } else { "on-demand" };
        for (path, value) in [
            ("meta-data/instance-id", instance_id),
            ("meta-data/instance-type", instance_type),
            ("meta-data/instance-life-cycle", market),
            ("meta-data/ami-id", "ami-0123456789abcdef0"),
            ("meta-data/placement/region", region),
            ("meta-data/placement/availability-zone", &zone),
            (
                "meta-data/identity-credentials/ec2/info",
                r#"{"AccountId":"123456789012"}"#,
            ),
            ("meta-data/services/domain", "amazonaws.com"),
            ("meta-data/services/partition", "aws"),
            ("dynamic/instance-identity/document", &document.to_string()),
            (CREDENTIALS_PATH, &credentials.to_string()),
            (MAINTENANCE_PATH, "[]"),
        ] {
            self.set(instance_id, path, value);
        }
    }

    /// Sets what is read at `path` below `latest/`.
    pub fn set(&self, instance_id: &str, path: &str, value: &str) {
        self.with(instance_id, |instance| {
            instance.values.insert(path.to_owned(), value.to_owned())
        });
    }

    /// Takes away what is read at `path` below `latest/`: it answers 404 again.
    pub fn unset(&self, instance_id: &str, path: &str) {
        self.with(instance_id, |instance| instance.values.remove(path));
    }

    /// Spot takes the instance back at `at`: from now on it can be read.
    pub fn notice(&self, instance_id: &str, at: Timestamp) {
        let time = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let action = json!({ "action": "terminate", "time": time }).to_string();
        self.set(instance_id, "meta-data/spot/instance-action", &action);
        self.set(instance_id, "meta-data/spot/termination-time", &time);
    }

    /// Spot advises to move off the instance.
    pub fn recommend_rebalance(&self, instance_id: &str, at: Timestamp) {
        let time = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let notice = json!({ "noticeTime": time }).to_string();
        self.set(
            instance_id,
            "meta-data/events/recommendations/rebalance",
            &notice,
        );
    }

    /// Adds an event to the list of scheduled maintenance, such as `instance-retirement` in the state
    /// `active`. One with the same id is replaced.
    pub fn schedule_maintenance(
        &self,
        instance_id: &str,
        event_id: &str,
        code: &str,
        state: &str,
        not_before: Timestamp,
    ) {
        self.with(instance_id, |instance| {
            let list = instance.values.get(MAINTENANCE_PATH);
            let mut events: Vec<serde_json::Value> = list
                .and_then(|list| serde_json::from_str(list).ok())
                .unwrap_or_default();
            events.retain(|event| event["EventId"] != event_id);
            // This list alone has times in this form.
            let time = not_before.strftime("%d %b %Y %H:%M:%S GMT").to_string();
            events.push(json!({
                "NotBefore": time, "NotAfter": time, "Code": code, "State": state,
                "Description": format!("fake {code}"), "EventId": event_id,
            }));
            let list = serde_json::Value::Array(events).to_string();
            instance.values.insert(MAINTENANCE_PATH.to_owned(), list);
        });
    }

    /// Auto Scaling moves the instance to `state`, such as `Terminated`.
    pub fn set_target_lifecycle_state(&self, instance_id: &str, state: &str) {
        self.set(instance_id, LIFECYCLE_PATH, state);
    }

    /// While broken, the instance's service answers 500 to everything.
    pub fn set_broken(&self, instance_id: &str, broken: bool) {
        self.with(instance_id, |instance| instance.broken = broken);
    }

    /// The next requests for `path` below `latest/` meet these faults, one each and in this order.
    pub fn script(&self, instance_id: &str, path: &str, faults: impl IntoIterator<Item = Fault>) {
        self.with(instance_id, |instance| {
            let queue = instance.faults.entry(path.to_owned()).or_default();
            queue.extend(faults);
        });
    }

    /// The identity role's credentials are not there for the next `reads`, as early at boot.
    pub fn delay_credentials(&self, instance_id: &str, reads: usize) {
        let absent = std::iter::repeat_n(Fault::Status(404), reads);
        self.script(instance_id, CREDENTIALS_PATH, absent);
    }

    /// Makes all tokens of an instance invalid, as after a long pause.
    pub fn expire_tokens(&self, instance_id: &str) {
        self.with(instance_id, |instance| instance.tokens.clear());
    }

    /// The next `reads` are answered 401, with new tokens too.
    pub fn refuse_tokens(&self, instance_id: &str, reads: u32) {
        self.with(instance_id, |instance| instance.refusals = reads);
    }

    /// Tokens made from now on live no longer than `ttl`, in whole seconds, and say so.
    pub fn limit_tokens(&self, instance_id: &str, ttl: Duration) {
        self.with(instance_id, |instance| instance.longest_ttl = Some(ttl));
    }

    /// Moves the instance's clock on: tokens grow older by so much.
    pub fn advance(&self, instance_id: &str, by: Duration) {
        self.with(instance_id, |instance| instance.ahead += by);
    }

    /// How many tokens were asked for.
    pub fn token_requests(&self, instance_id: &str) -> u64 {
        self.reads(instance_id, TOKEN_PATH)
    }

    /// How often `path` below `latest/` was read.
    pub fn reads(&self, instance_id: &str, path: &str) -> u64 {
        self.with(instance_id, |instance| {
            instance.requests.get(path).copied().unwrap_or(0)
        })
    }

    fn with<R>(&self, instance_id: &str, step: impl FnOnce(&mut Instance) -> R) -> R {
        with_or_new(&self.instances, instance_id, step)
    }
}

fn with_or_new<R>(
    instances: &Instances,
    instance_id: &str,
    step: impl FnOnce(&mut Instance) -> R,
) -> R {
    let mut all = instances.lock().unwrap_or_else(PoisonError::into_inner);
    step(all.entry(instance_id.to_owned()).or_default())
}
