//! `run`: the service. Builds the parts, runs them until it is told to stop, lets them end in order.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;

use super::ending::{self, Lead, Signals};
use super::reach;
use super::sockets::{self, Listening, Sockets};
use super::wiring;
use crate::aws::Given;
use crate::config::Config;
use crate::engine::{self, Engine, Executor, Parts};
use crate::github::survey::{self, SurveyParts, Surveys};
use crate::github::{JobCheck, reconcile};
use crate::grpc::authorize::Role;
use crate::grpc::enrollment::{AwsEnrollment, Enrollment, Parts as EnrollmentParts};
use crate::grpc::listen::{Limits, Listener};
use crate::grpc::operator::{Known, LogLevel, Operators};
use crate::grpc::session::{AgentSettings, Agents};
use crate::identity::serving::{PresentAuthority, PresentTls};
use crate::identity::spiffe::TrustDomain;
use crate::presence::{self, Presence};
use crate::runner_versions::{self, RunnerVersions, VersionParts};
use crate::secrets::{self, Applied, Reader};
use crate::store::{Retention, Store};
use crate::tasks::Tasks;
use crate::telemetry::{Logs, Metrics, emf};
use crate::web::{self, Web};

/// Open jobs are asked for at this interval, as the last word of a job may never come.
const JOB_CHECK: Duration = Duration::from_secs(5);
/// What is older than this is pruned from the store: GitHub lists deliveries for three days.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Time between two prunings, and before the first.
const PRUNE: Duration = Duration::from_secs(60 * 60);

/// What the tasks of the service share.
struct Service {
    config: Config,
    store: Store,
    retention: Retention,
    engine: Engine,
    presence: Presence,
    authority: PresentAuthority,
    metrics: Metrics,
    logs: Logs,
    surveys: Surveys,
    versions: RunnerVersions,
    stop: CancellationToken,
    tasks: Tasks,
}

/// The TLS of the listeners beside that of the web.
struct ListenersTls {
    enroll: PresentTls,
    agents: PresentTls,
    operators: PresentTls,
}

/// Runs the coordinator until SIGTERM or SIGINT.
///
/// # Errors
/// When a part can't be built or ends before its time, or the store fails for good.
pub(super) async fn run(config: Config) -> anyhow::Result<()> {
    let logs = Logs::init(config.telemetry.log_level, std::io::stderr)?;
    let mut signals = Signals::new()?;
    let tasks = Tasks::new(CancellationToken::new());
    let (ready, readiness) = watch::channel(true);
    let mut lead = None;
    let why = tokio::select! {
        biased;
        failed = live(config, logs, readiness, &tasks, &mut lead) => failed.map(|never| match never {}),
        failed = tasks.failed() => Err(failed.into()),
        _ = signals.either() => Ok(()),
    };
    ending::end(why, &tasks, &ready, lead).await
}

/// Begins as one of those who take webhooks, goes on as the one who leads, and ends with an error only.
async fn live(
    config: Config,
    logs: Logs,
    ready: watch::Receiver<bool>,
    tasks: &Tasks,
    lead: &mut Option<Lead>,
) -> anyhow::Result<Infallible> {
    let stop = tasks.stop();
    let metrics = Metrics::new()?;
    // Who looks whether the process lives must find it while it waits for its secrets.
    let web = sockets::bind_web(&config)?;
    let web_address = web.local_addr()?;
    let routes = Arc::new(OnceLock::new());
    let front = web::front(Arc::clone(&routes));
    tasks.spawn("web", web::serve(web, front, stop.clone()));
    // So do the figures: who doesn't lead tells some, too.
    let telemetry = &config.telemetry;
    if telemetry.emf {
        let (namespace, interval) = (telemetry.emf_namespace.clone(), telemetry.emf_interval);
        let figures = emf::run(metrics.clone(), namespace, interval, stop.clone());
        tasks.spawn("figures", figures);
    }

    // Who can't lead must not look as if it could: a rolling deploy would replace those who can.
    let sockets = Sockets::bind(&config)?;
    let addresses = sockets.addresses(web_address);
    let given = Given {
        metrics: Some(metrics.clone()),
        ..Given::default()
    };
    let reader = Reader::new(&config, given).await;
    let secrets = wiring::secrets(&reader).await?;
    let github = wiring::github(&config, &secrets, &metrics)?;
    let (store, serving) = wiring::open(&config, &secrets, &metrics).await?;
    // Webhooks are taken by all coordinators, and read by the one that leads.
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
        ready,
    }));
    let authority = serving.authority();
    let tls = ListenersTls {
        enroll: serving.enroll(),
        agents: serving.agents(),
        operators: serving.operators(),
    };
    // Secrets are rotated under those who don't lead, too.
    let applied = Applied {
        github: github.clone(),
        webhook,
        serving,
    };
    let interval = config.secrets.reload_interval;
    let rereading = secrets::watch(reader, secrets, applied, interval, stop.clone());
    tasks.spawn("secrets", rereading);

    let lead = lead.insert(Lead::new(wiring::lead(&config, &store).await?));
    // A lead that is lost before all of it is up is lost all the same.
    let lost = lead.is_lost();
    let leads = async {
        let sockets = sockets.listen().await?;
        let providers =
            wiring::providers(&config, &store, &authority, &metrics, &addresses, tasks).await?;
        let retention = Retention::begin(store.clone(), RETENTION).await?;
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
            retention,
            engine,
            presence,
            authority,
            metrics,
            logs,
            surveys: Surveys::default(),
            versions: RunnerVersions::default(),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        // As above.
        let _ = leading.set(service.engine.clone());
        lead.runs(tokio::spawn(runnable.run(stop.child_token())));
        lead.reports(service.listen(sockets, tls, aws).await?);
        tasks
            .short()
            .spawn(reach::tell(providers.clone(), stop.clone()));
        service.look_after(&github, providers);
        if let Some(path) = &service.config.listen.ports_file {
            sockets::write_addresses(path, &addresses)?;
        }
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            web = %addresses.web,
            enroll = %addresses.enroll,
            agents = %addresses.agents,
            operators = %addresses.operators,
            "coordinator is up"
        );
        Err(lead.lost().await)
    };
    let ended = lost.run_until_cancelled(Box::pin(leads)).await;
    ended.unwrap_or_else(|| Err(ending::no_lead()))
}

