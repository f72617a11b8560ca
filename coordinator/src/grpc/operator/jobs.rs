//! Jobs: the list, one in full, and why one waits.

use std::cmp::Reverse;

use jiff::Timestamp;
use muster_core::{Explanation, Fleet, Job, JobId, JobStatus, Runner};
use muster_proto::v1;
use tonic::Status;

use super::timeline::RECORD_ENTRIES;
use super::{LIST, Shared, as_len, convert, limit, near, now, pools, store_failed, wait};
use crate::store::{StoredEntry, TimelineQuery};

/// Most entries that say what was tried for a job.
const TRIED: usize = 50;
/// Entries of a pool that are looked through for what was tried.
const LOOKED_THROUGH: u32 = 500;

impl Shared {
    pub(super) async fn list_jobs(
        &self,
        request: v1::ListJobsRequest,
    ) -> Result<v1::ListJobsResponse, Status> {
        let most = as_len(limit(request.limit, LIST));
        let status = convert::wanted(request.state());
        let wanted = request.pool.clone();
        let found = self
            .query(move |fleet| {
                let pool = pools::filter(fleet, &wanted)?;
                let mut jobs: Vec<&Job> = fleet
                    .jobs()
                    .filter(|job| pool.is_none() || job.pool() == pool.as_ref())
                    .filter(|job| status.is_none_or(|status| job.status() == status))
                    .collect();
                jobs.sort_by_key(|job| Reverse(age_order(job)));
                Ok(jobs.into_iter().take(most).map(convert::job).collect())
            })
            .await?;
        let jobs = found.map_err(|known| near::not_found("pool", &request.pool, known))?;
        Ok(v1::ListJobsResponse { jobs })
    }

    pub(super) async fn get_job(&self, id: i64) -> Result<v1::GetJobResponse, Status> {
        let (job, runner) = self
            .query(move |fleet| {
                let job = match id {
                    0 => newest(fleet),
                    id => fleet.job(JobId(id)),
                };
                job.map(|job| (job.clone(), runner_of(fleet, job).cloned()))
            })
            .await?
            .ok_or_else(|| no_job(id))?;
        let query = TimelineQuery {
            job: Some(job.id()),
            launch: job.taken_by.clone(),
            limit: RECORD_ENTRIES,
            ..TimelineQuery::default()
        };
        let entries = self.store.timeline(query).await.map_err(store_failed)?;
        Ok(v1::GetJobResponse {
            job: Some(convert::job(&job)),
            timeline: entries.into_iter().map(convert::entry).collect(),
            wait: Some(wait::breakdown(&job, runner.as_ref(), now())),
        })
    }

    pub(super) async fn explain_job(&self, id: i64) -> Result<v1::ExplainJobResponse, Status> {
        let now = now();
        let (job, explanation) = self
            .query(move |fleet| {
                let job = match id {
                    0 => longest_waiting(fleet).or_else(|| newest(fleet)),
                    id => fleet.job(JobId(id)),
                };
                job.and_then(|job| Some((job.clone(), fleet.explain(job.id(), now)?)))
            })
            .await?
            .ok_or_else(|| no_job(id))?;
        let tried = self.tried(&job).await?;
        Ok(explained(&job, explanation, tried))
    }

    /// What was tried for a job: its own entries, and those of its pool's launches since it came.
    async fn tried(&self, job: &Job) -> Result<Vec<String>, Status> {
        let own = TimelineQuery {
            job: Some(job.id()),
            limit: RECORD_ENTRIES,
            ..TimelineQuery::default()
        };
        let mut entries = self.store.timeline(own).await.map_err(store_failed)?;
        if let Some(pool) = job.pool() {
            let of_pool = TimelineQuery {
                pool: Some(pool.clone()),
                limit: LOOKED_THROUGH,
                ..TimelineQuery::default()
            };
            let of_pool = self.store.timeline(of_pool).await.map_err(store_failed)?;
            entries.extend(of_pool.into_iter().filter(|stored| concerns(stored, job)));
        }
        Ok(told(entries))
    }
}

fn explained(job: &Job, explanation: Explanation, tried: Vec<String>) -> v1::ExplainJobResponse {
    let pools = explanation.pools.into_iter();
    v1::ExplainJobResponse {
        job: Some(convert::job(job)),
        summary: explanation.summary,
        pools: pools
            .map(|verdict| v1::PoolVerdict {
                pool: verdict.pool.to_string(),
                accepts: verdict.accepts,
                reason: verdict.reason,
            })
            .collect(),
        tried,
        next: explanation.next,
    }
}

