//! One run: jobs come, disasters strike, and in the end it is calm and all must be right.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use muster_core::{
    FleetSpec, InstanceId, Interruption, Market, PoolSpec, RerunPolicy, Scope, SizeRules,
    TimeLimits,
};
use tokio::time::Instant;

use super::github::{self, OWNER};
use super::host::{self, News};
use super::judge;
use super::life;
use super::plan::Plan;
use super::world::{BEGIN, World};
use super::{cloud, world};
use crate::{chance, clock};

pub(super) const ACCOUNT: &str = "cloud";
pub(super) const REGION: &str = "eu-west-1";
/// Name and label, runners that wait, and the most that there may be.
pub(super) const POOLS: [(&str, u32, u32); 2] = [("linux", 2, 14), ("big", 0, 6)];
pub(super) const ACCOUNT_MAX: u32 = 18;
/// How often one job is run again.
pub(super) const RERUNS: u32 = 1;
pub(super) const LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);
/// How long all may take to come to rest when no fault happens any more.
const SETTLES: Duration = Duration::from_secs(6 * 60 * 60);

/// What came of a run.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) seed: u64,
    pub(super) violations: Vec<String>,
    pub(super) story: String,
    /// Two runs with the same digest went the same way.
    pub(super) digest: u64,
    pub(super) lines: u64,
    pub(super) jobs: usize,
    pub(super) instances: usize,
    pub(super) reruns: u64,
    pub(super) lives: u64,
    /// How long it was, in the simulation's own time.
    pub(super) lasted: Duration,
}

/// The fleet that is simulated.
pub(super) fn fleet() -> FleetSpec {
    let pools = POOLS.iter().map(|(name, idle, most)| PoolSpec {
        name: (*name).into(),
        scope: Scope::Organization(OWNER.to_owned()),
        runner_group: "Default".to_owned(),
        labels: BTreeSet::from(["self-hosted".to_owned(), (*name).to_owned()]),
        sizes: SizeRules::default(),
        public_repositories: false,
        account: ACCOUNT.into(),
        min_idle: *idle,
        max: *most,
        limits: TimeLimits {
            lifetime: LIFETIME,
            ..TimeLimits::default()
        },
        rerun: Some(RerunPolicy {
            attempts: RERUNS,
            market: Some(Market::OnDemand),
        }),
        canary: None,
    });
    FleetSpec {
        pools: pools.collect(),
        accounts: [(ACCOUNT.into(), ACCOUNT_MAX)].into(),
    }
}

/// Plays one run to its end, or to the first thing that must never be.
pub(super) fn run(seed: u64, jobs: usize, plan: Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        chance::seeded::start(seed);
        clock::simulated::start(Timestamp::from_second(BEGIN).unwrap());
        let began = Instant::now();
        let world = World::new(seed, plan);
        play(&world, jobs).await;
        let state = world.lock();
        Outcome {
            seed,
            violations: state.judge.violations().to_vec(),
            story: state.story(),
            digest: state.digest,
            lines: state.lines,
            jobs: state.github.jobs.len(),
            instances: state.cloud.all.len(),
            reruns: state.judge.interrupted,
            lives: state.lives,
            lasted: began.elapsed(),
        }
    })
}

