//! The test kit: fakes that check what they are sent, a stand-in for the official runner, and the
//! world that starts the real binaries among them.

pub mod bench;
pub mod demo;
pub mod fakes;
pub mod metadata_service;
pub mod network;
#[expect(clippy::panic, reason = "a test that can't go on fails")]
pub mod postgres;
#[expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test can't go on without fails the test"
)]
pub mod scripted;
pub mod standin;
pub mod swarm;
pub mod test_host;
pub mod world;
