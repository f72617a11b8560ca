//! One call that makes several instances: what is asked, stored before it is asked, and who gets which.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use muster_core::{
    AccountName, ImageId, InstanceId, LaunchFailure, LaunchId, Market, Offering, PoolName, Shape,
};
use serde::{Deserialize, Serialize};

use super::plan::Choice;
use super::settings::{SpotStrategy, Template};
use crate::store::LaunchBatch;

/// Bytes of randomness in a token.
const TOKEN_BYTES: usize = 16;

/// What launches have in common that share a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Alike {
    pub(super) pool: PoolName,
    pub(super) shape: Shape,
    /// The pool's canary, if that is what they take.
    pub(super) canary: Option<ImageId>,
}

/// A batch as it is stored. All that the call is made from is in it, so that it can be made again as it
/// was, whatever the configuration says by then: EC2 refuses the same token with other parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Batch {
    /// The client token.
    pub(super) token: String,
    /// The account.
    pub(super) account: AccountName,
    /// When it was made.
    pub(super) created_at: Timestamp,
    /// The pool of all its launches.
    pub(super) pool: PoolName,
    /// The shape of all its launches.
    pub(super) shape: Shape,
    /// The pool's canary, if that is what its launches take.
    #[serde(default)]
    pub(super) canary: Option<ImageId>,
    /// The launches, sorted: instances are dealt to them in this order.
    pub(super) launches: BTreeSet<LaunchId>,
    /// What is asked for.
    pub(super) request: FleetRequest,
    /// What came of it, once that is known.
    pub(super) outcome: Option<Outcome>,
}

/// A CreateFleet request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FleetRequest {
    pub(super) market: Market,
    pub(super) template: Template,
    pub(super) image: Option<String>,
    pub(super) strategy: SpotStrategy,
    pub(super) choices: Vec<Choice>,
    pub(super) tags: BTreeMap<String, String>,
}

/// What came of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// These launches have instances; the others have none.
    Dealt(BTreeMap<LaunchId, Made>),
    /// None has.
    Refused(String),
}

/// An instance that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) instance: InstanceId,
    pub(super) offering: Offering,
}

/// Why a launch has no instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) failure: LaunchFailure,
    pub(super) detail: String,
}

impl Batch {
    /// What its launches have in common.
    pub(super) fn alike(&self) -> Alike {
        Alike {
            pool: self.pool.clone(),
            shape: self.shape.clone(),
            canary: self.canary.clone(),
        }
    }

    /// The row of the store.
    pub(super) fn to_row(&self) -> Result<LaunchBatch, serde_json::Error> {
        Ok(LaunchBatch {
            token: self.token.clone(),
            account: self.account.clone(),
            created_at: self.created_at,
            settled: self.outcome.is_some(),
            record: serde_json::to_string(self)?,
        })
    }

    /// A row as it was stored.
    pub(super) fn from_row(row: &LaunchBatch) -> Result<Self, serde_json::Error> {
        serde_json::from_str(&row.record)
    }

    /// Deals instances to launches, in the order of their ids, so that it comes out the same each time.
    /// Instances beyond those that were asked for stay without a launch, and are ended as strays.
    pub(super) fn deal(&self, mut made: Vec<Made>) -> BTreeMap<LaunchId, Made> {
        made.sort_by(|a, b| a.instance.cmp(&b.instance));
        self.launches.iter().cloned().zip(made).collect()
    }
}

/// A new client token. None if the system gives no random bytes.
pub(super) fn new_token() -> Option<String> {
    let mut bytes = [0; TOKEN_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("mb-{hex}"))
}

#[cfg(test)]
pub(super) mod fixtures {
    use super::*;
    use crate::compute::ec2::settings::TemplateKey;

    pub(in crate::compute::ec2) fn batch(launches: &[&str]) -> Batch {
        Batch {
            token: new_token().unwrap(),
            account: "main".into(),
            created_at: Timestamp::from_second(1_800_000_000).unwrap(),
            pool: "linux".into(),
            shape: Shape::default(),
            canary: None,
            launches: launches.iter().map(|id| LaunchId::from(*id)).collect(),
            request: FleetRequest {
                market: Market::Spot,
                template: Template {
                    key: TemplateKey::Id("lt-0123456789abcdef0".to_owned()),
                    version: "3".to_owned(),
                },
                image: Some("ami-0123456789abcdef0".to_owned()),
                strategy: SpotStrategy::CapacityOptimized,
                choices: vec![Choice {
                    instance_type: "m7i.large".to_owned(),
                    subnet: "subnet-a".to_owned(),
                    zone: "eu-west-1a".to_owned(),
                }],
                tags: [("muster:coordinator".to_owned(), "muster".to_owned())].into(),
            },
            outcome: None,
        }
    }

    pub(in crate::compute::ec2) fn made(id: &str) -> Made {
        Made {
            instance: id.into(),
            offering: Offering {
                market: Market::Spot,
                instance_type: "m7i.large".to_owned(),
                zone: "eu-west-1a".to_owned(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::{batch, made};
    use super::*;

    #[test]
    fn instances_are_dealt_the_same_way_each_time() {
        let batch = batch(&["l-2", "l-1", "l-3"]);
        let dealt = batch.deal(vec![made("i-b"), made("i-a")]);
        let again = batch.deal(vec![made("i-a"), made("i-b")]);
        assert_eq!(dealt, again);
        let pairs: Vec<_> = dealt
            .iter()
            .map(|(launch, made)| (launch.as_str(), made.instance.as_str()))
            .collect();
        assert_eq!(pairs, [("l-1", "i-a"), ("l-2", "i-b")]);
        let more = batch.deal(["i-1", "i-2", "i-3", "i-4"].map(made).into());
        assert_eq!(more.len(), 3);
    }

    #[test]
    fn a_batch_survives_the_store() {
        let mut batch = batch(&["l-1"]);
        let row = batch.to_row().unwrap();
        assert!(!row.settled);
        assert_eq!(Batch::from_row(&row).unwrap(), batch);
        batch.outcome = Some(Outcome::Dealt(batch.deal(vec![made("i-a")])));
        let row = batch.to_row().unwrap();
        assert!(row.settled);
        assert_eq!(Batch::from_row(&row).unwrap(), batch);
    }

    #[test]
    fn tokens_are_short_ascii_and_never_the_same() {
        let (one, other) = (new_token().unwrap(), new_token().unwrap());
        assert_ne!(one, other);
        assert!(one.len() <= 64 && one.is_ascii());
    }
}
