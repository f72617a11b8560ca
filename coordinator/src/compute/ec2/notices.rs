//! EC2's events, as EventBridge puts them on a queue: interruptions and ends, often before the agent or
//! the next list says the same.

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, Message};
use jiff::{SignedDuration, Timestamp};
use muster_core::{InstanceId, Interruption};
use serde::Deserialize;

use super::error;
use crate::compute::{Notice, NoticeKind, ProviderError};

/// How long a call waits for the first message, and for how long others don't see what it got
/// (Karpenter, `pkg/providers/sqs/sqs.go`).
const WAIT_SECS: i32 = 20;
const VISIBILITY_SECS: i32 = 20;
/// Messages in one call, the most that SQS gives.
const MOST: i32 = 10;
/// From the warning to the end of a Spot instance.
const WARNING: SignedDuration = SignedDuration::from_mins(2);

/// The envelope of EventBridge, as far as it matters.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Envelope {
    source: String,
    account: String,
    region: String,
    time: Timestamp,
    detail_type: String,
    detail: Detail,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Detail {
    instance_id: Option<String>,
    state: Option<String>,
}

/// What came in one call.
#[derive(Debug, Default)]
pub(super) struct Received {
    pub(super) notices: Vec<Notice>,
    /// Receipts of messages that say nothing to us.
    pub(super) others: Vec<String>,
}

/// Waits for messages, for a while.
pub(super) async fn receive(
    client: &Client,
    queue: &str,
    (account, region): (&str, &str),
) -> Result<Received, ProviderError> {
    let output = client
        .receive_message()
        .queue_url(queue)
        .max_number_of_messages(MOST)
        .wait_time_seconds(WAIT_SECS)
        .visibility_timeout(VISIBILITY_SECS)
        .send()
        .await
        .map_err(|error| {
            let error = error::of_call("ReceiveMessage", &error);
            ProviderError(format!("queue {queue} in {region}: {}", error.text))
        })?;
    let mut received = Received::default();
    for message in output.messages() {
        match notice(message, account, region) {
            Some(notice) => received.notices.push(notice),
            None => received
                .others
                .extend(message.receipt_handle().map(str::to_owned)),
        }
    }
    Ok(received)
}

/// Removes messages, so that they don't come again. One that SQS doesn't remove comes again, says the same and is
/// removed then; the log tells of it.
pub(super) async fn delete(
    client: &Client,
    queue: &str,
    receipts: Vec<String>,
) -> Result<(), ProviderError> {
    let failed = |text: String| ProviderError(format!("DeleteMessageBatch: {text}"));
    for some in receipts.chunks(usize::try_from(MOST).unwrap_or(1)) {
        let entries: Result<Vec<_>, _> = some
            .iter()
            .enumerate()
            .map(|(index, receipt)| {
                DeleteMessageBatchRequestEntry::builder()
                    .id(index.to_string())
                    .receipt_handle(receipt)
                    .build()
            })
            .collect();
        let output = client
            .delete_message_batch()
            .queue_url(queue)
            .set_entries(Some(entries.map_err(|error| failed(error.to_string()))?))
            .send()
            .await
            .map_err(|error| ProviderError(error::of_call("DeleteMessageBatch", &error).text))?;
        if let Some(first) = output.failed().first() {
            tracing::warn!(
                queue,
                code = first.code(),
                message = first.message().map(error::shortened),
                ours = first.sender_fault(),
                count = output.failed().len(),
                of = some.len(),
                "SQS did not remove messages of EC2's events; they come again"
            );
        }
    }
    Ok(())
}

/// What a message says to us, if anything.
fn notice(message: &Message, account: &str, region: &str) -> Option<Notice> {
    let receipt = message.receipt_handle()?.to_owned();
    let envelope: Envelope = match serde_json::from_str(message.body()?) {
        Ok(envelope) => envelope,
        Err(error) => {
            tracing::warn!(%error, "a message on the queue of EC2's events can't be read");
            return None;
        }
    };
    let Envelope {
        source,
        detail_type,
        detail,
        time,
        ..
    } = envelope;
    if source != "aws.ec2" || envelope.account != account || envelope.region != region {
        tracing::warn!(
            source,
            account = envelope.account,
            region = envelope.region,
            "an event is of another account or region than its queue"
        );
        return None;
    }
    let kind = match (detail_type.as_str(), detail.state.as_deref()) {
        ("EC2 Spot Instance Interruption Warning", _) => NoticeKind::Interrupted {
            kind: Interruption::Spot,
            deadline: time.checked_add(WARNING).ok(),
        },
        ("EC2 Instance Rebalance Recommendation", _) => NoticeKind::Interrupted {
            kind: Interruption::Rebalance,
            deadline: None,
        },
        ("EC2 Instance State-change Notification", Some("terminated")) => NoticeKind::Gone,
        _ => return None,
    };
    Some(Notice {
        instance: InstanceId::new(detail.instance_id?),
        kind,
        receipt,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const ACCOUNT: &str = "123456789012";
    const REGION: &str = "eu-west-1";

    fn read(body: impl Into<String>) -> Option<Notice> {
        let message = Message::builder().receipt_handle("r-1").body(body).build();
        notice(&message, ACCOUNT, REGION)
    }

    fn event(detail_type: &str, state: &str) -> serde_json::Value {
        json!({
            "version": "0",
            "id": "12345678-1234-1234-1234-123456789012",
            "detail-type": detail_type,
            "source": "aws.ec2",
            "account": ACCOUNT,
            "time": "2026-11-25T10:00:00Z",
            "region": REGION,
            "resources": [],
            "detail": { "instance-id": "i-0123456789abcdef0", "state": state, "instance-action": "terminate" }
        })
    }

    #[test]
    fn a_warning_names_the_end() {
        let warning = event("EC2 Spot Instance Interruption Warning", "");
        let expected = NoticeKind::Interrupted {
            kind: Interruption::Spot,
            deadline: Some("2026-11-25T10:02:00Z".parse().unwrap()),
        };
        let notice = read(warning.to_string()).unwrap();
        assert_eq!(notice.kind, expected);
        assert_eq!(notice.instance.as_str(), "i-0123456789abcdef0");
    }

    #[rstest]
    #[case("EC2 Instance Rebalance Recommendation", "", true)]
    #[case("EC2 Instance State-change Notification", "terminated", true)]
    #[case("EC2 Instance State-change Notification", "running", false)]
    #[case("EC2 Instance State-change Notification", "stopped", false)]
    #[case("AWS Health Event", "", false)]
    fn what_matters_is_taken(#[case] detail_type: &str, #[case] state: &str, #[case] taken: bool) {
        let notice = read(event(detail_type, state).to_string());
        assert_eq!(notice.is_some(), taken);
    }

    #[rstest]
    #[case::garbage("not json")]
    #[case::empty("{}")]
    #[case::another_account(event("EC2 Instance Rebalance Recommendation", "").to_string().replace(ACCOUNT, "999999999999"))]
    #[case::another_region(event("EC2 Instance Rebalance Recommendation", "").to_string().replace(REGION, "us-east-1"))]
    #[case::another_source(event("EC2 Instance Rebalance Recommendation", "").to_string().replace("aws.ec2", "my.own"))]
    fn what_is_not_ours_says_nothing(#[case] body: impl Into<String>) {
        assert_eq!(read(body), None);
    }
}
