//! moto's server as a process of ours: `tests/moto/serve.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// Longer than any order takes on a machine with too much to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// The server. Ends with this value.
#[derive(Debug)]
pub(crate) struct Moto {
    pub(crate) port: u16,
    pipes: Mutex<Pipes>,
    _child: Child,
}

#[derive(Debug)]
struct Pipes {
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// An instance as it is, whoever may see it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) state: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) subnet: Option<String>,
    pub(crate) image: String,
    pub(crate) tags: BTreeMap<String, String>,
}

/// What IAM was asked for a call, and what it said.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Decision {
    /// ARN of the role that called.
    pub(crate) who: String,
    /// Such as `sqs:DeleteMessageBatch`.
    pub(crate) call: String,
    /// Such as `sqs:DeleteMessage`.
    pub(crate) action: String,
    #[expect(dead_code, reason = "shown when a test fails")]
    pub(crate) resource: String,
    pub(crate) allowed: bool,
    /// The statements that allowed it, each with the pattern that fitted the resource.
    pub(crate) by: Vec<(String, String)>,
}

/// Python with moto in it.
pub(crate) fn python() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    assert!(path.exists(), "no {}: run tests/install", path.display());
    path
}

/// A file of `tests/moto`.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("moto")
        .join(name)
}

impl Moto {
    pub(crate) async fn start() -> Self {
        let mut child = Command::new(python())
            // No compiled files beside the sources.
            .arg("-B")
            .arg(script("serve.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let stdout = child.stdout.take().unwrap();
        let mut pipes = Pipes {
            orders,
            answers: BufReader::new(stdout).lines(),
        };
        let hello = pipes.read().await;
        let port = hello["port"].as_u64().unwrap();
        Self {
            port: u16::try_from(port).unwrap(),
            pipes: Mutex::new(pipes),
            _child: child,
        }
    }

    /// Base of all APIs.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Gives an order.
    pub(crate) async fn order<T: DeserializeOwned>(&self, order: Value) -> T {
        let mut pipes = self.pipes.lock().await;
        let line = format!("{order}\n");
        pipes.orders.write_all(line.as_bytes()).await.unwrap();
        let mut answer = pipes.read().await;
        assert!(answer["error"].is_null(), "{order}: {answer}");
        serde_json::from_value(answer["ok"].take()).unwrap()
    }

    /// Makes a call by boto3, as somebody who may do everything.
    pub(crate) async fn call(
        &self,
        (account, region): (&str, &str),
        service: &str,
        call: &str,
        arguments: Value,
    ) -> Value {
        let order = json!({
            "order": "call", "account": account, "region": region,
            "service": service, "call": call, "arguments": arguments,
        });
        self.order(order).await
    }

    /// All instances of an account.
    pub(crate) async fn instances(&self, (account, region): (&str, &str)) -> Vec<Instance> {
        let order = json!({ "order": "instances", "account": account, "region": region });
        self.order(order).await
    }

    /// What IAM decided so far.
    pub(crate) async fn decisions(&self) -> Vec<Decision> {
        self.order(json!({ "order": "decisions" })).await
    }
}

impl Pipes {
    async fn read(&mut self) -> Value {
        let line = timeout(PATIENCE, self.answers.next_line()).await;
        let line = line.expect("moto does not answer").unwrap();
        serde_json::from_str(&line.expect("moto has ended")).unwrap()
    }
}
