//! A look at the host by a process that runs as one of its users.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::{AccessFlags, User, access};
use serde::{Deserialize, Serialize};
use url::Url;

use super::options::Probe;

/// Longest time to connect, and for each answer. A service on the host answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// Largest answer that is read, in bytes.
const ANSWER_MAX: u64 = 64 * 1024;

/// What a probe of the metadata service found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reached {
    /// How it went.
    pub(super) outcome: Outcome,
    /// How long that took, in milliseconds.
    pub(super) millis: u64,
    /// Whether the credentials of an instance profile can be read. False if nothing can.
    pub(super) credentials: bool,
}

/// How an attempt to get a token went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// The service answered, with this status.
    Answered(u16),
    /// The connection was refused.
    Refused,
    /// Nothing came back.
    TimedOut,
    /// Anything else, such as no route.
    Failed(String),
}

/// Does what the probe is for, as whoever runs it, and prints what it found as JSON.
pub(super) fn answer(probe: &Probe) -> ExitCode {
    let found = match probe {
        Probe::Reach(url) => serde_json::to_string(&reach(url, PATIENCE)),
        Probe::Runner(dir) => serde_json::to_string(&runner_problems(dir)),
        Probe::Sudo => serde_json::to_string(&sudo_problem()),
    };
    match found {
        Ok(text) => super::print(&mut io::stdout(), &text, ExitCode::SUCCESS),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Starts a probe as `user` and reads what it found; else says why that can't be.
pub(super) fn ask<T: serde::de::DeserializeOwned>(
    user: &User,
    arguments: &[&std::ffi::OsStr],
) -> Result<T, String> {
    let program = std::env::current_exe().map_err(|e| format!("find the agent's file: {e}"))?;
    let output = Command::new(&program)
        .arg("selftest-probe")
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        // With another user's id, the standard library drops root's groups too.
        .uid(user.uid.as_raw())
        .gid(user.gid.as_raw())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|e| format!("run {} as {}: {e}", program.display(), user.name))?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("the probe ended with {}: {}", output.status, said.trim())
    })
}

fn reach(url: &Url, patience: Duration) -> Reached {
    let began = Instant::now();
    let exchange = |method, path, header: &str| exchange(url, method, path, header, patience);
    let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60";
    let token = exchange("PUT", "latest/api/token", ttl);
    let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (outcome, credentials) = match token {
        Ok((200, token)) => {
            // A role that is listed has its credentials one request further.
            let header = format!("X-aws-ec2-metadata-token: {token}");
            let roles = exchange("GET", "latest/meta-data/iam/security-credentials/", &header);
            let listed = roles.is_ok_and(|(status, _)| status == 200);
            (Outcome::Answered(200), listed)
        }
        Ok((status, _)) => (Outcome::Answered(status), false),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => (Outcome::Refused, false),
        Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
            (Outcome::TimedOut, false)
        }
        Err(e) => (Outcome::Failed(e.to_string()), false),
    };
    Reached {
        outcome,
        millis,
        credentials,
    }
}

/// One request on a connection of its own; status and body.
fn exchange(
    url: &Url,
    method: &str,
    path: &str,
    header: &str,
    patience: Duration,
) -> io::Result<(u16, String)> {
    let address = url.socket_addrs(|| None)?.into_iter().next();
    let address = address.ok_or_else(|| io::Error::other("no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let base = url.path().trim_end_matches('/');
    let request = format!(
        "{method} {base}/{path} HTTP/1.1\r\nHost: {address}\r\n{header}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut bytes)?;
    let answer = String::from_utf8_lossy(&bytes);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
    Ok((status, body.to_owned()))
}

/// What keeps this user from running the runner: `Program.cs:88-100` wants every directory from its
/// root up to `/` to be listable.
fn runner_problems(dir: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    for folder in dir.ancestors() {
        if let Err(error) = std::fs::read_dir(folder) {
            problems.push(format!("list {}: {error}", folder.display()));
        }
    }
    for name in ["bin/Runner.Listener", "bin/Runner.Worker"] {
        let file = dir.join(name);
        if let Err(error) = access(&file, AccessFlags::X_OK) {
            problems.push(format!("execute {}: {}", file.display(), error.desc()));
        }
    }
    // It writes its configuration, its diagnostic logs and the work into its own directory.
    if let Err(error) = access(dir, AccessFlags::W_OK) {
        problems.push(format!("write to {}: {}", dir.display(), error.desc()));
    }
    problems
}

/// Why sudo doesn't work; none if it does.
fn sudo_problem() -> Option<String> {
    let tried = Command::new("sudo")
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("start sudo: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt as _;

    use super::{Duration, Outcome, reach, runner_problems};

    fn url(address: std::net::SocketAddr) -> url::Url {
        format!("http://{address}/i-1").parse().unwrap()
    }

    #[test]
    fn a_closed_port_is_a_refusal() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let reached = reach(&url(address), Duration::from_secs(2));
        assert_eq!(reached.outcome, Outcome::Refused);
        assert!(!reached.credentials);
    }

    #[test]
    fn a_service_that_never_answers_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let reached = reach(
            &url(listener.local_addr().unwrap()),
            Duration::from_millis(50),
        );
        assert_eq!(reached.outcome, Outcome::TimedOut);
    }

    #[test]
    fn the_runner_must_be_whole() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::fs::write(bin.join("Runner.Listener"), "").unwrap();
        let problems = runner_problems(dir.path());
        assert_eq!(problems.len(), 2, "{problems:?}");
        for name in ["Runner.Listener", "Runner.Worker"] {
            std::fs::write(bin.join(name), "").unwrap();
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(bin.join(name), mode).unwrap();
        }
        assert_eq!(runner_problems(dir.path()), [""; 0]);
    }
}