/// Whether an entry of the job's pool tells of a launch that may have been for the job: while it
/// waited, and of no other job.
fn concerns(stored: &StoredEntry, job: &Job) -> bool {
    let entry = &stored.entry;
    let until = job.started_at.or(job.completed_at);
    entry.launch.is_some()
        && entry.job.is_none_or(|id| id == job.id())
        && entry.at >= job.known_at
        && until.is_none_or(|until| entry.at <= until)
}

/// The newest of some entries as sentences, oldest first, each once.
fn told(mut entries: Vec<StoredEntry>) -> Vec<String> {
    entries.sort_by_key(|stored| stored.sequence);
    entries.dedup_by_key(|stored| stored.sequence);
    let newest = entries.split_off(entries.len().saturating_sub(TRIED));
    newest.into_iter().map(sentence).collect()
}

fn sentence(stored: StoredEntry) -> String {
    let entry = stored.entry;
    let at = Timestamp::from_second(entry.at.as_second()).unwrap_or(entry.at);
    let runner = entry.runner.map(|runner| runner.to_string());
    let who = runner.or_else(|| entry.launch.map(|launch| launch.to_string()));
    let who = who.map(|who| format!(" {who}")).unwrap_or_default();
    let detail = match entry.detail.as_str() {
        "" => String::new(),
        detail => format!(": {detail}"),
    };
    format!("{at}{who} {}{detail}", entry.what)
}

fn age_order(job: &Job) -> (Timestamp, JobId) {
    (job.queued_at(), job.id())
}

fn newest(fleet: &Fleet) -> Option<&Job> {
    fleet.jobs().max_by_key(|job| age_order(job))
}

fn longest_waiting(fleet: &Fleet) -> Option<&Job> {
    let waiting = fleet.jobs().filter(|job| job.status() == JobStatus::Queued);
    waiting.min_by_key(|job| age_order(job))
}

fn runner_of<'a>(fleet: &'a Fleet, job: &Job) -> Option<&'a Runner> {
    fleet.runner(job.taken_by.as_ref()?)
}

fn no_job(id: i64) -> Status {
    Status::not_found(match id {
        0 => "no job is known".to_owned(),
        id => format!(
            "job {id} is not known, or was forgotten some time after its end; GetTimeline may \
             still have it"
        ),
    })
}

#[cfg(test)]
mod tests {
    use muster_core::TimelineEntry;

    use super::*;
    use crate::grpc::sample::{at, job};

    fn stored(sequence: i64, second: i64, launch: Option<&str>, job: Option<i64>) -> StoredEntry {
        StoredEntry {
            sequence,
            entry: TimelineEntry {
                at: at(second),
                what: "launch failed".to_owned(),
                detail: "no capacity".to_owned(),
                pool: Some("linux".into()),
                launch: launch.map(Into::into),
                runner: None,
                job: job.map(JobId),
            },
        }
    }

    #[test]
    fn launches_while_the_job_waited_concern_it() {
        let mut job = job(JobStatus::InProgress);
        job.known_at = at(100);
        job.started_at = Some(at(200));
        assert!(concerns(&stored(1, 150, Some("a"), None), &job));
        assert!(concerns(&stored(1, 150, Some("a"), Some(job.id().0)), &job));
        assert!(!concerns(&stored(1, 150, Some("a"), Some(99)), &job));
        assert!(!concerns(&stored(1, 150, None, None), &job));
        assert!(!concerns(&stored(1, 99, Some("a"), None), &job));
        assert!(!concerns(&stored(1, 201, Some("a"), None), &job));
    }

    #[test]
    fn what_was_tried_is_told_in_order_and_once() {
        let entries = vec![
            stored(3, 130, Some("b"), None),
            stored(1, 100, Some("a"), None),
            stored(3, 130, Some("b"), None),
        ];
        assert_eq!(
            told(entries),
            [
                "1970-01-01T00:01:40Z a launch failed: no capacity",
                "1970-01-01T00:02:10Z b launch failed: no capacity"
            ]
        );
        let many = (0..200).map(|number| stored(number, number, None, None));
        let told = told(many.collect());
        assert_eq!(told.len(), TRIED);
        assert!(told[0].starts_with("1970-01-01T00:02:30Z"));
    }
}
