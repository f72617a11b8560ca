//! The figures: counted here once, told to Prometheus as text and to CloudWatch by [`super::emf`].
//!
//! No label names an instance, a job or a repository: each value of a label is a series that somebody
//! pays for.

mod labels;
mod present;
mod series;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_core::{
    CanaryStanding, Difference, JobStatus, LaunchFailure, Loss, PoolFigures, PoolName, RerunAnswer,
    Trouble,
};
use prometheus::proto::MetricFamily;
use prometheus::{
    GaugeVec, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use self::present::Present;
pub use self::present::{Allowance, Certificate, GithubLimit};
use super::outcomes::{AwsOutcome, EnrolmentOutcome, StrayState, WebhookAnswer};

/// Waits of one pool that are kept for the next emission to CloudWatch; older ones give way.
const WAITS_KEPT: usize = 1_000;

/// The figures of one coordinator. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    job_events: IntCounterVec,
    runners: IntGaugeVec,
    jobs_queued: IntGaugeVec,
    pool_maximum: IntGaugeVec,
    pool_exhausted: IntGaugeVec,
    canary_stopped: IntGaugeVec,
    runner_age: GaugeVec,
    job_wait: HistogramVec,
    webhooks: IntCounterVec,
    github_requests: IntCounterVec,
    aws_calls: IntCounterVec,
    launches: IntCounterVec,
    troubles: IntCounterVec,
    losses: IntCounterVec,
    strays: IntCounterVec,
    differences: IntCounterVec,
    reruns: IntCounterVec,
    notice: IntGauge,
    /// By owner, as no label may name one.
    notices: Arc<Mutex<BTreeMap<String, Duration>>>,
    enrolments: IntCounterVec,
    agents_connected: IntGauge,
    present: Present,
    /// Exact waits in seconds, by pool: a histogram's buckets can't be turned into what CloudWatch
    /// makes percentiles of. A lock, as the emitter takes them all at once, once a minute.
    waits: Arc<Mutex<BTreeMap<PoolName, VecDeque<f64>>>>,
}

impl Metrics {
    /// A job was heard to have a status that it did not have before.
    pub fn job_event(&self, status: JobStatus) {
        let state = match status {
            JobStatus::Waiting => "waiting",
            JobStatus::Queued => "queued",
            JobStatus::InProgress => "in_progress",
            JobStatus::Completed => "completed",
        };
        self.job_events.with_label_values(&[state]).inc();
    }

    /// A job started after it had been queued for this long.
    pub fn observe_wait(&self, pool: &PoolName, wait: Duration) {
        let seconds = wait.as_secs_f64();
        self.job_wait
            .with_label_values(&[pool.as_str()])
            .observe(seconds);
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = waits.entry(pool.clone()).or_default();
        if waits.len() == WAITS_KEPT {
            waits.pop_front();
        }
        waits.push_back(seconds);
    }

    /// The figures of a pool are these now.
    pub fn set_pool(&self, pool: &PoolName, figures: &PoolFigures) {
        let states = [
            ("up", figures.idle + figures.busy),
            ("idle", figures.idle),
            ("busy", figures.busy),
            ("booting", figures.booting),
            ("ending", figures.ending),
        ];
        for (state, count) in states {
            self.runners
                .with_label_values(&[pool.as_str(), state])
                .set(i64::from(count));
        }
        self.jobs_queued
            .with_label_values(&[pool.as_str()])
            .set(i64::from(figures.queued_jobs));
        self.pool_maximum
            .with_label_values(&[pool.as_str()])
            .set(i64::from(figures.maximum));
        self.pool_exhausted
            .with_label_values(&[pool.as_str()])
            .set(i64::from(figures.exhausted));
        let stopped = match figures.canary {
            CanaryStanding::None => {
                // It was not there, most likely.
                let _ = self.canary_stopped.remove_label_values(&[pool.as_str()]);
                return;
            }
            CanaryStanding::OnTrial => 0,
            CanaryStanding::Stopped => 1,
        };
        self.canary_stopped
            .with_label_values(&[pool.as_str()])
            .set(stopped);
    }

