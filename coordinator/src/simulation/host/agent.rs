//! The agent: says hello, tells what happens until it is acknowledged, does what it is told.

mod runner;

use std::collections::VecDeque;
use std::time::Duration;

use muster_core::{InstanceId, LaunchId, PoolName};
use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::session_request::Message as Said;
use muster_proto::v1::session_response::Message as Told;
use muster_proto::v1::{
    AgentEvent, DrainReport, Heartbeat, Hello, PhaseChanged, RunnerOutcome, RunnerPhase,
    SessionRequest, SessionResponse,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use self::runner::LINGER;
use super::{Due, News, PATIENCE, due};
use crate::grpc::authorize::Validity;
use crate::identity::spiffe::{AgentId, TrustDomain};
use crate::simulation::github;
use crate::simulation::run::{ACCOUNT, LIFETIME, REGION};
use crate::simulation::world::World;

/// Messages that its connection takes before it counts as broken.
const UNREAD: usize = 64;
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A stream to the coordinator.
struct Stream {
    say: mpsc::Sender<Result<SessionRequest, Status>>,
    hear: mpsc::Receiver<Box<Result<SessionResponse, Status>>>,
    /// The process that it goes to.
    life: u64,
}

/// What the runner does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runner {
    None,
    /// Its process comes up; it holds this registration.
    Starting(i64),
    Listening(i64),
    Running(i64),
    Finished,
}

pub(super) struct Agent {
    world: World,
    instance: InstanceId,
    launch: LaunchId,
    pool: PoolName,
    news: mpsc::Receiver<News>,
    runner: Runner,
    name: String,
    /// Events that are not acknowledged.
    unheard: VecDeque<AgentEvent>,
    sequence: u64,
    stream: Option<Stream>,
    /// When it held a stream last, if it holds none.
    heard_at: Instant,
    /// When it tries to connect.
    connect_at: Due,
    beat_at: Due,
    /// When the runner does its next thing by itself.
    runner_at: Due,
    /// When the agent stops the job.
    stop_at: Due,
    off_at: Due,
    cut_off_until: Due,
    drained: bool,
    born: Instant,
}

impl Agent {
    pub(super) fn new(
        world: World,
        instance: InstanceId,
        launch: LaunchId,
        pool: PoolName,
        news: mpsc::Receiver<News>,
    ) -> Self {
        Self {
            world,
            instance,
            launch,
            pool,
            news,
            runner: Runner::None,
            name: String::new(),
            unheard: VecDeque::new(),
            sequence: 0,
            stream: None,
            heard_at: Instant::now(),
            connect_at: Some(Instant::now()),
            beat_at: None,
            runner_at: None,
            stop_at: None,
            off_at: None,
            cut_off_until: None,
            drained: false,
            born: Instant::now(),
        }
    }

    /// Runs until the instance ends.
    pub(super) async fn run(mut self) {
        let world = self.world.clone();
        let mut life = world.life();
        let too_old = self.born + LIFETIME;
        loop {
            tokio::select! {
                biased;
                now = world.ended(life) => {
                    life = now;
                    if self.stream.as_ref().is_some_and(|stream| stream.life != life) {
                        self.disconnected();
                    }
                }
                Some(news) = self.news.recv() => match news {
                    News::Hangs => return self.hang().await,
                    news => self.learn(&news),
                },
                message = hear(&mut self.stream) => match message {
                    Some(Ok(response)) => self.told(response),
                    Some(Err(_)) | None => self.disconnected(),
                },
                () = due(self.runner_at) => self.runner_goes_on(),
                () = due(self.stop_at) => self.stop_job(),
                () = due(self.off_at) => return self.power_off(),
                // Its own timer ends a host that the coordinator has lost.
                () = due(Some(too_old)) => return self.power_off(),
                () = due(self.connect_at) => self.connect().await,
                () = due(self.beat_at) => {
                    self.beat_at = Some(Instant::now() + HEARTBEAT);
                    self.say(Said::Heartbeat(Heartbeat { sample: None }));
                }
            }
        }
    }

    fn power_off(&self) {
        super::super::cloud::end(&self.world, &self.instance, "powered itself off");
    }

    /// Holds all that it has until its instance is ended.
    async fn hang(self) {
        self.connected(false);
        github::lost_host(&self.world, &self.instance);
        std::future::pending::<()>().await;
    }

