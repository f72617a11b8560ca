//! Two coordinators on one PostgreSQL under siege, in short: the leader is killed four times, and the networks,
//! PostgreSQL and its disk fail in between. The long form is `tests/benches/replicas`. Needs root.

use std::time::Duration;

use muster_tests::swarm::{Fault, Plan, Siege, besiege};

#[test]
fn nothing_is_lost_or_doubled_while_leaders_are_killed_and_all_else_fails() {
    let siege = Siege {
        plan: Plan {
            agents: 30,
            jobs: 15,
            job_lasts: Some(Duration::from_secs(3)),
            heartbeat: Duration::from_millis(500),
            // A webhook that was asked for again, and went to one that was killed, is asked for once more after a minute.
            patience: Duration::from_secs(150),
            ..Plan::default()
        },
        kills: 4,
        every: Duration::from_secs(6),
        faults: Fault::ALL[1..].to_vec(),
        job_every: Duration::from_millis(500),
        // Two seconds of a leader without a processor are no fault of its own.
        store: "lease_ttl = \"6s\"\n".to_owned(),
    };
    let held = besiege(&siege, |line| println!("{line}")).unwrap();
    assert_eq!(held.wrong, [""; 0], "what is wrong");
    assert_eq!(held.takeovers.len(), 4, "each time another served");
}
