//! A small world around the fleet: a provider, GitHub, hosts, a store and an outbox, all of which
//! lose, double and reorder. It checks at each step what must always hold.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use muster_core::{
    DeregisterAnswer, Effect, Event, Fleet, FleetSpec, GithubRunnerId, HostPhase, InstanceId,
    Interruption, JobId, JobReport, JobStatus, LaunchFailure, LaunchId, MintFailure, Outcome,
    PoolSpec, Repository, RunnerName, Scope, SizeRules, Stage, Stored, TimeLimits, Work,
};

pub(crate) const POOL_MAX: u32 = 3;
pub(crate) const ACCOUNT_MAX: u32 = 4;
pub(crate) const LIFETIME: Duration = Duration::from_secs(1200);

/// One thing that a generated run does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    QueueJob {
        pool: u8,
        known: bool,
    },
    CancelJob(usize),
    /// Delivers one of the waiting events, whichever: they come in any order.
    Deliver(usize),
    Double(usize),
    /// Loses a message that the design allows to be lost.
    Lose(usize),
    /// Carries out one of the effects in the outbox, with some luck.
    Effect {
        index: usize,
        luck: u8,
    },
    /// Lets a host do its next thing.
    Host(usize),
    Disconnect(usize),
    Vanish(usize),
    Spot(usize),
    OperatorDrain(usize),
    OperatorTerminate(usize),
    Pause(bool),
    List,
    Tick(u16),
    Crash,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Booting,
    Enrolled,
    Connected,
    Starting,
    Listening,
    Running(JobId),
    Done,
}

