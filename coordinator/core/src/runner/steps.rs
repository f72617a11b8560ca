//! The steps that the three machines allow. A step that they don't is refused, and says why.

use jiff::Timestamp;

use super::{Illegal, Instance, Marks, Registration, Runner, Work};
use crate::ids::{InstanceId, LaunchId, PoolName, RunnerName};
use crate::listed::Origin;
use crate::matching::Shape;
use crate::pool::PoolSpec;

impl Runner {
    /// A launch that was decided and not yet carried out.
    pub(crate) fn new(launch: LaunchId, pool: &PoolSpec, shape: Shape, now: Timestamp) -> Self {
        Self {
            name: runner_name(&pool.name, &launch, 1),
            launch,
            pool: pool.name.clone(),
            shape,
            scope: pool.scope.clone(),
            account: pool.account.clone(),
            attempt: 1,
            instance: Instance::Requested,
            offering: None,
            registration: Registration::None,
            work: Work::Booting,
            drain: None,
            job: None,
            job_name: None,
            held_up: None,
            silent_since: None,
            heard_at: None,
            warnings: 0,
            notice: None,
            cut_short: None,
            heard_through: 0,
            trialed: None,
            marks: Marks {
                created_at: now,
                withdrawn_at: None,
                launched_at: None,
                enrolled_at: None,
                registered_at: None,
                listening_at: None,
                busy_at: None,
                over_at: None,
                instance_gone_at: None,
                gone_at: None,
                stage_since: now,
            },
        }
    }

    /// An instance that the ledger has lost, whose agent has not come yet.
    pub(crate) fn found(
        launch: LaunchId,
        pool: &PoolSpec,
        instance: &InstanceId,
        origin: &Origin,
        now: Timestamp,
    ) -> Self {
        // Its life began before, and its limits count from there.
        let since = origin.since.min(now);
        let new = Self::new(launch, pool, Shape::default(), since);
        Self {
            instance: Instance::Exists {
                id: instance.clone(),
            },
            offering: origin.offering.clone(),
            work: Work::Found,
            silent_since: Some(now),
            marks: Marks {
                launched_at: Some(since),
                stage_since: now,
                ..new.marks
            },
            ..new
        }
    }

    /// Whether it may have been given this name. Of one that was found nobody knows its launch.
    pub(crate) fn may_be_called(&self, name: &RunnerName) -> bool {
        let prefix = match self.work {
            Work::Found => format!("muster-{}-", self.pool),
            _ => {
                let first = runner_name(&self.pool, &self.launch, 1);
                if *name == first {
                    return true;
                }
                format!("{first}-")
            }
        };
        name.as_str().starts_with(&prefix)
    }

    /// Makes it the runner that its agent says to be: one that was found, or that the ledger takes for one that had no
    /// assignment yet, as it was put back to that time.
    pub(crate) fn adopt(&mut self, name: RunnerName, now: Timestamp) -> Result<bool, Illegal> {
        if !matches!(self.work, Work::Found | Work::Enrolled) {
            return Err(self.illegal("be adopted"));
        }
        self.change(now, |runner| {
            runner.name = name;
            runner.work = Work::Starting;
            runner.registration = Registration::Exists { id: None };
            runner.marks.enrolled_at = Some(now);
        });
        Ok(true)
    }

    /// Moves the work on. `Ok(false)` if it is there already.
    pub(crate) fn set_work(&mut self, next: Work, now: Timestamp) -> Result<bool, Illegal> {
        if std::mem::discriminant(&self.work) == std::mem::discriminant(&next) {
            return Ok(false);
        }
        let legal = match (&self.work, &next) {
            (Work::Over { .. }, _) => false,
            (_, Work::Over { .. })
            | (Work::Booting, Work::Enrolled)
            | (Work::Enrolled, Work::Assigning)
            | (Work::Assigning, Work::Starting | Work::Idle | Work::Busy)
            | (Work::Starting, Work::Idle | Work::Busy)
            | (Work::Idle, Work::Busy) => true,
            _ => false,
        };
        if !legal {
            return Err(self.illegal(work_step(&next)));
        }
        match &next {
            Work::Enrolled => self.marks.enrolled_at = Some(now),
            Work::Idle => self.marks.listening_at = Some(now),
            Work::Busy => {
                self.marks.listening_at.get_or_insert(now);
                self.marks.busy_at = Some(now);
            }
            Work::Over { .. } => self.marks.over_at = Some(now),
            Work::Booting | Work::Assigning | Work::Starting | Work::Found => {}
        }
        self.change(now, |runner| runner.work = next);
        Ok(true)
    }

