//! The EC2 provider, through the real SDK, against a fake AWS that checks every call against AWS's models.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that can't go on fails"
)]

mod buckets;
mod canary;
mod capacity;
mod early;
mod ending;
mod faults;
mod images;
mod kit;
mod launching;
mod listing;
mod replay;
mod restart;
mod spot;
mod versions;
mod withdrawing;
