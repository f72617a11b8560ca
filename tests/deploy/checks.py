"""What must hold between templates, policies, source and documents. Each check yields problems; none is good.

    .venv/bin/python checks.py [ROOT]
"""

import json
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import templates

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DEPLOY = "coordinator/deploy"


def lint(root):
    """cfn-lint, warnings included."""
    files = sorted((root / DEPLOY / "cloudformation").glob("*.yaml"))
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--format", "parseable", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    yield from done.stdout.splitlines()
    if done.returncode != 0 and not done.stdout:
        yield done.stderr


def all_templates(root):
    return templates.all_of(root / DEPLOY / "cloudformation")


def plain(value):
    """A policy of a template as its file has it: Fn::Sub is its text, and a list that is a parameter is its placeholder."""
    if isinstance(value, dict):
        if set(value) == {"Ref"}:
            return "${%s}" % value["Ref"]
        if "Fn::Sub" in value:
            text = value["Fn::Sub"]
            return text if isinstance(text, str) else text[0]
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value


def policies(root):
    """Each policy in a template is a file of coordinator/deploy/iam, and each file of the stacks is in a template."""
    folder = root / DEPLOY / "iam"
    files = {path: json.loads(path.read_text()) for path in folder.rglob("*.json")}
    used = set()
    for name, template in all_templates(root).items():
        for path, value in templates.walk(template["Resources"]):
            if not path or path[-1] not in ("PolicyDocument", "AssumeRolePolicyDocument"):
                continue
            same = [file for file, document in files.items() if document == plain(value)]
            used.update(same)
            if not same:
                yield f"{name}: {'.'.join(map(str, path))} is no file of {DEPLOY}/iam; run embed-policies"
        for path, value in templates.walk(template["Resources"]):
            if path and path[-1] == "ManagedPolicyArns" and name != "job-role.yaml":
                yield f"{name}: {'.'.join(map(str, path))}: a policy of AWS's own allows more than ours"
    # These are for who wants an instance profile, which the stacks don't make.
    elsewhere = {folder / name for name in ("instance.json", "instance-trust.json", "pass-instance-role.json")}
    for file in sorted(files.keys() - used - elsewhere):
        yield f"{file.relative_to(root)} is in no template"


def embedded(root):
    """embed-policies would change nothing."""
    script = runpy.run_path(str(root / DEPLOY / "cloudformation/embed-policies"))
    for path in sorted((root / DEPLOY / "cloudformation").glob("*.yaml")):
        if script["embedded"](path.read_text(), root / DEPLOY / "iam") != path.read_text():
            yield f"{path.name}: embed-policies would change it"


def kept(root):
    """Nothing is kept of a stack that fails while it is made: names would be in the way of the next try."""
    for name, template in all_templates(root).items():
        for key, one in template["Resources"].items():
            if one.get("DeletionPolicy") == "Retain":
                yield f"{name}: {key} is kept when the stack can't be made; RetainExceptOnCreate keeps it later only"


def reference(root):
    """Actions, resources and condition keys of the stacks' policies exist."""
    known = runpy.run_path(str(HERE.parent / "moto/reference.py"), run_name="reference")
    known["GLOBAL"].update({"aws:PrincipalArn", "aws:SourceVpc"})
    for path in sorted((root / DEPLOY / "iam/stacks").glob("*.json")):
        document = json.loads(path.read_text())
        for statement in document["Statement"]:
            # Of an identity provider, which the reference doesn't know.
            for keys in statement.get("Condition", {}).values():
                for key in [key for key in keys if key.startswith("token.actions.githubusercontent.com:")]:
                    del keys[key]
            if isinstance(statement.get("Resource"), str) and re.fullmatch(r"\$\{\w+\}", statement["Resource"]):
                statement["Resource"] = "*"
        for problem in known["problems"](document):
            yield f"{path.name}: {problem}"


def alarms(root):
    """Each alarm has its entry in the runbook, and each entry its alarm."""
    text = (root / "docs/RUNBOOK.md").read_text()
    entries = set(re.findall(r"^## (\S+)$", text, re.M))
    seen = set()
    for name, template in all_templates(root).items():
        for key, one in template["Resources"].items():
            if one["Type"] != "AWS::CloudWatch::Alarm":
                continue
            properties = one["Properties"]
            alarm = properties["AlarmName"]["Fn::Sub"].replace("${CoordinatorName}-", "").replace("${Pool}-", "")
            seen.add(alarm)
            if alarm not in entries:
                yield f"{name}: {key}: the runbook has no entry {alarm}"
            if not properties["AlarmDescription"].endswith(f"docs/RUNBOOK.md#{alarm}"):
                yield f"{name}: {key}: its description doesn't lead to {alarm} in the runbook"
    for entry in sorted(entries - seen):
        yield f"docs/RUNBOOK.md: {entry} is no alarm"
    for entry in entries:
        body = text.split(f"## {entry}\n", 1)[1].split("\n## ", 1)[0]
        for part in ("**Means**", "**First**", "**Mend**"):
            if part not in body:
                yield f"docs/RUNBOOK.md: {entry} lacks {part}"


