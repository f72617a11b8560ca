//! What EC2 says of an instance, beside what the ledger expects of one that enrols for the first time.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use muster_core::PoolName;
use thiserror::Error;

use crate::compute::{InstanceFacts, InstanceState, LaunchedAs};

/// How far EC2's clock may be ahead of ours.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// What is expected of an instance.
#[derive(Debug)]
pub(super) struct Expected<'a> {
    /// The name of this coordinator.
    pub(super) coordinator: &'a str,
    /// The pool of its launch.
    pub(super) pool: &'a PoolName,
    /// Where it connects from.
    pub(super) peer: Peer,
    /// How old it may be.
    pub(super) launched_within: Duration,
}

/// Where an instance connects from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    /// It doesn't count: there may be a load balancer in between.
    Any,
    /// From this address; none if the listener didn't tell.
    At(Option<IpAddr>),
}

/// EC2 and the ledger don't agree.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Mismatch {
    /// It is on its way out, or was stopped.
    #[error("the instance is {0:?}, not pending or running")]
    State(InstanceState),
    /// It connects from elsewhere: somebody else may have its credentials.
    #[error("it connects from {}, and the instance's address is {}", shown(.peer), shown(.private_ip))]
    Address {
        peer: Option<IpAddr>,
        private_ip: Option<IpAddr>,
    },
    /// It is no first boot.
    #[error("it was launched at {0}, which is not recent")]
    Age(Timestamp),
    /// Its tags are not those of its launch. Their values aren't shown: anybody may have written them.
    #[error("its tag {0} is not what it was launched with")]
    Tag(&'static str),
    /// It was made from another image.
    #[error("its image is {image}, and it was launched from {launched}")]
    Image {
        /// The image that EC2 names.
        image: String,
        /// The image of its launch.
        launched: String,
    },
    /// It is in another subnet.
    #[error("it is in {}, and it was launched into {}", .subnet.as_deref().unwrap_or("no subnet"), listed(.launched))]
    Subnet {
        /// The subnet that EC2 names.
        subnet: Option<String>,
        /// The subnets of its launch.
        launched: BTreeSet<String>,
    },
    /// The ledger has it, and what it was launched as is not known any more.
    #[error("it is not known what it was launched as")]
    NotLaunched,
}

/// Compares. Tags are compared with what the ledger says, and used for nothing else.
pub(super) fn check(
    facts: &InstanceFacts,
    expected: &Expected<'_>,
    now: Timestamp,
) -> Result<(), Mismatch> {
    if !matches!(facts.state, InstanceState::Pending | InstanceState::Running) {
        return Err(Mismatch::State(facts.state));
    }
    if let Peer::At(peer) = expected.peer {
        let private_ip = facts.private_ip;
        let (from, own) = (canonical(peer), canonical(private_ip));
        if from.is_none() || from != own {
            return Err(Mismatch::Address { peer, private_ip });
        }
    }
    let age = now.duration_since(facts.launched_at);
    let recent = Duration::try_from(age).map_or_else(
        |_| age.unsigned_abs() <= CLOCK_SKEW,
        |age| age <= expected.launched_within,
    );
    if !recent {
        return Err(Mismatch::Age(facts.launched_at));
    }
    if facts.coordinator.as_deref() != Some(expected.coordinator) {
        return Err(Mismatch::Tag("muster:coordinator"));
    }
    if facts.pool.as_deref() != Some(expected.pool.as_str()) {
        return Err(Mismatch::Tag("muster:pool"));
    }
    match &facts.launched_as {
        Some(launched_as) => check_launch(facts, launched_as),
        None => Err(Mismatch::NotLaunched),
    }
}

/// Compares with what the call asked for that made it.
fn check_launch(facts: &InstanceFacts, launched_as: &LaunchedAs) -> Result<(), Mismatch> {
    if facts.batch.as_ref() != Some(&launched_as.batch) {
        return Err(Mismatch::Tag("muster:batch"));
    }
    // Where the launch template had the choice, nobody wrote down which it was.
    if let Some(launched) = &launched_as.image
        && facts.image != *launched
    {
        return Err(Mismatch::Image {
            image: facts.image.clone(),
            launched: launched.clone(),
        });
    }
    let offered = |subnet: &String| launched_as.subnets.contains(subnet);
    if !facts.subnet.as_ref().is_some_and(offered) {
        return Err(Mismatch::Subnet {
            subnet: facts.subnet.clone(),
            launched: launched_as.subnets.clone(),
        });
    }
    Ok(())
}

fn canonical(address: Option<IpAddr>) -> Option<IpAddr> {
    address.map(|address| address.to_canonical())
}

fn shown(address: &Option<IpAddr>) -> String {
    address.map_or_else(|| "not known".to_owned(), |address| address.to_string())
}

