//! A network with a metadata service in it, and a machine's users, of which the real machine knows
//! nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use muster_tests::fakes::imds::FakeImds;
use muster_tests::metadata_service::MetadataService;
use muster_tests::network::Namespace;
use muster_tests::world::build;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The rules that are shipped.
pub(crate) const RULES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../ami/nftables/imds-guard.nft"
);
/// The service's addresses; the fake knows the instance by the path.
pub(crate) const IPV4: &str = "http://169.254.169.254/i-1";
pub(crate) const IPV6: &str = "http://[fd00:ec2::254]/i-1";
const USERS: &str = "root:x:0:0::/:/bin/sh\n\
    muster-agent:x:64901:64901::/:/bin/sh\nrunner:x:64902:64902::/:/bin/sh\n";
const GROUPS: &str = "root:x:0:\nmuster-agent:x:64901:\nrunner:x:64902:\n";

/// The machine.
pub(crate) struct Machine {
    pub(crate) network: Namespace,
    pub(crate) imds: FakeImds,
    dir: TempDir,
    agent: PathBuf,
    _service: MetadataService,
    _runtime: Runtime,
}

impl Machine {
    /// One without the guard.
    pub(crate) fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let imds = runtime.block_on(FakeImds::start()).unwrap();
        imds.add_instance("i-1", "c7i.large", "eu-west-1", false);
        let endpoint: url::Url = imds.endpoint("i-1").parse().unwrap();
        let target = endpoint.socket_addrs(|| None).unwrap()[0];
        let network = Namespace::new().unwrap();
        let service = MetadataService::beside(&network, target, None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("passwd"), USERS).unwrap();
        std::fs::write(dir.path().join("group"), GROUPS).unwrap();
        // Where any user may execute it, wherever the build is.
        open(dir.path());
        let agent = dir.path().join("muster-agent");
        std::fs::copy(build::binary("muster-agent").unwrap(), &agent).unwrap();
        Self {
            network,
            imds,
            dir,
            agent,
            _service: service,
            _runtime: runtime,
        }
    }

    /// Runs a command on the machine, as root, with the machine's users.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        let script = "mount --bind \"$0/passwd\" /etc/passwd; mount --bind \"$0/group\" /etc/group; \
            exec \"$@\"";
        let output = self.network.enter(|| {
            Ok(Command::new("unshare")
                .args(["--mount", "sh", "-ec", script])
                .arg(self.dir.path())
                .args(words)
                .stdin(Stdio::null())
                .output()?)
        });
        output.unwrap()
    }

    /// Loads rules; the shipped ones are [`RULES`].
    pub(crate) fn load(&self, rules: &str) -> Output {
        self.run(&["nft", "-f", rules])
    }

    /// Leaves the machine without one of its users.
    pub(crate) fn remove_user(&self, name: &str) {
        let kept: Vec<_> = USERS
            .lines()
            .filter(|line| !line.starts_with(name))
            .collect();
        std::fs::write(self.dir.path().join("passwd"), kept.join("\n")).unwrap();
    }

    /// What the agent's selftest says of both addresses.
    pub(crate) fn selftest(&self) -> Value {
        let agent = self.agent.to_str().unwrap();
        let words = [agent, "selftest", "--only", "imds", "--json"];
        let endpoints = ["--endpoint", IPV4, "--endpoint", IPV6];
        let output = self.run(&[&words[..], &endpoints].concat());
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        assert_eq!(report["passed"] == true, output.status.success());
        report
    }

    /// What root of another network finds at an address.
    pub(crate) fn probe(&self, network: &Namespace, url: &str) -> Value {
        let found = network.enter(|| {
            Ok(Command::new(&self.agent)
                .args(["selftest-probe", "--reach", url])
                .output()?)
        });
        let found: Value = serde_json::from_slice(&found.unwrap().stdout).unwrap();
        found["outcome"].clone()
    }

    /// How many packets the rules of a chain have refused.
    pub(crate) fn refused(&self, chain: &str) -> u64 {
        let list = [
            "nft",
            "--json",
            "list",
            "chain",
            "inet",
            "muster_imds_guard",
            chain,
        ];
        let listed: Value = serde_json::from_slice(&self.run(&list).stdout).unwrap();
        let statements = listed["nftables"].as_array().unwrap().iter();
        statements
            .filter_map(|item| item["rule"]["expr"].as_array())
            .flatten()
            .filter_map(|statement| statement["counter"]["packets"].as_u64())
            .sum()
    }
}

/// The checks of a report that did not pass: their names.
pub(crate) fn failed(report: &Value) -> Vec<&str> {
    let checks = report["checks"].as_array().unwrap().iter();
    checks
        .filter(|check| check["verdict"] != "pass")
        .map(|check| check["name"].as_str().unwrap())
        .collect()
}

fn open(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
