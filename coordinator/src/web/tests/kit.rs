//! A listener on loopback, and what is sent to it.

use super::*;

pub(super) const SECRET: &str = "a webhook secret";
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// A listener on loopback.
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    pub(super) woken: Arc<AtomicUsize>,
    pub(super) ready: watch::Sender<bool>,
    pub(super) cancel: CancellationToken,
    pub(super) server: JoinHandle<()>,
    pub(super) client: reqwest::Client,
    _directory: tempfile::TempDir,
}

pub(super) async fn listen() -> Listener {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("muster.db");
    listen_with(Store::open(&path).await.unwrap(), directory).await
}

pub(super) async fn listen_with(store: Store, directory: tempfile::TempDir) -> Listener {
    let woken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&woken);
    let (ready, watching) = watch::channel(false);
    let web = Web {
        store: Arc::new(store),
        secrets: watch::channel(Arc::from(
            ["an older secret", SECRET].map(SecretString::from),
        ))
        .1,
        inbox_ready: Arc::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        }),
        metrics: crate::telemetry::Metrics::new().unwrap(),
        ready: watching,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cancel = CancellationToken::new();
    let server = tokio::spawn(serve(listener, router(web), cancel.clone()));
    Listener {
        address,
        woken,
        ready,
        cancel,
        server,
        client: reqwest::Client::builder().no_proxy().build().unwrap(),
        _directory: directory,
    }
}

impl Listener {
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) async fn get(&self, path: &str) -> (StatusCode, String) {
        let answer = self.client.get(self.url(path)).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    /// Posts with the headers of a good delivery, each of which can be replaced, or left out by an
    /// empty value.
    pub(super) async fn post(&self, body: impl Into<Vec<u8>>, replaced: &[(&str, &str)]) -> Answer {
        let body = body.into();
        let mut request = self.client.post(self.url("/webhooks/github"));
        for (name, value) in headers(&body) {
            let value = replaced
                .iter()
                .find(|(other, _)| *other == name)
                .map_or(value.as_str(), |(_, value)| value);
            if !value.is_empty() {
                request = request.header(name, value);
            }
        }
        let answer = request.body(body).send().await.unwrap();
        Answer {
            status: answer.status(),
            body: answer.json().await.unwrap(),
        }
    }

    pub(super) fn woken(&self) -> usize {
        self.woken.load(Ordering::SeqCst)
    }

    /// Sends bytes, closes its side, and reads all that comes.
    pub(super) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        timeout(DEADLINE, stream.read_to_end(&mut answer))
            .await
            .expect("an answer in time")
            .unwrap();
        String::from_utf8(answer).unwrap()
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

impl Answer {
    #[track_caller]
    pub(super) fn is_refused(&self, status: u16, reason: &str) {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.body, json!({ "error": reason }));
    }
}

pub(super) fn headers(body: &[u8]) -> [(&'static str, String); 4] {
    [
        ("content-type", "application/json".to_owned()),
        ("x-github-event", "workflow_job".to_owned()),
        (
            "x-github-delivery",
            "72d3162e-cc78-11e3-81ab-4c9367dc0958".to_owned(),
        ),
        ("x-hub-signature-256", sign(body)),
    ]
}

pub(super) fn sign(body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = hmac::sign(&key, body);
    let hex: String = tag.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256={hex}")
}

pub(super) fn queued() -> String {
    json!({
        "action": "queued",
        "workflow_job": {
            "id": 1, "run_id": 2, "name": "build", "labels": ["self-hosted"], "status": "queued"
        },
        "repository": { "name": "widgets", "private": true, "owner": { "login": "acme" } }
    })
    .to_string()
}
