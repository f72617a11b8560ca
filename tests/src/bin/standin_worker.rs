//! Placeholder until the binary is written.
fn main() {}
