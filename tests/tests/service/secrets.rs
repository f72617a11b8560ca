//! Where no secret may ever be: logs, figures, the data directory, command lines, environments.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_tests::fakes::github::{FakeGithub, JobSpec, SecretKind, Status};
use muster_tests::world::{Options, World, build, marked_processes};
use tempfile::TempDir;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What must not be found, by what it is.
type Secrets = Vec<(String, String)>;

/// A place and what is in it, bytes that are no text replaced.
type Places = BTreeMap<String, String>;

/// A stand-in for the agent's binary: puts down what it is told, and becomes the agent.
fn eavesdropper(place: &TempDir) -> PathBuf {
    let script = place.path().join("agent");
    let agent = build::binary("muster-agent").unwrap();
    let (at, agent) = (place.path().display(), agent.display());
    let text = format!(
        "#!/bin/sh\nset -e\ntold='{at}'/$MUSTER_INSTANCE_ID.json\ncat >\"$told.part\"\n\
         mv \"$told.part\" \"$told\"\nexec '{agent}' \"$@\" <\"$told\"\n"
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script
}

/// The tokens that agents were told.
fn join_tokens(place: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(place.path()).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .map(|path| std::fs::read(path).unwrap())
        .map(|text| serde_json::from_slice::<serde_json::Value>(&text).unwrap())
        .map(|told| told["join_token"].as_str().unwrap().to_owned())
        .collect()
}

fn secrets(github: &FakeGithub, told: &TempDir) -> Secrets {
    let mut all = vec![(
        "webhook secret".to_owned(),
        github.webhook_secret().to_owned(),
    )];
    let lines = github.app_private_key_pem.lines();
    for line in lines.filter(|line| !line.starts_with("-----")) {
        all.push(("line of the app's key".to_owned(), line.to_owned()));
    }
    for token in join_tokens(told) {
        all.push(("join token".to_owned(), token));
    }
    for (kind, text) in github.secrets_given() {
        all.push((format!("{kind:?}"), text));
    }
    for kind in [
        "join token",
        "InstallationToken",
        "JitConfig",
        "RunnerCredential",
    ] {
        assert!(all.iter().any(|(it, _)| it == kind), "no {kind}: {all:?}");
    }
    all
}

/// Everything that the coordinator and its agents wrote.
fn files(below: &Path) -> Places {
    let mut found = Places::new();
    let mut directories = vec![below.to_owned()];
    while let Some(directory) = directories.pop() {
        // What is there may go away while we look: instances end.
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let Ok(data) = std::fs::symlink_metadata(&path) else {
                continue;
            };
            if data.is_dir() {
                // The programs of the runner are copies of what was there before.
                directories.extend((!path.ends_with("runner/bin")).then_some(path));
            } else if let (true, Ok(content)) = (data.is_file(), std::fs::read(&path)) {
                found.insert(path.display().to_string(), text(&content));
            }
        }
    }
    found
}

/// What everyone on the machine may see of the coordinator and of what runs on its instances, and the
/// environments that only their owner may.
fn processes(world: &World) -> (Places, Places) {
    let marked = marked_processes(&world.coordinator.instances_dir());
    let pids = marked.into_iter().map(|(pid, _)| pid);
    let coordinator = i32::try_from(world.coordinator.pid().unwrap()).unwrap();
    let mut command_lines = Places::new();
    let mut environments = Places::new();
    for pid in pids.chain([coordinator]) {
        let read = |name: &str| {
            let content = std::fs::read(format!("/proc/{pid}/{name}"));
            text(&content.unwrap_or_default())
        };
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let name = format!("{} ({pid})", program.display());
        command_lines.insert(format!("command line of {name}"), read("cmdline"));
        environments.insert(name, read("environ"));
    }
    (command_lines, environments)
}

fn text(content: &[u8]) -> String {
    String::from_utf8_lossy(content).into_owned()
}

fn assert_clean(places: &Places, secrets: &Secrets) {
    for (place, content) in places {
        for (kind, secret) in secrets {
            assert!(!content.contains(secret), "a {kind} is in {place}");
        }
    }
}

