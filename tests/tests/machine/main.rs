//! The test host as a machine with a kernel of its own: for what only the kernel can hold, memory; and for the boot. Needs root,
//! and `.ci/tools host`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what surprises a test's helper fails the test"
)]

mod boot;
mod memory;
mod scene;
