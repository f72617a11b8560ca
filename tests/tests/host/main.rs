//! A booted host: systemd, our units, the guard, the users. Needs root, and `.ci/tools host`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what surprises a test's helper fails the test"
)]

mod boot;
mod endings;
mod hostile;
mod image;
mod job;
mod kills;
mod outages;
mod sandbox;
mod scene;
mod surroundings;
