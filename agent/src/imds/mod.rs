//! The instance metadata service, version 2: who takes this instance away, and when.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>

mod client;
mod connection;
mod endpoint;
mod error;
mod maintenance;
mod notice;
mod patience;
mod reported;
#[cfg(test)]
mod service;
mod watch;

#[expect(
    unused_imports,
    reason = "for the attestation, which reads credentials"
)]
pub(crate) use client::Client;
pub(crate) use endpoint::{Configured, resolve};
#[expect(
    unused_imports,
    reason = "for the attestation, which reads credentials"
)]
pub(crate) use error::ImdsError;
pub(crate) use notice::Notice;
pub(crate) use watch::{Cadence, watch};
