//! The gRPC listeners.

pub mod authorize;
pub mod enrollment;
pub mod listen;
pub mod operator;
pub mod session;

#[cfg(test)]
mod sample;
pub(crate) mod time;