#[derive(Clone, Debug)]
struct Host {
    launch: LaunchId,
    phase: Phase,
    connected: bool,
    assignment: Option<RunnerName>,
    drained_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct Registration {
    launch: LaunchId,
    job: Option<JobId>,
}

pub(crate) struct World {
    fleet: Fleet,
    now: Timestamp,
    spec: FleetSpec,
    seed: u64,
    // The store.
    jobs: BTreeMap<JobId, muster_core::Job>,
    runners: BTreeMap<LaunchId, muster_core::Runner>,
    pools: BTreeMap<muster_core::PoolName, muster_core::PoolState>,
    outbox: BTreeMap<String, Effect>,
    /// Effects that were carried out and whose answer was not yet taken.
    under_way: BTreeSet<String>,
    // Lost with the process.
    messages: Vec<Effect>,
    vault: BTreeSet<(LaunchId, RunnerName)>,
    // Outside.
    events: Vec<Event>,
    /// Answers, each with the key of its effect: taken together, or lost together.
    answers: Vec<(String, Event)>,
    github_jobs: BTreeMap<JobId, JobReport>,
    registrations: BTreeMap<RunnerName, Registration>,
    instances: BTreeMap<InstanceId, (LaunchId, Timestamp)>,
    hosts: BTreeMap<InstanceId, Host>,
    // What has ever happened.
    assigned: HashSet<LaunchId>,
    launched: BTreeMap<LaunchId, InstanceId>,
    next_id: i64,
    log: Vec<String>,
}

fn pool(name: &str, min_idle: u32) -> PoolSpec {
    PoolSpec {
        name: name.into(),
        scope: Scope::Organization("octo-org".into()),
        runner_group: "Default".into(),
        labels: ["self-hosted".to_owned(), name.to_owned()].into(),
        sizes: SizeRules::default(),
        public_repositories: false,
        account: "local".into(),
        min_idle,
        max: POOL_MAX,
        limits: TimeLimits {
            lifetime: LIFETIME,
            ..TimeLimits::default()
        },
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let spec = FleetSpec {
            pools: vec![pool("linux", 1), pool("big", 0)],
            accounts: [("local".into(), ACCOUNT_MAX)].into(),
        };
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut world = Self {
            fleet: Fleet::restore(spec.clone(), Stored::default(), 1),
            now,
            spec,
            seed: 1,
            jobs: BTreeMap::new(),
            runners: BTreeMap::new(),
            pools: BTreeMap::new(),
            outbox: BTreeMap::new(),
            under_way: BTreeSet::new(),
            messages: Vec::new(),
            vault: BTreeSet::new(),
            events: Vec::new(),
            answers: Vec::new(),
            github_jobs: BTreeMap::new(),
            registrations: BTreeMap::new(),
            instances: BTreeMap::new(),
            hosts: BTreeMap::new(),
            assigned: HashSet::new(),
            launched: BTreeMap::new(),
            next_id: 0,
            log: Vec::new(),
        };
        world.apply(Event::Restarted);
        world
    }

    /// Applies an event, stores what changed, and checks what must hold.
    fn apply(&mut self, event: Event) {
        let draining: BTreeSet<LaunchId> = self
            .fleet
            .runners()
            .filter(|runner| runner.drain.is_some() || runner.is_over())
            .map(|runner| runner.launch.clone())
            .collect();
        let told = format!("{event:?}");
        self.log.push(format!("{} event {told}", self.now));
        let changes = self.fleet.apply(event, self.now);
        for id in &changes.jobs {
            self.jobs.insert(*id, self.fleet.job(*id).unwrap().clone());
        }
        for launch in &changes.runners {
            self.runners
                .insert(launch.clone(), self.fleet.runner(launch).unwrap().clone());
        }
        for pool in &changes.pools {
            self.pools.insert(pool.clone(), self.fleet.pool_state(pool));
        }
        for id in &changes.forgotten_jobs {
            self.jobs.remove(id);
        }
        for launch in &changes.forgotten_runners {
            self.runners.remove(launch);
        }
        for effect in changes.effects {
            if let Effect::Mint { launch, .. } | Effect::Assign { launch, .. } = &effect {
                assert!(
                    !draining.contains(launch),
                    "invariant 9: {effect:?} for a draining host"
                );
            }
            if let Effect::Mint { launch, .. } = &effect {
                assert!(
                    !self.assigned.contains(launch),
                    "invariant 1: {effect:?} after assignment"
                );
            }
            if effect.is_durable() {
                self.outbox.insert(effect.key(), effect);
            } else {
                self.messages.push(effect);
            }
        }
        self.check(&told);
    }

    fn check(&self, event: &str) {
        for runner in self.fleet.runners() {
            assert_eq!(
                Some(runner),
                self.runners.get(&runner.launch),
                "invariant 10: {event} changed a runner and did not say so"
            );
        }
        for job in self.fleet.jobs() {
            assert_eq!(
                Some(job),
                self.jobs.get(&job.id()),
                "invariant 10: {event} changed a job"
            );
        }
        let alive = |pool: Option<&PoolSpec>| {
            self.fleet
                .runners()
                .filter(|runner| !runner.instance_is_gone())
                .filter(|runner| pool.is_none_or(|pool| runner.pool == pool.name))
                .count()
        };
        assert!(
            alive(None) <= ACCOUNT_MAX as usize,
            "invariant 6: the account is over its maximum"
        );
        for pool in self.fleet.pools() {
            assert!(
                alive(Some(pool)) <= pool.max as usize,
                "invariant 6: {} is over",
                pool.name
            );
        }
    }

    pub(crate) fn step(&mut self, step: &Step) {
        match *step {
            Step::QueueJob { pool, known } => self.queue_job(pool, known),
            Step::CancelJob(index) => self.cancel_job(index),
            Step::Deliver(index) => self.deliver(index),
            Step::Double(index) => {
                if let Some(event) = pick(&self.events, index).cloned() {
                    self.events.push(event);
                }
            }
            Step::Lose(index) => self.lose(index),
            Step::Effect { index, luck } => self.carry_out(index, luck),
            Step::Host(index) => self.host_step(index),
            Step::Disconnect(index) => {
                if let Some(id) = pick_key(&self.hosts, index) {
                    self.disconnect(&id);
                }
            }
            Step::Vanish(index) => {
                if let Some(id) = pick_key(&self.instances, index) {
                    self.remove_instance(&id);
                }
            }
            Step::Spot(index) => {
                if let Some(host) = pick_key(&self.hosts, index).and_then(|id| self.hosts.get(&id))
                {
                    let deadline = self.now.checked_add(Duration::from_secs(120)).ok();
                    let kind = Interruption::Spot;
                    self.events.push(Event::Interrupted {
                        launch: host.launch.clone(),
                        kind,
                        deadline,
                    });
                }
            }
            Step::OperatorDrain(index) => {
                if let Some(launch) = pick_key(&self.runners, index) {
                    self.apply(Event::OperatorDrain {
                        launch,
                        reason: "test".into(),
                    });
                }
            }
            Step::OperatorTerminate(index) => {
                if let Some(launch) = pick_key(&self.runners, index) {
                    self.apply(Event::OperatorTerminate {
                        launch,
                        reason: "test".into(),
                    });
                }
            }
            Step::Pause(on) => {
                let paused = on.then(|| "test".to_owned());
                self.apply(Event::OperatorPause {
                    pool: "linux".into(),
                    paused,
                });
            }
            Step::List => self.list(),
            Step::Tick(seconds) => {
                self.now = self
                    .now
                    .checked_add(Duration::from_secs(seconds.into()))
                    .unwrap();
                self.apply(Event::Tick);
            }
            Step::Crash => self.crash(),
        }
    }

    fn queue_job(&mut self, pool: u8, known: bool) {
        self.next_id += 1;
        let id = JobId(self.next_id);
        let label = if pool == 0 { "linux" } else { "big" };
        let label = if known { label } else { "nowhere" };
        let report = JobReport {
            id,
            run_id: 1,
            run_attempt: Some(1),
            repository: Repository {
                owner: "octo-org".into(),
                name: "hello".into(),
                public: false,
                enterprise: None,
            },
            workflow: None,
            name: format!("job {id}"),
            labels: vec!["self-hosted".into(), label.into()],
            status: JobStatus::Queued,
            conclusion: None,
            runner_name: None,
            created_at: Some(self.now),
            started_at: None,
            completed_at: None,
            installation: None,
        };
        self.github_jobs.insert(id, report.clone());
        self.events.push(Event::Job(Box::new(report)));
    }

    fn cancel_job(&mut self, index: usize) {
        let queued: Vec<JobId> = self
            .github_jobs
            .values()
            .filter(|job| job.status == JobStatus::Queued)
            .map(|job| job.id)
            .collect();
        if let Some(id) = pick(&queued, index) {
            self.conclude(*id, "cancelled");
        }
    }

    fn conclude(&mut self, id: JobId, conclusion: &str) {
        let job = self.github_jobs.get_mut(&id).unwrap();
        job.status = JobStatus::Completed;
        job.conclusion = Some(conclusion.to_owned());
        job.completed_at = Some(self.now);
        self.events.push(Event::Job(Box::new(job.clone())));
    }

    fn lose(&mut self, index: usize) {
        // Agents send again until acknowledged, and effects are carried out until answered: only
        // webhooks and messages to agents are ever lost.
        let webhooks: Vec<usize> = (0..self.events.len())
            .filter(|&at| matches!(self.events[at], Event::Job(_)))
            .collect();
        if let Some(&at) = pick(&webhooks, index) {
            self.events.remove(at);
        } else {
            take(&mut self.messages, index);
        }
    }

    /// Delivers one of the events and answers that wait.
    fn deliver(&mut self, index: usize) {
        let total = self.events.len() + self.answers.len();
        if total == 0 {
            return;
        }
        let index = index % total;
        if index < self.events.len() {
            let event = self.events.remove(index);
            self.apply(event);
        } else {
            let (key, answer) = self.answers.remove(index - self.events.len());
            self.under_way.remove(&key);
            self.outbox.remove(&key);
            self.apply(answer);
        }
    }

    fn carry_out(&mut self, index: usize, luck: u8) {
        let waiting: Vec<String> = self
            .outbox
            .keys()
            .filter(|key| !self.under_way.contains(*key))
            .cloned()
            .collect();
        let total = waiting.len() + self.messages.len();
        if total == 0 {
            return;
        }
        let index = index % total;
        let Some(key) = waiting.get(index) else {
            let message = self.messages.remove(index - waiting.len());
            self.send(message);
            return;
        };
        let effect = self.outbox[key].clone();
        // One call in five is made and its answer lost: the effect stays, to be carried out again.
        let lost = luck % 5 == 4;
        match self.carry_out_durable(effect, luck, lost) {
            Some(_) if lost => {}
            Some(answer) => {
                self.under_way.insert(key.clone());
                self.answers.push((key.clone(), answer));
            }
            None => {
                self.outbox.remove(key);
            }
        }
    }

    fn carry_out_durable(&mut self, effect: Effect, luck: u8, lost: bool) -> Option<Event> {
        self.log
            .push(format!("{} effect {effect:?} with luck {luck}", self.now));
        match effect {
            Effect::Launch { launch, .. } => {
                assert!(
                    self.runners.contains_key(&launch),
                    "invariant 2: launch before its intent"
                );
                if luck % 7 == 6 && !self.launched.contains_key(&launch) {
                    let failure = LaunchFailure::Capacity;
                    return Some(Event::LaunchFailed {
                        launch,
                        failure,
                        detail: "none left".into(),
                    });
                }
                Some(self.launch(launch))
            }
            Effect::Mint { launch, name, .. } => Some(self.mint(launch, name, lost)),
            Effect::Deregister { launch, name, .. } => {
                let answer = match self.registrations.get(&name) {
                    None => DeregisterAnswer::Absent,
                    Some(registration) if registration.job.is_some() && !luck.is_multiple_of(3) => {
                        DeregisterAnswer::Busy
                    }
                    // GitHub's view lags: 204 though a job was just given.
                    Some(_) => {
                        self.registrations.remove(&name);
                        DeregisterAnswer::Deleted
                    }
                };
                Some(Event::Deregistered {
                    launch,
                    name,
                    answer,
                })
            }
            Effect::Terminate {
                launch, instance, ..
            } => {
                self.remove_instance(&instance);
                Some(Event::Terminated {
                    launch,
                    gone: luck.is_multiple_of(2),
                })
            }
            Effect::TerminateStray { instance, .. } => {
                let (launch, _) = self.instances.get(&instance)?;
                let known = self.fleet.runner(launch);
                assert!(
                    known.is_none_or(|runner| runner.instance_id() != Some(&instance)
                        || runner.instance_is_gone()),
                    "invariant 5: {instance} is in the ledger"
                );
                self.remove_instance(&instance);
                None
            }
            Effect::Assign { .. } | Effect::Drain { .. } | Effect::Retire { .. } => unreachable!(),
        }
    }

    fn launch(&mut self, launch: LaunchId) -> Event {
        let instance = InstanceId::new(format!("i-{launch}"));
        // The client token: the same launch twice makes one instance.
        if self
            .launched
            .insert(launch.clone(), instance.clone())
            .is_none()
        {
            self.instances
                .insert(instance.clone(), (launch.clone(), self.now));
            let host = Host {
                launch: launch.clone(),
                phase: Phase::Booting,
                connected: false,
                assignment: None,
                drained_at: None,
            };
            self.hosts.insert(instance.clone(), host);
        }
        Event::Launched { launch, instance }
    }

    fn mint(&mut self, launch: LaunchId, name: RunnerName, lost: bool) -> Event {
        let stored = self
            .runners
            .get(&launch)
            .expect("invariant 2: mint before its launch");
        assert!(
            stored.name == name || stored.attempt > 1,
            "invariant 2: {name} was not stored before its call"
        );
        if self.registrations.contains_key(&name) {
            let failure = MintFailure::NameTaken;
            return Event::MintFailed {
                launch,
                name,
                failure,
                detail: "name exists".into(),
            };
        }
        self.next_id += 1;
        let id = GithubRunnerId(self.next_id);
        let registration = Registration {
            launch: launch.clone(),
            job: None,
        };
        self.registrations.insert(name.clone(), registration);
        if !lost {
            self.vault.insert((launch.clone(), name.clone()));
        }
        Event::Minted { launch, name, id }
    }

    fn send(&mut self, message: Effect) {
        match message {
            Effect::Assign { launch, name } => {
                let host = self
                    .hosts
                    .values_mut()
                    .find(|h| h.launch == launch && h.connected);
                let Some(host) = host else { return };
                if !self.vault.remove(&(launch.clone(), name.clone())) {
                    self.events.push(Event::AssignmentLost { launch, name });
                    return;
                }
                assert!(
                    host.assignment.is_none(),
                    "invariant 1: a second assignment"
                );
                assert!(
                    self.assigned.insert(launch.clone()),
                    "invariant 8: it went twice"
                );
                host.assignment = Some(name.clone());
                host.phase = Phase::Starting;
                self.events.push(Event::AssignmentAccepted { launch, name });
            }
            Effect::Drain { launch, .. } => self.look(&launch, false),
            Effect::Retire { launch, .. } => self.look(&launch, true),
            _ => unreachable!(),
        }
    }

    /// The host looks at its runner; if it is idle and retired, it stops.
    fn look(&mut self, launch: &LaunchId, retired: bool) {
        let Some(host) = self
            .hosts
            .values_mut()
            .find(|h| h.launch == *launch && h.connected)
        else {
            return;
        };
        let idle = !matches!(host.phase, Phase::Running(_));
        if retired && idle {
            host.phase = Phase::Done;
            let outcome = Outcome::Unused;
            let launch = launch.clone();
            self.events.push(Event::Finished {
                launch,
                outcome,
                reason: "unused".into(),
            });
        } else {
            host.drained_at.get_or_insert(self.now);
            self.events.push(Event::DrainReported {
                launch: launch.clone(),
                idle,
            });
        }
    }

    fn host_step(&mut self, index: usize) {
        let Some(id) = pick_key(&self.hosts, index) else {
            return;
        };
        let host = self.hosts.get_mut(&id).unwrap();
        let launch = host.launch.clone();
        match host.phase.clone() {
            Phase::Booting => {
                host.phase = Phase::Enrolled;
                self.apply(Event::Enrolled {
                    launch,
                    instance: id,
                });
            }
            Phase::Enrolled => {
                host.phase = Phase::Connected;
                self.connect(&id);
            }
            _ if !host.connected => self.connect(&id),
            Phase::Connected | Phase::Done => {}
            Phase::Starting => {
                host.phase = Phase::Listening;
                let phase = HostPhase::Listening;
                self.events.push(Event::PhaseChanged {
                    launch,
                    phase,
                    job_name: None,
                });
            }
            Phase::Listening => self.give_job(&id),
            Phase::Running(job) => self.finish_job(&id, job),
        }
    }

    fn connect(&mut self, id: &InstanceId) {
        let host = self.hosts.get_mut(id).unwrap();
        host.connected = true;
        let phase = match host.phase {
            Phase::Booting | Phase::Enrolled | Phase::Connected => HostPhase::Unassigned,
            Phase::Starting => HostPhase::Starting,
            Phase::Listening => HostPhase::Listening,
            Phase::Running(_) => HostPhase::Running,
            Phase::Done => HostPhase::Finished,
        };
        let launch = host.launch.clone();
        let assignment = host.assignment.clone();
        let finished = host.phase == Phase::Done;
        self.apply(Event::AgentConnected {
            launch: launch.clone(),
            phase,
            assignment,
        });
        if finished {
            let outcome = Outcome::Unused;
            self.events.push(Event::Finished {
                launch,
                outcome,
                reason: "sent again".into(),
            });
        }
    }

    fn disconnect(&mut self, id: &InstanceId) {
        let host = self.hosts.get_mut(id).unwrap();
        if std::mem::take(&mut host.connected) {
            let launch = host.launch.clone();
            self.apply(Event::AgentLost { launch });
        }
    }

    fn give_job(&mut self, id: &InstanceId) {
        let host = &self.hosts[id];
        let name = host.assignment.clone().unwrap();
        let Some(registration) = self.registrations.get_mut(&name) else {
            // The poll says that the registration is gone: the runner ends unused.
            let launch = host.launch.clone();
            self.hosts.get_mut(id).unwrap().phase = Phase::Done;
            let outcome = Outcome::Unused;
            self.events.push(Event::Finished {
                launch,
                outcome,
                reason: "deleted".into(),
            });
            return;
        };
        let pool = self.runners[&registration.launch].pool.to_string();
        let Some(job) = self
            .github_jobs
            .values_mut()
            .find(|job| job.status == JobStatus::Queued && job.labels.contains(&pool))
        else {
            return;
        };
        job.status = JobStatus::InProgress;
        job.runner_name = Some(name.to_string());
        job.started_at = Some(self.now);
        registration.job = Some(job.id);
        self.events.push(Event::Job(Box::new(job.clone())));
        let launch = host.launch.clone();
        let job_id = job.id;
        self.hosts.get_mut(id).unwrap().phase = Phase::Running(job_id);
        let phase = HostPhase::Running;
        self.events.push(Event::PhaseChanged {
            launch,
            phase,
            job_name: None,
        });
    }

    fn finish_job(&mut self, id: &InstanceId, job: JobId) {
        let host = self.hosts.get_mut(id).unwrap();
        host.phase = Phase::Done;
        let launch = host.launch.clone();
        self.registrations.remove(host.assignment.as_ref().unwrap());
        if self.github_jobs[&job].status != JobStatus::Completed {
            self.conclude(job, "success");
        }
        let outcome = Outcome::Succeeded;
        self.events.push(Event::Finished {
            launch,
            outcome,
            reason: "done".into(),
        });
    }

    fn remove_instance(&mut self, id: &InstanceId) {
        if let Some((launch, _)) = self.instances.remove(id)
            && launch.as_str() < "m"
        {
            // The providers tell of some ends by themselves; the others are found by listing.
            self.events.push(Event::InstanceGone {
                launch,
                instance: id.clone(),
            });
        }
        if let Some(host) = self.hosts.remove(id) {
            if let Phase::Running(job) = host.phase {
                self.conclude(job, "failure");
                // GitHub gives up a dead runner's job, and then its registration.
                self.registrations.remove(host.assignment.as_ref().unwrap());
            }
            if host.connected {
                self.apply(Event::AgentLost {
                    launch: host.launch,
                });
            }
        }
    }

    fn list(&mut self) {
        let alive = self
            .instances
            .iter()
            .map(|(id, (launch, _))| (id.clone(), Some(launch.clone())))
            .collect();
        self.apply(Event::InstancesListed {
            account: "local".into(),
            alive,
        });
    }

    /// Kills the process at this point and starts it from what was stored.
    fn crash(&mut self) {
        self.seed += 1;
        self.messages.clear();
        self.vault.clear();
        // Answers that were not taken are lost, and their effects are carried out again. Agents keep
        // their events until acknowledged; GitHub does not keep webhooks.
        self.answers.clear();
        self.under_way.clear();
        self.events
            .retain(|event| !matches!(event, Event::Job(_) | Event::AssignmentLost { .. }));
        for host in self.hosts.values_mut() {
            host.connected = false;
        }
        let stored = Stored {
            jobs: self.jobs.values().cloned().collect(),
            runners: self.runners.values().cloned().collect(),
            pools: self.pools.clone(),
        };
        self.fleet = Fleet::restore(self.spec.clone(), stored, self.seed);
        self.apply(Event::Restarted);
    }

    /// Lets the world go on without faults until nothing is left to do, then checks the end.
    pub(crate) fn settle(&mut self) {
        self.apply(Event::OperatorPause {
            pool: "linux".into(),
            paused: None,
        });
        for _ in 0..120 {
            self.list();
            self.now = self.now.checked_add(Duration::from_secs(30)).unwrap();
            self.apply(Event::Tick);
            // Reconciliation: GitHub's view of each job is read again.
            let news: Vec<JobReport> = self
                .github_jobs
                .values()
                .filter(|job| {
                    self.fleet
                        .job(job.id)
                        .is_none_or(|known| known.status() < job.status)
                })
                .cloned()
                .collect();
            for report in news {
                self.apply(Event::Job(Box::new(report)));
            }
            while !(self.outbox.is_empty()
                && self.messages.is_empty()
                && self.events.is_empty()
                && self.answers.is_empty())
            {
                self.carry_out(0, 2);
                self.deliver(0);
            }
            for index in 0..self.hosts.len() {
                self.host_step(index);
            }
        }
        self.check_end();
    }

    /// What happened to a launch, for the message of a failed check.
    fn story(&self, launch: &LaunchId) -> String {
        let lines = self
            .log
            .iter()
            .filter(|line| line.contains(launch.as_str()));
        lines.cloned().collect::<Vec<_>>().join("\n")
    }

    fn check_end(&self) {
        for job in self.fleet.jobs() {
            if job.status() == JobStatus::Completed {
                continue;
            }
            let explanation = self.fleet.explain(job.id(), self.now).unwrap();
            assert!(
                job.pool().is_none() && explanation.pools.iter().all(|v| !v.reason.is_empty()),
                "invariant 4: {} was neither served nor explained: {explanation:?}",
                job.id()
            );
        }
        for (instance, (launch, born)) in &self.instances {
            let age = self.now.duration_since(*born);
            assert!(
                Duration::try_from(age).unwrap() <= LIFETIME + Duration::from_secs(120),
                "invariant 5: {instance} is {age:?} old"
            );
            let runner = self
                .fleet
                .runner(launch)
                .expect("invariant 5: not in the ledger");
            assert!(
                matches!(
                    runner.work,
                    Work::Idle | Work::Starting | Work::Assigning | Work::Enrolled | Work::Booting
                ),
                "invariant 5: {instance} is still there: {runner:?}"
            );
        }
        for (name, registration) in &self.registrations {
            let runner = self.fleet.runner(&registration.launch);
            assert!(
                runner.is_some_and(|runner| runner.name == *name && runner.stage() < Stage::Ending),
                "registration {name} was left: {runner:?}\n{}",
                self.story(&registration.launch)
            );
        }
    }
}

fn pick<T>(items: &[T], index: usize) -> Option<&T> {
    if items.is_empty() {
        None
    } else {
        items.get(index % items.len())
    }
}

fn take<T>(items: &mut Vec<T>, index: usize) -> Option<T> {
    if items.is_empty() {
        None
    } else {
        Some(items.remove(index % items.len()))
    }
}

fn pick_key<K: Clone + Ord, V>(map: &BTreeMap<K, V>, index: usize) -> Option<K> {
    if map.is_empty() {
        None
    } else {
        map.keys().nth(index % map.len()).cloned()
    }
}
