//! Which series there are, and those that are there from the start.

use std::sync::Arc;

use muster_core::{Difference, Loss, Trouble};
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::present::Present;
use super::{Metrics, labels};
use crate::telemetry::outcomes::{AwsOutcome, EnrolmentOutcome, StrayState, WebhookAnswer};

/// Upper bounds of the buckets of waits, in seconds.
const WAIT_BUCKETS: [f64; 13] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0,
];

/// The calls to AWS that there are, each with its service: all their series are there from the start.
const AWS_CALLS: [(&str, &str); 11] = [
    ("ec2", "CreateFleet"),
    ("ec2", "DescribeImages"),
    ("ec2", "DescribeInstanceTypes"),
    ("ec2", "DescribeInstances"),
    ("ec2", "DescribeSubnets"),
    ("ec2", "TerminateInstances"),
    ("sqs", "DeleteMessageBatch"),
    ("sqs", "ReceiveMessage"),
    ("ssm", "GetParameters"),
    ("sts", "AssumeRole"),
    ("sts", "GetCallerIdentity"),
];

impl Metrics {
    /// Figures that are all zero.
    ///
    /// # Errors
    /// Only if two series have one name: when this program is wrong.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let metrics = Self {
            job_events: counter("muster_job_events_total", "Events of jobs.", "state")?,
            runners: gauge(
                "muster_runners",
                "Runners; up are those that are idle or busy.",
                &["pool", "state"],
            )?,
            jobs_queued: gauge(
                "muster_jobs_queued",
                "Jobs that wait for a runner.",
                &["pool"],
            )?,
            pool_maximum: gauge(
                "muster_pool_maximum",
                "Instances that the pool may have.",
                &["pool"],
            )?,
            pool_exhausted: gauge(
                "muster_pool_exhausted",
                "1 while jobs wait as the pool, or its account, has all instances that it may have.",
                &["pool"],
            )?,
            canary_stopped: gauge(
                "muster_canary_stopped",
                "1 once the pool's canary failed too often and takes no launch any more.",
                &["pool"],
            )?,
            runner_age: GaugeVec::new(
                Opts::new(
                    "muster_runner_version_age_days",
                    "Days since a newer runner was released than that in the pool's image; GitHub refuses it after 30.",
                ),
                &["pool", "image"],
            )?,
            job_wait: HistogramVec::new(
                HistogramOpts::new("muster_job_wait_seconds", "From queued to started.")
                    .buckets(WAIT_BUCKETS.to_vec()),
                &["pool"],
            )?,
            webhooks: counter("muster_webhooks_total", "Webhooks, by answer.", "answer")?,
            github_requests: counter(
                "muster_github_requests_total",
                "Requests to GitHub, by class of status; error is no answer.",
                "status",
            )?,
            aws_calls: IntCounterVec::new(
                Opts::new(
                    "muster_aws_calls_total",
                    "Calls to AWS, by service, call and outcome; unanswered is no answer.",
                ),
                &["service", "call", "outcome"],
            )?,
            launches: counter("muster_launches_total", "Launches, by outcome.", "outcome")?,
            troubles: counter(
                "muster_troubles_total",
                "What agents warned of, by kind.",
                "kind",
            )?,
            losses: counter(
                "muster_hosts_lost_total",
                "Hosts that ended otherwise than they should, by kind.",
                "kind",
            )?,
            strays: counter(
                "muster_strays_total",
                "Instances with our mark that nobody knows: found, and ended.",
                "state",
            )?,
            differences: counter(
                "muster_github_differences_total",
                "What reconciliation with GitHub found that no webhook had told of, by kind.",
                "kind",
            )?,
            reruns: counter(
                "muster_reruns_total",
                "Requests to run interrupted jobs again, by outcome.",
                "outcome",
            )?,
            notice: IntGauge::new(
                "muster_github_notice_seconds",
                "How long a queued job may stay unnoticed that no webhook tells of.",
            )?,
            notices: Arc::default(),
            enrolments: counter(
                "muster_enrolments_total",
                "Enrolments, by outcome; second is a security event.",
                "outcome",
            )?,
            agents_connected: IntGauge::new(
                "muster_agents_connected",
                "Agents that hold a stream.",
            )?,
            present: Present::new()?,
            waits: Arc::default(),
            registry,
        };
        metrics.register()?;
        metrics.show_zeros();
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let registry = &self.registry;
        registry.register(Box::new(self.job_events.clone()))?;
        registry.register(Box::new(self.runners.clone()))?;
        registry.register(Box::new(self.jobs_queued.clone()))?;
        registry.register(Box::new(self.canary_stopped.clone()))?;
        registry.register(Box::new(self.runner_age.clone()))?;
        registry.register(Box::new(self.job_wait.clone()))?;
        registry.register(Box::new(self.webhooks.clone()))?;
        registry.register(Box::new(self.github_requests.clone()))?;
        registry.register(Box::new(self.aws_calls.clone()))?;
        registry.register(Box::new(self.launches.clone()))?;
        registry.register(Box::new(self.troubles.clone()))?;
        registry.register(Box::new(self.differences.clone()))?;
        registry.register(Box::new(self.reruns.clone()))?;
        registry.register(Box::new(self.notice.clone()))?;
        registry.register(Box::new(self.enrolments.clone()))?;
        registry.register(Box::new(self.agents_connected.clone()))?;
        registry.register(Box::new(self.pool_maximum.clone()))?;
        registry.register(Box::new(self.pool_exhausted.clone()))?;
        registry.register(Box::new(self.losses.clone()))?;
        registry.register(Box::new(self.strays.clone()))?;
        self.present.register(registry)
    }

    /// Makes the series whose labels are known, so that their first increase is seen as one.
    fn show_zeros(&self) {
        for state in ["queued", "in_progress", "completed"] {
            self.job_events.with_label_values(&[state]);
        }
        for answer in WebhookAnswer::ALL {
            self.webhooks.with_label_values(&[answer.label()]);
        }
        for status in ["2xx", "3xx", "4xx", "5xx", "error"] {
            self.github_requests.with_label_values(&[status]);
        }
        for (service, call) in AWS_CALLS {
            for outcome in AwsOutcome::ALL {
                self.aws_calls
                    .with_label_values(&[service, call, outcome.label()]);
            }
        }
        // No provider gives up a launch because of a throttle.
        for outcome in ["launched", "capacity", "quota", "permanent"] {
            self.launches.with_label_values(&[outcome]);
        }
        for outcome in EnrolmentOutcome::ALL {
            self.enrolments.with_label_values(&[outcome.label()]);
        }
        for kind in Loss::ALL {
            self.losses.with_label_values(&[labels::loss(kind)]);
        }
        for state in StrayState::ALL {
            self.strays.with_label_values(&[state.label()]);
        }
        for kind in Difference::ALL {
            self.differences
                .with_label_values(&[labels::difference(kind)]);
        }
        for outcome in ["started", "newer", "refused"] {
            self.reruns.with_label_values(&[outcome]);
        }
        for kind in Trouble::ALL {
            self.troubles.with_label_values(&[labels::trouble(kind)]);
        }
    }
}

fn counter(name: &str, help: &str, label: &str) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), &[label])
}

pub(super) fn gauge(
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    IntGaugeVec::new(Opts::new(name, help), labels)
}
