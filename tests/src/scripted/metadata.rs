//! An instance metadata service whose Spot notice the test publishes.

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
    deadline: Arc<Mutex<Option<Timestamp>>>,
    _tasks: JoinSet<()>,
}

impl Metadata {
    /// Starts it on a port of its own.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let deadline = Arc::new(Mutex::new(None));
        let published = deadline.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 4096];
                let count = stream.read(&mut buffer).await.unwrap();
                let notice: Option<Timestamp> = *published.lock().unwrap();
                let (status, body) = match notice {
                    _ if buffer[..count].starts_with(b"PUT ") => (200, "token".to_owned()),
                    Some(time) => (200, format!(r#"{{"action":"terminate","time":"{time}"}}"#)),
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
            deadline,
            _tasks: tasks,
        }
    }

    /// The instance will be gone after `delay`.
    pub fn publish(&self, delay: Duration) {
        *self.deadline.lock().unwrap() = Some(Timestamp::now() + delay);
    }
}
