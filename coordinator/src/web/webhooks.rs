//! `POST /webhooks/github`: checked, made durable, then answered.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::Web;
use crate::clock;
use crate::github::signature;
use crate::github::webhook::{self, PayloadError};
use crate::store::{Accepted, Delivery, StoreError};
use crate::telemetry::WebhookAnswer;

/// Bytes of a body; GitHub sends no more.
/// <https://docs.github.com/en/webhooks/webhook-events-and-payloads#payload-cap>
pub const MAX_BODY: usize = 25 * 1024 * 1024;

/// Requests at once.
const MAX_REQUESTS: usize = 1024;

/// KiB of bodies held at once: ten of the largest, thousands of the usual.
const MAX_HELD_KIB: usize = 10 * MAX_BODY / 1024;

/// Time for a body to arrive. With [`STORE_TIMEOUT`] it stays under GitHub's ten seconds.
/// <https://docs.github.com/en/webhooks/using-webhooks/best-practices-for-using-webhooks>
const BODY_TIMEOUT: Duration = Duration::from_secs(6);

/// Time for a delivery to become durable.
const STORE_TIMEOUT: Duration = Duration::from_secs(3);

/// Bytes and time spent on a body that is refused unread, so that a sender who doesn't read before
/// it has written gets the answer and not a connection reset.
const DISCARD_BYTES: usize = 2 * MAX_BODY;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// What the handler needs.
pub(super) struct Intake {
    web: Web,
    requests: Semaphore,
    held_kib: Semaphore,
}

impl Intake {
    pub(super) fn new(web: Web) -> Self {
        Self {
            web,
            requests: Semaphore::new(MAX_REQUESTS),
            held_kib: Semaphore::new(MAX_HELD_KIB),
        }
    }
}

/// Takes one delivery.
pub(super) async fn receive(
    State(intake): State<Arc<Intake>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match accept(&intake, &headers, body).await {
        Ok((kind, answer)) => {
            intake.web.metrics.webhook(kind);
            answer
        }
        Err(refusal) => {
            intake.web.metrics.webhook(match refusal.status {
                StatusCode::UNAUTHORIZED => WebhookAnswer::Unauthorized,
                StatusCode::SERVICE_UNAVAILABLE => WebhookAnswer::Unavailable,
                _ => WebhookAnswer::Malformed,
            });
            tracing::info!(
                status = refusal.status.as_u16(),
                reason = %refusal.reason,
                "refused a webhook"
            );
            refusal.answer()
        }
    }
}

async fn accept(
    intake: &Intake,
    headers: &HeaderMap,
    body: Body,
) -> Result<(WebhookAnswer, Response), Refusal> {
    let busy = || Refusal::later("too many webhooks at once");
    let request = intake.requests.try_acquire().map_err(|_| busy());
    let (claims, _request) = match claims(headers).and_then(|c| Ok((c, request?))) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            if !headers.contains_key(EXPECT) {
                discard(body).await;
            }
            return Err(refusal);
        }
    };
    let (body, held) = timeout(BODY_TIMEOUT, read(intake, body, claims.length))
        .await
        .map_err(|_| {
            let reason = format!("the body did not arrive in {} s", BODY_TIMEOUT.as_secs());
            Refusal::new(StatusCode::REQUEST_TIMEOUT, reason)
        })??;
    let secrets = Arc::clone(&intake.web.secrets.borrow());
    signature::verify(&secrets, &body, claims.signature)
        .map_err(|e| Refusal::new(StatusCode::UNAUTHORIZED, e.to_string()))?;
    match webhook::parse(claims.event, &body)? {
        webhook::Intake::Ignored(reason) => {
            tracing::debug!(delivery = claims.guid, %reason, "ignored a webhook");
            let answer = json(StatusCode::OK, &serde_json::json!({ "ignored": reason }));
            return Ok((WebhookAnswer::Ignored, answer));
        }
        webhook::Intake::Job(_) => {}
    }
    let delivery = Delivery {
        guid: claims.guid.to_owned(),
        event: claims.event.to_owned(),
        body,
        received_at: clock::now(),
    };
    let stored = timeout(STORE_TIMEOUT, intake.web.store.accept_delivery(delivery)).await;
    drop(held);
    let accepted = durable(stored.ok())?;
    if accepted == Accepted::New {
        (intake.web.inbox_ready)();
    }
    let kind = match accepted {
        Accepted::New => WebhookAnswer::Accepted,
        Accepted::Duplicate => WebhookAnswer::Duplicate,
    };
    Ok((kind, thanks(accepted)))
}

/// What the headers say.
struct Claims<'a> {
    event: &'a str,
    guid: &'a str,
    signature: &'a str,
    length: Option<usize>,
}