def told(root):
    """The dimension of each metric that the coordinator can tell, by name; none is None. A test of the coordinator's
    writes the list, by what its emitter really says."""
    folder = root / "coordinator/src/telemetry/emf/snapshots"
    text = (folder / "muster_coordinator__telemetry__emf__tests__all_that_can_be_told.snap").read_text()
    rows = [line.split() for line in text.split("---\n", 2)[2].splitlines()]
    return {name: None if dimension == "-" else dimension for name, dimension, _unit, _by in rows}


def metrics(root):
    """Each metric of an alarm or the dashboard is one that the coordinator tells with these dimensions, or AWS does."""
    known = told(root)
    for name, template in all_templates(root).items():
        for path, value in templates.walk(template["Resources"]):
            if isinstance(value, dict) and "MetricName" in value and isinstance(value["MetricName"], str):
                metric, space = value["MetricName"], value["Namespace"]
                dimensions = [one["Name"] for one in value.get("Dimensions", [])]
                if space != {"Ref": "MetricNamespace"}:
                    if not (isinstance(space, str) and space.startswith("AWS/")):
                        yield f"{name}: {path[0]}: {space} is not the namespace of the configuration"
                elif metric not in known:
                    yield f"{name}: {path[0]}: the coordinator tells no {metric}"
                elif dimensions != ([known[metric]] if known[metric] else []):
                    yield f"{name}: {path[0]}: the coordinator tells {metric} with the dimension {known[metric]}, not {dimensions}"
            if path and path[-1] == "Metrics":
                yield from (f"{name}: {path[0]}: {one}" for one in unknown_ids(value))
            if path and path[-1] == "DashboardBody":
                yield from dashboard(name, value["Fn::Sub"], known)


def unknown_ids(entries):
    """Names in the expressions of an alarm that are no metric of it."""
    ids = {one["Id"] for one in entries}
    for one in entries:
        if "Expression" in one:
            for used in set(re.findall(r"\b[a-z]\w*", one["Expression"])) - ids:
                yield f"{one['Id']} is made of {used}, which is no metric of the alarm"


def dashboard(name, text, known):
    body = json.loads(text)
    for widget in body["widgets"]:
        title = widget["properties"]["title"]
        rows = widget["properties"]["metrics"]
        ids = {row[-1]["id"] for row in rows if isinstance(row[-1], dict) and "id" in row[-1]}
        for row in rows:
            if not isinstance(row[0], dict):
                shown, dimension = [row[1]], None
            elif row[0]["expression"].startswith("SEARCH("):
                shown, dimension = re.findall(r'MetricName="(\w+)"', row[0]["expression"]), "Pool"
                if not shown:
                    yield f"{name}: {title}: a row shows no metric"
            else:
                shown, dimension = [], None
                unknown = set(re.findall(r"\b[a-z]\w*", row[0]["expression"])) - ids
                yield from (f"{name}: {title}: no row has the id {one}" for one in unknown)
            for one in shown:
                if one not in known:
                    yield f"{name}: {title}: the coordinator tells no {one}"
                elif known[one] != dimension:
                    yield f"{name}: {title}: the coordinator tells {one} with the dimension {known[one]}, not {dimension}"


def documented(root):
    """docs/OPERATIONS.md has a row for each family of figures, and each row is of one that there is."""
    source = (root / "coordinator/src/telemetry").rglob("*.rs")
    families = {one for path in source if path.name != "tests.rs" for one in re.findall(r'"(muster_\w+)"', path.read_text())}
    text = (root / "docs/OPERATIONS.md").read_text()
    rows = set(re.findall(r"^\| `(muster_\w+)", text, re.M))
    yield from (f"docs/OPERATIONS.md: {one} is not in the list of figures" for one in sorted(families - rows))
    yield from (f"docs/OPERATIONS.md: there are no figures {one}" for one in sorted(rows - families))


def documents(root):
    folders = [root / "docs", root / DEPLOY]
    return [root / "README.md", *sorted(path for folder in folders for path in folder.rglob("*.md"))]


