//! The four addresses, and what becomes of those who connect before the coordinator leads.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::identity::files;

/// Connections that may wait to be accepted. With fewer, agents that come back at once lose a second or more to a
/// repeated SYN. With more, they wait longer than the five seconds that an agent has for TCP and TLS together,
/// and handshakes are spent on those who have left.
const BACKLOG: u32 = 1_024;

/// Wait after a failed `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The sockets beside that of the web, which are for the coordinator that leads.
///
/// Until then whoever connects is sent away at once, and comes again: with a load balancer between, perhaps to the one
/// that leads. The ports are not just closed, as a network load balancer also goes by what becomes of its connections,
/// which can't be switched off, and may hold the whole coordinator for unhealthy
/// (<https://docs.aws.amazon.com/elasticloadbalancing/latest/network/target-group-health-checks.html>).
#[derive(Debug)]
pub(super) struct Sockets {
    enroll: Socket,
    agents: Socket,
    operators: Socket,
}

/// The same for the one that leads.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) enroll: TcpListener,
    pub(super) agents: TcpListener,
    pub(super) operators: TcpListener,
}

/// Where the four sockets are; written for those who start us with port 0.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Addresses {
    pub(super) web: SocketAddr,
    pub(super) enroll: SocketAddr,
    pub(super) agents: SocketAddr,
    pub(super) operators: SocketAddr,
}

/// A socket that has its address.
#[derive(Debug)]
struct Socket {
    name: &'static str,
    address: SocketAddr,
    state: State,
}

#[derive(Debug)]
enum State {
    /// It shares its address with those of other coordinators, of which the one that leads listens.
    Bound(TcpSocket),
    /// Sends everybody away.
    Closed(CancellationToken, JoinHandle<TcpListener>),
}

/// Opens the web's socket.
pub(super) fn bind_web(config: &Config) -> anyhow::Result<TcpListener> {
    let (name, address) = ("web", config.listen.web);
    listen(name, address, bind(name, address, false)?)
}

impl Sockets {
    /// Takes the addresses, and sends everybody away until [`Sockets::listen`].
    pub(super) fn bind(config: &Config) -> anyhow::Result<Self> {
        let of = &config.listen;
        // Where one machine has several coordinators for trying them out, the one that leads listens.
        let shared = config.coordinator.development && config.store.postgres.is_some();
        Ok(Self {
            enroll: Socket::bind("enroll", of.enroll, shared)?,
            agents: Socket::bind("agents", of.agents, shared)?,
            operators: Socket::bind("operators", of.operators, shared)?,
        })
    }

    pub(super) fn addresses(&self, web: SocketAddr) -> Addresses {
        Addresses {
            web,
            enroll: self.enroll.address,
            agents: self.agents.address,
            operators: self.operators.address,
        }
    }

    /// Lets everybody in.
    pub(super) async fn listen(self) -> anyhow::Result<Listening> {
        Ok(Listening {
            enroll: self.enroll.listen().await?,
            agents: self.agents.listen().await?,
            operators: self.operators.listen().await?,
        })
    }
}

impl Socket {
    fn bind(name: &'static str, address: SocketAddr, shared: bool) -> anyhow::Result<Self> {
        let socket = bind(name, address, shared)?;
        let address = socket.local_addr()?;
        let state = if shared {
            State::Bound(socket)
        } else {
            let stop = CancellationToken::new();
            let listener = listen(name, address, socket)?;
            State::Closed(stop.clone(), tokio::spawn(send_away(listener, stop)))
        };
        Ok(Self {
            name,
            address,
            state,
        })
    }

    async fn listen(self) -> anyhow::Result<TcpListener> {
        match self.state {
            State::Bound(socket) => listen(self.name, self.address, socket),
            State::Closed(stop, task) => {
                stop.cancel();
                Ok(task.await?)
            }
        }
    }
}

/// Ends connections as they come, until it is told to stop; gives the socket back.
async fn send_away(socket: TcpListener, stop: CancellationToken) -> TcpListener {
    while let Some(accepted) = stop.run_until_cancelled(socket.accept()).await {
        match accepted {
            Ok((_, address)) => {
                tracing::debug!(%address, "sent away: this coordinator does not lead");
            }
            // Such as for want of file descriptors.
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
    socket
}

/// Takes an address; `shared` with others who do so, too.
fn bind(name: &str, address: SocketAddr, shared: bool) -> anyhow::Result<TcpSocket> {
    let bind = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        // A start after an end finds the port taken by closed connections otherwise.
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(shared)?;
        socket.bind(address)?;
        Ok::<_, std::io::Error>(socket)
    };
    bind().with_context(|| format!("listen.{name}: can't listen on {address}"))
}

fn listen(name: &str, address: SocketAddr, socket: TcpSocket) -> anyhow::Result<TcpListener> {
    let listening = socket.listen(BACKLOG);
    listening.with_context(|| format!("listen.{name}: can't listen on {address}"))
}

/// Writes the addresses; whoever reads the file finds all of it.
pub(super) fn write_addresses(path: &Path, addresses: &Addresses) -> anyhow::Result<()> {
    let text = serde_json::to_vec(addresses)?;
    files::write_atomically(path, &text, files::PUBLIC)
        .with_context(|| format!("listen.ports_file: can't write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn who_comes_too_early_is_sent_away_and_gets_in_later() {
        let socket = Socket::bind("agents", (Ipv4Addr::LOCALHOST, 0).into(), false).unwrap();
        let address = socket.address;
        for _ in 0..3 {
            let mut early = TcpStream::connect(address).await.unwrap();
            assert_eq!(early.read(&mut [0]).await.unwrap(), 0);
        }
        let taken = Socket::bind("agents", address, false).unwrap_err();
        let told = format!("{taken:#}");
        assert!(
            told.starts_with("listen.agents: can't listen on 127.0.0.1:"),
            "{told}"
        );
        let listener = socket.listen().await.unwrap();
        let (accepted, came) = tokio::join!(listener.accept(), TcpStream::connect(address));
        assert_eq!(listener.local_addr().unwrap(), address);
        accepted.unwrap();
        came.unwrap();
    }

    #[tokio::test]
    async fn of_several_with_one_address_only_the_one_that_leads_answers() {
        let leads = Socket::bind("agents", (Ipv4Addr::LOCALHOST, 0).into(), true).unwrap();
        let other = Socket::bind("agents", leads.address, true).unwrap();
        assert!(TcpStream::connect(leads.address).await.is_err());
        let listener = leads.listen().await.unwrap();
        for _ in 0..5 {
            let (accepted, came) =
                tokio::join!(listener.accept(), TcpStream::connect(other.address));
            accepted.unwrap();
            came.unwrap();
        }
    }
}
