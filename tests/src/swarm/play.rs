//! From an empty fleet to the last judgement.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use muster_proto::v1::{DrainRunnerRequest, RunnerState};
use tokio::time::{Instant, sleep};

use super::complete::complete;
use super::crowd::Crowd;
use super::figures::short;
use super::ground::{Ground, LABELS, Season};
use super::kill::{kill, settle, storm};
use super::plan::{Habits, Plan, random_of};
use super::verdict;
use crate::bench::machine;
use crate::bench::process::{cpu_time, memory};
use crate::fakes::github::{Conclusion, JobId, JobSpec, Status};
use crate::world::{ORGANIZATION, wait_for};

/// How many runners an operator drains, so that instances end and others take their place.
const DRAINED: usize = 2;

/// What came of a swarm.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What is wrong; empty if all is as it should be.
    pub wrong: Vec<String>,
    /// For each kill, from `SIGKILL` until the coordinator listened again, and until all agents were back
    /// and the state was right.
    pub kills: Vec<(Duration, Duration)>,
}

/// Plays all that is planned. Figures are said as they come.
///
/// # Errors
/// When the world doesn't start, or something that is waited for does not come to be within the plan's
/// patience; the message says what.
pub async fn play(plan: &Plan, say: impl Fn(&str)) -> anyhow::Result<Outcome> {
    say(&machine::describe());
    say(&format!(
        "{} build; {} agents, {} enrolling at a time, heartbeat {:?}, certificates of {:?}, seed {}, {:?}",
        if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
        plan.agents,
        plan.enrolling,
        plan.heartbeat,
        plan.certificate_ttl,
        plan.seed,
        plan.habits,
    ));
    let ground = Arc::new(Ground::prepare(plan.clone()).await?);
    let crowd = Crowd::gather(&ground);
    let played = Scene {
        ground: &ground,
        say: &say,
        outcome: Outcome::default(),
    }
    .play()
    .await;
    let played = played.with_context(|| {
        let ends = ends(&ground);
        let log = ground.world.coordinator.log_tail();
        format!("ends of streams: {ends}\nthe coordinator's log ends with\n{log}")
    });
    crowd.end().await;
    played
}

struct Scene<'a, S> {
    ground: &'a Ground,
    say: &'a S,
    outcome: Outcome,
}

