//! A metadata service for tests: on loopback, answering each request by a closure.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use url::Url;

/// The token that [`guarded`] gives and wants.
pub(crate) const TOKEN: &str = "AQAEtoken==";
/// Longest wait for what a test expects.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the service does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Status, more header lines, body. The connection stays open.
    Answer(u16, String, Vec<u8>),
    /// These bytes, then the connection is closed.
    Raw(Vec<u8>),
    /// Nothing, and the connection stays open.
    Silence,
}

impl Reply {
    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self::Answer(status, String::new(), body.as_bytes().to_vec())
    }

    /// The same answer with one more header line.
    pub(crate) fn with(self, name: &str, value: &str) -> Self {
        match self {
            Self::Answer(status, head, body) => {
                Self::Answer(status, format!("{head}{name}: {value}\r\n"), body)
            }
            other => other,
        }
    }
}

/// The running service. Ends when dropped.
pub(crate) struct Service {
    pub(crate) base: Url,
    log: Arc<Mutex<Log>>,
    _tasks: JoinSet<()>,
}

/// What came so far.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) connections: usize,
    /// Heads of requests in lower case.
    pub(crate) requests: Vec<String>,
}

impl Log {
    /// How many requests began with `start`, such as `get /latest/`.
    pub(crate) fn count(&self, start: &str) -> usize {
        let matching = self.requests.iter().filter(|head| head.starts_with(start));
        matching.count()
    }
}

impl Service {
    /// A service under `http://127.0.0.1:port/i-1`.
    pub(crate) async fn start(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0", answer).await.unwrap()
    }

    pub(crate) async fn start_on(
        address: &str,
        answer: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let base = format!("http://{}/i-1", listener.local_addr()?);
        let log = Arc::new(Mutex::new(Log::default()));
        let (answer, seen) = (Arc::new(answer), log.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                seen.lock().unwrap().connections += 1;
                connections.spawn(serve(stream, answer.clone(), seen.clone()));
            }
        });
        Ok(Self {
            base: base.parse().unwrap(),
            log,
            _tasks: tasks,
        })
    }

    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    /// Waits until the log is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&Log) -> bool) {
        let looks = async {
            while !wanted(&self.log()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if timeout(PATIENCE, looks).await.is_err() {
            panic!("never as wanted: {:?}", self.log());
        }
    }
}

async fn serve(
    stream: TcpStream,
    answer: Arc<impl Fn(&str) -> Reply>,
    log: Arc<Mutex<Log>>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        head.make_ascii_lowercase();
        let reply = answer(&head);
        log.lock().unwrap().requests.push(head);
        match reply {
            Reply::Answer(status, more, body) => {
                let length = body.len();
                let head = format!("HTTP/1.1 {status} x\r\n{more}content-length: {length}\r\n\r\n");
                // The agent may hang up on a body that is too long.
                let answer = [head.as_bytes(), &body].concat();
                stream.write_all(&answer).await.ok()?;
            }
            Reply::Raw(bytes) => return stream.write_all(&bytes).await.ok(),
            Reply::Silence => std::future::pending().await,
        }
    }
}

/// What the real service does first: no answer without a token. Then `then(path below latest/)`.
pub(crate) fn guarded(
    then: impl Fn(&str) -> Reply + Send + Sync + 'static,
) -> impl Fn(&str) -> Reply + Send + Sync + 'static {
    let token = format!("x-aws-ec2-metadata-token: {}\r\n", TOKEN.to_lowercase());
    move |head| {
        if head.contains("x-forwarded-for") {
            return Reply::text(403, "");
        }
        if head.starts_with("put /i-1/latest/api/token ") {
            let asked = head.contains("x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n");
            return match asked {
                true => {
                    Reply::text(200, TOKEN).with("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
                }
                false => Reply::text(400, ""),
            };
        }
        if !head.contains(&token) {
            return Reply::text(401, "");
        }
        let path = head.strip_prefix("get /i-1/latest/");
        match path.and_then(|rest| rest.split(' ').next()) {
            Some(path) => then(path),
            None => Reply::text(405, ""),
        }
    }
}
