//! Certificates and the proofs they are given for.

pub mod attest;
pub mod ca;
pub mod csr;
pub mod files;
pub mod join_token;
pub mod peer;
pub mod serving;
pub mod spiffe;
pub mod tls;
