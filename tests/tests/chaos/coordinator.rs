//! The coordinator's parts in this process, wired as `muster-coordinator run` wires them, so that all of
//! it can be dropped at whatever await it is in, and started again on the same store.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context as _;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use axum::Router;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use muster_coordinator::compute::ec2::Given;
use muster_coordinator::compute::{Ec2Provider, Provider};
use muster_coordinator::engine::{self, Engine, Executor, Parts};
use muster_coordinator::github::{GithubClient, JobCheck, Settings, reconcile};
use muster_coordinator::presence::Presence;
use muster_coordinator::store::Store;
use muster_coordinator::tasks::Tasks;
use muster_coordinator::telemetry::Metrics;
use muster_coordinator::web::{self, Web};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio_util::sync::CancellationToken;

use crate::plant::{ACCOUNT, Plant};

/// As configured by default, but for the sweep, as a kill a minute leaves little time for one.
const SWEEP: Duration = Duration::from_secs(20);
const REDELIVER: Duration = Duration::from_secs(60);
const JOB_CHECK: Duration = Duration::from_secs(60);
/// How long others may hold on to a coordinator that was killed, by the system's clock.
const LET_GO: Duration = Duration::from_secs(10);

/// The way to a coordinator that is up.
pub(crate) struct Link {
    pub(crate) engine: Engine,
    pub(crate) presence: Presence,
    pub(crate) provider: Provider,
    /// Cancelled when it is killed.
    pub(crate) dead: CancellationToken,
}

/// A coordinator that is up.
pub(crate) struct Coordinator {
    pub(crate) link: Arc<Link>,
    pub(crate) store: Store,
    /// Where its webhooks go.
    pub(crate) webhooks: String,
    /// What dies with it.
    tasks: JoinSet<()>,
    by_ec2: Tasks,
    stop: CancellationToken,
}

impl Coordinator {
    pub(crate) async fn start(plant: &Plant) -> anyhow::Result<Self> {
        let store = Store::open(&plant.database)
            .await
            .context("open the store")?;
        let metrics = Metrics::new()?;
        let github = github(plant)?;
        let stop = CancellationToken::new();
        let by_ec2 = Tasks::new(stop.clone());
        let options = plant.aws.options();
        let given = Given {
            http: Some(plant.aws.http_client()),
            credentials: Some(SharedCredentialsProvider::new(Credentials::new(
                &options.access_key_id,
                &options.secret_access_key,
                None,
                None,
                "test",
            ))),
            ..Given::default()
        };
        let ec2 = Ec2Provider::start(plant.ec2.clone(), store.clone(), given, &by_ec2);
        let provider = Provider::Ec2(ec2.await.context("read the batches")?);
        let providers = HashMap::from([(ACCOUNT.into(), provider.clone())]);
        let presence = Presence::default();
        let executor = Executor::new(
            github.clone(),
            providers,
            &plant.fleet.pools,
            metrics.clone(),
        );
        let (engine, runnable) = Engine::new(Parts {
            store: Arc::new(store.clone()),
            spec: plant.fleet.clone(),
            presence: presence.clone(),
            executor,
            metrics: metrics.clone(),
            list_first: true,
        })
        .await
        .context("load the fleet")?;
        let mut tasks = JoinSet::new();
        let running = runnable.run(stop.child_token());
        tasks.spawn(async move {
            if let Err(error) = running.await {
                panic!("the engine failed: {error}");
            }
        });
        let webhooks = serve_webhooks(plant, &store, &engine, metrics, &mut tasks).await?;
        tasks.spawn(engine::notices(
            engine.clone(),
            ACCOUNT.into(),
            provider.clone(),
            stop.clone(),
        ));
        tasks.spawn(engine::sweep(
            engine.clone(),
            ACCOUNT.into(),
            provider.clone(),
            SWEEP,
            stop.clone(),
        ));
        tasks.spawn(reconcile::run(
            github.clone(),
            Arc::new(store.clone()),
            REDELIVER,
            stop.clone(),
        ));
        tasks.spawn(JobCheck::default().run(github, engine.clone(), JOB_CHECK, stop.clone()));
        let link = Arc::new(Link {
            engine,
            presence,
            provider,
            dead: CancellationToken::new(),
        });
        plant.link.send_replace(Some(Arc::clone(&link)));
        Ok(Self {
            link,
            store,
            webhooks,
            tasks,
            by_ec2,
            stop,
        })
    }

    /// Drops all of it where it stands. What the store's writer has in hand is still written, as if the
    /// kill had come a moment later.
    pub(crate) async fn kill(mut self, plant: &Plant) {
        plant.link.send_replace(None);
        self.link.dead.cancel();
        self.tasks.abort_all();
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        self.by_ec2.ended().await;
        assert_eq!(self.by_ec2.failure(), None);
        self.store.close().await;
        let left = Arc::downgrade(&self.link);
        drop(self);
        released(&left, &plant.database).await;
    }
}

/// Waits until the store's last clone is dropped: by hosts and connections, once each has had its turn.
async fn released(link: &Weak<Link>, database: &Path) {
    let until = std::time::Instant::now() + LET_GO;
    while link.strong_count() > 0 || is_locked(database) {
        assert!(
            std::time::Instant::now() < until,
            "{} clones of the link of a coordinator that was killed live on after {LET_GO:?}",
            link.strong_count()
        );
        yield_now().await;
    }
}

fn is_locked(database: &Path) -> bool {
    let lock = File::open(database.with_added_extension("lock")).unwrap();
    matches!(lock.try_lock(), Err(TryLockError::WouldBlock))
}

fn github(plant: &Plant) -> anyhow::Result<GithubClient> {
    let github = &plant.github;
    let mut settings = Settings::new(
        github.url.parse()?,
        github.app_id().to_string(),
        github.app_private_key_pem.clone().into(),
    );
    // In compressed time more jobs come in a minute than GitHub lets anyone register runners for.
    settings.mints_per_minute = 100_000;
    Ok(GithubClient::new(settings)?)
}

/// Serves the real routes, on connections that are cut when the tasks are dropped.
async fn serve_webhooks(
    plant: &Plant,
    store: &Store,
    engine: &Engine,
    metrics: Metrics,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<String> {
    let secrets = vec![plant.github.webhook_secret().to_owned().into()];
    let (_, secrets) = watch::channel(secrets.into());
    let (_, ready) = watch::channel(true);
    let engine = engine.clone();
    let router = web::router(Web {
        store: Arc::new(store.clone()),
        secrets,
        inbox_ready: Arc::new(move || engine.inbox_ready()),
        metrics,
        ready,
    });
    let socket = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}/webhooks/github", socket.local_addr()?);
    tasks.spawn(accept(socket, router));
    plant.github.set_webhook_url(&url);
    Ok(url)
}

async fn accept(socket: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = socket.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let service = TowerToHyperService::new(router.clone());
                let serve = hyper::server::conn::http1::Builder::new();
                connections.spawn(async move {
                    // How a connection ends is the sender's affair.
                    drop(serve.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        }
    }
}
