//! Two coordinators on one PostgreSQL, and a swarm that has jobs all the time: the leader is killed again and
//! again, and networks, PostgreSQL and its disk fail in between. In the end nothing may be lost or doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use muster_proto::v1::{JobState, ListJobsRequest, ListRunnersRequest};
use tokio::time::{Instant, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::complete::complete;
use super::crowd::Crowd;
use super::faults::Fault;
use super::figures::{Times, short};
use super::ground::{Ground, LABELS};
use super::kill::settle;
use super::pair::Pair;
use super::plan::Plan;
use super::play::ends;
use super::site::{Grounds, Site};
use super::verdict;
use crate::bench::machine;
use crate::fakes::github::{Conclusion, JobId, JobSpec, Status};
use crate::world::{ORGANIZATION, Operator, Options, wait_for};

/// Most that a list has.
const MOST: u32 = 1_000;

/// What is done to them.
#[derive(Clone, Debug)]
pub struct Siege {
    /// The swarm.
    pub plan: Plan,
    /// How often the leader is killed.
    pub kills: u32,
    /// From one kill to the next.
    pub every: Duration,
    /// What befalls them between two kills, in turn.
    pub faults: Vec<Fault>,
    /// Time between two jobs.
    pub job_every: Duration,
    /// Further lines of `[store]`.
    pub store: String,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// What is wrong; empty if all is as it should be.
    pub wrong: Vec<String>,
    /// From each kill until another coordinator answered an operator.
    pub takeovers: Vec<Duration>,
}

/// Plays it in networks of its own; needs root.
///
/// # Errors
/// When the world doesn't start, or something that is waited for does not come to be in time.
pub fn besiege(siege: &Siege, say: impl Fn(&str) + Sync) -> anyhow::Result<Held> {
    say(&machine::describe());
    let site = Site::build()?;
    site.run(|grounds| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(play(siege, grounds, &say))
    })
}

async fn play(siege: &Siege, grounds: &Grounds<'_>, say: &impl Fn(&str)) -> anyhow::Result<Held> {
    let plan = siege.plan.clone();
    let prepared = Ground::prepare_with(plan, Some(grounds.agents()), |options| Options {
        secrets_in_ssm: true,
        agents_ip: Some(Grounds::agents_ip()),
        github_keys: "reconcile_interval = \"2s\"".to_owned(),
        // What is too many leaves soon.
        pools: options
            .pools
            .replace("limits = { ", "limits = { idle = \"20s\", "),
        tables: format!(
            "[store]\nurl = \"{}\"\n{}\n",
            Grounds::database(1),
            siege.store
        ),
        ..options
    });
    let ground = Arc::new(prepared.await?);
    let second = ground
        .world
        .coordinator
        .replica_with(|config| config.replace(&Grounds::database(1), &Grounds::database(2)));
    let pair = Pair::new(&ground, second.await?);
    let crowd = Crowd::gather(&ground);
    let scene = Scene {
        siege,
        grounds,
        ground: &ground,
        pair: &pair,
        say,
    };
    let played = tokio::select! {
        kept = pair.keep() => kept.context("a coordinator can't be started").map(|()| Held::default()),
        played = scene.play() => played,
    };
    let played = played.with_context(|| {
        let logs = [1, 2].map(|number| pair.get(number).log_tail());
        format!(
            "ends of streams: {}\nthe logs end with\n{}",
            ends(&ground),
            logs.join("\n--\n")
        )
    });
    crowd.end().await;
    for number in [1, 2] {
        pair.get(number).kill_nine();
    }
    played
}

struct Scene<'a, S> {
    siege: &'a Siege,
    grounds: &'a Grounds<'a>,
    ground: &'a Ground,
    pair: &'a Pair<'a>,
    say: &'a S,
}

