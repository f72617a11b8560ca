//! The whole run: jobs come, things go wrong, the coordinator is killed, until all is over.

use std::sync::Arc;
use std::time::Duration;

use muster_coordinator::clock;
use muster_core::{Fleet, Job, JobStatus, Stage};
use muster_tests::fakes::aws::Chaos;
use muster_tests::fakes::github::{Effect, Fault, JobSpec, Mischief, WebhookFault};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, sleep, sleep_until};

use crate::coordinator::Coordinator;
use crate::hosts::alive;
use crate::judge;
use crate::pace::Pace;
use crate::plant::{Odds, POOL, Plant};
use crate::population::populate;
use crate::report::Report;

/// Between two looks at the coordinator.
const LOOK: Duration = Duration::from_secs(15);
/// How long the last jobs may take to end, and then all else, in compressed time: the longest that
/// anything waits for is a job that GitHub gives up, and a quarter of an hour of absence.
const WIND_DOWN: Duration = Duration::from_hours(2);
/// Jobs that are asked for in one look.
const ASKED: usize = 10;

/// What is played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) seed: u64,
    pub(crate) jobs: u32,
    /// How many times faster than the system's time it goes, where the machine keeps up.
    pub(crate) speed: u32,
    /// Jobs in a second of compressed time.
    pub(crate) rate: f64,
    /// Instances at a time, at most.
    pub(crate) max: u32,
    /// Seconds of compressed time between two kills, at most.
    pub(crate) kill_within: f64,
}

/// What goes wrong how often, as the issue asks: 20 % of the offerings have no capacity, 5 % of the calls
/// are throttled, 2 % fail with 5xx, the answers of 1 % are lost.
pub(crate) fn odds(seed: u64) -> Odds {
    Odds {
        aws: Chaos {
            seed,
            throttle: 0.05,
            server_error: 0.02,
            lost_answer: 0.01,
            hang_up: 0.005,
            capacity: 0.2,
        },
        // Some are over before their hour, so that a tenth is taken back.
        interrupted: 0.2,
        webhook: 0.05,
        github: 0.03,
    }
}

/// Plays it.
pub(crate) async fn play(terms: Terms) -> Report {
    let began = std::time::Instant::now();
    let plant = Plant::build(terms.seed, terms.max, odds(terms.seed)).await;
    let pace = Pace::start(terms.speed);
    let from = Instant::now();
    let hosts = tokio::spawn(populate(Arc::clone(&plant)));
    let mut coordinator = start(&plant, &pace).await;
    let feeding = tokio::spawn(feed(Arc::clone(&plant), terms));
    let mut random = StdRng::seed_from_u64(terms.seed ^ 0x6b69_6c6c);
    let next = |random: &mut StdRng| {
        let seconds = random.random_range(1.0..terms.kill_within);
        Instant::now() + Duration::from_secs_f64(seconds)
    };
    let mut kill_at = next(&mut random);
    let mut look_at = Instant::now() + LOOK;
    let mut fed_at = None;
    while !feeding.is_finished() || plant.github.open_jobs() > 0 {
        if feeding.is_finished() && fed_at.get_or_insert_with(Instant::now).elapsed() > WIND_DOWN {
            let open = plant.github.open_jobs();
            plant.tally().wrong.push(format!("{open} jobs do not end"));
            break;
        }
        tokio::select! {
            () = sleep_until(kill_at) => {
                coordinator = kill(&plant, &pace, coordinator, &mut random).await;
                kill_at = next(&mut random);
            }
            () = sleep_until(look_at) => {
                look(&plant, &coordinator, &mut random).await;
                look_at = Instant::now() + LOOK;
            }
        }
    }
    feeding.await.unwrap();
    let wound_down = wind_down(&plant, &pace, &coordinator).await;
    if let Err(left) = wound_down {
        plant.tally().wrong.push(left);
    }
    let _still = pace.still();
    judge::all(&plant, &coordinator, terms).await;
    let report = Report::of(&plant, terms, from.elapsed(), began.elapsed());
    coordinator.kill(&plant).await;
    hosts.abort();
    report
}

async fn start(plant: &Plant, pace: &Pace) -> Coordinator {
    let _still = pace.still();
    Coordinator::start(plant).await.unwrap()
}

async fn kill(
    plant: &Plant,
    pace: &Pace,
    coordinator: Coordinator,
    random: &mut StdRng,
) -> Coordinator {
    coordinator.kill(plant).await;
    plant.tally().kills += 1;
    // Mostly a new task of ECS, now and then more than that.
    let away = if random.random_bool(0.8) {
        random.random_range(0.1..20.0)
    } else {
        random.random_range(20.0..180.0)
    };
    sleep(Duration::from_secs_f64(away)).await;
    start(plant, pace).await
}

