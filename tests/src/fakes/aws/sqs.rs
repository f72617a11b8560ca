//! SQS: one standard queue in each account and region. Messages come at least once, and in any order.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::dispatch::{admit, typed};
use super::error::AwsError;
use super::ids;
use super::shared::{Admitted, Place, Shared, State};
use crate::fakes::clock::after;

/// A queue.
#[derive(Default)]
pub(super) struct Queue {
    messages: Vec<Message>,
    /// So many of the next messages come twice.
    pub(super) twice: u32,
}

struct Message {
    id: String,
    body: String,
    sent_at: Timestamp,
    /// Hidden until then, while a receiver works on it.
    hidden_until: Timestamp,
    received: u32,
    /// What the last receiver was given to delete it.
    handle: String,
}

impl Queue {
    pub(super) fn send(&mut self, body: &str, now: Timestamp) {
        let copies = 1 + u32::from(self.twice > 0);
        self.twice = self.twice.saturating_sub(1);
        let id = ids::uuid();
        for _ in 0..copies {
            self.messages.push(Message {
                id: id.clone(),
                body: body.to_owned(),
                sent_at: now,
                hidden_until: Timestamp::MIN,
                received: 0,
                handle: String::new(),
            });
        }
    }

    /// How many messages can be received, and how many are hidden.
    pub(super) fn depth(&self, now: Timestamp) -> (usize, usize) {
        let hidden = self.messages.iter().filter(|it| it.hidden_until > now);
        let hidden = hidden.count();
        (self.messages.len() - hidden, hidden)
    }

    fn receive(&mut self, most: usize, hide: Duration, now: Timestamp) -> Vec<Value> {
        let waiting = self.messages.iter_mut().filter(|it| it.hidden_until <= now);
        waiting
            .take(most)
            .map(|it| {
                it.received += 1;
                it.hidden_until = after(now, hide);
                it.handle = format!("AQEB{:032x}", rand::random::<u128>());
                json!({
                    "MessageId": it.id, "ReceiptHandle": it.handle, "Body": it.body,
                    "Attributes": {
                        "ApproximateReceiveCount": it.received.to_string(),
                        "SentTimestamp": it.sent_at.as_millisecond().to_string(),
                    },
                })
            })
            .collect()
    }

    /// When the next hidden message shows again.
    fn shows_at(&self, now: Timestamp) -> Option<Timestamp> {
        let hidden = self.messages.iter().map(|it| it.hidden_until);
        hidden.filter(|at| *at > now).min()
    }

    /// A handle that is not the last one of its message deletes nothing, without an error.
    fn delete(&mut self, handle: &str) -> Result<(), AwsError> {
        if !handle.starts_with("AQEB") {
            return Err(AwsError::client(
                "ReceiptHandleIsInvalid",
                format!("The input receipt handle \"{handle}\" is not a valid receipt handle."),
            ));
        }
        self.messages.retain(|it| it.handle != handle);
        Ok(())
    }
}

/// The address of the queue of a place.
pub(super) fn url(base: &str, place: &Place, name: &str) -> String {
    format!("{base}/{}/{name}", place.account)
}

fn queue<'a>(
    state: &'a mut State,
    call: &Admitted,
    queue_url: &str,
) -> Result<&'a mut Queue, AwsError> {
    let wanted = url("", &call.place, &state.options.queue);
    let queue = state.queues.get_mut(&call.place);
    queue
        .filter(|_| queue_url.ends_with(&wanted))
        .ok_or_else(|| AwsError::client("QueueDoesNotExist", "The specified queue does not exist."))
}

pub(super) fn get_queue_url(
    state: &mut State,
    call: &Admitted,
    base: &str,
) -> Result<Value, AwsError> {
    let name = call.parameters["QueueName"].as_str().unwrap_or_default();
    let found = url(base, &call.place, name);
    queue(state, call, &found)?;
    Ok(json!({ "QueueUrl": found }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Receive {
    queue_url: String,
    max_number_of_messages: Option<usize>,
    visibility_timeout: Option<u64>,
    wait_time_seconds: Option<u64>,
    #[serde(default)]
    #[expect(dead_code, reason = "both attributes that there are come in any case")]
    attribute_names: Vec<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "both attributes that there are come in any case")]
    message_system_attribute_names: Vec<String>,
}

/// Waits for a message as long as it is told to.
pub(super) async fn receive(shared: &Shared, call: &Admitted) -> Result<Value, AwsError> {
    let asked: Receive = typed(call)?;
    let most = asked.max_number_of_messages.unwrap_or(1);
    let wait = asked.wait_time_seconds.unwrap_or(0);
    let hide = asked.visibility_timeout.map(Duration::from_secs);
    let hide = hide.unwrap_or(shared.options.visibility_timeout);
    if !(1..=10).contains(&most) || wait > 20 || hide > Duration::from_hours(12) {
        return Err(AwsError::invalid_value(
            "MaxNumberOfMessages is 1 to 10, WaitTimeSeconds 0 to 20, VisibilityTimeout 0 to 43200",
        ));
    }
    let mut changed = shared.changed.subscribe();
    shared.quietly(|state| admit(state, call, state.options.clock.now()))?;
    let end = tokio::time::Instant::now() + Duration::from_secs(wait);
    loop {
        changed.borrow_and_update();
        let (messages, wake) = shared.quietly(|state| {
            let now = state.options.clock.now();
            let queue = queue(state, call, &asked.queue_url)?;
            let messages = queue.receive(most, hide, now);
            let wake = queue.shows_at(now).map(|at| at.duration_since(now));
            Ok((messages, wake))
        })?;
        if !messages.is_empty() {
            return Ok(json!({ "Messages": messages }));
        }
        let wake = wake.and_then(|wait| Duration::try_from(wait).ok());
        let wake = wake.map_or(end, |wait| end.min(tokio::time::Instant::now() + wait));
        if end <= tokio::time::Instant::now() {
            return Ok(json!({}));
        }
        tokio::select! {
            () = tokio::time::sleep_until(wake) => {}
            _ = changed.changed() => {}
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Delete {
    queue_url: String,
    receipt_handle: String,
}

pub(super) fn delete_message(state: &mut State, call: &Admitted) -> Result<Value, AwsError> {
    let asked: Delete = typed(call)?;
    queue(state, call, &asked.queue_url)?.delete(&asked.receipt_handle)?;
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct DeleteBatch {
    queue_url: String,
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Entry {
    id: String,
    receipt_handle: String,
}

pub(super) fn delete_message_batch(state: &mut State, call: &Admitted) -> Result<Value, AwsError> {
    let asked: DeleteBatch = typed(call)?;
    if asked.entries.is_empty() {
        let message = "There should be at least one DeleteMessageBatchRequestEntry in the request.";
        return Err(AwsError::client("EmptyBatchRequest", message));
    }
    if asked.entries.len() > 10 {
        let message = "Maximum number of entries per request are 10.";
        return Err(AwsError::client("TooManyEntriesInBatchRequest", message));
    }
    let mut names: Vec<_> = asked.entries.iter().map(|entry| &entry.id).collect();
    names.sort();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(AwsError::client("BatchEntryIdsNotDistinct", "Id repeated."));
    }
    let queue = queue(state, call, &asked.queue_url)?;
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for entry in &asked.entries {
        match queue.delete(&entry.receipt_handle) {
            Ok(()) => successful.push(json!({ "Id": entry.id })),
            Err(error) => failed.push(json!({
                "Id": entry.id, "SenderFault": true, "Code": error.code, "Message": error.message,
            })),
        }
    }
    Ok(json!({ "Successful": successful, "Failed": failed }))
}
