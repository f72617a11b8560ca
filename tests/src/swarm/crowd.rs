//! All agents: one for each instance of the fake EC2 that runs.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::agent::live;
use super::ground::Ground;
use super::host::Host;
use super::plan::random_of;
use crate::fakes::aws::{Instance, Life};

/// The tasks of all agents.
pub(super) struct Crowd {
    ground: Arc<Ground>,
    tasks: TaskTracker,
}

impl Crowd {
    /// Has an agent come to life on each instance that runs from now on, or runs already.
    pub(super) fn gather(ground: &Arc<Ground>) -> Self {
        let tasks = TaskTracker::new();
        tasks.spawn(follow(Arc::clone(ground), tasks.clone()));
        Self {
            ground: Arc::clone(ground),
            tasks,
        }
    }

    /// Ends all tasks, and waits until they have.
    pub(super) async fn end(self) {
        self.ground.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn follow(ground: Arc<Ground>, tasks: TaskTracker) {
    let mut lives = ground.aws.lives();
    let mut ends: HashMap<String, CancellationToken> = HashMap::new();
    let mut number = 0;
    while let Some(Some(life)) = ground.stop.run_until_cancelled(lives.next()).await {
        match life {
            Life::Launched(_) => {}
            Life::Running(instance) => {
                number += 1;
                let end = ground.stop.child_token();
                ends.insert(instance.id.clone(), end.clone());
                start(&ground, &tasks, instance, number, end);
            }
            Life::Ending(instance) | Life::Ended(instance) => {
                if let Some(end) = ends.remove(&instance.id) {
                    end.cancel();
                }
                if let Some(host) = ground.board.get(&instance.id) {
                    let mut host = host.lock();
                    host.over = true;
                    host.connected = false;
                }
            }
        }
    }
}

fn start(
    ground: &Arc<Ground>,
    tasks: &TaskTracker,
    instance: Instance,
    number: u64,
    end: CancellationToken,
) {
    // Drawn from another stream of numbers than what the agent itself draws.
    let mut random = random_of(ground.plan.seed, number << 32);
    let host = Host::new(ground.plan.habits.draw(&mut random));
    // An instance that runs for a second time would be a fault of the fake; its first agent goes on.
    let Some(host) = ground.board.add(&instance.id, host) else {
        return;
    };
    let life = live(Arc::clone(ground), instance, host, number);
    tasks.spawn(async move {
        end.run_until_cancelled(life).await;
    });
}
