//! Lists of more than one page, and lists that fail.

use std::sync::{Arc, Mutex};

use muster_core::JobStatus;

use super::survey::{answer, job, quiet, survey};
use super::*;

#[tokio::test]
async fn each_page_of_a_list_is_a_call() {
    let github = Fake::new(|asked| {
        let first = asked.line.ends_with("&page=1");
        let ids = if first { 0..100 } else { 100..101 };
        let runs: Vec<Value> = ids.map(|id| json!({ "id": id })).collect();
        let runs = asked.line.contains("runs?status").then_some(runs)?;
        Some(reply(200, json!({ "workflow_runs": runs })))
    })
    .await;
    let list = github.client().runs_with(&widgets(), "queued", None).await;
    let Ok(Fetched::New { value, calls, .. }) = list else {
        panic!("a list of two pages");
    };
    assert_eq!((value.len(), calls), (101, 2));
}

#[tokio::test]
async fn a_list_of_repositories_that_fails_holds_up_nothing_that_is_known() {
    let answers = Arc::new(Mutex::new(quiet()));
    let scripted = Arc::clone(&answers);
    let mut lists = 0;
    let github = Fake::new(move |asked| {
        if asked.line.contains("installation/repositories") {
            lists += 1;
            if lists > 1 {
                return Some(reply(502, json!({ "message": "Server Error" })));
            }
        }
        answer(asked, &scripted.lock().unwrap())
    })
    .await;
    let surveying = survey(&github).await;
    // Ten seconds later.
    github.is_asked("installation/repositories", 2).await;
    {
        let mut answers = answers.lock().unwrap();
        answers.insert("runs/5/jobs", json!({ "jobs": [job(7, "queued")] }));
        let runs = json!({ "workflow_runs": [{ "id": 5 }] });
        answers.insert("runs?status=queued", runs);
    }
    surveying.knows(7, JobStatus::Queued).await;
}
