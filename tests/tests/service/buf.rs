//! `buf curl`: a client of operators that we did not write.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;
use tonic::Code;

/// Longer than any call takes, the start of `node` included.
const PATIENCE: Duration = Duration::from_secs(60);

/// The operators' service.
pub(crate) const SERVICE: &str = "muster.v1.OperatorService";

/// `buf` with an identity.
pub(crate) struct Buf {
    address: String,
    arguments: Vec<String>,
}

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// The one JSON document that was printed.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.exit, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// `buf curl` exits with eight times the code of the status.
    pub(crate) fn is_status(&self, code: Code) -> bool {
        self.exit == 8 * i32::from(code)
    }
}

impl Buf {
    /// A client that trusts an authority and shows a certificate, if it has one.
    pub(crate) fn new(
        address: std::net::SocketAddr,
        authority: &Path,
        identity: Option<(&Path, &Path)>,
    ) -> Self {
        let mut arguments = Vec::new();
        let mut option = |name: &str, value: &Path| {
            arguments.push(name.to_owned());
            arguments.push(value.display().to_string());
        };
        option("--cacert", authority);
        if let Some((certificate, key)) = identity {
            option("--cert", certificate);
            option("--key", key);
        }
        Self {
            address: address.to_string(),
            arguments,
        }
    }

    /// The operator of whom `issue-operator-cert` wrote the files.
    pub(crate) fn operator(address: std::net::SocketAddr, files: &Path) -> Self {
        let file = |name: &str| files.join(name);
        let identity = (&*file("operator.crt"), &*file("operator.key"));
        Self::new(address, &file("ca.crt"), Some(identity))
    }

    /// The same, not asking the server what it has, as the server may not tell.
    pub(crate) fn knowing_the_schema(mut self) -> Self {
        let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
        self.arguments.push("--schema".to_owned());
        self.arguments.push(schema.display().to_string());
        self
    }

    /// Calls `package.Service/Method`.
    pub(crate) async fn call(&self, method: &str, request: &Value) -> Outcome {
        self.run(method, &["--data", &request.to_string()]).await
    }

    /// Runs `buf curl` with further arguments; `path` is empty or names a method.
    pub(crate) async fn run(&self, path: &str, further: &[&str]) -> Outcome {
        let output = timeout(PATIENCE, self.command(path, further).output());
        let output = output.await.expect("buf in time").unwrap();
        Outcome {
            exit: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Reads the first line of what a call prints, and ends it.
    pub(crate) async fn first_line(&self, method: &str, request: &Value) -> String {
        let mut command = self.command(method, &["--data", &request.to_string()]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, lines.next_line()).await;
        child.kill().await.unwrap();
        line.expect("a line in time").unwrap().unwrap_or_default()
    }

    fn command(&self, path: &str, further: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(["curl", "--protocol", "grpc", "--servername", "localhost"])
            .args(&self.arguments)
            .args(further)
            .arg(format!("https://{}/{path}", self.address))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

/// The binary itself: its wrapper would be what is killed in its place.
fn program() -> PathBuf {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("node_modules/@bufbuild");
    let entries = std::fs::read_dir(&modules)
        .unwrap_or_else(|error| panic!("{}: {error}; run tests/install", modules.display()));
    entries
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("buf-"))
        .map(|entry| entry.path().join("bin/buf"))
        .find(|path| path.exists())
        .expect("a binary of buf for this platform")
}

/// The methods of the service, from reflection.
pub(crate) async fn methods(buf: &Buf, further: &[&str]) -> BTreeSet<String> {
    let listed = buf.run("", &[&["--list-methods"], further].concat()).await;
    assert_eq!(listed.exit, 0, "{listed:?}");
    let lines = listed.stdout.lines();
    lines
        .filter_map(|line| line.trim().strip_prefix(SERVICE)?.strip_prefix('/'))
        .map(str::to_owned)
        .collect()
}
