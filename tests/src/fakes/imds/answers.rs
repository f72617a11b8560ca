//! What the service answers.

use std::sync::PoisonError;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};

use super::{Fault, Instance, Instances, TOKEN_PATH, with_or_new};

const TTL_HEADER: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
/// Six hours.
const LONGEST_TTL_SECS: u64 = 21_600;
/// All paths of all instances.
pub(super) fn router(instances: Instances) -> Router {
    Router::new()
        .route("/{instance}/latest/api/token", put(token))
        .route("/{instance}/latest/{*path}", get(value))
        .route("/latest/api/token", put(only_token))
        .route("/latest/{*path}", get(only_value))
        .with_state(instances)
}

/// Looks up an instance, lets a fault happen, then answers.
async fn answer(
    instances: &Instances,
    instance_id: &str,
    path: &str,
    proper: impl FnOnce(&mut Instance) -> Response,
) -> Response {
    let fault = {
        let mut all = instances.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(instance_id) {
            Some(instance) => instance.begin(path),
            None => return StatusCode::NOT_FOUND.into_response(),
        }
    };
    match fault {
        None => {}
        Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Text(text)) => return text.into_response(),
        Some(Fault::Status(status)) => {
            let status = StatusCode::from_u16(status);
            return status
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
                .into_response();
        }
    }
    with_or_new(instances, instance_id, proper)
}

async fn token(
    State(instances): State<Instances>,
    Path(instance): Path<String>,
    headers: HeaderMap,
) -> Response {
    let ttl: Option<u64> = headers
        .get(TTL_HEADER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .filter(|ttl| (1..=LONGEST_TTL_SECS).contains(ttl));
    let Some(ttl) = ttl else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    // What came through a proxy did not come from this instance alone.
    if headers.contains_key("x-forwarded-for") {
        return StatusCode::FORBIDDEN.into_response();
    }
    answer(&instances, &instance, TOKEN_PATH, |instance| {
        let longest = instance
            .longest_ttl
            .map_or(ttl, |longest| longest.as_secs());
        let ttl = ttl.min(longest);
        let token = format!("AQAE{:032x}==", rand::random::<u128>());
        let until = instance.now() + Duration::from_secs(ttl);
        instance.tokens.insert(token.clone(), until);
        ([(TTL_HEADER, ttl.to_string())], token).into_response()
    })
    .await
}

async fn value(
    State(instances): State<Instances>,
    Path((instance, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    answer(&instances, &instance, &path, |instance| {
        let now = instance.now();
        let until = headers
            .get(TOKEN_HEADER)
            .and_then(|value| instance.tokens.get(value.to_str().ok()?))
            .filter(|until| **until > now);
        let Some(until) = until else {
            return StatusCode::UNAUTHORIZED.into_response();
        };
        if instance.refusals > 0 {
            instance.refusals -= 1;
            return StatusCode::UNAUTHORIZED.into_response();
        }
        // Each answer says how long the token still lives.
        let left = [(TTL_HEADER, until.duration_since(now).as_secs().to_string())];
        match instance.values.get(&path) {
            Some(value) => (left, value.clone()).into_response(),
            None => (StatusCode::NOT_FOUND, left).into_response(),
        }
    })
    .await
}

/// The id of the only instance; of no instance if there are more.
fn only(instances: &Instances) -> String {
    let all = instances.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ids = all.keys();
    match (ids.next(), ids.next()) {
        (Some(id), None) => id.clone(),
        _ => String::new(),
    }
}

async fn only_token(State(instances): State<Instances>, headers: HeaderMap) -> Response {
    let instance = only(&instances);
    token(State(instances), Path(instance), headers).await
}

async fn only_value(
    State(instances): State<Instances>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    let instance = only(&instances);
    value(State(instances), Path((instance, path)), headers).await
}
