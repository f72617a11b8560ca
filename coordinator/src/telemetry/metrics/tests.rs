use jiff::Timestamp;
use tokio::time::Instant;

use super::*;

fn allowance(of: u32, left: u32, seconds: u64) -> Allowance {
    let until = Instant::now() + Duration::from_secs(seconds);
    Allowance { of, left, until }
}

fn pool() -> PoolName {
    PoolName::from("linux")
}

#[test]
fn every_series_is_told_to_prometheus() {
    let metrics = Metrics::new().unwrap();
    metrics.job_event(JobStatus::Queued);
    metrics.observe_wait(&pool(), Duration::from_millis(7_500));
    metrics.set_pool(
        &pool(),
        &PoolFigures {
            queued_jobs: 3,
            booting: 1,
            idle: 2,
            busy: 4,
            ending: 5,
            maximum: 12,
            exhausted: false,
            limited_by: None,
            canary: CanaryStanding::OnTrial,
        },
    );
    metrics.set_runner_age(&pool(), false, Some(3.25));
    metrics.webhook(WebhookAnswer::Accepted);
    metrics.github_request(Some(201));
    metrics.github_request(Some(502));
    metrics.github_request(None);
    metrics.aws_call("ec2", "CreateFleet", AwsOutcome::Throttled);
    metrics.launch(Ok(()));
    metrics.launch(Err(LaunchFailure::Capacity));
    metrics.trouble(Trouble::Disk);
    metrics.enrolment(EnrolmentOutcome::Second);
    metrics.set_agents(1);
    metrics.host_lost(Loss::Silent);
    metrics.stray(StrayState::Found);
    metrics.lead();
    metrics.ready_if(|| true);
    let until = Timestamp::from_second(1_800_000_000).unwrap();
    metrics.certificate(Certificate::Serving, until);
    metrics.github_limit(GithubLimit::Core, None, allowance(5_000, 1_250, 60));
    insta::assert_snapshot!(metrics.render());
    metrics.set_agents(0);
    let text = metrics.render();
    assert!(text.contains("muster_agents_connected 0\n"), "{text}");
}

#[test]
fn known_series_are_there_before_anything_happens() {
    let text = Metrics::new().unwrap().render();
    for series in [
        "muster_job_events_total{state=\"queued\"} 0",
        "muster_webhooks_total{answer=\"unavailable\"} 0",
        "muster_github_requests_total{status=\"5xx\"} 0",
        "muster_launches_total{outcome=\"capacity\"} 0",
        "muster_launches_total{outcome=\"quota\"} 0",
        "muster_aws_calls_total{call=\"CreateFleet\",outcome=\"throttled\",service=\"ec2\"} 0",
        "muster_aws_calls_total{call=\"GetCallerIdentity\",outcome=\"unanswered\",service=\"sts\"} 0",
        "muster_troubles_total{kind=\"out_of_memory_kill\"} 0",
        "muster_enrolments_total{outcome=\"second\"} 0",
        "muster_hosts_lost_total{kind=\"gone\"} 0",
        "muster_strays_total{state=\"found\"} 0",
        "muster_ready 0",
        "muster_leading 0",
    ] {
        assert!(text.contains(series), "{series} is not in\n{text}");
    }
    assert!(!text.contains("muster_launches_total{outcome=\"throttled\"}"));
}

#[test]
fn two_coordinators_in_one_process_count_apart() {
    let (one, other) = (Metrics::new().unwrap(), Metrics::new().unwrap());
    one.webhook(WebhookAnswer::Accepted);
    let text = other.render();
    assert!(text.contains("muster_webhooks_total{answer=\"accepted\"} 0"));
}

#[test]
fn waits_are_kept_up_to_a_bound_newest_first_to_stay() {
    let metrics = Metrics::new().unwrap();
    for second in 0..WAITS_KEPT as u64 + 5 {
        metrics.observe_wait(&pool(), Duration::from_secs(second));
    }
    let waits = metrics.take_waits();
    assert_eq!(waits[&pool()].len(), WAITS_KEPT);
    assert_eq!(waits[&pool()][0], 5.0);
    assert!(metrics.take_waits().is_empty());
}

#[tokio::test(start_paused = true)]
async fn of_several_limits_the_one_with_the_least_share_left_is_told_until_it_begins_anew() {
    let metrics = Metrics::new().unwrap();
    let told = || {
        let text = metrics.render();
        let value = |family: &str| {
            let series = format!("muster_github_rate_limit_{family}{{limit=\"core\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&series));
            line.map(str::to_owned)
        };
        value("remaining").zip(value("remaining_ratio"))
    };
    let both = |left: &str, ratio: &str| Some((left.to_owned(), ratio.to_owned()));
    assert_eq!(told(), None, "GitHub has not said anything");
    metrics.github_limit(GithubLimit::Core, Some(1), allowance(12_500, 2_500, 60));
    metrics.github_limit(GithubLimit::Core, None, allowance(5_000, 2_400, 90));
    metrics.github_limit(GithubLimit::Registration, Some(1), allowance(10, 0, 60));
    assert_eq!(told(), both("2500", "0.2"));
    metrics.github_limit(GithubLimit::Core, Some(1), allowance(12_500, 12_499, 60));
    assert_eq!(told(), both("2400", "0.48"));
    metrics.github_limit(GithubLimit::Core, Some(1), allowance(12_500, 0, 60));
    assert_eq!(told(), both("0", "0"));
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(told(), both("2400", "0.48"));
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(told(), None);
}
