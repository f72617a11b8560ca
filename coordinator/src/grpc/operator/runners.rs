//! Runners: the list, and one in full.

use std::cmp::Reverse;

use muster_core::{Fleet, Runner, Stage};
use muster_proto::v1;
use tonic::Status;

use super::timeline::RECORD_ENTRIES;
use super::{LIST, Shared, as_len, convert, limit, near, pools, store_failed};
use crate::store::TimelineQuery;

impl Shared {
    pub(super) async fn list_runners(
        &self,
        request: v1::ListRunnersRequest,
    ) -> Result<v1::ListRunnersResponse, Status> {
        let most = as_len(limit(request.limit, LIST));
        let wanted = request.pool.clone();
        let found = self
            .query(move |fleet| {
                let pool = pools::filter(fleet, &wanted)?;
                let runners = fleet.runners().filter(|runner| {
                    pool.as_ref().is_none_or(|pool| runner.pool == *pool)
                        && (request.include_gone || runner.stage() != Stage::Gone)
                });
                Ok(newest_first(runners)
                    .into_iter()
                    .take(most)
                    .cloned()
                    .collect())
            })
            .await?;
        let runners: Vec<Runner> =
            found.map_err(|known| near::not_found("pool", &request.pool, known))?;
        let runners = runners.iter().map(|runner| self.shown(runner)).collect();
        Ok(v1::ListRunnersResponse { runners })
    }

    pub(super) async fn get_runner(
        &self,
        request: v1::GetRunnerRequest,
    ) -> Result<v1::GetRunnerResponse, Status> {
        let runner = if request.name.is_empty() {
            let newest = |fleet: &Fleet| newest_first(fleet.runners()).first().copied().cloned();
            self.query(newest)
                .await?
                .ok_or_else(|| Status::not_found("there is no runner at present"))?
        } else {
            self.runner(&request.name).await?
        };
        let query = TimelineQuery {
            launch: Some(runner.launch.clone()),
            limit: RECORD_ENTRIES,
            ..TimelineQuery::default()
        };
        let entries = self.store.timeline(query).await.map_err(store_failed)?;
        let seen = self.presence.get(&runner.launch);
        Ok(v1::GetRunnerResponse {
            runner: Some(convert::runner(&runner, seen.as_ref())),
            latest_sample: seen.and_then(|seen| seen.sample),
            timeline: entries.into_iter().map(convert::entry).collect(),
        })
    }

    /// The runner of this name, launch or instance.
    pub(super) async fn runner(&self, name: &str) -> Result<Runner, Status> {
        let wanted = name.to_owned();
        let (found, known) = self
            .query(move |fleet| {
                let found = fleet.find_runner(&wanted).cloned();
                let known = found.is_none().then(|| runner_names(fleet));
                (found, known)
            })
            .await?;
        found.ok_or_else(|| near::not_found("runner", name, known.unwrap_or_default()))
    }

    /// Names of the runners that are not gone, newest first.
    pub(super) async fn runner_names(&self) -> Result<Vec<String>, Status> {
        self.query(runner_names).await
    }

    pub(super) fn shown(&self, runner: &Runner) -> v1::Runner {
        convert::runner(runner, self.presence.get(&runner.launch).as_ref())
    }
}

fn newest_first<'a>(runners: impl Iterator<Item = &'a Runner>) -> Vec<&'a Runner> {
    let mut runners: Vec<_> = runners.collect();
    runners.sort_by_key(|runner| Reverse((runner.marks.created_at, &runner.launch)));
    runners
}

fn runner_names(fleet: &Fleet) -> Vec<String> {
    let present = fleet
        .runners()
        .filter(|runner| runner.stage() != Stage::Gone);
    let names = newest_first(present).into_iter();
    names.map(|runner| runner.name.to_string()).collect()
}
