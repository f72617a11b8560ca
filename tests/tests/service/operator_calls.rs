//! Every method of the operators' service, called as a person with `buf curl` would.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_proto::v1::RunnerState;
use muster_tests::fakes::github::{JobId, JobSpec, Status};
use muster_tests::world::{Options, World, pool, wait_for};
use serde_json::{Value, json};
use tonic::Code;

use crate::buf::{Buf, SERVICE, methods};
use crate::newcomer::PATIENCE;

const HEALTH: &str = "grpc.health.v1.Health/Check";

/// One runner with a job, and one job that waits, as the pool is full.
struct Busy {
    world: World,
    running: JobId,
    waiting: JobId,
    runner: String,
    buf: Buf,
}

impl Busy {
    async fn start() -> Self {
        let mut options = Options {
            pools: pool("linux", &["self-hosted", "linux"], 0, 1),
            runner_speed: 100,
            ..Options::default()
        };
        // GitHub keeps the registration of a runner that died until then.
        options.github.job_lock = Duration::from_secs(4);
        let world = World::start(options).await.unwrap();
        // Ends with its host only: the test terminates it.
        let job = |name| JobSpec::new("octo-org/hello", name, &["self-hosted", "linux"]);
        let running = world.github.queue_job(job("build").step("sleep 300"));
        let started = world.github.wait_job(running, Status::InProgress, PATIENCE);
        let runner = started.await.unwrap().runner_name.unwrap();
        let waiting = world.github.queue_job(job("test").step("true"));
        let operator = world.operator("alice").await.unwrap();
        let look = async || {
            let mut client = operator.client.clone();
            let request = muster_proto::v1::GetRunnerRequest::default();
            let shown = client.get_runner(request).await?.into_inner();
            let busy = shown
                .runner
                .is_some_and(|it| it.state() == RunnerState::Busy);
            let request = muster_proto::v1::ListJobsRequest::default();
            let jobs = client.list_jobs(request).await?.into_inner().jobs;
            Ok((busy && shown.latest_sample.is_some() && jobs.len() == 2).then_some(()))
        };
        let found = wait_for("a busy runner and a waiting job", PATIENCE, look).await;
        found.unwrap_or_else(|error| panic!("{error}\n{}", world.coordinator.log_tail()));
        let files = world.dir().join("operator-alice");
        let buf = Buf::operator(world.coordinator.addresses().operators, &files);
        Self {
            world,
            running,
            waiting,
            runner,
            buf,
        }
    }

    /// Asks, and gets JSON.
    async fn ask(&self, method: &str, request: &Value) -> Value {
        self.buf
            .call(&format!("{SERVICE}/{method}"), request)
            .await
            .json()
    }

    /// A call that must name what it is about says what it could be about.
    async fn must_name(&self, method: &str, candidate: &str) {
        let path = format!("{SERVICE}/{method}");
        let refused = self.buf.call(&path, &json!({})).await;
        assert!(refused.is_status(Code::InvalidArgument), "{refused:?}");
        assert!(refused.stderr.contains(candidate), "{refused:?}");
        let refused = self.buf.call(&path, &json!({ "name": "nobody" })).await;
        assert!(refused.is_status(Code::NotFound), "{refused:?}");
        assert!(refused.stderr.contains(candidate), "{refused:?}");
    }

