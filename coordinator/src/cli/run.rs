//! `run`: the service. Builds the parts, runs them until it is told to stop, lets them end in order.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use muster_proto::v1::operator_service_server::OperatorServiceServer;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;

use super::reach;
use super::wiring::{self, Sockets};
use crate::aws::Given;
use crate::config::Config;
use crate::engine::{self, Engine, Executor, Parts};
use crate::github::survey::{self, SurveyParts, Surveys};
use crate::github::{JobCheck, reconcile};
use crate::grpc::authorize::Role;
use crate::grpc::enrollment::{AwsEnrollment, Enrollment, Parts as EnrollmentParts};
use crate::grpc::listen::{Limits, Listener};
use crate::grpc::operator::{LogLevel, Operators};
use crate::grpc::session::{AgentSettings, Agents};
use crate::identity::serving::{PresentAuthority, Serving};
use crate::identity::spiffe::TrustDomain;
use crate::presence::{self, Presence};
use crate::secrets::{self, Applied, Reader};
use crate::store::Store;
use crate::telemetry::{Logs, Metrics, emf};
use crate::web::{self, Web};

/// Open jobs are asked for at this interval, as the last word of a job may never come.
const JOB_CHECK: Duration = Duration::from_secs(5);
/// What is older than this is pruned from the store: GitHub lists deliveries for three days.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Time between two prunings.
const PRUNE: Duration = Duration::from_secs(60 * 60);
/// How long the parts may take to end; ECS kills after 120 s.
const DRAIN: Duration = Duration::from_secs(30);

