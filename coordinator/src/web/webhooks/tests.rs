use std::convert::Infallible;

use futures::stream;
use tokio::sync::watch;

use super::*;
use crate::store::Store;

async fn intake(directory: &tempfile::TempDir, held_kib: usize) -> Intake {
    let store = Store::open(&directory.path().join("muster.db")).await;
    let web = Web {
        store: Arc::new(store.unwrap()),
        secrets: watch::channel(Arc::default()).1,
        inbox_ready: Arc::new(|| {}),
        metrics: crate::telemetry::Metrics::new().unwrap(),
        ready: watch::channel(true).1,
    };
    Intake {
        held_kib: Semaphore::new(held_kib),
        ..Intake::new(web)
    }
}

/// A body of which so much arrives, and then nothing more.
async fn stalled(intake: &Intake, arrives: usize) -> Refusal {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/json; charset=utf-8"),
        ("content-length", "20971520"),
        ("x-github-event", "workflow_job"),
        ("x-github-delivery", "1"),
        ("x-hub-signature-256", "sha256="),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let first = stream::iter([Ok::<_, Infallible>(vec![b' '; arrives])]);
    let body = Body::from_stream(first.chain(stream::pending()));
    accept(intake, &headers, body).await.unwrap_err()
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let intake = intake(&directory, 10).await;
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let refusal = stalled(&intake, 10).await;
    assert_eq!(refusal.status, StatusCode::REQUEST_TIMEOUT);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn bodies_beyond_the_memory_set_apart_are_put_off() {
    let directory = tempfile::tempdir().unwrap();
    let intake = intake(&directory, 10).await;
    tokio::time::pause();
    let (large, small, too_much) = tokio::join!(
        stalled(&intake, 8 * 1024),
        stalled(&intake, 100),
        stalled(&intake, 2 * 1024),
    );
    assert_eq!(large.status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(small.status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(too_much.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(too_much.answer().headers()[RETRY_AFTER], "5");
    assert_eq!(intake.held_kib.available_permits(), 10, "all is free again");
}

#[tokio::test]
async fn requests_beyond_the_most_at_once_are_put_off() {
    let directory = tempfile::tempdir().unwrap();
    let mut intake = intake(&directory, 10).await;
    intake.requests = Semaphore::new(1);
    tokio::time::pause();
    let (first, second) = tokio::join!(stalled(&intake, 1), stalled(&intake, 1));
    assert_eq!(first.status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(second.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[test]
fn what_is_not_durable_is_not_accepted() {
    let broken = StoreError::Corrupt {
        kind: "delivery",
        key: "1".to_owned(),
        detail: "no secret of the database".to_owned(),
    };
    for outcome in [Some(Err(broken)), None] {
        let refusal = durable(outcome).unwrap_err();
        assert_eq!(refusal.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(!refusal.reason.contains("secret"), "{}", refusal.reason);
    }
}

#[test]
fn a_duplicate_is_answered_well_too() {
    assert_eq!(thanks(Accepted::New).status(), StatusCode::ACCEPTED);
    assert_eq!(thanks(Accepted::Duplicate).status(), StatusCode::OK);
}
