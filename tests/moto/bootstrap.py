"""What an installer makes before the coordinator starts, in each account."""

import json


def bootstrap(client, plan):
    """Makes roles, networks, launch templates, parameters, queues and rules; answers their names, and
    keys of some sessions."""
    made = {"accounts": []}
    for account in plan["accounts"]:
        made["accounts"].append(_account(client, account))
    for role in plan["roles"]:
        _role(client("iam", role["account"], "us-east-1"), role)
    made["sessions"] = {name: _keys(client, one) for name, one in plan["sessions"].items()}
    return made


def _keys(client, session):
    """Keys of a role, as ECS gives them to a task and EC2 to an instance."""
    account, name = session["account"], session["role"]
    keys = client("sts", account, session["region"]).assume_role(
        RoleArn=f"arn:aws:iam::{account}:role/{name}", RoleSessionName=session["name"],
    )["Credentials"]
    return {"id": keys["AccessKeyId"], "secret": keys["SecretAccessKey"], "token": keys["SessionToken"]}


def _role(iam, role):
    trust = json.dumps(role["trust"])
    iam.create_role(RoleName=role["name"], AssumeRolePolicyDocument=trust)
    for name, document in role["policies"].items():
        iam.put_role_policy(RoleName=role["name"], PolicyName=name, PolicyDocument=json.dumps(document))


def _account(client, account):
    number, region = account["id"], account["region"]
    ec2 = client("ec2", number, region)
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    zones = [zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"][:2]]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{index}.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
        for index, zone in enumerate(zones)
    ]
    group = ec2.create_security_group(GroupName="runners", Description="runners", VpcId=vpc)["GroupId"]
    images = [image["ImageId"] for image in ec2.describe_images(Owners=["amazon"])["Images"][:3]]
    guarded = {"HttpTokens": "required", "HttpPutResponseHopLimit": 1, "HttpEndpoint": "enabled"}
    templates = {
        "muster-runner": {"MetadataOptions": guarded},
        "no-metadata-options": {},
        "loose-hop-limit": {"MetadataOptions": guarded | {"HttpPutResponseHopLimit": 2}},
        "with-profile": {"MetadataOptions": guarded, "IamInstanceProfile": {"Name": "muster-runner"}},
        "not-ours": {"MetadataOptions": guarded},
    }
    for name, data in templates.items():
        owner = "somebody" if name == "not-ours" else account["coordinator"]
        ec2.create_launch_template(
            LaunchTemplateName=name,
            LaunchTemplateData={
                "ImageId": images[0], "InstanceType": "m5.large", "SecurityGroupIds": [group],
                "InstanceInitiatedShutdownBehavior": "terminate", **data,
            },
            TagSpecifications=[{
                "ResourceType": "launch-template",
                "Tags": [{"Key": "muster:coordinator", "Value": owner}],
            }],
        )
    iam = client("iam", number, "us-east-1")
    iam.create_role(RoleName="muster-runner", AssumeRolePolicyDocument=json.dumps(account["instance_trust"]))
    iam.create_instance_profile(InstanceProfileName="muster-runner")
    iam.add_role_to_instance_profile(InstanceProfileName="muster-runner", RoleName="muster-runner")
    ssm = client("ssm", number, region)
    ssm.put_parameter(Name="/muster/ami/linux-x64", Type="String", Value=images[1])
    ssm.put_parameter(Name="/somebody/ami", Type="String", Value=images[2])
    sqs = client("sqs", number, region)
    queue = sqs.create_queue(QueueName="muster-events")["QueueUrl"]
    arn = f"arn:aws:sqs:{region}:{number}:muster-events"
    events = client("events", number, region)
    events.put_rule(Name="muster-events", EventPattern=json.dumps({"source": ["aws.ec2"]}))
    events.put_targets(Rule="muster-events", Targets=[{"Id": "queue", "Arn": arn}])
    return {"id": number, "region": region, "subnets": subnets, "images": images, "queue": queue, "group": group}
