//! Another account, by the role that the coordinator assumes there.

use crate::metadata::Keys;
use crate::world::{EXTERNAL_ID, HERE, OTHER, REGION, World};

const THERE: (&str, &str) = (OTHER, REGION);

#[tokio::test]
async fn a_role_launches_in_its_own_account() {
    let world = World::start().await;
    let running = world
        .provider(world.other_settings(EXTERNAL_ID), "there")
        .await;
    let id = running.launch("l-1", "linux").await.unwrap();
    assert!(world.alive(HERE).await.is_empty());
    let there = world.alive(THERE).await;
    assert_eq!(there.len(), 1);
    assert_eq!(there[0].id, id);
    running
        .provider
        .terminate(&id.as_str().into(), true)
        .await
        .unwrap();
    assert!(world.alive(THERE).await.is_empty());
}

#[tokio::test]
async fn two_accounts_are_never_mixed_up() {
    let world = World::start().await;
    let here = world.provider(world.settings(), "here").await;
    let there = world
        .provider(world.other_settings(EXTERNAL_ID), "there")
        .await;
    let (ours, theirs) = tokio::join!(
        here.launch_many("l", 5, "linux"),
        there.launch_many("l", 5, "linux")
    );
    for (place, ids, running, others) in [
        (HERE, &ours, &here, &theirs),
        (THERE, &theirs, &there, &ours),
    ] {
        let mut made: Vec<_> = world
            .alive(place)
            .await
            .into_iter()
            .map(|one| one.id)
            .collect();
        let mut ids = ids.clone();
        made.sort();
        ids.sort();
        assert_eq!(made, ids);
        // What another account has, this one doesn't know, and that is no proof that it is gone.
        let other = others[0].as_str().into();
        assert_eq!(running.provider.describe(&other).await.unwrap(), None);
        assert!(!running.provider.terminate(&other, true).await.unwrap());
    }
    assert_eq!(
        world.alive(HERE).await.len() + world.alive(THERE).await.len(),
        10
    );
}

#[tokio::test]
async fn without_the_external_id_nobody_is_let_in() {
    let world = World::start().await;
    let settings = world.other_settings("another-handshake");
    let mut running = world.provider(settings, "there").await;
    let _launching = tokio::spawn(running.launching("l-1", "linux"));
    let reason = running.held_up_by("AssumeRole").await;
    assert!(reason.contains("AccessDenied"), "{reason}");
    assert!(
        reason.contains("not authorized to perform: sts:AssumeRole"),
        "{reason}"
    );
    assert!(reason.contains("role/muster-account"), "{reason}");
    assert!(world.alive(THERE).await.is_empty());
}

#[tokio::test]
async fn a_wrong_secret_is_told_as_one() {
    let mut world = World::start().await;
    let keys = world.made.sessions["coordinator"].clone();
    let secret = "wrong".to_owned();
    world.host = crate::metadata::Host::new(Keys { secret, ..keys });
    let mut running = world.provider(world.settings(), "here").await;
    let _launching = tokio::spawn(running.launching("l-1", "linux"));
    let reason = running.held_up_by("AuthFailure").await;
    let says = "not able to validate the provided access credentials";
    assert!(
        reason.contains("DescribeSubnets") && reason.contains(says),
        "{reason}"
    );
    let error = running.provider.list().await.unwrap_err().to_string();
    assert!(error.contains("DescribeInstances: AuthFailure"), "{error}");
    let error = running.provider.notices().await.unwrap_err().to_string();
    assert!(
        error.contains("ReceiveMessage: InvalidSignature"),
        "{error}"
    );

    let settings = world.other_settings(EXTERNAL_ID);
    let mut running = world.provider(settings, "there").await;
    let _launching = tokio::spawn(running.launching("l-1", "linux"));
    let reason = running.held_up_by("AssumeRole").await;
    assert!(reason.contains("SignatureDoesNotMatch"), "{reason}");
    assert_eq!(world.moto.decisions().await.len(), 0);
}
