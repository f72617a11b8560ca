//! The client against a service on loopback that misbehaves as told.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use proptest::prelude::{Strategy as _, any, prop_assert};
use proptest::test_runner::{Config, TestRunner};
use rstest::rstest;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use super::{Client, Token, until_renewal};
use crate::imds::connection::BODY_MAX;
use crate::imds::error::ImdsError;
use crate::imds::service::{Reply, Service, TOKEN, guarded};

const TTL: &str = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds";

fn client(service: &Service) -> Client {
    Client::new(&service.base)
}

async fn service(then: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Service {
    Service::start(guarded(then)).await
}

/// What a read of anything comes to when the service answers it so.
async fn failure(reply: Reply) -> ImdsError {
    let service = service(move |_| reply.clone()).await;
    client(&service).get("x").await.unwrap_err()
}

#[tokio::test]
async fn one_token_and_one_connection_serve_all_reads() {
    let service = service(|path| match path {
        "meta-data/instance-id" => Reply::text(200, "i-1"),
        _ => Reply::text(404, ""),
    })
    .await;
    let mut client = client(&service);
    for _ in 0..3 {
        let body = client.get("meta-data/instance-id").await.unwrap();
        assert_eq!(body.unwrap(), "i-1");
        assert_eq!(client.get("meta-data/other").await.unwrap(), None);
    }
    let log = service.log();
    assert_eq!((log.connections, log.requests.len()), (1, 7));
    let host = format!("\r\nhost: {}\r\n", service.base.authority());
    for head in &log.requests {
        assert!(head.contains(&host), "{head}");
        assert!(!head.contains("x-forwarded-for"), "{head}");
    }
}

#[tokio::test]
async fn a_service_that_closes_each_connection_is_read_all_the_same() {
    // One that says so, and one that does not.
    for said in ["connection: close\r\n", ""] {
        let answer = format!("HTTP/1.1 200 x\r\n{said}content-length: 2\r\n\r\nok").into_bytes();
        let service = service(move |_| Reply::Raw(answer.clone())).await;
        let mut client = client(&service);
        for _ in 0..3 {
            assert_eq!(client.get("x").await.unwrap().unwrap(), "ok");
        }
        assert_eq!(service.log().count("get "), 3);
        assert_eq!(service.log().count("put "), 1);
    }
}

#[tokio::test]
async fn a_token_that_is_no_longer_accepted_is_replaced() {
    let service = service(|_| Reply::text(200, "ok")).await;
    let mut client = client(&service);
    let ttl = Duration::from_secs(21_600);
    client.token = Some(Token::new(b"old", ttl, Instant::now()).unwrap());
    assert_eq!(client.get("x").await.unwrap().unwrap(), "ok");
    assert_eq!(service.log().requests.len(), 3);
}

#[tokio::test]
async fn a_storm_of_401_ends_after_one_new_token() {
    let service = service(|_| Reply::text(401, "")).await;
    let mut client = client(&service);
    let error = client.get("x").await.unwrap_err();
    assert!(matches!(error, ImdsError::Unauthorized), "{error}");
    assert!(error.is_retryable());
    assert_eq!(service.log().count("put "), 2);
    assert_eq!(service.log().count("get "), 2);
    // The last refused token isn't tried again.
    client.get("x").await.unwrap_err();
    assert_eq!(service.log().count("put "), 4);
}

#[test]
fn a_token_is_renewed_two_minutes_early_or_at_half_of_a_short_life() {
    let renewal = |seconds| until_renewal(Duration::from_secs(seconds)).as_secs();
    assert_eq!(renewal(21_600), 21_480);
    assert_eq!(renewal(240), 120);
    assert_eq!(renewal(60), 30);
    assert_eq!(renewal(0), 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_used_until_its_renewal() {
    let mut client = Client::new(&"http://127.0.0.1:1".parse().unwrap());
    let ttl = Duration::from_secs(21_600);
    let token = Token::new(b"tok", ttl, Instant::now()).unwrap();
    let renew_at = token.renew_at;
    client.token = Some(token);
    sleep(Duration::from_secs(21_479)).await;
    assert_eq!(client.token().await.unwrap().1, "tok");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(Instant::now(), renew_at);
    // It asks for a new one, which nobody gives here.
    client.token().await.unwrap_err();
}

#[rstest]
// At once over: said with the token, or with what was read by it.
#[case("0", "0", 3)]
#[case("21600", "0", 3)]
// Unreadable, or longer than was asked for: as long as was asked for, at most.
#[case("soon", "", 1)]
#[case("99999999999999999999", "-1", 1)]
#[case("4294967296", "4294967296", 1)]
#[tokio::test]
async fn the_life_that_the_service_states_counts(
    #[case] put: &'static str,
    #[case] get: &'static str,
    #[case] tokens: usize,
) {
    let guard = guarded(move |_| Reply::text(200, "ok").with(TTL, get));
    let service = Service::start(move |head| match head.starts_with("put ") {
        true => Reply::text(200, TOKEN).with(TTL, put),
        false => guard(head),
    })
    .await;
    let mut client = client(&service);
    for _ in 0..3 {
        client.get("x").await.unwrap();
    }
    assert_eq!(service.log().count("put "), tokens);
    let left = client.token.unwrap().renew_at - Instant::now();
    assert!(left <= Duration::from_secs(21_480), "{left:?}");
}

#[rstest]
#[case(503, true)]
#[case(500, true)]
#[case(429, true)]
#[case(400, false)]
#[case(403, false)]
#[case(302, false)]
#[case(204, false)]
#[tokio::test]
async fn a_status_is_an_error_that_says_whether_to_try_again(
    #[case] status: u16,
    #[case] retryable: bool,
) {
    let error = failure(Reply::text(status, "").with("location", "/")).await;
    assert!(
        matches!(error, ImdsError::Status(got) if got == status),
        "{error}"
    );
    assert_eq!(error.is_retryable(), retryable);
    // The same where a token is asked for. There, 404 and 401 are errors too.
    for status in [status, 404, 401] {
        let service = Service::start(move |_| Reply::text(status, "")).await;
        let error = client(&service).get("x").await.unwrap_err();
        assert!(
            matches!(error, ImdsError::Status(got) if got == status),
            "{error}"
        );
    }
}

#[rstest]
#[case(b"")]
#[case(b"two words")]
#[case(b"line\n")]
#[case(b"\xff\xfe")]
#[tokio::test]
async fn a_token_that_is_none_is_refused(#[case] token: &'static [u8]) {
    let service = Service::start(|_| Reply::Answer(200, String::new(), token.into())).await;
    let error = client(&service).get("x").await.unwrap_err();
    assert!(matches!(error, ImdsError::Token), "{error}");
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let whole = service(|_| Reply::Answer(200, String::new(), vec![b'x'; BODY_MAX])).await;
    let body = client(&whole).get("x").await.unwrap().unwrap();
    assert_eq!(body.len(), BODY_MAX);
    let error = failure(Reply::Answer(200, String::new(), vec![b'x'; BODY_MAX + 1])).await;
    assert!(matches!(error, ImdsError::TooLong), "{error}");
    assert!(!error.is_retryable());
    let head = format!("HTTP/1.1 200 x\r\nx: {}", "y".repeat(BODY_MAX));
    let error = failure(Reply::Raw(head.into_bytes())).await;
    assert!(matches!(error, ImdsError::Garbage(_)), "{error}");
}

#[tokio::test]
async fn what_is_not_http_is_not_tried_again() {
    let error = failure(Reply::Raw(b"220 mail.example ESMTP\r\n".to_vec())).await;
    assert!(matches!(error, ImdsError::Garbage(_)), "{error}");
    assert!(!error.is_retryable());
}

#[rstest]
#[case(b"")]
#[case(b"HTTP/1.1 200 x\r\ncontent-le")]
#[case(b"HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\nhalf")]
#[tokio::test]
async fn an_answer_that_breaks_off_may_be_tried_again(#[case] part: &'static [u8]) {
    let error = failure(Reply::Raw(part.into())).await;
    assert!(matches!(error, ImdsError::Broken(_)), "{error}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_given_up_after_a_second() {
    let first = AtomicUsize::new(0);
    let service = service(move |_| match first.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::Silence,
        _ => Reply::text(200, "ok"),
    })
    .await;
    let mut client = client(&service);
    let begun = Instant::now();
    let error = client.get("x").await.unwrap_err();
    assert!(matches!(error, ImdsError::Timeout), "{error}");
    assert!(error.is_retryable());
    assert!(begun.elapsed() >= Duration::from_secs(1));
    // The late answer must not be taken for that of the next request.
    assert_eq!(client.get("x").await.unwrap().unwrap(), "ok");
    assert_eq!(service.log().connections, 2);
}

#[tokio::test]
async fn nobody_there_is_told_from_no_way_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone: Url = format!("http://{}", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    drop(listener);
    let error = Client::new(&gone).get("x").await.unwrap_err();
    assert!(matches!(error, ImdsError::Connect { .. }), "{error}");
    assert!(error.is_retryable());
    assert!(error.to_string().contains(gone.authority()), "{error}");

    // A full queue of connections: the kernel drops what comes, as a firewall does.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) =
        timeout(Duration::from_millis(100), TcpStream::connect(address)).await
    {
        queued.push(stream);
        assert!(queued.len() < 100, "the queue is never full");
    }
    let base = format!("http://{address}").parse().unwrap();
    let error = Client::new(&base).get("x").await.unwrap_err();
    assert!(matches!(error, ImdsError::ConnectTimeout { .. }), "{error}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn an_ipv6_service_is_read() {
    let answer = guarded(|_| Reply::text(200, "ok"));
    let Ok(service) = Service::start_on("[::1]:0", answer).await else {
        eprintln!("this machine has no IPv6");
        return;
    };
    assert_eq!(client(&service).get("x").await.unwrap().unwrap(), "ok");
    let host = format!("\r\nhost: {}\r\n", service.base.authority());
    assert!(host.contains("[::1]"), "{host}");
    assert!(service.log().requests[0].contains(&host));
}

/// Where [`the_child_of_the_proxy_test`] finds the service.
const CHILD: &str = "MUSTER_TEST_METADATA";

#[tokio::test]
async fn a_proxy_in_the_environment_is_never_asked() {
    let service = service(|_| Reply::text(200, "ok")).await;
    let proxy = Service::start(|_| Reply::text(200, "proxied")).await;
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact"]);
    child.arg("imds::client::tests::the_child_of_the_proxy_test");
    child.env(CHILD, service.base.as_str());
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        child.env(name, proxy.base.as_str());
    }
    child.env_remove("no_proxy").env_remove("NO_PROXY");
    let output = tokio::task::spawn_blocking(move || child.output().unwrap());
    let output = output.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(service.log().count("get /i-1/latest/x "), 1, "{output:?}");
    assert_eq!(proxy.log().connections, 0);
}

#[tokio::test]
#[ignore = "run by the test of the proxy"]
async fn the_child_of_the_proxy_test() {
    // Nothing to do when all ignored tests are run.
    if let Ok(base) = std::env::var(CHILD) {
        let body = Client::new(&base.parse().unwrap()).get("x").await;
        assert_eq!(body.unwrap().unwrap(), "ok");
    }
}

#[tokio::test]
async fn what_must_appear_is_waited_for() {
    let reads = AtomicUsize::new(0);
    let service = service(move |_| match reads.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => Reply::text(404, ""),
        2 => Reply::text(503, ""),
        _ => Reply::text(200, "there"),
    })
    .await;
    let mut client = client(&service);
    assert_eq!(client.get_when_there("x").await.unwrap(), "there");
    assert_eq!(service.log().count("get "), 4);
}

#[tokio::test]
async fn what_can_never_appear_is_not_waited_for() {
    let service = service(|_| Reply::text(403, "")).await;
    let error = client(&service).get_when_there("x").await.unwrap_err();
    assert!(
        matches!(error, ImdsError::Status(StatusCode::FORBIDDEN)),
        "{error}"
    );
    assert_eq!(service.log().count("get "), 1);
}

#[tokio::test]
async fn no_log_shows_the_token() {
    let token = Token::new(b"AQAEsecret==", Duration::ZERO, Instant::now()).unwrap();
    assert!(!format!("{token:?}").contains("secret"));
}

/// Whatever comes, no panic and no long wait.
#[test]
fn any_bytes_are_an_answer_or_an_error() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let head = "HTTP/1.1 200 x\r\n";
    let bytes = (any::<bool>(), any::<Vec<u8>>()).prop_map(|(headed, bytes)| match headed {
        true => [head.as_bytes(), &bytes].concat(),
        false => bytes,
    });
    let mut runner = TestRunner::new(Config::with_cases(100));
    let outcome = runner.run(&(bytes, any::<bool>()), |(bytes, at_token)| {
        runtime.block_on(async {
            let guard = guarded({
                let bytes = bytes.clone();
                move |_| Reply::Raw(bytes.clone())
            });
            let service = Service::start(move |head| match at_token {
                true => Reply::Raw(bytes.clone()),
                false => guard(head),
            })
            .await;
            let begun = Instant::now();
            let _answer = client(&service).get("x").await;
            prop_assert!(begun.elapsed() < Duration::from_secs(10));
            Ok(())
        })
    });
    outcome.unwrap();
}
