//! `healthcheck`: asks the coordinator that runs here whether it lives, for a container without a shell.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use thiserror::Error;

/// Bytes that are read of an answer: its first line is shorter.
const FIRST_LINE: usize = 256;

/// What `healthcheck` is told.
#[derive(Debug, clap::Args)]
pub struct HealthcheckArguments {
    /// The configuration of the coordinator that is asked.
    #[arg(long, env = "MUSTER_CONFIG", default_value = "muster.toml")]
    pub config: PathBuf,
    /// Ask whether it should get traffic (`/readyz`), and not only whether it lives (`/livez`).
    #[arg(long)]
    pub ready: bool,
    /// Seconds for all of it, 1 to 60.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub timeout: u64,
}

impl HealthcheckArguments {
    pub(super) fn path(&self) -> &'static str {
        if self.ready { "/readyz" } else { "/livez" }
    }
}

/// Why a coordinator doesn't count as healthy.
#[derive(Debug, Error)]
pub(super) enum Unhealthy {
    /// It listens on a port that the configuration doesn't know.
    #[error("listen.web has port 0; a coordinator that is to be asked needs a port")]
    NoPort,
    /// It can't be asked, or says nothing.
    #[error("failed to ask http://{address}{path}: {error}")]
    Unanswered {
        address: SocketAddr,
        path: &'static str,
        error: io::Error,
    },
    /// It says that it isn't.
    #[error("http://{address}{path} answers {line:?}; expected status 200")]
    Refused {
        address: SocketAddr,
        path: &'static str,
        line: String,
    },
}

/// Asks the web listener at this address, as it is configured. An answer that takes longer than `within` is none.
///
/// Blocking and by hand: it runs every few seconds, and needs neither a runtime nor TLS.
pub(super) fn ask(web: SocketAddr, path: &'static str, within: Duration) -> Result<(), Unhealthy> {
    if web.port() == 0 {
        return Err(Unhealthy::NoPort);
    }
    let address = reachable(web);
    let line = first_line(address, path, within).map_err(|error| Unhealthy::Unanswered {
        address,
        path,
        error,
    })?;
    if line.starts_with("HTTP/1.1 200 ") {
        Ok(())
    } else {
        Err(Unhealthy::Refused {
            address,
            path,
            line,
        })
    }
}

/// Where a listener can be reached from its own host: one on all addresses by the loopback.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

fn first_line(address: SocketAddr, path: &str, within: Duration) -> io::Result<String> {
    let deadline = Instant::now() + within;
    let mut stream = TcpStream::connect_timeout(&address, within)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::with_capacity(FIRST_LINE);
    let mut buffer = [0; FIRST_LINE];
    loop {
        if let Some(end) = answer.iter().position(|byte| *byte == b'\n') {
            return Ok(String::from_utf8_lossy(&answer[..end])
                .trim_end()
                .to_owned());
        }
        if answer.len() >= FIRST_LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no HTTP"));
        }
        // Each read gets what is left, or a byte now and then would go on for ever.
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What a time-out of a socket is called.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
}

/// The time that is left; none is an error, as a socket takes zero for no limit.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::thread;

    use rstest::rstest;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// A listener that answers one request so, and tells what it was asked.
    fn answering(on: &str, answer: &'static str) -> (SocketAddr, mpsc::Receiver<String>) {
        let listener = TcpListener::bind(on).unwrap();
        let address = listener.local_addr().unwrap();
        let (told, asked) = mpsc::sync_channel(1);
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                request.push(byte[0]);
            }
            // In two parts, as a network may.
            let (head, rest) = answer.split_at(answer.len() / 2);
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(rest.as_bytes());
            told.send(String::from_utf8(request).unwrap()).unwrap();
        });
        (address, asked)
    }

    #[test]
    fn what_answers_200_is_healthy() {
        let (address, asked) = answering("127.0.0.1:0", "HTTP/1.1 200 OK\r\n\r\nok\n");
        ask(address, "/livez", SOON).unwrap();
        let request = asked.recv().unwrap();
        assert!(request.starts_with("GET /livez HTTP/1.1\r\nHost: 127.0.0.1:"));
        assert!(request.contains("Connection: close\r\n"));
    }

    #[test]
    fn a_listener_on_all_addresses_is_asked_by_the_loopback() {
        let (address, _asked) = answering("0.0.0.0:0", "HTTP/1.1 200 OK\r\n\r\n");
        assert!(address.ip().is_unspecified());
        ask(address, "/readyz", SOON).unwrap();
    }

    #[rstest]
    #[case::every_ipv4("0.0.0.0:7440", "127.0.0.1:7440")]
    #[case::every_address("[::]:7440", "[::1]:7440")]
    #[case::one_address("10.0.0.1:7440", "10.0.0.1:7440")]
    fn listeners_are_reached_so(#[case] listener: &str, #[case] asked: &str) {
        assert_eq!(reachable(listener.parse().unwrap()), asked.parse().unwrap());
    }

    #[rstest]
    #[case::not_ready("HTTP/1.1 503 Service Unavailable\r\n\r\n", "503 Service Unavailable")]
    #[case::looks_like_200("HTTP/1.1 2000 OK\r\n\r\n", "2000")]
    #[case::closed("HTTP/1.1", "unexpected end of file")]
    #[case::nothing("", "unexpected end of file")]
    fn another_answer_is_unhealthy(#[case] answer: &'static str, #[case] said: &str) {
        let (address, _asked) = answering("127.0.0.1:0", answer);
        let error = ask(address, "/readyz", SOON).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("/readyz"), "{error}");
    }

    #[test]
    fn endless_noise_is_unhealthy() {
        let noise: &'static str = Box::leak("x".repeat(100_000).into_boxed_str());
        let (address, _asked) = answering("127.0.0.1:0", noise);
        let error = ask(address, "/livez", SOON).unwrap_err().to_string();
        assert!(error.contains("no HTTP"), "{error}");
    }

    #[test]
    fn nobody_there_is_unhealthy() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = ask(address, "/livez", SOON).unwrap_err();
        assert!(matches!(error, Unhealthy::Unanswered { .. }), "{error}");
    }

    #[test]
    fn silence_ends_with_the_time() {
        // The kernel takes the connection; nobody takes it from there.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let error = ask(address, "/livez", Duration::from_millis(50)).unwrap_err();
        let Unhealthy::Unanswered { error, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_port_that_nobody_knows_cannot_be_asked() {
        let error = ask("127.0.0.1:0".parse().unwrap(), "/livez", SOON).unwrap_err();
        assert!(matches!(error, Unhealthy::NoPort));
    }
}
