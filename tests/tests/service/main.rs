//! The coordinator as it ships, under what GitHub, agents, operators and strangers may do to it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what surprises a test's helper fails the test"
)]

mod buf;
mod config;
mod enrolment;
mod expiry;
mod newcomer;
mod operator_calls;
mod operators;
mod parameters;
mod payloads;
mod refusals;
mod rotation;
mod secrets;
mod tls;
mod unreachable;
mod webhooks;
