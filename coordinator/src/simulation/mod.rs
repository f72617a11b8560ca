//! A deterministic simulation of a coordinator's whole life.
//!
//! Real are the core, the engine with its executors, the sessions of agents, the web listener's routes, the
//! client of GitHub with its surveys, redeliveries and checks, the sweeps, and the way of notices. Around them
//! stand, in memory and in virtual time: a store that keeps what was synced and nothing else (`disk`), GitHub
//! (`github`), a cloud (`cloud`), and hosts with an agent and a runner (`host`). One seed decides everything:
//! when messages are late, lost, doubled or out of order, when a call fails or its answer is lost, when the
//! coordinator is killed (at any of its awaits on the world), when clocks jump, and when hosts go. `judge`
//! holds what must be true at each step, and in the end, when the faults have stopped.
//!
//! The same seed gives the same run. A failure prints its seed and the last of what happened:
//!
//! ```text
//! tests/benches/simulation --jobs 1 --each 500 --seed 7
//! ```

mod cloud;
mod disk;
mod github;
mod host;
mod judge;
mod life;
mod outage;
mod plan;
mod planted;
mod run;
mod tests;
mod world;

pub(crate) use cloud::{ABSENCE, Cloud};