impl<S: Fn(&str)> Scene<'_, S> {
    async fn play(mut self) -> anyhow::Result<Outcome> {
        let ground = self.ground;
        let plan = &ground.plan;
        self.gather().await?;
        self.rest().await?;
        let jobs = self.begin_jobs().await?;
        if plan.habits != steady() && !plan.steady.is_zero() {
            self.run_wild().await?;
        }
        for number in 1..=plan.storms {
            let back = storm(ground).await.context("a storm")?;
            self.say(&format!("storm {number}: {back}"));
            self.say(&format!("  ends of streams: {}", ends(ground)));
        }
        let mut random = random_of(plan.seed, 0);
        for number in 1..=plan.kills {
            let killed = kill(ground, &mut random).await.context("a kill")?;
            self.say(&format!(
                "kill {number}: listening after {}; {}; {} events sent again",
                short(killed.listening),
                killed.back,
                killed.resent
            ));
            self.say(&format!("  ends of streams: {}", ends(ground)));
            self.outcome
                .kills
                .push((killed.listening, killed.back.right));
            self.wrong(killed.wrong);
        }
        self.end_jobs(&jobs).await?;
        self.drain().await?;
        self.judge().await?;
        Ok(self.outcome)
    }

    fn say(&self, line: &str) {
        (self.say)(line);
    }

    fn wrong(&mut self, wrong: Vec<String>) {
        self.outcome.wrong.extend(wrong);
    }

    fn pid(&self) -> anyhow::Result<u32> {
        let pid = self.ground.world.coordinator.pid();
        pid.context("the coordinator does not run")
    }

    async fn gather(&self) -> anyhow::Result<()> {
        let figures = &self.ground.figures;
        let (began, before) = (Instant::now(), memory(self.pid()?)?.resident);
        complete(self.ground, 0).await?;
        let after = memory(self.pid()?)?.resident;
        let agents = self.ground.plan.agents;
        let enrolling = figures.enrolling();
        self.say(&format!(
            "gathered in {}: {agents} enrolled within {}, {:.1} a second",
            short(began.elapsed()),
            short(enrolling),
            f64::from(agents) / enrolling.as_secs_f64()
        ));
        self.say(&format!("  enrolment:         {}", figures.enrolment));
        self.say(&format!("  hello to assigned: {}", figures.assignment));
        self.say(&format!("  to open a stream:  {}", figures.stream));
        self.say(&format!(
            "  coordinator: {} KiB resident, {:.1} KiB for each idle stream and its runner",
            after,
            (after.saturating_sub(before)) as f64 / f64::from(agents)
        ));
        self.say(&format!("  ends of streams: {}", ends(self.ground)));
        Ok(())
    }

    /// Nothing but heartbeats.
    async fn rest(&self) -> anyhow::Result<()> {
        let ground = self.ground;
        let beats = || ground.figures.heartbeats.load(Ordering::Relaxed);
        ground.figures.lag.clear();
        let (pid, began) = (self.pid()?, Instant::now());
        let (cpu, sent) = (cpu_time(pid)?, beats());
        sleep(ground.plan.steady).await;
        let (cpu, sent) = (cpu_time(pid)?.saturating_sub(cpu), beats() - sent);
        let took = began.elapsed();
        self.say(&format!(
            "at rest for {}: {sent} heartbeats, {} left out; coordinator {:.1} % of a core, {:.0} us a heartbeat, all else included",
            short(took),
            ground.figures.left_out.load(Ordering::Relaxed),
            cpu.as_secs_f64() / took.as_secs_f64() * 100.0,
            cpu.as_secs_f64() * 1e6 / sent.max(1) as f64,
        ));
        self.say(&format!("  heartbeats late by: {}", ground.figures.lag));
        Ok(())
    }

    async fn begin_jobs(&self) -> anyhow::Result<Vec<JobId>> {
        let ground = self.ground;
        let (_, size) = ground.pools().into_iter().next().context("no pool")?;
        let jobs = ground.plan.jobs.min(size);
        if jobs == 0 {
            return Ok(Vec::new());
        }
        ground.polling.send_replace(true);
        let repository = format!("{ORGANIZATION}/swarm");
        let queue = |number| {
            let spec = JobSpec::new(&repository, &format!("job-{number}"), &LABELS);
            ground.world.github.queue_job(spec)
        };
        let queued: Vec<JobId> = (0..jobs).map(queue).collect();
        complete(ground, queued.len()).await.context("jobs begin")?;
        self.say(&format!("{jobs} jobs run, and as many runners more wait"));
        Ok(queued)
    }

    /// All have their habits' way for a while.
    async fn run_wild(&self) -> anyhow::Result<()> {
        let ground = self.ground;
        ground.figures.take_ends();
        ground.season.send_replace(Season::Wild);
        sleep(ground.plan.steady).await;
        ground.season.send_replace(Season::Calm);
        let (calm, operator) = (Instant::now(), ground.world.operator("swarm").await?);
        settle(ground, &operator, None)
            .await
            .context("calm after habits")?;
        self.say(&format!(
            "habits for {:?}: state right {} after; ends of streams: {}",
            ground.plan.steady,
            short(calm.elapsed()),
            ends(ground)
        ));
        Ok(())
    }

    async fn end_jobs(&mut self, jobs: &[JobId]) -> anyhow::Result<()> {
        if jobs.is_empty() {
            return Ok(());
        }
        let ground = self.ground;
        ground.jobs_end.send_replace(true);
        let mut wrong = Vec::new();
        for id in jobs {
            let patience = ground.plan.patience;
            let job = ground
                .world
                .github
                .wait_job(*id, Status::Completed, patience);
            let job = job.await?;
            if job.conclusion != Some(Conclusion::Success) {
                wrong.push(format!("{} ended with {:?}", job.name, job.conclusion));
            }
        }
        self.wrong(wrong);
        complete(ground, 0).await.context("jobs end")?;
        self.say(&format!("{} jobs ended well", jobs.len()));
        Ok(())
    }

    /// An operator drains some runners: they are retired, end, and others take their place.
    async fn drain(&self) -> anyhow::Result<()> {
        let ground = self.ground;
        let operator = ground.world.operator("swarm").await?;
        let picture = settle(ground, &operator, None).await?;
        let idle = picture.runners.iter();
        let idle = idle.filter(|(_, runner)| runner.state() == RunnerState::Idle);
        let drained: Vec<_> = idle.take(DRAINED).collect();
        for (_, runner) in &drained {
            let request = DrainRunnerRequest {
                name: runner.name.clone(),
                reason: "the swarm has enough of it".to_owned(),
            };
            operator.client.clone().drain_runner(request).await?;
        }
        let ended = wait_for("drained runners end", ground.plan.patience, async || {
            let over = drained.iter().all(|(instance, _)| {
                let host = ground.board.get(instance);
                host.is_some_and(|host| host.lock().over)
            });
            Ok(over.then_some(()))
        });
        ended.await?;
        complete(ground, 0)
            .await
            .context("drained runners are replaced")?;
        self.say(&format!("{} runners drained and replaced", drained.len()));
        Ok(())
    }

    async fn judge(&mut self) -> anyhow::Result<()> {
        let ground = self.ground;
        let (began, operator) = (Instant::now(), ground.world.operator("swarm").await?);
        let picture = settle(ground, &operator, None).await?;
        self.wrong(verdict::history(ground, &operator, &picture).await);
        self.wrong(ground.world.github.violations());
        self.wrong(ground.aws.violations());
        self.say(&format!(
            "judged {} runners and their timelines in {}; {} certificates were renewed",
            picture.runners.len(),
            short(began.elapsed()),
            ground.figures.renewals.load(Ordering::Relaxed)
        ));
        Ok(())
    }
}

fn steady() -> Habits {
    Habits {
        steady: 1,
        stalls: 0,
        vanishes: 0,
        half_open: 0,
        storms: 0,
    }
}

pub(super) fn ends(ground: &Ground) -> String {
    let ends = ground.figures.take_ends().into_iter();
    let ends: Vec<_> = ends.map(|(why, count)| format!("{why} {count}")).collect();
    if ends.is_empty() {
        "none".to_owned()
    } else {
        ends.join(", ")
    }
}
