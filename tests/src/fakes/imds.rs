//! The instance metadata service, version 2, for any number of instances: each has its own path
//! prefix, `/{instance_id}/latest/…`, in place of its own link-local address.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, put};
use jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
/// Six hours.
const LONGEST_TTL_SECS: u64 = 21_600;

/// What one instance can read of itself.
#[derive(Clone, Debug, Default)]
struct Instance {
    /// Path below `latest/` to text, such as `meta-data/placement/region`.
    values: HashMap<String, String>,
    tokens: HashMap<String, Instant>,
    /// How many requests came, by path.
    requests: HashMap<String, u64>,
    broken: bool,
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
        let router = Router::new()
            .route("/{instance}/latest/api/token", put(token))
            .route("/{instance}/latest/{*path}", get(value))
            .with_state(Arc::clone(&instances));
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
            (
                "meta-data/identity-credentials/ec2/security-credentials/ec2-instance",
                &credentials.to_string(),
            ),
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

    /// While broken, the instance's service answers 500 to everything.
    pub fn set_broken(&self, instance_id: &str, broken: bool) {
        self.with(instance_id, |instance| instance.broken = broken);
    }

    /// Makes all tokens of an instance invalid, as after a long pause.
    pub fn expire_tokens(&self, instance_id: &str) {
        self.with(instance_id, |instance| instance.tokens.clear());
    }

    /// How often `path` below `latest/` was read.
    pub fn reads(&self, instance_id: &str, path: &str) -> u64 {
        self.with(instance_id, |instance| {
            instance.requests.get(path).copied().unwrap_or(0)
        })
    }

    fn with<R>(&self, instance_id: &str, step: impl FnOnce(&mut Instance) -> R) -> R {
        let mut all = self
            .instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        step(all.entry(instance_id.to_owned()).or_default())
    }
}

async fn token(
    State(instances): State<Instances>,
    Path(instance): Path<String>,
    headers: HeaderMap,
) -> Result<String, StatusCode> {
    let ttl: u64 = headers
        .get(TTL_HEADER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .filter(|ttl| (1..=LONGEST_TTL_SECS).contains(ttl))
        .ok_or(StatusCode::BAD_REQUEST)?;
    if headers.contains_key("x-forwarded-for") {
        return Err(StatusCode::FORBIDDEN);
    }
    let mut all = instances.lock().unwrap_or_else(PoisonError::into_inner);
    let instance = all.get_mut(&instance).ok_or(StatusCode::NOT_FOUND)?;
    if instance.broken {
        return Err(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let token = format!("AQAE{:032x}==", rand::random::<u128>());
    instance
        .tokens
        .insert(token.clone(), Instant::now() + Duration::from_secs(ttl));
    Ok(token)
}

async fn value(
    State(instances): State<Instances>,
    Path((instance, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<String, StatusCode> {
    let mut all = instances.lock().unwrap_or_else(PoisonError::into_inner);
    let instance = all.get_mut(&instance).ok_or(StatusCode::NOT_FOUND)?;
    *instance.requests.entry(path.clone()).or_default() += 1;
    if instance.broken {
        return Err(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let valid = headers
        .get(TOKEN_HEADER)
        .and_then(|value| instance.tokens.get(value.to_str().ok()?))
        .is_some_and(|until| *until > Instant::now());
    if !valid {
        return Err(StatusCode::UNAUTHORIZED);
    }
    instance
        .values
        .get(&path)
        .cloned()
        .ok_or(StatusCode::NOT_FOUND)
}
