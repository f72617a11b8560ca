//! What can go wrong between a call and its answer, and what becomes of it: never two instances for one
//! launch, never one that nobody knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_coordinator::compute::ec2::Ec2Settings;
use muster_core::InstanceId;
use tokio::time::timeout;

use crate::proxy::{Fault, Proxy, Seen};
use crate::world::{EXTERNAL_ID, HERE, OTHER, REGION, Running, World};

const THROTTLED: Fault = Fault::Error(503, "RequestLimitExceeded");

/// A world whose calls go through a proxy.
async fn world() -> (World, Proxy, Ec2Settings) {
    let world = World::start().await;
    let proxy = Proxy::start(world.moto.port).await;
    let settings = Ec2Settings {
        endpoint: Some(proxy.url()),
        ..world.settings()
    };
    (world, proxy, settings)
}

#[tokio::test]
async fn a_launch_is_made_once_whatever_becomes_of_the_answer() {
    let cases: [&[Fault]; 9] = [
        &[Fault::NeverArrives],
        &[Fault::AnswerLost],
        &[Fault::AnswerLost; 3],
        &[Fault::AnswerCut],
        &[THROTTLED],
        &[Fault::Error(500, "InternalError")],
        &[Fault::Error(503, "Unavailable")],
        &[Fault::Page(502)],
        &[
            THROTTLED,
            Fault::AnswerLost,
            Fault::Page(504),
            Fault::NeverArrives,
            Fault::AnswerCut,
        ],
    ];
    let (world, proxy, settings) = world().await;
    let running = world.provider(settings, "here").await;
    let mut ids = Vec::new();
    for (index, faults) in cases.into_iter().enumerate() {
        let before = proxy.seen("CreateFleet").len();
        for fault in faults {
            proxy.next("CreateFleet", *fault);
        }
        ids.extend(running.launch_many(&format!("l-{index}"), 3, "linux").await);
        world.made_once(&ids).await;

        // The same call with the same token, until it was answered.
        let calls = proxy.seen("CreateFleet").split_off(before);
        let token = |call: &Seen| call.token.clone().unwrap();
        let tokens: BTreeSet<_> = calls.iter().map(token).collect();
        let happened: Vec<_> = calls.iter().filter_map(|call| call.fault).collect();
        assert_eq!(happened, faults);
        assert_eq!(calls.len(), faults.len() + tokens.len(), "{calls:?}");
    }
}

#[tokio::test]
async fn a_launch_whose_answer_came_too_late_is_made_once() {
    let (world, proxy, settings) = world().await;
    let running = world.provider(settings, "here").await;
    world.host.answer_late(2);
    let id = running.launch("l-1", "linux").await.unwrap();
    world.made_once(&[id]).await;
    assert_eq!(proxy.seen("CreateFleet").len(), 3);
}

