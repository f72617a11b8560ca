//! A metadata service at its real addresses, in a namespace of its own beside the host's: what the
//! host sends to it leaves the host, as on EC2.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread::JoinHandle;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::network::Namespace;

const IPV4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// The cable between host and service.
const NET: u8 = 0;

/// The service. It ends when dropped.
#[derive(Debug)]
pub struct MetadataService {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    /// Where it is.
    pub namespace: Namespace,
}

impl MetadataService {
    /// Puts a service beside `host`, at 169.254.169.254 and `fd00:ec2::254`, port 80. Each connection is
    /// passed on to `target`, which is on the loopback of `origin`, or of this thread's namespace.
    ///
    /// # Errors
    /// Without root, or when something is in the way.
    pub fn beside(
        host: &Namespace,
        target: SocketAddr,
        origin: Option<&Namespace>,
    ) -> anyhow::Result<Self> {
        let namespace = Namespace::new()?;
        host.cable(&namespace, NET)?;
        namespace.ip(&format!("addr add {IPV4}/32 dev lo"))?;
        namespace.ip(&format!("addr add {IPV6}/128 dev lo nodad"))?;
        namespace.ip(&format!("route add default via 10.0.{NET}.1"))?;
        namespace.ip(&format!("-6 route add default via fd01:{NET}::1"))?;
        host.ip(&format!("route add {IPV4} via 10.0.{NET}.2"))?;
        host.ip(&format!("-6 route add {IPV6} via fd01:{NET}::2"))?;
        let listeners = namespace.enter(|| {
            let mut listeners = Vec::new();
            for address in [SocketAddr::from((IPV4, 80)), SocketAddr::from((IPV6, 80))] {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                listeners.push(listener);
            }
            Ok(listeners)
        })?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let start = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let thread = std::thread::spawn(move || {
                runtime.block_on(stopped.run_until_cancelled(pass_on(listeners, target)));
            });
            Ok(thread)
        };
        // A socket belongs to the namespace of the thread that makes it.
        let thread = match origin {
            Some(origin) => origin.enter(start)?,
            None => start()?,
        };
        Ok(Self {
            stop,
            thread: Some(thread),
            namespace,
        })
    }
}

impl Drop for MetadataService {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // If it panicked, the test has noticed.
            let _ = thread.join();
        }
    }
}

async fn pass_on(listeners: Vec<std::net::TcpListener>, target: SocketAddr) {
    let mut tasks = JoinSet::new();
    for listener in listeners {
        tasks.spawn(async move {
            let listener = TcpListener::from_std(listener).context("use the listener")?;
            let mut connections = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await?;
                while connections.try_join_next().is_some() {}
                connections.spawn(async move {
                    let mut server = TcpStream::connect(target).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        let ended: Result<anyhow::Result<()>, _> = ended;
        drop(ended);
    }
}
