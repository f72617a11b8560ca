//! Simulated hosts: an agent below the level of gRPC and a runner on each instance that the fake EC2
//! launches. They do what the real agent does where the coordinator relies on it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_coordinator::clock;
use muster_coordinator::presence::{Connection, Ended};
use muster_core::{
    Event, HostPhase, InstanceId, Interruption, LaunchId, Outcome, Runner, RunnerName,
};
use muster_proto::v1::session_response::Message;
use muster_proto::v1::{Assignment, SessionResponse};
use muster_tests::fakes::aws::{Instance, Market};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::coordinator::Link;
use crate::listener::{Listener, News, credential};
use crate::plant::{ACCOUNT, COORDINATOR, Plant};

/// Before the instance goes, the job is told to stop (the agent's `interrupt_lead`).
const LEAD: Duration = Duration::from_secs(30);
/// News that may wait for an agent; a runner has fewer in all its life.
const NEWS: usize = 16;
/// How long a host goes on that nobody ends.
const SELF_END: Duration = Duration::from_mins(5);

/// One host, from its launch to its end.
pub(crate) async fn live(plant: Arc<Plant>, it: Instance, number: u64, end: CancellationToken) {
    let mut random = StdRng::seed_from_u64(plant.seed.wrapping_mul(31).wrapping_add(number));
    let boot = Duration::from_secs_f64(random.random_range(15.0..45.0));
    let mut notices = JoinSet::new();
    let (tell, notice) = mpsc::channel(NEWS);
    if it.market == Market::Spot && random.random_bool(plant.odds.interrupted) {
        let plant = Arc::clone(&plant);
        notices.spawn(interrupt(plant, it.id.clone(), random.random(), tell));
    }
    let mut host = Host {
        plant,
        instance: it.id.as_str().into(),
        launch: None,
        phase: HostPhase::Unassigned,
        assignment: None,
        draining: false,
        events: VecDeque::new(),
        stop: CancellationToken::new(),
        news: mpsc::channel(NEWS),
        notice,
        runner: JoinSet::new(),
        stream: None,
    };
    tokio::select! {
        () = end.cancelled() => {}
        () = async {
            sleep(boot).await;
            host.enrol().await;
            host.serve().await;
        } => {}
    }
    host.runner.abort_all();
    host.lost().await;
}

/// Spot takes an instance back: EC2's queue is told, and the host by its metadata.
async fn interrupt(plant: Arc<Plant>, id: String, seed: u64, tell: Sender<Timestamp>) {
    let mut random = StdRng::seed_from_u64(seed);
    sleep(Duration::from_secs_f64(random.random_range(5.0..150.0))).await;
    // Two minutes, as promised; or nearly none, as it happens.
    let warning = if random.random_bool(0.7) {
        120.0
    } else {
        random.random_range(0.1..20.0)
    };
    let warning = Duration::from_secs_f64(warning);
    let deadline = clock::now() + warning;
    if !plant.aws.interrupt(&id, warning) {
        return;
    }
    plant.tally().interrupted.insert(id);
    // The agent looks every five seconds.
    sleep(Duration::from_secs_f64(random.random_range(0.0..5.0))).await;
    let _ = tell.send(deadline).await;
}

struct Host {
    plant: Arc<Plant>,
    instance: InstanceId,
    /// Known once it has enrolled.
    launch: Option<LaunchId>,
    phase: HostPhase,
    assignment: Option<RunnerName>,
    draining: bool,
    /// What the coordinator has not taken yet.
    events: VecDeque<Event>,
    /// Interrupts the runner.
    stop: CancellationToken,
    news: (Sender<News>, Receiver<News>),
    notice: Receiver<Timestamp>,
    /// The runner, and what stops it at its hour.
    runner: JoinSet<()>,
    stream: Option<(Arc<Link>, Connection)>,
}

/// What the ledger says of an instance.
enum Row {
    None,
    Over,
    Launch(LaunchId),
}

/// What an enrolment is answered.
enum Answer {
    Enrolled,
    /// Its work is over: it is ended soon.
    Refused,
}

