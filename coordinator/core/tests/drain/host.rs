//! One host whose fleet is told what happens, at each state of its life.

use std::time::Duration;

use jiff::Timestamp;
use muster_core::{
    DeregisterAnswer, Effect, Event, Fleet, FleetSpec, GithubRunnerId, HostPhase, Interruption,
    JobReport, JobStatus, LaunchId, RunnerName, Stage, Stored, TimeLimits,
};

use super::kit::{pool, report};

pub(crate) struct Host {
    pub(crate) fleet: Fleet,
    pub(crate) launch: LaunchId,
    pub(crate) now: Timestamp,
}

impl Host {
    /// A fleet with one queued job and the launch that it led to.
    pub(crate) fn launched() -> Self {
        let mut pool = pool("linux");
        pool.labels = ["linux".to_owned()].into();
        pool.max = 1;
        pool.limits = TimeLimits::default();
        let spec = FleetSpec {
            pools: vec![pool],
            accounts: [("local".into(), 9)].into(),
        };
        let mut fleet = Fleet::restore(spec, Stored::default(), 1);
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        fleet.apply(Event::Job(Box::new(job(JobStatus::Queued, None))), now);
        let launch = fleet.runners().next().unwrap().launch.clone();
        Self { fleet, launch, now }
    }

    pub(crate) fn at(stage: At) -> Self {
        let mut host = Self::launched();
        let launch = host.launch.clone();
        let name = host.name();
        let events = [
            (
                At::Enrolled,
                Event::Enrolled {
                    launch: launch.clone(),
                    instance: "i-00000001".into(),
                },
            ),
            (At::Minting, host.connected(HostPhase::Unassigned, None)),
            (
                At::Assigning,
                Event::Minted {
                    launch: launch.clone(),
                    name: name.clone(),
                    id: GithubRunnerId(7),
                },
            ),
            (
                At::Starting,
                Event::AssignmentAccepted {
                    launch: launch.clone(),
                    name,
                },
            ),
            (At::Idle, host.phase(HostPhase::Listening)),
            (At::Busy, host.phase(HostPhase::Running)),
        ];
        for (reached, event) in events {
            if reached <= stage {
                host.tell(event);
            }
        }
        host
    }

    pub(crate) fn name(&self) -> RunnerName {
        self.fleet.runner(&self.launch).unwrap().name.clone()
    }

    pub(crate) fn connected(&self, phase: HostPhase, assignment: Option<RunnerName>) -> Event {
        Event::AgentConnected {
            launch: self.launch.clone(),
            phase,
            assignment,
            heard_at: self.now,
        }
    }

    pub(crate) fn phase(&self, phase: HostPhase) -> Event {
        Event::PhaseChanged {
            launch: self.launch.clone(),
            phase,
            job_name: None,
        }
    }

    /// Applies an event, and names what is done about this launch.
    pub(crate) fn tell(&mut self, event: Event) -> Vec<&'static str> {
        let changes = self.fleet.apply(event, self.now);
        changes
            .effects
            .iter()
            .filter(|effect| concerns(effect, &self.launch))
            .map(word)
            .collect()
    }

    pub(crate) fn spot_notice(&mut self) -> Vec<&'static str> {
        let deadline = self.now.checked_add(Duration::from_secs(120)).ok();
        let (launch, kind) = (self.launch.clone(), Interruption::Spot);
        self.tell(Event::Interrupted {
            launch,
            kind,
            deadline,
            detail: String::new(),
        })
    }

    pub(crate) fn looked(&mut self, idle: bool) -> Vec<&'static str> {
        self.tell(Event::DrainReported {
            launch: self.launch.clone(),
            idle,
        })
    }

    pub(crate) fn deregistered(&mut self, answer: DeregisterAnswer) -> Vec<&'static str> {
        let (launch, name) = (self.launch.clone(), self.name());
        self.tell(Event::Deregistered {
            launch,
            name,
            answer,
        })
    }

    pub(crate) fn pass(&mut self, seconds: u64) -> Vec<&'static str> {
        self.now = self.now.checked_add(Duration::from_secs(seconds)).unwrap();
        self.tell(Event::Tick)
    }

    pub(crate) fn stage(&self) -> Stage {
        self.fleet.runner(&self.launch).unwrap().stage()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum At {
    Launching,
    Enrolled,
    Minting,
    Assigning,
    Starting,
    Idle,
    Busy,
}

pub(crate) fn job(status: JobStatus, runner_name: Option<String>) -> JobReport {
    JobReport {
        labels: vec!["linux".into()],
        status,
        runner_name,
        created_at: None,
        ..report(1)
    }
}

fn concerns(effect: &Effect, launch: &LaunchId) -> bool {
    effect.key().contains(launch.as_str())
}

fn word(effect: &Effect) -> &'static str {
    match effect {
        Effect::Launch { .. } => "launch",
        Effect::Mint { .. } => "mint",
        Effect::Assign { .. } => "assign",
        Effect::Drain { .. } => "drain",
        Effect::Retire { .. } => "retire",
        Effect::Deregister { .. } => "deregister",
        Effect::Terminate { .. } => "terminate",
        Effect::TerminateStray { .. } => "terminate stray",
        Effect::Withdraw { .. } => "withdraw",
        Effect::CloseOffering { .. } => "close offering",
        Effect::WatchRun { .. } => "watch run",
        Effect::Rerun { .. } => "rerun",
    }
}
