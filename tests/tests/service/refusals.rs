//! Payloads that were damaged, forged or are no payloads: the right answer, the reason, and no effect.

use muster_tests::fakes::github::sign;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::payloads::{self, Payload};
use crate::webhooks::{Answer, Delivery, Github, PATIENCE, Picture};

/// What GitHub never sends: a mebibyte more than its most.
const TOO_LARGE: usize = 26 * 1024 * 1024;

/// A coordinator that knows of some jobs, all of which the payloads could change.
struct Target {
    github: Github,
    before: Picture,
}

impl Target {
    async fn start() -> Self {
        let github = Github::start().await;
        let before = github.picture().await;
        Self { github, before }
    }

    async fn refused(&self, delivery: &Delivery, status: u16, reason: &str, origin: &str) {
        let answer = self.github.post(delivery).await;
        assert_refused(&answer, status, reason, origin);
    }

    async fn is_unchanged(&self) {
        assert_eq!(self.github.picture().await, self.before);
    }
}

fn assert_refused(answer: &Answer, status: u16, reason: &str, origin: &str) {
    assert_eq!(answer.status, status, "{origin}: {answer:?}");
    let told = answer.body["error"].as_str().unwrap_or_default();
    assert!(told.contains(reason), "{origin}: {reason:?} in {answer:?}");
}

#[tokio::test]
async fn a_changed_byte_is_noticed() {
    let target = Target::start().await;
    for payload in payloads::of_jobs() {
        let good = target.github.signed("workflow_job", payload.body());
        let last = good.body.len() - 1;
        for at in [0, 1, last / 3, last / 2, last - 1, last] {
            let mut body = good.body.to_vec();
            body[at] ^= 1;
            let bad = Delivery {
                body: body.into(),
                ..good.clone()
            };
            target
                .refused(&bad, 401, "signature", &payload.origin)
                .await;
        }
    }
    target.is_unchanged().await;
}

#[tokio::test]
async fn a_wrong_or_missing_signature_is_refused() {
    let target = Target::start().await;
    let mut refused = 0;
    for payload in payloads::of_jobs() {
        let good = target.github.signed("workflow_job", payload.body());
        let right = good.signature.clone().unwrap();
        let wrong = [
            Some(sign("another secret", &good.body)),
            Some(sign("", &good.body)),
            Some(right.replace("sha256=", "sha1=")),
            Some(right.replace("sha256=", "")),
            Some(right[..right.len() - 2].to_owned()),
            Some(format!("{right}00")),
            Some(format!("sha256={}", "0".repeat(64))),
            Some("sha256=".to_owned()),
            Some(String::new()),
            None,
        ];
        for signature in wrong {
            let origin = format!("{} with {signature:?}", payload.origin);
            let bad = Delivery {
                signature,
                ..good.clone()
            };
            target.refused(&bad, 401, "", &origin).await;
            refused += 1;
        }
    }
    target.is_unchanged().await;
    let answers = target.github.series("muster_webhooks_total").await;
    assert_eq!(answers["{answer=\"unauthorized\"}"], refused);
}

#[tokio::test]
async fn a_body_that_ends_too_early_is_refused() {
    let target = Target::start().await;
    for payload in payloads::of_jobs() {
        let good = target.github.signed("workflow_job", payload.body());
        let half = good.body.len() / 2;
        // The sender dies: less comes than was announced.
        let answer = send_and_stop(&target.github, &good, &good.body[..half]).await;
        assert_refused(&answer, 400, "incomplete", &payload.origin);
        // The sender is a fool: it signed the half.
        let short = target
            .github
            .signed("workflow_job", good.body.slice(..half));
        target
            .refused(&short, 400, "invalid JSON", &payload.origin)
            .await;
        let none = target.github.signed("workflow_job", "");
        target
            .refused(&none, 400, "invalid JSON", &payload.origin)
            .await;
    }
    target.is_unchanged().await;
}

/// A request's head, with `length` for the header that says how long the body is.
fn head(delivery: &Delivery, length: &str) -> String {
    format!(
        "POST /webhooks/github HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         X-GitHub-Event: {}\r\nX-GitHub-Delivery: {}\r\nX-Hub-Signature-256: {}\r\n\
         {length}\r\n\r\n",
        delivery.event,
        delivery.guid,
        delivery.signature.as_deref().unwrap(),
    )
}

/// Announces a delivery, sends a part of its body, closes its side, and reads the answer.
async fn send_and_stop(github: &Github, delivery: &Delivery, part: &[u8]) -> Answer {
    let address = github.world.coordinator.addresses().web;
    let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
    let length = format!("Content-Length: {}", delivery.body.len());
    let sending = async {
        write.write_all(head(delivery, &length).as_bytes()).await?;
        write.write_all(part).await?;
        write.shutdown().await
    };
    // The answer may come, and the connection be gone, before all was sent.
    let (_sent, answer) = tokio::join!(sending, read_answer(&mut read));
    answer
}

/// Reads until the other side closes, for whatever reason.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Answer {
    let mut answer = Vec::new();
    // What came before a reset is there all the same.
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    drop(read.unwrap());
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(
        head.to_lowercase()
            .contains("content-type: application/json")
    );
    let body = serde_json::from_str(body).unwrap();
    Answer { status, body }
}

