//! How old the official runners in the pools' images are. GitHub gives no jobs to a runner 30 days after a newer one
//! was released (<https://docs.github.com/en/actions/reference/runners/self-hosted-runners>), so somebody must hear
//! of it before. Nothing is refused or stopped by it here.

mod age;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use muster_core::{ImageId, PoolName};

pub use self::age::{Age, Release, RunnerVersion};
pub use self::watch::{VersionParts, watch};

/// What is known of an image in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRunner {
    /// The image.
    pub image: ImageId,
    /// Whether it is the pool's canary.
    pub canary: bool,
    /// The runner in it; none if its tag doesn't say.
    pub version: Option<RunnerVersion>,
    /// How old that is; none if the releases are not known.
    pub age: Option<Age>,
}

/// What is known of the images in use, by pool. Cheap to clone.
///
/// Behind a lock, which is held for a look: one task writes, and operators read.
#[derive(Clone, Debug, Default)]
pub struct RunnerVersions(Arc<Mutex<BTreeMap<PoolName, Vec<ImageRunner>>>>);

impl RunnerVersions {
    /// The images of a pool, as far as they are known.
    #[must_use]
    pub fn of(&self, pool: &PoolName) -> Vec<ImageRunner> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(pool).cloned().unwrap_or_default()
    }

    fn set(&self, now: BTreeMap<PoolName, Vec<ImageRunner>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}
