//! `CreateFleet`: where capacity comes from, what is missing, and that a token makes it once.

use aws_sdk_ec2::types::{
    DefaultTargetCapacityType, FleetOnDemandAllocationStrategy, OnDemandOptionsRequest,
};
use muster_tests::fakes::aws::{Capacity, Market, Offering, ParameterKind};

use crate::aws_support::{Cloud, PATIENCE, code, codes, ids, target};

const POOLS: [(&str, char); 3] = [("m7i.large", 'a'), ("m7i.large", 'b'), ("m6a.large", 'a')];

#[tokio::test]
async fn a_fleet_is_launched_where_it_is_cheapest() {
    let cloud = Cloud::start().await;
    let fleet = cloud.fleet("mb-1", 3, &POOLS).send().await.unwrap();
    assert_eq!(codes(&fleet), Vec::<&str>::new());
    let [group] = fleet.instances() else {
        panic!("{fleet:?}");
    };
    assert_eq!(group.instance_type().unwrap().as_str(), "m6a.large");
    assert_eq!(group.lifecycle().unwrap().as_str(), "spot");
    assert_eq!(group.instance_ids().len(), 3);
    let pool = group.launch_template_and_overrides().unwrap();
    let template = pool.launch_template_specification().unwrap();
    assert_eq!(template.version(), Some("1"));
    assert!(template.launch_template_id().unwrap().starts_with("lt-"));
    let pool = pool.overrides().unwrap();
    assert_eq!(pool.availability_zone(), Some(&*cloud.zone('a')));
    assert_eq!(pool.subnet_id(), Some(&*cloud.subnet('a')));
    let it = cloud.aws.instance(&ids(&fleet)[0]).unwrap();
    assert_eq!(it.market, Market::Spot);
    assert_eq!(it.tags["muster:batch"], "mb-1");
    assert_eq!(cloud.aws.fleets()[0].tags["muster:coordinator"], "test");
    assert_eq!(cloud.aws.served("CreateFleet"), 1);
    cloud.assert_conforms();
}

#[tokio::test]
async fn a_token_launches_once() {
    let cloud = Cloud::start().await;
    let first = cloud.fleet("mb-1", 2, &POOLS).send().await.unwrap();
    let again = cloud.fleet("mb-1", 2, &POOLS).send().await.unwrap();
    assert_eq!(first.fleet_id(), again.fleet_id());
    assert_eq!(ids(&first), ids(&again));
    let other = cloud.fleet("mb-1", 3, &POOLS).send().await;
    assert_eq!(code(other), "IdempotentParameterMismatch");
    assert_eq!(cloud.aws.instances().len(), 2);
    cloud.assert_conforms();
}

#[tokio::test]
async fn what_one_offering_lacks_the_next_gives() {
    let cloud = Cloud::start().await;
    let script = |offering, capacity| cloud.aws.set_capacity(&cloud.home, offering, capacity);
    script(Offering::any(), Capacity::Left(0));
    let cheap = Offering::of(Market::Spot, "m6a.large", &cloud.zone('a'));
    script(cheap, Capacity::Left(2));
    let next = Offering::of(Market::Spot, "m7i.large", &cloud.zone('b'));
    script(next, Capacity::Left(1));
    let fleet = cloud.fleet("mb-1", 4, &POOLS).send().await.unwrap();
    assert_eq!(ids(&fleet).len(), 3);
    assert_eq!(codes(&fleet), ["InsufficientInstanceCapacity"; 3]);
    let error = &fleet.errors()[0];
    let pool = error.launch_template_and_overrides().unwrap();
    let pool = pool.overrides().unwrap();
    assert_eq!(pool.instance_type().unwrap().as_str(), "m6a.large");
    cloud.assert_conforms();
}

#[tokio::test]
async fn refusals_have_the_code_that_was_scripted() {
    for wanted in [
        "InsufficientInstanceCapacity",
        "UnfulfillableCapacity",
        "MaxSpotInstanceCountExceeded",
        "VcpuLimitExceeded",
        "InsufficientFreeAddressesInSubnet",
        "SpotMaxPriceTooLow",
    ] {
        let cloud = Cloud::start().await;
        let refused = Capacity::Refused(wanted.to_owned());
        let spot = Offering::market(Market::Spot);
        cloud.aws.set_capacity(&cloud.home, spot, refused);
        let fleet = cloud.fleet("mb-1", 1, &POOLS[..1]).send().await.unwrap();
        assert_eq!(codes(&fleet), [wanted]);
        assert_eq!(ids(&fleet), Vec::<String>::new());
        cloud.assert_conforms();
    }
}

#[tokio::test]
async fn a_subnet_has_so_many_addresses() {
    let cloud = Cloud::start().await;
    let mut subnet = cloud.aws.subnets(&cloud.home).remove(0);
    subnet.free = 1;
    cloud.aws.add_subnet(&cloud.home, subnet);
    let fleet = cloud.fleet("mb-1", 3, &POOLS[..2]).send().await.unwrap();
    assert_eq!(ids(&fleet).len(), 3);
    assert_eq!(codes(&fleet), ["InsufficientFreeAddressesInSubnet"]);
    let free = || cloud.aws.subnets(&cloud.home)[0].free;
    assert_eq!(free(), 0);
    for id in ids(&fleet) {
        cloud.aws.power_off(&id);
    }
    let back = || (free() == 1).then_some(());
    let back = cloud.aws.wait_for("an address", PATIENCE, back);
    back.await.unwrap();
    cloud.assert_conforms();
}

