//! Stands in for `bin/Runner.Listener`.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    muster_tests::standin::listener::run().await
}