fn has(places: &Places, text: &str) -> Vec<String> {
    let found = places.iter().filter(|(_, content)| content.contains(text));
    found.map(|(place, _)| place.clone()).collect()
}

/// Looks everywhere at once.
async fn look(world: &World, told: &TempDir) {
    let secrets = secrets(&world.github, told);
    let data = world.dir().join("data");
    let mut written = files(&data);
    for name in [
        "coordinator.log",
        "coordinator.emf",
        "ports.json",
        "muster.toml",
    ] {
        let content = std::fs::read(world.dir().join(name)).unwrap();
        written.insert(name.to_owned(), text(&content));
    }
    if world.coordinator.pid().is_some() {
        let url = format!("http://{}/metrics", world.coordinator.addresses().web);
        let metrics = {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let answer = client.get(url).send().await.unwrap();
            answer.text().await.unwrap()
        };
        written.insert("/metrics".to_owned(), metrics);
        let (command_lines, environments) = processes(world);
        assert_clean(&command_lines, &secrets);
        // The runner takes its configuration from its environment, and from nowhere else:
        // actions/runner src/Runner.Listener/CommandSettings.cs, ACTIONS_RUNNER_INPUT_*.
        let (runners, others): (Places, Places) = environments
            .into_iter()
            .partition(|(name, _)| name.contains("standin-") || name.contains("Runner.Listener"));
        assert!(
            others
                .keys()
                .any(|name| name.contains("muster-coordinator"))
        );
        assert_clean(&others, &secrets);
        let mut strangers = secrets.clone();
        strangers.retain(|(kind, _)| kind != "JitConfig");
        assert_clean(&runners, &strangers);
    }
    // The runner keeps its own files in its own copy, which goes with the instance; whole, the
    // configuration is nowhere.
    let own = |name: &str| name.contains("/instances/") && name.contains("/runner/");
    let (runners, others): (Places, Places) = written.into_iter().partition(|(name, _)| own(name));
    assert_clean(&others, &secrets);
    let mut strangers = secrets.clone();
    strangers.retain(|(kind, _)| kind != "RunnerCredential");
    assert_clean(&runners, &strangers);
}

#[tokio::test]
async fn no_secret_is_where_it_should_not_be() {
    let told = tempfile::tempdir().unwrap();
    let options = Options {
        agent_binary: Some(eavesdropper(&told)),
        ..Options::default()
    };
    let world = World::start(options).await.unwrap();
    let job = JobSpec::new("octo-org/hello", "build", &["self-hosted", "linux"]);
    let go = told.path().join("go");
    let wait = format!("until [ -e '{}' ]; do sleep 0.05; done", go.display());
    let job = world.github.queue_job(job.step(&wait));
    let started = world.github.wait_job(job, Status::InProgress, PATIENCE);
    let runner = started.await.unwrap().runner_name.unwrap();

    // The search finds what is there: the name of the runner, and its configuration where it belongs.
    let written = files(&world.dir().join("data"));
    let named = has(&written, &runner);
    for file in ["muster.db", "agent.log"] {
        assert!(
            named.iter().any(|it| it.contains(file)),
            "{file} in {named:?}"
        );
    }
    let given = world.github.secrets_given();
    let mut given = given.into_iter();
    let jit = given
        .find(|(kind, _)| *kind == SecretKind::JitConfig)
        .unwrap()
        .1;
    let (_, environments) = processes(&world);
    assert_ne!(has(&environments, &jit), Vec::<String>::new());

    look(&world, &told).await;
    std::fs::write(&go, "").unwrap();
    let done = world.github.wait_job(job, Status::Completed, PATIENCE);
    done.await.unwrap();
    look(&world, &told).await;
    // What the last words of all of them are, with the write-ahead log gone into the database.
    let left = world.wind_down(PATIENCE).await.unwrap();
    assert!(left.is_nothing(), "{left:#?}");
    look(&world, &told).await;
    let log = std::fs::read_to_string(world.coordinator.log()).unwrap();
    assert!(log.contains("\"DEBUG\""), "the log is not at its finest");
}
