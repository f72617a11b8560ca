//! The gRPC listeners.

pub mod authorize;
pub mod enrollment;
pub mod listen;
pub mod operator;
mod per_address;
pub mod session;

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
pub(crate) mod time;