    /// Calls a method with an empty request, or with the one field that it needs, and checks what it
    /// answers. A method that is not known here fails the test: give it a call.
    async fn call(&self, method: &str) {
        let (empty, id) = (json!({}), self.running.to_string());
        match method {
            "ListPools" => {
                let pool = &self.ask(method, &empty).await["pools"][0];
                assert_eq!(pool["name"], "linux");
                assert_eq!(pool["scope"], "organization octo-org");
                assert_eq!(pool["labels"], json!(["linux", "self-hosted"]));
                assert_eq!((&pool["max"], &pool["busy"]), (&json!(1), &json!(1)));
                assert_eq!(pool["queuedJobs"], 1);
                assert_eq!(pool["limitedBy"], "the pool has 1 of at most 1 instances");
            }
            "ListRunners" => {
                let runners = self.ask(method, &empty).await;
                self.is_the_busy_one(&runners["runners"][0]);
                assert_eq!(runners["runners"].as_array().unwrap().len(), 1);
            }
            "GetRunner" => {
                let shown = self.ask(method, &empty).await;
                self.is_the_busy_one(&shown["runner"]);
                assert!(shown["latestSample"]["cpuCount"].as_u64().unwrap() > 0);
                is_a_timeline(&shown["timeline"], &["launched", "enrolled", "busy"]);
                let instance = &shown["runner"]["instanceId"];
                let same = self.ask(method, &json!({ "name": instance })).await;
                assert_eq!(same["runner"]["name"], shown["runner"]["name"]);
            }
            "ListJobs" => {
                let jobs = self.ask(method, &empty).await["jobs"].clone();
                let shown: Vec<_> = jobs.as_array().unwrap().iter().collect();
                assert_eq!(shown.len(), 2, "{jobs}");
                assert_eq!(shown[0]["id"], self.waiting.to_string());
                assert_eq!(shown[0]["state"], "JOB_STATE_QUEUED");
                assert_eq!(shown[1]["id"], id);
                assert_eq!(shown[1]["state"], "JOB_STATE_IN_PROGRESS");
                let queued = json!({ "state": "JOB_STATE_QUEUED" });
                let queued = self.ask(method, &queued).await;
                assert_eq!(queued["jobs"].as_array().unwrap().len(), 1);
            }
            "GetJob" => {
                let newest = self.ask(method, &empty).await;
                assert_eq!(newest["job"]["id"], self.waiting.to_string());
                let shown = self.ask(method, &json!({ "id": self.running })).await;
                assert_eq!(shown["job"]["repository"], "octo-org/hello");
                assert_eq!(shown["job"]["runner"], self.runner);
                assert_eq!(shown["job"]["pool"], "linux");
                is_a_timeline(&shown["timeline"], &["queued", "launched", "started"]);
                let wait = &shown["wait"];
                for part in ["launch", "boot", "registration", "total"] {
                    let time = wait[part].as_str().unwrap_or_default();
                    assert!(time.ends_with('s'), "{part} of {shown}");
                }
            }
            "ExplainJob" => {
                let why = self.ask(method, &empty).await;
                assert_eq!(why["job"]["id"], self.waiting.to_string());
                assert!(why["summary"].as_str().unwrap().contains("linux"), "{why}");
                let verdict = &why["pools"][0];
                assert_eq!(
                    (&verdict["pool"], &verdict["accepts"]),
                    (&json!("linux"), &json!(true))
                );
                assert!(why["next"].is_string(), "{why}");
            }
            "GetTimeline" => {
                let all = self.ask(method, &empty).await;
                is_a_timeline(&all["entries"], &["queued", "launched", "busy"]);
                let one = self.ask(method, &json!({ "runner": self.runner })).await;
                is_a_timeline(&one["entries"], &["launched"]);
            }
            "WatchEvents" => {
                let path = format!("{SERVICE}/{method}");
                // It goes on until the caller leaves.
                let first = self.buf.first_line(&path, &empty).await;
                assert!(first.starts_with('{'), "{first}");
                let known = self.buf.call(&path, &json!({ "stopAtEnd": true })).await;
                assert_eq!(known.exit, 0, "{known:?}");
                let entries = serde_json::Deserializer::from_str(&known.stdout);
                let entries: Vec<Value> = entries.into_iter().map(Result::unwrap).collect();
                let entries = entries.into_iter().map(|it| it["entry"].clone()).collect();
                is_a_timeline(&Value::Array(entries), &["queued"]);
            }
            "SetLogLevel" => {
                assert_eq!(self.ask(method, &empty).await["level"], "debug");
                let set = self.ask(method, &json!({ "level": "info" })).await;
                assert_eq!(set["level"], "info");
                assert_eq!(self.ask(method, &empty).await["level"], "info");
            }
            "PausePool" => {
                self.must_name(method, "linux").await;
                let paused = self.ask(method, &json!({ "name": "linux" })).await;
                assert_eq!(paused["pool"]["paused"], true);
            }
            "ResumePool" => {
                self.must_name(method, "linux").await;
                let resumed = self.ask(method, &json!({ "name": "linux" })).await;
                assert_eq!(resumed["pool"]["name"], "linux");
                // False is left out.
                assert_eq!(resumed["pool"].get("paused"), None);
            }
            "DrainRunner" => {
                self.must_name(method, &self.runner).await;
                let drained = self.ask(method, &json!({ "name": self.runner })).await;
                assert_eq!(drained["runner"]["draining"], true);
                assert_eq!(drained["runner"]["state"], "RUNNER_STATE_BUSY");
                assert_eq!(drained["runner"]["reason"], "by alice");
            }
            "TerminateRunner" => {
                self.must_name(method, &self.runner).await;
                let ended = self.ask(method, &json!({ "name": self.runner })).await;
                assert_eq!(ended["runner"]["state"], "RUNNER_STATE_ENDING");
            }
            "ListOperatorActions" => {
                let actions = self.ask(method, &empty).await;
                let told: Vec<_> = actions["actions"].as_array().unwrap().iter().collect();
                for action in &told {
                    assert_eq!(action["operator"], "alice", "{action}");
                    assert!(action["at"].as_str().unwrap().ends_with('Z'), "{action}");
                }
                let told: Vec<_> = told
                    .iter()
                    .map(|action| (action["method"].as_str(), action["target"].as_str()))
                    .collect();
                let runner = Some(self.runner.as_str());
                let expected = [
                    (Some("TerminateRunner"), runner),
                    (Some("DrainRunner"), runner),
                    (Some("ResumePool"), Some("linux")),
                    (Some("PausePool"), Some("linux")),
                    (Some("SetLogLevel"), Some("info")),
                ];
                assert_eq!(told, expected);
            }
            other => panic!("no call is known for {other}: give it one"),
        }
    }