#[tokio::test]
async fn fewer_than_asked_for_may_come_without_a_word() {
    let cloud = Cloud::start().await;
    let silent = Capacity::LeftInSilence(1);
    let home = &cloud.home;
    cloud.aws.set_capacity(home, Offering::any(), silent);
    let fleet = cloud.fleet("mb-1", 3, &POOLS[..1]).send().await.unwrap();
    assert_eq!((ids(&fleet).len(), codes(&fleet).len()), (1, 0));
    cloud.aws.clear_capacity(home);
    assert_eq!(cloud.launch("mb-2", 3).await.len(), 3);
    cloud.assert_conforms();
}

#[tokio::test]
async fn on_demand_keeps_to_the_priorities() {
    let cloud = Cloud::start().await;
    let prioritized = OnDemandOptionsRequest::builder()
        .allocation_strategy(FleetOnDemandAllocationStrategy::Prioritized)
        .build();
    let first = Offering::of(Market::OnDemand, "m7i.large", &cloud.zone('a'));
    cloud
        .aws
        .set_capacity(&cloud.home, first, Capacity::Left(1));
    let fleet = cloud
        .fleet("mb-1", 2, &POOLS)
        .on_demand_options(prioritized)
        .target_capacity_specification(target(2, DefaultTargetCapacityType::OnDemand))
        .send()
        .await
        .unwrap();
    let zones: Vec<_> = fleet
        .instances()
        .iter()
        .map(|group| group.availability_zone().unwrap().to_owned())
        .collect();
    assert_eq!(zones, [cloud.zone('a'), cloud.zone('b')]);
    assert_eq!(codes(&fleet), ["InsufficientInstanceCapacity"]);
    cloud.assert_conforms();
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let cloud = Cloud::start().await;
    let (aws, home) = (&cloud.aws, &cloud.home);
    let unknown_type = cloud.fleet("mb-1", 1, &[("m9.huge", 'a')]);
    let unknown_type = unknown_type.send().await.unwrap();
    assert_eq!(codes(&unknown_type), ["InvalidParameterValue"]);
    let twice = cloud.fleet("mb-2", 1, &[("m7i.large", 'a'), ("m7i.large", 'a')]);
    assert_eq!(code(twice.send().await), "InvalidFleetConfig");
    let foreign = cloud.fleet("mb-3", 1, &[("m7g.large", 'a')]);
    let foreign = foreign.send().await.unwrap();
    assert_eq!(codes(&foreign), ["InvalidParameterValue"]);
    let asked = cloud.fleet("mb-4", 1, &POOLS[..1]);
    aws.remove_image(home, &aws.image(home, "x86_64").unwrap());
    let no_image = asked.send().await.unwrap();
    assert_eq!(codes(&no_image), ["InvalidAMIID.NotFound"]);
    let asked = cloud.fleet("mb-5", 1, &POOLS[..1]);
    aws.remove_template(home, "muster");
    let no_template = code(asked.send().await);
    assert_eq!(no_template, "InvalidLaunchTemplateName.NotFoundException");
    assert_eq!(aws.instances().len(), 0);
    cloud.assert_conforms();
}

#[tokio::test]
async fn an_image_may_be_named_by_a_parameter() {
    let cloud = Cloud::start().await;
    let (aws, home) = (&cloud.aws, &cloud.home);
    let image = aws.image(home, "arm64").unwrap();
    aws.put_parameter(home, "/ami/arm", ParameterKind::Image, &image);
    let mut template = aws.template(home, "muster").unwrap();
    template.versions[0].image_id = Some("resolve:ssm:/ami/arm".to_owned());
    aws.put_template(home, template);
    let fleet = cloud.fleet("mb-1", 1, &[("m7g.large", 'c')]);
    let fleet = fleet.send().await.unwrap();
    assert_eq!(aws.instance(&ids(&fleet)[0]).unwrap().image_id, image);
    cloud.assert_conforms();
}

#[tokio::test]
async fn templates_subnets_and_types_can_be_described() {
    let cloud = Cloud::start().await;
    let ec2 = cloud.ec2();
    let subnets = ec2.describe_subnets().subnet_ids(cloud.subnet('b'));
    let subnets = subnets.send().await.unwrap();
    let zone = subnets.subnets()[0].availability_zone();
    assert_eq!(zone, Some(&*cloud.zone('b')));
    let types = ec2
        .describe_instance_types()
        .instance_types("m7g.xlarge".into());
    let types = types.send().await.unwrap();
    let it = &types.instance_types()[0];
    let vcpus = it.v_cpu_info().unwrap().default_v_cpus();
    let memory = it.memory_info().unwrap().size_in_mib();
    assert_eq!((vcpus, memory), (Some(4), Some(16_384)));
    let unknown = ec2
        .describe_instance_types()
        .instance_types("m9.huge".into());
    assert_eq!(code(unknown.send().await), "InvalidInstanceType");
    let templates = ec2
        .describe_launch_templates()
        .launch_template_names("muster");
    let templates = templates.send().await.unwrap();
    assert_eq!(
        templates.launch_templates()[0].latest_version_number(),
        Some(1)
    );
    let versions = ec2
        .describe_launch_template_versions()
        .launch_template_name("muster")
        .versions("$Latest")
        .send()
        .await
        .unwrap();
    let data = versions.launch_template_versions()[0].launch_template_data();
    let behaviour = data.unwrap().instance_initiated_shutdown_behavior();
    assert_eq!(behaviour.unwrap().as_str(), "terminate");
    cloud.assert_conforms();
}
