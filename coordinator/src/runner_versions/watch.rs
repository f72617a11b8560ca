//! Asks for the releases a few times a day, and tells how old the pools' runners are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::select_all;
use jiff::Timestamp;
use muster_core::{ImageId, PoolName, Scope};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Age, ImageRunner, Release, RunnerVersion, RunnerVersions};
use crate::backoff::Backoff;
use crate::compute::{Images, Provider};
use crate::github::{Fetched, GithubClient, GithubError};
use crate::telemetry::Metrics;
use crate::{chance, clock};

/// How often the releases are asked for: there are a few in a month, and days matter.
const RELEASES: Duration = Duration::from_secs(6 * 60 * 60);
/// How often ages are told anew.
const AGES: Duration = Duration::from_secs(60 * 60);
/// Waits after a failure.
const FIRST_WAIT: Duration = Duration::from_secs(60);
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// What is looked at and told.
#[derive(Debug)]
pub struct VersionParts {
    /// Whom the releases are asked of.
    pub client: GithubClient,
    /// Scopes whose installations may ask, in turn while one can't.
    pub scopes: Vec<Scope>,
    /// Who knows the images.
    pub providers: Vec<Provider>,
    /// Where operators look.
    pub versions: RunnerVersions,
    /// Where ages are told.
    pub metrics: Metrics,
}

/// Asks and tells until it is told to stop.
pub async fn watch(parts: VersionParts, stop: CancellationToken) {
    let images: Vec<_> = parts
        .providers
        .iter()
        .filter_map(Provider::images)
        .collect();
    if images.is_empty() || parts.scopes.is_empty() {
        return stop.cancelled().await;
    }
    let watch = Watch {
        parts,
        images,
        releases: Vec::new(),
        etag: None,
        told: BTreeSet::new(),
        warned: BTreeSet::new(),
    };
    let _ = stop.run_until_cancelled(watch.run()).await;
}

struct Watch {
    parts: VersionParts,
    images: Vec<watch::Receiver<Images>>,
    releases: Vec<Release>,
    /// The version of what is known.
    etag: Option<String>,
    /// Whose ages the metrics have.
    told: BTreeSet<(PoolName, bool)>,
    /// Who was warned of since the releases were asked for last.
    warned: BTreeSet<(PoolName, ImageId)>,
}

impl Watch {
    async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut ask_at = Instant::now();
        loop {
            if ask_at <= Instant::now() {
                let wait = match self.ask(backoff.tries()).await {
                    Ok(()) => {
                        backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
                        self.warned.clear();
                        chance::around(RELEASES, 0.9, 1.1)
                    }
                    Err(error) => {
                        tracing::warn!(
                            %error,
                            "the releases of the runner can't be read; how old the pools' runners are is not known anew"
                        );
                        let floor = error.retry_after().unwrap_or(FIRST_WAIT);
                        // What is refused stays so; one look at each interval will do.
                        let refused = matches!(error, GithubError::NotFound(_));
                        if refused {
                            RELEASES
                        } else {
                            backoff.wait_at_least(floor)
                        }
                    }
                };
                ask_at = Instant::now() + wait;
            }
            self.tell(clock::now());
            tokio::select! {
                () = any_changed(&mut self.images) => {}
                () = tokio::time::sleep_until(ask_at.min(Instant::now() + AGES)) => {}
            }
        }
    }

    async fn ask(&mut self, tries: u32) -> Result<(), GithubError> {
        let scopes = &self.parts.scopes;
        let turn = usize::try_from(tries).unwrap_or(0) % scopes.len();
        let Some(scope) = scopes.get(turn) else {
            return Ok(());
        };
        let etag = self.etag.as_deref();
        match self.parts.client.runner_releases(scope, etag).await? {
            Fetched::Same => {}
            Fetched::New { value, etag, .. } => {
                if let Some(newest) = value.iter().max_by_key(|release| release.version) {
                    tracing::info!(
                        version = %newest.version,
                        published_at = %newest.published_at,
                        "the newest runner"
                    );
                }
                (self.releases, self.etag) = (value, etag);
            }
        }
        Ok(())
    }

    /// Tells what is known to operators, figures and the log.
    fn tell(&mut self, now: Timestamp) {
        let mut by_pool = BTreeMap::new();
        for images in &mut self.images {
            let images = images.borrow_and_update();
            for pool in images.pools.keys() {
                by_pool.insert(pool.clone(), known_of(pool, &images, &self.releases, now));
            }
        }
        let mut told = BTreeSet::new();
        for (pool, images) in &by_pool {
            for image in images {
                self.parts
                    .metrics
                    .set_runner_age(pool, image.canary, image.age.map(Age::days));
                told.insert((pool.clone(), image.canary));
                self.warn(pool, image);
            }
        }
        for (pool, canary) in self.told.difference(&told) {
            self.parts.metrics.set_runner_age(pool, *canary, None);
        }
        self.told = told;
        self.parts.versions.set(by_pool);
    }

    fn warn(&mut self, pool: &PoolName, it: &ImageRunner) {
        let (Some(version), Some(age)) = (it.version, it.age) else {
            return;
        };
        if !age.is_warning() || !self.warned.insert((pool.clone(), it.image.clone())) {
            return;
        }
        #[expect(clippy::cast_possible_truncation, reason = "days of releases are few")]
        let days = age.days() as i64;
        let at_least = age.at_least;
        let (pool, image, newest) = (pool.as_str(), it.image.as_str(), age.newest);
        if age.is_alarm() {
            tracing::error!(
                pool, image, canary = it.canary, %version, %newest, days, at_least,
                "GitHub will refuse the image's runner in less than five days: build an image with the newest"
            );
        } else {
            tracing::warn!(
                pool, image, canary = it.canary, %version, %newest, days, at_least,
                "the image's runner grows old: GitHub refuses it 30 days after a newer one was released"
            );
        }
    }
}

async fn any_changed(images: &mut [watch::Receiver<Images>]) {
    let changes = images.iter_mut().map(|it| Box::pin(it.changed()));
    let (changed, ..) = select_all(changes).await;
    if changed.is_err() {
        // A provider that has ended is stopping, as everything is.
        std::future::pending::<()>().await;
    }
}

/// What is known of the images of a pool.
fn known_of(
    pool: &PoolName,
    images: &Images,
    releases: &[Release],
    now: Timestamp,
) -> Vec<ImageRunner> {
    let Some(of_pool) = images.pools.get(pool) else {
        return Vec::new();
    };
    let own = of_pool.own.as_ref().or(of_pool.seen.as_ref());
    let canary = of_pool
        .canary
        .as_ref()
        .filter(|canary| Some(*canary) != own);
    let named = [(own, false), (canary, true)];
    let named = named
        .into_iter()
        .filter_map(|(image, canary)| Some((image?, canary)));
    named
        .map(|(image, canary)| {
            let version = images.runners.get(image).and_then(Option::as_deref);
            let version = version.and_then(RunnerVersion::parse);
            ImageRunner {
                image: image.clone(),
                canary,
                version,
                age: version.and_then(|version| Age::of(version, releases, now)),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