    /// Moves the instance on. `Ok(false)` if it is there already.
    pub(crate) fn set_instance(&mut self, next: Instance, now: Timestamp) -> Result<bool, Illegal> {
        if self.instance == next {
            return Ok(false);
        }
        let legal = match (&self.instance, &next) {
            (Instance::Requested, Instance::Exists { .. } | Instance::Gone { .. }) => true,
            (Instance::Exists { id: old } | Instance::Ending { id: old, .. }, next) => {
                matches!(next, Instance::Ending { id, .. } | Instance::Gone { id: Some(id) } if id == old)
            }
            _ => false,
        };
        if !legal {
            return Err(self.illegal(instance_step(&next)));
        }
        if matches!(next, Instance::Exists { .. }) {
            self.marks.launched_at = Some(now);
        }
        if matches!(next, Instance::Gone { .. }) {
            self.marks.instance_gone_at = Some(now);
        }
        self.change(now, |runner| runner.instance = next);
        Ok(true)
    }

    /// Moves the registration on. `Ok(false)` if it is there already.
    pub(crate) fn set_registration(
        &mut self,
        next: Registration,
        now: Timestamp,
    ) -> Result<bool, Illegal> {
        if self.registration == next {
            return Ok(false);
        }
        let legal = matches!(
            (&self.registration, &next),
            (Registration::None, Registration::Requested)
                | (
                    Registration::Requested,
                    Registration::Exists { .. }
                        | Registration::Deleting { .. }
                        | Registration::None
                )
                | (
                    Registration::Exists { .. },
                    Registration::Deleting { .. } | Registration::Gone
                )
                | (
                    Registration::Deleting { .. },
                    Registration::Deleting { .. }
                        | Registration::Exists { .. }
                        | Registration::Gone
                )
        );
        if !legal {
            return Err(self.illegal(registration_step(&next)));
        }
        if matches!(next, Registration::Exists { .. }) {
            self.marks.registered_at.get_or_insert(now);
        }
        self.change(now, |runner| runner.registration = next);
        Ok(true)
    }

    /// Takes the next name, after the present one turned out to be taken. There is no registration of it.
    pub(crate) fn next_attempt(&mut self) {
        self.attempt += 1;
        self.registration = Registration::None;
        self.marks.registered_at = None;
        self.name = runner_name(&self.pool, &self.launch, self.attempt);
    }

    /// True once the instance doesn't exist, or never did and never will.
    #[must_use]
    pub fn instance_is_gone(&self) -> bool {
        matches!(self.instance, Instance::Gone { .. })
    }

    /// True once nothing more will start on it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.work, Work::Over { .. })
    }

    fn change(&mut self, now: Timestamp, change: impl FnOnce(&mut Self)) {
        let before = self.stage();
        change(self);
        // Something went on, so whatever it waited for was had.
        self.held_up = None;
        if self.stage() != before {
            self.marks.stage_since = now;
        }
        if self.is_over() && self.is_gone() && self.marks.gone_at.is_none() {
            self.marks.gone_at = Some(now);
        }
    }

    fn illegal(&self, step: &'static str) -> Illegal {
        Illegal {
            launch: self.launch.clone(),
            step,
            state: format!(
                "{:?} with {} and {}",
                self.stage(),
                instance_step(&self.instance),
                registration_step(&self.registration)
            )
            .to_lowercase(),
        }
    }
}

/// Names are unique for each attempt, as GitHub answers 409 to a name that exists, also when the
/// answer that told of it was lost.
fn runner_name(pool: &PoolName, launch: &LaunchId, attempt: u32) -> RunnerName {
    match attempt {
        1 => RunnerName::new(format!("muster-{pool}-{launch}")),
        _ => RunnerName::new(format!("muster-{pool}-{launch}-{attempt}")),
    }
}

fn work_step(work: &Work) -> &'static str {
    match work {
        Work::Booting => "boot",
        Work::Enrolled => "enrol",
        Work::Assigning => "be assigned",
        Work::Starting => "start",
        Work::Idle => "be idle",
        Work::Busy => "take a job",
        Work::Found => "be found",
        Work::Over { .. } => "end",
    }
}

fn instance_step(instance: &Instance) -> &'static str {
    match instance {
        Instance::Requested => "instance requested",
        Instance::Exists { .. } => "instance alive",
        Instance::Ending { .. } => "instance ending",
        Instance::Gone { .. } => "instance gone",
    }
}

fn registration_step(registration: &Registration) -> &'static str {
    match registration {
        Registration::None => "registration absent",
        Registration::Requested => "registration requested",
        Registration::Exists { .. } => "registration alive",
        Registration::Deleting { .. } => "registration in deletion",
        Registration::Gone => "registration gone",
    }
}