impl Host {
    /// Enrols, as often as it takes: the ledger must have the instance, and EC2 must know it.
    async fn enrol(&mut self) {
        loop {
            let link = self.plant.link().await;
            let answer = self.try_to_enrol(&link).await;
            // A coordinator that was killed can't start again while somebody holds on to its store.
            drop(link);
            match answer {
                Some(Answer::Enrolled) => return,
                Some(Answer::Refused) => return self.end().await,
                None => sleep(Duration::from_secs(2)).await,
            }
        }
    }

    /// Ends its instance after a while, as the coordinator will before.
    async fn end(&self) {
        sleep(SELF_END).await;
        self.plant.aws.power_off(self.instance.as_str());
        std::future::pending::<()>().await;
    }

    async fn try_to_enrol(&mut self, link: &Link) -> Option<Answer> {
        let instance = self.instance.clone();
        let row = link.engine.query(move |fleet| {
            let row = fleet.runner_of(&ACCOUNT.into(), &instance);
            row.map_or(Row::None, row_of)
        });
        let launch = match alive(link, row).await?.ok()? {
            Row::None => return None,
            Row::Over => return Some(Answer::Refused),
            Row::Launch(launch) => launch,
        };
        let facts = link.provider.describe(&self.instance);
        let facts = alive(link, facts).await?.ok()??;
        if facts.coordinator.as_deref() != Some(COORDINATOR) {
            let text = format!("{} is described without its tags", self.instance);
            self.plant.tally().wrong.push(text);
        }
        let event = Event::Enrolled {
            launch: launch.clone(),
            instance: self.instance.clone(),
        };
        submit(link, event).await?;
        self.launch = Some(launch);
        Some(Answer::Enrolled)
    }

    /// Holds a stream, and another one whenever it ends.
    async fn serve(&mut self) {
        loop {
            let link = self.plant.link().await;
            self.session(&link).await;
            self.lost().await;
            sleep(Duration::from_secs(1)).await;
        }
    }

    async fn session(&mut self, link: &Arc<Link>) -> Option<()> {
        let launch = self.launch.clone()?;
        while let Ok(news) = self.news.1.try_recv() {
            self.heard(news);
        }
        let turn = link.presence.turn(&launch);
        let held = turn.lock().await;
        let (connection, mut messages) = link.presence.connect(&launch);
        self.stream = Some((Arc::clone(link), connection));
        let hello = Event::AgentConnected {
            launch: launch.clone(),
            phase: self.phase,
            assignment: self.assignment.clone(),
            heard_at: Timestamp::now(),
        };
        submit(link, hello).await?;
        drop(held);
        loop {
            while let Some(event) = self.events.front() {
                submit(link, event.clone()).await?;
                self.events.pop_front();
            }
            tokio::select! {
                () = link.dead.cancelled() => return None,
                message = messages.recv() => match message {
                    Some(message) => self.told(*message, &launch),
                    None => self.cut_off(link).await?,
                },
                Some(news) = self.news.1.recv() => self.heard(news),
                Some(deadline) = self.notice.recv() => self.interrupted(deadline, &launch),
            }
        }
    }

    /// The stream ended from the other side. If the work here is over, that was the last one.
    async fn cut_off(&mut self, link: &Link) -> Option<()> {
        let over = self
            .stream
            .as_ref()
            .is_some_and(|(_, stream)| stream.is_revoked());
        if !over {
            return None;
        }
        alive(link, self.end()).await
    }

    fn told(&mut self, message: SessionResponse, launch: &LaunchId) {
        while let Ok(news) = self.news.1.try_recv() {
            self.heard(news);
        }
        match message.message {
            Some(Message::Assignment(assignment)) => self.assigned(assignment, launch),
            Some(Message::Drain(drain)) => {
                self.draining = true;
                let deadline = drain
                    .deadline
                    .and_then(|at| Timestamp::new(at.seconds, at.nanos).ok());
                if let Some(deadline) = deadline {
                    self.stop_before(deadline);
                }
                self.report_look(launch);
            }
            Some(Message::Retire(_)) => {
                self.draining = true;
                if self.idle() {
                    self.retire(launch);
                } else {
                    self.report_look(launch);
                }
            }
            _ => {}
        }
    }

