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

#[rstest]
#[case::of_a_new_store(None)]
#[case::after_a_start_whose_clock_was_ahead(Some(3_600))]
#[tokio::test]
async fn lost_deliveries_are_asked_for_at_the_start(#[case] looked_at: Option<i64>) {
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
    if let Some(seconds) = looked_at {
        let at = Timestamp::from_second(now + seconds).unwrap().to_string();
        store.set_note("deliveries.checked", &at).await.unwrap();
    }
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

/// A list of pages, newest first, as `page` answers them; each but the last names the next one.
fn paged(
    pages: usize,
    mut page: impl FnMut(usize) -> Option<Value> + Send + 'static,
) -> impl FnMut(&super::super::fake::Asked) -> Option<Reply> + Send + 'static {
    move |asked| {
        if asked.line.contains("/attempts") {
            return Some(reply(202, json!({})));
        }
        let (_, cursor) = asked.line.split_once("cursor=").unwrap_or(("", "0"));
        let at: usize = cursor.parse().unwrap();
        let body = page(at)?;
        let link = format!("<http://x/?cursor={}>; rel=\"next\"", at + 1);
        let more = (at + 1 < pages).then_some(("link", link.as_str()));
        Some(with(200, more.as_slice(), body))
    }
}

fn arrived(id: usize, second: i64) -> Value {
    let mut arrived = delivery(id, second);
    arrived["status_code"] = json!(202);
    arrived
}

/// Looks for lost deliveries all the time, until it is dropped.
struct Looking {
    store: crate::store::Store,
    cancel: CancellationToken,
    _directory: tempfile::TempDir,
}

impl Looking {
    async fn at(github: &Fake) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("muster.db");
        let store = crate::store::Store::open(&path).await.unwrap();
        let cancel = CancellationToken::new();
        tokio::spawn(reconcile::run(
            github.client(),
            std::sync::Arc::new(store.clone()),
            Duration::from_millis(20),
            cancel.clone(),
        ));
        Self {
            store,
            cancel,
            _directory: directory,
        }
    }

    /// Since when deliveries must be looked at, once that is noted.
    async fn noted(&self) -> i64 {
        let noted = async {
            loop {
                if let Some(noted) = self.store.note("deliveries.checked").await.unwrap() {
                    return noted.parse::<Timestamp>().unwrap().as_second();
                }
                tokio::task::yield_now().await;
            }
        };
        let noted = tokio::time::timeout(std::time::Duration::from_secs(20), noted).await;
        noted.expect("it is noted")
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Fifty pages are read in one round.
#[tokio::test]
async fn a_list_that_is_too_long_for_one_round_is_read_to_its_end_before_anything_is_noted() {
    let now = Timestamp::now().as_second();
    let last = 70;
    let github = Fake::new(paged(last + 1, move |at| {
        let second = now - 600 - i64::try_from(at).unwrap();
        let lost = at == 0 || at == last;
        let make = if lost { delivery } else { arrived };
        Some(json!([make(at + 1, second)]))
    }))
    .await;
    let looking = Looking::at(&github).await;
    github
        .is_asked(&format!("deliveries/{}/attempts", last + 1), 1)
        .await;
    // The oldest of both parts that is not settled, and five minutes.
    let oldest = now - 600 - i64::try_from(last).unwrap();
    assert_eq!(looking.noted().await, oldest - 300);
}

#[tokio::test]
async fn what_is_not_settled_in_the_first_part_of_a_long_list_is_kept_in_mind() {
    let now = Timestamp::now().as_second();
    let github = Fake::new(paged(60, move |at| {
        let second = now - 600 - i64::try_from(at).unwrap();
        let make = if at == 0 { delivery } else { arrived };
        Some(json!([make(at + 1, second)]))
    }))
    .await;
    let looking = Looking::at(&github).await;
    assert_eq!(looking.noted().await, now - 600 - 300);
}

#[tokio::test]
async fn a_list_that_github_does_not_go_on_with_holds_up_nothing_that_is_new() {
    let now = Timestamp::now().as_second();
    let mut rounds = 0;
    let github = Fake::new(paged(100, move |at| {
        rounds += usize::from(at == 0);
        // GitHub knows no cursor of the second part; from the third round on there is one more.
        let lost = json!([delivery(1_000, now - 60), arrived(1, now - 600)]);
        match at {
            0 if rounds > 2 => Some(lost),
            0..50 => Some(json!([arrived(at + 1, now - 600)])),
            _ => None,
        }
    }))
    .await;
    let _looking = Looking::at(&github).await;
    github.is_asked("deliveries/1000/attempts", 1).await;
}

#[tokio::test]
async fn an_attempt_that_cannot_be_read_holds_up_no_other() {
    let now = Timestamp::now().as_second();
    let github = Fake::new(paged(1, move |_| {
        Some(json!([{ "id": "odd" }, delivery(2, now - 60)]))
    }))
    .await;
    let _looking = Looking::at(&github).await;
    github.is_asked("deliveries/2/attempts", 1).await;
}
