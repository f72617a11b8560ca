//! What the policies refuse, with the coordinator's own keys.

use aws_credential_types::Credentials;
use aws_sdk_ec2::config::{BehaviorVersion, Region};
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{
    FleetLaunchTemplateConfigRequest, FleetLaunchTemplateSpecificationRequest, FleetType,
    ResourceType, Tag, TagSpecification, TargetCapacitySpecificationRequest,
};
use muster_coordinator::compute::LaunchError;
use muster_core::LaunchFailure;
use rstest::rstest;
use serde_json::json;

use crate::world::{COORDINATOR, HERE, REGION, World};

fn ec2(world: &World, region: &'static str) -> aws_sdk_ec2::Client {
    let keys = &world.made.sessions["coordinator"];
    let token = Some(keys.token.clone());
    let config = aws_sdk_ec2::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region))
        .endpoint_url(world.moto.url())
        .credentials_provider(Credentials::new(
            &keys.id,
            &keys.secret,
            token,
            None,
            "test",
        ))
        .http_client(world.host.client())
        .build();
    aws_sdk_ec2::Client::from_conf(config)
}

#[track_caller]
fn refused<T: std::fmt::Debug, E, R>(result: Result<T, SdkError<E, R>>, action: &str)
where
    E: ProvideErrorMetadata + std::fmt::Debug,
    R: std::fmt::Debug,
{
    let error = result.unwrap_err();
    assert_eq!(error.code(), Some("UnauthorizedOperation"), "{error:?}");
    let message = error.message().unwrap();
    assert!(message.contains(&format!("perform: {action}")), "{message}");
}

fn tagged(kind: ResourceType, key: &str, value: &str) -> TagSpecification {
    TagSpecification::builder()
        .resource_type(kind)
        .tags(Tag::builder().key(key).value(value).build())
        .build()
}

