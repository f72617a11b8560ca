//! The end of the service, the same in each of its phases: nobody new is served, what was begun is stored, the
//! lead is given up, and then those who are still served may finish.

use std::time::Duration;

use anyhow::Context as _;
use muster_proto::v1::operator_service_server::OperatorServiceServer;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;

use crate::engine::EngineError;
use crate::grpc::operator::Operators;
use crate::store::Leadership;
use crate::tasks::{TaskError, Tasks};

/// How long the parts may take to end; ECS kills after 120 s.
const DRAIN: Duration = Duration::from_secs(30);

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes them from here on.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for either; says which it was.
    pub(super) async fn either(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }
}

/// What only the coordinator that leads has, and has to end before another may lead.
pub(super) struct Lead {
    leadership: Leadership,
    engine: Option<JoinHandle<Result<(), EngineError>>>,
    health: Option<HealthReporter>,
}

impl Lead {
    pub(super) fn new(leadership: Leadership) -> Self {
        Self {
            leadership,
            engine: None,
            health: None,
        }
    }

    pub(super) fn runs(&mut self, engine: JoinHandle<Result<(), EngineError>>) {
        self.engine = Some(engine);
    }

    pub(super) fn reports(&mut self, health: HealthReporter) {
        self.health = Some(health);
    }

    /// Cancelled once another may lead.
    pub(super) fn is_lost(&self) -> CancellationToken {
        self.leadership.lost()
    }

    /// Waits until the engine fails or the lead is lost.
    pub(super) async fn lost(&mut self) -> anyhow::Error {
        let lost = self.leadership.lost();
        let Some(engine) = &mut self.engine else {
            lost.cancelled().await;
            return no_lead();
        };
        let ended = tokio::select! {
            biased;
            ended = engine => ended,
            () = lost.cancelled() => return no_lead(),
        };
        self.engine = None;
        match outcome(ended) {
            Err(error) => error,
            Ok(()) => anyhow::anyhow!("the engine has ended before its time"),
        }
    }

    /// Lets another lead, once all that was begun is written.
    async fn end(self, until: Instant) -> anyhow::Result<()> {
        let mut ended = Ok(());
        if let Some(mut engine) = self.engine {
            match timeout_at(until, &mut engine).await {
                Ok(done) => ended = outcome(done),
                Err(_) => {
                    tracing::warn!("the engine did not end in time");
                    engine.abort();
                }
            }
        }
        self.leadership.release().await;
        ended
    }
}

/// Why one ends that led.
pub(super) fn no_lead() -> anyhow::Error {
    anyhow::anyhow!("another coordinator leads, or may lead")
}

fn outcome(ended: Result<Result<(), EngineError>, tokio::task::JoinError>) -> anyhow::Result<()> {
    Ok(ended.context("the engine failed")??)
}

/// Ends the service. Nobody waits for those who are still served to have another coordinator lead.
pub(super) async fn end(
    why: anyhow::Result<()>,
    tasks: &Tasks,
    ready: &watch::Sender<bool>,
    lead: Option<Lead>,
) -> anyhow::Result<()> {
    tracing::info!("coordinator stops");
    let until = Instant::now() + DRAIN;
    ready.send_replace(false);
    if let Some(health) = lead.as_ref().and_then(|lead| lead.health.as_ref()) {
        health
            .set_not_serving::<OperatorServiceServer<Operators>>()
            .await;
    }
    tasks.stop().cancel();
    let engine = match lead {
        Some(lead) => lead.end(until).await,
        None => Ok(()),
    };
    if timeout_at(until, tasks.ended()).await.is_err() {
        tracing::warn!(left = tasks.count(), "tasks did not end in time");
    }
    match why {
        // They end with the engine, too.
        Err(error) if !error.is::<TaskError>() => Err(error),
        why => engine.and(why).and(match tasks.failure() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }),
    }
}
