//! Certificates and the proofs they are given for.
