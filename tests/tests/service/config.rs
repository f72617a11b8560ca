//! The command line: what a configuration's errors look like, and how the process ends.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use muster_tests::fakes::github::{Conclusion, JobSpec, Status};
use muster_tests::world::{Options, World, build};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ten errors, each with the column of what is wrong and a part of what is told of it.
const WRONG: [(&str, Option<(usize, &str)>); 32] = [
    ("colour = \"green\"", Some((1, "colour is not a known key"))),
    ("[coordinator]", None),
    ("data_dir = \"data\"", None),
    (
        "heartbeat_interval = \"5 seconds\"",
        Some((22, "is not a duration")),
    ),
    ("[listen]", None),
    ("web = \"WEB\"", None),
    (
        "enroll = \"localhost:7441\"",
        Some((10, "is not an IP address with a port")),
    ),
    ("agents = \"AGENTS\"", None),
    ("operators = \"OPERATORS\"", None),
    ("ports_file = \"ports.json\"", None),
    ("[github]", None),
    ("app_id = 12345", None),
    ("private_key_file = \"app.pem\"", None),
    (
        "webhook_secret_files = []",
        Some((24, "at least one is needed")),
    ),
    ("[identity]", None),
    (
        "agent_certificate_ttl = \"2h\"",
        Some((25, "is not between")),
    ),
    ("[telemetry]", None),
    (
        "log_level = \"loud\"",
        Some((13, "is not one of off, error")),
    ),
    ("emf = \"yes\"", Some((7, "is not true or false"))),
    ("[accounts.local]", None),
    ("max_instances = 20", None),
    ("[local]", None),
    ("runner_dir = \"runner\"", None),
    ("sweep_interval = 2", Some((18, "is not a text in quotes"))),
    ("", None),
    ("[[pool]]", None),
    ("name = \"linux\"", None),
    ("scope = { organization = \"octo-org\" }", None),
    (
        "lables = [\"self-hosted\"]",
        Some((1, "did you mean labels?")),
    ),
    ("labels = [\"self-hosted\"]", None),
    ("account = \"local\"", None),
    ("max = 0", Some((7, "is not between 1 and"))),
];

fn wrong_file(directory: &Path, replaced: &[(&str, String)]) -> std::path::PathBuf {
    let lines: Vec<_> = WRONG.iter().map(|(line, _)| *line).collect();
    let mut text = lines.join("\n");
    for (word, value) in replaced {
        text = text.replace(word, value);
    }
    let path = directory.join("muster.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn some_addresses() -> [(&'static str, String); 3] {
    let names = ["WEB", "AGENTS", "OPERATORS"];
    std::array::from_fn(|at| (names[at], format!("127.0.0.1:{}", 4_000 + at)))
}

async fn coordinator(arguments: &[&str], file: &Path) -> Output {
    let mut command = Command::new(build::binary("muster-coordinator").unwrap());
    let command = command.args(arguments).arg(file).stdin(Stdio::null());
    let ended = timeout(PATIENCE, command.kill_on_drop(true).output());
    ended.await.expect("the coordinator ends").unwrap()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

/// That each error is told, in order, on a line of its own with file, line and column.
fn assert_all_told(output: &Output, file: &Path) {
    let told = String::from_utf8_lossy(&output.stderr);
    let told: Vec<_> = told.lines().collect();
    let expected = WRONG.iter().zip(1..);
    let expected: Vec<_> = expected
        .filter_map(|((_, error), line)| error.map(|(column, part)| (line, column, part)))
        .collect();
    assert_eq!(expected.len(), 10);
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, (line, column, part)) in told.iter().zip(expected) {
        let place = format!("{}:{line}:{column}: ", file.display());
        assert!(told.starts_with(&place), "{told:?}, expected at {place}");
        assert!(told.contains(part), "{told:?}, expected {part:?}");
    }
}

#[tokio::test]
async fn ten_errors_are_told_at_once_each_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let file = wrong_file(directory.path(), &some_addresses());
    let output = coordinator(&["check-config"], &file).await;
    assert_eq!(code(&output), Some(64));
    assert_eq!(output.stdout, b"");
    assert_all_told(&output, &file);
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_before_anything_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    // Whoever tried to listen on these would fail in another way.
    let taken: Vec<_> = (0..3)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let mut replaced = some_addresses();
    for ((_, value), socket) in replaced.iter_mut().zip(&taken) {
        *value = socket.local_addr().unwrap().to_string();
    }
    let file = wrong_file(directory.path(), &replaced);
    let output = coordinator(&["run", "--config"], &file).await;
    assert_eq!(code(&output), Some(64), "{output:?}");
    assert_all_told(&output, &file);
    let entries = std::fs::read_dir(directory.path()).unwrap();
    let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["muster.toml"]);
}

