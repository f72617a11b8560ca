//! Which pool takes a job, by labels, place and visibility.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::event::{JobReport, Repository};
use crate::job::{Decision, Refusal};
use crate::pool::{PoolSpec, Scope, SizeRules};

/// Labels with this prefix ask for a size or a market, and are not carried by pools.
const PREFIX: &str = "muster/";

/// The size and market that a job asks for by its `muster/…` labels. The default asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Shape {
    /// The labels themselves, in lower case. The runner carries them, as GitHub matches them too.
    pub labels: BTreeSet<String>,
    /// Virtual processors.
    pub cpus: Option<u32>,
    /// Memory in GiB.
    pub memory_gib: Option<u32>,
    /// Instance type.
    pub instance_type: Option<String>,
    /// Spot or on-demand.
    pub market: Option<Market>,
}

/// Spot or on-demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Market {
    /// Cheaper, and may be taken back.
    Spot,
    /// Kept until ended.
    OnDemand,
}

impl fmt::Display for Market {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spot => "spot",
            Self::OnDemand => "on-demand",
        })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = self.labels.iter().cloned().collect();
        if words.is_empty() {
            words.push("any size".to_owned());
        }
        let asked = self
            .labels
            .iter()
            .any(|label| label.starts_with("muster/spot="));
        // Chosen for a job whose labels don't say so.
        words.extend(
            self.market
                .filter(|_| !asked)
                .map(|market| market.to_string()),
        );
        f.write_str(&words.join(", "))
    }
}

/// Offers a job to the pools in their order; the first that takes it serves it.
pub(crate) fn decide(pools: &[PoolSpec], job: &JobReport) -> Decision {
    let mut refusals = Vec::new();
    for pool in pools {
        match offer(pool, job) {
            Ok(shape) => {
                return Decision::Served {
                    pool: pool.name.clone(),
                    shape,
                };
            }
            Err(reason) => refusals.push(Refusal {
                pool: pool.name.clone(),
                reason,
            }),
        }
    }
    Decision::Refused(refusals)
}

/// Offers a job to one pool: the shape it would be served with, or why not.
pub(crate) fn offer(pool: &PoolSpec, job: &JobReport) -> Result<Shape, String> {
    in_scope(&pool.scope, &job.repository)?;
    if job.repository.public && !pool.public_repositories {
        return Err(format!(
            "{} is public, and the pool doesn't take jobs of public repositories",
            job.repository
        ));
    }
    let (asked, plain): (Vec<String>, Vec<String>) = job
        .labels
        .iter()
        .map(|label| label.to_lowercase())
        .partition(|label| label.starts_with(PREFIX));
    if plain.is_empty() {
        return Err("the job asks for no label that a pool could carry".to_owned());
    }
    let lacking: Vec<_> = plain
        .iter()
        .filter(|label| !pool.labels.contains(*label))
        .map(String::as_str)
        .collect();
    if !lacking.is_empty() {
        let plural = if lacking.len() == 1 {
            "label"
        } else {
            "labels"
        };
        return Err(format!(
            "the pool lacks the {plural} {}",
            lacking.join(", ")
        ));
    }
    shape(&pool.sizes, &asked)
}

/// Whether runners of this scope can be given jobs of this repository. GitHub's names ignore case.
fn in_scope(scope: &Scope, repository: &Repository) -> Result<(), String> {
    let inside = match scope {
        Scope::Organization(login) => login.eq_ignore_ascii_case(&repository.owner),
        Scope::Repository { owner, name } => {
            owner.eq_ignore_ascii_case(&repository.owner)
                && name.eq_ignore_ascii_case(&repository.name)
        }
        Scope::Enterprise(slug) => repository
            .enterprise
            .as_ref()
            .is_some_and(|enterprise| enterprise.eq_ignore_ascii_case(slug)),
    };
    if inside {
        Ok(())
    } else {
        Err(format!("the pool serves {scope}, not {repository}"))
    }
}

/// Reads `muster/…` labels (already in lower case) under the rules of a pool.
fn shape(rules: &SizeRules, labels: &[String]) -> Result<Shape, String> {
    let mut shape = Shape::default();
    for label in labels {
        if !shape.labels.insert(label.clone()) {
            continue;
        }
        let (key, value) = label
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('='))
            .ok_or_else(|| format!("{label} is not of the form muster/key=value"))?;
        match key {
            "cpu" => set(&mut shape.cpus, number(label, value, &rules.cpus)?, label)?,
            "mem" => set(
                &mut shape.memory_gib,
                number(label, value, &rules.memory_gib)?,
                label,
            )?,
            "type" => {
                let allowed = rules.instance_types.iter().map(String::as_str);
                if !rules.instance_types.contains(value) {
                    return Err(not_allowed(label, &allowed.collect::<Vec<_>>().join(", ")));
                }
                set(&mut shape.instance_type, value.to_owned(), label)?;
            }
            "spot" => set(&mut shape.market, market(rules, label, value)?, label)?,
            _ => {
                return Err(format!(
                    "{label} is not known: expected muster/cpu, mem, type or spot"
                ));
            }
        }
    }
    Ok(shape)
}

fn market(rules: &SizeRules, label: &str, value: &str) -> Result<Market, String> {
    let (market, allowed) = match value {
        "true" => (Market::Spot, rules.spot),
        "false" => (Market::OnDemand, rules.on_demand),
        _ => {
            return Err(format!(
                "{label} is neither muster/spot=true nor muster/spot=false"
            ));
        }
    };
    if allowed {
        return Ok(market);
    }
    let others = match (rules.spot, rules.on_demand) {
        (true, _) => "true",
        (_, true) => "false",
        (false, false) => "",
    };
    Err(not_allowed(label, others))
}