def anchors(text):
    """Headings as GitHub links to them."""
    for heading in re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links(root):
    """Each link leads to something that is there."""
    for document in documents(root):
        text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"https?://", target):
                continue
            path, _, anchor = target.partition("#")
            file = (document.parent / path).resolve() if path else document
            name = document.relative_to(root)
            if not file.exists():
                yield f"{name}: {target} leads nowhere"
            elif anchor and file.suffix == ".md" and anchor not in set(anchors(file.read_text())):
                yield f"{name}: {target} has no such heading"


def known_keys(root):
    """Section and key of all that the example has, commented out or not. Pools and accounts of any name are one."""
    keys, section = {}, ""
    for line in (root / "coordinator/muster.example.toml").read_text().splitlines():
        header = re.match(r"\[+([\w.-]+)\]+", line)
        key = re.match(r"(?:# )?(\w+) = ", line)
        if header:
            section = re.sub(r"^accounts\..*", "accounts", header[1])
        elif key:
            keys.setdefault(section, set()).add(key[1])
    return keys


def configuration(root):
    """Keys of the configuration in documents exist: those in examples, and those named as `section.key`."""
    keys = known_keys(root)
    for document in documents(root):
        name, text = document.relative_to(root), document.read_text()
        for block in re.findall(r"^```toml\n(.*?)^```", text, re.M | re.S):
            for section, key in used_keys(tomllib.loads(block)):
                if key not in keys.get(section, set()):
                    yield f"{name}: [{section}] has no key {key}"
        outside = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        for section, key in re.findall(r"`(\w+)\.([a-z_]+)`", outside):
            section = "pool.limits" if section == "limits" else section
            if section in keys and key not in keys[section] | {"toml"}:
                yield f"{name}: `{section}.{key}` is no key"


def used_keys(document):
    for section, value in document.items():
        tables = value if isinstance(value, list) else value.values() if section == "accounts" else [value]
        for table in tables:
            for key, one in table.items():
                if isinstance(one, dict) and section == "pool" and key in ("ec2", "limits", "allow"):
                    yield from ((f"pool.{key}", inner) for inner in one)
                else:
                    yield section, key


def commands(root):
    """Parameters and outputs in commands of documents are those of the templates."""
    made = all_templates(root)
    stacks = {"muster-service": "service.yaml", "muster-base": "base.yaml", "muster-runners": "runners.yaml", "muster-network": "network.yaml"}
    for document in documents(root):
        name = document.relative_to(root)
        text = document.read_text().replace("\\\n", " ")
        for command in re.findall(r"--template-file (\S+\.yaml)(.*)", text):
            template, rest = command
            if template not in made:
                yield f"{name}: there is no {template}"
                continue
            for parameter in re.findall(r"(?<![\w-])([A-Z]\w+)=", rest):
                if parameter not in made[template]["Parameters"]:
                    yield f"{name}: {template} has no parameter {parameter}"
        every = {parameter for template in made.values() for parameter in template.get("Parameters", {})}
        for parameter in re.findall(r"`(?:--parameter-overrides )?([A-Z][a-z]\w+)=", text):
            if parameter not in every:
                yield f"{name}: no template has a parameter {parameter}"
        for stack, output in re.findall(r"\bout (muster-\w+) (\w+)", text):
            if output not in made[stacks[stack]]["Outputs"]:
                yield f"{name}: {stack} has no output {output}"


def methods(root):
    """Methods that documents call by grpcurl exist, and so do the fields of their requests."""
    proto = (root / "proto/muster/v1/operator.proto").read_text()
    requests = dict(re.findall(r"rpc (\w+)\((\w+)\)", proto))
    for document in documents(root):
        name, text = document.relative_to(root), document.read_text()
        for given, method in re.findall(r"(?:-d '(\{[^']*\})' )?(?<![\w/])(?:M|HOST:7443 muster\.v1\.OperatorService)/(\w+)", text):
            if method not in requests:
                yield f"{name}: OperatorService has no {method}"
                continue
            body = proto.split(f"message {requests[method]} {{", 1)[1].split("}", 1)[0]
            for field in json.loads(given) if given else ():
                if not re.search(rf"\b{re.sub('([A-Z])', lambda m: '_' + m[1].lower(), field)} = \d", body):
                    yield f"{name}: {requests[method]} has no {field}"


CHECKS = [lint, policies, embedded, kept, reference, alarms, metrics, documented, links, configuration, commands, methods]


def main(root):
    bad = 0
    for check in CHECKS:
        problems = list(check(root))
        bad += len(problems)
        for problem in problems:
            print(f"tests/deploy/checks: {check.__name__}: {problem}", file=sys.stderr)
        if not problems:
            print(f"tests/deploy/checks: {check.__name__}: good")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT))
