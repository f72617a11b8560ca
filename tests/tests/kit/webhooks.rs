//! The webhooks of the fake GitHub, and what can happen to them on their way.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use muster_tests::fakes::github::{JobSpec, Mischief, WebhookFault, sign};
use reqwest::Method;
use serde_json::Value;

use crate::support::{App, PATIENCE, body};

/// A receiver of webhooks that answers with a status that the test sets.
#[derive(Clone)]
struct Receiver {
    secret: String,
    seen: Arc<Mutex<Vec<(String, Value, bool)>>>,
    status: Arc<Mutex<StatusCode>>,
}

impl Receiver {
    async fn start(app: &App) -> Self {
        let receiver = Self {
            secret: app.github.webhook_secret().to_owned(),
            seen: Arc::default(),
            status: Arc::new(Mutex::new(StatusCode::ACCEPTED)),
        };
        let router = Router::new()
            .route("/hook", post(receive))
            .with_state(receiver.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        app.github
            .set_webhook_url(&format!("http://{}/hook", listener.local_addr().unwrap()));
        tokio::spawn(axum::serve(listener, router).into_future());
        receiver
    }

    fn answer_with(&self, status: StatusCode) {
        *self.status.lock().unwrap() = status;
    }

    /// Actions in the order of arrival, and whether each was signed as it should be.
    fn seen(&self) -> Vec<(String, bool)> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .map(|(_, body, signed)| (body["action"].as_str().unwrap().to_owned(), *signed))
            .collect()
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("x-github-event"), "workflow_job");
    let signed = header("x-hub-signature-256") == sign(&receiver.secret, &body);
    let payload = serde_json::from_slice(&body).unwrap();
    receiver
        .seen
        .lock()
        .unwrap()
        .push((header("x-github-delivery"), payload, signed));
    *receiver.status.lock().unwrap()
}

async fn deliveries(app: &App, count: usize) {
    let reached = || (app.github.deliveries().len() >= count).then_some(());
    app.github
        .wait_for("deliveries", PATIENCE, reached)
        .await
        .unwrap();
}

#[tokio::test]
async fn webhooks_are_signed_and_never_sent_again_by_themselves() {
    let app = App::start().await;
    let receiver = Receiver::start(&app).await;
    receiver.answer_with(StatusCode::INTERNAL_SERVER_ERROR);
    let job = app
        .github
        .queue_job(JobSpec::new("acme/app", "build", &["x"]));
    deliveries(&app, 1).await;
    let failed = app
        .request(Method::GET, "/app/hook/deliveries?status=failure")
        .bearer_auth(app.jwt(-60, 540))
        .send()
        .await
        .unwrap();
    let failed = body(failed).await;
    assert_eq!(failed[0]["status_code"], 500);
    receiver.answer_with(StatusCode::OK);
    let path = format!("/app/hook/deliveries/{}/attempts", failed[0]["id"]);
    let again = app
        .request(Method::POST, &path)
        .bearer_auth(app.jwt(-60, 540))
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), 202);
    deliveries(&app, 2).await;
    let seen = receiver.seen.lock().unwrap().clone();
    assert_eq!(seen[0].0, seen[1].0, "the same delivery id");
    assert!(
        seen.iter()
            .all(|(_, body, signed)| *signed && body["workflow_job"]["id"] == job)
    );
    assert!(app.github.deliveries()[1].redelivery);
    app.assert_conforms();
}

#[tokio::test]
async fn webhooks_can_be_dropped_doubled_overtaken_and_missigned() {
    let app = App::start().await;
    let receiver = Receiver::start(&app).await;
    let fault = |mischief| WebhookFault {
        action: Some("queued".to_owned()),
        times: 1,
        mischief,
    };
    let mut expected = 0;
    let mut run = async |mischief: Mischief, count: usize| {
        app.github.disturb_webhooks(fault(mischief));
        let job = app
            .github
            .queue_job(JobSpec::new("acme/app", "build", &["x"]));
        // The second webhook of each job must find the first one gone.
        if mischief != Mischief::Overtake && count > 1 {
            deliveries(&app, expected + count - 1).await;
        }
        app.github.cancel_job(job);
        expected += count;
        deliveries(&app, expected).await;
        let seen = receiver.seen();
        receiver.seen.lock().unwrap().clear();
        seen
    };
    let (queued, ended) = (("queued".to_owned(), true), ("completed".to_owned(), true));
    assert_eq!(run(Mischief::Drop, 1).await, std::slice::from_ref(&ended));
    assert_eq!(run(Mischief::Fail, 2).await, std::slice::from_ref(&ended));
    assert_eq!(
        run(Mischief::Duplicate, 3).await,
        [queued.clone(), queued.clone(), ended.clone()]
    );
    assert_eq!(run(Mischief::Overtake, 2).await, [ended.clone(), queued]);
    assert_eq!(
        run(Mischief::WrongSignature, 2).await,
        [("queued".to_owned(), false), ended]
    );
    app.assert_conforms();
}
