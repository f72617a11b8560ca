//! Figures that are looked up when they are told: who this coordinator is, what GitHub's limits leave, and until
//! when certificates are good.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;
use prometheus::{GaugeVec, IntGauge, IntGaugeVec, Opts, Registry};
use tokio::time::Instant;

use super::Metrics;
use super::series::gauge;

/// One of GitHub's hourly limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GithubLimit {
    /// Of most calls, each installation and the app for itself.
    Core,
    /// Of the registration of runners.
    Registration,
}

impl GithubLimit {
    const ALL: [Self; 2] = [Self::Core, Self::Registration];

    fn label(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Registration => "registration",
        }
    }
}

/// Where a limit stands, in calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allowance {
    /// What there is in an hour.
    pub of: u32,
    /// What is left.
    pub left: u32,
    /// When all of it is there again.
    pub until: Instant,
}

impl Allowance {
    fn ratio(&self) -> f64 {
        f64::from(self.left) / f64::from(self.of.max(1))
    }
}

/// A certificate that expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// That of the authority, the one that issues.
    Authority,
    /// The coordinator's own, which all its listeners show.
    Serving,
}

impl Certificate {
    fn label(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Serving => "serving",
        }
    }
}

type Allowances = BTreeMap<(GithubLimit, Option<i64>), Allowance>;
type Probe = Box<dyn Fn() -> bool + Send + Sync>;

/// What is looked up. Cheap to clone.
#[derive(Clone)]
pub(super) struct Present {
    ready: IntGauge,
    leading: IntGauge,
    certificates: IntGaugeVec,
    remaining: IntGaugeVec,
    remaining_ratio: GaugeVec,
    probe: Arc<OnceLock<Probe>>,
    /// By limit and installation, none for the app itself: no label may name one. A lock, as it is held for a
    /// look at each of a few.
    allowances: Arc<Mutex<Allowances>>,
}

impl fmt::Debug for Present {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Present").finish_non_exhaustive()
    }
}

impl Present {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            ready: IntGauge::new(
                "muster_ready",
                "1 while the coordinator should get traffic.",
            )?,
            leading: IntGauge::new("muster_leading", "1 while the coordinator leads.")?,
            certificates: gauge(
                "muster_certificate_expiry_timestamp_seconds",
                "When a certificate expires, in Unix time.",
                &["certificate"],
            )?,
            remaining: gauge(
                "muster_github_rate_limit_remaining",
                "Calls that GitHub allows before its limit begins anew; of several installations, of the one with the least share left.",
                &["limit"],
            )?,
            remaining_ratio: GaugeVec::new(
                Opts::new(
                    "muster_github_rate_limit_remaining_ratio",
                    "The same as a share of the limit.",
                ),
                &["limit"],
            )?,
            probe: Arc::default(),
            allowances: Arc::default(),
        })
    }

    pub(super) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.ready.clone()))?;
        registry.register(Box::new(self.leading.clone()))?;
        registry.register(Box::new(self.certificates.clone()))?;
        registry.register(Box::new(self.remaining.clone()))?;
        registry.register(Box::new(self.remaining_ratio.clone()))
    }

    /// Brings the gauges up to date.
    pub(super) fn refresh(&self) {
        let ready = self.probe.get().is_some_and(|probe| probe());
        self.ready.set(i64::from(ready));
        let now = Instant::now();
        let mut allowances = self
            .allowances
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A limit that has begun anew may have been used since by nobody: what it leaves is not known.
        allowances.retain(|_, allowance| allowance.until > now);
        for limit in GithubLimit::ALL {
            let label = [limit.label()];
            let of_limit = allowances.iter().filter(|((of, _), _)| *of == limit);
            let least = of_limit
                .map(|(_, allowance)| *allowance)
                .min_by(|one, other| one.ratio().total_cmp(&other.ratio()));
            if let Some(least) = least {
                let (left, ratio) = (i64::from(least.left), least.ratio());
                self.remaining.with_label_values(&label).set(left);
                self.remaining_ratio.with_label_values(&label).set(ratio);
            } else {
                // That there is none to remove says the same.
                let _ = self.remaining.remove_label_values(&label);
                let _ = self.remaining_ratio.remove_label_values(&label);
            }
        }
    }
}

impl Metrics {
    /// Whether the coordinator should get traffic is asked of `probe` from now on; until then it shouldn't. Only
    /// the first counts.
    pub fn ready_if(&self, probe: impl Fn() -> bool + Send + Sync + 'static) {
        // Nobody asks for it twice but tests.
        let _ = self.present.probe.set(Box::new(probe));
    }

    /// This coordinator leads from now on.
    pub fn lead(&self) {
        self.present.leading.set(1);
    }

    pub(in crate::telemetry) fn leads(&self) -> bool {
        self.present.leading.get() == 1
    }

    /// GitHub said where one of the limits of an installation stands, or of the app itself.
    pub fn github_limit(&self, limit: GithubLimit, of: Option<i64>, allowance: Allowance) {
        let mut allowances = self
            .present
            .allowances
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        allowances.insert((limit, of), allowance);
    }

    /// A certificate that is in use is good until then.
    pub fn certificate(&self, which: Certificate, until: Timestamp) {
        self.present
            .certificates
            .with_label_values(&[which.label()])
            .set(until.as_second());
    }
}
