//! Servers that stall, lie, lead elsewhere, or are not there.

use std::time::Instant;

use muster_core::JobStatus;
use secrecy::SecretString;

use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

#[tokio::test]
async fn a_server_that_does_not_answer_is_left_in_time() {
    let github = Fake::answering("DELETE", vec![Reply::Never]).await;
    let mut settings = github.settings(&pkcs8());
    settings.total_timeout = Duration::from_millis(200);
    let client = GithubClient::new(settings).unwrap();
    let began = Instant::now();
    let error = delete(&client).await.unwrap_err();
    assert!(
        error.to_string().contains("did not answer in 0.2 s"),
        "{error}"
    );
    assert!(waits(&error) > Duration::ZERO && began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_server_that_can_not_be_reached_is_a_delay() {
    let github = Fake::answering("", vec![Reply::Never]).await;
    let mut settings = github.settings(&pkcs8());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    settings.api_url = url.parse().unwrap();
    let error = delete(&GithubClient::new(settings).unwrap())
        .await
        .unwrap_err();
    assert!(waits(&error) > Duration::ZERO, "{error}");
}

#[rstest]
#[case::garbage(Reply::Bytes("<html>".into()))]
#[case::another_type(reply(200, json!({ "runners": 5 })))]
#[case::huge(Reply::Bytes(vec![b' '; 6 << 20].into()))]
#[tokio::test]
async fn an_answer_of_no_use_is_refused(#[case] answer: Reply) {
    let github = Fake::answering("/actions/runners", vec![answer]).await;
    let error = github.client().list_runners(&org()).await.unwrap_err();
    assert!(matches!(error, GithubError::Garbled(_)), "{error}");
}

#[tokio::test]
async fn errors_quote_little_and_no_secret() {
    let long = "x".repeat(10_000);
    let github = Fake::answering("DELETE", vec![reply(403, json!({ "message": long }))]).await;
    let text = delete(&github.client()).await.unwrap_err().to_string();
    assert!(text.len() < 400, "{} bytes", text.len());
    let config = json!({ "runner": {}, "encoded_jit_config": "c2VjcmV0" });
    let github = Fake::answering("generate-jitconfig", vec![reply(201, config)]).await;
    let error = mint(&github.client(), &repository_scope(), "any").await;
    let error = format!("{:?}", error.unwrap_err());
    assert!(
        error.contains("runner.id") && !error.contains("c2VjcmV0"),
        "{error}"
    );
}

#[tokio::test]
async fn a_name_that_would_change_the_path_is_not_sent() {
    let github = Fake::answering("", vec![reply(204, json!({}))]).await;
    let client = github.client();
    for login in ["..", ".", ""] {
        let scope = Scope::Organization(login.to_owned());
        let answer = client.delete_runner(&scope, GithubRunnerId(1)).await;
        assert!(
            matches!(answer, Err(GithubError::Unaskable(_))),
            "{answer:?}"
        );
    }
    let scope = Scope::Organization("a/../b?c#d".to_owned());
    let _ = client.delete_runner(&scope, GithubRunnerId(1)).await;
    let lines: Vec<_> = github.asked("").into_iter().map(|a| a.line).collect();
    assert_eq!(lines, ["GET /api/v3/orgs/a%2F..%2Fb%3Fc%23d/installation"]);
}

#[tokio::test]
async fn a_job_is_read_also_where_its_repository_moved() {
    let job = json!({
        "id": 3, "run_id": 4, "run_attempt": 1, "name": "build", "labels": ["gpu"],
        "status": "in_progress", "conclusion": null, "runner_name": "muster-1",
        "started_at": "2026-01-02T03:04:05Z", "completed_at": null
    });
    let github = Fake::new(move |asked| match asked.line.as_str() {
        "GET /api/v3/repos/acme/widgets/actions/jobs/3" => {
            let location = "/api/v3/repositories/99/actions/jobs/3";
            Some(with(301, &[("location", location)], json!({})))
        }
        "GET /api/v3/repositories/99/actions/jobs/3" => Some(reply(200, job.clone())),
        _ => None,
    })
    .await;
    let report = github.client().get_job(&widgets(), JobId(3)).await.unwrap();
    assert_eq!(report.status, JobStatus::InProgress);
    assert_eq!(report.repository, widgets());
    assert_eq!(report.runner_name.as_deref(), Some("muster-1"));
}

#[tokio::test]
async fn a_redirect_to_another_host_is_not_followed() {
    let other = Fake::answering("", vec![reply(200, json!({}))]).await;
    let location = format!("http://{}/x", other.address);
    let away = with(301, &[("location", &location)], json!({}));
    let github = Fake::answering("/actions/jobs", vec![away]).await;
    let answer = github.client().get_job(&widgets(), JobId(3)).await;
    assert!(
        matches!(answer, Err(GithubError::Refused { status: 301, .. })),
        "{answer:?}"
    );
    assert!(other.asked("").is_empty(), "the token would go with it");
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let location = "/api/v3/repos/acme/widgets/actions/jobs/3";
    let circle = with(301, &[("location", location)], json!({}));
    let github = Fake::answering("/actions/jobs", vec![circle]).await;
    let answer = github.client().get_job(&widgets(), JobId(3)).await;
    assert!(answer.is_err());
    assert_eq!(github.asked("/actions/jobs").len(), 4);
}

#[tokio::test]
async fn a_proxy_gets_the_calls_and_its_credentials() {
    let proxy = Fake::answering("DELETE", vec![reply(204, json!({}))]).await;
    let mut settings = proxy.settings(&pkcs8());
    settings.api_url = "http://github.example/api/v3".parse().unwrap();
    settings.proxy = Some(format!("http://{}", proxy.address).parse().unwrap());
    settings.proxy_credentials = Some(SecretString::from("user:password"));
    delete(&GithubClient::new(settings).unwrap()).await.unwrap();
    let headers = &proxy.asked("DELETE")[0].headers;
    assert_eq!(headers["proxy-authorization"], "Basic dXNlcjpwYXNzd29yZA==");
    assert_eq!(headers["host"], "github.example");
}

/// A server with a certificate of its own authority, that answers 404 to one call after another.
async fn tls_server() -> (std::net::SocketAddr, String) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        }
    });
    (address, certified.cert.pem())
}

#[tokio::test]
async fn a_server_is_trusted_by_an_additional_certificate_only() {
    let (address, pem) = tls_server().await;
    let url = format!("https://localhost:{}/api/v3", address.port());
    let key = SecretString::from(pkcs8());
    let mut settings = Settings::new(url.parse().unwrap(), "1".to_owned(), key);
    let stranger = GithubClient::new(settings.clone()).unwrap();
    let error = delete(&stranger).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    settings.ca_pem = Some(pem.into_bytes());
    let friend = GithubClient::new(settings).unwrap();
    assert_eq!(delete(&friend).await, Err(GithubError::NotInstalled(org())));
}
