//! One agent, from its instance's start to its end.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_proto::v1::RunnerPhase;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::board::Shared;
use super::enrol::enrol;
use super::ground::{Ground, Orders, Season, WORKING_POOL};
use super::host::{News, Todo};
use super::identity::Identity;
use super::job::Runner;
use super::plan::{random_of, up_to};
use super::sample::Machine;
use super::stream::{End, Link};
use crate::fakes::aws::Instance;

// As the agent has them (`agent/src/session/keeper.rs`).
const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(5);
const DENIED_WAIT: Duration = Duration::from_secs(30);

/// The longest boot.
const BOOT: Duration = Duration::from_millis(500);
/// The longest start of a runner.
const START: Duration = Duration::from_millis(300);
/// News that may wait for an agent; a runner has fewer in all its life.
const NEWS: usize = 8;
/// How often an agent that storms comes back at once.
const TIMES: u32 = 5;
/// Names the pool of an instance.
const TAG_POOL: &str = "muster:pool";

/// One agent.
pub(super) struct Agent {
    pub(super) ground: Arc<Ground>,
    pub(super) instance: Instance,
    pub(super) host: Shared,
    pub(super) random: StdRng,
    pub(super) identity: Identity,
    pub(super) machine: Machine,
    pub(super) beat: Duration,
    pub(super) news: (mpsc::Sender<News>, mpsc::Receiver<News>),
    pub(super) orders: watch::Receiver<Orders>,
    /// The orders that were carried out.
    pub(super) done: Orders,
    pub(super) season: watch::Receiver<Season>,
    pub(super) backoff: Backoff,
    /// When it first said hello.
    pub(super) introduced: Option<Instant>,
    /// Connections that carry nothing any more, and are open.
    ghosts: Vec<Link>,
    /// How often it comes back at once still.
    storms: u32,
    stop_runner: CancellationToken,
    /// The runner, once there is one.
    runner: JoinSet<()>,
}

/// Lives the life of an agent until the instance is ended.
pub(super) async fn live(ground: Arc<Ground>, instance: Instance, host: Shared, number: u64) {
    let mut random = random_of(ground.plan.seed, number);
    sleep(up_to(&mut random, BOOT)).await;
    // Never closed.
    let turn = ground.turns.acquire().await;
    let enrolled = enrol(&ground, &instance, &mut random).await;
    drop(turn);
    let identity = match enrolled {
        Ok(identity) => identity,
        Err(error) => {
            host.lock().wrong.push(format!("{error:#}"));
            return;
        }
    };
    host.lock().enrolled_at = Some(Timestamp::now());
    let mut orders = ground.orders.subscribe();
    let done = *orders.borrow_and_update();
    let agent = Agent {
        beat: ground.plan.heartbeat,
        done,
        orders,
        season: ground.season.subscribe(),
        instance,
        host,
        random,
        identity,
        machine: Machine::default(),
        news: mpsc::channel(NEWS),
        backoff: Backoff::new(BACKOFF_BASE, BACKOFF_CAP),
        introduced: None,
        ghosts: Vec::new(),
        storms: 0,
        stop_runner: CancellationToken::new(),
        runner: JoinSet::new(),
        ground,
    };
    Box::pin(agent.serve()).await;
}

impl Agent {
    /// Holds a stream, and another one whenever it ends.
    async fn serve(mut self) {
        loop {
            let (end, link) = self.stream().await;
            self.host.lock().connected = false;
            self.ground.figures.ended(format!("stream: {end}"));
            let wait = self.after(end, link);
            if self.is_done() {
                // As the agent does once its last word was heard. The end of the instance ends this task.
                self.ground.aws.power_off(&self.instance.id);
                return std::future::pending().await;
            }
            sleep(wait).await;
            while let Ok(news) = self.news.1.try_recv() {
                self.host.lock().heard(news);
            }
        }
    }

    /// How long the next stream waits.
    fn after(&mut self, end: End, link: Option<Link>) -> Duration {
        match end {
            End::Renewed(identity) => {
                self.identity = *identity;
                Duration::ZERO
            }
            End::Ordered => Duration::ZERO,
            End::Reconnect(within) => up_to(&mut self.random, within),
            End::HalfOpen => {
                self.ghosts.clear();
                self.ghosts.extend(link);
                // Sometimes before the coordinator has noticed, and sometimes after.
                up_to(&mut self.random, self.beat * 4)
            }
            End::Stormed => {
                self.storms = TIMES;
                Duration::ZERO
            }
            _ if self.storms > 0 => {
                self.storms -= 1;
                Duration::ZERO
            }
            End::Denied => {
                DENIED_WAIT - DENIED_WAIT / 5 + up_to(&mut self.random, DENIED_WAIT / 5 * 2)
            }
            End::Superseded => up_to(&mut self.random, BACKOFF_CAP),
            End::NoConnection | End::NoAnswer | End::Closed | End::Vanished | End::Failed(_) => {
                self.backoff.next(&mut self.random)
            }
        }
    }

    /// Whether it closes its stream at once, as often as it does that in a row.
    pub(super) fn storms_on(&mut self) -> bool {
        let storms = self.storms > 0;
        self.storms = self.storms.saturating_sub(1);
        storms
    }

    /// Whether its work is over and all that it had to say was heard.
    pub(super) fn is_done(&self) -> bool {
        let host = self.host.lock();
        host.phase == RunnerPhase::Finished && host.is_heard()
    }

    /// Carries out what follows from a message.
    pub(super) fn carry_out(&mut self, todo: Todo) -> Result<(), End> {
        match todo {
            Todo::Nothing => {}
            Todo::Start(jit_config) => {
                if let Some(introduced) = self.introduced {
                    self.ground.figures.assignment.add(introduced.elapsed());
                }
                self.start(jit_config);
            }
            Todo::Stop if self.runner.is_empty() => {
                let why = "it was told to end before it had a runner";
                let outcome = muster_proto::v1::RunnerOutcome::Unused;
                self.host.lock().heard(News::Finished(outcome, why));
            }
            Todo::Stop => self.stop_runner.cancel(),
            Todo::Reconnect(within) => return Err(End::Reconnect(within)),
            Todo::Beat(interval) => self.beat = interval,
        }
        Ok(())
    }

    fn start(&mut self, jit_config: String) {
        let pool = self.instance.tags.get(TAG_POOL);
        let runner = Runner {
            ground: Arc::clone(&self.ground),
            jit_config,
            works: pool.is_some_and(|pool| pool == WORKING_POOL),
            start: up_to(&mut self.random, START),
            lasts: {
                let most = self.ground.plan.job_lasts;
                most.map(|most| up_to(&mut self.random, most))
            },
            news: self.news.0.clone(),
            stop: self.stop_runner.clone(),
        };
        self.runner.spawn(runner.run());
    }
}