    /// Takes the one assignment of this life.
    fn assigned(&mut self, assignment: Assignment, launch: &LaunchId) {
        let name = RunnerName::new(assignment.runner_name);
        if let Some(held) = &self.assignment {
            let text = format!("{held} was assigned {name} too");
            self.plant.tally().second_assignments.push(text);
            return;
        }
        if self.draining {
            return;
        }
        self.assignment = Some(name.clone());
        self.phase = HostPhase::Starting;
        self.events.push_back(Event::AssignmentAccepted {
            launch: launch.clone(),
            name: name.clone(),
        });
        let listener = Listener {
            plant: Arc::clone(&self.plant),
            instance: self.instance.to_string(),
            runner_name: name.to_string(),
            credential: credential(&assignment.encoded_jit_config).unwrap_or_default(),
            stop: self.stop.clone(),
            news: self.news.0.clone(),
        };
        self.runner.spawn(listener.run());
    }

    fn heard(&mut self, news: News) {
        let Some(launch) = self.launch.clone() else {
            return;
        };
        match news {
            News::Phase(phase, job_name) => {
                self.phase = phase;
                self.events.push_back(Event::PhaseChanged {
                    launch,
                    phase,
                    job_name,
                });
            }
            News::Finished(outcome, reason) => self.finish(launch, outcome, reason),
        }
    }

    fn finish(&mut self, launch: LaunchId, outcome: Outcome, reason: String) {
        if self.phase == HostPhase::Finished {
            return;
        }
        self.phase = HostPhase::Finished;
        self.events.push_back(Event::Finished {
            launch,
            outcome,
            reason,
        });
        let (plant, id) = (Arc::clone(&self.plant), self.instance.to_string());
        self.runner.spawn(async move {
            sleep(SELF_END).await;
            plant.aws.power_off(&id);
        });
    }

    fn interrupted(&mut self, deadline: Timestamp, launch: &LaunchId) {
        self.draining = true;
        self.events.push_back(Event::Interrupted {
            launch: launch.clone(),
            kind: Interruption::Spot,
            deadline: Some(deadline),
            detail: "instance metadata".to_owned(),
        });
        self.stop_before(deadline);
        self.report_look(launch);
    }

    /// Interrupts the runner ahead of the instance's end.
    fn stop_before(&mut self, deadline: Timestamp) {
        let left = Duration::try_from(deadline.duration_since(clock::now())).unwrap_or_default();
        let stop = self.stop.clone();
        self.runner.spawn(async move {
            sleep(left.saturating_sub(LEAD)).await;
            stop.cancel();
        });
    }

    fn idle(&self) -> bool {
        !matches!(self.phase, HostPhase::Assigned | HostPhase::Running)
    }

    /// Says whether there is a job, once the end is not reported.
    fn report_look(&mut self, launch: &LaunchId) {
        while let Ok(news) = self.news.1.try_recv() {
            self.heard(news);
        }
        if self.phase != HostPhase::Finished {
            self.events.push_back(Event::DrainReported {
                launch: launch.clone(),
                idle: self.idle(),
            });
        }
    }

    fn retire(&mut self, launch: &LaunchId) {
        if self.assignment.is_none() {
            let reason = "no runner was started".to_owned();
            self.finish(launch.clone(), Outcome::Unused, reason);
        }
        self.stop.cancel();
    }

    /// The stream has ended: the coordinator notices, if it is up.
    async fn lost(&mut self) {
        let Some((link, connection)) = self.stream.take() else {
            return;
        };
        let Some(launch) = self.launch.clone() else {
            return;
        };
        let turn = connection.turn();
        let _held = turn.lock().await;
        if connection.end() == Ended::Last && !link.dead.is_cancelled() {
            // A failure means that the coordinator is dead.
            let _ = submit(
                &link,
                Event::AgentLost {
                    launch,
                    heard_at: Timestamp::now(),
                },
            )
            .await;
        }
    }
}

fn row_of(runner: &Runner) -> Row {
    if runner.is_gone() || matches!(runner.work, muster_core::Work::Over { .. }) {
        Row::Over
    } else {
        Row::Launch(runner.launch.clone())
    }
}

/// What a coordinator answers; none if it dies before.
pub(crate) async fn alive<T>(link: &Link, answer: impl Future<Output = T>) -> Option<T> {
    link.dead.run_until_cancelled(answer).await
}

/// Has an event applied; none if the coordinator dies before it says so.
async fn submit(link: &Link, event: Event) -> Option<()> {
    alive(link, link.engine.submit(event)).await?.ok()
}