    fn disconnected(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            self.heard_at = Instant::now();
            self.connected(false);
            // What was on its way is lost, and counts as sent.
            while let Ok(told) = stream.hear.try_recv() {
                if let Ok(response) = *told
                    && let Some(Told::Assignment(assignment)) = response.message
                {
                    let config = &assignment.encoded_jit_config;
                    self.world.lock().judge.assigned(&self.instance, config);
                }
            }
        }
        self.beat_at = None;
        let wait = self.world.lock().between(200, 8_000);
        self.connect_at = Some(Instant::now() + wait);
    }

    async fn connect(&mut self) {
        self.disconnected();
        if self
            .cut_off_until
            .is_some_and(|until| Instant::now() < until)
        {
            return;
        }
        let process = {
            let state = self.world.lock();
            let process = state.process.as_ref();
            process.map(|process| (process.agents.clone(), process.life))
        };
        let Some((agents, life)) = process else {
            return;
        };
        let id = identity(&self.pool, &self.instance);
        let (say, requests) = mpsc::channel(UNREAD);
        let requests = ReceiverStream::new(requests);
        let opened = agents.simulated(&id, Validity::for_ever(), requests);
        // The coordinator may die while it is asked.
        let Ok(Ok(hear)) = timeout(PATIENCE, opened).await else {
            return;
        };
        if self.world.life() != life {
            return;
        }
        self.stream = Some(Stream { say, hear, life });
        self.connected(true);
        self.connect_at = None;
        self.beat_at = Some(Instant::now() + HEARTBEAT);
        self.say(Said::Hello(Hello {
            phase: self.phase().into(),
            runner_name: self.name.clone(),
            last_sequence: self.sequence,
            ..Hello::default()
        }));
        for event in self.unheard.clone() {
            self.say(Said::Event(event));
        }
    }

    fn connected(&self, is: bool) {
        let mut state = self.world.lock();
        if let Some(host) = state.judge.hosts.get_mut(&self.instance) {
            host.connected_since = is.then(Instant::now);
        }
    }

    fn say(&mut self, message: Said) {
        let Some(stream) = &self.stream else { return };
        let message = Some(message);
        let taken = stream.say.try_send(Ok(SessionRequest { message }));
        let breaks = {
            let mut state = self.world.lock();
            let cut = state.plan.cut;
            state.chance(cut) || taken.is_err()
        };
        if breaks {
            self.disconnected();
        }
    }

    fn event(&mut self, kind: Kind) {
        self.sequence += 1;
        let event = AgentEvent {
            sequence: self.sequence,
            at: None,
            kind: Some(kind),
        };
        self.unheard.push_back(event.clone());
        self.say(Said::Event(event));
    }

    fn phase(&self) -> RunnerPhase {
        match self.runner {
            Runner::None => RunnerPhase::Unassigned,
            Runner::Starting(_) => RunnerPhase::Starting,
            Runner::Listening(_) => RunnerPhase::Listening,
            Runner::Running(_) => RunnerPhase::Running,
            Runner::Finished => RunnerPhase::Finished,
        }
    }

    fn changed(&mut self, runner: Runner, job: String) {
        self.runner = runner;
        let phase = self.phase().into();
        self.event(Kind::PhaseChanged(PhaseChanged {
            phase,
            job_display_name: job,
        }));
    }

    fn told(&mut self, response: SessionResponse) {
        match response.message {
            Some(Told::Acknowledge(acknowledged)) => {
                let through = acknowledged.through_sequence;
                self.unheard.retain(|event| event.sequence > through);
                if self.runner == Runner::Finished && self.unheard.is_empty() {
                    self.leave(LINGER);
                }
            }
            Some(Told::Assignment(assignment)) => self.assigned(&assignment),
            Some(Told::Drain(drain)) => {
                self.drained = true;
                if let Some(deadline) = drain.deadline {
                    self.taken_at(crate::grpc::time::from_wire(&deadline));
                }
                self.report();
            }
            Some(Told::Retire(_)) => {
                self.report();
                if matches!(
                    self.runner,
                    Runner::None | Runner::Starting(_) | Runner::Listening(_)
                ) {
                    self.finish(RunnerOutcome::Unused);
                }
            }
            Some(Told::Reconnect(_)) => self.disconnected(),
            Some(Told::Shutdown(_)) => self.finish(RunnerOutcome::Unused),
            Some(Told::Configure(_)) | None => {}
        }
    }

    fn report(&mut self) {
        let idle = !matches!(self.runner, Runner::Running(_));
        let phase = self.phase().into();
        self.event(Kind::DrainReport(DrainReport { idle, phase }));
    }
}

/// What the certificate of a host says.
pub(super) fn identity(pool: &PoolName, instance: &InstanceId) -> AgentId {
    let domain = TrustDomain::new("muster.test").unwrap();
    AgentId::new(&domain, pool.as_str(), ACCOUNT, REGION, instance.as_str()).unwrap()
}

async fn hear(stream: &mut Option<Stream>) -> Option<Result<SessionResponse, Status>> {
    match stream {
        Some(stream) => stream.hear.recv().await.map(|told| *told),
        None => std::future::pending().await,
    }
}
