//! Webhooks: what they say.

use muster_core::{JobId, JobReport, JobStatus, Repository};
use serde_json::Value;
use thiserror::Error;

use super::json::{Mismatch, Node};

/// A body that can't be understood.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// It is not UTF-8.
    #[error("invalid UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// It is not JSON.
    #[error("invalid JSON: {0}")]
    NotJson(String),
    /// A value is not what it should be.
    #[error("{0}")]
    Mismatch(#[from] Mismatch),
}

/// What a webhook says to us.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, taken apart at once"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intake {
    /// News of a job.
    Job(JobReport),
    /// Nothing, with the reason.
    Ignored(String),
}

/// Reads a webhook: its `X-GitHub-Event` and its body. Events and actions that mean nothing to us,
/// now or in GitHub's future, are ignored; fields that we don't use are not looked at.
///
/// # Errors
/// When it is a `workflow_job` and its body is not what GitHub documents in the fields that we use.
pub fn parse(event: &str, body: &[u8]) -> Result<Intake, PayloadError> {
    if event != "workflow_job" {
        return Ok(Intake::Ignored(format!("event {event} is not used")));
    }
    let text = std::str::from_utf8(body).map_err(|e| PayloadError::NotUtf8(e.valid_up_to()))?;
    let document: Value =
        serde_json::from_str(text).map_err(|e| PayloadError::NotJson(e.to_string()))?;
    Ok(workflow_job(&document)?)
}

fn workflow_job(document: &Value) -> Result<Intake, Mismatch> {
    let root = Node::document(document).as_object()?;
    let action = root.text("action")?;
    let job = root.object("workflow_job")?;
    let Some(status) = status_of(action, job.text("status")?) else {
        let action: String = action.chars().take(64).collect();
        return Ok(Intake::Ignored(format!(
            "action {action:?} of workflow_job is not used"
        )));
    };
    let mut report = job_report(&job, repository(&root)?, status)?;
    report.installation = match root.optional_object("installation")? {
        Some(installation) => Some(installation.integer("id")?),
        None => None,
    };
    Ok(Intake::Job(report))
}

/// The status of a job, from what happened (`action`) and from how the job was when GitHub wrote
/// the payload (`workflow_job.status`). None if the action is unknown.
///
/// The two differ. Under an environment that needs approval, GitHub sends `queued`, as the job was
/// made, with status `waiting`, as no runner may have it yet (the `queued` example with a
/// `deployment` in npm `@octokit/webhooks-examples`): no runner is due before another event or a
/// look at the job says `queued`. A status ahead of the action is later news and is believed; a
/// status that is unknown says nothing.
/// <https://docs.github.com/en/webhooks/webhook-events-and-payloads#workflow_job>
fn status_of(action: &str, status: &str) -> Option<JobStatus> {
    let happened = match action {
        // GitHub documents `waiting` only; the others are statuses that are waited in, too.
        "waiting" | "requested" | "pending" => JobStatus::Waiting,
        "queued" => JobStatus::Queued,
        "in_progress" => JobStatus::InProgress,
        "completed" => JobStatus::Completed,
        _ => return None,
    };
    Some(match (happened, known_status(status)) {
        (JobStatus::Queued, Some(JobStatus::Waiting))
        | (JobStatus::Waiting, Some(JobStatus::Queued)) => JobStatus::Waiting,
        (happened, Some(is)) => happened.max(is),
        (happened, None) => happened,
    })
}

/// GitHub's word for a status, from its OpenAPI description (schema `job`). None if it is unknown.
pub(super) fn known_status(word: &str) -> Option<JobStatus> {
    match word {
        "waiting" | "requested" | "pending" => Some(JobStatus::Waiting),
        "queued" => Some(JobStatus::Queued),
        "in_progress" => Some(JobStatus::InProgress),
        "completed" => Some(JobStatus::Completed),
        _ => None,
    }
}

fn repository(root: &Node<'_>) -> Result<Repository, Mismatch> {
    let node = root.object("repository")?;
    let public = match node.optional_text("visibility")? {
        Some(visibility) => visibility == "public",
        // Payloads of old servers know private and public only.
        None => !node.boolean("private")?,
    };
    let enterprise = match root.optional_object("enterprise")? {
        Some(enterprise) => Some(enterprise.text("slug")?.to_owned()),
        None => None,
    };
    Ok(Repository {
        owner: node.object("owner")?.text("login")?.to_owned(),
        name: node.text("name")?.to_owned(),
        public,
        enterprise,
    })
}

