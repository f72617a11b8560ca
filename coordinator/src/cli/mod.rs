//! The command line.

pub mod check_config;
pub mod operator_cert;
