//! How long an end waits to be acknowledged.

use std::path::Path;
use std::time::Duration;

use muster_proto::v1::AgentEvent;
use muster_proto::v1::agent_event::Kind;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::{Ended, Supervisor, UNREACHABLE_LIMIT};
use crate::config::{HostConfig, Mode};
use crate::local::{self, Order, Report, ToSupervisor};
use crate::signals::Signals;
use crate::supervise::watchdog::Limits;

const SECOND: Duration = Duration::from_secs(1);

/// A supervisor without a runner, and the front that it speaks to.
struct Host {
    front: ToSupervisor,
    supervisor: JoinHandle<Ended>,
    _dir: tempfile::TempDir,
}

impl Host {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (to_front, front) = local::pair();
        let (sender, fronts) = mpsc::channel(1);
        sender.send(to_front).await.unwrap();
        let supervisor = Supervisor::new(
            config(dir.path()),
            dir.path().display().to_string(),
            Duration::ZERO,
            Signals::install().unwrap(),
            fronts,
        );
        Self {
            front,
            supervisor: tokio::spawn(supervisor.run()),
            _dir: dir,
        }
    }

    async fn order(&self, order: Order) {
        self.front.to.send(order).await.unwrap();
    }

    /// Has it end, and returns the number of the event that says so, and when it came.
    async fn finished(&mut self) -> (u64, Instant) {
        self.order(Order::Contact { up: true }).await;
        self.order(Order::Retire).await;
        loop {
            if let Report::Event(AgentEvent {
                sequence,
                kind: Some(Kind::RunnerFinished(_)),
                ..
            }) = self.front.from.recv().await.unwrap()
            {
                return (sequence, Instant::now());
            }
        }
    }

    /// When it went.
    async fn left(self) -> Instant {
        let ended = timeout(2 * UNREACHABLE_LIMIT, self.supervisor).await;
        assert!(matches!(ended, Ok(Ok(Ended::Over(_)))), "{ended:?}");
        Instant::now()
    }
}

pub(super) fn config(dir: &Path) -> HostConfig {
    HostConfig {
        runner_dir: dir.to_owned(),
        work_dir: dir.to_owned(),
        max_lifetime: 3600 * SECOND,
        coordinator_lost: 600 * SECOND,
        runner_environment: std::collections::BTreeMap::default(),
        runner_limits: Limits::default(),
        mode: Mode::Child { mark: None },
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_only_looks_alive_costs_no_last_word() {
    let mut host = Host::start().await;
    let (_, finished) = host.finished().await;
    // Keep-alive tells that the connection is broken, and the coordinator is back a while later.
    sleep(20 * SECOND).await;
    host.order(Order::Contact { up: false }).await;
    sleep(25 * SECOND).await;
    host.order(Order::Contact { up: true }).await;
    sleep(10 * SECOND).await;
    assert!(!host.supervisor.is_finished());
    let waited = host.left().await - finished;
    assert!(waited >= UNREACHABLE_LIMIT, "{waited:?}");
    assert!(waited < UNREACHABLE_LIMIT + SECOND, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_acknowledged_end_does_not_wait() {
    let mut host = Host::start().await;
    let (sequence, finished) = host.finished().await;
    sleep(20 * SECOND).await;
    let through = sequence;
    host.order(Order::Acknowledge { through }).await;
    let waited = host.left().await - finished;
    assert!(waited < 21 * SECOND, "{waited:?}");
}
