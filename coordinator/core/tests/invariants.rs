//! Random lives of a fleet, with doubled, lost and reordered messages and crashes at any point.
//! The world checks invariants 1, 2, 4, 5, 6, 8, 9 and 10 at each step; see `world/mod.rs`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test panics when it fails"
)]

mod world;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use world::{Step, World};

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u8..2, prop::bool::weighted(0.9)).prop_map(|(pool, known)| Step::QueueJob { pool, known }),
        1 => any::<usize>().prop_map(Step::CancelJob),
        12 => any::<usize>().prop_map(Step::Deliver),
        2 => any::<usize>().prop_map(Step::Double),
        1 => any::<usize>().prop_map(Step::Lose),
        12 => (any::<usize>(), any::<u8>()).prop_map(|(index, luck)| Step::Effect { index, luck }),
        12 => any::<usize>().prop_map(Step::Host),
        1 => any::<usize>().prop_map(Step::Disconnect),
        3 => any::<usize>().prop_map(Step::Vanish),
        1 => any::<usize>().prop_map(Step::Spot),
        1 => any::<usize>().prop_map(Step::Warn),
        1 => any::<usize>().prop_map(Step::OperatorDrain),
        1 => any::<usize>().prop_map(Step::OperatorTerminate),
        1 => any::<usize>().prop_map(Step::Distrust),
        1 => any::<bool>().prop_map(Step::Pause),
        1 => (0u8..3, 0u8..4).prop_map(|(own, canary)| Step::Images(own, canary)),
        1 => Just(Step::List),
        3 => (0u16..90).prop_map(Step::Tick),
        1 => Just(Step::Crash),
        1 => Just(Step::LoseStore),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        max_shrink_iters: 20_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn invariants_1_2_4_5_6_8_9_10_hold_through_any_life(
        steps in prop::collection::vec(step(), 1..250),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.settle();
    }
}
