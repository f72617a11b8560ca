//! Webhooks on their way.

use std::time::Duration;

use aws_lc_rs::hmac;
use axum::body::Body;
use http::{Request, StatusCode};
use jiff::Timestamp;
use muster_core::JobStatus;
use serde_json::json;
use tower::ServiceExt as _;

use super::answers;
use crate::simulation::life::SECRET;
use crate::simulation::world::World;

/// GitHub waits so long for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// One attempt to deliver.
#[derive(Clone, Debug)]
pub(in crate::simulation) struct Attempt {
    pub(super) id: i64,
    pub(super) guid: String,
    pub(super) at: Timestamp,
    pub(super) status: u16,
}

/// Tells of a job as it is now.
pub(super) fn tell(world: &World, job: i64) {
    let mut state = world.lock();
    let number = state.github.id();
    let guid = format!("00000000-0000-0000-0000-{number:012}");
    let Some(known) = state.github.jobs.get(&job) else {
        return;
    };
    let action = match known.status {
        JobStatus::Waiting => "waiting",
        JobStatus::Queued => "queued",
        JobStatus::InProgress => "in_progress",
        JobStatus::Completed => "completed",
    };
    let repository = state
        .github
        .runs
        .get(&known.run)
        .map_or("", |run| run.repository);
    let body = json!({
        "action": action,
        "workflow_job": answers::job(known, repository),
        "repository": answers::repository(repository),
        "installation": { "id": answers::INSTALLATION },
    });
    state.github.bodies.insert(guid.clone(), body.to_string());
    let plan = state.plan.clone();
    if state.chance(plan.webhook_vanishes) {
        return;
    }
    if let Some(job) = state.github.jobs.get_mut(&job) {
        job.told = true;
    }
    let fails = state.chance(plan.webhook_fails);
    let times = 1 + usize::from(state.chance(plan.webhook_doubles));
    let waits: Vec<Duration> = (0..times)
        .map(|_| match state.chance(plan.webhook_late) {
            true => state.between(30_000, 90_000),
            false => state.between(20, 3_000),
        })
        .collect();
    drop(state);
    for wait in waits {
        let (world, guid) = (world.clone(), guid.clone());
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            deliver(&world, &guid, fails).await;
        });
    }
}

/// Makes another attempt, as it was asked to.
pub(in crate::simulation) fn redeliver(world: &World, attempt: i64) -> bool {
    let state = world.lock();
    let known = state.github.attempts.iter().rev();
    let guid = known
        .into_iter()
        .find(|known| known.id == attempt)
        .map(|known| known.guid.clone());
    drop(state);
    let Some(guid) = guid else { return false };
    let world = world.clone();
    tokio::spawn(async move {
        world.rest(100, 3_000).await;
        deliver(&world, &guid, false).await;
    });
    true
}

async fn deliver(world: &World, guid: &str, fails: bool) {
    let at = world.now();
    let (router, body) = {
        let state = world.lock();
        let router = state.process.as_ref().map(|process| process.router.clone());
        (router, state.github.bodies.get(guid).cloned())
    };
    let body = body.unwrap_or_default();
    let status = match router {
        Some(router) if !fails => {
            let request = Request::post("/webhooks/github")
                .header("content-type", "application/json")
                .header("x-github-event", "workflow_job")
                .header("x-github-delivery", guid)
                .header("x-hub-signature-256", signature(&body))
                .body(Body::from(body));
            let answer = tokio::time::timeout(PATIENCE, router.oneshot(request.unwrap())).await;
            answer.map_or(0, |answer| answer.unwrap().status().as_u16())
        }
        _ => StatusCode::BAD_GATEWAY.as_u16(),
    };
    let mut state = world.lock();
    let stored = state.disk.tables.deliveries.contains(guid);
    if (200..300).contains(&status) {
        state.judge.thanked(guid);
    }
    let id = state.github.id();
    state.github.attempts.push(Attempt {
        id,
        guid: guid.to_owned(),
        at,
        status,
    });
    drop(state);
    if (200..300).contains(&status) && !stored {
        world.violated(&format!(
            "invariant 3: {guid} was answered {status} and is not stored"
        ));
    }
}

fn signature(body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = hmac::sign(&key, body.as_bytes());
    let digits: String = tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256={digits}")
}