fn number(label: &str, value: &str, allowed: &BTreeSet<u32>) -> Result<u32, String> {
    let number = value
        .parse::<u32>()
        .map_err(|_| format!("{label}: {value} is not a whole number"))?;
    // A runner carries the label as it is: other spellings would make runners that can't take each other's jobs.
    if number.to_string() != value {
        return Err(format!("{label}: {value} is to be written {number}"));
    }
    if allowed.contains(&number) {
        return Ok(number);
    }
    let allowed: Vec<_> = allowed.iter().map(u32::to_string).collect();
    Err(not_allowed(label, &allowed.join(", ")))
}

fn not_allowed(label: &str, allowed: &str) -> String {
    if allowed.is_empty() {
        format!("the pool doesn't allow {label}, nor any other value of it")
    } else {
        format!("the pool doesn't allow {label}; it allows {allowed}")
    }
}

fn set<T: PartialEq>(slot: &mut Option<T>, value: T, label: &str) -> Result<(), String> {
    if slot.as_ref().is_some_and(|old| *old != value) {
        return Err(format!("{label} contradicts another label of the job"));
    }
    *slot = Some(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::fixtures::{pool, report};

    fn labels(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn offered(asked: &[&str]) -> Result<Shape, String> {
        let mut pool = pool("linux");
        pool.sizes = SizeRules {
            cpus: [2, 8].into(),
            memory_gib: [16].into(),
            instance_types: ["c7i.large".to_owned()].into(),
            spot: true,
            on_demand: false,
        };
        let mut job = report(1);
        job.labels = labels(asked);
        offer(&pool, &job)
    }

    #[rstest]
    #[case::all_carried(&["self-hosted", "linux"])]
    #[case::case_is_ignored(&["Self-Hosted", "LINUX"])]
    #[case::fewer_than_carried(&["linux"])]
    #[case::twice_the_same(&["linux", "linux"])]
    #[case::sizes_allowed(&["linux", "muster/cpu=8", "muster/mem=16", "muster/type=c7i.large"])]
    #[case::market_allowed(&["linux", "Muster/Spot=True"])]
    fn job_is_taken(#[case] asked: &[&str]) {
        assert_eq!(offered(asked).err(), None);
    }

    #[rstest]
    #[case(&["linux", "gpu"], "the pool lacks the label gpu")]
    #[case(&["windows", "gpu"], "the pool lacks the labels windows, gpu")]
    #[case(&[], "the job asks for no label that a pool could carry")]
    #[case(&["muster/cpu=2"], "the job asks for no label that a pool could carry")]
    #[case(&["linux", "muster/cpu=4"], "the pool doesn't allow muster/cpu=4; it allows 2, 8")]
    #[case(&["linux", "muster/cpu=two"], "muster/cpu=two: two is not a whole number")]
    #[case(&["linux", "muster/cpu=08"], "muster/cpu=08: 08 is to be written 8")]
    #[case(&["linux", "muster/mem=+16"], "muster/mem=+16: +16 is to be written 16")]
    #[case(&["linux", "muster/cpu=2", "muster/cpu=8"], "muster/cpu=8 contradicts another label of the job")]
    #[case(&["linux", "muster/spot=false"], "the pool doesn't allow muster/spot=false; it allows true")]
    #[case(&["linux", "muster/spot=no"], "muster/spot=no is neither muster/spot=true nor muster/spot=false")]
    #[case(&["linux", "muster/type=m7i.large"], "the pool doesn't allow muster/type=m7i.large; it allows c7i.large")]
    #[case(&["linux", "muster/gpu=1"], "muster/gpu=1 is not known: expected muster/cpu, mem, type or spot")]
    #[case(&["linux", "muster/cpu"], "muster/cpu is not of the form muster/key=value")]
    fn job_is_refused_with_a_reason(#[case] asked: &[&str], #[case] reason: &str) {
        assert_eq!(offered(asked), Err(reason.to_owned()));
    }

    #[test]
    fn public_repository_is_refused_unless_the_pool_says_otherwise() {
        let mut pool = pool("linux");
        let mut job = report(1);
        job.repository.public = true;
        assert!(offer(&pool, &job).is_err_and(|reason| reason.contains("is public")));
        pool.public_repositories = true;
        assert!(offer(&pool, &job).is_ok());
    }

    #[rstest]
    #[case(Scope::Organization("OCTO-org".into()), true)]
    #[case(Scope::Organization("other".into()), false)]
    #[case(Scope::Repository { owner: "octo-org".into(), name: "Hello".into() }, true)]
    #[case(Scope::Repository { owner: "octo-org".into(), name: "other".into() }, false)]
    #[case(Scope::Enterprise("octo".into()), true)]
    #[case(Scope::Enterprise("hecto".into()), false)]
    fn scope_covers_repository(#[case] scope: Scope, #[case] covered: bool) {
        let repository = Repository {
            owner: "octo-org".into(),
            name: "hello".into(),
            public: false,
            enterprise: Some("octo".into()),
        };
        assert_eq!(in_scope(&scope, &repository).is_ok(), covered);
    }

    #[test]
    fn first_pool_that_takes_the_job_serves_it() {
        let mut gpu = pool("gpu");
        gpu.labels.insert("gpu".into());
        let pools = [pool("linux"), gpu];
        assert_eq!(decide(&pools, &report(1)).pool_name(), Some("linux"));
        let mut job = report(2);
        job.labels.push("gpu".into());
        assert_eq!(decide(&pools, &job).pool_name(), Some("gpu"));
        job.labels.push("arm64".into());
        let Decision::Refused(refusals) = decide(&pools, &job) else {
            panic!("no pool has arm64")
        };
        assert_eq!(refusals.len(), 2);
    }
}
