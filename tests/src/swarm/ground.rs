//! The world that a swarm needs, and what all its agents share.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::figures::Figures;
use super::identity::Anchor;
use super::plan::Plan;
use crate::fakes::aws::FakeAws;
use crate::fakes::github;
use crate::network::Namespace;
use crate::world::{Compute, Hosts, ORGANIZATION, Options, World};

/// Most runners of a pool: a list of them has at most 1,000, those on their way out included.
const POOL: u32 = 900;
/// Instances that a pool may have beside those that wait, while some of them are replaced.
const SPARE: u32 = 64;
/// Labels of the pools that have no jobs.
const QUIET: &str = "quiet";
/// Labels of the pool that has jobs.
pub(super) const LABELS: [&str; 2] = ["self-hosted", "swarm"];

/// What agents do beside their work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Season {
    /// Nothing.
    Calm,
    /// What their habit is.
    Wild,
}

/// What all agents are to do now: each number that has grown is an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Orders {
    /// Drop the connection, and come back at once.
    pub(super) storms: u32,
    /// Say a warning.
    pub(super) warnings: u32,
}

/// What all agents share.
pub(super) struct Ground {
    pub(super) plan: Plan,
    pub(super) world: World,
    pub(super) aws: Arc<FakeAws>,
    pub(super) anchor: Anchor,
    pub(super) board: Board,
    pub(super) figures: Figures,
    pub(super) season: watch::Sender<Season>,
    pub(super) orders: watch::Sender<Orders>,
    /// Whether jobs are to end.
    pub(super) jobs_end: watch::Sender<bool>,
    /// Whether the runners of the first pool poll GitHub for jobs.
    pub(super) polling: watch::Sender<bool>,
    /// The network that agents are in, if they have one of their own.
    pub(super) agents: Option<Arc<Namespace>>,
    /// Turns to enrol.
    pub(super) turns: Semaphore,
    pub(super) stop: CancellationToken,
}

impl Ground {
    /// Starts the coordinator and the fakes.
    pub(super) async fn prepare(plan: Plan) -> anyhow::Result<Self> {
        Self::prepare_with(plan, None, |options| options).await
    }

    /// Starts them with other options, and agents in a network of their own.
    pub(super) async fn prepare_with(
        plan: Plan,
        agents: Option<Arc<Namespace>>,
        change: impl FnOnce(Options) -> Options,
    ) -> anyhow::Result<Self> {
        let world = World::start(change(options(&plan))).await?;
        let cloud = world.cloud.as_ref().context("no cloud")?;
        let authority =
            CertificateDer::from_pem_file(world.authority()).context("the authority")?;
        Ok(Self {
            aws: Arc::clone(&cloud.aws),
            anchor: Anchor::new(authority)?,
            board: Board::default(),
            figures: Figures::new()?,
            season: watch::Sender::new(Season::Calm),
            orders: watch::Sender::default(),
            jobs_end: watch::Sender::new(false),
            polling: watch::Sender::new(false),
            agents,
            turns: Semaphore::new(plan.enrolling),
            stop: CancellationToken::new(),
            world,
            plan,
        })
    }

    /// The pools, and how many runners wait in each.
    pub(super) fn pools(&self) -> Vec<(String, u32)> {
        pools(self.plan.agents, self.plan.jobs)
    }
}

/// The first pool has as many runners as there are jobs: all of its runners poll the fake GitHub, which looks
/// at each of them whenever something changes. It may hold twice as many.
fn pools(agents: u32, jobs: u32) -> Vec<(String, u32)> {
    let mut left = agents;
    let mut all = Vec::new();
    while left > 0 {
        let size = match jobs {
            1.. if all.is_empty() => left.min(POOL / 2).min(jobs),
            _ => left.min(POOL),
        };
        all.push((format!("swarm-{}", all.len()), size));
        left -= size;
    }
    all
}

/// The name of the pool that has jobs.
pub(super) const WORKING_POOL: &str = "swarm-0";

fn options(plan: &Plan) -> Options {
    let tables = pools(plan.agents, plan.jobs)
        .into_iter()
        .map(|(name, size)| {
            let label = if name == WORKING_POOL {
                LABELS[1].to_owned()
            } else {
                format!("{QUIET}-{name}")
            };
            // A boot and a start are slow where thousands of them share two cores with the coordinator.
            format!(
                "[[pool]]\nname = \"{name}\"\nscope = {{ organization = \"{ORGANIZATION}\" }}\n\
             labels = [\"{}\", \"{label}\"]\naccount = \"local\"\nmin_idle = {size}\nmax = {}\n\
             limits = {{ boot = \"30m\", start = \"30m\" }}\n\n",
                LABELS[0],
                // As many wait as before while others have jobs.
                size + plan.jobs.min(size) + SPARE
            )
        });
    Options {
        compute: Compute::Ec2,
        hosts: Hosts::Empty,
        enforce_aws_limits: false,
        pools: tables.collect(),
        max_instances: plan.agents + plan.jobs + 2 * SPARE,
        heartbeat_interval: plan.heartbeat,
        // A listing of thousands takes the fake longer than EC2.
        sweep_interval: Duration::from_millis(u64::from(plan.agents) * 4)
            .clamp(Duration::from_millis(500), Duration::from_secs(20)),
        registrations_per_minute: 100_000,
        log_level: "info",
        identity: format!(
            "agent_certificate_ttl = \"{}s\"",
            plan.certificate_ttl.as_secs().max(1)
        ),
        github: github::Options {
            organization: ORGANIZATION.to_owned(),
            enforce_limits: false,
            offline_after: Duration::from_mins(2),
            poll_hold: Duration::from_secs(20),
            ..github::Options::default()
        },
        ..Options::default()
    }
}

#[cfg(test)]
mod tests {
    use super::pools;

    #[test]
    fn pools_are_no_larger_than_a_list_of_runners() {
        assert_eq!(pools(100, 0), [("swarm-0".to_owned(), 100)]);
        assert_eq!(pools(100, 30)[0].1, 30);
        let pools = pools(5_000, 100);
        assert_eq!((pools.len(), pools[0].1), (7, 100));
        assert_eq!(pools.iter().map(|(_, size)| size).sum::<u32>(), 5_000);
        assert!(pools.iter().all(|(_, size)| *size <= 900));
    }
}
