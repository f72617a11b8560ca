//! Faults of Muster itself, planted to see that they are found.

use super::plan::{Plan, Planted};
use super::run::run;

/// Lives that are looked at until it is found.
const LIVES: u64 = 12;
const JOBS: usize = 120;

/// Finds a planted fault by what it does.
fn found(planted: Planted, by: &str) {
    let plan = Plan {
        planted: Some(planted),
        ..Plan::harsh()
    };
    found_in(&plan, by);
}

/// Finds what is wrong with a plan; tells after how many lives.
fn found_in(plan: &Plan, by: &str) {
    for seed in 1..=LIVES {
        let outcome = run(seed, JOBS, plan.clone());
        if let Some(what) = outcome.violations.first() {
            println!("found in life {seed} after {:?}: {what}", outcome.lasted);
            assert!(what.contains(by), "{what}\n{}", outcome.story);
            return;
        }
    }
    panic!("not found in {LIVES} lives: {plan:?}");
}

#[test]
fn a_commit_that_is_not_synced_is_found() {
    found(Planted::NoSync, "invariant");
}

#[test]
fn a_webhook_that_is_answered_before_it_is_stored_is_found() {
    found(Planted::EarlyThanks, "invariant 3");
}

#[test]
fn a_launch_that_is_repeated_with_another_token_is_found() {
    found(Planted::NewToken, "invariant 10");
}

#[test]
fn an_end_that_was_never_asked_for_is_found() {
    found(Planted::ForgottenReap, "invariant");
}

#[test]
fn an_intent_that_is_not_stored_is_found() {
    found(Planted::EarlyDone, "invariant 2");
}

#[test]
fn an_end_of_a_host_whose_job_is_well_is_found() {
    found(Planted::WrongEnd, "invariant 10");
}

#[test]
fn a_drain_that_takes_its_time_is_found() {
    let plan = Plan {
        slow: 0.3,
        ..Plan::taken_hosts()
    };
    found_in(&plan, "invariant 9");
}
