//! Real payloads, signed: every one is answered well, and a job's gives the right state of the job.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use muster_proto::v1::{
    GetJobRequest, GetTimelineRequest, Job, JobState, ListJobsRequest, TimelineEntry,
};
use muster_tests::fakes::github::sign;
use muster_tests::world::{Operator, Options, World, wait_for};
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::payloads::{self, Payload, expected_state};

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Ids of jobs that only this test tells of.
static MARKERS: AtomicU64 = AtomicU64::new(900_000_000_000);

/// GitHub, as far as the coordinator can tell.
pub(crate) struct Github {
    pub(crate) world: World,
    operator: Operator,
    client: reqwest::Client,
}

/// What the coordinator answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// All that a webhook could change.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Picture {
    jobs: Vec<Job>,
    timeline: Vec<TimelineEntry>,
    job_events: BTreeMap<String, u64>,
}

/// A delivery, to be changed before it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) guid: String,
    pub(crate) event: String,
    pub(crate) content_type: String,
    pub(crate) signature: Option<String>,
    pub(crate) body: bytes::Bytes,
}

impl Github {
    pub(crate) async fn start() -> Self {
        let world = World::start(Options::default()).await.unwrap();
        let operator = world.operator("watching").await.unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            world,
            operator,
            client,
        }
    }

    /// A delivery with the signature that fits its body.
    pub(crate) fn signed(&self, event: &str, body: impl Into<bytes::Bytes>) -> Delivery {
        let body = body.into();
        Delivery {
            guid: format!("{:032x}", rand::random::<u128>()),
            event: event.to_owned(),
            content_type: "application/json".to_owned(),
            signature: Some(sign(self.world.github.webhook_secret(), &body)),
            body,
        }
    }

    pub(crate) async fn post(&self, delivery: &Delivery) -> Answer {
        let mut request = self
            .client
            .post(self.world.coordinator.webhook_url())
            .header("X-GitHub-Delivery", &delivery.guid)
            .header("X-GitHub-Event", &delivery.event)
            .header(CONTENT_TYPE, &delivery.content_type);
        if let Some(signature) = &delivery.signature {
            request = request.header("X-Hub-Signature-256", signature);
        }
        let answer = request.body(delivery.body.clone()).send().await.unwrap();
        let status = answer.status().as_u16();
        assert!(status < 500, "{status} for {}", delivery.event);
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
        let body = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        Answer { status, body }
    }

    pub(crate) async fn tell(&self, payload: &Payload) -> Answer {
        let delivery = self.signed(&payload.event, payload.body());
        self.post(&delivery).await
    }

    async fn job(&self, id: i64) -> Option<Job> {
        let request = GetJobRequest { id };
        let found = self.operator.client.clone().get_job(request).await;
        found.ok().and_then(|answer| answer.into_inner().job)
    }

    /// Waits until a job is in a state.
    pub(crate) async fn job_in(&self, id: i64, state: JobState) -> Job {
        let what = format!("job {id} in {state:?}");
        let look = async || Ok(self.job(id).await.filter(|job| job.state() == state));
        wait_for(&what, PATIENCE, look).await.unwrap()
    }

    /// Tells of a job that nobody else tells of, and waits until it is known. Deliveries are taken in
    /// order: all that were accepted before have had their effect then.
    pub(crate) async fn all_taken(&self) {
        let id = MARKERS.fetch_add(1, Ordering::Relaxed);
        let queued = json!({
            "action": "queued",
            "workflow_job": {
                "id": id, "run_id": 1, "name": "marker", "labels": ["nobody-has-this"],
                "status": "queued",
            },
            "repository": { "name": "markers", "private": true, "owner": { "login": "octo-org" } },
        });
        let delivery = self.signed("workflow_job", queued.to_string());
        assert_eq!(self.post(&delivery).await.status, 202);
        self.job_in(i64::try_from(id).unwrap(), JobState::Queued)
            .await;
    }

    /// What is known, markers left out.
    pub(crate) async fn picture(&self) -> Picture {
        self.all_taken().await;
        let is_marker = |id: i64| u64::try_from(id).is_ok_and(|id| id >= 900_000_000_000);
        let mut client = self.operator.client.clone();
        let limit = 1_000;
        let request = ListJobsRequest {
            limit,
            ..ListJobsRequest::default()
        };
        let mut jobs = client.list_jobs(request).await.unwrap().into_inner().jobs;
        let all = jobs.len();
        jobs.retain(|job| !is_marker(job.id));
        let markers = u64::try_from(all - jobs.len()).unwrap();
        let request = GetTimelineRequest {
            limit,
            ..GetTimelineRequest::default()
        };
        let timeline = client.get_timeline(request).await.unwrap().into_inner();
        let mut timeline = timeline.entries;
        timeline.retain(|entry| !is_marker(entry.job_id));
        let mut job_events = self.series("muster_job_events_total").await;
        *job_events.get_mut("{state=\"queued\"}").unwrap() -= markers;
        Picture {
            jobs,
            timeline,
            job_events,
        }
    }

    /// The series of one name at `/metrics`, by labels.
    pub(crate) async fn series(&self, name: &str) -> BTreeMap<String, u64> {
        let url = format!("http://{}/metrics", self.world.coordinator.addresses().web);
        let answer = self.client.get(url).send().await.unwrap();
        let text = answer.text().await.unwrap();
        text.lines()
            .filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '))
            .map(|(labels, value)| (labels.to_owned(), value.parse().unwrap()))
            .collect()
    }
}