/// Reads a job object, which is the same in a webhook and in the API's answer. Old payloads lack the
/// attempt and the time of creation.
pub(super) fn job_report(
    job: &Node<'_>,
    repository: Repository,
    status: JobStatus,
) -> Result<JobReport, Mismatch> {
    let filled = |text: &&str| !text.is_empty();
    Ok(JobReport {
        id: JobId(job.integer("id")?),
        run_id: job.integer("run_id")?,
        run_attempt: job.optional_count("run_attempt")?,
        repository,
        workflow: job.optional_text("workflow_name")?.map(str::to_owned),
        name: job.text("name")?.to_owned(),
        labels: job.texts("labels")?,
        status,
        conclusion: job.optional_text("conclusion")?.map(str::to_owned),
        runner_name: job
            .optional_text("runner_name")?
            .filter(filled)
            .map(str::to_owned),
        created_at: job.optional_time("created_at")?,
        started_at: job.optional_time("started_at")?,
        completed_at: job.optional_time("completed_at")?,
        installation: None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn payload(action: &str, status: &str) -> Value {
        json!({
            "action": action,
            "workflow_job": {
                "id": 29679449526_i64, "run_id": 10_i64, "run_attempt": 2, "name": "build",
                "labels": ["self-hosted", "Linux"], "status": status, "conclusion": null,
                "workflow_name": "CI", "runner_id": null, "runner_name": "",
                "created_at": "2026-01-02T03:04:05Z", "started_at": "2026-01-02T04:04:06+01:00",
                "completed_at": null, "steps": 7
            },
            "repository": {
                "name": "widgets", "private": false, "visibility": "internal",
                "owner": { "login": "acme" }
            },
            "enterprise": { "slug": "acme-corp" },
            "installation": { "id": 77 },
            "sender": "of no interest"
        })
    }

    fn read(document: &Value) -> Result<Intake, PayloadError> {
        parse("workflow_job", document.to_string().as_bytes())
    }

    fn job(document: &Value) -> JobReport {
        match read(document) {
            Ok(Intake::Job(report)) => report,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_job_is_read_with_all_that_is_used() {
        let expected = JobReport {
            id: JobId(29_679_449_526),
            run_id: 10,
            run_attempt: Some(2),
            repository: Repository {
                owner: "acme".to_owned(),
                name: "widgets".to_owned(),
                public: false,
                enterprise: Some("acme-corp".to_owned()),
            },
            workflow: Some("CI".to_owned()),
            name: "build".to_owned(),
            labels: vec!["self-hosted".to_owned(), "Linux".to_owned()],
            status: JobStatus::Queued,
            conclusion: None,
            runner_name: None,
            created_at: "2026-01-02T03:04:05Z".parse().ok(),
            started_at: "2026-01-02T03:04:06Z".parse().ok(),
            completed_at: None,
            installation: Some(77),
        };
        assert_eq!(job(&payload("queued", "queued")), expected);
    }

    #[rstest]
    #[case("queued", "queued", JobStatus::Queued)]
    #[case("queued", "waiting", JobStatus::Waiting)]
    #[case("queued", "requested", JobStatus::Waiting)]
    #[case("queued", "pending", JobStatus::Waiting)]
    #[case("waiting", "waiting", JobStatus::Waiting)]
    #[case("waiting", "queued", JobStatus::Waiting)]
    #[case("queued", "in_progress", JobStatus::InProgress)]
    #[case("queued", "completed", JobStatus::Completed)]
    #[case("in_progress", "queued", JobStatus::InProgress)]
    #[case("in_progress", "completed", JobStatus::Completed)]
    #[case("completed", "in_progress", JobStatus::Completed)]
    #[case("queued", "of_the_future", JobStatus::Queued)]
    fn action_and_status_make_one_status(
        #[case] action: &str,
        #[case] status: &str,
        #[case] expected: JobStatus,
    ) {
        assert_eq!(job(&payload(action, status)).status, expected);
    }

    #[test]
    fn an_old_payload_lacks_fields_and_is_read() {
        let mut document = payload("in_progress", "in_progress");
        for (place, field) in [
            ("workflow_job", "run_attempt"),
            ("workflow_job", "created_at"),
            ("workflow_job", "workflow_name"),
            ("repository", "visibility"),
        ] {
            document[place].as_object_mut().unwrap().remove(field);
        }
        for field in ["enterprise", "installation", "sender"] {
            document.as_object_mut().unwrap().remove(field);
        }
        let report = job(&document);
        assert_eq!(report.run_attempt, None);
        assert_eq!(report.created_at, None);
        assert_eq!(report.installation, None);
        assert!(report.repository.public, "it says private: false");
    }

    #[rstest]
    #[case("/action", json!(1), "action: expected a string, found a number")]
    #[case("/workflow_job", json!([]), "workflow_job: expected an object, found a list")]
    #[case("/workflow_job/id", json!("7"), "workflow_job.id: expected a whole number, found a string")]
    #[case("/workflow_job/id", json!(1.5), "workflow_job.id: expected a whole number, found 1.5")]
    #[case("/workflow_job/run_attempt", json!(-1),
        "workflow_job.run_attempt: expected a number from 0 to 4294967295, found -1")]
    #[case("/workflow_job/name", json!(null), "workflow_job.name: expected a string, found null")]
    #[case("/workflow_job/labels", json!("x"), "workflow_job.labels: expected a list, found a string")]
    #[case("/workflow_job/labels/0", json!(5),
        "workflow_job.labels[0]: expected a string, found a number")]
    #[case("/workflow_job/created_at", json!("soon"),
        "workflow_job.created_at: expected an RFC 3339 time, found \"soon\"")]
    #[case("/workflow_job/runner_name", json!(5),
        "workflow_job.runner_name: expected a string, found a number")]
    #[case("/repository/owner/login", json!({}),
        "repository.owner.login: expected a string, found an object")]
    #[case("/repository/visibility", json!(true),
        "repository.visibility: expected a string, found true or false")]
    #[case("/installation/id", json!(null), "installation.id: expected a whole number, found null")]
    fn a_wrong_type_is_named_with_its_place(
        #[case] place: &str,
        #[case] value: Value,
        #[case] expected: &str,
    ) {
        let mut document = payload("queued", "queued");
        *document.pointer_mut(place).unwrap() = value;
        assert_eq!(read(&document).unwrap_err().to_string(), expected);
    }

    #[rstest]
    #[case(b"[]".as_slice(), "the document: expected an object, found a list")]
    #[case(b"{\"action\":\"que\xff\"}", "invalid UTF-8 at byte 14")]
    #[case(
        b"{\"action\":",
        "invalid JSON: EOF while parsing a value at line 1 column 10"
    )]
    #[case(b"{}", "action: expected a string, found nothing")]
    fn a_body_that_is_no_payload_is_refused_with_the_reason(
        #[case] body: &[u8],
        #[case] expected: &str,
    ) {
        let error = parse("workflow_job", body).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    #[rstest]
    #[case("ping", b"not even JSON", "event ping is not used")]
    #[case("workflow_run", b"{}", "event workflow_run is not used")]
    fn other_events_are_ignored(#[case] event: &str, #[case] body: &[u8], #[case] reason: &str) {
        let ignored = Intake::Ignored(reason.to_owned());
        assert_eq!(parse(event, body), Ok(ignored));
    }

    #[test]
    fn an_unknown_action_is_ignored() {
        let reason = "action \"reheated\" of workflow_job is not used".to_owned();
        let document = payload("reheated", "queued");
        assert_eq!(read(&document), Ok(Intake::Ignored(reason)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse("workflow_job", &body);
        }

        /// Whatever stands in one place, the answer is a report, a reason to ignore it, or an error
        /// that names the place.
        #[test]
        fn one_foreign_value_is_read_or_named(
            place in prop::sample::select(vec![
                "/action", "/workflow_job", "/workflow_job/id", "/workflow_job/labels",
                "/workflow_job/labels/1", "/workflow_job/started_at", "/repository",
                "/repository/owner", "/enterprise", "/installation",
            ]),
            value in prop_oneof![
                Just(Value::Null), any::<bool>().prop_map(Value::from),
                any::<i64>().prop_map(Value::from), any::<f64>().prop_map(Value::from),
                any::<String>().prop_map(Value::from), Just(json!([1])), Just(json!({"a": 1})),
            ],
        ) {
            let mut document = payload("queued", "queued");
            *document.pointer_mut(place).unwrap() = value;
            if let Err(PayloadError::Mismatch(mismatch)) = read(&document) {
                let place = place[1..].replace("labels/1", "labels[1]").replace('/', ".");
                prop_assert!(mismatch.path.starts_with(&place), "{} for {}", mismatch, place);
            }
        }
    }
}
