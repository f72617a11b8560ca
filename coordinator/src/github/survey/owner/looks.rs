//! Looks at one repository, and at one run.

use std::time::Duration;

use tokio::time::Instant;

use super::{Failed, Owner};
use crate::clock;
use crate::engine::Stopped;
use crate::github::errors::GithubError;
use crate::github::runs::Fetched;
use crate::github::survey::news;
use crate::github::survey::place::Key;

/// The statuses of runs in which a job may wait or run.
const OPEN: [&str; 2] = ["queued", "in_progress"];
/// A run may be called so while some of its jobs are queued: as others wait for their turn, or for an approval.
/// <https://github.com/skillberry-ai/cap-evolve/pull/228> saw a pending run with queued jobs.
const HELD: [&str; 2] = ["pending", "waiting"];
impl Owner {
    /// Lists the open runs of a repository. Those that are new and those that have ended are looked at next.
    pub(super) async fn look_at_repository(&mut self, key: &Key) -> Result<u32, Failed> {
        let mut calls = 0;
        let mut unwatched = Vec::new();
        let held = if self.intervals.whole {
            &HELD[..]
        } else {
            let turn = self.place.next_turn(key) % HELD.len();
            &HELD[turn..=turn]
        };
        for status in OPEN.iter().chain(held).copied() {
            let Some(watched) = self.place.repositories.get(key) else {
                return Ok(calls);
            };
            let repository = watched.repository.clone();
            let known = watched.etags.get(status).cloned();
            let began = Instant::now();
            let answer = self
                .parts
                .client
                .runs_with(&repository, status, known.as_deref())
                .await;
            let answer = match answer {
                // It was deleted, or taken from the app: the next list of repositories will say so. If not,
                // nothing that it said before counts.
                Err(GithubError::NotFound(_)) => {
                    self.place.read_anew(key);
                    news::missing(&self.parts.engine, &repository, None).await?;
                    return Ok(calls + 1);
                }
                other => other?,
            };
            calls += self.note(&answer, began);
            if let Fetched::New { value, etag, .. } = answer {
                let now = Instant::now();
                unwatched.extend(self.place.set_runs(key, status, value, etag, now));
            }
        }
        self.place.look_at_ended(key, Instant::now());
        for run in unwatched {
            calls += self.look_at_jobs(key, run).await?;
        }
        Ok(calls)
    }

    pub(super) async fn look_at_run(&mut self, run: i64) -> Result<u32, Failed> {
        let Some(of) = self.place.runs.get(&run).map(|run| run.repository.clone()) else {
            return Ok(0);
        };
        self.look_at_jobs(&of, run).await
    }

    /// Looks at the jobs of a run, which may have ended.
    async fn look_at_jobs(&mut self, of: &Key, run: i64) -> Result<u32, Failed> {
        let Some(watched) = self.place.repositories.get(of) else {
            return Ok(0);
        };
        let repository = watched.repository.clone();
        let known = self.place.runs.get(&run).and_then(|run| run.etag.clone());
        let (began, read_at) = (Instant::now(), clock::now());
        let answer = self
            .parts
            .client
            .jobs_of_run(&repository, run, known.as_deref())
            .await;
        let answer = match answer {
            Err(GithubError::NotFound(_)) => {
                self.place.forget(run);
                news::missing(&self.parts.engine, &repository, Some(run)).await?;
                return Ok(1);
            }
            other => other?,
        };
        let calls = self.note(&answer, began);
        let left = match answer {
            Fetched::Same => self.lost_sight_of(run).await?,
            Fetched::New { value, etag, .. } => {
                if let Some(run) = self.place.runs.get_mut(&run) {
                    run.etag = etag;
                    run.read_at = Some(read_at);
                }
                news::hand_over(&self.parts.engine, value).await?
            }
        };
        match left {
            Some(left) => self.place.look_again(run, left, &self.intervals),
            None => self.place.settle(run),
        }
        Ok(calls)
    }

    /// When to read a run again that is the same, if the fleet has given up jobs of it since it was read.
    async fn lost_sight_of(&self, run: i64) -> Result<Option<Duration>, Stopped> {
        let read_at = self.place.runs.get(&run).and_then(|run| run.read_at);
        let engine = &self.parts.engine;
        let lost = engine.query(move |fleet| news::is_lost(fleet, run, read_at));
        Ok(lost.await?.then_some(Duration::ZERO))
    }
}
