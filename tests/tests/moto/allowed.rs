//! Everything the coordinator does is allowed by the policies, and nothing else is.

use std::collections::BTreeSet;

use muster_coordinator::compute::InstanceState;
use muster_core::InstanceId;
use serde_json::json;

use crate::moto::Decision;
use crate::policies::{Document, filled};
use crate::world::{ACCOUNT, COORDINATOR, HERE, OTHER, REGION, World};

/// The calls that a provider makes, by their names in the API.
const CALLS: [&str; 10] = [
    "ec2:CreateFleet",
    "ec2:DescribeImages",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeSubnets",
    "ec2:TerminateInstances",
    "sqs:DeleteMessageBatch",
    "sqs:ReceiveMessage",
    "ssm:GetParameters",
    "sts:AssumeRole",
];

/// Actions that must be allowed though they are no calls of ours: EC2 and STS ask for them in the course
/// of one.
const IMPLIED: [(&str, &str); 4] = [
    ("ec2:RunInstances", "ec2:CreateFleet"),
    ("ec2:CreateTags", "ec2:CreateFleet"),
    ("iam:PassRole", "ec2:CreateFleet"),
    ("sts:TagSession", "sts:AssumeRole"),
];

#[tokio::test]
async fn what_is_allowed_is_what_is_done() {
    let world = World::start().await;
    let here = world.provider(world.settings(), "here").await;
    let there = world.other_settings(crate::world::EXTERNAL_ID);
    let there = world.provider(there, "there").await;

    for running in [&here, &there] {
        let spot = running.launch("l-spot", "linux").await.unwrap();
        let steady = running.launch("l-steady", "steady").await.unwrap();
        let listed = running.provider.list().await.unwrap();
        assert_eq!(listed.alive.len(), 2);
        let mut images = running.provider.images().unwrap();
        let looked_at = images.wait_for(|images| !images.runners.is_empty());
        looked_at.await.unwrap();
        for (name, at_once) in [(spot, true), (steady, false)] {
            let instance = InstanceId::from(name.as_str());
            let facts = running.provider.describe(&instance).await.unwrap().unwrap();
            assert_eq!(facts.state, InstanceState::Running);
            running
                .provider
                .terminate(&instance, at_once)
                .await
                .unwrap();
        }
    }
    here.launch("l-profile", "with-profile").await.unwrap();
    for (running, account) in [(&here, ACCOUNT), (&there, OTHER)] {
        crate::notices::announce(&world, (account, REGION), "i-0123456789abcdef0").await;
        let notices = running.provider.notices().await.unwrap();
        let receipts = notices.into_iter().map(|notice| notice.receipt).collect();
        running.provider.acknowledge(receipts).await.unwrap();
    }

    let decisions = world.moto.decisions().await;
    let refused: Vec<_> = decisions.iter().filter(|one| !one.allowed).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    let calls: BTreeSet<_> = decisions.iter().map(|one| one.call.as_str()).collect();
    assert_eq!(calls, CALLS.into());
    for one in &decisions {
        let implied = IMPLIED.contains(&(one.action.as_str(), one.call.as_str()));
        let own = one.action == one.call
            || (one.action == "sqs:DeleteMessage" && one.call == "sqs:DeleteMessageBatch");
        assert!(own || implied, "{one:?}");
    }
    let coordinator = format!("arn:aws:iam::{ACCOUNT}:role/muster-coordinator");
    let account = format!("arn:aws:iam::{OTHER}:role/muster-account");
    for (file, place, who) in [
        ("account.json", ACCOUNT, &coordinator),
        ("account.json", OTHER, &account),
        ("coordinator-accounts.json", ACCOUNT, &coordinator),
        ("pass-instance-role.json", ACCOUNT, &coordinator),
    ] {
        let by_them: Vec<_> = decisions.iter().filter(|one| &one.who == who).collect();
        all_of_it_was_used(file, place, &by_them);
    }
}

