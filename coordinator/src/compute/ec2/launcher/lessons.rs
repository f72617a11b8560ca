//! What EC2's answers teach: which capacity has nothing for a while, and when nothing is left to try.

use std::time::Duration;

use muster_core::LaunchFailure;

use super::super::batch::{Batch, Failed};
use super::super::closed::Closed;
use super::super::error::{CallError, Kind};
use super::super::fleet::Failure;

/// How long offerings rest after EC2 gave fewer than asked and did not say why.
const UNEXPLAINED: Duration = Duration::from_secs(30);

/// Closes what the answer says has nothing.
pub(super) fn from_answer(closed: &mut Closed, batch: &Batch, failures: &[Failure], short: bool) {
    let market = batch.request.market;
    let mut learnt = false;
    for failure in failures {
        let why = failure.text.as_str();
        learnt |= match (failure.kind, &failure.offering, &failure.subnet) {
            (Some(Kind::Subnet(duration)), _, Some(subnet)) => {
                closed.close_subnet(subnet.clone(), duration, why);
                true
            }
            (Some(Kind::Market(duration)), _, _) => {
                closed.close_market(market, duration, why);
                true
            }
            (Some(Kind::Offering(duration)), Some(offering), _) => {
                closed.close_offering(offering.clone(), duration, why);
                true
            }
            (_, Some(offering), _) => {
                closed.close_offering(offering.clone(), UNEXPLAINED, why);
                true
            }
            _ => false,
        };
    }
    if short && !learnt {
        let why = match failures.first() {
            Some(failure) => failure.text.clone(),
            None => "EC2 gave fewer than asked and did not say why".to_owned(),
        };
        close_all(closed, batch, UNEXPLAINED, &why);
    }
}

/// Closes what a refusal says has nothing; gives the failure if nothing is left to try.
pub(super) fn from_refusal(
    closed: &mut Closed,
    batch: &Batch,
    error: &CallError,
) -> Option<Failed> {
    match error.kind {
        Kind::Market(duration) => {
            let market = batch.request.market;
            closed.close_market(market, duration, &error.text);
            None
        }
        Kind::Offering(duration) | Kind::Subnet(duration) => {
            close_all(closed, batch, duration, &error.text);
            None
        }
        Kind::Throttled | Kind::Unknown | Kind::NotFound | Kind::TokenReused | Kind::Permanent => {
            Some(Failed {
                failure: LaunchFailure::Permanent,
                detail: error.text.clone(),
            })
        }
    }
}

fn close_all(closed: &mut Closed, batch: &Batch, duration: Duration, why: &str) {
    for choice in &batch.request.choices {
        let offering = choice.offering(batch.request.market);
        closed.close_offering(offering, duration, why);
    }
}

/// The failure to tell if all that EC2 says is that somebody must change something.
pub(super) fn hopeless(failures: &[Failure]) -> Option<Failed> {
    let permanent = |failure: &&Failure| failure.kind == Some(Kind::Permanent);
    let first = failures.iter().find(permanent)?;
    failures
        .iter()
        .all(|failure| permanent(&failure))
        .then(|| Failed {
            failure: LaunchFailure::Permanent,
            detail: first.text.clone(),
        })
}
