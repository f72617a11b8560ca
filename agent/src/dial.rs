//! TCP to a name that has several addresses.
//!
//! The coordinator's is a load balancer's, with an address in each zone: one that swallows everything must not use up
//! the time of the others. So they get their turns while those before them are waited for, as by
//! <https://www.rfc-editor.org/rfc/rfc8305>, and in another order each time. hyper-util's connector does so only
//! between IPv6 and IPv4.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use rand::seq::SliceRandom as _;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, sleep_until};

/// From one address's turn to the next one's, unless there are so many that it has to be shorter.
const TURN: Duration = Duration::from_millis(250);

/// Connects to one of the addresses of `host` before `until`.
pub(crate) async fn dial(host: &str, port: u16, until: Instant) -> io::Result<TcpStream> {
    let mut addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
    addresses.shuffle(&mut rand::rng());
    one_of(addresses, until).await
}

async fn one_of(addresses: Vec<SocketAddr>, until: Instant) -> io::Result<TcpStream> {
    let count = u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    // Half of the time is for the last one's answer.
    let turn = TURN.min((until - Instant::now()) / 2 / count);
    let mut addresses = addresses.into_iter();
    let mut tries = FuturesUnordered::new();
    let mut unanswered = Vec::new();
    let mut failures = Vec::new();
    loop {
        if let Some(address) = addresses.next() {
            unanswered.push(address);
            tries.push(async move { (address, TcpStream::connect(address).await) });
        }
        tokio::select! {
            tried = tries.next() => match tried {
                Some((_, Ok(stream))) => return Ok(stream),
                Some((address, Err(error))) => {
                    unanswered.retain(|other| *other != address);
                    failures.push(format!("{address}: {error}"));
                }
                None => break,
            },
            () = sleep(turn), if addresses.len() > 0 => {}
            () = sleep_until(until) => break,
        }
    }
    failures.extend(unanswered.iter().map(|it| format!("{it}: no answer")));
    if failures.is_empty() {
        failures.push("the name has no address".to_owned());
    }
    Err(io::Error::other(failures.join("; ")))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpSocket, TcpStream};
    use tokio::time::{Instant, timeout};

    use super::one_of;

    const SECOND: Duration = Duration::from_secs(1);

    /// An address that answers nobody, as its queue is full.
    struct BlackHole {
        address: SocketAddr,
        _held: (TcpListener, Vec<TcpStream>),
    }

    impl BlackHole {
        async fn new() -> Self {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let listener = socket.listen(1).unwrap();
            let address = listener.local_addr().unwrap();
            let mut held = Vec::new();
            while let Ok(stream) = timeout(SECOND / 4, TcpStream::connect(address)).await {
                held.push(stream.unwrap());
            }
            Self {
                address,
                _held: (listener, held),
            }
        }
    }

    #[tokio::test]
    async fn an_address_that_answers_nobody_does_not_keep_from_the_others() {
        let hole = BlackHole::new().await;
        let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let live_at = live.local_addr().unwrap();
        let addresses = [vec![hole.address; 20], vec![live_at]].concat();
        let stream = one_of(addresses, Instant::now() + 4 * SECOND).await;
        assert_eq!(stream.unwrap().peer_addr().unwrap(), live_at);
    }

    #[tokio::test]
    async fn each_address_that_was_tried_is_named() {
        let hole = BlackHole::new().await;
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone_at = gone.local_addr().unwrap();
        drop(gone);
        let addresses = vec![hole.address, gone_at];
        let error = one_of(addresses, Instant::now() + 3 * SECOND)
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&format!("{gone_at}: Connection refused")),
            "{text}"
        );
        assert!(
            text.contains(&format!("{}: no answer", hole.address)),
            "{text}"
        );
    }
}
