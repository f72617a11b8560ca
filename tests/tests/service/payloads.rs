//! The payloads that GitHub's users published as examples, from npm.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use muster_proto::v1::JobState;
use serde_json::Value;

/// One payload.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    /// Where it is from, for messages.
    pub(crate) origin: String,
    /// For `X-GitHub-Event`.
    pub(crate) event: String,
    pub(crate) document: Value,
}

impl Payload {
    pub(crate) fn body(&self) -> Vec<u8> {
        self.document.to_string().into_bytes()
    }

    pub(crate) fn job_id(&self) -> i64 {
        self.document["workflow_job"]["id"].as_i64().unwrap()
    }

    /// Action, and status of the job.
    pub(crate) fn words(&self) -> (&str, &str) {
        (
            self.document["action"].as_str().unwrap(),
            self.document["workflow_job"]["status"].as_str().unwrap(),
        )
    }
}

fn package(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("node_modules/@octokit")
        .join(name)
}

fn read(file: &Path) -> Value {
    let text = std::fs::read(file)
        .unwrap_or_else(|error| panic!("{}: {error}; run tests/install", file.display()));
    serde_json::from_slice(&text).unwrap()
}

/// All files below a directory whose path says that they hold payloads.
fn files(below: &Path, wanted: fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![below.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if wanted(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// All of `@octokit/webhooks-examples`: `index.json` files with a list of events.
fn examples() -> Vec<Payload> {
    let package = package("webhooks-examples");
    let files = files(&package, |path| path.ends_with("index.json"));
    let mut all = Vec::new();
    for file in files {
        let server = file.parent().unwrap().file_name().unwrap();
        for kind in read(&file).as_array().unwrap() {
            let event = kind["name"].as_str().unwrap();
            for (number, document) in kind["examples"].as_array().unwrap().iter().enumerate() {
                all.push(Payload {
                    origin: format!("{} {event} {number}", server.to_string_lossy()),
                    event: event.to_owned(),
                    document: document.clone(),
                });
            }
        }
    }
    all
}

/// All fixtures of `@octokit/webhooks` in the last version that had some: a file for each, named
/// `<event>-<action>-payload.json` or `<event>-payload.json`.
fn fixtures() -> Vec<Payload> {
    let package = package("webhooks-fixtures");
    let files = files(&package, |path| {
        path.to_string_lossy().ends_with("-payload.json")
    });
    let payload = |file: PathBuf| {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        Payload {
            origin: format!("fixture {name}"),
            event: name.split('-').next().unwrap().to_owned(),
            document: read(&file),
        }
    };
    files.into_iter().map(payload).collect()
}

/// All payloads, of all events.
pub(crate) fn all() -> Vec<Payload> {
    let (examples, fixtures) = (examples(), fixtures());
    assert!(examples.len() > 700, "{} examples", examples.len());
    assert!(fixtures.len() >= 3, "{} fixtures", fixtures.len());
    [examples, fixtures].concat()
}

/// All payloads of jobs.
pub(crate) fn of_jobs() -> Vec<Payload> {
    let mut all = all();
    all.retain(|payload| payload.event == "workflow_job");
    all
}

/// The payloads of jobs in rounds, so that no round tells twice of the same job.
pub(crate) fn rounds() -> Vec<Vec<Payload>> {
    let mut rounds: Vec<Vec<Payload>> = Vec::new();
    let mut told: BTreeMap<i64, usize> = BTreeMap::new();
    for payload in of_jobs() {
        let round = told.entry(payload.job_id()).or_default();
        if rounds.len() == *round {
            rounds.push(Vec::new());
        }
        rounds[*round].push(payload);
        *round += 1;
    }
    rounds
}

/// The state that a job is in after its first news, by what happened and what its status was then.
pub(crate) const STATES: [((&str, &str), JobState); 5] = [
    (("queued", "queued"), JobState::Queued),
    // Under an environment that needs approval: no runner may have the job yet.
    (("queued", "waiting"), JobState::Waiting),
    (("waiting", "waiting"), JobState::Waiting),
    (("in_progress", "in_progress"), JobState::InProgress),
    (("completed", "completed"), JobState::Completed),
];

/// See [`STATES`].
pub(crate) fn expected_state(payload: &Payload) -> JobState {
    let words = payload.words();
    let row = STATES.iter().find(|(row, _)| *row == words);
    row.unwrap_or_else(|| panic!("{}: {words:?} is not in the table", payload.origin))
        .1
}