    /// For so many days there has been a newer runner than that in a pool's image, its own or its canary; none
    /// if that is not known.
    pub fn set_runner_age(&self, pool: &PoolName, canary: bool, days: Option<f64>) {
        let labels = [pool.as_str(), if canary { "canary" } else { "own" }];
        match days {
            Some(days) => self.runner_age.with_label_values(&labels).set(days),
            // As above.
            None => drop(self.runner_age.remove_label_values(&labels)),
        }
    }

    /// A webhook was answered.
    pub fn webhook(&self, answer: WebhookAnswer) {
        self.webhooks.with_label_values(&[answer.label()]).inc();
    }

    /// GitHub answered a request with this HTTP status, or with none.
    pub fn github_request(&self, status: Option<u16>) {
        let class = match status {
            Some(200..300) => "2xx",
            Some(300..400) => "3xx",
            Some(400..500) => "4xx",
            Some(500..600) => "5xx",
            Some(_) | None => "error",
        };
        self.github_requests.with_label_values(&[class]).inc();
    }

    /// A call to AWS ended so.
    pub fn aws_call(&self, service: &str, call: &str, outcome: AwsOutcome) {
        self.aws_calls
            .with_label_values(&[service, call, outcome.label()])
            .inc();
    }

    /// A launch had this outcome.
    pub fn launch(&self, outcome: Result<(), LaunchFailure>) {
        self.launches
            .with_label_values(&[labels::launch(outcome)])
            .inc();
    }

    /// An agent warned of something.
    pub fn trouble(&self, kind: Trouble) {
        self.troubles
            .with_label_values(&[labels::trouble(kind)])
            .inc();
    }

    /// A host ended otherwise than it should.
    pub fn host_lost(&self, kind: Loss) {
        self.losses.with_label_values(&[labels::loss(kind)]).inc();
    }

    /// An instance with our mark that nobody knows was found, or ended.
    pub fn stray(&self, state: StrayState) {
        self.strays.with_label_values(&[state.label()]).inc();
    }

    /// Reconciliation found something.
    pub fn difference(&self, kind: Difference) {
        self.differences
            .with_label_values(&[labels::difference(kind)])
            .inc();
    }

    /// GitHub was asked to run jobs again.
    pub fn rerun(&self, answer: &RerunAnswer) {
        self.reruns
            .with_label_values(&[labels::rerun(answer)])
            .inc();
    }

    /// A job of this owner that no webhook tells of is noticed within this time; the longest is told.
    pub fn set_notice(&self, owner: &str, bound: Duration) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        notices.insert(owner.to_owned(), bound);
        let longest = notices.values().max().map_or(0, Duration::as_secs);
        self.notice.set(i64::try_from(longest).unwrap_or(i64::MAX));
    }

    /// A machine tried to enrol.
    pub fn enrolment(&self, outcome: EnrolmentOutcome) {
        self.enrolments.with_label_values(&[outcome.label()]).inc();
    }

    /// Sets how many agents hold a stream.
    pub fn set_agents(&self, connected: usize) {
        self.agents_connected
            .set(i64::try_from(connected).unwrap_or(i64::MAX));
    }

    /// All figures in Prometheus' text format
    /// (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
    #[must_use]
    pub fn render(&self) -> String {
        let text = TextEncoder::new().encode_to_string(&self.gather());
        text.unwrap_or_else(|error| format!("# figures can't be told: {error}\n"))
    }

    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.present.refresh();
        self.registry.gather()
    }

    /// The waits since the last call, in seconds.
    pub(super) fn take_waits(&self) -> BTreeMap<PoolName, VecDeque<f64>> {
        std::mem::take(&mut *self.waits.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests;
