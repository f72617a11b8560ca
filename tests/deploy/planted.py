"""Plants faults in a copy of what checks.py reads, one at a time: the check that is for it must find each."""

import shutil
import sys
import tempfile
from pathlib import Path

import checks

COPIED = ["README.md", "coordinator/deploy", "coordinator/src/telemetry", "coordinator/muster.example.toml", "docs", "proto/muster/v1"]
CFN = "coordinator/deploy/cloudformation"

# What the coordinator tells, as a test of its own has it.
TOLD = "coordinator/src/telemetry/emf/snapshots/muster_coordinator__telemetry__emf__tests__all_that_can_be_told.snap"

# Check, file, what is there, what is put in its place.
FAULTS = [
    (checks.lint, f"{CFN}/runners.yaml", "HttpTokens: required", "HttpTokenz: required"),
    (checks.lint, f"{CFN}/service.yaml", "NetworkMode: awsvpc", "NetworkMode: host"),
    (checks.lint, f"{CFN}/base.yaml", "VpcId: !Ref VpcId", "VpcId: !Ref Vpc"),
    (checks.policies, f"{CFN}/runners.yaml", '"ec2:TerminateInstances"', '"ec2:*"'),
    (checks.policies, f"{CFN}/base.yaml", 'parameter/muster/ca/*"', 'parameter/*"'),
    (checks.policies, f"{CFN}/job-role.yaml", '"aws:SourceVpc": !Sub "${VpcId}"', '"aws:SourceVpce": !Sub "${VpcId}"'),
    (checks.policies, f"{CFN}/sts-endpoint.yaml", "Resource: !Ref FurtherRoleArns", 'Resource: "*"'),
    (checks.policies, f"{CFN}/base.yaml", "      Policies:\n", "      ManagedPolicyArns: [arn:aws:iam::aws:policy/AdministratorAccess]\n      Policies:\n"),
    (checks.policies, "coordinator/deploy/iam/coordinator-accounts.json", '"sts:TagSession"', '"sts:SetSourceIdentity"'),
    (checks.embedded, "coordinator/deploy/iam/account.json", '"ec2:DescribeSubnets"', '"ec2:DescribeVpcs"'),
    (checks.embedded, f"{CFN}/sts-endpoint.yaml", '"sts:GetCallerIdentity"', '"sts:GetSessionToken"'),
    (checks.reference, "coordinator/deploy/iam/stacks/execution.json", "ecr:BatchGetImage", "ecr:BatchGetImages"),
    (checks.reference, "coordinator/deploy/iam/stacks/file-system.json", "elasticfilesystem:AccessPointArn", "elasticfilesystem:AccessPoint"),
    (checks.kept, f"{CFN}/base.yaml", "DeletionPolicy: RetainExceptOnCreate", "DeletionPolicy: Retain"),
    (checks.alarms, "docs/RUNBOOK.md", "## no-capacity", "## no-room"),
    (checks.alarms, "docs/RUNBOOK.md", "**Mend**: what it names.", "What it names."),
    (checks.alarms, f"{CFN}/alarms.yaml", "${CoordinatorName}-quota-reached", "${CoordinatorName}-quota"),
    (checks.alarms, f"{CFN}/pool-alarms.yaml", "RUNBOOK.md#wait-long", "RUNBOOK.md#long-wait"),
    (checks.metrics, f"{CFN}/alarms.yaml", "MetricName: LaunchesPermanent", "MetricName: LaunchesFailed"),
    (checks.metrics, f"{CFN}/alarms.yaml", "MetricName: AwsCallsTerminateInstancesRefusedEc2", "MetricName: AwsCallsEc2TerminateInstancesRefused"),
    (checks.metrics, f"{CFN}/alarms.yaml", '"TroublesDisk"', '"TroublesDisks"'),
    (checks.metrics, f"{CFN}/alarms.yaml", 'MetricName=\\"RunnersBusy\\"', 'MetricName=\\"RunnersWorking\\"'),
    (checks.metrics, f"{CFN}/pool-alarms.yaml", "MetricName: JobWait", "MetricName: JobWaitSeconds"),
    (checks.metrics, f"{CFN}/pool-alarms.yaml", "MetricName: PoolExhausted\n      Dimensions: [{Name: Pool, Value: !Ref Pool}]", "MetricName: PoolExhausted"),
    (checks.metrics, f"{CFN}/alarms.yaml", "Expression: silent + gone", "Expression: silent + missing"),
    (checks.metrics, f"{CFN}/alarms.yaml", "own / 86400", "serving / 86400"),
    (checks.metrics, TOLD, "EnrolmentsSecond - ", "EnrolmentsTwice - "),
    (checks.metrics, TOLD, "JobsQueued Pool ", "JobsQueued - "),
    (checks.documented, "coordinator/src/telemetry/metrics/series.rs", '"muster_jobs_queued"', '"muster_jobs_waiting"'),
    (checks.documented, "docs/OPERATIONS.md", "| `muster_hosts_lost_total", "| `muster_lost_hosts_total"),
    (checks.links, "docs/INSTALL.md", "](#ipv6-only)", "](#ipv6)"),
    (checks.links, "docs/COSTS.md", "# What it costs\n", "# What it costs\n[rates](PRICES.md)\n"),
    (checks.configuration, "docs/INSTALL.md", "check_private_ip = true", "check_private_address = true"),
    (checks.configuration, "docs/INSTALL.md", "on_demand_fallback = true\n```", "fallback = true\n```"),
    (checks.configuration, "docs/RUNBOOK.md", "`github.reconcile_share`", "`github.survey_share`"),
    (checks.commands, "docs/INSTALL.md", "RunnerAddresses=ipv6-only` and", "RunnerAddress=ipv6-only` and"),
    (checks.commands, "docs/INSTALL.md", "AgentCidr=\"$(out", "RunnerCidr=\"$(out"),
    (checks.commands, "docs/INSTALL.md", "out muster-base DatabaseHost", "out muster-base DatabaseAddress"),
    (checks.commands, "docs/OPERATIONS.md", "--template-file service.yaml", "--template-file coordinator.yaml"),
    (checks.methods, "docs/RUNBOOK.md", "M/ExplainJob", "M/ExplainJobs"),
    (checks.methods, "docs/RUNBOOK.md", '{"level":"debug"}', '{"logLevel":"debug"}'),
    (checks.methods, "proto/muster/v1/operator.proto", "rpc PausePool(", "rpc StopPool("),
]


def copy(folder):
    for one in COPIED:
        source, target = checks.ROOT / one, folder / one
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    # What documents link to must be there; its content is not looked at.
    for one in ("ami/README.md", "tests/moto/README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE"):
        (folder / one).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(checks.ROOT / one, folder / one)


def main():
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy(folder)
        for check, file, old, new in FAULTS:
            path = folder / file
            text = path.read_text()
            if old not in text:
                print(f"tests/deploy/planted: {file} has no {old!r} any more", file=sys.stderr)
                missed += 1
                continue
            path.write_text(text.replace(old, new, 1))
            try:
                found = list(check(folder))
            finally:
                path.write_text(text)
            if not found:
                print(f"tests/deploy/planted: {check.__name__} doesn't find {new!r} in {file}", file=sys.stderr)
                missed += 1
        if not missed:
            for check in checks.CHECKS:
                if list(check(folder)):
                    print(f"tests/deploy/planted: {check.__name__} finds something where nothing is", file=sys.stderr)
                    missed += 1
    if not missed:
        print(f"tests/deploy/planted: all {len(FAULTS)} faults are found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
