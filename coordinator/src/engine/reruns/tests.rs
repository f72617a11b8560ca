use muster_core::Repository;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::github::fake::{Fake, reply, with};

const RUN: &str = "runs/5";

fn attempt() -> RunAttempt {
    RunAttempt {
        repository: Repository {
            owner: "acme".to_owned(),
            name: "widgets".to_owned(),
            public: false,
            enterprise: None,
        },
        run_id: 5,
        attempt: 1,
    }
}

fn run(status: &str, started: &str) -> Value {
    json!({ "id": 5, "run_attempt": 1, "status": status, "run_started_at": started })
}

#[tokio::test]
async fn a_run_that_is_the_same_costs_nothing() {
    let mut looks = 0;
    let github = Fake::new(move |asked| {
        if asked.line.contains("runs/5/jobs") {
            return Some(reply(200, json!({ "jobs": [] })));
        }
        if !asked.line.contains(RUN) {
            return None;
        }
        looks += 1;
        let now = Timestamp::now().to_string();
        Some(match looks {
            1 => with(200, &[("etag", "\"a\"")], run("in_progress", &now)),
            // Its share of the calls is kept, and what is known, too.
            2 => with(503, &[("retry-after", "1")], Value::Null),
            3 => with(304, &[], Value::Null),
            _ => with(200, &[("etag", "\"b\"")], run("completed", &now)),
        })
    })
    .await;
    let watched = Watched::default();
    let event = watch(&github.client(), &watched, &attempt()).await;
    assert!(matches!(event, Event::RunCompleted { .. }));
    let known = |asked: &crate::github::fake::Asked| {
        let known = asked.headers.get("if-none-match");
        known.map(|known| known.to_str().unwrap().to_owned())
    };
    let asked: Vec<_> = github.asked("runs/5").iter().map(known).collect();
    let tag = Some("\"a\"".to_owned());
    assert_eq!(asked, [None, tag.clone(), tag.clone(), tag, None]);
    assert_eq!(
        watched.0.load(Ordering::Relaxed),
        0,
        "it is watched no more"
    );
}

#[tokio::test]
async fn a_run_that_is_older_than_github_allows_is_left() {
    let body = run("in_progress", "2026-01-02T03:04:05Z");
    let github = Fake::answering(RUN, vec![reply(200, body)]).await;
    let event = watch(&github.client(), &Watched::default(), &attempt()).await;
    let Event::RunLeft { run, reason } = event else {
        panic!("it is watched for ever")
    };
    assert_eq!(run, attempt());
    assert!(reason.contains("35 days"), "{reason}");
}

#[tokio::test]
async fn a_run_with_a_job_that_cannot_be_read_is_not_judged() {
    let github = Fake::new(|asked| {
        let now = Timestamp::now().to_string();
        let jobs = asked.line.contains("runs/5/jobs");
        let odd = || reply(200, json!({ "jobs": [{ "id": "odd" }] }));
        let done = || reply(200, run("completed", &now));
        let run = asked.line.contains(RUN);
        run.then(|| if jobs { odd() } else { done() })
    })
    .await;
    let seen = look(&github.client(), &attempt(), &mut Known::default()).await;
    assert!(matches!(seen, Err(GithubError::Garbled(_))), "{seen:?}");
}

/// Its jobs could not be read: the run is the same from then on, and yet to be told of.
#[tokio::test]
async fn a_completed_run_is_read_until_it_is_told() {
    let mut reads = 0;
    let github = Fake::new(move |asked| {
        if asked.line.contains("runs/5/jobs") {
            reads += 1;
            let odd = json!({ "jobs": [{ "id": "odd" }] });
            let body = if reads == 1 {
                odd
            } else {
                json!({ "jobs": [] })
            };
            return Some(reply(200, body));
        }
        let now = Timestamp::now().to_string();
        let same = asked.headers.contains_key("if-none-match");
        let new = || with(200, &[("etag", "\"a\"")], run("completed", &now));
        let known = asked.line.contains(RUN);
        known.then(|| {
            if same {
                with(304, &[], Value::Null)
            } else {
                new()
            }
        })
    })
    .await;
    let mut known = Known::default();
    let first = look(&github.client(), &attempt(), &mut known).await;
    assert!(matches!(first, Err(GithubError::Garbled(_))), "{first:?}");
    let second = look(&github.client(), &attempt(), &mut known).await;
    assert!(matches!(second, Ok(Some(_))), "{second:?}");
}

/// Counts the lines that are logged.
#[derive(Clone, Debug, Default)]
struct Lines(tokio::sync::watch::Sender<usize>);

