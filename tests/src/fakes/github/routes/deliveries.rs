//! The deliveries of the app's webhook: looked up, and sent again when asked.

use http::StatusCode;
use serde_json::{Value, json};

use super::super::deliveries::Outgoing;
use super::super::spec::Delivery;
use super::super::state::State;
use super::{Answer, Call, not_served};

pub(super) fn dispatch(state: &mut State, call: &Call<'_>) -> Answer {
    match (call.method, call.template) {
        ("GET", "/app/hook/deliveries") => list(state, call),
        ("GET", "/app/hook/deliveries/{delivery_id}") => {
            match find(state, call.id("delivery_id")) {
                Some(delivery) => Answer::ok(in_full(delivery)),
                None => Answer::not_found(),
            }
        }
        ("POST", "/app/hook/deliveries/{delivery_id}/attempts") => {
            let Some(delivery) = find(state, call.id("delivery_id")) else {
                return Answer::not_found();
            };
            let again = Outgoing {
                redelivery: true,
                ..Outgoing::again(delivery)
            };
            state.outbox.push_back(again);
            Answer::json(StatusCode::ACCEPTED, json!({}))
        }
        (method, template) => not_served(state, method, template),
    }
}

fn find(state: &State, id: u64) -> Option<&Delivery> {
    state.deliveries.iter().find(|delivery| delivery.id == id)
}

/// Newest first; `cursor` is the id of the last one of the page before.
fn list(state: &State, call: &Call<'_>) -> Answer {
    let size = call
        .query
        .get("per_page")
        .and_then(|text| text.parse().ok())
        .unwrap_or(30_usize);
    let status = call.query.get("status").map(String::as_str);
    let cursor: Option<u64> = call.query.get("cursor").and_then(|text| text.parse().ok());
    let mut chosen: Vec<&Delivery> = state
        .deliveries
        .iter()
        .filter(|delivery| match status {
            Some("success") => (200..300).contains(&delivery.status_code),
            Some("failure") => !(200..300).contains(&delivery.status_code),
            _ => true,
        })
        .filter(|delivery| cursor.is_none_or(|cursor| delivery.id < cursor))
        .collect();
    chosen.sort_by_key(|delivery| std::cmp::Reverse(delivery.id));
    let more = chosen.len() > size;
    chosen.truncate(size);
    let last = chosen.last().map_or(0, |delivery| delivery.id);
    let mut answer = Answer::ok(Value::Array(chosen.into_iter().map(in_brief).collect()));
    if more {
        let url = &call.shared.url;
        let filter = status
            .map(|status| format!("&status={status}"))
            .unwrap_or_default();
        answer.headers.push((
            "link",
            format!(
                "<{url}/app/hook/deliveries?per_page={size}{filter}&cursor={last}>; rel=\"next\""
            ),
        ));
    }
    answer
}

fn in_brief(delivery: &Delivery) -> Value {
    json!({
        "id": delivery.id,
        "guid": delivery.guid,
        "delivered_at": delivery.delivered_at.to_string(),
        "redelivery": delivery.redelivery,
        "duration": delivery.duration.as_secs_f64(),
        "status": status_text(delivery.status_code),
        "status_code": delivery.status_code,
        "event": delivery.event,
        "action": delivery.action,
        "installation_id": delivery.installation_id,
        "repository_id": delivery.repository_id,
        "throttled_at": null,
    })
}

fn in_full(delivery: &Delivery) -> Value {
    let mut body = in_brief(delivery);
    body["request"] = json!({
        "headers": { "X-GitHub-Delivery": delivery.guid, "X-GitHub-Event": delivery.event },
        "payload": serde_json::from_str::<Value>(&delivery.body).unwrap_or(Value::Null),
    });
    body["response"] = json!({ "headers": {}, "payload": "" });
    body
}

fn status_text(code: u16) -> String {
    match code {
        0 => "failed to connect to host".to_owned(),
        code => StatusCode::from_u16(code)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("unknown")
            .to_owned(),
    }
}