/// What the tasks of the service share.
struct Service {
    config: Config,
    store: Store,
    engine: Engine,
    presence: Presence,
    authority: PresentAuthority,
    metrics: Metrics,
    logs: Logs,
    surveys: Surveys,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Runs the coordinator until SIGTERM or SIGINT.
///
/// # Errors
/// When a part can't be built, or the store fails for good.
pub(super) async fn run(config: Config) -> anyhow::Result<()> {
    let logs = Logs::init(config.telemetry.log_level, std::io::stderr)?;
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let metrics = Metrics::new()?;
    let tasks = TaskTracker::new();
    // Who looks whether the process lives must find it while it waits for its secrets.
    let web = wiring::bind("web", config.listen.web)?;
    let web_address = web.local_addr()?;
    let routes = Arc::new(OnceLock::new());
    tasks.spawn(web::serve(
        web,
        web::front(Arc::clone(&routes)),
        stop.clone(),
    ));
    // So do the figures: who doesn't lead tells some, too.
    if config.telemetry.emf {
        tasks.spawn(emf::run(
            metrics.clone(),
            config.telemetry.emf_namespace.clone(),
            config.telemetry.emf_interval,
            stop.clone(),
        ));
    }

    let given = Given {
        metrics: Some(metrics.clone()),
        ..Given::default()
    };
    let reader = Reader::new(&config, given).await;
    let secrets = tokio::select! {
        secrets = wiring::secrets(&reader) => secrets?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let opened = wiring::open(&config, &secrets, &metrics);
    let (store, serving) = tokio::select! {
        opened = opened => opened?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    // Webhooks are taken by all coordinators, and read by the one that leads.
    let (ready, readiness) = watch::channel(true);
    let (webhook, checks) = watch::channel(secrets.webhook.as_slice().into());
    let leading = Arc::new(OnceLock::new());
    let engine = Arc::clone(&leading);
    // Nobody else sets them.
    let _ = routes.set(web::router(Web {
        store: Arc::new(store.clone()),
        secrets: checks,
        inbox_ready: Arc::new(move || {
            if let Some(engine) = engine.get() {
                Engine::inbox_ready(engine);
            }
        }),
        metrics: metrics.clone(),
        ready: readiness,
    }));
    let leadership = tokio::select! {
        leadership = wiring::lead(&config, &store) => leadership?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let authority = serving.authority();
    let github = wiring::github(&config, &secrets, &metrics)?;
    let sockets = Sockets::bind(&config)?;
    let addresses = sockets.addresses(web_address)?;
    let providers = wiring::providers(
        &config, &store, &authority, &metrics, &addresses, &tasks, &stop,
    )
    .await?;
    let aws = wiring::aws_enrollment(&config, &providers, &metrics)?;
    let presence = Presence::default();
    let executor = Executor::new(
        github.clone(),
        providers.clone(),
        &config.fleet.pools,
        metrics.clone(),
    );
    let (engine, runnable) = Engine::new(Parts {
        store: Arc::new(store.clone()),
        spec: config.fleet.clone(),
        presence: presence.clone(),
        executor,
        metrics: metrics.clone(),
        list_first: true,
    })
    .await?;
    let service = Service {
        config,
        store,
        engine,
        presence,
        authority,
        metrics,
        logs,
        surveys: Surveys::default(),
        stop: stop.clone(),
        tasks,
    };
    // As above.
    let _ = leading.set(service.engine.clone());
    let lost = leadership.lost();
    let mut fleet = tokio::spawn(runnable.run(stop.child_token()));
    let health = service.listen(sockets, &serving, aws).await?;
    let applied = Applied {
        github: github.clone(),
        webhook,
        serving,
    };
    let interval = service.config.secrets.reload_interval;
    let rereading = secrets::watch(reader, secrets, applied, interval, stop.clone());
    service.tasks.spawn(rereading);
    service
        .tasks
        .spawn(reach::tell(providers.clone(), stop.clone()));
    service.look_after(&github, providers);
    if let Some(path) = &service.config.listen.ports_file {
        wiring::write_addresses(path, &addresses)?;
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        web = %addresses.web,
        enroll = %addresses.enroll,
        agents = %addresses.agents,
        operators = %addresses.operators,
        "coordinator is up"
    );

    let outcome = tokio::select! {
        ended = &mut fleet => ended.context("the engine failed").and_then(|ended| Ok(ended?)),
        () = lost.cancelled() => Err(anyhow::anyhow!("another coordinator leads, or may lead")),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    tracing::info!("coordinator stops");
    ready.send_replace(false);
    health
        .set_not_serving::<OperatorServiceServer<Operators>>()
        .await;
    stop.cancel();
    service.tasks.close();
    if tokio::time::timeout(DRAIN, service.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(left = service.tasks.len(), "tasks did not end in time");
    }
    if !fleet.is_finished() {
        fleet.await.context("the engine failed")??;
    }
    // All that was begun is written.
    leadership.release().await;
    outcome
}

impl Service {
    /// Starts the listeners beside that of the web.
    async fn listen(
        &self,
        sockets: Sockets,
        serving: &Serving,
        aws: Option<AwsEnrollment>,
    ) -> anyhow::Result<HealthReporter> {
        let trust_domain = TrustDomain::new(&self.config.coordinator.trust_domain)?;
        let serve = |role, socket, tls, routes| {
            let listener = Listener {
                socket,
                tls,
                role,
                trust_domain: trust_domain.clone(),
                limits: Limits::of(role),
                routes,
            };
            self.tasks.spawn(listener.serve(self.stop.clone()));
        };

        let enrollment = Enrollment::new(EnrollmentParts {
            engine: self.engine.clone(),
            store: self.store.clone(),
            authority: self.authority.clone(),
            trust_domain: trust_domain.clone(),
            audience: self.config.coordinator.name.clone(),
            metrics: self.metrics.clone(),
            tasks: self.tasks.clone(),
            aws,
        });
        let agents = Agents::new(
            self.engine.clone(),
            self.presence.clone(),
            self.authority.clone(),
            AgentSettings {
                heartbeat_interval: self.config.coordinator.heartbeat_interval,
                ..AgentSettings::default()
            },
            self.stop.clone(),
            self.tasks.clone(),
        );
        let operators = Operators::new(
            self.engine.clone(),
            self.store.clone(),
            self.presence.clone(),
            self.log_level(),
            self.surveys.clone(),
            self.stop.clone(),
        );
        let (operator_routes, health) = operators.into_routes().await?;
        serve(
            Role::Newcomer,
            sockets.enroll,
            serving.enroll(),
            Routes::new(enrollment.into_service()),
        );
        serve(
            Role::Agent,
            sockets.agents,
            serving.agents(),
            Routes::new(agents.into_service()),
        );
        serve(
            Role::Operator,
            sockets.operators,
            serving.operators(),
            operator_routes,
        );
        Ok(health)
    }

    fn log_level(&self) -> LogLevel {
        let (get, set) = (self.logs.clone(), self.logs.clone());
        LogLevel {
            get: Arc::new(move || get.level().to_string().to_lowercase()),
            set: Arc::new(move |level| set.set_level(level).map_err(|error| error.to_string())),
        }
    }

    /// Starts what looks after things at intervals.
    fn look_after(
        &self,
        github: &crate::github::GithubClient,
        providers: std::collections::HashMap<muster_core::AccountName, crate::compute::Provider>,
    ) {
        let tasks = &self.tasks;
        for (account, provider) in providers {
            let interval = self.config.sweep_interval(&account);
            tasks.spawn(engine::notices(
                self.engine.clone(),
                account.clone(),
                provider.clone(),
                self.stop.clone(),
            ));
            tasks.spawn(engine::sweep(
                self.engine.clone(),
                account,
                provider,
                interval,
                self.stop.clone(),
            ));
        }
        if let Some(interval) = self.config.github.redeliver_interval {
            tasks.spawn(reconcile::run(
                github.clone(),
                Arc::new(self.store.clone()),
                interval,
                self.stop.clone(),
            ));
        }
        if let Some(settings) = self.config.github.survey {
            let parts = SurveyParts {
                client: github.clone(),
                engine: self.engine.clone(),
                store: Arc::new(self.store.clone()),
                surveys: self.surveys.clone(),
                metrics: self.metrics.clone(),
                settings,
            };
            let pools = self.config.fleet.pools.clone();
            tasks.spawn(survey::run(parts, pools, self.stop.clone()));
        }
        tasks.spawn(JobCheck::default().run(
            github.clone(),
            self.engine.clone(),
            JOB_CHECK,
            self.stop.clone(),
        ));
        tasks.spawn(presence::watch_silence(
            self.presence.clone(),
            self.metrics.clone(),
            self.config.coordinator.heartbeat_interval,
            self.stop.clone(),
        ));
        tasks.spawn(prune(self.store.clone(), self.stop.clone()));
        let (store, engine, stop) = (self.store.clone(), self.engine.clone(), self.stop.clone());
        tasks.spawn(async move {
            store
                .watch_deliveries(move || engine.inbox_ready(), stop)
                .await;
        });
    }
}

/// Removes what is old from the store.
async fn prune(store: Store, stop: CancellationToken) {
    loop {
        if let Ok(before) = Timestamp::now().checked_sub(RETENTION)
            && let Err(error) = store.prune(before).await
        {
            tracing::warn!(%error, "the store can't be pruned");
        }
        if stop
            .run_until_cancelled(tokio::time::sleep(PRUNE))
            .await
            .is_none()
        {
            return;
        }
    }
}
