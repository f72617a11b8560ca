//! A workflow job: a state machine that only goes forward.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::{JobReport, JobStatus};
use crate::ids::{JobId, LaunchId, PoolName};
use crate::matching::Shape;
use crate::rerun::{CutShort, Lineage};

/// What is known of a job. Stored whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What GitHub said last; its status never goes back.
    pub report: JobReport,
    /// When it was first heard of here.
    pub known_at: Timestamp,
    /// Who serves it.
    pub decision: Decision,
    /// The launch whose runner took it, if it is one of ours.
    pub taken_by: Option<LaunchId>,
    /// When it was heard that it started, by GitHub's clock where that is given.
    pub started_at: Option<Timestamp>,
    /// When it was heard that it ended, by GitHub's clock where that is given.
    pub completed_at: Option<Timestamp>,
    /// Why it counts as completed although GitHub has not said that it is.
    #[serde(default)]
    pub closed: Option<Closed>,
    /// True while only old news say that it waits: nothing is launched for it before GitHub was asked.
    #[serde(default)]
    pub doubted: bool,
    /// Since when GitHub says that there is no such job.
    #[serde(default)]
    pub missing_since: Option<Timestamp>,
    /// True once it was told that an idle runner waits for it in vain.
    #[serde(default)]
    pub passed_over: bool,
    /// Set if its host ended in the middle of it.
    #[serde(default)]
    pub cut_short: Option<CutShort>,
    /// What it has of earlier attempts of its run.
    #[serde(default)]
    pub lineage: Lineage,
}

/// Why a job counts as completed although GitHub has not said that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closed {
    /// Its run has a newer attempt, which GitHub makes of completed runs only.
    Superseded,
    /// GitHub does not know it any more: its run or its repository was deleted, or taken out of reach.
    Deleted,
    /// It is older than GitHub lets any job be.
    Expired,
}

impl Closed {
    /// For people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Superseded => "its run has a newer attempt",
            Self::Deleted => "GitHub does not know it any more",
            Self::Expired => "GitHub lets no job be this old",
        }
    }
}

/// Which pool serves a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// This pool does.
    Served {
        /// The pool.
        pool: PoolName,
        /// The size and market that the job asks for.
        shape: Shape,
    },
    /// No pool does; each says why.
    Refused(Vec<Refusal>),
}

impl Decision {
    /// Name of the pool that serves the job.
    #[must_use]
    pub fn pool_name(&self) -> Option<&str> {
        match self {
            Self::Served { pool, .. } => Some(pool.as_str()),
            Self::Refused(_) => None,
        }
    }
}

/// Why a pool does not take a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The pool.
    pub pool: PoolName,
    /// Its reason, for people.
    pub reason: String,
}

impl Job {
    pub(crate) fn new(report: JobReport, decision: Decision, now: Timestamp) -> Self {
        let mut job = Self {
            report,
            known_at: now,
            decision,
            taken_by: None,
            started_at: None,
            completed_at: None,
            closed: None,
            doubted: false,
            missing_since: None,
            passed_over: false,
            cut_short: None,
            lineage: Lineage::default(),
        };
        if job.report.status < JobStatus::InProgress {
            job.report.started_at = None;
        }
        job.note_times(now);
        job
    }

    /// GitHub's id.
    #[must_use]
    pub fn id(&self) -> JobId {
        self.report.id
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> JobStatus {
        self.report.status
    }

    /// When GitHub queued it, or when it was first heard of.
    #[must_use]
    pub fn queued_at(&self) -> Timestamp {
        self.report
            .created_at
            .map_or(self.known_at, |at| at.min(self.known_at))
    }

    /// The pool that serves it.
    #[must_use]
    pub fn pool(&self) -> Option<&PoolName> {
        match &self.decision {
            Decision::Served { pool, .. } => Some(pool),
            Decision::Refused(_) => None,
        }
    }

    /// True while it waits for a runner that we should provide.
    #[must_use]
    pub fn is_demand(&self) -> bool {
        self.report.status == JobStatus::Queued && self.pool().is_some() && !self.doubted
    }

    /// Attempt of its run; old payloads lack it.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.report.run_attempt.unwrap_or(1)
    }

    /// The shape that it is served with, of what its labels ask of a pool.
    pub(crate) fn shaped(&self, asked: Shape) -> Shape {
        Shape {
            market: self.lineage.market.or(asked.market),
            ..asked
        }
    }

    /// Counts it as completed, without GitHub's word.
    pub(crate) fn close(&mut self, why: Closed, now: Timestamp) {
        self.report.status = JobStatus::Completed;
        self.closed = Some(why);
        self.doubted = false;
        self.note_times(now);
    }

    /// Takes back that it has ended: GitHub has it.
    pub(crate) fn reopen(&mut self, status: JobStatus) {
        self.report.status = status;
        self.closed = None;
        self.completed_at = None;
        self.missing_since = None;
    }

    /// Takes news of the job. False if they are no news: the same, or older and with nothing to add.
    ///
    /// What is known in the end doesn't depend on the order in which news come.
    pub(crate) fn update(&mut self, news: &JobReport, now: Timestamp) -> bool {
        let before = self.clone();
        if news.status >= self.report.status {
            self.advance(news);
        } else {
            self.add(news);
        }
        self.note_times(now);
        *self != before
    }