impl<S: Fn(&str)> Scene<'_, S> {
    async fn play(&self) -> anyhow::Result<Held> {
        let ground = self.ground;
        complete(ground, 0).await.context("the swarm gathers")?;
        (self.say)(&format!(
            "{} agents wait, two coordinators run",
            ground.plan.agents
        ));
        ground.polling.send_replace(true);
        let stop = CancellationToken::new();
        let (jobs, takeovers) = tokio::join!(self.feed(&stop), async {
            let takeovers = self.kills().await;
            stop.cancel();
            takeovers
        });
        let takeovers = takeovers?;
        let told = Times::of(takeovers.iter().copied())?;
        let ordered: BTreeSet<Duration> = takeovers.iter().copied().collect();
        if let (Some(least), Some(most)) = (ordered.first(), ordered.last()) {
            (self.say)(&format!(
                "a new leader served after: min {}, median {}, max {} ({} kills)",
                short(*least),
                short(told.at(0.5)),
                short(*most),
                takeovers.len()
            ));
        }
        let wrong = self.judge(&jobs).await?;
        Ok(Held { wrong, takeovers })
    }

    /// Queues jobs until it is told to stop.
    async fn feed(&self, stop: &CancellationToken) -> Vec<JobId> {
        let mut ticks = interval(self.siege.job_every);
        let mut jobs = Vec::new();
        let repository = format!("{ORGANIZATION}/swarm");
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let name = format!("job-{}", jobs.len());
            let spec = JobSpec::new(&repository, &name, &LABELS);
            jobs.push(self.ground.world.github.queue_job(spec));
        }
        jobs
    }

    async fn kills(&self) -> anyhow::Result<Vec<Duration>> {
        let mut takeovers = Vec::new();
        let mut faults = self.siege.faults.iter().cycle();
        let mut next = Instant::now() + self.siege.every / 2;
        for number in 1..=self.siege.kills {
            sleep_until(next).await;
            let leader = self.pair.leader().await?;
            let other = self.pair.get(3 - leader);
            self.ground
                .world
                .github
                .set_webhook_url(&other.webhook_url());
            let killed = Instant::now();
            self.pair.get(leader).kill_nine();
            self.pair.serves(None).await.context("a kill")?;
            let took = killed.elapsed();
            takeovers.push(took);
            next = killed + self.siege.every;
            // In the midst of the time between two kills, when the one that was killed is back.
            sleep_until(killed + self.siege.every / 3).await;
            let fault = faults.next().copied().unwrap_or(Fault::None);
            let told = fault.befall(self.grounds, self.pair).await?;
            (self.say)(&format!(
                "kill {number}: served after {}; {told}",
                short(took)
            ));
        }
        Ok(takeovers)
    }

    /// Waits until all has come to its end, and gives what is wrong.
    async fn judge(&self, jobs: &[JobId]) -> anyhow::Result<Vec<String>> {
        let ground = self.ground;
        let (began, patience) = (Instant::now(), ground.plan.patience);
        let mut wrong = Vec::new();
        let mut runners: BTreeMap<String, JobId> = BTreeMap::new();
        for id in jobs {
            let job = ground
                .world
                .github
                .wait_job(*id, Status::Completed, patience);
            let job = job.await.context("a job is served")?;
            if job.conclusion != Some(Conclusion::Success) {
                wrong.push(format!("{} ended with {:?}", job.name, job.conclusion));
            }
            if let Some(runner) = job.runner_name
                && let Some(other) = runners.insert(runner.clone(), *id)
            {
                wrong.push(format!("{runner} had the jobs {other} and {id}"));
            }
        }
        complete(ground, 0)
            .await
            .context("the swarm is whole again")?;
        let operator = ground.world.operator("swarm").await?;
        self.accounted_for(&operator, jobs).await?;
        wrong.extend(self.doubled(&operator).await?);
        let picture = settle(ground, &operator, None).await?;
        wrong.extend(verdict::history(ground, &operator, &picture).await);
        wrong.extend(ground.world.github.violations());
        wrong.extend(ground.aws.violations());
        (self.say)(&format!(
            "{} jobs ended, {} instances lived, all judged {} after the last kill",
            jobs.len(),
            ground.aws.instances().len(),
            short(began.elapsed())
        ));
        Ok(wrong)
    }

    /// Waits until the coordinator says of all jobs that they have ended well, and on which runner.
    async fn accounted_for(&self, operator: &Operator, jobs: &[JobId]) -> anyhow::Result<()> {
        let request = ListJobsRequest {
            limit: MOST,
            ..ListJobsRequest::default()
        };
        let lacking = async || {
            let listed = operator.client.clone().list_jobs(request.clone()).await?;
            let listed = listed.into_inner().jobs.into_iter();
            let known: BTreeMap<u64, _> = listed
                .filter_map(|job| Some((u64::try_from(job.id).ok()?, job)))
                .collect();
            let mut lacking = Vec::new();
            for id in jobs {
                let well = known.get(id).is_some_and(|job| {
                    job.state() == JobState::Completed
                        && job.conclusion == Conclusion::Success.as_str()
                        && !job.runner.is_empty()
                });
                if !well {
                    lacking.push(format!("{id}: {:?}", known.get(id)));
                }
            }
            anyhow::Ok(lacking)
        };
        let what = "all jobs are accounted for";
        let counted = wait_for(what, self.ground.plan.patience, async || {
            Ok(lacking().await?.is_empty().then_some(()))
        });
        if let Err(error) = counted.await {
            let lacking = lacking().await?;
            let shown = lacking.iter().take(5).cloned().collect::<Vec<_>>();
            let told = format!("{} lack, such as\n{}", lacking.len(), shown.join("\n"));
            return Err(error.context(told));
        }
        Ok(())
    }

    /// Each instance that ever was is of one launch, and each launch has one.
    async fn doubled(&self, operator: &Operator) -> anyhow::Result<Vec<String>> {
        let mut wrong = Vec::new();
        let mut launches: BTreeMap<String, String> = BTreeMap::new();
        for (pool, _) in self.ground.pools() {
            let request = ListRunnersRequest {
                pool,
                include_gone: true,
                limit: MOST,
            };
            let listed = operator.client.clone().list_runners(request).await?;
            for runner in listed.into_inner().runners {
                let (name, instance) = (runner.name, runner.instance_id);
                if instance.is_empty() {
                    continue;
                }
                if let Some(other) = launches.insert(instance.clone(), name.clone()) {
                    wrong.push(format!("{instance} is of {name} and of {other}"));
                }
            }
        }
        for instance in self.ground.aws.instances() {
            if !launches.contains_key(&instance.id) {
                wrong.push(format!("{} is of no launch", instance.id));
            }
        }
        Ok(wrong)
    }
}
