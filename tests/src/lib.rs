//! The test kit: fakes that check what they are sent, a stand-in for the official runner, and the
//! world that starts the real binaries among them.

pub mod demo;
pub mod fakes;
pub mod standin;
pub mod world;