fn listed(subnets: &BTreeSet<String>) -> String {
    let names: Vec<_> = subnets.iter().map(String::as_str).collect();
    names.join(" or ")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn facts() -> InstanceFacts {
        InstanceFacts {
            state: InstanceState::Running,
            image: "ami-0123456789abcdef0".to_owned(),
            subnet: Some("subnet-a".to_owned()),
            private_ip: Some("10.0.0.1".parse().unwrap()),
            launched_at: now() - Duration::from_secs(30),
            coordinator: Some("muster".to_owned()),
            pool: Some("linux".to_owned()),
            batch: Some("mb-1".to_owned()),
            launched_as: Some(LaunchedAs {
                batch: "mb-1".to_owned(),
                image: Some("ami-0123456789abcdef0".to_owned()),
                subnets: ["subnet-a", "subnet-b"].map(str::to_owned).into(),
            }),
        }
    }

    fn launched_as(facts: &mut InstanceFacts) -> &mut LaunchedAs {
        facts.launched_as.as_mut().unwrap()
    }

    fn checked(change: fn(&mut InstanceFacts), peer: Option<&str>) -> Result<(), Mismatch> {
        let peer = peer.map_or(Peer::Any, |peer| Peer::At(peer.parse().ok()));
        checked_from(change, peer)
    }

    fn checked_from(change: fn(&mut InstanceFacts), peer: Peer) -> Result<(), Mismatch> {
        let mut facts = facts();
        change(&mut facts);
        let expected = Expected {
            coordinator: "muster",
            pool: &"linux".into(),
            peer,
            launched_within: Duration::from_secs(600),
        };
        check(&facts, &expected, now())
    }

    #[rstest]
    #[case::as_it_should(|_: &mut _| {}, Some("10.0.0.1"))]
    #[case::mapped(|_: &mut _| {}, Some("::ffff:10.0.0.1"))]
    #[case::no_address_asked(|facts: &mut InstanceFacts| facts.private_ip = None, None)]
    #[case::pending(|facts: &mut InstanceFacts| facts.state = InstanceState::Pending, None)]
    #[case::another_subnet_of_the_pool(|facts: &mut InstanceFacts| facts.subnet = Some("subnet-b".to_owned()), None)]
    #[case::image_of_the_template(|facts: &mut InstanceFacts| {
        facts.image = "ami-0fedcba9876543210".to_owned();
        launched_as(facts).image = None;
    }, None)]
    #[case::clock_ahead(|facts: &mut InstanceFacts| facts.launched_at = now() + Duration::from_secs(60), None)]
    fn an_instance_as_it_was_launched_passes(
        #[case] change: fn(&mut InstanceFacts),
        #[case] peer: Option<&str>,
    ) {
        assert_eq!(checked(change, peer), Ok(()));
    }

    #[rstest]
    #[case::ending(|facts: &mut InstanceFacts| facts.state = InstanceState::ShuttingDown)]
    #[case::stopped(|facts: &mut InstanceFacts| facts.state = InstanceState::Stopped)]
    #[case::unknown(|facts: &mut InstanceFacts| facts.state = InstanceState::Unknown)]
    #[case::elsewhere(|facts: &mut InstanceFacts| facts.private_ip = Some("10.0.0.2".parse().unwrap()))]
    #[case::nowhere(|facts: &mut InstanceFacts| facts.private_ip = None)]
    #[case::old(|facts: &mut InstanceFacts| facts.launched_at = now() - Duration::from_secs(601))]
    #[case::future(|facts: &mut InstanceFacts| facts.launched_at = now() + Duration::from_secs(3_600))]
    #[case::anothers(|facts: &mut InstanceFacts| facts.coordinator = Some("another".to_owned()))]
    #[case::nobodys(|facts: &mut InstanceFacts| facts.coordinator = None)]
    #[case::other_pool(|facts: &mut InstanceFacts| facts.pool = Some("big".to_owned()))]
    #[case::climbing(|facts: &mut InstanceFacts| facts.pool = Some("../linux".to_owned()))]
    #[case::escaped(|facts: &mut InstanceFacts| facts.pool = Some("%6cinux".to_owned()))]
    #[case::upper(|facts: &mut InstanceFacts| facts.pool = Some("Linux".to_owned()))]
    #[case::other_batch(|facts: &mut InstanceFacts| facts.batch = Some("mb-2".to_owned()))]
    #[case::no_batch(|facts: &mut InstanceFacts| facts.batch = None)]
    #[case::other_image(|facts: &mut InstanceFacts| facts.image = "ami-0fedcba9876543210".to_owned())]
    #[case::no_image(|facts: &mut InstanceFacts| facts.image.clear())]
    #[case::other_subnet(|facts: &mut InstanceFacts| facts.subnet = Some("subnet-c".to_owned()))]
    #[case::no_subnet(|facts: &mut InstanceFacts| facts.subnet = None)]
    #[case::not_ours(|facts: &mut InstanceFacts| facts.launched_as = None)]
    fn an_instance_that_differs_is_refused(#[case] change: fn(&mut InstanceFacts)) {
        assert!(checked(change, Some("10.0.0.1")).is_err());
    }

    #[test]
    fn an_address_that_is_asked_for_and_not_known_is_no_match() {
        let nowhere = |facts: &mut InstanceFacts| facts.private_ip = None;
        assert!(checked_from(nowhere, Peer::At(None)).is_err());
        assert!(checked_from(|_| {}, Peer::At(None)).is_err());
    }

    #[rstest]
    #[case(
        |facts: &mut InstanceFacts| facts.image = "ami-1".to_owned(),
        "its image is ami-1, and it was launched from ami-0123456789abcdef0"
    )]
    #[case(
        |facts: &mut InstanceFacts| facts.subnet = Some("subnet-c".to_owned()),
        "it is in subnet-c, and it was launched into subnet-a or subnet-b"
    )]
    #[case(
        |facts: &mut InstanceFacts| facts.batch = Some("mb-2".to_owned()),
        "its tag muster:batch is not what it was launched with"
    )]
    fn a_mismatch_names_what_differs(#[case] change: fn(&mut InstanceFacts), #[case] told: &str) {
        assert_eq!(checked(change, None).unwrap_err().to_string(), told);
    }

    #[test]
    fn a_mismatch_shows_no_tag() {
        let change = |facts: &mut InstanceFacts| facts.pool = Some("evil\nline".to_owned());
        let mismatch = checked(change, None).unwrap_err();
        assert_eq!(
            mismatch.to_string(),
            "its tag muster:pool is not what it was launched with"
        );
    }
}
