//! An instance metadata service whose notices the test publishes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The running service.
pub struct Metadata {
    /// Where it listens.
    pub address: SocketAddr,
    /// What is read, by path below `latest/meta-data/`.
    published: Arc<Mutex<HashMap<&'static str, String>>>,
    _tasks: JoinSet<()>,
}

impl Metadata {
    /// Starts it on a port of its own.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let published = Arc::new(Mutex::new(HashMap::<&str, String>::new()));
        let readable = published.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 4096];
                let count = stream.read(&mut buffer).await.unwrap();
                let request = String::from_utf8_lossy(&buffer[..count]);
                let target = request.split(' ').nth(1).unwrap_or_default();
                let path = target
                    .split_once("/latest/meta-data/")
                    .map(|(_, path)| path);
                let found = path.and_then(|path| readable.lock().unwrap().get(path).cloned());
                let (status, body) = match found {
                    _ if request.starts_with("PUT ") => (200, "token".to_owned()),
                    Some(body) => (200, body),
                    None => (404, String::new()),
                };
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self {
            address,
            published,
            _tasks: tasks,
        }
    }

    /// Spot takes the instance after `delay`.
    pub fn publish(&self, delay: Duration) {
        let time = Timestamp::now() + delay;
        let body = format!(r#"{{"action":"terminate","time":"{time}"}}"#);
        self.publish_at("spot/instance-action", body);
    }

    /// From now on `body` is read at `path` below `latest/meta-data/`.
    pub fn publish_at(&self, path: &'static str, body: String) {
        self.published.lock().unwrap().insert(path, body);
    }
}
