//! `muster-swarm`: thousands of agents against the real coordinator, by the real protocol over real
//! mutual TLS, among the fakes of AWS and GitHub.
//!
//! Each agent is a task: it enrols as its instance of the fake EC2 by a signature that the fake STS
//! verifies, holds its stream, sends samples and events, does as it is told and keeps to the rules of
//! the real agent when it comes back. What it runs is no process: it reports a runner's phases, and where
//! there are jobs it takes them from the fake GitHub.
//!
//! Figures are printed, and every end is judged: what the coordinator says of each runner is held
//! against what its agent did, and against the fakes.

mod agent;
mod backoff;
mod board;
mod complete;
mod crowd;
mod enrol;
mod evidence;
mod faults;
mod figures;
mod ground;
mod host;
mod identity;
mod job;
mod kill;
mod line;
mod pair;
mod picture;
mod plan;
mod play;
mod sample;
mod siege;
mod site;
mod stream;
mod verdict;

pub use self::faults::Fault;
pub use self::plan::{Habit, Habits, Plan};
pub use self::play::{Outcome, play};
pub use self::siege::{Held, Siege, besiege};
pub use self::verdict::verdict;
