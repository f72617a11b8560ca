//! A small GitHub on loopback that answers as it is told and remembers what it was asked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::AUTHORIZATION;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::rest::{GithubClient, Settings};

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Method, path and query.
    pub(crate) line: String,
    pub(super) bearer: String,
    pub(crate) headers: http::HeaderMap,
    pub(super) body: Value,
}

/// What it answers.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Json(u16, Vec<(&'static str, String)>, Value),
    Bytes(Bytes),
    Never,
}

pub(crate) fn reply(status: u16, body: Value) -> Reply {
    Reply::Json(status, Vec::new(), body)
}

pub(crate) fn with(status: u16, headers: &[(&'static str, &str)], body: Value) -> Reply {
    let headers = headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    Reply::Json(status, headers.collect(), body)
}

type Script = Arc<Mutex<Box<dyn FnMut(&Asked) -> Option<Reply> + Send>>>;

#[derive(Clone)]
struct Desk {
    asked: watch::Sender<Vec<Asked>>,
    script: Script,
}

/// The fake; it ends when dropped.
pub(crate) struct Fake {
    pub(super) address: SocketAddr,
    desk: Desk,
    server: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    /// Answers by the script; what the script leaves open, such as tokens, is answered well.
    pub(crate) async fn new(script: impl FnMut(&Asked) -> Option<Reply> + Send + 'static) -> Self {
        let desk = Desk {
            asked: watch::Sender::default(),
            script: Arc::new(Mutex::new(Box::new(script))),
        };
        let router = axum::Router::new()
            .fallback(answer)
            .with_state(desk.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
        Self {
            address,
            desk,
            server,
        }
    }

    /// Gives these answers, in order, to calls whose line contains a text, and then the last again.
    pub(crate) async fn answering(text: &'static str, replies: Vec<Reply>) -> Self {
        let mut replies = VecDeque::from(replies);
        Self::new(move |asked| {
            if !asked.line.contains(text) {
                return None;
            }
            match replies.len() {
                1 => replies.front().cloned(),
                _ => replies.pop_front(),
            }
        })
        .await
    }

    pub(crate) fn client(&self) -> GithubClient {
        GithubClient::new(self.settings(&pkcs8())).unwrap()
    }

    pub(super) fn settings(&self, pem: &str) -> Settings {
        let url = format!("http://{}/api/v3", self.address).parse().unwrap();
        let mut settings = Settings::new(url, "4711".to_owned(), SecretString::from(pem));
        settings.total_timeout = Duration::from_secs(5);
        settings
    }

    pub(crate) fn asked(&self, text: &str) -> Vec<Asked> {
        let asked = self.desk.asked.borrow();
        asked
            .iter()
            .filter(|asked| asked.line.contains(text))
            .cloned()
            .collect()
    }

    /// Waits until it was asked so often.
    pub(crate) async fn is_asked(&self, text: &str, times: usize) {
        let mut asked = self.desk.asked.subscribe();
        let often = asked.wait_for(|all| {
            let these = all.iter().filter(|asked| asked.line.contains(text));
            these.count() >= times
        });
        let often = tokio::time::timeout(Duration::from_secs(20), often).await;
        let times_asked = || self.asked(text).len();
        assert!(often.is_ok(), "{text} was asked {} times", times_asked());
    }
}

async fn answer(State(desk): State<Desk>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let path = head.uri.path_and_query().unwrap().as_str();
    let asked = Asked {
        line: format!("{} {path}", head.method),
        bearer: head.headers[AUTHORIZATION].to_str().unwrap().to_owned(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
        headers: head.headers,
    };
    let number = {
        let mut number = 0;
        desk.asked.send_modify(|all| {
            all.push(asked.clone());
            number = all.len();
        });
        number
    };
    let scripted = (desk.script.lock().unwrap())(&asked);
    match scripted.unwrap_or_else(|| usual(&asked.line, number)) {
        Reply::Json(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body.to_string())).unwrap()
        }
        Reply::Bytes(bytes) => Response::new(Body::from(bytes)),
        Reply::Never => std::future::pending().await,
    }
}

fn usual(line: &str, number: usize) -> Reply {
    if line.ends_with("/installation") {
        return reply(200, json!({ "id": 7 }));
    }
    if line.ends_with("/access_tokens") {
        let end = jiff::Timestamp::now() + Duration::from_secs(60 * 60);
        let token = format!("ghs_{number}");
        return reply(
            201,
            json!({ "token": token, "expires_at": end.to_string() }),
        );
    }
    if line.contains("/actions/runner-groups") {
        let groups = json!([{ "id": 1, "name": "Default" }, { "id": 5, "name": "fast" }]);
        return reply(200, json!({ "total_count": 2, "runner_groups": groups }));
    }
    reply(404, json!({ "message": "Not Found" }))
}

fn der() -> Vec<u8> {
    KeyPair::generate(KeySize::Rsa2048)
        .unwrap()
        .as_der()
        .unwrap()
        .as_ref()
        .to_vec()
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let lines = lines.join("\n");
    format!("-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n")
}

/// A new key in PKCS#8.
pub(crate) fn pkcs8() -> String {
    pem("PRIVATE KEY", &der())
}

/// A new key in PKCS#1: PKCS#8 of an RSA key of 2048 bits has it after 26 bytes.
pub(super) fn pkcs1() -> String {
    pem("RSA PRIVATE KEY", &der()[26..])
}