/// Each action of each statement was needed, and each resource pattern.
pub(crate) fn all_of_it_was_used(file: &str, account: &str, decisions: &[&Decision]) {
    let document: Document = serde_json::from_value(filled(file, account, REGION)).unwrap();
    for statement in document.statement {
        let by_it: Vec<_> = decisions
            .iter()
            .filter(|one| one.by.iter().any(|(sid, _)| *sid == statement.sid))
            .collect();
        for action in statement.action.all() {
            assert!(
                by_it.iter().any(|one| &one.action == action),
                "{file}, {}: {action} was never needed",
                statement.sid
            );
        }
        for resource in statement.resource.unwrap().all() {
            assert!(
                by_it
                    .iter()
                    .any(|one| one.by.iter().any(|(_, fitted)| fitted == resource)),
                "{file}, {}: {resource} was never needed",
                statement.sid
            );
        }
    }
}

#[tokio::test]
async fn many_launches_carry_their_tags_and_the_image_of_the_parameter() {
    let world = World::start().await;
    let running = world.provider(world.settings(), "here").await;
    let ids = running.launch_many("l", 40, "linux").await;
    assert_eq!(BTreeSet::from_iter(&ids).len(), 40);

    let made = &world.made.accounts[0];
    let instances = world.alive(HERE).await;
    assert_eq!(instances.len(), 40);
    let mut batches = BTreeSet::new();
    for one in &instances {
        assert!(ids.contains(&one.id));
        assert_eq!(one.tags["muster:coordinator"], COORDINATOR);
        assert_eq!(one.tags["muster:pool"], "linux");
        assert_eq!(one.tags["Name"], "muster linux");
        assert_eq!(one.image, made.images[1]);
        assert_eq!(one.kind, "m5.large");
        assert!(made.subnets.contains(one.subnet.as_ref().unwrap()));
        batches.insert(one.tags["muster:batch"].clone());
    }
    assert!(batches.len() <= 3, "{batches:?}");

    let describe = |name: &str| {
        let (provider, id) = (running.provider.clone(), InstanceId::from(name));
        async move { provider.describe(&id).await.unwrap().unwrap() }
    };
    let facts = describe(&ids[0]).await;
    assert_eq!(facts.image, made.images[1]);
    assert_eq!(facts.coordinator.as_deref(), Some(COORDINATOR));
    assert_eq!(facts.pool.as_deref(), Some("linux"));
    assert!(facts.private_ip.is_some() && batches.contains(&facts.batch.unwrap()));

    let ends = ids.iter().enumerate().map(|(index, name)| {
        let (provider, id) = (running.provider.clone(), InstanceId::from(name.as_str()));
        async move { provider.terminate(&id, index % 2 == 0).await }
    });
    for ended in futures::future::join_all(ends).await {
        ended.unwrap();
    }
    assert!(world.alive(HERE).await.is_empty());
    let listed = running.provider.list().await.unwrap();
    assert_eq!((listed.alive.len(), listed.gone.len()), (0, 40));
    assert_eq!(describe(&ids[0]).await.state, InstanceState::Terminated);
}

#[tokio::test]
async fn a_new_image_goes_to_new_launches() {
    let world = World::start().await;
    let running = world.provider(world.settings(), "here").await;
    running.launch("l-1", "linux").await.unwrap();
    running.crash().await;

    // Parameters are read at the start, and then once a minute.
    let made = &world.made.accounts[0];
    let newer =
        json!({ "Name": "/muster/ami/linux-x64", "Value": made.images[2], "Overwrite": true });
    world.moto.call(HERE, "ssm", "put_parameter", newer).await;
    let running = world.provider(world.settings(), "here").await;
    running.launch("l-2", "linux").await.unwrap();
    let images: Vec<_> = world
        .alive(HERE)
        .await
        .into_iter()
        .map(|one| one.image)
        .collect();
    assert_eq!(images, [made.images[1].clone(), made.images[2].clone()]);
}