impl std::io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.send_modify(|lines| *lines += 1);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_run_that_can_not_be_looked_at_is_left_after_a_day() {
    let lines = Lines::default();
    let writer = lines.clone();
    let warnings = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(move || writer.clone())
        .finish();
    let _logged = tracing::subscriber::set_default(warnings);
    let refusal = reply(451, json!({ "message": "not here" }));
    let github = Fake::answering(RUN, vec![refusal]).await;
    let (client, mut told) = (github.client(), lines.0.subscribe());
    let (watched, run) = (Watched::default(), attempt());
    let watching = watch(&client, &watched, &run);
    let hours = async {
        for hour in 1.. {
            // Told as its wait begins, so that no call is under way.
            told.wait_for(|lines| *lines >= hour).await.unwrap();
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(3_600)).await;
            tokio::time::resume();
        }
    };
    tokio::pin!(watching);
    let event = tokio::select! {
        event = &mut watching => event,
        () = hours => unreachable!(),
    };
    let Event::RunLeft { reason, .. } = event else {
        panic!("it is watched for ever")
    };
    assert!(reason.contains("can't be asked for its run"), "{reason}");
    assert_eq!(*lines.0.borrow(), 24);
}

#[test]
fn the_more_runs_are_watched_the_longer_each_waits() {
    let watched = Watched::default();
    let one = watched.one_more();
    assert_eq!(one.share(), Duration::ZERO);
    let others: Vec<_> = (0..99).map(|_| watched.one_more()).collect();
    let looks_an_hour = 100.0 * 3_600.0 / one.share().as_secs_f64();
    assert!(looks_an_hour < 730.0, "{looks_an_hour}");
    drop(others);
    assert_eq!(one.share(), Duration::ZERO);
}

#[rstest]
#[case::leads(true, 1)]
#[case::leads_no_more(false, 0)]
#[tokio::test]
async fn only_a_leader_has_a_run_run_again(#[case] leads: bool, #[case] calls: usize) {
    let now = Timestamp::now().to_string();
    let github = Fake::new(move |asked| {
        let post = asked.line.starts_with("POST");
        let look = || reply(200, run("completed", &now));
        let known = asked.line.contains(RUN);
        known.then(|| if post { reply(201, json!({})) } else { look() })
    })
    .await;
    let lead = async {
        let again = Again {
            after: Duration::ZERO,
            reason: "another leads".to_owned(),
        };
        leads.then_some(()).ok_or(again)
    };
    let answer = rerun(&github.client(), lead, &attempt(), &RerunCall::FailedJobs).await;
    let started = Event::RerunAnswered {
        run: attempt(),
        answer: RerunAnswer::Started,
    };
    assert_eq!(answer.ok(), leads.then_some(started));
    let asked = github.asked(RUN);
    let posts = asked.iter().filter(|it| it.line.starts_with("POST"));
    assert_eq!(posts.count(), calls);
}

#[rstest]
#[case::somebody_was_faster(403, "The workflow run containing this job is already running", false)]
#[case::it_is_forbidden(403, "Resource not accessible by integration", true)]
#[case::it_is_too_old(
    403,
    "Unable to retry this workflow run because it was created over a month ago",
    true
)]
#[case::github_is_out_of_order(502, "", false)]
#[tokio::test]
async fn only_what_stays_so_is_a_final_answer(
    #[case] status: u16,
    #[case] message: &'static str,
    #[case] is_final: bool,
) {
    let now = Timestamp::now().to_string();
    let github = Fake::new(move |asked| {
        let post = asked.line.starts_with("POST");
        let refused = || reply(status, json!({ "message": message }));
        let look = || reply(200, run("completed", &now));
        let known = asked.line.contains(RUN);
        known.then(|| if post { refused() } else { look() })
    })
    .await;
    let lead = async { Ok(()) };
    let answer = rerun(&github.client(), lead, &attempt(), &RerunCall::FailedJobs).await;
    let refused = matches!(
        answer,
        Ok(Event::RerunAnswered {
            answer: RerunAnswer::Refused(_),
            ..
        })
    );
    assert_eq!((refused, answer.is_err()), (is_final, !is_final));
}

#[test]
fn only_a_refusal_that_lasts_is_final() {
    let (mut refusals, now) = (Refusals::default(), Instant::now());
    assert!(!refusals.have_lasted(now));
    assert!(!refusals.have_lasted(now + REFUSED_FOR / 2));
    assert!(refusals.have_lasted(now + REFUSED_FOR));
}
