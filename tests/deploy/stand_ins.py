"""moto's CloudFormation with what it lacks for our templates.

- Fn::Cidr, and AWS::NoValue in lists;
- attributes of resources that templates ask for: of VPCs, load balancers, target groups, file systems;
- what it leaves out of a load balancer and a target group when CloudFormation makes them;
- resource types that it doesn't know become stand-ins: they have an id and attributes, and do nothing. Which ones they
  were is counted, so that nobody takes a stack for tried that wasn't.
"""

import ipaddress
import itertools

import moto.cloudformation.parsing as parsing
from moto.core.common_models import CloudFormationModel
from moto.ec2.models import ec2_backends
from moto.ec2.models.vpcs import VPC
from moto.efs.models import AccessPoint, FileSystem
from moto.elbv2.models import FakeLoadBalancer, FakeTargetGroup, elbv2_backends

IPV6 = "2001:db8:1234:1a00::/56"
# moto has them, but not as members of a cluster.
OTHERWISE = {"AWS::RDS::DBInstance"}
met = set()
_number = itertools.count(1)
_clean = parsing.clean_json


class StandIn(CloudFormationModel):
    """A resource that moto doesn't have."""

    # moto sorts its models by the module that they are from.
    __module__ = "moto.muster.models"
    kind = ""

    def __init__(self, name, properties):
        self.physical_resource_id = name
        self.properties = properties
        self.type = self.kind

    def is_created(self):
        return True

    @staticmethod
    def cloudformation_name_type():
        return ""

    @classmethod
    def cloudformation_type(cls):
        return cls.kind

    @classmethod
    def has_cfn_attr(cls, attr):
        return True

    def get_cfn_attribute(self, attribute_name):
        return f"{self.physical_resource_id}.{attribute_name}"

    @classmethod
    def create_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
        met.add(cls.kind)
        return cls(f"stand-in-{next(_number)}", cloudformation_json.get("Properties", {}))

    @classmethod
    def update_from_cloudformation_json(cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name):
        original_resource.properties = cloudformation_json.get("Properties", {})
        return original_resource

    @classmethod
    def delete_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name):
        return None


class EgressOnlyGateway(StandIn):
    """moto has it, and its CloudFormation has not; routes ask for it."""

    __module__ = StandIn.__module__
    kind = "AWS::EC2::EgressOnlyInternetGateway"

    @classmethod
    def create_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
        ec2 = ec2_backends[account_id][region_name]
        made = ec2.create_egress_only_internet_gateway(vpc_id=cloudformation_json["Properties"]["VpcId"])
        return cls(made.id, cloudformation_json["Properties"])

    @classmethod
    def delete_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name):
        ec2_backends[account_id][region_name].delete_egress_only_internet_gateway(gateway_id=resource_name)


def clean(value, resources_map):
    """clean_json of moto, which calls itself by its name in the module: so this one is called for each part."""
    if isinstance(value, dict) and "Fn::Cidr" in value:
        block, count, bits = clean(value["Fn::Cidr"], resources_map)
        network = ipaddress.ip_network(block)
        parts = network.subnets(new_prefix=network.max_prefixlen - int(bits))
        return [str(part) for part in itertools.islice(parts, int(count))]
    if isinstance(value, list):
        # AWS::NoValue takes an element away, and moto leaves None.
        return [one for one in (clean(part, resources_map) for part in value) if one is not None]
    return _clean(value, resources_map)


def install(kinds):
    """Makes stand-ins for those of these types that moto doesn't know."""
    known = parsing.get_model_map()
    known[EgressOnlyGateway.kind] = EgressOnlyGateway
    for kind in kinds:
        if known.get(kind) is None or kind in OTHERWISE:
            known[kind] = type(StandIn)(kind.replace("::", ""), (StandIn,), {"kind": kind, "__module__": StandIn.__module__})
    parsing.clean_json = clean

    attribute, has = VPC.get_cfn_attribute, VPC.has_cfn_attr

    def with_ipv6(self, name):
        return [IPV6] if name == "Ipv6CidrBlocks" else attribute(self, name)

    VPC.get_cfn_attribute = with_ipv6
    VPC.has_cfn_attr = classmethod(lambda cls, name: name == "Ipv6CidrBlocks" or has(name))

    FakeTargetGroup.has_cfn_attr = classmethod(lambda cls, name: name == "TargetGroupFullName")
    FakeTargetGroup.get_cfn_attribute = lambda self, name: self.arn.split(":", 5)[5]
    FileSystem.has_cfn_attr = classmethod(lambda cls, name: name == "Arn")
    FileSystem.get_cfn_attribute = lambda self, name: self.file_system_arn
    AccessPoint.has_cfn_attr = classmethod(lambda cls, name: name == "Arn")
    AccessPoint.get_cfn_attribute = lambda self, name: self.access_point_arn
    FakeTargetGroup.create_from_cloudformation_json = classmethod(_target_group)
    attribute_of_balancer = FakeLoadBalancer.get_cfn_attribute
    FakeLoadBalancer.create_from_cloudformation_json = classmethod(_balancer)
    FakeLoadBalancer.get_cfn_attribute = lambda self, name: (
        self.arn.split("loadbalancer/")[1] if name == "LoadBalancerFullName"
        else "Z00000000000000000000" if name == "CanonicalHostedZoneID"
        else attribute_of_balancer(self, name)
    )


_plain_target_group = FakeTargetGroup.create_from_cloudformation_json.__func__


def _target_group(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
    made = _plain_target_group(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs)
    for one in cloudformation_json["Properties"].get("TargetGroupAttributes", []):
        made.attributes[one["Key"]] = one["Value"]
    return made


def _balancer(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
    given = cloudformation_json["Properties"]
    return elbv2_backends[account_id][region_name].create_load_balancer(
        resource_name, given.get("SecurityGroups"), given.get("Subnets"), scheme=given["Scheme"],
        loadbalancer_type=given["Type"], ip_address_type=given["IpAddressType"],
    )
