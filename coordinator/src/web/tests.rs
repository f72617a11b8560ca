//! The listener under requests that GitHub, probes and strangers might send.

mod kit;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use http::StatusCode;
use rstest::rstest;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::kit::{DEADLINE, headers, listen, listen_with, queued, sign};
use super::*;
use crate::store::Store;
use crate::store::fixtures::{Cluster, Mode, Wire, in_schema};

/// Before there is a store, and with it: a probe must not have the process killed for waiting.
#[tokio::test]
async fn a_process_that_waits_lives_and_is_not_ready() {
    let rest = Arc::new(OnceLock::new());
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let cancel = CancellationToken::new();
    let server = tokio::spawn(serve(socket, front(Arc::clone(&rest)), cancel.clone()));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |path: &str| {
        let answer = client.get(format!("{url}{path}")).send().await.unwrap();
        answer.status().as_u16()
    };
    for (path, status) in [("/livez", 200), ("/readyz", 503), ("/metrics", 503)] {
        assert_eq!(ask(path).await, status, "{path}");
    }
    let hook = client.post(format!("{url}/webhooks/github")).body("{}");
    assert_eq!(hook.send().await.unwrap().status(), 503, "GitHub keeps it");
    let all = Router::new().route("/readyz", get(async || "all"));
    rest.set(all).unwrap();
    for (path, status) in [("/readyz", 200), ("/livez", 404)] {
        assert_eq!(ask(path).await, status, "the rest has {path}");
    }
    cancel.cancel();
    server.await.unwrap();
}

#[tokio::test]
async fn a_good_delivery_is_accepted_and_the_engine_is_woken() {
    let web = listen().await;
    let answer = web.post(queued(), &[]).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.body, json!({ "accepted": true }));
    assert_eq!(web.woken(), 1);
}

#[tokio::test]
async fn an_event_of_no_use_is_answered_200_and_not_stored() {
    let web = listen().await;
    let answer = web
        .post("{\"zen\":\"\"}", &[("x-github-event", "ping")])
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body, json!({ "ignored": "event ping is not used" }));
    assert_eq!(web.woken(), 0);
}

#[rstest]
#[case(
    "content-type",
    "application/x-www-form-urlencoded",
    415,
    "the content type is \"application/x-www-form-urlencoded\": set the webhook's content type to \
     application/json"
)]
#[case("x-github-event", "", 400, "header X-GitHub-Event is missing")]
#[case("x-github-delivery", "", 400, "header X-GitHub-Delivery is missing")]
#[case(
    "x-github-delivery",
    "../../etc",
    400,
    "header X-GitHub-Delivery is not what GitHub sends"
)]
#[case(
    "x-hub-signature-256",
    "",
    401,
    "header X-Hub-Signature-256 is missing"
)]
#[case(
    "x-hub-signature-256",
    "sha256=0",
    401,
    "the signature is not \"sha256=\" followed by 64 hexadecimal digits"
)]
#[case(
    "x-hub-signature-256",
    "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    401,
    "the signature does not belong to this body and a configured secret"
)]
#[tokio::test]
async fn a_wrong_header_is_refused_with_the_reason(
    #[case] header: &str,
    #[case] value: &str,
    #[case] status: u16,
    #[case] reason: &str,
) {
    let web = listen().await;
    web.post(queued(), &[(header, value)])
        .await
        .is_refused(status, reason);
    assert_eq!(web.woken(), 0);
}

#[rstest]
#[case(b"{\"action\":\"\xff\"}".to_vec(), 400, "invalid UTF-8 at byte 11")]
#[case(b"{".to_vec(), 400, "invalid JSON: EOF while parsing an object at line 1 column 1")]
#[case(queued().replace("[\"self-hosted\"]", "[3]").into_bytes(), 422,
    "workflow_job.labels[0]: expected a string, found a number")]
#[tokio::test]
async fn a_signed_body_that_is_no_payload_is_refused_and_changes_nothing(
    #[case] body: Vec<u8>,
    #[case] status: u16,
    #[case] reason: &str,
) {
    let web = listen().await;
    web.post(body, &[]).await.is_refused(status, reason);
    assert_eq!(web.woken(), 0);
}

