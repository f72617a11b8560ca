//! The test host as a machine with a kernel of its own, for what only the kernel can hold: memory. Needs root,
//! and `.ci/tools host`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what surprises a test's helper fails the test"
)]

mod memory;
mod scene;
