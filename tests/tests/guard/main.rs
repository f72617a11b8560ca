//! What keeps jobs from the metadata service, and the files of `ami/`, without a booted host. Needs root
//! for the network namespaces.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what surprises a test's helper fails the test"
)]

mod imds;
mod machine;
mod shipped;
