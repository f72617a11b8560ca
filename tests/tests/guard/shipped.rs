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
    files.map(|file| file.unwrap().path()).collect()
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
            !line.contains("/usr/lib/muster/muster-agent is not executable")
                && !line.contains("/opt/actions-runner/bin/Runner.Listener is not executable")
        })
        .collect();
    assert_eq!(complaints, [""; 0]);
}

#[rstest]
#[case("muster-agent.service", 20)]
#[case("muster-supervisor.service", 20)]
#[case("muster-imds-guard.service", 30)]
#[case("muster-poweroff.service", 30)]
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
