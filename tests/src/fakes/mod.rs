//! Fakes of the services that Muster talks to.

pub mod aws;
pub mod github;
pub mod imds;
