//! The coordinator's web listener over a store, and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;

use muster_coordinator::store::{PostgresSettings, Store};
use muster_coordinator::telemetry::Metrics;
use muster_coordinator::web::{self, Web};
use muster_tests::postgres::Server;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What signs the deliveries.
pub(crate) const SECRET: &str = "a webhook secret";

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// A listener.
pub(crate) struct Intake {
    pub(crate) address: SocketAddr,
    store: Store,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    _secrets: watch::Sender<Arc<[secrecy::SecretString]>>,
    _ready: watch::Sender<bool>,
    /// Where the store is; gone when dropped.
    _directory: Option<tempfile::TempDir>,
    _server: Option<Server>,
}

impl Intake {
    /// Starts it; the options are for PostgreSQL.
    pub(crate) async fn start(kind: Kind, options: &[&str]) -> Self {
        let (mut own_directory, mut own_server) = (None, None);
        let store = match kind {
            Kind::Sqlite => {
                let directory = own_directory.insert(tempfile::tempdir().unwrap());
                Store::open(&directory.path().join("muster.db")).await
            }
            Kind::Postgres => {
                let server = own_server.insert(Server::start(options));
                let url = server.url();
                Store::connect(&PostgresSettings::new(url.into())).await
            }
        };
        let store = store.unwrap();
        let (secrets, checks) = watch::channel(Arc::from([secrecy::SecretString::from(SECRET)]));
        let (ready, readiness) = watch::channel(true);
        let router = web::router(Web {
            store: Arc::new(store.clone()),
            secrets: checks,
            inbox_ready: Arc::new(|| {}),
            metrics: Metrics::new().unwrap(),
            ready: readiness,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        Self {
            address: listener.local_addr().unwrap(),
            serving: tokio::spawn(web::serve(listener, router, stop.clone())),
            store,
            stop,
            _secrets: secrets,
            _ready: ready,
            _directory: own_directory,
            _server: own_server,
        }
    }

    /// How many deliveries there are.
    pub(crate) async fn stored(&self) -> usize {
        self.store.pending_deliveries(u32::MAX).await.unwrap().len()
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
        self.store.close().await;
    }
}
