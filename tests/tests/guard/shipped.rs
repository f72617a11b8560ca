//! The files of `ami/` and the project's scripts, as their own tools see them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rstest::rstest;

use crate::machine::{Machine, RULES};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn run(program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
    Command::new(program)
        .args(arguments)
        .current_dir(REPOSITORY)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; run `.ci/tools host`"))
}

fn units() -> Vec<PathBuf> {
    let folder = Path::new(REPOSITORY).join("ami/systemd");
    let files = std::fs::read_dir(folder).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    // What is in a folder adds to a unit of the distribution.
    paths.filter(|path| path.is_file()).collect()
}

#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    let units = units();
    assert!(units.len() >= 7, "{units:?}");
    let verified = run(
        "systemd-analyze",
        [PathBuf::from("verify")].iter().chain(&units),
    );
    let said = String::from_utf8(verified.stderr).unwrap();
    let complaints: Vec<_> = said
        .lines()
        // They are not on the machine that builds it.
        .filter(|line| {
            let ours =
                line.contains("/usr/lib/muster/") || line.contains("/opt/actions-runner/bin/");
            !(ours && line.contains(" is not executable"))
        })
        .collect();
    assert_eq!(complaints, [""; 0]);
}

#[rstest]
#[case("muster-agent.service", 20)]
#[case("muster-supervisor.service", 20)]
#[case("muster-build-host.service", 35)]
#[case("muster-preread.service", 35)]
#[case("muster-grow-root.service", 55)]
#[case("muster-imds-guard.service", 30)]
#[case("muster-poweroff.service", 30)]
#[case("muster-lifetime.service", 30)]
#[case("muster-stranded.service", 30)]
fn a_unit_is_exposed_no_more_than(#[case] unit: &str, #[case] tenths: u32) {
    let analyzed = run(
        "systemd-analyze",
        [
            "security",
            "--offline=true",
            &format!("--threshold={tenths}"),
            &format!("ami/systemd/{unit}"),
        ],
    );
    assert!(
        analyzed.status.success(),
        "{}",
        String::from_utf8_lossy(&analyzed.stdout)
    );
}

/// A setting of a unit; one of time in seconds.
fn setting(unit: &str, name: &str) -> String {
    let text =
        std::fs::read_to_string(Path::new(REPOSITORY).join("ami/systemd").join(unit)).unwrap();
    let mut lines = text.lines().filter_map(|line| line.split_once('='));
    let found = lines.find(|(key, _)| *key == name);
    found
        .unwrap_or_else(|| panic!("{unit} has no {name}"))
        .1
        .to_owned()
}

fn seconds(unit: &str, name: &str) -> f64 {
    let text = setting(unit, name);
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap();
    let (number, word) = text.split_at(split);
    let factor = match word {
        "ms" => 0.001,
        "s" => 1.0,
        "min" => 60.0,
        _ => panic!("{name}={text}"),
    };
    number.parse::<f64>().unwrap() * factor
}

#[rstest]
#[case("muster-agent.service")]
#[case("muster-supervisor.service")]
fn starts_that_hang_reach_their_limit(#[case] unit: &str) {
    // It is ready just before it had to be, never says that it is alive, and doesn't end when it is told to.
    let longest: f64 = [
        "TimeoutStartSec",
        "WatchdogSec",
        "TimeoutStopSec",
        "RestartSec",
    ]
    .map(|name| seconds(unit, name))
    .iter()
    .sum();
    let burst: f64 = setting(unit, "StartLimitBurst").parse().unwrap();
    let interval = seconds(unit, "StartLimitIntervalSec");
    assert!(
        interval > burst * longest,
        "{interval} s for {burst} of {longest} s"
    );
}

#[test]
fn the_hook_of_a_job_has_the_limits_of_its_runner() {
    for name in [
        "User",
        "MemoryMax",
        "TasksMax",
        "IPAddressDeny",
        "OOMPolicy",
    ] {
        assert_eq!(
            setting("muster-interruption-hook.service", name),
            setting("muster-runner.service", name),
        );
    }
}

#[test]
fn nothing_in_the_runners_unit_takes_sudo_away() {
    // With a user that isn't root, each of these sets no_new_privs (systemd.exec(5)).
    const TABOO: [&str; 17] = [
        "NoNewPrivileges=",
        "SystemCallFilter=",
        "SystemCallArchitectures=",
        "SystemCallLog=",
        "RestrictAddressFamilies=",
        "RestrictFileSystems=",
        "RestrictNamespaces=",
        "RestrictRealtime=",
        "RestrictSUIDSGID=",
        "MemoryDenyWriteExecute=",
        "LockPersonality=",
        "PrivateDevices=",
        "ProtectClock=",
        "ProtectHostname=",
        "ProtectKernelLogs=",
        "ProtectKernelModules=",
        "DynamicUser=",
    ];
    let unit = Path::new(REPOSITORY).join("ami/systemd/muster-runner.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    let found: Vec<_> = unit
        .lines()
        .filter(|line| TABOO.iter().any(|word| line.starts_with(word)))
        .collect();
    assert_eq!(found, [""; 0]);
}

#[test]
fn nft_accepts_the_rules() {
    let checked = Machine::new().run(&["nft", "--check", "--file", RULES]);
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn shellcheck_has_nothing_to_say_about_the_scripts() {
    let mut scripts = Vec::new();
    find_scripts(Path::new(REPOSITORY), &mut scripts);
    assert!(scripts.len() >= 6, "{scripts:?}");
    let checked = run("shellcheck", &scripts);
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stdout)
    );
}

/// All files below a folder that a shell runs, but not what was built or fetched.
fn find_scripts(folder: &Path, scripts: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            let skipped = ["target", "node_modules", ".git", ".tools"];
            if !skipped.iter().any(|other| name == *other) {
                find_scripts(&path, scripts);
            }
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            let first = bytes
                .split(|byte| *byte == b'\n')
                .next()
                .unwrap_or_default();
            let first = String::from_utf8_lossy(first);
            if first.starts_with("#!") && first.ends_with("sh") {
                scripts.push(path);
            }
        }
    }
}
