//! A small swarm: a hundred agents with bad habits, a storm and a `kill -9`.

use std::time::Duration;

use muster_tests::swarm::{Plan, play};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_agents_survive_a_storm_and_a_kill() {
    let plan = Plan {
        agents: 100,
        heartbeat: Duration::from_millis(300),
        steady: Duration::from_secs(1),
        jobs: 5,
        habits: "steady=2,stalls=1,vanishes=1,half-open=1,storms=1"
            .parse()
            .unwrap(),
        // A quarter of it passes in the midst of all, and a kill is over in much less than the rest.
        certificate_ttl: Duration::from_secs(24),
        patience: Duration::from_secs(60),
        ..Plan::default()
    };
    let outcome = play(&plan, |line| println!("{line}")).await.unwrap();
    assert_eq!(outcome.wrong, [""; 0], "what is wrong");
    assert_eq!(outcome.kills.len(), 1);
}
