//! Stands in for `bin/Runner.Worker`.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    muster_tests::standin::worker::run().await
}
