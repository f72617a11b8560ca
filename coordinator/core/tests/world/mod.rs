//! A small world around the fleet: a provider, GitHub, hosts, a store and an outbox, all of which
//! lose, double and reorder. It checks at each step what must always hold.

mod checks;
mod github;
mod hosts;
mod losses;
mod outbox;
mod settle;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use muster_core::{
    CanaryRules, DeregisterAnswer, Effect, Event, Fleet, FleetSpec, GithubRunnerId, HostPhase,
    ImageId, InstanceId, Interruption, JobId, JobReport, JobStatus, LaunchFailure, LaunchId,
    Marked, Market, MintFailure, Offering, Origin, Outcome, PoolName, PoolSpec, Repository,
    RerunAnswer, RerunPolicy, RunAttempt, RunSeen, Runner, RunnerName, Scope, Sign, SizeRules,
    Stage, Stored, TimeLimits, Trouble, Work,
};

pub(crate) const POOL_MAX: u32 = 3;
pub(crate) const ACCOUNT_MAX: u32 = 4;
/// How often one job may be run again.
const RERUNS: u32 = 1;
pub(crate) const LIFETIME: Duration = Duration::from_secs(1200);

/// Judged soon, so that lives see it stopped.
const CANARY: CanaryRules = CanaryRules {
    share: 50,
    least: 2,
    margin: 10,
};

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
    Warn(usize),
    OperatorDrain(usize),
    OperatorTerminate(usize),
    Distrust(usize),
    Pause(bool),
    /// Tells of the pool's own image and its canary.
    Images(u8, u8),
    List,
    Tick(u16),
    Crash,
    /// The process crashes, and its store is lost.
    LoseStore,
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
    /// The pool of each instance, as its tags say.
    tags: BTreeMap<LaunchId, PoolName>,
    /// Launches that the store knew before it was lost.
    lost: BTreeSet<LaunchId>,
    /// Every launch with a part in a trial, as it was last.
    trialed: BTreeMap<LaunchId, Runner>,
    /// Registrations of then whose agents have not come back. GitHub removes them after a day.
    lost_registrations: BTreeSet<RunnerName>,
    /// The newest attempt of each run, and how often we asked for one.
    attempts: BTreeMap<i64, u32>,
    reruns: BTreeMap<(i64, String), u32>,
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
        rerun: Some(RerunPolicy {
            attempts: RERUNS,
            market: Some(Market::OnDemand),
        }),
        canary: (name == "linux").then_some(CANARY),
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
            tags: BTreeMap::new(),
            lost: BTreeSet::new(),
            trialed: BTreeMap::new(),
            lost_registrations: BTreeSet::new(),
            attempts: BTreeMap::new(),
            reruns: BTreeMap::new(),
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
        for launch in &changes.runners {
            let runner = self.fleet.runner(launch).unwrap();
            if runner.trialed.is_some() {
                self.trialed.insert(launch.clone(), runner.clone());
            }
        }
        for effect in changes.effects {
            if let Effect::Launch { pool, image, .. } = &effect
                && let Some(image) = image
            {
                let trial = self.fleet.pool_state(pool).trial.unwrap();
                assert_eq!((&trial.image, trial.stopped), (image, None), "{effect:?}");
            }
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
                        detail: String::new(),
                    });
                }
            }
            Step::Warn(index) => {
                if let Some(host) = pick_key(&self.hosts, index).and_then(|id| self.hosts.get(&id))
                {
                    self.events.push(Event::Troubled {
                        launch: host.launch.clone(),
                        kind: Trouble::Memory,
                        detail: "test".into(),
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
            Step::Distrust(index) => {
                if let Some(launch) = pick_key(&self.runners, index) {
                    self.apply(Event::Distrusted {
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
            Step::Images(own, canary) => self.apply(Event::ImagesKnown {
                pool: "linux".into(),
                own: (own > 0).then(|| ImageId::new(format!("ami-{own}"))),
                canary: (canary > 0).then(|| ImageId::new(format!("ami-{canary}"))),
            }),
            Step::List => self.list(),
            Step::Tick(seconds) => {
                self.now = self
                    .now
                    .checked_add(Duration::from_secs(seconds.into()))
                    .unwrap();
                self.apply(Event::Tick);
            }
            Step::Crash => self.crash(),
            Step::LoseStore => self.lose_store(),
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
