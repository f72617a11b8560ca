//! What is counted while it happens.

use std::collections::{BTreeMap, BTreeSet};

/// What is counted while it happens.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Every instance that there ever was, with its client token and whether it is Spot.
    pub(crate) instances: BTreeMap<String, Born>,
    /// Instances that are gone.
    pub(crate) gone: BTreeSet<String>,
    /// Instances that Spot took back, or was about to.
    pub(crate) interrupted: BTreeSet<String>,
    /// Instances at a time, at most.
    pub(crate) most: usize,
    /// Jobs that were made to fail by what they do.
    pub(crate) meant_to_fail: BTreeSet<u64>,
    /// Jobs that their runner gave up or was made to give up, with the reason.
    pub(crate) given_up: BTreeMap<u64, String>,
    /// Instance of each runner that opened a session at GitHub.
    pub(crate) ran_on: BTreeMap<String, String>,
    /// Assignments that an agent was given after its first.
    pub(crate) second_assignments: Vec<String>,
    pub(crate) kills: u32,
    pub(crate) questions: u64,
    /// What is wrong.
    pub(crate) wrong: Vec<String>,
}

/// An instance that came to be.
#[derive(Debug)]
pub(crate) struct Born {
    pub(crate) token: String,
    pub(crate) spot: bool,
}

impl Tally {
    /// Instances that are not gone.
    pub(crate) fn alive(&self) -> usize {
        self.instances.len() - self.gone.len()
    }
}