fn assert_is_told(job: &Job, payload: &Payload) {
    let told = &payload.document["workflow_job"];
    let origin = &payload.origin;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let time = |value: &Value| value.as_str().map(|text| text.parse().unwrap());
    assert_eq!(job.run_id, told["run_id"].as_i64().unwrap(), "{origin}");
    assert_eq!(job.name, text(&told["name"]), "{origin}");
    assert_eq!(job.conclusion, text(&told["conclusion"]), "{origin}");
    assert_eq!(json!(job.labels), told["labels"], "{origin}");
    let repository = &payload.document["repository"]["full_name"];
    assert_eq!(job.repository, text(repository), "{origin}");
    if job.state() == JobState::InProgress || job.state() == JobState::Completed {
        assert_eq!(job.started_at, time(&told["started_at"]), "{origin}");
    } else {
        assert_eq!(job.started_at, None, "{origin}");
    }
    assert_eq!(job.completed_at, time(&told["completed_at"]), "{origin}");
}

#[tokio::test]
async fn every_payload_of_a_job_gives_its_state() {
    let mut seen = Vec::new();
    for round in payloads::rounds() {
        let github = Github::start().await;
        for payload in &round {
            let answer = github.tell(payload).await;
            assert_eq!(answer.status, 202, "{}: {answer:?}", payload.origin);
            let state = expected_state(payload);
            let job = github.job_in(payload.job_id(), state).await;
            assert_is_told(&job, payload);
            seen.push(payload.words().0.to_owned());
        }
        let jobs = github.picture().await.jobs;
        assert_eq!(jobs.len(), round.len(), "{jobs:#?}");
    }
    seen.sort();
    let expected = [
        vec!["completed"; 2],
        vec!["in_progress"; 6],
        vec!["queued"; 2],
        vec!["waiting"; 1],
    ];
    assert_eq!(seen, expected.concat(), "the packages have other payloads");
}

#[tokio::test]
async fn a_state_never_goes_back_in_whatever_order_the_news_come() {
    let mut payloads = payloads::of_jobs();
    payloads.sort_by_key(expected_state);
    let mut last = BTreeMap::new();
    for payload in &payloads {
        last.insert(payload.job_id(), expected_state(payload));
    }
    for backwards in [false, true] {
        let github = Github::start().await;
        for payload in &payloads {
            assert_eq!(github.tell(payload).await.status, 202);
        }
        let picture = github.picture().await;
        let states: BTreeMap<_, _> = picture
            .jobs
            .iter()
            .map(|job| (job.id, job.state()))
            .collect();
        assert_eq!(states, last, "backwards: {backwards}");
        payloads.reverse();
    }
}

#[tokio::test]
async fn every_other_event_is_answered_well_and_changes_nothing() {
    let github = Github::start().await;
    for payload in payloads::of_jobs() {
        github.tell(&payload).await;
    }
    let before = github.picture().await;
    let mut kinds = std::collections::BTreeSet::new();
    for payload in payloads::all() {
        if payload.event == "workflow_job" {
            continue;
        }
        let answer = github.tell(&payload).await;
        assert_eq!(answer.status, 200, "{}: {answer:?}", payload.origin);
        assert!(answer.body["ignored"].is_string(), "{answer:?}");
        kinds.insert(payload.event);
    }
    assert!(kinds.len() > 50, "{kinds:?}");
    assert_eq!(github.picture().await, before);
}

#[tokio::test]
async fn the_same_delivery_twice_has_the_effect_of_one() {
    let github = Github::start().await;
    let payloads = payloads::of_jobs();
    let of = |state| {
        let mut payloads = payloads.iter();
        payloads.find(|payload| expected_state(payload) == state)
    };
    let (queued, completed) = (of(JobState::Queued), of(JobState::Completed));
    let (queued, completed) = (queued.unwrap(), completed.unwrap());
    let delivery = github.signed("workflow_job", queued.body());
    assert_eq!(github.post(&delivery).await.status, 202);
    let before = github.picture().await;
    assert_eq!(before.jobs.len(), 1);
    assert_eq!(before.job_events["{state=\"queued\"}"], 1);
    for _ in 0..3 {
        let answer = github.post(&delivery).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body["duplicate"], true, "{answer:?}");
    }
    // Other news under the same id are no news either.
    let replayed = Delivery {
        guid: delivery.guid.clone(),
        ..github.signed("workflow_job", completed.body())
    };
    assert_eq!(github.post(&replayed).await.status, 200);
    assert_eq!(github.picture().await, before);

    // At the same time: exactly one is new.
    let delivery = github.signed("workflow_job", completed.body());
    let all = futures::future::join_all((0..16).map(|_| github.post(&delivery))).await;
    let fresh = all.iter().filter(|answer| answer.status == 202).count();
    assert_eq!(fresh, 1, "{all:?}");
    let after = github.picture().await;
    assert_eq!(after.job_events["{state=\"completed\"}"], 1);
}
