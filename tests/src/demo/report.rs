//! What the demo prints.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use muster_proto::v1::{GetJobRequest, TimelineEntry, WaitBreakdown};

use crate::fakes::github::JobId;
use crate::world::World;

/// What is said of jobs; the rest is said of runners and pools.
const JOB_WORDS: [&str; 5] = ["waiting", "queued", "decided anew", "started", "completed"];

/// One line for one entry, as it happens.
pub(super) fn entry_line(entry: &TimelineEntry) -> String {
    let whom = match (&entry.runner[..], entry.job_id) {
        ("", 0) => entry.pool.clone(),
        (_, job) if JOB_WORDS.contains(&entry.what.as_str()) => format!("job {job}"),
        (runner, _) => runner.to_owned(),
    };
    format!("{whom:<28} {:<22} {}", entry.what, entry.detail)
}

/// The story of one job: its wait, split by phase, and its timeline.
///
/// # Errors
/// When the coordinator doesn't know the job.
pub async fn show_job(world: &World, name: &str, id: JobId) -> anyhow::Result<String> {
    let mut operator = world.operator("reporter").await?;
    let id = i64::try_from(id)?;
    let answer = operator
        .client
        .get_job(GetJobRequest { id })
        .await
        .context("get job")?
        .into_inner();
    let job = answer.job.unwrap_or_default();
    let runner = if job.runner.is_empty() {
        "no runner"
    } else {
        &job.runner
    };
    let mut text = format!("{name}: {} on {runner}\n", job.conclusion);
    if let Some(wait) = &answer.wait
        && job.started_at.is_some()
    {
        let _ = writeln!(text, "  waited {}", wait_line(wait));
    }
    let begin = answer.timeline.first().and_then(|entry| entry.at);
    for entry in &answer.timeline {
        let since = match (entry.at, begin) {
            (Some(at), Some(begin)) => {
                (at.seconds - begin.seconds) * 1000 + i64::from(at.nanos - begin.nanos) / 1_000_000
            }
            _ => 0,
        };
        let _ = writeln!(text, "  {since:>6} ms  {:<22} {}", entry.what, entry.detail);
    }
    Ok(text)
}

fn wait_line(wait: &WaitBreakdown) -> String {
    let milliseconds =
        |part: &prost_types::Duration| part.seconds * 1000 + i64::from(part.nanos) / 1_000_000;
    let parts = [
        ("delivery", &wait.delivery),
        ("decision", &wait.decision),
        ("launch", &wait.launch),
        ("boot", &wait.boot),
        ("registration", &wait.registration),
        ("pickup", &wait.pickup),
    ];
    let parts: Vec<_> = parts
        .into_iter()
        .filter_map(|(name, part)| Some(format!("{name} {}", milliseconds(part.as_ref()?))))
        .collect();
    let total = wait.total.as_ref().map(milliseconds).unwrap_or_default();
    format!("{total} ms = {}", parts.join(" + "))
}

/// Calls to paste into another terminal.
#[must_use]
pub fn hold_commands(world: &World, files: &Path, job: JobId) -> String {
    let address = world.coordinator.addresses().operators;
    let at = |name: &str| files.join(name).display().to_string();
    let (ca, cert, key) = (at("ca.crt"), at("operator.crt"), at("operator.key"));
    let service = "muster.v1.OperatorService";
    let grpcurl = format!("grpcurl -cacert {ca} -cert {cert} -key {key}");
    let buf = format!(
        "tests/node_modules/.bin/buf curl --protocol grpc --cacert {ca} --cert {cert} --key {key} --servername localhost"
    );
    format!(
        "{grpcurl} {address} list {service}\n\
         {grpcurl} {address} {service}/ListPools\n\
         {grpcurl} -d '{{\"id\": {job}}}' {address} {service}/ExplainJob\n\
         {grpcurl} {address} {service}/WatchEvents\n\n\
         {buf} https://{address} --list-methods\n\
         {buf} https://{address}/{service}/ListRunners\n\
         {buf} -d '{{\"id\": {job}}}' https://{address}/{service}/GetJob\n\
         curl http://{}/metrics\n",
        world.coordinator.addresses().web,
    )
}
