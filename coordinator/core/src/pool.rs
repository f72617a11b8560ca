//! What a pool is: where its runners register, which jobs it takes, how many it may have.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::canary::{CanaryRules, Trial};
use crate::ids::{AccountName, PoolName};
use crate::matching::Shape;
use crate::rerun::RerunPolicy;

/// The checked definition of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// Its name.
    pub name: PoolName,
    /// Where its runners register.
    pub scope: Scope,
    /// Name of the runner group at GitHub.
    pub runner_group: String,
    /// Labels that its runners carry, in lower case.
    pub labels: BTreeSet<String>,
    /// Sizes and markets that a job may ask for by `muster/…` labels.
    pub sizes: SizeRules,
    /// Whether jobs of public repositories are taken.
    pub public_repositories: bool,
    /// Account that its instances live in.
    pub account: AccountName,
    /// Runners that should wait idle.
    pub min_idle: u32,
    /// Most instances, in whatever state, that it may have.
    pub max: u32,
    /// Time limits.
    pub limits: TimeLimits,
    /// What is done with jobs whose host went in the middle of them; none leaves them to people.
    pub rerun: Option<RerunPolicy>,
    /// How much it trusts its second image; none if it has only one.
    pub canary: Option<CanaryRules>,
}

/// Where a pool's runners register with GitHub.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// An organisation, by its login.
    Organization(String),
    /// A repository.
    Repository {
        /// Login of the owner.
        owner: String,
        /// Name without the owner.
        name: String,
    },
    /// An enterprise, by its slug.
    Enterprise(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Organization(login) => write!(f, "organization {login}"),
            Self::Repository { owner, name } => write!(f, "repository {owner}/{name}"),
            Self::Enterprise(slug) => write!(f, "enterprise {slug}"),
        }
    }
}

/// Which `muster/…` labels a pool allows. The default allows none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SizeRules {
    /// Values allowed in `muster/cpu=`, in virtual processors.
    pub cpus: BTreeSet<u32>,
    /// Values allowed in `muster/mem=`, in GiB.
    pub memory_gib: BTreeSet<u32>,
    /// Values allowed in `muster/type=`.
    pub instance_types: BTreeSet<String>,
    /// Whether `muster/spot=true` is allowed.
    pub spot: bool,
    /// Whether `muster/spot=false` is allowed.
    pub on_demand: bool,
}

/// How long each thing may take in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// From the instance known to the instance enrolled.
    pub boot: Duration,
    /// From enrolled to the runner listening, without the time that GitHub holds its registration up.
    pub start: Duration,
    /// How long a runner that nobody needs stays idle.
    pub idle: Duration,
    /// From the launch decided to the instance gone, whatever it does.
    pub lifetime: Duration,
    /// How long an agent may be silent while no job runs.
    pub silence: Duration,
    /// How long an agent may be silent while a job runs. GitHub gives a job up after ten minutes
    /// without its runner (actions/runner, `JobDispatcher.cs`: the lock of a job).
    pub silence_busy: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self {
            boot: Duration::from_secs(5 * 60),
            start: Duration::from_secs(6 * 60),
            idle: Duration::from_secs(10 * 60),
            lifetime: Duration::from_secs(12 * 60 * 60),
            silence: Duration::from_secs(60),
            silence_busy: Duration::from_secs(11 * 60),
        }
    }
}

/// What is remembered of a pool across a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolState {
    /// Set while an operator keeps it from launching: who, and why.
    pub paused: Option<String>,
    /// Launches that failed in a row.
    pub failures: u32,
    /// No launch before this time.
    pub closed_until: Option<jiff::Timestamp>,
    /// Why the last launch failed.
    pub last_failure: Option<String>,
    /// Shapes whose launches failed; the others go on.
    #[serde(default)]
    pub held: Vec<Hold>,
    /// How its canary does, once its image is known.
    #[serde(default)]
    pub trial: Option<Trial>,
    /// Tallies that were begun.
    #[serde(default)]
    pub tallies: u32,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            shape,
            until,
            reason,
            ..
        } = self;
        write!(
            f,
            "launches of {shape} are held back until {until:.0}: {reason}"
        )
    }
}

/// Launches of one shape that are held back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The shape.
    pub shape: Shape,
    /// Its launches that failed in a row.
    pub failures: u32,
    /// None before this time.
    pub until: jiff::Timestamp,
    /// Why the last failed.
    pub reason: String,
    /// Whether the provider has nothing of the kind, whenever it is asked.
    pub unfit: bool,
}
