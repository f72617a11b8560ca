//! The coordinator's process: started as `cli::run` starts it, stopped in order or killed.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cloud::Cloud;
use super::disk::Shelf;
use super::github::{self, OWNER};
use super::run;
use super::world::World;
use crate::clock;
use crate::compute::Provider;
use crate::engine::{self, Engine, EngineError, Executor, Parts};
use crate::github::survey::{self, SurveyParts, SurveySettings, Surveys};
use crate::github::{GithubClient, JobCheck, Settings, fake, reconcile};
use crate::grpc::session::{AgentSettings, Agents};
use crate::identity::ca::Authority;
use crate::identity::serving::PresentAuthority;
use crate::presence::{self, Presence};
use crate::store::Ledger;
use crate::telemetry::Metrics;
use crate::web::{self, Web};

/// The webhooks' secret.
pub(super) const SECRET: &str = "simulated";
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long the parts may take to end.
const DRAIN: Duration = Duration::from_secs(30);

/// A coordinator that serves.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) life: u64,
    pub(super) engine: Engine,
    pub(super) agents: Agents,
    pub(super) router: Router,
    stop: CancellationToken,
}

impl Process {
    /// SIGTERM.
    pub(super) fn terminate(&self) {
        self.stop.cancel();
    }
}

/// Starts a coordinator again whenever it has ended, for ever.
pub(super) async fn supervise(world: World) {
    for life in 1.. {
        world.set_life(life);
        clock::simulated::restart();
        world.tell(format!("life {life} begins"));
        tokio::select! {
            biased;
            // It was killed, and all that it had is dropped here.
            _ = world.ended(life) => {}
            ended = serve(&world, life) => {
                world.tell(format!("life {life} ended: {ended:?}"));
                world.lock().process = None;
                world.set_life(0);
            }
        }
        let long = world.lock().chance(0.05);
        world.rest(100, if long { 300_000 } else { 10_000 }).await;
    }
}

/// What an engine works with.
pub(super) fn parts(world: &World, life: u64) -> Parts {
    let ledger: Arc<dyn Ledger> = Arc::new(Shelf {
        world: world.clone(),
        life,
    });
    let (metrics, presence) = (Metrics::new().unwrap(), Presence::default());
    let cloud = Provider::Simulated(Cloud {
        world: world.clone(),
        life,
    });
    let providers = HashMap::from([(run::ACCOUNT.into(), cloud)]);
    let spec = run::fleet();
    let executor = Executor::new(client(world, life), providers, &spec.pools, metrics.clone());
    Parts {
        store: ledger,
        list_first: true,
        spec,
        presence,
        executor,
        metrics,
    }
}

async fn serve(world: &World, life: u64) -> Result<(), EngineError> {
    let parts = parts(world, life);
    let (ledger, metrics) = (Arc::clone(&parts.store), parts.metrics.clone());
    let (presence, spec) = (parts.presence.clone(), parts.spec.clone());
    let github = client(world, life);
    let cloud = Provider::Simulated(Cloud {
        world: world.clone(),
        life,
    });
    let (engine, runnable) = Engine::new(parts).await?;
    let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
    // Whatever ends this future ends them all.
    let mut tasks = JoinSet::new();
    let mut fleet = Box::pin(runnable.run(stop.child_token()));
    let settings = AgentSettings::default();
    let agents = Agents::new(
        engine.clone(),
        presence.clone(),
        authority(),
        settings,
        stop.clone(),
        tracker.clone(),
    );
    tasks.spawn(engine::notices(
        engine.clone(),
        run::ACCOUNT.into(),
        cloud.clone(),
        stop.clone(),
    ));
    let sweep = Duration::from_secs(30);
    tasks.spawn(engine::sweep(
        engine.clone(),
        run::ACCOUNT.into(),
        cloud,
        sweep,
        stop.clone(),
    ));
    let redeliver = Duration::from_secs(60);
    tasks.spawn(reconcile::run(
        github.clone(),
        Arc::clone(&ledger),
        redeliver,
        stop.clone(),
    ));
    tasks.spawn(survey::run(
        SurveyParts {
            client: github.clone(),
            engine: engine.clone(),
            store: Arc::clone(&ledger),
            surveys: Surveys::default(),
            metrics: metrics.clone(),
            settings: SurveySettings {
                interval: Duration::from_secs(10),
                share: 60,
            },
        },
        spec.pools,
        stop.clone(),
    ));
    let check = Duration::from_secs(5);
    tasks.spawn(JobCheck::default().run(github, engine.clone(), check, stop.clone()));
    tasks.spawn(presence::watch_silence(
        presence,
        metrics.clone(),
        HEARTBEAT,
        stop.clone(),
    ));
    world.lock().process = Some(Process {
        life,
        engine: engine.clone(),
        agents,
        router: router(ledger, engine, metrics),
        stop: stop.clone(),
    });
    tokio::select! {
        biased;
        ended = &mut fleet => return ended,
        () = stop.cancelled() => {}
    }
    let ended = fleet.await;
    tracker.close();
    let rest = async {
        tracker.wait().await;
        while tasks.join_next().await.is_some() {}
    };
    // What does not end in time is dropped.
    let _ = tokio::time::timeout(DRAIN, rest).await;
    ended
}

fn router(store: Arc<dyn Ledger>, engine: Engine, metrics: Metrics) -> Router {
    let (_, ready) = watch::channel(true);
    let (_, secrets) = watch::channel(Arc::from([SecretString::from(SECRET)]));
    web::router(Web {
        store,
        secrets,
        inbox_ready: Arc::new(move || engine.inbox_ready()),
        metrics,
        ready,
    })
}

fn client(world: &World, life: u64) -> GithubClient {
    static KEY: OnceLock<String> = OnceLock::new();
    let key = KEY.get_or_init(fake::pkcs8).clone();
    let url = "https://api.github.com".parse().unwrap();
    let mut settings = Settings::new(url, OWNER.to_owned(), SecretString::from(key));
    settings.simulated = Some(github::way(world, life));
    GithubClient::new(settings).unwrap()
}

/// One authority for all: its certificates are not looked at here.
fn authority() -> PresentAuthority {
    static AUTHORITY: OnceLock<PresentAuthority> = OnceLock::new();
    let made = AUTHORITY.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(directory.path(), Timestamp::now());
        PresentAuthority::fixed(authority.unwrap())
    });
    made.clone()
}