#[tokio::test]
async fn an_end_without_an_answer_is_asked_for_again() {
    let (world, proxy, settings) = world().await;
    let running = world.provider(settings, "here").await;
    for (fault, done) in [
        (Fault::NeverArrives, false),
        (Fault::AnswerLost, true),
        (Fault::AnswerCut, true),
        (THROTTLED, false),
        (Fault::Error(500, "InternalError"), false),
        (Fault::Page(502), false),
    ] {
        let before = proxy.seen("TerminateInstances").len();
        let ids = running.launch_many(&format!("{fault:?}"), 2, "linux").await;
        proxy.next("TerminateInstances", fault);
        let end = || {
            let ends = ids.iter().map(|id| {
                let (provider, id) = (running.provider.clone(), InstanceId::from(id.as_str()));
                async move { provider.terminate(&id, true).await }
            });
            futures::future::join_all(ends)
        };
        for ended in end().await {
            let error = ended.unwrap_err().to_string();
            assert!(error.starts_with("TerminateInstances: "), "{error}");
        }
        assert_eq!(world.alive(HERE).await.is_empty(), done, "{fault:?}");
        for ended in end().await {
            ended.unwrap();
        }
        assert!(world.alive(HERE).await.is_empty(), "{fault:?}");
        // One call for both, each time: what nobody knows is not looked for by halves.
        assert_eq!(
            proxy.seen("TerminateInstances").len() - before,
            2,
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn what_must_be_known_is_asked_for_again() {
    let (world, proxy, settings) = world().await;
    let mut ids = Vec::new();
    for (index, (call, fault)) in [
        ("DescribeSubnets", Fault::AnswerLost),
        ("DescribeInstanceTypes", THROTTLED),
        ("GetParameters", Fault::NeverArrives),
        ("GetParameters", Fault::AnswerCut),
    ]
    .into_iter()
    .enumerate()
    {
        let before = proxy.seen(call).len();
        proxy.next(call, fault);
        proxy.next(call, fault);
        let database = format!("here-{index}");
        let mut running = world.provider(settings.clone(), &database).await;
        let launching = tokio::spawn(running.launching("l-1", "linux"));
        running.held_up_by(call).await;
        ids.push(launching.await.unwrap().unwrap().instance.to_string());
        world.made_once(&ids).await;
        assert_eq!(proxy.seen(call).len() - before, 3, "{call}");
        running.crash().await;
    }
}

#[tokio::test]
async fn lists_and_questions_fail_and_work_the_next_time() {
    let (world, proxy, settings) = world().await;
    let running = world.provider(settings, "here").await;
    let id = InstanceId::new(running.launch("l-1", "linux").await.unwrap());
    for fault in [
        Fault::AnswerLost,
        Fault::AnswerCut,
        THROTTLED,
        Fault::Page(503),
    ] {
        proxy.next("DescribeInstances", fault);
        let error = running.provider.list().await.unwrap_err().to_string();
        assert!(error.starts_with("DescribeInstances: "), "{error}");
        // Half a list would be taken for the whole one, and the rest for gone.
        assert_eq!(running.provider.list().await.unwrap().alive.len(), 1);
        proxy.next("DescribeInstances", fault);
        running.provider.describe(&id).await.unwrap_err();
        assert!(running.provider.describe(&id).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_role_that_could_not_be_assumed_is_assumed_later() {
    let (world, proxy, settings) = world().await;
    let settings = Ec2Settings {
        endpoint: settings.endpoint,
        ..world.other_settings(EXTERNAL_ID)
    };
    let faults = [Fault::NeverArrives, Fault::AnswerLost, Fault::Page(500)];
    for (index, fault) in faults.into_iter().enumerate() {
        let before = proxy.seen("AssumeRole").len();
        proxy.next("AssumeRole", fault);
        let database = format!("there-{index}");
        let running = world.provider(settings.clone(), &database).await;
        running.launch("l-1", "linux").await.unwrap();
        assert_eq!(world.alive((OTHER, REGION)).await.len(), index + 1);
        // Once assumed, it is kept.
        assert_eq!(proxy.seen("AssumeRole").len() - before, 2, "{fault:?}");
        running.crash().await;
    }
}

#[tokio::test]
async fn events_whose_delivery_was_lost_come_again() {
    let (world, proxy, settings) = world().await;
    let running = world.provider(settings, "here").await;
    crate::notices::announce(&world, HERE, "i-0123456789abcdef0").await;
    proxy.next("ReceiveMessage", Fault::NeverArrives);
    let error = running.provider.notices().await.unwrap_err().to_string();
    assert!(error.contains("ReceiveMessage: "), "{error}");
    let notices = running.provider.notices().await.unwrap();
    assert_eq!(notices.len(), 1);
    let receipts = vec![notices[0].receipt.clone()];
    proxy.next("DeleteMessageBatch", Fault::AnswerLost);
    running
        .provider
        .acknowledge(receipts.clone())
        .await
        .unwrap_err();
    // What is deleted already may be deleted again.
    running.provider.acknowledge(receipts).await.unwrap();
}

/// One call in five: lost answers most of all.
fn storm(seed: u64, call: u64) -> Option<Fault> {
    // splitmix64
    let mut mixed = seed.wrapping_add(call.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    match (mixed ^ (mixed >> 31)) % 50 {
        0..5 => Some(Fault::AnswerLost),
        5 => Some(Fault::AnswerCut),
        6 => Some(Fault::NeverArrives),
        7 => Some(THROTTLED),
        8 => Some(Fault::Error(500, "InternalError")),
        9 => Some(Fault::Page(502)),
        _ => None,
    }
}

/// Another seed at each run; the one that failed is printed.
#[tokio::test]
async fn a_storm_of_faults_makes_none_twice_and_leaves_none() {
    const LAUNCHES: usize = 60;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let (world, proxy, settings) = world().await;
    let running = world.provider(settings, "here").await;
    proxy.storm(seed, storm);

    let mut ids = BTreeMap::new();
    for wave in 0..LAUNCHES / 3 {
        let pool = if wave % 2 == 0 { "linux" } else { "steady" };
        let made = running.launch_many(&format!("l-{wave}"), 3, pool).await;
        ids.extend(
            made.into_iter()
                .enumerate()
                .map(|(index, id)| ((wave, index), id)),
        );
    }
    let made: Vec<String> = ids.into_values().collect();
    assert_eq!(BTreeSet::from_iter(&made).len(), LAUNCHES);
    world.made_once(&made).await;

    let all = made.iter().map(|id| end(&running, id));
    let ended = timeout(Duration::from_secs(60), futures::future::join_all(all)).await;
    ended.expect("instances that can't be ended");
    assert!(world.alive(HERE).await.is_empty());
    proxy.calm();
    let listed = running.provider.list().await.unwrap();
    assert_eq!((listed.alive.len(), listed.gone.len()), (0, LAUNCHES));
    let calls = proxy.seen("CreateFleet");
    let faults = calls.iter().filter(|call| call.fault.is_some()).count();
    let tokens: BTreeSet<_> = calls.iter().map(|call| &call.token).collect();
    println!(
        "{LAUNCHES} launches, {} batches, {} calls, {faults} faults",
        tokens.len(),
        calls.len()
    );
}

/// Ends an instance as the engine does: again and again until that is accepted.
async fn end(running: &Running, id: &str) {
    let id = InstanceId::from(id);
    while running.provider.terminate(&id, true).await.is_err() {}
}
