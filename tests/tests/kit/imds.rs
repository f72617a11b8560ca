//! The fake metadata service against what is known of the real one.

use std::time::Duration;

use jiff::Timestamp;
use muster_tests::fakes::imds::{FakeImds, Fault};

const ACTION: &str = "meta-data/spot/instance-action";

async fn token(client: &reqwest::Client, endpoint: &str) -> String {
    let answer = client
        .put(format!("{endpoint}/latest/api/token"))
        .header("x-aws-ec2-metadata-token-ttl-seconds", "60")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    answer.text().await.unwrap()
}

#[tokio::test]
async fn nothing_is_read_without_a_token_of_the_same_instance() {
    let imds = FakeImds::start().await.unwrap();
    imds.add_instance("i-1", "c7i.large", "eu-west-1", true);
    imds.add_instance("i-2", "c7i.large", "eu-west-1", false);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (one, two) = (imds.endpoint("i-1"), imds.endpoint("i-2"));
    let bare = client
        .put(format!("{one}/latest/api/token"))
        .send()
        .await
        .unwrap();
    assert_eq!(bare.status(), 400, "a token needs a lifetime");
    let token = token(&client, &one).await;
    let read = async |endpoint: &str, token: &str, path: &str| {
        let request = client.get(format!("{endpoint}/latest/{path}"));
        let answer = request
            .header("x-aws-ec2-metadata-token", token)
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let id = "meta-data/instance-id";
    assert_eq!(read(&one, &token, id).await, (200, "i-1".to_owned()));
    assert_eq!(read(&two, &token, id).await.0, 401);
    assert_eq!(read(&one, "", id).await.0, 401);
    assert_eq!(read(&one, &token, ACTION).await.0, 404);
    imds.notice("i-1", "2026-01-02T03:04:05Z".parse::<Timestamp>().unwrap());
    let (status, text) = read(&one, &token, ACTION).await;
    assert_eq!(
        (status, text.as_str()),
        (
            200,
            r#"{"action":"terminate","time":"2026-01-02T03:04:05Z"}"#
        )
    );
    imds.expire_tokens("i-1");
    assert_eq!(read(&one, &token, id).await.0, 401);
    imds.set_broken("i-1", true);
    assert_eq!(read(&one, &token, id).await.0, 500);
    assert_eq!(imds.reads("i-1", ACTION), 2);
}

/// An instance, its service and a token of it.
struct Reader {
    imds: FakeImds,
    client: reqwest::Client,
    endpoint: String,
    token: String,
}

impl Reader {
    async fn start() -> Self {
        let imds = FakeImds::start().await.unwrap();
        imds.add_instance("i-1", "c7i.large", "eu-west-1", true);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let endpoint = imds.endpoint("i-1");
        let token = token(&client, &endpoint).await;
        Self {
            imds,
            client,
            endpoint,
            token,
        }
    }

    /// Status, text, and how long the token still lives.
    async fn read(&self, path: &str) -> (u16, String, Option<u64>) {
        let request = self.client.get(format!("{}/latest/{path}", self.endpoint));
        let answer = request
            .header("x-aws-ec2-metadata-token", &self.token)
            .send()
            .await
            .unwrap();
        let ttl = answer
            .headers()
            .get("x-aws-ec2-metadata-token-ttl-seconds")
            .map(|ttl| ttl.to_str().unwrap().parse().unwrap());
        (answer.status().as_u16(), answer.text().await.unwrap(), ttl)
    }

    async fn status(&self, path: &str) -> u16 {
        self.read(path).await.0
    }
}

const ID: &str = "meta-data/instance-id";

#[tokio::test]
async fn tokens_grow_old_with_the_clock_of_their_instance() {
    let mut reader = Reader::start().await;
    assert!(matches!(reader.read(ID).await.2, Some(41..=60)));
    reader.imds.advance("i-1", Duration::from_secs(40));
    assert!(matches!(reader.read(ID).await.2, Some(1..=20)));
    reader.imds.advance("i-1", Duration::from_secs(20));
    assert_eq!(reader.status(ID).await, 401);
    reader.imds.limit_tokens("i-1", Duration::from_secs(10));
    reader.token = token(&reader.client, &reader.endpoint).await;
    assert!(matches!(reader.read(ID).await.2, Some(1..=10)));
    assert_eq!(reader.imds.token_requests("i-1"), 2);
    reader.imds.refuse_tokens("i-1", 2);
    for expected in [401, 401, 200] {
        assert_eq!(reader.status(ID).await, expected);
    }
}

#[tokio::test]
async fn what_came_through_a_proxy_gets_no_token() {
    let reader = Reader::start().await;
    let request = reader
        .client
        .put(format!("{}/latest/api/token", reader.endpoint))
        .header("x-aws-ec2-metadata-token-ttl-seconds", "60")
        .header("x-forwarded-for", "10.0.0.1");
    assert_eq!(request.send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn faults_come_one_by_one_and_then_no_more() {
    let reader = Reader::start().await;
    let credentials = "meta-data/identity-credentials/ec2/security-credentials/ec2-instance";
    reader.imds.delay_credentials("i-1", 2);
    for expected in [404, 404, 200] {
        assert_eq!(reader.status(credentials).await, expected);
    }
    let faults = [
        Fault::Status(503),
        Fault::Text("<html>".to_owned()),
        Fault::Slow(Duration::from_millis(50)),
        Fault::Silence,
    ];
    reader.imds.script("i-1", ID, faults);
    assert_eq!(reader.status(ID).await, 503);
    assert_eq!(reader.read(ID).await.1, "<html>");
    let begun = std::time::Instant::now();
    assert_eq!(reader.read(ID).await.1, "i-1");
    assert!(begun.elapsed() >= Duration::from_millis(50));
    let silence = tokio::time::timeout(Duration::from_millis(100), reader.status(ID));
    assert!(silence.await.is_err());
    assert_eq!(reader.status(ID).await, 200);
    reader.imds.script("i-1", "api/token", [Fault::Status(503)]);
    let request = reader
        .client
        .put(format!("{}/latest/api/token", reader.endpoint))
        .header("x-aws-ec2-metadata-token-ttl-seconds", "60");
    assert_eq!(request.send().await.unwrap().status(), 503);
}

#[tokio::test]
async fn all_notices_read_as_on_ec2() {
    const MAINTENANCE: &str = "meta-data/events/maintenance/scheduled";
    const LIFECYCLE: &str = "meta-data/autoscaling/target-lifecycle-state";
    const REBALANCE: &str = "meta-data/events/recommendations/rebalance";
    let reader = Reader::start().await;
    let at: Timestamp = "2019-01-21T09:00:43Z".parse().unwrap();
    assert_eq!(reader.read(MAINTENANCE).await.1, "[]");
    for path in [ACTION, LIFECYCLE, REBALANCE] {
        assert_eq!(reader.status(path).await, 404, "{path}");
    }
    reader.imds.set_target_lifecycle_state("i-1", "Terminated");
    assert_eq!(reader.read(LIFECYCLE).await.1, "Terminated");
    reader.imds.recommend_rebalance("i-1", at);
    let text = r#"{"noticeTime":"2019-01-21T09:00:43Z"}"#;
    assert_eq!(reader.read(REBALANCE).await.1, text);
    for (id, state) in [("e-1", "active"), ("e-2", "active"), ("e-1", "completed")] {
        let imds = &reader.imds;
        imds.schedule_maintenance("i-1", id, "system-reboot", state, at);
    }
    let list: serde_json::Value = serde_json::from_str(&reader.read(MAINTENANCE).await.1).unwrap();
    assert_eq!(list[0]["EventId"], "e-2");
    assert_eq!(list[0]["NotBefore"], "21 Jan 2019 09:00:43 GMT");
    assert_eq!(list[1]["EventId"], "e-1");
    assert_eq!(list[1]["State"], "completed");
    let document = reader.read("dynamic/instance-identity/document").await.1;
    assert!(document.contains(r#""instanceId":"i-1""#), "{document}");
}
