//! The command line.

pub mod operator_cert;