/// Queues the jobs, one by one and in bursts.
async fn feed(plant: Arc<Plant>, terms: Terms) {
    let mut random = StdRng::seed_from_u64(terms.seed);
    let mut number = 0;
    while number < terms.jobs {
        let burst = if random.random_bool(0.1) {
            random.random_range(2..40)
        } else {
            1
        };
        let burst = burst.min(terms.jobs - number);
        for _ in 0..burst {
            disturb(&plant, &mut random);
            plant.github.queue_job(job(number, &mut random));
            number += 1;
        }
        let gap = -random.random::<f64>().max(1e-9).ln() * f64::from(burst) / terms.rate;
        sleep(Duration::from_secs_f64(gap)).await;
    }
}

fn job(number: u32, random: &mut StdRng) -> JobSpec {
    let mut labels = vec!["self-hosted", "linux", "x64"];
    match random.random_range(0..20) {
        0..2 => labels.push("muster/cpu=4"),
        2 => labels.push("muster/spot=false"),
        _ => {}
    }
    let repository = format!("acme/widgets-{}", number % 5);
    JobSpec::new(&repository, &format!("job-{number}"), &labels)
}

/// Lets something happen to one of the next webhooks, or to one of the next calls to GitHub.
fn disturb(plant: &Plant, random: &mut StdRng) {
    if random.random_bool(plant.odds.webhook) {
        // One that is not even recorded can't be asked for again: of a job that is known only.
        let (action, mischief) = match random.random_range(0..7) {
            0 => (Some("in_progress"), Mischief::Drop),
            1 => (Some("completed"), Mischief::Drop),
            2 | 3 => (None, Mischief::Fail),
            4 => (None, Mischief::Duplicate),
            5 => (None, Mischief::Overtake),
            _ => (None, Mischief::WrongSignature),
        };
        plant.github.disturb_webhooks(WebhookFault {
            action: action.map(str::to_owned),
            times: 1,
            mischief,
        });
    }
    if random.random_bool(plant.odds.github) {
        let fault = match random.random_range(0..4) {
            0 => Fault::new("generate-jitconfig", 1, Effect::LoseAnswer),
            1 => Fault::new("runners/", 1, Effect::LoseAnswer).method("DELETE"),
            2 => Fault::new("actions/runners", 1, Effect::DropConnection),
            _ => Fault::status("actions/runners", 1, 502),
        };
        plant.github.inject(fault);
    }
}

/// Asks the coordinator why jobs wait, and looks at its ledger.
async fn look(plant: &Plant, coordinator: &Coordinator, random: &mut StdRng) {
    let offset: usize = random.random_range(0..1_000_000);
    let link = &coordinator.link;
    let asked = link.engine.query(move |fleet| explained(fleet, offset));
    let Some(answer) = alive(link, asked).await else {
        return;
    };
    let mut tally = plant.tally();
    match answer {
        Ok((asked, wrong)) => {
            tally.questions += asked;
            tally.wrong.extend(wrong);
        }
        Err(error) => tally
            .wrong
            .push(format!("the engine is not there: {error}")),
    }
}

fn explained(fleet: &Fleet, offset: usize) -> (u64, Vec<String>) {
    let now = clock::now();
    let mut wrong = Vec::new();
    let open: Vec<_> = fleet
        .jobs()
        .filter(|job| job.status() != JobStatus::Completed)
        .map(Job::id)
        .collect();
    let mut asked = 0;
    for id in open
        .iter()
        .cycle()
        .skip(offset % open.len().max(1))
        .take(ASKED.min(open.len()))
    {
        asked += 1;
        match fleet.explain(*id, now) {
            Some(told) if !told.summary.is_empty() && !told.next.is_empty() => {}
            told => wrong.push(format!("job {id} is not explained: {told:?}")),
        }
    }
    let figures = fleet.figures(&POOL.into(), now);
    let max = fleet.pool(&POOL.into()).map_or(0, |pool| pool.max);
    if figures.instances() > max {
        wrong.push(format!(
            "the pool counts {} instances of {max}",
            figures.instances()
        ));
    }
    (asked, wrong)
}

/// Waits until nothing is left. The error says what is.
async fn wind_down(plant: &Plant, pace: &Pace, coordinator: &Coordinator) -> Result<(), String> {
    let until = Instant::now() + WIND_DOWN;
    loop {
        let counted = coordinator.link.engine.query(|fleet| {
            let open = fleet
                .jobs()
                .filter(|job| job.status() != JobStatus::Completed);
            let open: Vec<_> = open.map(Job::id).collect();
            let left = fleet
                .runners()
                .filter(|runner| runner.stage() != Stage::Gone);
            let left: Vec<_> = left.cloned().collect();
            (open, left)
        });
        let (open, runners) = counted.await.map_err(|error| error.to_string())?;
        let alive = plant.tally().alive();
        let registered = plant.github.runners().len();
        let effects = {
            let _still = pace.still();
            coordinator.store.pending_effects().await
        };
        let effects = effects.map_err(|error| error.to_string())?;
        if open.is_empty() && runners.is_empty() && alive + registered == 0 && effects.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(format!(
                "left after {WIND_DOWN:?}: {alive} instances, {registered} registrations, jobs {open:?}, \
                 effects {effects:?}, runners {runners:#?}"
            ));
        }
        sleep(LOOK).await;
    }
}
