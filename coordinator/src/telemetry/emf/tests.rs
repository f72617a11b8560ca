use std::time::Duration;

use muster_core::{CanaryStanding, JobStatus, LaunchFailure, PoolFigures};
use tokio::time::Instant;

use super::super::{Allowance, Certificate, GithubLimit, WebhookAnswer};
use super::*;

const UNITS: [&str; 3] = ["Count", "Seconds", "None"];

/// Checks a line against the rules of the specification that it could break.
fn check(line: &str) -> Value {
    assert!(line.len() < 16 << 10, "log drivers split lines of 16 KiB");
    let root: Value = serde_json::from_str(line).unwrap();
    let aws = &root["_aws"];
    let now = Timestamp::now().as_millisecond();
    let at = aws["Timestamp"].as_i64().unwrap();
    assert!(at > now - 14 * 86_400_000 && at < now + 7_200_000);
    for directive in aws["CloudWatchMetrics"].as_array().unwrap() {
        let namespace = directive["Namespace"].as_str().unwrap();
        assert!(!namespace.is_empty() && namespace.len() <= 256);
        let sets = directive["Dimensions"].as_array().unwrap();
        assert!(!sets.is_empty());
        for name in sets.iter().flat_map(|set| set.as_array().unwrap()) {
            assert_eq!(name, "Pool", "the only dimension");
            let value = root["Pool"].as_str().unwrap();
            assert!(!value.is_empty() && value.len() <= 1024 && value.is_ascii());
        }
        let metrics = directive["Metrics"].as_array().unwrap();
        assert!(!metrics.is_empty() && metrics.len() <= 100);
        let mut names = std::collections::BTreeSet::new();
        for metric in metrics {
            let name = metric["Name"].as_str().unwrap();
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{name}");
            assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "{name}");
            assert!(names.insert(name.to_owned()), "{name} twice");
            assert!(UNITS.contains(&metric["Unit"].as_str().unwrap()));
            match &root[name] {
                Value::Number(_) => {}
                Value::Array(values) => {
                    assert!(!values.is_empty() && values.len() <= 100);
                    assert!(values.iter().all(Value::is_number));
                }
                other => panic!("{name} is {other}"),
            }
        }
        let members = root.as_object().unwrap().len();
        let pool = usize::from(root.get("Pool").is_some());
        assert_eq!(members, 1 + pool + names.len(), "nothing beside");
    }
    root
}

fn busy() -> (Metrics, PoolName) {
    let metrics = Metrics::new().unwrap();
    metrics.lead();
    let pool = PoolName::from("linux");
    metrics.job_event(JobStatus::InProgress);
    metrics.webhook(WebhookAnswer::Accepted);
    metrics.github_request(Some(404));
    metrics.launch(Err(LaunchFailure::Throttled));
    metrics.set_pool(
        &pool,
        &PoolFigures {
            queued_jobs: 7,
            idle: 2,
            ..PoolFigures::default()
        },
    );
    metrics.observe_wait(&pool, Duration::from_millis(1_234));
    (metrics, pool)
}

fn lines(emitter: &mut Emitter) -> Vec<Value> {
    let lines = emitter.lines(Timestamp::now());
    lines.iter().map(|line| check(line)).collect()
}

/// What the lines tell under a name; nothing if they don't.
fn told_as<'a>(lines: &'a [Value], name: &str) -> &'a Value {
    let told = lines.iter().find_map(|line| line.get(name));
    told.unwrap_or(&Value::Null)
}

#[test]
fn every_line_obeys_the_specification_and_has_its_figures() {
    let (metrics, _) = busy();
    metrics.set_agents(1);
    let lines = lines(&mut Emitter::new(metrics, "Muster".to_owned()));
    let [global @ .., pool, waits] = &lines[..] else {
        panic!()
    };
    assert!(global.len() > 1, "more than 100 metrics take another line");
    for line in global {
        let dimensions = &line["_aws"]["CloudWatchMetrics"][0]["Dimensions"];
        assert_eq!(*dimensions, json!([[]]));
    }
    for (name, value) in [
        ("JobEventsInProgress", 1),
        ("JobEventsQueued", 0),
        ("WebhooksAccepted", 1),
        ("GithubRequests4xx", 1),
        ("LaunchesThrottled", 1),
        ("AgentsConnected", 1),
    ] {
        assert_eq!(*told_as(global, name), value, "{name}");
    }
    assert_eq!(pool["Pool"], "linux");
    assert_eq!(pool["JobsQueued"], 7);
    assert_eq!(pool["RunnersIdle"], 2);
    assert_eq!(waits["JobWait"], json!([1.234]));
}

#[test]
fn every_series_of_prometheus_is_told() {
    let (metrics, _) = busy();
    let families: Vec<String> = metrics
        .gather()
        .iter()
        .map(|family| base_name(family.name()).replace("Seconds", ""))
        .collect();
    let lines = lines(&mut Emitter::new(metrics, "Muster".to_owned()));
    let told: Vec<&String> = lines
        .iter()
        .flat_map(|line| line.as_object().unwrap().keys())
        .collect();
    for family in families {
        assert!(
            told.iter().any(|name| name.starts_with(&family)),
            "{family}"
        );
    }
}

#[test]
fn counters_are_told_as_what_was_added() {
    let (metrics, pool) = busy();
    let mut emitter = Emitter::new(metrics.clone(), "Muster".to_owned());
    lines(&mut emitter);
    metrics.webhook(WebhookAnswer::Accepted);
    metrics.webhook(WebhookAnswer::Accepted);
    let second = lines(&mut emitter);
    assert_eq!(*told_as(&second, "JobWait"), Value::Null, "no waits");
    assert_eq!(*told_as(&second, "WebhooksAccepted"), 2);
    assert_eq!(*told_as(&second, "JobEventsInProgress"), 0);
    assert_eq!(*told_as(&second, "JobsQueued"), 7, "gauges stay");
    metrics.observe_wait(&pool, Duration::from_secs(9));
    assert_eq!(*told_as(&lines(&mut emitter), "JobWait"), json!([9]));
}