/// Makes an instance as somebody else, and gives its id.
async fn foreign(world: &World, tags: serde_json::Value) -> String {
    let made = &world.made.accounts[0];
    let request = json!({
        "ImageId": made.images[0], "MinCount": 1, "MaxCount": 1, "SubnetId": made.subnets[0],
        "TagSpecifications": [{ "ResourceType": "instance", "Tags": tags }],
    });
    let made = world.moto.call(HERE, "ec2", "run_instances", request).await;
    made["Instances"][0]["InstanceId"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[rstest]
#[case::without_it("Name", "somebody's")]
#[case::anothers("muster:coordinator", "another")]
#[tokio::test]
async fn an_instance_without_our_tag_can_not_be_ended(#[case] key: &str, #[case] value: &str) {
    let world = World::start().await;
    let running = world.provider(world.settings(), "here").await;
    let ours = running.launch_many("l", 3, "linux").await;
    let foreign = foreign(&world, json!([{ "Key": key, "Value": value }])).await;
    // In one call with ours, which end all the same.
    let all = [&ours[0], &foreign, &ours[1], &ours[2]];
    let ends = all.map(|id| {
        let (provider, id) = (running.provider.clone(), id.as_str().into());
        async move { provider.terminate(&id, true).await }
    });
    let ended = futures::future::join_all(ends).await;
    for (id, ended) in all.iter().zip(&ended) {
        if **id == foreign {
            let error = ended.clone().unwrap_err().to_string();
            assert!(
                error.contains("TerminateInstances: UnauthorizedOperation"),
                "{error}"
            );
            assert!(error.contains(&foreign), "{error}");
        } else {
            assert!(ended.is_ok(), "{ended:?}");
        }
    }
    let alive: Vec<_> = world
        .alive(HERE)
        .await
        .into_iter()
        .map(|one| one.id)
        .collect();
    assert_eq!(alive, [foreign]);
}

#[tokio::test]
async fn a_launch_template_that_guards_less_is_refused() {
    let world = World::start().await;
    let running = world.provider(world.settings(), "here").await;
    for (pool, action) in [
        ("no-metadata-options", "ec2:RunInstances"),
        ("loose-hop-limit", "ec2:RunInstances"),
        ("not-ours", "ec2:CreateFleet"),
    ] {
        let error = running.launch(pool, pool).await.unwrap_err();
        let LaunchError::Failed { failure, detail } = error else {
            panic!("{error:?}");
        };
        assert_eq!(failure, LaunchFailure::Permanent);
        let start = "CreateFleet: UnauthorizedOperation: ";
        assert!(
            detail.starts_with(start) && detail.contains(action),
            "{pool}: {detail}"
        );
    }
    assert!(world.alive(HERE).await.is_empty());
}

#[tokio::test]
async fn nothing_is_asked_of_another_region() {
    let world = World::start().await;
    let elsewhere = ec2(&world, "us-east-1");
    refused(
        elsewhere.describe_instances().send().await,
        "ec2:DescribeInstances",
    );
    refused(
        fleet(&elsewhere, COORDINATOR).send().await,
        "ec2:CreateFleet",
    );
    let settings = muster_coordinator::compute::ec2::Ec2Settings {
        region: "us-east-1".to_owned(),
        ..world.settings()
    };
    let mut running = world.provider(settings, "elsewhere").await;
    let _launching = tokio::spawn(running.launching("l-1", "linux"));
    let reason = running
        .held_up_by("DescribeSubnets: UnauthorizedOperation")
        .await;
    assert!(reason.contains("not authorized"), "{reason}");
}

fn fleet(
    client: &aws_sdk_ec2::Client,
    owner: &str,
) -> aws_sdk_ec2::operation::create_fleet::builders::CreateFleetFluentBuilder {
    let template = FleetLaunchTemplateSpecificationRequest::builder()
        .launch_template_name("muster-runner")
        .version("$Default");
    let kinds = [
        ResourceType::Fleet,
        ResourceType::Instance,
        ResourceType::Volume,
    ];
    let tags = kinds.map(|kind| tagged(kind, "muster:coordinator", owner));
    client
        .create_fleet()
        .r#type(FleetType::Instant)
        .launch_template_configs(
            FleetLaunchTemplateConfigRequest::builder()
                .launch_template_specification(template.build())
                .build(),
        )
        .target_capacity_specification(
            TargetCapacitySpecificationRequest::builder()
                .total_target_capacity(1)
                .build(),
        )
        .set_tag_specifications(Some(tags.into()))
}

#[tokio::test]
async fn nothing_else_is_allowed() {
    let world = World::start().await;
    let running = world.provider(world.settings(), "here").await;
    let ours = running.launch("l-1", "linux").await.unwrap();
    let made = &world.made.accounts[0];
    let ec2 = ec2(&world, REGION);

    refused(fleet(&ec2, "another").send().await, "ec2:CreateFleet");
    let run = || {
        ec2.run_instances()
            .image_id(&made.images[0])
            .subnet_id(&made.subnets[0])
            .security_group_ids(&made.group)
            .min_count(1)
            .max_count(1)
    };
    refused(run().send().await, "ec2:RunInstances");
    let tags = tagged(ResourceType::Instance, "muster:coordinator", COORDINATOR);
    refused(
        run().tag_specifications(tags).send().await,
        "ec2:RunInstances",
    );
    // With all that an instance of ours has, but not by a template: what that says would be the caller's.
    let guarded = || {
        run()
            .tag_specifications(tagged(
                ResourceType::Instance,
                "muster:coordinator",
                COORDINATOR,
            ))
            .tag_specifications(tagged(
                ResourceType::Volume,
                "muster:coordinator",
                COORDINATOR,
            ))
            .metadata_options(
                aws_sdk_ec2::types::InstanceMetadataOptionsRequest::builder()
                    .http_tokens(aws_sdk_ec2::types::HttpTokensState::Required)
                    .http_put_response_hop_limit(1)
                    .build(),
            )
    };
    refused(guarded().send().await, "ec2:RunInstances");
    // By our template, and into another security group.
    let template = aws_sdk_ec2::types::LaunchTemplateSpecification::builder()
        .launch_template_name("muster-runner")
        .version("$Default");
    let elsewhere = guarded().launch_template(template.build());
    refused(elsewhere.send().await, "ec2:RunInstances");
    // Tags are for what is launched: nothing that exists becomes ours by a tag.
    let tag = Tag::builder().key("muster:coordinator").value(COORDINATOR);
    let tagging = ec2.create_tags().resources(&ours).tags(tag.build());
    refused(tagging.send().await, "ec2:CreateTags");
    refused(
        ec2.stop_instances().instance_ids(&ours).send().await,
        "ec2:StopInstances",
    );
    refused(
        ec2.describe_instance_attribute()
            .instance_id(&ours)
            .attribute(aws_sdk_ec2::types::InstanceAttributeName::UserData)
            .send()
            .await,
        "ec2:DescribeInstanceAttribute",
    );
    refused(
        ec2.modify_instance_metadata_options()
            .instance_id(&ours)
            .send()
            .await,
        "ec2:ModifyInstanceMetadataOptions",
    );

    // Parameters of others: the pool waits, and says for what.
    let mut settings = world.settings();
    for pool in settings.pools.values_mut() {
        let name = "/somebody/ami".to_owned();
        pool.image = muster_coordinator::compute::ec2::ImageSource::Parameter(name);
    }
    let mut running = world.provider(settings, "parameters").await;
    let _launching = tokio::spawn(running.launching("l-1", "linux"));
    let reason = running.held_up_by("GetParameters").await;
    assert!(reason.contains("AccessDenied"), "{reason}");
    assert!(reason.contains("parameter/somebody/ami"), "{reason}");

    // Roles of other names, and queues.
    let mut settings = world.other_settings(crate::world::EXTERNAL_ID);
    if let Some(role) = &mut settings.role {
        role.arn = role.arn.replace("muster-account", "administrator");
    }
    let mut running = world.provider(settings, "roles").await;
    let _launching = tokio::spawn(running.launching("l-1", "linux"));
    let reason = running.held_up_by("AccessDenied").await;
    assert!(reason.contains("role/administrator"), "{reason}");
    let mut settings = world.settings();
    settings.queue_url = settings
        .queue_url
        .map(|url| url.replace("muster-events", "payroll"));
    world
        .moto
        .call(
            HERE,
            "sqs",
            "create_queue",
            json!({ "QueueName": "payroll" }),
        )
        .await;
    let running = world.provider(settings, "queues").await;
    let error = running.provider.notices().await.unwrap_err().to_string();
    assert!(error.contains("ReceiveMessage: AccessDenied"), "{error}");
    assert_eq!(world.alive(HERE).await.len(), 1);
}