fn claims(headers: &HeaderMap) -> Result<Claims<'_>, Refusal> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if !is_json(kind) {
        let reason = format!(
            "the content type is {kind:?}: set the webhook's content type to application/json"
        );
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
    }
    let length = content_length(headers)?;
    if length.is_some_and(|length| length > MAX_BODY) {
        return Err(Refusal::too_large());
    }
    let event = header(headers, "X-GitHub-Event", |c| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
    })?;
    let guid = header(headers, "X-GitHub-Delivery", |c| {
        c.is_ascii_alphanumeric() || c == '-'
    })?;
    let signature = headers
        .get("X-Hub-Signature-256")
        .ok_or_else(|| Refusal::unsigned("header X-Hub-Signature-256 is missing"))?
        .to_str()
        .map_err(|_| Refusal::unsigned("header X-Hub-Signature-256 is not text"))?;
    Ok(Claims {
        event,
        guid,
        signature,
        length,
    })
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn content_length(headers: &HeaderMap) -> Result<Option<usize>, Refusal> {
    let Some(value) = headers.get(CONTENT_LENGTH) else {
        return Ok(None);
    };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length
        .map(Some)
        .ok_or_else(|| Refusal::bad("header Content-Length is not a number"))
}

/// A header of 1 to 64 allowed characters.
fn header<'h>(
    headers: &'h HeaderMap,
    name: &'static str,
    allowed: impl Fn(char) -> bool,
) -> Result<&'h str, Refusal> {
    let value = headers
        .get(name)
        .ok_or_else(|| Refusal::bad(format!("header {name} is missing")))?;
    value
        .to_str()
        .ok()
        .filter(|text| (1..=64).contains(&text.len()) && text.chars().all(allowed))
        .ok_or_else(|| Refusal::bad(format!("header {name} is not what GitHub sends")))
}

/// Reads a body. Room is taken as it arrives, so that announcing a large one reserves nothing.
async fn read(
    intake: &Intake,
    body: Body,
    length: Option<usize>,
) -> Result<(Vec<u8>, Option<SemaphorePermit<'_>>), Refusal> {
    let mut held: Option<SemaphorePermit<'_>> = None;
    let mut bytes = Vec::with_capacity(length.unwrap_or_default().min(64 * 1024));
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| Refusal::bad(format!("the body is incomplete: {e}")))?;
        let size = bytes.len() + chunk.len();
        if size > MAX_BODY {
            return Err(Refusal::too_large());
        }
        let has = held.as_ref().map_or(0, SemaphorePermit::num_permits);
        let lacks = u32::try_from(size.div_ceil(1024) - has).unwrap_or(u32::MAX);
        let more = intake
            .held_kib
            .try_acquire_many(lacks)
            .map_err(|_| Refusal::later("too many large webhooks at once"))?;
        match &mut held {
            Some(held) => held.merge(more),
            None => held = Some(more),
        }
        bytes.extend_from_slice(&chunk);
    }
    if length.is_some_and(|length| length != bytes.len()) {
        return Err(Refusal::bad("the body is incomplete"));
    }
    Ok((bytes, held))
}

async fn discard(body: Body) {
    let mut chunks = body.into_data_stream();
    let mut seen = 0;
    let all = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            seen += chunk.len();
            if seen > DISCARD_BYTES {
                break;
            }
        }
    };
    // Whether it came to an end makes no difference to the answer.
    let _ = timeout(DISCARD_TIME, all).await;
}

/// None stands for a store that did not answer in time.
fn durable(stored: Option<Result<Accepted, StoreError>>) -> Result<Accepted, Refusal> {
    match stored {
        Some(Ok(accepted)) => Ok(accepted),
        Some(Err(error)) => {
            tracing::error!(%error, "failed to store a webhook");
            Err(Refusal::later("the delivery could not be stored"))
        }
        None => {
            tracing::error!("failed to store a webhook in time");
            Err(Refusal::later("the delivery could not be stored in time"))
        }
    }
}

fn thanks(accepted: Accepted) -> Response {
    match accepted {
        Accepted::New => json(
            StatusCode::ACCEPTED,
            &serde_json::json!({ "accepted": true }),
        ),
        Accepted::Duplicate => json(StatusCode::OK, &serde_json::json!({ "duplicate": true })),
    }
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, axum::Json(body)).into_response()
}

/// A delivery that is not taken.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    status: StatusCode,
    reason: String,
}

impl Refusal {
    fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
        }
    }

    fn bad(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    fn unsigned(reason: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, reason)
    }

    fn too_large() -> Self {
        let reason = format!("the body is larger than {MAX_BODY} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, reason)
    }

    fn later(reason: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason)
    }

    fn answer(&self) -> Response {
        let mut answer = json(self.status, &serde_json::json!({ "error": self.reason }));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            answer
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        answer
    }
}

impl From<PayloadError> for Refusal {
    fn from(error: PayloadError) -> Self {
        let status = match error {
            PayloadError::NotUtf8(_) | PayloadError::NotJson(_) => StatusCode::BAD_REQUEST,
            PayloadError::Mismatch(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, error.to_string())
    }
}

#[cfg(test)]
mod tests;
