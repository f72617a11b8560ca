//! What goes wrong on purpose: the next calls of an action, or some of all at random.

use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// What happens to calls in place of what should.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The action, such as `CreateFleet`; `*` for all.
    pub action: String,
    /// How many calls it still happens to.
    pub times: u32,
    /// What happens.
    pub effect: Effect,
}

impl Fault {
    /// A fault of the next call.
    pub fn next(action: &str, effect: Effect) -> Self {
        Self::times(action, 1, effect)
    }

    /// A fault of the next `times` calls.
    pub fn times(action: &str, times: u32, effect: Effect) -> Self {
        Self {
            action: action.to_owned(),
            times,
            effect,
        }
    }
}

/// What happens to a call.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Answered as it should be, after this time.
    Delay(Duration),
    /// Nothing is done and the connection is closed.
    HangUp,
    /// It is done, but the connection is closed before the answer.
    LoseAnswer,
    /// It is done, then answered with this status, as by a load balancer in between.
    ActThenFail(u16),
    /// Too many requests, in the service's words.
    Throttle,
    /// Something broke inside: 500 or 503, in the service's words.
    ServerError(u16),
    /// An error in the form of the service's protocol.
    Error {
        /// The HTTP status.
        status: u16,
        /// Such as `UnauthorizedOperation`.
        code: String,
        /// For people.
        message: String,
    },
    /// This, whatever it means.
    Answer(Answer),
    /// Never answered.
    Silence,
}

/// An answer, byte for byte.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// An answer with a type.
    pub fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            body: body.into(),
        }
    }
}

/// How often things go wrong at random, each as a share of all calls from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chaos {
    /// The same seed and the same calls in the same order give the same faults.
    pub seed: u64,
    /// Calls that are throttled.
    pub throttle: f64,
    /// Calls that are answered 500.
    pub server_error: f64,
    /// Calls that are done and not answered.
    pub lost_answer: f64,
    /// Calls whose connection is closed before anything is done.
    pub hang_up: f64,
    /// Offerings that have no capacity when a fleet asks for it.
    pub capacity: f64,
}

/// All faults that are still to happen.
#[derive(Default)]
pub(super) struct Faults {
    scripted: Vec<Fault>,
    random: Option<(Chaos, StdRng)>,
}

impl Faults {
    pub(super) fn push(&mut self, fault: Fault) {
        if fault.times > 0 {
            self.scripted.push(fault);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn set_random(&mut self, chaos: Option<Chaos>) {
        self.random = chaos.map(|chaos| (chaos, StdRng::seed_from_u64(chaos.seed)));
    }

    /// The faults that a call meets, each used once: delays, then one that decides.
    pub(super) fn hit(&mut self, action: &str) -> Vec<Effect> {
        let mut effects = Vec::new();
        for fault in &mut self.scripted {
            if fault.action != "*" && fault.action != action {
                continue;
            }
            fault.times -= 1;
            effects.push(fault.effect.clone());
            if !matches!(fault.effect, Effect::Delay(_)) {
                break;
            }
        }
        self.scripted.retain(|fault| fault.times > 0);
        if effects.is_empty()
            && let Some((chaos, random)) = &mut self.random
        {
            for (share, effect) in [
                (chaos.throttle, Effect::Throttle),
                (chaos.server_error, Effect::ServerError(500)),
                (chaos.lost_answer, Effect::LoseAnswer),
                (chaos.hang_up, Effect::HangUp),
            ] {
                if random.random_bool(share) {
                    return vec![effect];
                }
            }
        }
        effects
    }

    /// Whether an offering has no capacity just now.
    pub(super) fn no_capacity(&mut self) -> bool {
        self.random
            .as_mut()
            .is_some_and(|(chaos, random)| random.random_bool(chaos.capacity))
    }
}