#[tokio::test]
async fn a_body_of_unknown_length_is_cut_off_at_the_same_size() {
    let target = Target::start().await;
    let mut body = payloads::of_jobs()[0].body();
    body.resize(TOO_LARGE, b' ');
    let large = target.github.signed("workflow_job", body);
    let address = target.github.world.coordinator.addresses().web;
    let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
    let sending = async {
        let head = head(&large, "Transfer-Encoding: chunked");
        write.write_all(head.as_bytes()).await?;
        for part in large.body.chunks(64 * 1024) {
            let size = format!("{:x}\r\n", part.len());
            write.write_all(size.as_bytes()).await?;
            write.write_all(part).await?;
            write.write_all(b"\r\n").await?;
        }
        write.write_all(b"0\r\n\r\n").await?;
        write.shutdown().await
    };
    // The answer may come, and the connection be gone, before all was sent.
    let (_sent, answer) = tokio::join!(sending, read_answer(&mut read));
    assert_refused(&answer, 413, "26214400 bytes", "chunks");
    target.is_unchanged().await;
}

#[tokio::test]
async fn a_body_of_26_mb_is_refused() {
    let target = Target::start().await;
    for payload in payloads::of_jobs() {
        // White space is all that is wrong with it.
        let mut body = payload.body();
        body.resize(TOO_LARGE, b' ');
        let large = target.github.signed("workflow_job", body);
        let answer = send_and_stop(&target.github, &large, &large.body).await;
        assert_refused(&answer, 413, "26214400 bytes", &payload.origin);
    }
    target.is_unchanged().await;
}

#[tokio::test]
async fn the_largest_body_that_github_sends_is_taken() {
    let target = Target::start().await;
    let payload = &payloads::of_jobs()[0];
    let mut body = payload.body();
    body.resize(25 * 1024 * 1024, b' ');
    let large = target.github.signed("workflow_job", body);
    assert_eq!(target.github.post(&large).await.status, 202);
    assert_ne!(target.github.picture().await, target.before);
}

#[tokio::test]
async fn invalid_utf_8_is_refused() {
    let target = Target::start().await;
    for payload in payloads::of_jobs() {
        let body = payload.body();
        let name = payload.document["workflow_job"]["name"].as_str().unwrap();
        let at = position(&body, name.as_bytes());
        for junk in [
            &[0xff][..],
            &[0xc0, 0x80],
            &[0xed, 0xa0, 0x80],
            &[0xe2, 0x82],
        ] {
            let mut body = body.clone();
            body.splice(at..at, junk.iter().copied());
            let bad = target.github.signed("workflow_job", body);
            let reason = format!("invalid UTF-8 at byte {at}");
            target.refused(&bad, 400, &reason, &payload.origin).await;
        }
    }
    target.is_unchanged().await;
}

fn position(body: &[u8], part: &[u8]) -> usize {
    body.windows(part.len())
        .position(|window| window == part)
        .unwrap()
}

/// Fields with text in them that say something about a job.
const TEXTS: [&str; 10] = [
    "/action",
    "/workflow_job/status",
    "/workflow_job/name",
    "/workflow_job/conclusion",
    "/workflow_job/runner_name",
    "/workflow_job/started_at",
    "/workflow_job/labels/0",
    "/repository/name",
    "/repository/owner/login",
    "/workflow_job/created_at",
];

#[tokio::test]
async fn a_number_where_a_text_belongs_is_refused() {
    let target = Target::start().await;
    for payload in payloads::of_jobs() {
        for place in TEXTS {
            for number in [json!(7), json!(-1.5), json!(1e300)] {
                let origin = format!("{} with {number} at {place}", payload.origin);
                let body = with(&payload, place, number).to_string();
                let bad = target.github.signed("workflow_job", body);
                let named = place[1..].replace('/', ".").replace(".0", "[0]");
                let reason = format!("{named}: expected ");
                target.refused(&bad, 422, &reason, &origin).await;
            }
        }
    }
    target.is_unchanged().await;
}

/// The payload with a value in a place, also if the place was empty.
fn with(payload: &Payload, place: &str, value: Value) -> Value {
    let mut document = payload.document.clone();
    let (parent, key) = place.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        parent => parent[key] = value,
    }
    document
}

#[tokio::test]
async fn what_is_no_webhook_of_ours_is_refused() {
    let target = Target::start().await;
    let payload = &payloads::of_jobs()[0];
    let good = target.github.signed("workflow_job", payload.body());
    let form = Delivery {
        content_type: "application/x-www-form-urlencoded".to_owned(),
        ..target.github.signed("workflow_job", "payload=%7B%7D")
    };
    let reason = "set the webhook's content type to application/json";
    target.refused(&form, 415, reason, "a form").await;
    for content_type in ["", "text/plain", "application/json-patch+json"] {
        let other = Delivery {
            content_type: content_type.to_owned(),
            ..good.clone()
        };
        target.refused(&other, 415, reason, content_type).await;
    }
    for event in ["", "Workflow Job", "workflow_job/../ping"] {
        let other = Delivery {
            event: event.to_owned(),
            ..good.clone()
        };
        target.refused(&other, 400, "X-GitHub-Event", event).await;
    }
    let long = "0".repeat(65);
    for guid in ["", "a b", long.as_str()] {
        let other = Delivery {
            guid: guid.to_owned(),
            ..good.clone()
        };
        target.refused(&other, 400, "X-GitHub-Delivery", guid).await;
    }
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = target.github.world.coordinator.webhook_url();
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let answer = client.request(method, &url).send().await.unwrap();
        assert_eq!(answer.status(), 405, "{answer:?}");
    }
    let elsewhere = client.post(format!("{url}/more")).body("{}");
    assert_eq!(elsewhere.send().await.unwrap().status(), 404);
    target.is_unchanged().await;
}
