//! Which faults there are, and how often.

use std::time::Duration;

/// Chances of one, and times.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The coordinator is killed at an await on the world.
    pub(super) kill: f64,
    /// A call of the store, GitHub or the cloud fails and does nothing.
    pub(super) fail: f64,
    /// A call does what it should, and its answer is lost.
    pub(super) lose_answer: f64,
    /// A call takes seconds instead of milliseconds.
    pub(super) slow: f64,
    /// A webhook is not delivered, and GitHub lists it as failed.
    pub(super) webhook_fails: f64,
    /// A webhook is not delivered, and GitHub lists nothing.
    pub(super) webhook_vanishes: f64,
    /// A webhook comes twice.
    pub(super) webhook_doubles: f64,
    /// A webhook comes a minute late.
    pub(super) webhook_late: f64,
    /// A launch fails for want of capacity.
    pub(super) no_capacity: f64,
    /// An instance never comes up.
    pub(super) dead_on_arrival: f64,
    /// A host does not power off by itself after its job.
    pub(super) stays_on: f64,
    /// EC2 takes the end of an instance, and nothing comes of it.
    pub(super) end_hangs: f64,
    /// A stream breaks when a message goes over it.
    pub(super) cut: f64,
    /// An agent says that its job is another than it is.
    pub(super) lies: f64,
    /// A job has got hold of its host's certificate.
    pub(super) stolen: f64,
    /// A job fails by itself.
    pub(super) job_fails: f64,
    /// A job is cancelled.
    pub(super) job_cancelled: f64,
    /// One of the larger faults is that a host is taken, cut off, or goes.
    pub(super) taken: f64,
    /// Time between two of the larger faults.
    pub(super) disaster_every: Duration,
    /// Longest jump of the coordinator's clock, in seconds.
    pub(super) clock_jump: i64,
    /// Larger faults are of the coordinator and of what it calls, never of hosts.
    pub(super) outages_only: bool,
    /// How long the store, GitHub or the cloud are out of order, at most.
    pub(super) outage: Duration,
    /// A host that has had a notice, and is connected, gets no job from so long after it on. Only where nothing else
    /// is slow or fails: a coordinator that is dead tells nobody.
    pub(super) drains_within: Option<Duration>,
    /// A fault of Muster itself, planted to see that it is found.
    pub(super) planted: Option<Planted>,
}

/// A fault of Muster itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planted {
    /// What is committed is not synced.
    NoSync,
    /// A webhook is answered before it is stored.
    EarlyThanks,
    /// A launch that is tried again gets another client token.
    NewToken,
    /// Some ends of instances are taken for done that were never asked for.
    ForgottenReap,
    /// An effect leaves the outbox before it is done.
    EarlyDone,
    /// Some ends hit another instance, too.
    WrongEnd,
}

impl Plan {
    /// All faults that the world has.
    pub(super) fn harsh() -> Self {
        Self {
            kill: 0.000_5,
            fail: 0.01,
            lose_answer: 0.01,
            slow: 0.01,
            webhook_fails: 0.03,
            webhook_vanishes: 0.01,
            webhook_doubles: 0.03,
            webhook_late: 0.03,
            no_capacity: 0.02,
            dead_on_arrival: 0.01,
            stays_on: 0.2,
            end_hangs: 0.02,
            cut: 0.003,
            lies: 0.05,
            stolen: 0.02,
            job_fails: 0.1,
            job_cancelled: 0.03,
            taken: 0.0,
            disaster_every: Duration::from_secs(90),
            clock_jump: 20,
            outages_only: false,
            outage: Duration::from_secs(120),
            drains_within: None,
            planted: None,
        }
    }

    /// The same faults, each many times as often: little is left that goes well the first time.
    pub(super) fn storm() -> Self {
        Self {
            kill: 0.003,
            fail: 0.08,
            lose_answer: 0.08,
            slow: 0.05,
            webhook_fails: 0.2,
            webhook_vanishes: 0.1,
            webhook_doubles: 0.2,
            webhook_late: 0.2,
            no_capacity: 0.1,
            dead_on_arrival: 0.04,
            stays_on: 0.5,
            cut: 0.02,
            disaster_every: Duration::from_secs(25),
            ..Self::harsh()
        }
    }

    /// Hosts and networks fail more often than anything else.
    pub(super) fn flaky_hosts() -> Self {
        Self {
            dead_on_arrival: 0.1,
            stays_on: 0.4,
            cut: 0.05,
            taken: 0.5,
            disaster_every: Duration::from_secs(12),
            ..Self::harsh()
        }
    }

    /// Nothing fails but hosts, which are taken all the time: what is said to be done in time must be.
    pub(super) fn taken_hosts() -> Self {
        Self {
            taken: 1.0,
            disaster_every: Duration::from_secs(4),
            drains_within: Some(Duration::from_secs(1)),
            ..Self::harsh().calm()
        }
    }

    /// Nothing is ever wrong with a host, and what the coordinator needs is out of order for longer than any host may
    /// be silent: none may be ended for that.
    pub(super) fn long_outages() -> Self {
        Self {
            outages_only: true,
            outage: Duration::from_secs(25 * 60),
            disaster_every: Duration::from_secs(10 * 60),
            ..Self::harsh().calm()
        }
    }

    /// The plan of a seed: they take turns.
    pub(super) fn of(seed: u64) -> Self {
        match seed % 3 {
            0 => Self::storm(),
            1 => Self::harsh(),
            _ => Self::flaky_hosts(),
        }
    }

    /// No fault any more, but for one that is planted.
    pub(super) fn calm(&self) -> Self {
        Self {
            kill: 0.0,
            fail: 0.0,
            lose_answer: 0.0,
            slow: 0.0,
            webhook_fails: 0.0,
            webhook_vanishes: 0.0,
            webhook_doubles: 0.0,
            webhook_late: 0.0,
            no_capacity: 0.0,
            dead_on_arrival: 0.0,
            stays_on: 0.0,
            end_hangs: 0.0,
            cut: 0.0,
            lies: 0.0,
            stolen: 0.0,
            job_fails: 0.0,
            job_cancelled: 0.0,
            ..self.clone()
        }
    }
}
