//! The world that all share: chance, time, and what is alive.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::cloud::Instances;
use super::disk::Disk;
use super::github::Github;
use super::judge::Judge;
use super::life::Process;
use super::plan::Plan;

/// When every simulation begins.
pub(super) const BEGIN: i64 = 1_800_000_000;
/// Lines of the story that a failure prints.
const TOLD: usize = 400;

/// The world. Cheap to clone.
#[derive(Clone)]
pub(super) struct World {
    state: Arc<Mutex<State>>,
    /// Which start of the coordinator is alive; 0 if none is.
    life: Arc<AtomicU64>,
    /// Another start is alive, or none any more. Not a `watch`, which wakes those who wait in an order of chance.
    changed: Arc<Notify>,
    /// Something happened that somebody may wait for.
    pub(super) news: Arc<Notify>,
    began: Instant,
}

/// All that is.
pub(super) struct State {
    rng: SmallRng,
    pub(super) plan: Plan,
    pub(super) disk: Disk,
    pub(super) github: Github,
    pub(super) cloud: Instances,
    pub(super) judge: Judge,
    /// The coordinator, while it serves.
    pub(super) process: Option<Process>,
    /// Until when the store, GitHub and the cloud don't answer.
    pub(super) outage: Outages,
    story: VecDeque<String>,
    /// Where all of it goes, if somebody wants it.
    written: Option<File>,
    /// Sums up the story, to compare two runs of one seed.
    pub(super) digest: u64,
    pub(super) lines: u64,
    pub(super) lives: u64,
}

/// What is out of order until when.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outages {
    pub(super) store: Option<Instant>,
    pub(super) github: Option<Instant>,
    pub(super) cloud: Option<Instant>,
}

/// One of the three that the coordinator calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Store,
    Github,
    Cloud,
}

/// How a call goes on its way there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is done and answered.
    Done,
    /// It is not done.
    Failed,
    /// It is done, and the answer is lost.
    Unanswered,
}

impl State {
    /// True with this chance.
    pub(super) fn chance(&mut self, of_one: f64) -> bool {
        of_one > 0.0 && self.rng.random::<f64>() < of_one
    }

    /// A number below a bound.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.rng.random_range(0..bound.max(1))
    }

    /// A time between two, in milliseconds.
    pub(super) fn between(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(least..=most.max(least)))
    }

    /// Adds a line to the story.
    pub(super) fn tell(&mut self, line: String) {
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.lines += 1;
        if let Some(file) = &mut self.written {
            writeln!(file, "{line}").unwrap();
        }
        if self.story.len() == TOLD {
            self.story.pop_front();
        }
        self.story.push_back(line);
    }

    /// The last of the story.
    pub(super) fn story(&self) -> String {
        let lines: Vec<&str> = self.story.iter().map(String::as_str).collect();
        lines.join("\n")
    }

    fn out_of_order(&self, service: Service) -> bool {
        let until = match service {
            Service::Store => self.outage.store,
            Service::Github => self.outage.github,
            Service::Cloud => self.outage.cloud,
        };
        until.is_some_and(|until| Instant::now() < until)
    }
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                rng: SmallRng::seed_from_u64(seed),
                plan,
                disk: Disk::default(),
                github: Github::default(),
                cloud: Instances::default(),
                judge: Judge::default(),
                process: None,
                outage: Outages::default(),
                story: VecDeque::new(),
                written: std::env::var_os("MUSTER_SIMULATION_STORY")
                    .map(|path| File::create(path).unwrap()),
                digest: 0xcbf2_9ce4_8422_2325,
                lines: 0,
                lives: 0,
            })),
            life: Arc::default(),
            changed: Arc::default(),
            news: Arc::default(),
            began: Instant::now(),
        }
    }

    /// The state; held for a moment, never over an await.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The true time: the coordinator's may be another.
    pub(super) fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.began.elapsed()).unwrap_or_default();
        Timestamp::from_second(BEGIN)
            .and_then(|begin| begin.checked_add(passed))
            .unwrap_or(Timestamp::MAX)
    }

    /// Adds a line to the story, with the time.
    pub(super) fn tell(&self, line: impl AsRef<str>) {
        let at = self.began.elapsed().as_millis();
        self.lock().tell(format!("{at:>9} {}", line.as_ref()));
    }

    /// Something must never be, and is.
    pub(super) fn violated(&self, what: &str) {
        self.tell(format!("VIOLATED {what}"));
        self.lock().judge.violated(what);
        self.news.notify_waiters();
    }

    pub(super) fn life(&self) -> u64 {
        self.life.load(Ordering::Relaxed)
    }

    /// Waits until another start is alive than this one, or none.
    pub(super) async fn ended(&self, life: u64) -> u64 {
        loop {
            let changed = self.changed.notified();
            let now = self.life();
            if now != life {
                return now;
            }
            changed.await;
        }
    }

    pub(super) fn set_life(&self, life: u64) {
        if life > 0 {
            self.lock().lives += 1;
        }
        self.life.store(life, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Kills the coordinator, here and now: nothing that it has begun goes on.
    pub(super) fn kill(&self, why: &str) {
        let life = self.life();
        if life == 0 {
            return;
        }
        self.set_life(0);
        let mut state = self.lock();
        state.process = None;
        state.disk.crash();
        drop(state);
        self.tell(format!("life {life} killed {why}"));
    }

    /// A point at which the coordinator awaits the world, and may be killed. Takes its time. Of a process that
    /// is dead nothing comes back.
    pub(super) async fn pause(&self, life: u64, what: &str) {
        let wait = {
            let mut state = self.lock();
            let kill = state.plan.kill;
            if self.life() != life {
                None
            } else if state.chance(kill) {
                drop(state);
                self.kill(what);
                None
            } else {
                let slow = state.plan.slow;
                Some(if state.chance(slow) {
                    state.between(500, 20_000)
                } else {
                    state.between(1, 30)
                })
            }
        };
        match wait {
            Some(wait) => tokio::time::sleep(wait).await,
            None => std::future::pending().await,
        }
        if self.life() != life {
            std::future::pending::<()>().await;
        }
    }

    /// What becomes of a call that has come as far as the service.
    pub(super) fn fate(&self, service: Service) -> Fate {
        let mut state = self.lock();
        let (fail, lose) = (state.plan.fail, state.plan.lose_answer);
        if state.out_of_order(service) || state.chance(fail) {
            Fate::Failed
        } else if state.chance(lose) {
            Fate::Unanswered
        } else {
            Fate::Done
        }
    }

    /// Waits for a time between two, in milliseconds.
    pub(super) async fn rest(&self, least: u64, most: u64) {
        let wait = self.lock().between(least, most);
        tokio::time::sleep(wait).await;
    }

    /// Waits until something is so.
    pub(super) async fn until<T>(&self, look: impl Fn(&mut State) -> Option<T>) -> T {
        loop {
            let news = self.news.notified();
            if let Some(found) = look(&mut self.lock()) {
                return found;
            }
            news.await;
        }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}
