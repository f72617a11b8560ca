//! The kit's own tests: the fakes and the stand-in runner against what is known of the real ones.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that can't go on fails"
)]

mod assignment;
mod aws_checks;
mod aws_faults;
mod aws_instances;
mod aws_launch;
mod aws_signatures;
mod aws_spot;
mod aws_stores;
mod aws_sts;
mod aws_support;
mod imds;
mod rest;
mod runner;
mod standin_connected;
mod standin_endings;
mod standin_signals;
mod support;
mod webhooks;
