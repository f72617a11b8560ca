//! What happened to a job or a runner.

use muster_core::JobId;
use muster_proto::v1;
use tonic::Status;

use super::{Shared, convert, limit, store_failed};
use crate::store::TimelineQuery;

/// Entries of a timeline, unless the request says otherwise, and the most it may ask for.
const ENTRIES: (u32, u32) = (200, 1_000);
/// Entries that come with a job or a runner.
pub(super) const RECORD_ENTRIES: u32 = 200;

impl Shared {
    pub(super) async fn get_timeline(
        &self,
        request: v1::GetTimelineRequest,
    ) -> Result<v1::GetTimelineResponse, Status> {
        let launch = match request.runner.as_str() {
            "" => None,
            name => Some(self.runner(name).await?.launch),
        };
        let job = (request.job_id != 0).then_some(JobId(request.job_id));
        let query = TimelineQuery {
            job,
            launch,
            limit: limit(request.limit, ENTRIES),
            ..TimelineQuery::default()
        };
        let entries = self.store.timeline(query).await.map_err(store_failed)?;
        if let (Some(job), true) = (job, entries.is_empty()) {
            return Err(Status::not_found(format!("nothing is known of job {job}")));
        }
        Ok(v1::GetTimelineResponse {
            entries: entries.into_iter().map(convert::entry).collect(),
        })
    }
}
