//! Stands in for `bin/Runner.Worker`.

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let code = muster_tests::standin::worker::run().await;
    // Not by returning: the runtime would wait for the read of stdin that is always under way.
    std::process::exit(i32::from(code))
}