impl Service {
    /// Starts the listeners beside that of the web.
    async fn listen(
        &self,
        sockets: Listening,
        tls: ListenersTls,
        aws: Option<AwsEnrollment>,
    ) -> anyhow::Result<HealthReporter> {
        let trust_domain = TrustDomain::new(&self.config.coordinator.trust_domain)?;
        let serve = |name, role, socket, tls, routes| {
            let listener = Listener {
                socket,
                tls,
                role,
                trust_domain: trust_domain.clone(),
                limits: Limits::of(role),
                routes,
            };
            self.tasks.spawn(name, listener.serve(self.stop.clone()));
        };

        let enrollment = Enrollment::new(EnrollmentParts {
            engine: self.engine.clone(),
            store: self.store.clone(),
            authority: self.authority.clone(),
            trust_domain: trust_domain.clone(),
            audience: self.config.coordinator.name.clone(),
            metrics: self.metrics.clone(),
            tasks: self.tasks.short(),
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
            self.tasks.short(),
        );
        let operators = Operators::new(
            self.engine.clone(),
            self.store.clone(),
            self.presence.clone(),
            self.log_level(),
            Known {
                surveys: self.surveys.clone(),
                versions: self.versions.clone(),
            },
            self.stop.clone(),
        );
        let (operator_routes, health) = operators.into_routes().await?;
        serve(
            "enroll",
            Role::Newcomer,
            sockets.enroll,
            tls.enroll,
            Routes::new(enrollment.into_service()),
        );
        serve(
            "agents",
            Role::Agent,
            sockets.agents,
            tls.agents,
            Routes::new(agents.into_service()),
        );
        serve(
            "operators",
            Role::Operator,
            sockets.operators,
            tls.operators,
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
        let all = providers.values().cloned().collect();
        for (account, provider) in providers {
            let interval = self.config.sweep_interval(&account);
            tasks.spawn(
                "notices",
                engine::notices(
                    self.engine.clone(),
                    account.clone(),
                    provider.clone(),
                    self.stop.clone(),
                ),
            );
            tasks.spawn(
                "images",
                engine::images(self.engine.clone(), provider.clone(), self.stop.clone()),
            );
            tasks.spawn(
                "sweep",
                engine::sweep(
                    self.engine.clone(),
                    account,
                    provider,
                    interval,
                    self.stop.clone(),
                ),
            );
        }
        if let Some(interval) = self.config.github.redeliver_interval {
            tasks.spawn(
                "redeliveries",
                reconcile::run(
                    github.clone(),
                    Arc::new(self.store.clone()),
                    interval,
                    self.stop.clone(),
                ),
            );
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
            tasks.spawn("survey", survey::run(parts, pools, self.stop.clone()));
        }
        let pools = self.config.fleet.pools.iter();
        tasks.spawn(
            "runner versions",
            runner_versions::watch(
                VersionParts {
                    client: github.clone(),
                    scopes: pools.map(|pool| pool.scope.clone()).collect(),
                    providers: all,
                    versions: self.versions.clone(),
                    metrics: self.metrics.clone(),
                },
                self.stop.clone(),
            ),
        );
        tasks.spawn(
            "job check",
            JobCheck::default().run(
                github.clone(),
                self.engine.clone(),
                JOB_CHECK,
                self.stop.clone(),
            ),
        );
        tasks.spawn(
            "silence",
            presence::watch_silence(
                self.presence.clone(),
                self.metrics.clone(),
                self.config.coordinator.heartbeat_interval,
                self.stop.clone(),
            ),
        );
        let pruning = self.retention.clone().run(PRUNE, self.stop.clone());
        tasks.spawn("prune", pruning);
        let (store, engine, stop) = (self.store.clone(), self.engine.clone(), self.stop.clone());
        tasks.spawn("deliveries", async move {
            store
                .watch_deliveries(move || engine.inbox_ready(), stop)
                .await;
        });
    }
}
