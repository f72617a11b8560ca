//! Sends webhooks, remembers what became of them, and never tries again by itself.
//!
//! <https://docs.github.com/en/webhooks/using-webhooks/handling-failed-webhook-deliveries>

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use super::spec::{Delivery, Mischief};
use super::state::State;

/// GitHub gives a receiver this long.
const RECEIVER_MAY_TAKE: Duration = Duration::from_secs(10);
/// Deliveries under way at a time; their order is not promised, as with GitHub.
const AT_ONCE: usize = 8;

/// A webhook that is to be sent.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) guid: String,
    pub(super) event: String,
    pub(super) action: Option<String>,
    pub(super) body: String,
    pub(super) redelivery: bool,
    pub(super) wrong_signature: bool,
    pub(super) installation_id: u64,
    pub(super) repository_id: u64,
}

impl Outgoing {
    /// The same payload under the same id.
    pub(super) fn again(delivery: &Delivery) -> Self {
        Self {
            guid: delivery.guid.clone(),
            event: delivery.event.clone(),
            action: delivery.action.clone(),
            body: delivery.body.clone(),
            redelivery: false,
            wrong_signature: false,
            installation_id: delivery.installation_id,
            repository_id: delivery.repository_id,
        }
    }
}

/// What one webhook out of the outbox leads to.
enum Plan {
    Nothing,
    Hold(Outgoing),
    Fail(Outgoing),
    Send(Vec<Outgoing>),
}

/// Empties the outbox until told to stop, then abandons what is under way.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let client = match reqwest::Client::builder()
        .no_proxy()
        .timeout(RECEIVER_MAY_TAKE)
        .build()
    {
        Ok(client) => client,
        Err(error) => {
            shared.change(|state| state.violations.push(format!("webhook client: {error}")));
            return;
        }
    };
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut changed = shared.changed.subscribe();
    let mut held: Option<Outgoing> = None;
    let mut under_way = JoinSet::new();
    loop {
        changed.borrow_and_update();
        while let Some(plan) = shared.quietly(plan_next) {
            let mut chain = match plan {
                Plan::Nothing => continue,
                Plan::Hold(outgoing) => {
                    held = Some(outgoing);
                    continue;
                }
                Plan::Fail(outgoing) => {
                    shared.change(|state| {
                        record(state, outgoing, 0, Duration::ZERO, shared.now());
                    });
                    continue;
                }
                Plan::Send(chain) => chain,
            };
            chain.extend(held.take());
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let (shared, client) = (Arc::clone(&shared), client.clone());
            under_way.spawn(async move {
                for outgoing in chain {
                    send(&shared, &client, outgoing).await;
                }
                drop(slot);
            });
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changed.changed() => {}
            Some(_) = under_way.join_next() => {}
        }
    }
}

/// Takes the next webhook, and the first fault that fits it.
fn plan_next(state: &mut State) -> Option<Plan> {
    let outgoing = state.outbox.pop_front()?;
    let fault = state.webhook_faults.iter_mut().find(|fault| {
        fault.times > 0 && (fault.action.is_none() || fault.action == outgoing.action)
    });
    let Some(fault) = fault else {
        return Some(Plan::Send(vec![outgoing]));
    };
    fault.times -= 1;
    Some(match fault.mischief {
        Mischief::Drop => Plan::Nothing,
        Mischief::Fail => Plan::Fail(outgoing),
        Mischief::Duplicate => Plan::Send(vec![outgoing.clone(), outgoing]),
        Mischief::Overtake => Plan::Hold(outgoing),
        Mischief::WrongSignature => Plan::Send(vec![Outgoing {
            wrong_signature: true,
            ..outgoing
        }]),
    })
}

async fn send(shared: &Shared, client: &reqwest::Client, outgoing: Outgoing) {
    let (url, wrong) = shared.quietly(|state| {
        let wrong = match (&outgoing.action, serde_json::from_str(&outgoing.body)) {
            (Some(action), Ok(payload)) if outgoing.event == "workflow_job" => {
                shared.description.check_webhook(action, &payload)
            }
            _ => Vec::new(),
        };
        (state.webhook_url.clone(), wrong)
    });
    let Some(url) = url else { return };
    let secret = if outgoing.wrong_signature {
        "not the secret"
    } else {
        &shared.options.webhook_secret
    };
    let began = Instant::now();
    let answer = client
        .post(url)
        .header("accept", "*/*")
        .header("content-type", "application/json")
        .header("user-agent", "GitHub-Hookshot/0fa4e5b")
        .header("x-github-event", &outgoing.event)
        .header("x-github-delivery", &outgoing.guid)
        .header("x-github-hook-id", "487325")
        .header("x-github-hook-installation-target-type", "integration")
        .header(
            "x-github-hook-installation-target-id",
            shared.options.app_id,
        )
        .header(
            "x-hub-signature-256",
            sign(secret, outgoing.body.as_bytes()),
        )
        .body(outgoing.body.clone())
        .send()
        .await;
    let status = answer.map_or(0, |answer| answer.status().as_u16());
    shared.change(|state| {
        state
            .violations
            .extend(wrong.into_iter().map(|it| format!("webhook: {it}")));
        record(state, outgoing, status, began.elapsed(), shared.now());
    });
}

fn record(
    state: &mut State,
    outgoing: Outgoing,
    status_code: u16,
    duration: Duration,
    now: Timestamp,
) {
    let id = state.fresh_id();
    state.deliveries.push(Delivery {
        id,
        guid: outgoing.guid,
        event: outgoing.event,
        action: outgoing.action,
        delivered_at: now,
        redelivery: outgoing.redelivery,
        status_code,
        duration,
        body: outgoing.body,
        installation_id: outgoing.installation_id,
        repository_id: outgoing.repository_id,
    });
}

/// `X-Hub-Signature-256` of a body.
pub fn sign(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, body);
    let hex: String = tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256={hex}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn signs_as_the_documentation_says() {
        // https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
        assert_eq!(
            super::sign("It's a Secret to Everybody", b"Hello, World!"),
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }
}
