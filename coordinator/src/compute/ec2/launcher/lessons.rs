//! What EC2's answers teach: which capacity has nothing for a while, and what is left to try.

use std::time::Duration;

use muster_core::{LaunchFailure, Offering};

use super::super::batch::{Batch, Failed};
use super::super::closed::Closed;
use super::super::error::{CallError, Kind};
use super::super::fleet::Failure;
use super::super::quota::Class;

/// How long offerings rest after EC2 gave fewer than asked and did not say why.
const UNEXPLAINED: Duration = Duration::from_secs(30);

/// What becomes of those who got nothing.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Nothing is left to try.
    GiveUp(Failed),
    /// They try what is open now. The reason is EC2's.
    TryOthers(String),
    /// They try the same after a while: EC2 was too busy to say what it has.
    TryLater(String),
}

/// Closes what the answer says has nothing. `failures` is none if the answer itself is not known;
/// `got` is the number of instances that were made.
pub(super) fn from_answer(
    closed: &mut Closed,
    batch: &Batch,
    failures: Option<&[Failure]>,
    got: usize,
) -> Verdict {
    let Some(failures) = failures else {
        return Verdict::TryOthers(
            "EC2 gave no answer in time, and has nothing of the call".to_owned(),
        );
    };
    let mut learnt = false;
    let (vague, telling): (Vec<_>, Vec<_>) = failures
        .iter()
        .partition(|failure| failure.kind == Some(Kind::Unfulfilled));
    // That a zone lacks the type looks alike. The pool's own launches close that offering for both, so that it is
    // said of a canary too seldom to exceed its margin.
    if got == 0
        && batch.canary.is_some()
        && let Some(failure) = telling.first()
        && telling.iter().all(|failure| may_be_the_images(failure))
    {
        return refused(failure.text.clone());
    }
    for failure in telling {
        learnt |= close(closed, batch, failure);
    }
    // What was perhaps not tried is tried next, unless nothing else is known.
    if !learnt {
        for failure in vague {
            learnt |= close(closed, batch, failure);
        }
    }
    let busy = |failure: &&Failure| failure.kind.is_some_and(|kind| !kind.refuses());
    if let Some(busy) = failures.iter().find(busy) {
        return Verdict::TryLater(busy.text.clone());
    }
    let why = match failures.first() {
        Some(failure) => failure.text.clone(),
        None => "EC2 gave fewer than asked and did not say why".to_owned(),
    };
    if got < batch.launches.len() && !learnt {
        close_all(closed, batch, UNEXPLAINED, &why);
    }
    match hopeless(failures) {
        Some(failed) if got == 0 => Verdict::GiveUp(failed),
        _ => Verdict::TryOthers(why),
    }
}

/// Whether a failure may be the doing of a canary. It says nothing then of what EC2 has, and closes nothing for the
/// pool's own image.
fn may_be_the_images(failure: &Failure) -> bool {
    failure.kind.is_none_or(Kind::may_be_the_images)
}

fn refused(detail: String) -> Verdict {
    Verdict::GiveUp(Failed {
        failure: LaunchFailure::Permanent,
        detail,
    })
}

/// Closes what a failure is about; false if it is about nothing that can be closed.
fn close(closed: &mut Closed, batch: &Batch, failure: &Failure) -> bool {
    let why = failure.text.as_str();
    match (failure.kind, &failure.offering, &failure.subnet) {
        (Some(kind), _, _) if !kind.refuses() => return false,
        (Some(Kind::Subnet(duration)), _, Some(subnet)) => {
            closed.close_subnet(subnet.clone(), duration, why);
        }
        (Some(Kind::Quota(duration)), offering, _) => {
            close_classes(closed, batch, offering.as_ref(), duration, why);
        }
        (Some(Kind::Market(duration)), _, _) => {
            closed.close_market(batch.request.market, duration, why);
        }
        (Some(Kind::Offering(duration)), Some(offering), _) => {
            closed.close_offering(offering.clone(), duration, why);
        }
        (_, Some(offering), _) => closed.close_offering(offering.clone(), UNEXPLAINED, why),
        _ => return false,
    }
    true
}

/// Closes what the refusal of a whole call says has nothing.
pub(super) fn from_refusal(closed: &mut Closed, batch: &Batch, error: &CallError) -> Verdict {
    match error.kind {
        kind if batch.canary.is_some() && kind.may_be_the_images() => {
            return refused(error.text.clone());
        }
        Kind::Quota(duration) => close_classes(closed, batch, None, duration, &error.text),
        Kind::Market(duration) => {
            closed.close_market(batch.request.market, duration, &error.text);
        }
        Kind::Offering(duration) | Kind::Subnet(duration) => {
            close_all(closed, batch, duration, &error.text);
        }
        Kind::Unfulfilled => close_all(closed, batch, UNEXPLAINED, &error.text),
        _ => return refused(error.text.clone()),
    }
    Verdict::TryOthers(error.text.clone())
}

/// Closes the class of an offering, or of all that was asked for if EC2 names none.
fn close_classes(
    closed: &mut Closed,
    batch: &Batch,
    offering: Option<&Offering>,
    duration: Duration,
    why: &str,
) {
    let asked = batch.request.choices.iter();
    let types: Vec<&String> = match offering {
        Some(offering) => vec![&offering.instance_type],
        None => asked.map(|choice| &choice.instance_type).collect(),
    };
    for name in types {
        closed.close_class(batch.request.market, Class::of(name), duration, why);
    }
}

fn close_all(closed: &mut Closed, batch: &Batch, duration: Duration, why: &str) {
    for choice in &batch.request.choices {
        let offering = choice.offering(batch.request.market);
        closed.close_offering(offering, duration, why);
    }
}

/// The failure to tell if all that EC2 says is that somebody must change something.
fn hopeless(failures: &[Failure]) -> Option<Failed> {
    let stays = |failure: &Failure| failure.kind.is_some_and(Kind::stays);
    let first = failures.first()?;
    failures.iter().all(stays).then(|| Failed {
        failure: LaunchFailure::Permanent,
        detail: first.text.clone(),
    })
}
