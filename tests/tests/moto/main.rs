//! The coordinator's EC2 provider, through the real SDK, against moto: a double of AWS that others wrote,
//! which checks signatures, with the IAM policies that we ship (`coordinator/deploy/iam`).
//!
//! What moto doesn't check is said in `tests/moto/README.md`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that can't go on fails"
)]

mod accounts;
mod allowed;
mod denied;
mod faults;
mod identity;
mod metadata;
mod moto;
mod notices;
mod policies;
mod proxy;
mod reference;
mod restart;
mod secrets;
mod world;