    fn advance(&mut self, news: &JobReport) {
        let old = &mut self.report;
        old.status = news.status;
        old.name.clone_from(&news.name);
        old.repository.clone_from(&news.repository);
        fill(&mut old.run_attempt, news.run_attempt.as_ref());
        fill(&mut old.workflow, news.workflow.as_ref());
        fill(&mut old.conclusion, news.conclusion.as_ref());
        fill(&mut old.runner_name, news.runner_name.as_ref());
        fill(&mut old.created_at, news.created_at.as_ref());
        fill(&mut old.completed_at, news.completed_at.as_ref());
        fill(&mut old.installation, news.installation.as_ref());
        // GitHub fills `started_at` with the time of creation while a job waits.
        if news.status >= JobStatus::InProgress {
            fill(&mut old.started_at, news.started_at.as_ref());
        }
        if news.status == JobStatus::Completed && news.conclusion.is_some() {
            self.closed = None;
        }
    }

    /// Takes from older news what newer ones lacked.
    fn add(&mut self, news: &JobReport) {
        let old = &mut self.report;
        keep(&mut old.run_attempt, news.run_attempt.as_ref());
        keep(&mut old.workflow, news.workflow.as_ref());
        keep(&mut old.created_at, news.created_at.as_ref());
        keep(&mut old.installation, news.installation.as_ref());
        if news.status >= JobStatus::InProgress {
            keep(&mut old.runner_name, news.runner_name.as_ref());
            keep(&mut old.started_at, news.started_at.as_ref());
        }
    }

    fn note_times(&mut self, now: Timestamp) {
        if self.report.status == JobStatus::InProgress && self.started_at.is_none() {
            self.started_at = Some(
                self.report
                    .started_at
                    .map_or(now, |told| sharpened(told, now)),
            );
        }
        if self.report.status == JobStatus::Completed {
            let ran = self
                .report
                .runner_name
                .as_deref()
                .is_some_and(|name| !name.is_empty());
            if self.started_at.is_none() && ran {
                self.started_at = self.report.started_at;
            }
            self.completed_at = self.report.completed_at.or(self.completed_at).or(Some(now));
        }
    }
}

/// GitHub tells whole seconds, cut off. Where it was heard of within that second, our time is nearer.
fn sharpened(told: Timestamp, heard: Timestamp) -> Timestamp {
    let whole = told.subsec_nanosecond() == 0;
    let since = heard.duration_since(told);
    if whole && !since.is_negative() && since.as_secs() == 0 {
        heard
    } else {
        told
    }
}

fn fill<T: Clone>(old: &mut Option<T>, new: Option<&T>) {
    if let Some(new) = new {
        *old = Some(new.clone());
    }
}

fn keep<T: Clone>(old: &mut Option<T>, new: Option<&T>) {
    if old.is_none() {
        *old = new.cloned();
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::event::JobStatus::{Completed, InProgress, Queued, Waiting};
    use crate::fixtures::{at, report};

    #[rstest]
    #[case(Waiting, Queued, true)]
    #[case(Queued, InProgress, true)]
    #[case(Queued, Completed, true)]
    #[case(Queued, Waiting, false)]
    #[case(InProgress, Queued, false)]
    #[case(Completed, InProgress, false)]
    #[case(Completed, Queued, false)]
    fn status_only_goes_forward(
        #[case] from: JobStatus,
        #[case] to: JobStatus,
        #[case] moves: bool,
    ) {
        let mut first = report(1);
        first.status = from;
        let mut job = Job::new(first, Decision::Refused(Vec::new()), at(0));
        let mut news = report(1);
        news.status = to;
        assert_eq!(job.update(&news, at(1)), moves);
        assert_eq!(job.status(), if moves { to } else { from });
    }

    #[test]
    fn whole_seconds_are_sharpened_by_what_was_heard_within_them() {
        let later = |milliseconds| at(0) + std::time::Duration::from_millis(milliseconds);
        assert_eq!(sharpened(at(0), later(400)), later(400));
        assert_eq!(sharpened(at(0), later(1000)), at(0));
        assert_eq!(sharpened(later(1), later(400)), later(1));
        assert_eq!(sharpened(later(2000), later(1500)), later(2000));
    }

    #[test]
    fn the_same_news_twice_are_no_news() {
        let mut job = Job::new(report(1), Decision::Refused(Vec::new()), at(0));
        let mut news = report(1);
        news.status = InProgress;
        news.runner_name = Some("muster-a".into());
        assert!(job.update(&news, at(1)));
        assert!(!job.update(&news, at(2)));
        assert_eq!(job.started_at, Some(at(1)));
    }

    #[test]
    fn a_later_report_without_a_field_does_not_erase_it() {
        let mut job = Job::new(report(1), Decision::Refused(Vec::new()), at(0));
        let mut news = report(1);
        news.workflow = None;
        news.status = Completed;
        assert!(job.update(&news, at(1)));
        assert_eq!(job.report.workflow.as_deref(), Some("ci"));
    }

    #[test]
    fn older_news_add_what_newer_ones_lacked_and_change_nothing() {
        let mut done = report(1);
        done.status = Completed;
        let mut job = Job::new(done, Decision::Refused(Vec::new()), at(9));
        let mut news = report(1);
        news.status = InProgress;
        news.runner_name = Some("muster-a".into());
        news.started_at = Some(at(5));
        news.name = "an old name".into();
        assert!(job.update(&news, at(10)));
        assert_eq!(job.report.runner_name.as_deref(), Some("muster-a"));
        assert_eq!(
            (job.started_at, job.report.name.as_str()),
            (Some(at(5)), "job 1")
        );
        assert!(!job.update(&news, at(11)));
    }

    #[test]
    fn a_job_cancelled_in_the_queue_never_started() {
        let mut cancelled = report(1);
        cancelled.status = Completed;
        cancelled.started_at = Some(at(0));
        let job = Job::new(cancelled, Decision::Refused(Vec::new()), at(5));
        assert_eq!(job.started_at, None);
        assert_eq!(job.completed_at, Some(at(5)));
    }
}