#[tokio::test]
async fn one_changed_byte_is_refused_whatever_it_is() {
    let web = listen().await;
    let body = queued();
    let signature = sign(body.as_bytes());
    for index in [0, body.len() / 2, body.len() - 1] {
        let mut changed = body.clone().into_bytes();
        changed[index] ^= 1;
        let answer = web
            .post(changed, &[("x-hub-signature-256", &signature)])
            .await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_the_sender_learns_why() {
    let web = listen().await;
    let body = vec![b' '; 26_000_000 + 1_000_000];
    web.post(body, &[])
        .await
        .is_refused(413, "the body is larger than 26214400 bytes");
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused() {
    let web = listen().await;
    let mut request = request_head(b"", "transfer-encoding: chunked\r\n").into_bytes();
    let chunk = vec![b' '; 1 << 20];
    for _ in 0..26 {
        request.extend(format!("{:x}\r\n", chunk.len()).bytes());
        request.extend(&chunk);
        request.extend(b"\r\n");
    }
    let mut stream = TcpStream::connect(web.address).await.unwrap();
    // The listener may close before all is written.
    let _ = stream.write_all(&request).await;
    let mut start = [0; 12];
    timeout(DEADLINE, stream.read_exact(&mut start))
        .await
        .expect("an answer in time")
        .unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_truncated_body_is_refused_and_changes_nothing() {
    let web = listen().await;
    let body = queued();
    let length = format!("content-length: {}\r\n", body.len());
    let request = request_head(body.as_bytes(), &length) + &body[..body.len() / 2];
    let answer = web.raw(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("the body is incomplete"), "{answer}");
    assert_eq!(web.woken(), 0);
}

fn request_head(body: &[u8], framing: &str) -> String {
    let mut head = "POST /webhooks/github HTTP/1.1\r\nhost: x\r\n".to_owned();
    for (name, value) in headers(body) {
        head += &format!("{name}: {value}\r\n");
    }
    head + framing + "\r\n"
}

#[tokio::test]
async fn other_methods_and_paths_are_refused() {
    let web = listen().await;
    assert_eq!(web.get("/webhooks/github").await.0, 405);
    assert_eq!(web.get("/").await.0, 404);
}

#[tokio::test]
async fn probes_and_figures_answer() {
    let web = listen().await;
    assert_eq!(web.get("/livez").await, (StatusCode::OK, "ok\n".to_owned()));
    assert_eq!(web.get("/readyz").await.0, 503);
    assert!(web.get("/metrics").await.1.contains("muster_ready 0\n"));
    web.ready.send_replace(true);
    assert_eq!(web.get("/readyz").await.0, 200);
    let figures = web.get("/metrics").await.1;
    assert!(figures.contains("muster_ready 1\n"), "{figures}");
    assert!(
        figures.contains("muster_webhooks_total{answer=\"accepted\"}"),
        "{figures}"
    );
}

#[tokio::test]
async fn a_request_that_was_begun_is_answered_after_the_stop() {
    let web = listen().await;
    let body = queued();
    let length = format!("content-length: {}\r\n", body.len());
    let mut stream = TcpStream::connect(web.address).await.unwrap();
    let head = request_head(body.as_bytes(), &length) + &body[..10];
    stream.write_all(head.as_bytes()).await.unwrap();
    // The answer to a later request on another connection shows that the first was read.
    assert_eq!(web.get("/livez").await.0, 200);
    web.cancel.cancel();
    while TcpStream::connect(web.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    stream.write_all(&body.as_bytes()[10..]).await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer))
        .await
        .expect("an answer in time")
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    timeout(DEADLINE, web.server)
        .await
        .expect("an end")
        .unwrap();
}

#[tokio::test]
async fn without_its_database_a_delivery_is_put_off_and_not_lost() {
    let cluster = Cluster::shared();
    let settings = in_schema(cluster).await;
    let wire = Wire::to(cluster.directory()).await;
    let store = Store::connect(&wire.through(&settings)).await.unwrap();
    let mut writable = store.writable();
    let web = listen_with(store.clone(), tempfile::tempdir().unwrap()).await;
    web.ready.send_replace(true);

    wire.set(Mode::Cut);
    for _ in 0..3 {
        let answer = web.post(queued(), &[]).await;
        answer.is_refused(503, "the delivery could not be stored");
    }
    let (status, told) = web.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(told, "not ready: the store can't be written\n");
    assert_eq!(web.get("/livez").await.0, 200, "a restart would not help");
    assert_eq!(web.woken(), 0);

    wire.set(Mode::Whole);
    let back = timeout(DEADLINE, writable.wait_for(|writable| *writable));
    back.await.unwrap().unwrap();
    assert_eq!(web.get("/readyz").await.0, 200);
    let answer = web.post(queued(), &[]).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(store.pending_deliveries(9).await.unwrap().len(), 1);

    // Stored, though the answer was lost: GitHub hears 503, and the next time that it is known.
    let other = "00000000-cc78-11e3-81ab-4c9367dc0958";
    wire.set(Mode::SwallowsCommit);
    let answer = web.post(queued(), &[("x-github-delivery", other)]).await;
    answer.is_refused(503, "the delivery could not be stored");
    wire.set(Mode::Whole);
    let back = timeout(DEADLINE, writable.wait_for(|writable| *writable));
    back.await.unwrap().unwrap();
    let answer = web.post(queued(), &[("x-github-delivery", other)]).await;
    assert_eq!(answer.body, json!({ "duplicate": true }));
}
