//! The words in which records are stored, as this release writes them.
//!
//! A database is read by two releases while a new one is rolled out, and by the older one after a roll-back. A word
//! that a release doesn't know has the whole record left aside, and one that is renamed is lost to all. So a variant
//! or a field that is new is read by one release and written by the next, and none is renamed. A variant that is
//! added without a line here doesn't compile.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test panics when it fails"
)]

use muster_core::{
    Cause, Closed, Decision, Effect, Instance, Interruption, Job, JobStatus, Market, Outcome,
    PoolState, Registration, Rerun, RerunCall, Runner, Scope, Sign, Work,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn is_read_and_written<T: Serialize + DeserializeOwned>(json: &str) -> T {
    let value: T = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
    assert_eq!(serde_json::to_string(&value).unwrap(), json);
    value
}

macro_rules! words {
    ($test:ident: $type:ty { $($pattern:pat => $json:literal,)+ }) => {
        #[test]
        fn $test() {
            fn line(value: &$type) -> &'static str {
                match value {
                    $($pattern => $json,)+
                }
            }
            for json in [$($json),+] {
                let value: $type = is_read_and_written(json);
                assert_eq!(line(&value), json);
            }
        }
    };
}

words!(statuses_of_jobs: JobStatus {
    JobStatus::Waiting => r#""waiting""#,
    JobStatus::Queued => r#""queued""#,
    JobStatus::InProgress => r#""in_progress""#,
    JobStatus::Completed => r#""completed""#,
});

words!(why_jobs_are_closed: Closed {
    Closed::Superseded => r#""superseded""#,
    Closed::Deleted => r#""deleted""#,
    Closed::Expired => r#""expired""#,
});

words!(who_serves_a_job: Decision {
    Decision::Served { .. } => r#"{"served":{"pool":"linux","shape":{"labels":["muster/cpu=8"],"cpus":8,"memory_gib":null,"instance_type":null,"market":"spot"}}}"#,
    Decision::Refused(_) => r#"{"refused":[{"pool":"linux","reason":"it lacks gpu"}]}"#,
});

words!(markets: Market {
    Market::Spot => r#""spot""#,
    Market::OnDemand => r#""on_demand""#,
});

words!(causes_of_interruptions: Cause {
    Cause::Spot => r#""spot""#,
    Cause::Maintenance => r#""maintenance""#,
    Cause::Lifecycle => r#""lifecycle""#,
    Cause::InstanceGone => r#""instance_gone""#,
    Cause::AgentSilent => r#""agent_silent""#,
    Cause::Stopped => r#""stopped""#,
    Cause::Abandoned => r#""abandoned""#,
});

words!(repetitions: Rerun {
    Rerun::Watched { .. } => r#"{"state":"watched","again_at":"2026-01-02T03:04:05Z"}"#,
    Rerun::Asked => r#"{"state":"asked"}"#,
    Rerun::Done { .. } => r#"{"state":"done","attempt":2}"#,
    Rerun::Left { .. } => r#"{"state":"left","reason":"it ended with cancelled"}"#,
});

words!(what_is_run_again: RerunCall {
    RerunCall::Job(_) => r#"{"job":7}"#,
    RerunCall::FailedJobs => r#""failed_jobs""#,
});

words!(machines: Instance {
    Instance::Requested => r#"{"state":"requested"}"#,
    Instance::Exists { .. } => r#"{"state":"exists","id":"i-1"}"#,
    Instance::Ending { .. } => r#"{"state":"ending","id":"i-1","asked_at":"2026-01-02T03:04:05Z"}"#,
    Instance::Gone { .. } => r#"{"state":"gone","id":"i-1"}"#,
});

words!(registrations: Registration {
    Registration::None => r#"{"state":"none"}"#,
    Registration::Requested => r#"{"state":"requested"}"#,
    Registration::Exists { .. } => r#"{"state":"exists","id":7}"#,
    Registration::Deleting { .. } => r#"{"state":"deleting","id":null,"asked_at":"2026-01-02T03:04:05Z"}"#,
    Registration::Gone => r#"{"state":"gone"}"#,
});

