//! The instance metadata service, version 2: who takes this instance away, and when; and its credentials.
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
pub(crate) mod service;
mod watch;

pub(crate) use client::Client;
pub(crate) use endpoint::{Configured, resolve};
pub(crate) use error::ImdsError;
pub(crate) use notice::Notice;
pub(crate) use watch::{Cadence, watch};
