//! Figures, and the machine that they are of. Nothing here is asserted.

pub mod agent;
pub mod machine;
pub(crate) mod process;