words!(work: Work {
    Work::Booting => r#"{"state":"booting"}"#,
    Work::Enrolled => r#"{"state":"enrolled"}"#,
    Work::Assigning => r#"{"state":"assigning"}"#,
    Work::Starting => r#"{"state":"starting"}"#,
    Work::Idle => r#"{"state":"idle"}"#,
    Work::Busy => r#"{"state":"busy"}"#,
    Work::Found => r#"{"state":"found"}"#,
    Work::Over { .. } => r#"{"state":"over","outcome":"succeeded","reason":""}"#,
});

words!(outcomes: Outcome {
    Outcome::Succeeded => r#""succeeded""#,
    Outcome::Failed => r#""failed""#,
    Outcome::Canceled => r#""canceled""#,
    Outcome::Interrupted => r#""interrupted""#,
    Outcome::Abandoned => r#""abandoned""#,
    Outcome::Unused => r#""unused""#,
    Outcome::StartFailed => r#""start_failed""#,
    Outcome::Lost => r#""lost""#,
    Outcome::VersionRefused => r#""version_refused""#,
    Outcome::StaleVersion => r#""stale_version""#,
    Outcome::Conflict => r#""conflict""#,
});

words!(interruptions: Interruption {
    Interruption::Spot => r#""spot""#,
    Interruption::Rebalance => r#""rebalance""#,
    Interruption::Maintenance => r#""maintenance""#,
    Interruption::Lifecycle => r#""lifecycle""#,
});

words!(what_is_said_of_images: Sign {
    Sign::Good => r#""good""#,
    Sign::Failed => r#""failed""#,
});

words!(scopes: Scope {
    Scope::Organization(_) => r#"{"organization":"acme"}"#,
    Scope::Repository { .. } => r#"{"repository":{"owner":"acme","name":"hello"}}"#,
    Scope::Enterprise(_) => r#"{"enterprise":"acme"}"#,
});

words!(effects: Effect {
    Effect::Launch { .. } => r#"{"effect":"launch","launch":"l","pool":"linux","shape":{"labels":[],"cpus":null,"memory_gib":null,"instance_type":null,"market":null},"image":"ami-1"}"#,
    Effect::Withdraw { .. } => r#"{"effect":"withdraw","launch":"l","account":"main"}"#,
    Effect::Mint { .. } => r#"{"effect":"mint","launch":"l","pool":"linux","name":"muster-linux-l","shape":{"labels":[],"cpus":null,"memory_gib":null,"instance_type":null,"market":null}}"#,
    Effect::Assign { .. } => r#"{"effect":"assign","launch":"l","name":"muster-linux-l"}"#,
    Effect::Drain { .. } => r#"{"effect":"drain","launch":"l","reason":"","deadline":null}"#,
    Effect::Retire { .. } => r#"{"effect":"retire","launch":"l","reason":""}"#,
    Effect::Deregister { .. } => r#"{"effect":"deregister","launch":"l","scope":{"organization":"acme"},"name":"muster-linux-l","id":7}"#,
    Effect::WatchRun { .. } => r#"{"effect":"watch_run","run":{"repository":{"owner":"acme","name":"hello","public":false,"enterprise":null},"run_id":5,"attempt":1}}"#,
    Effect::Rerun { .. } => r#"{"effect":"rerun","run":{"repository":{"owner":"acme","name":"hello","public":false,"enterprise":null},"run_id":5,"attempt":1},"call":"failed_jobs"}"#,
    Effect::Terminate { .. } => r#"{"effect":"terminate","launch":"l","account":"main","instance":"i-1","at_once":true}"#,
    Effect::CloseOffering { .. } => r#"{"effect":"close_offering","account":"main","offering":{"market":"spot","instance_type":"m7i.large","zone":"eu-west-1a"}}"#,
    Effect::TerminateStray { .. } => r#"{"effect":"terminate_stray","account":"main","instance":"i-1"}"#,
});

/// A record with all that it can have, as it is written.
fn whole(text: &str) -> String {
    text.lines().map(str::trim_start).collect()
}

#[test]
fn a_whole_job() {
    let job = whole(include_str!("stored_words/job.json"));
    is_read_and_written::<Job>(&job);
}

#[test]
fn a_whole_runner() {
    let runner = whole(include_str!("stored_words/runner.json"));
    is_read_and_written::<Runner>(&runner);
}

#[test]
fn a_whole_pool() {
    let pool = whole(include_str!("stored_words/pool.json"));
    is_read_and_written::<PoolState>(&pool);
}