    fn is_the_busy_one(&self, runner: &Value) {
        assert_eq!(runner["name"], self.runner);
        assert_eq!(runner["pool"], "linux");
        assert_eq!(runner["state"], "RUNNER_STATE_BUSY");
        assert_eq!(runner["connected"], true);
        assert_eq!(runner["jobId"], self.running.to_string());
        assert!(runner["createdAt"].as_str().unwrap().ends_with('Z'));
    }
}

fn is_a_timeline(entries: &Value, expected: &[&str]) {
    let entries = entries.as_array().unwrap();
    let told: Vec<_> = entries
        .iter()
        .map(|it| it["what"].as_str().unwrap())
        .collect();
    for word in expected {
        assert!(told.contains(word), "{word} in {told:?}");
    }
    assert!(entries.iter().all(|entry| entry["at"].is_string()));
}

/// What changes something comes after what only looks, and the harshest last.
const CHANGES: [&str; 6] = [
    "SetLogLevel",
    "PausePool",
    "ResumePool",
    "DrainRunner",
    "TerminateRunner",
    "ListOperatorActions",
];

#[tokio::test]
async fn an_operator_lists_what_there_is_and_calls_every_method() {
    let busy = Busy::start().await;
    let mut lists = Vec::new();
    for protocol in ["grpc-v1", "grpc-v1alpha"] {
        let reflect = ["--reflect-protocol", protocol];
        let arguments = [&["--list-services"][..], &reflect].concat();
        let services = busy.buf.run("", &arguments).await;
        let services: BTreeSet<_> = services.stdout.lines().map(str::trim).collect();
        for service in [SERVICE, "grpc.health.v1.Health"] {
            assert!(services.contains(service), "{protocol}: {services:?}");
        }
        let arguments = [&["--data", "{}"][..], &reflect].concat();
        let health = busy.buf.run(HEALTH, &arguments).await;
        assert_eq!(health.json()["status"], "SERVING");
        lists.push(methods(&busy.buf, &reflect).await);
    }
    assert_eq!(lists[0], lists[1]);
    let service = json!({ "service": SERVICE });
    assert_eq!(
        busy.buf.call(HEALTH, &service).await.json()["status"],
        "SERVING"
    );

    let all = lists.remove(0);
    for method in CHANGES {
        assert!(all.contains(method), "{method} in {all:?}");
    }
    let looks = all.iter().map(String::as_str);
    let looks = looks.filter(|method| !CHANGES.contains(method));
    for method in looks {
        busy.call(method).await;
    }
    // Or the next runner takes it when this one is ended.
    assert!(busy.world.github.cancel_job(busy.waiting));
    for method in CHANGES {
        busy.call(method).await;
    }
    let world = busy.world;
    let left = world.wind_down(PATIENCE).await;
    let left = left.unwrap_or_else(|error| panic!("{error}\n{}", world.coordinator.log_tail()));
    assert!(left.is_nothing(), "{left:#?}");
}
