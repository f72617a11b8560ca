//! The Muster coordinator as a library: `main` only parses, builds, runs and drains.
//!
//! Data flows one way: intake ([`web`], [`grpc`]) -> event -> `muster-core` ([`engine`]) -> effect ->
//! executor ([`compute`], [`github`], [`presence`]) -> event.

pub mod aws;
pub mod backoff;
pub mod chance;
pub mod cli;
pub mod clock;
pub mod compute;
pub mod config;
pub mod engine;
pub mod github;
pub mod grpc;
pub mod identity;
pub mod presence;
pub mod runner_versions;
pub mod secrets;
#[cfg(test)]
mod simulation;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod web;