async fn play(world: &World, jobs: usize) {
    let coordinator = tokio::spawn(life::supervise(world.clone()));
    let wrong = world.until(|state| (!state.judge.violations().is_empty()).then_some(()));
    let all = async {
        tokio::select! {
            biased;
            () = traffic(world, jobs) => {}
            () = disasters(world) => {}
        }
        calm(world);
        let deadline = Instant::now() + SETTLES;
        while Instant::now() < deadline && !judge::is_settled(&world.lock()) {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        judge::judge_end(world);
    };
    tokio::select! {
        biased;
        () = wrong => {}
        () = all => {}
    }
    coordinator.abort();
}

fn calm(world: &World) {
    world.tell("calm");
    let mut state = world.lock();
    state.plan = state.plan.calm();
    state.outage = world::Outages::default();
}

/// Pushes until there were so many jobs.
async fn traffic(world: &World, jobs: usize) {
    let mut made = 0;
    while made < jobs {
        world.rest(1_000, 14_000).await;
        let (count, label, cancelled) = {
            let mut state = world.lock();
            let burst = state.chance(0.01);
            let count = if burst { 20 } else { 1 + state.below(3) };
            let label = POOLS[usize::from(state.chance(0.25))].0;
            let cancelled = state.plan.job_cancelled;
            (count.min(jobs - made), label, state.chance(cancelled))
        };
        made += count;
        let first = world.lock().github.jobs.len();
        github::push(world, count, label);
        if cancelled {
            let id = world.lock().github.jobs.keys().nth(first).copied();
            let world = world.clone();
            tokio::spawn(async move {
                world.rest(0, 60_000).await;
                github::cancel(&world, id.unwrap_or_default());
            });
        }
    }
}

/// Kinds of larger faults.
const KINDS: usize = 13;
/// From here on it is hosts that they are of.
const HOSTS: usize = 7;
/// A process that is killed, and what it calls.
const OUTAGES: [usize; 4] = [0, 3, 4, 5];

/// Larger faults, one after the other.
async fn disasters(world: &World) {
    loop {
        let every = world.lock().plan.disaster_every;
        let every = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        world.rest(every / 10, every * 2).await;
        let (which, lasts) = {
            let mut state = world.lock();
            let taken = state.plan.taken;
            let most = u64::try_from(state.plan.outage.as_millis()).unwrap_or(u64::MAX);
            let which = match state.chance(taken) {
                _ if state.plan.outages_only => OUTAGES[state.below(OUTAGES.len())],
                true => HOSTS + state.below(KINDS - HOSTS),
                false => state.below(KINDS),
            };
            (which, state.between(1_000, most))
        };
        let until = Some(Instant::now() + lasts);
        match which {
            0 | 1 => world.kill("by a disaster"),
            2 => {
                world.tell("SIGTERM");
                let process = world.lock().process.clone();
                if let Some(process) = process {
                    process.terminate();
                }
            }
            3 => {
                world.tell(format!("the store is out of order for {lasts:?}"));
                world.lock().outage.store = until;
            }
            4 => {
                world.tell(format!("GitHub is out of order for {lasts:?}"));
                world.lock().outage.github = until;
            }
            5 => {
                world.tell(format!("the cloud is out of order for {lasts:?}"));
                world.lock().outage.cloud = until;
            }
            6 => jump(world),
            HOSTS => cut_off(world),
            8 | 9 => {
                if let Some(id) = some_instance(world) {
                    cloud::interrupt(world, &id, Interruption::Spot);
                }
            }
            10 => {
                if let Some(id) = some_instance(world) {
                    cloud::interrupt(world, &id, Interruption::Rebalance);
                }
            }
            11 => {
                if let Some(id) = some_instance(world) {
                    world.tell(format!("{} hangs", id.as_str()));
                    host::tell(world, &id, News::Hangs);
                }
            }
            _ => {
                if let Some(id) = some_instance(world) {
                    cloud::end(world, &id, "vanished");
                }
            }
        }
    }
}

fn some_instance(world: &World) -> Option<InstanceId> {
    let mut state = world.lock();
    let alive: Vec<InstanceId> = state.cloud.alive().map(|(id, _)| id.clone()).collect();
    let at = state.below(alive.len());
    alive.get(at).cloned()
}

/// Some hosts can't reach the coordinator for up to 25 minutes, which is longer than any limit of silence.
fn cut_off(world: &World) {
    let (hosts, lasts) = {
        let mut state = world.lock();
        let all: Vec<InstanceId> = state.judge.hosts.keys().cloned().collect();
        let some = all.into_iter().filter(|_| state.chance(0.4));
        let some: Vec<_> = some.collect();
        let long = state.chance(0.2);
        let most = if long { 1_500_000 } else { 90_000 };
        (some, state.between(2_000, most))
    };
    world.tell(format!("{} hosts are cut off for {lasts:?}", hosts.len()));
    for id in hosts {
        host::tell(world, &id, News::CutOff(lasts));
    }
}

/// The coordinator's clock jumps; it never strays further than twice the longest jump.
fn jump(world: &World) {
    let most = world.lock().plan.clock_jump;
    let strayed = clock::now().duration_since(world.now()).as_secs();
    let by = {
        let mut state = world.lock();
        let span = usize::try_from(2 * most + 1).unwrap_or(1);
        i64::try_from(state.below(span)).unwrap_or(0) - most
    };
    let by = if strayed.abs() > most { -strayed } else { by };
    world.tell(format!("the coordinator's clock jumps by {by} s"));
    clock::simulated::jump(SignedDuration::from_secs(by));
}