#[tokio::test]
async fn what_is_no_command_line_is_a_usage_error() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("nowhere.toml");
    for arguments in [&["check-config"][..], &["run", "--config"]] {
        let output = coordinator(arguments, &missing).await;
        assert_eq!(code(&output), Some(64), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("nowhere.toml"), "{told}");
    }
    for arguments in [&["walk"][..], &["run", "--loudly"], &[]] {
        let output = coordinator(arguments, Path::new("--")).await;
        assert_eq!(code(&output), Some(64), "{arguments:?}: {output:?}");
    }
}

#[tokio::test]
async fn the_configuration_of_a_running_coordinator_is_good() {
    let world = World::start(Options::default()).await.unwrap();
    let file = world.coordinator.config();
    let output = coordinator(&["check-config"], &file).await;
    assert_eq!(code(&output), Some(0), "{output:?}");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("is good"), "{told}");
    assert!(told.contains("pool linux: organization octo-org"), "{told}");
    // A secret that is missing is found too.
    std::fs::remove_file(world.dir().join("app.pem")).unwrap();
    let output = coordinator(&["check-config"], &file).await;
    assert_eq!(code(&output), Some(64), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("github.private_key_file"), "{told}");
}

#[tokio::test]
async fn sigterm_ends_it_well_whatever_is_open() {
    let world = World::start(Options::default()).await.unwrap();
    let job = JobSpec::new("octo-org/hello", "build", &["self-hosted", "linux"]);
    let go = world.dir().join("go");
    let wait = format!("until [ -e '{}' ]; do sleep 0.05; done", go.display());
    let job = world.github.queue_job(job.step(&wait));
    let started = world.github.wait_job(job, Status::InProgress, PATIENCE);
    started.await.unwrap();
    let mut operator = world.operator("alice").await.unwrap();
    let watch = operator
        .client
        .watch_events(muster_proto::v1::WatchEventsRequest::default());
    let mut watch = watch.await.unwrap().into_inner();
    let web = world.coordinator.addresses().web;
    let _idle = tokio::net::TcpStream::connect(web).await.unwrap();
    // An error unless the exit code is 0.
    world.coordinator.stop(PATIENCE).await.unwrap();
    while let Ok(Some(_)) = watch.message().await {}
    let addresses = world.coordinator.addresses();
    for address in [web, addresses.enroll, addresses.agents, addresses.operators] {
        TcpListener::bind(address).unwrap();
    }
    // The job goes on meanwhile, and what is there is found again.
    world.coordinator.start_again().await.unwrap();
    std::fs::write(&go, "").unwrap();
    let done = world.github.wait_job(job, Status::Completed, PATIENCE);
    assert_eq!(done.await.unwrap().conclusion, Some(Conclusion::Success));
    let left = world.wind_down(PATIENCE).await.unwrap();
    assert!(left.is_nothing(), "{left:#?}");
}

/// The configuration of a coordinator with other addresses.
fn beside(world: &World, directory: &TempDir) -> std::path::PathBuf {
    let mut text = std::fs::read_to_string(world.coordinator.config()).unwrap();
    let addresses = world.coordinator.addresses();
    for old in [
        addresses.web,
        addresses.enroll,
        addresses.agents,
        addresses.operators,
    ] {
        text = text.replace(&old.to_string(), "127.0.0.1:0");
    }
    let inside = |name: &str| world.dir().join(name).display().to_string();
    for name in ["data", "app.pem", "webhook.secret", "runner"] {
        text = text.replace(&format!("\"{name}\""), &format!("{:?}", inside(name)));
    }
    let file = directory.path().join("muster.toml");
    std::fs::write(&file, text).unwrap();
    file
}

#[tokio::test]
async fn a_second_coordinator_on_the_same_data_fails_and_the_first_goes_on() {
    let world = World::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = beside(&world, &directory);
    let check = coordinator(&["check-config"], &file).await;
    assert_eq!(code(&check), Some(0), "{check:?}");
    let output = coordinator(&["run", "--config"], &file).await;
    assert_eq!(code(&output), Some(1), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    let last = told.lines().last().unwrap();
    let data = world.dir().join("data").display().to_string();
    assert!(last.contains(&data) && last.contains("another"), "{told}");
    assert!(!directory.path().join("ports.json").exists());

    let job = JobSpec::new("octo-org/hello", "build", &["self-hosted", "linux"]);
    let job = world.github.queue_job(job.step("true"));
    let done = world.github.wait_job(job, Status::Completed, PATIENCE);
    done.await.unwrap();
    // Once the first has ended, there is nothing in the way.
    world.coordinator.kill_nine();
    world.coordinator.start_again().await.unwrap();
    let left = world.wind_down(PATIENCE).await.unwrap();
    assert!(left.is_nothing(), "{left:#?}");
}
