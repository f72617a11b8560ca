//! Deliveries and their repetition.

use tokio_util::sync::CancellationToken;

use super::*;

fn delivery(id: usize, second: i64) -> Value {
    json!({
        "id": id, "guid": format!("guid-{id}"), "event": "workflow_job", "status_code": 502,
        "status": "failed to connect", "redelivery": false, "action": "queued",
        "delivered_at": Timestamp::from_second(second).unwrap().to_string()
    })
}

#[tokio::test]
async fn deliveries_are_followed_by_cursor_back_to_the_time_asked_for() {
    let github = Fake::new(|asked| {
        if asked.line.contains("cursor=v1_2%3D") {
            return Some(reply(200, json!([delivery(2, 200), delivery(3, 100)])));
        }
        let link = "<https://elsewhere.example/app/hook/deliveries?per_page=100&cursor=v1_2%3D>; \
                    rel=\"next\"";
        Some(with(200, &[("link", link)], json!([delivery(1, 300)])))
    })
    .await;
    let since = Timestamp::from_second(150).unwrap();
    let found = github.client().deliveries(since, None).await.unwrap();
    let ids: Vec<_> = found.attempts.iter().map(|attempt| attempt.id).collect();
    assert_eq!((ids, found.more), (vec![1, 2], None));
}

#[tokio::test]
async fn deliveries_without_end_are_given_back_in_parts() {
    let mut page = 0;
    let github = Fake::new(move |_| {
        page += 1;
        let link = format!("<http://x/?cursor={page}>; rel=\"next\"");
        Some(with(200, &[("link", &link)], json!([delivery(page, 300)])))
    })
    .await;
    let client = github.client();
    let first = client
        .deliveries(Timestamp::UNIX_EPOCH, None)
        .await
        .unwrap();
    assert_eq!(first.attempts.len(), 50);
    let second = client
        .deliveries(Timestamp::UNIX_EPOCH, first.more)
        .await
        .unwrap();
    assert_eq!(second.attempts.len(), 50);
    assert_eq!(github.asked("cursor=50").len(), 1);
}

#[tokio::test]
async fn a_redelivery_is_asked_for() {
    let github = Fake::answering("/attempts", vec![reply(202, json!({}))]).await;
    github.client().redeliver(12).await.unwrap();
    let line = "POST /api/v3/app/hook/deliveries/12/attempts";
    assert_eq!(github.asked(line).len(), 1);
}

#[tokio::test]
async fn lost_deliveries_are_asked_for_at_the_start() {
    let now = Timestamp::now().as_second();
    let github = Fake::new(move |asked| {
        if asked.line.contains("/attempts") {
            return Some(reply(202, json!({})));
        }
        let mut arrived = delivery(2, now - 90);
        arrived["status_code"] = json!(200);
        let mut again = delivery(3, now - 200);
        again["guid"] = arrived["guid"].clone();
        let list = json!([
            delivery(1, now - 60),
            arrived,
            again,
            delivery(4, now - 400)
        ]);
        Some(reply(200, list))
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let store = crate::store::Store::open(&directory.path().join("muster.db"))
        .await
        .unwrap();
    let cancel = CancellationToken::new();
    let interval = Duration::from_millis(20);
    let run = reconcile::run(
        github.client(),
        std::sync::Arc::new(store),
        interval,
        cancel.clone(),
    );
    let run = tokio::spawn(run);
    github.is_asked("GET", 4).await;
    cancel.cancel();
    run.await.unwrap();
    let asked: Vec<_> = github.asked("POST").into_iter().map(|a| a.line).collect();
    let line = |id| format!("POST /api/v3/app/hook/deliveries/{id}/attempts");
    assert_eq!(asked, [line(4), line(1)], "once each, as the gap is longer");
}
