//! Fakes of the services that Muster talks to.

pub mod github;
pub mod imds;
