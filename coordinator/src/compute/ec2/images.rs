//! What the pools launch from, and which runner is in it.
//!
//! Nothing that is launched waits for this: it is for those who must hear in time that an image grows old, and for the
//! trial of a pool's canary.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use muster_core::{ImageId, PoolName};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::budget::Budgets;
use super::clients::Clients;
use super::describe::{Seen, TAG_POOL};
use super::error::{self, CallError, Kind};
use super::knowledge::{Knowledge, filter};
use super::settings::{Ec2Settings, ImageSource};
use crate::backoff::Backoff;
use crate::compute::Images;

/// The tag of an image that says which version of the official runner is in it (`ami/cloudformation`).
const TAG_RUNNER: &str = "muster:runner-version";
/// How often all images are looked at again, as tags can be changed.
const AGAIN: Duration = Duration::from_secs(60 * 60);
/// Waits after a failure.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(10 * 60);
/// Values of one filter, as EC2 limits them.
const VALUES: usize = 200;

/// The newest instance of each pool whose launch template has the image.
pub(super) type SeenImages = BTreeMap<PoolName, ImageId>;

/// Who looks at images.
#[derive(Debug)]
pub(super) struct ImageWatch {
    pub(super) settings: Arc<Ec2Settings>,
    pub(super) clients: Clients,
    pub(super) budgets: Arc<Budgets>,
    pub(super) known: watch::Receiver<Knowledge>,
    pub(super) seen: watch::Receiver<SeenImages>,
    pub(super) images: watch::Sender<Images>,
}

impl ImageWatch {
    /// Looks, and keeps looking until it is told to stop.
    pub(super) async fn run(self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.watch()).await;
    }

    async fn watch(mut self) {
        let mut runners = BTreeMap::new();
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut look_at = Instant::now();
        loop {
            let pools = self.pools();
            let named: BTreeSet<ImageId> = pools
                .values()
                .flat_map(|it| [&it.own, &it.seen, &it.canary])
                .flatten()
                .cloned()
                .collect();
            runners.retain(|image, _| named.contains(image));
            let all = look_at <= Instant::now();
            // Whoever waits for the canary need not wait for what is in it.
            self.tell(Images {
                pools: pools.clone(),
                runners: runners.clone(),
            });
            if all || named.iter().any(|image| !runners.contains_key(image)) {
                match self.look(&named).await {
                    Ok(found) => {
                        backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
                        look_at = Instant::now() + AGAIN;
                        runners = found;
                        self.tell(Images {
                            pools,
                            runners: runners.clone(),
                        });
                    }
                    Err(error) => {
                        look_at = Instant::now() + backoff.wait();
                        tracing::warn!(
                            account = self.settings.name.as_str(),
                            %error,
                            "which runner is in the pools' images can't be told"
                        );
                    }
                }
            }
            tokio::select! {
                changed = self.known.changed() => if changed.is_err() { return },
                changed = self.seen.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(look_at) => {}
            }
        }
    }

    fn tell(&self, images: Images) {
        self.images.send_if_modified(|told| {
            let changed = *told != images;
            *told = images;
            changed
        });
    }

    fn pools(&mut self) -> BTreeMap<PoolName, crate::compute::PoolImages> {
        let known = self.known.borrow_and_update();
        let seen = self.seen.borrow_and_update();
        let pools = self.settings.pools.iter();
        pools
            .filter_map(|(name, pool)| {
                let mut images = known.images_of(pool)?;
                images.seen = seen.get(name).cloned();
                Some((name.clone(), images))
            })
            .collect()
    }

    /// The runner in each of these; none in one that EC2 doesn't show, or that doesn't say.
    async fn look(
        &self,
        named: &BTreeSet<ImageId>,
    ) -> Result<BTreeMap<ImageId, Option<String>>, CallError> {
        let mut found: BTreeMap<ImageId, Option<String>> =
            named.iter().map(|image| (image.clone(), None)).collect();
        let ids: Vec<String> = named.iter().map(ToString::to_string).collect();
        for some in ids.chunks(VALUES) {
            self.budgets.describe.spend().await;
            // By id, one that is gone would fail the call for all.
            let call = self.clients.ec2.describe_images();
            let output = call.filters(filter("image-id", some)).send().await;
            let output = output.map_err(|error| {
                let error = error::of_call("DescribeImages", &error);
                if error.kind == Kind::Throttled {
                    self.budgets.describe.refused();
                }
                error
            })?;
            for image in output.images() {
                let tag = image
                    .tags()
                    .iter()
                    .find(|tag| tag.key() == Some(TAG_RUNNER));
                let version = tag.and_then(|tag| tag.value()).map(str::to_owned);
                if let Some(id) = image.image_id() {
                    found.insert(ImageId::new(id), version);
                }
            }
        }
        Ok(found)
    }
}

/// The image that each pool's launch template has, by the newest instance that was launched by it.
pub(super) fn seen_images<'a>(
    settings: &Ec2Settings,
    canaries: &Images,
    seen: impl Iterator<Item = &'a Seen>,
) -> SeenImages {
    let mut newest: BTreeMap<PoolName, &Seen> = BTreeMap::new();
    for one in seen.filter(|one| !one.image.is_empty()) {
        let Some(pool) = one.tags.get(TAG_POOL).map(PoolName::new) else {
            continue;
        };
        let template = |pool| settings.pools.get(pool).map(|it| &it.image);
        if template(&pool) != Some(&ImageSource::Template) {
            continue;
        }
        let canary = canaries.pools.get(&pool).and_then(|it| it.canary.as_ref());
        if canary.is_some_and(|canary| canary.as_str() == one.image) {
            continue;
        }
        let known = newest.entry(pool).or_insert(one);
        if known.launched_at < one.launched_at {
            *known = one;
        }
    }
    let newest = newest.into_iter();
    newest
        .map(|(pool, one)| (pool, ImageId::new(&one.image)))
        .collect()
}
