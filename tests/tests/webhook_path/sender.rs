//! Sends deliveries over kept connections, and takes the time of each answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use muster_tests::fakes::github::sign;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::intake::SECRET;

/// What to send.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    pub(crate) address: SocketAddr,
    /// Connections, each with one request at a time.
    pub(crate) connections: u32,
    /// How many deliveries; one in ten is sent twice.
    pub(crate) count: u32,
    /// Deliveries a second; none is as fast as answers come.
    pub(crate) rate: Option<u32>,
    /// Number of the first; guids are made from it.
    pub(crate) first: u32,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) accepted: u32,
    pub(crate) duplicates: u32,
    pub(crate) lasted: Duration,
    /// Sorted.
    times: Vec<Duration>,
}

impl Figures {
    /// The time within which this part of all was answered.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let last = self.times.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index of a list in memory"
        )]
        let index = (last as f64 * part).ceil() as usize;
        self.times.get(index).copied().unwrap_or_default()
    }
}

/// A delivery of the usual size: 8 KB, most of it about the repository.
fn body() -> Vec<u8> {
    let urls: Vec<Value> = (0..110)
        .map(|n| {
            json!(format!(
                "https://api.github.com/repos/acme/widgets/thing-{n}{{/id}}"
            ))
        })
        .collect();
    json!({
        "action": "queued",
        "workflow_job": {
            "id": 1, "run_id": 2, "run_attempt": 1, "name": "build", "workflow_name": "ci",
            "labels": ["self-hosted", "linux"], "status": "queued",
            "created_at": "2026-01-01T00:00:00Z"
        },
        "repository": {
            "name": "widgets", "private": true, "owner": { "login": "acme" }, "urls": urls
        }
    })
    .to_string()
    .into_bytes()
}

/// Sends all, and waits for all answers.
pub(crate) async fn send(orders: Orders) -> Figures {
    let body: Arc<[u8]> = body().into();
    let signature: Arc<str> = sign(SECRET, &body).into();
    let next = Arc::new(AtomicU32::new(0));
    let began = Instant::now();
    let mut senders = JoinSet::new();
    for _ in 0..orders.connections {
        let stream = TcpStream::connect(orders.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let sender = Sender {
            stream,
            body: Arc::clone(&body),
            signature: Arc::clone(&signature),
            answer: Vec::new(),
        };
        senders.spawn(sender.run(orders.clone(), Arc::clone(&next), began));
    }
    let mut all = Figures::default();
    for one in senders.join_all().await {
        all.accepted += one.accepted;
        all.duplicates += one.duplicates;
        all.times.extend(one.times);
    }
    all.lasted = began.elapsed();
    all.times.sort_unstable();
    all
}

struct Sender {
    stream: TcpStream,
    body: Arc<[u8]>,
    signature: Arc<str>,
    answer: Vec<u8>,
}

impl Sender {
    async fn run(mut self, orders: Orders, next: Arc<AtomicU32>, began: Instant) -> Figures {
        let mut figures = Figures::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= orders.count {
                return figures;
            }
            let mut asked = Instant::now();
            if let Some(rate) = orders.rate {
                let due = began + Duration::from_secs(1) * number / rate;
                if due > asked {
                    sleep_until(due).await;
                    asked = Instant::now();
                } else {
                    // No connection was free: that wait counts.
                    asked = due;
                }
            }
            let guid = format!("{:08x}-0000-4000-8000-000000000000", orders.first + number);
            self.deliver(&guid, &mut figures).await;
            figures.times.push(asked.elapsed());
            if number.is_multiple_of(10) {
                self.deliver(&guid, &mut figures).await;
            }
        }
    }

    async fn deliver(&mut self, guid: &str, figures: &mut Figures) {
        let head = format!(
            "POST /webhooks/github HTTP/1.1\r\nhost: muster\r\ncontent-type: application/json\r\n\
             x-github-event: workflow_job\r\nx-github-delivery: {guid}\r\n\
             x-hub-signature-256: {}\r\ncontent-length: {}\r\n\r\n",
            self.signature,
            self.body.len()
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(&self.body);
        self.stream.write_all(&request).await.unwrap();
        match self.status().await {
            202 => figures.accepted += 1,
            200 => figures.duplicates += 1,
            other => panic!("{other}: {}", String::from_utf8_lossy(&self.answer)),
        }
    }

    /// Reads one answer; returns its status.
    async fn status(&mut self) -> u16 {
        self.answer.clear();
        loop {
            let count = self.stream.read_buf(&mut self.answer).await.unwrap();
            assert_ne!(count, 0, "the connection ended");
            let text = std::str::from_utf8(&self.answer).unwrap();
            let Some((head, rest)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if rest.len() >= length {
                return head.split(' ').nth(1).unwrap().parse().unwrap();
            }
        }
    }
}
