//! The survey against a GitHub that changes, and that doesn't.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use muster_core::{FleetSpec, JobStatus, PoolSpec, SizeRules, TimeLimits};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::survey::{SurveyParts, SurveySettings, Surveys, run};
use super::*;
use crate::engine::{Engine, Executor, Parts};
use crate::presence::Presence;
use crate::store::Store;
use crate::telemetry::Metrics;

/// Longer than anything here takes.
pub(super) const SOON: std::time::Duration = std::time::Duration::from_secs(20);

/// A coordinator that is nothing but a fleet and a survey.
pub(super) struct Surveying {
    pub(super) engine: Engine,
    surveys: Surveys,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Drop for Surveying {
    fn drop(&mut self) {
        self.stop.cancel();
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A pool that takes none of the jobs here, so that nothing is launched.
pub(super) fn pool() -> PoolSpec {
    PoolSpec {
        name: "linux".into(),
        scope: org(),
        runner_group: "Default".to_owned(),
        labels: ["of-no-job".to_owned()].into(),
        sizes: SizeRules::default(),
        public_repositories: false,
        account: "local".into(),
        min_idle: 0,
        max: 1,
        limits: TimeLimits::default(),
        rerun: None,
        canary: None,
    }
}

/// A survey of an organisation.
pub(super) async fn survey(github: &Fake) -> Surveying {
    survey_of(github, vec![pool()]).await
}

async fn survey_of(github: &Fake, pools: Vec<PoolSpec>) -> Surveying {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("muster.db")).await.unwrap();
    survey_on(github, pools, store, dir).await
}

/// A survey for a coordinator that starts with what its store has.
pub(super) async fn survey_on(
    github: &Fake,
    pools: Vec<PoolSpec>,
    store: Store,
    dir: tempfile::TempDir,
) -> Surveying {
    let (client, metrics) = (github.client(), Metrics::new().unwrap());
    let (engine, runnable) = Engine::new(Parts {
        store: std::sync::Arc::new(store.clone()),
        spec: FleetSpec {
            pools: pools.clone(),
            accounts: BTreeMap::from([("local".into(), 1)]),
        },
        presence: Presence::default(),
        executor: Executor::new(client.clone(), HashMap::new(), &pools, metrics.clone()),
        metrics: metrics.clone(),
        list_first: false,
    })
    .await
    .unwrap();
    let (stop, surveys) = (CancellationToken::new(), Surveys::default());
    let parts = SurveyParts {
        client,
        engine: engine.clone(),
        store: std::sync::Arc::new(store),
        surveys: surveys.clone(),
        metrics,
        settings: SurveySettings {
            interval: Duration::from_millis(50),
            share: 40,
        },
    };
    let stopping = stop.clone();
    let running = tokio::spawn(async move { runnable.run(stopping).await.unwrap() });
    let surveying = tokio::spawn(run(parts, pools, stop.clone()));
    Surveying {
        engine,
        surveys,
        stop,
        tasks: vec![running, surveying],
        _dir: dir,
    }
}

impl Surveying {
    /// Waits until the fleet knows a job so.
    pub(super) async fn knows(&self, id: i64, status: JobStatus) {
        let known = self.engine.until(move |fleet| {
            let job = fleet.job(JobId(id));
            job.filter(|job| job.status() == status).map(|_| ())
        });
        tokio::time::timeout(SOON, known)
            .await
            .unwrap_or_else(|_| panic!("job {id} is not {status:?}: {:?}", self.surveys.all()));
    }
}

pub(super) fn job(id: i64, status: &str) -> Value {
    json!({
        "id": id, "run_id": 5, "run_attempt": 1, "name": "build", "labels": ["linux"],
        "status": status, "conclusion": null, "runner_name": null, "workflow_name": "ci",
        "created_at": "2026-01-02T03:04:05Z",
        "run_url": "https://api.github.com/repos/acme/widgets/actions/runs/5",
    })
}

/// Answers by the paths that are in the map, each with a version of its own; with 304 to who knows it.
pub(super) fn answer(
    asked: &super::super::fake::Asked,
    answers: &BTreeMap<&str, Value>,
) -> Option<Reply> {
    let (_, body) = answers
        .iter()
        .find(|(part, _)| asked.line.contains(*part))?;
    let tag = format!("\"{}\"", body.to_string().len());
    let known = asked.headers.get("if-none-match");
    if known.is_some_and(|known| known.to_str().unwrap() == tag) {
        return Some(with(304, &[("etag", &tag)], Value::Null));
    }
    Some(with(200, &[("etag", &tag)], body.clone()))
}

pub(super) fn quiet() -> BTreeMap<&'static str, Value> {
    let repository = json!({
        "name": "widgets", "private": true, "owner": { "login": "acme" },
        "pushed_at": "2026-01-02T03:04:05Z", "archived": false, "disabled": false,
    });
    let old = json!({
        "name": "old", "private": true, "owner": { "login": "acme" }, "archived": true,
    });
    BTreeMap::from([
        (
            "installation/repositories",
            json!({ "repositories": [repository, old] }),
        ),
        ("runs?status=queued", json!({ "workflow_runs": [] })),
        ("runs?status=in_progress", json!({ "workflow_runs": [] })),
        ("runs?status=pending", json!({ "workflow_runs": [] })),
        ("runs?status=waiting", json!({ "workflow_runs": [] })),
        ("actions/runners?", json!({ "runners": [] })),
    ])
}

type Answers = Arc<Mutex<BTreeMap<&'static str, Value>>>;

/// A survey that has found job 7 of run 5 in the queue.
async fn with_a_queued_job() -> (Fake, Answers, Surveying) {
    let answers = Arc::new(Mutex::new(quiet()));
    let scripted = Arc::clone(&answers);
    let github = Fake::new(move |asked| answer(asked, &scripted.lock().unwrap())).await;
    let surveying = survey(&github).await;
    {
        let mut answers = answers.lock().unwrap();
        answers.insert("runs/5/jobs", json!({ "jobs": [job(7, "queued")] }));
        let runs = json!({ "workflow_runs": [{ "id": 5 }] });
        answers.insert("runs?status=queued", runs);
    }
    surveying.knows(7, JobStatus::Queued).await;
    (github, answers, surveying)
}

#[tokio::test]
async fn what_changes_is_noticed_and_what_does_not_is_asked_for_by_its_version() {
    let (github, answers, surveying) = with_a_queued_job().await;
    let put = |part, body| answers.lock().unwrap().insert(part, body);
    // The run goes on to another list, and its jobs are read again although nobody says that they changed.
    put("runs?status=queued", json!({ "workflow_runs": [] }));
    put(
        "runs?status=in_progress",
        json!({ "workflow_runs": [{ "id": 5 }] }),
    );
    put(
        "runs/5/jobs",
        json!({ "jobs": [job(7, "in_progress"), job(8, "queued")] }),
    );
    surveying.knows(7, JobStatus::InProgress).await;
    surveying.knows(8, JobStatus::Queued).await;
    // A run that no list has any more is read a last time.
    let mut done = [job(7, "completed"), job(8, "completed")];
    for job in &mut done {
        job["conclusion"] = json!("success");
    }
    put("runs/5/jobs", json!({ "jobs": done }));
    put("runs?status=in_progress", json!({ "workflow_runs": [] }));
    surveying.knows(7, JobStatus::Completed).await;
    surveying.knows(8, JobStatus::Completed).await;

    let known = |asked: &super::super::fake::Asked| asked.headers.contains_key("if-none-match");
    let lists = github.asked("runs?status=queued");
    assert!(
        lists.iter().skip(1).all(known),
        "only the first look had to be counted"
    );
    assert_eq!(
        github.asked("acme/old").len(),
        0,
        "nothing runs in what is archived"
    );
    let surveyed = &surveying.surveys.all()["acme"];
    assert_eq!(
        (surveyed.repositories, surveyed.held_up.as_deref()),
        (1, None)
    );
}

#[rstest]
#[tokio::test]
async fn a_queued_job_beside_one_that_waits_is_noticed(
    #[values("runs?status=pending", "runs?status=waiting")] list: &'static str,
) {
    let mut answers = quiet();
    answers.insert(list, json!({ "workflow_runs": [{ "id": 5 }] }));
    let jobs = json!({ "jobs": [job(7, "waiting"), job(8, "queued")] });
    answers.insert("runs/5/jobs", jobs);
    let github = Fake::new(move |asked| answer(asked, &answers)).await;
    let surveying = survey(&github).await;
    surveying.knows(8, JobStatus::Queued).await;
    surveying.knows(7, JobStatus::Waiting).await;
}

#[tokio::test]
async fn a_refusal_holds_the_survey_up_and_says_so() {
    let github = Fake::new(|asked| {
        let limited = asked.line.contains("runs?status");
        let headers = [("retry-after", "60")];
        if limited {
            return Some(with(403, &headers, json!({ "message": "slow down" })));
        }
        answer(asked, &quiet())
    })
    .await;
    let surveying = survey(&github).await;
    let mut surveyed = surveying.surveys.subscribe();
    let held_up = surveyed.wait_for(|all| all.get("acme").is_some_and(|it| it.held_up.is_some()));
    let held_up = tokio::time::timeout(SOON, held_up).await;
    held_up.expect("it says so").unwrap();
    assert_eq!(
        github.asked("runs?status").len(),
        1,
        "no call is made to be refused"
    );
}

/// Whether job 7 is in doubt, as GitHub did not know it.
fn is_missing(fleet: &muster_core::Fleet) -> bool {
    let job = fleet.job(JobId(7));
    job.is_some_and(|job| job.missing_since.is_some())
}

impl Surveying {
    /// Waits until something holds. Not all is told, so it is looked for after each look of the survey.
    async fn until(&self, github: &Fake, holds: fn(&muster_core::Fleet) -> bool) {
        let noticed = async {
            let mut looks = github.asked("runs?status").len();
            while !self.engine.query(holds).await.unwrap() {
                looks += 1;
                github.is_asked("runs?status", looks).await;
            }
        };
        let noticed = tokio::time::timeout(SOON, noticed).await;
        noticed.expect("it is noticed");
    }
}

#[tokio::test]
async fn a_run_that_is_gone_casts_doubt_on_its_jobs_until_it_is_seen_again() {
    let (github, answers, surveying) = with_a_queued_job().await;
    // What the fake has no answer for it answers with 404.
    let jobs = answers.lock().unwrap().remove("runs/5/jobs").unwrap();
    surveying.until(&github, is_missing).await;
    answers.lock().unwrap().insert("runs/5/jobs", jobs);
    surveying.until(&github, |fleet| !is_missing(fleet)).await;
}

#[tokio::test]
async fn a_repository_that_is_out_of_sight_for_a_moment_is_read_anew() {
    let (github, answers, surveying) = with_a_queued_job().await;
    let runs = answers.lock().unwrap().remove("runs?status=queued");
    let looks = github.asked("runs?status=queued").len();
    github.is_asked("runs?status=queued", looks + 2).await;
    let runs = runs.unwrap();
    answers.lock().unwrap().insert("runs?status=queued", runs);
    surveying.until(&github, |fleet| !is_missing(fleet)).await;
}

#[tokio::test]
async fn runs_that_are_new_together_are_read_one_after_the_other() {
    let mut answers = quiet();
    let runs: Vec<Value> = (11..=18).map(|id| json!({ "id": id })).collect();
    answers.insert("runs?status=queued", json!({ "workflow_runs": runs }));
    answers.insert("/jobs?", json!({ "jobs": [] }));
    let github = Fake::new(move |asked| answer(asked, &answers)).await;
    let _surveying = survey(&github).await;
    github.is_asked("/jobs?", 1).await;
    let began = std::time::Instant::now();
    github.is_asked("/jobs?", 7).await;
    // Five calls in a second at most.
    let least = std::time::Duration::from_millis(1_000);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_cannot_be_read_holds_nothing_else_up() {
    let repository = |name: &str| {
        json!({ "name": name, "private": true, "owner": { "login": "acme" },
            "pushed_at": "2026-01-02T03:04:05Z" })
    };
    let mut answers = quiet();
    let odd = json!({ "name": 7 });
    let list = [odd, repository("closed"), repository("widgets")];
    answers.insert("installation/repositories", json!({ "repositories": list }));
    let runs = [
        json!({ "id": "odd" }),
        json!({ "id": 4 }),
        json!({ "id": 5 }),
    ];
    answers.insert("runs?status=queued", json!({ "workflow_runs": runs }));
    let jobs = json!({ "jobs": [{ "id": 6 }, job(7, "queued")] });
    answers.insert("runs/5/jobs", jobs);
    answers.insert("runs/4/jobs", json!({ "message": "not what it was" }));
    let github = Fake::new(move |asked| {
        if asked.line.contains("acme/closed/") {
            return Some(reply(403, json!({ "message": "Actions is disabled" })));
        }
        answer(asked, &answers)
    })
    .await;
    let surveying = survey(&github).await;
    surveying.knows(7, JobStatus::Queued).await;
    // It goes on, and again and again.
    let looks = github.asked("acme/closed/actions/runs?status").len();
    github
        .is_asked("acme/closed/actions/runs?status", looks + 2)
        .await;
    let surveyed = &surveying.surveys.all()["acme"];
    assert_eq!(surveyed.held_up, None);
}

#[tokio::test]
async fn a_survey_that_can_read_nothing_says_so() {
    let github = Fake::new(|asked| {
        if asked.line.contains("runs?status") {
            return Some(reply(403, json!({ "message": "no permission" })));
        }
        answer(asked, &quiet())
    })
    .await;
    let surveying = survey(&github).await;
    let mut surveyed = surveying.surveys.subscribe();
    let held_up = surveyed.wait_for(|all| all.get("acme").is_some_and(|it| it.held_up.is_some()));
    let held_up = tokio::time::timeout(SOON, held_up).await;
    held_up.expect("it says so").unwrap();
}

#[tokio::test]
async fn the_installation_is_found_by_any_repository_with_a_pool() {
    let mut answers = quiet();
    answers.insert(
        "runs?status=queued",
        json!({ "workflow_runs": [{ "id": 5 }] }),
    );
    answers.insert("runs/5/jobs", json!({ "jobs": [job(7, "queued")] }));
    let github = Fake::new(move |asked| {
        // The app was given one of the two.
        if asked.line.contains("acme/apart/installation") {
            return Some(reply(404, json!({ "message": "Not Found" })));
        }
        answer(asked, &answers)
    })
    .await;
    let of = |name: &str| PoolSpec {
        name: name.into(),
        scope: Scope::Repository {
            owner: "acme".to_owned(),
            name: name.to_owned(),
        },
        ..pool()
    };
    let surveying = survey_of(&github, vec![of("apart"), of("widgets")]).await;
    surveying.knows(7, JobStatus::Queued).await;
}
