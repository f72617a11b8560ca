//! A job that has got hold of its host's certificate and key, and speaks in the agent's place, from wherever it is.
//! It must get nothing by it but its own host's end.

use jiff::Timestamp;
use muster_core::{InstanceId, LaunchId, PoolName};
use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::session_request::Message as Said;
use muster_proto::v1::session_response::Message as Told;
use muster_proto::v1::{
    AgentEvent, AssignmentAccepted, DrainReport, Hello, InterruptionNotice, PhaseChanged,
    RunnerFinished, SessionRequest,
};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::PATIENCE;
use super::agent::identity;
use crate::grpc::authorize::Validity;
use crate::grpc::time::to_wire;
use crate::simulation::world::{State, World};

/// Streams that it opens, at most.
const TRIES: u32 = 8;
/// What it says on one of them, at most.
const FORGED: usize = 4;

struct Thief {
    world: World,
    instance: InstanceId,
    launch: LaunchId,
    pool: PoolName,
}

/// A job begins; it may be such a one.
pub(super) fn may_rob(
    world: &World,
    instance: &InstanceId,
    launch: &LaunchId,
    pool: &PoolName,
    job: i64,
) {
    {
        let mut state = world.lock();
        let stolen = state.plan.stolen;
        if !state.chance(stolen) {
            return;
        }
        if let Some(host) = state.judge.hosts.get_mut(instance) {
            host.robbed = true;
        }
        if let Some(job) = state.github.jobs.get_mut(&job) {
            // What is said of its end may be forged.
            job.in_doubt = true;
        }
    }
    world.tell(format!("job {job} steals from {}", instance.as_str()));
    let thief = Thief {
        world: world.clone(),
        instance: instance.clone(),
        launch: launch.clone(),
        pool: pool.clone(),
    };
    tokio::spawn(thief.run());
}

impl Thief {
    async fn run(self) {
        for _ in 0..TRIES {
            self.world.rest(100, 60_000).await;
            // Asked before the certificate is shown: from then on it must not count.
            let over = self.is_over();
            if self.speaks().await && over {
                let who = self.instance.as_str();
                self.world.violated(&format!(
                    "invariant 7: the certificate of {who} counts, and its work is over"
                ));
            }
        }
    }

    fn is_over(&self) -> bool {
        let state = self.world.lock();
        let runner = state.disk.tables.runners.get(&self.launch);
        runner.is_some_and(muster_core::Runner::is_over)
    }

    /// Opens a stream and says what it likes; tells whether the certificate counted.
    async fn speaks(&self) -> bool {
        let agents = {
            let state = self.world.lock();
            state.process.as_ref().map(|process| process.agents.clone())
        };
        let Some(agents) = agents else { return false };
        let (say, requests) = mpsc::channel(FORGED + 1);
        let id = identity(&self.pool, &self.instance);
        let requests = ReceiverStream::new(requests);
        let opened = agents.simulated(&id, Validity::for_ever(), requests);
        let Ok(Ok(mut hear)) = timeout(PATIENCE, opened).await else {
            return false;
        };
        for message in self.forged() {
            // It is not let in for long, perhaps.
            let request = SessionRequest {
                message: Some(message),
            };
            let _ = say.try_send(Ok(request));
        }
        let lasts = self.world.lock().between(50, 20_000);
        let listens = async {
            while let Some(told) = hear.recv().await {
                if let Ok(response) = *told
                    && let Some(Told::Assignment(_)) = response.message
                {
                    let who = self.instance.as_str();
                    let what = format!("invariant 7: a job on {who} is given an assignment");
                    self.world.violated(&what);
                }
            }
        };
        let _ = timeout(lasts, listens).await;
        true
    }

    fn forged(&self) -> Vec<Said> {
        let now = self.world.now();
        let mut state = self.world.lock();
        let others = state.disk.tables.runners.values();
        let others: Vec<String> = others.map(|each| each.name.to_string()).collect();
        let at = state.below(others.len());
        let other = others.into_iter().nth(at);
        let name = other.filter(|_| state.chance(0.5)).unwrap_or_default();
        // Beyond all that the agent has said, or again.
        let after = match state.chance(0.2) {
            true => u64::MAX - 8,
            false => state.below(20) as u64,
        };
        let mut said = vec![Said::Hello(Hello {
            phase: number(&mut state, 9),
            runner_name: name.clone(),
            last_sequence: after,
            ..Hello::default()
        })];
        let many = state.below(FORGED + 1);
        for sequence in (after + 1..).take(many) {
            said.push(Said::Event(AgentEvent {
                sequence,
                at: None,
                kind: Some(any_event(&mut state, &name, now)),
            }));
        }
        said
    }
}

/// A number below a bound, as it stands for a kind or a phase: some are of none that exists.
fn number(state: &mut State, below: usize) -> i32 {
    i32::try_from(state.below(below)).unwrap_or_default()
}

fn any_event(state: &mut State, name: &str, now: Timestamp) -> Kind {
    match state.below(5) {
        0 => Kind::PhaseChanged(PhaseChanged {
            phase: number(state, 9),
            job_display_name: "job-0".to_owned(),
        }),
        1 => Kind::AssignmentAccepted(AssignmentAccepted {
            runner_name: name.to_owned(),
        }),
        2 => Kind::RunnerFinished(RunnerFinished {
            outcome: number(state, 13),
            ..RunnerFinished::default()
        }),
        3 => {
            let left = state.between(0, 200_000);
            Kind::InterruptionNotice(InterruptionNotice {
                kind: number(state, 5),
                deadline: now.checked_add(left).ok().map(to_wire),
                detail: String::new(),
            })
        }
        _ => Kind::DrainReport(DrainReport {
            idle: true,
            phase: number(state, 9),
        }),
    }
}