#[test]
fn many_pools_and_waits_take_many_lines() {
    let metrics = Metrics::new().unwrap();
    metrics.lead();
    for n in 0..50 {
        let pool = PoolName::new(format!("pool-{n}"));
        metrics.set_pool(&pool, &PoolFigures::default());
        for wait in 0..250 {
            metrics.observe_wait(&pool, Duration::from_micros(wait * 1_234_567));
        }
    }
    let lines = lines(&mut Emitter::new(metrics, "Muster".to_owned()));
    let waits: usize = lines
        .iter()
        .filter_map(|line| line.get("JobWait"))
        .map(|waits| waits.as_array().unwrap().len())
        .sum();
    assert_eq!(waits, 50 * 250);
    let of_pools = lines.iter().filter(|line| line.get("Pool").is_some());
    assert_eq!(of_pools.count(), 50 + 50 * 3);
}

fn allowance(of: u32, left: u32) -> Allowance {
    let until = Instant::now() + Duration::from_secs(600);
    Allowance { of, left, until }
}

/// Has every series that there can be.
fn everything() -> Metrics {
    let (metrics, pool) = busy();
    let stopped = PoolFigures {
        canary: CanaryStanding::Stopped,
        ..PoolFigures::default()
    };
    metrics.set_pool(&pool, &stopped);
    for canary in [false, true] {
        metrics.set_runner_age(&pool, canary, Some(25.5));
    }
    for failure in [
        LaunchFailure::Capacity,
        LaunchFailure::Quota,
        LaunchFailure::Throttled,
        LaunchFailure::Unfit,
        LaunchFailure::Withdrawn,
        LaunchFailure::Permanent,
    ] {
        metrics.launch(Err(failure));
    }
    for certificate in [Certificate::Authority, Certificate::Serving] {
        metrics.certificate(certificate, Timestamp::now());
    }
    for limit in [GithubLimit::Core, GithubLimit::Registration] {
        metrics.github_limit(limit, None, allowance(5_000, 4_000));
    }
    metrics
}

/// Each metric with its dimension, name and unit.
fn told(metrics: Metrics) -> BTreeMap<String, (String, String)> {
    let mut told = BTreeMap::new();
    for line in lines(&mut Emitter::new(metrics, "Muster".to_owned())) {
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        let dimension = directive["Dimensions"][0][0].as_str().unwrap_or("-");
        for metric in directive["Metrics"].as_array().unwrap() {
            let [name, unit] = ["Name", "Unit"].map(|key| metric[key].as_str().unwrap());
            told.insert(name.to_owned(), (dimension.to_owned(), unit.to_owned()));
        }
    }
    told
}

/// `tests/deploy/check` holds the alarms and the dashboard against this list.
#[test]
fn all_that_can_be_told() {
    let leader = told(everything());
    // The same, by one that doesn't lead.
    let follower = Metrics::new().unwrap();
    follower.certificate(Certificate::Authority, Timestamp::now());
    follower.certificate(Certificate::Serving, Timestamp::now());
    for limit in [GithubLimit::Core, GithubLimit::Registration] {
        follower.github_limit(limit, None, allowance(5_000, 4_000));
    }
    let follower = told(follower);
    let list: Vec<String> = leader
        .iter()
        .map(|(name, (dimension, unit))| {
            let by = if follower.contains_key(name) {
                "all"
            } else {
                "leader"
            };
            format!("{name} {dimension} {unit} {by}")
        })
        .collect();
    assert!(follower.keys().all(|name| leader.contains_key(name)));
    insta::assert_snapshot!(list.join("\n"));
}

#[test]
fn who_does_not_lead_spoils_no_figure_of_who_does() {
    let metrics = Metrics::new().unwrap();
    metrics.webhook(WebhookAnswer::Accepted);
    metrics.github_request(None);
    metrics.observe_wait(&"linux".into(), Duration::from_secs(1));
    let mut emitter = Emitter::new(metrics.clone(), "Muster".to_owned());
    let [line] = &lines(&mut emitter)[..] else {
        panic!("one line, of no pool")
    };
    assert_eq!(line["WebhooksAccepted"], 1);
    assert_eq!((&line["Ready"], &line["Leading"]), (&json!(0), &json!(0)));
    for name in [
        "AgentsConnected",
        "GithubNoticeSeconds",
        "GithubRequestsError",
    ] {
        assert!(line.get(name).is_none(), "{name}");
    }
    // What was counted before it led is told once it does.
    metrics.lead();
    let later = lines(&mut emitter);
    for (name, value) in [
        ("Leading", 1),
        ("AgentsConnected", 0),
        ("GithubRequestsError", 1),
        ("WebhooksAccepted", 0),
    ] {
        assert_eq!(*told_as(&later, name), value, "{name}");
    }
    assert_eq!(*told_as(&later, "JobWait"), json!([1]));
}

#[test]
fn a_time_is_told_as_the_seconds_until_then() {
    let metrics = Metrics::new().unwrap();
    let now = Timestamp::now();
    let hour = Duration::from_secs(3_600);
    metrics.certificate(Certificate::Authority, now + hour);
    metrics.certificate(Certificate::Serving, now - hour);
    let mut emitter = Emitter::new(metrics, "Muster".to_owned());
    let line = check(&emitter.lines(now)[0]);
    assert_eq!(line["CertificateExpiryAuthority"], 3_600);
    assert_eq!(line["CertificateExpiryServing"], -3_600);
}
