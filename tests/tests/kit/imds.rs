//! The fake metadata service against what is known of the real one.

use jiff::Timestamp;
use muster_tests::fakes::imds::FakeImds;

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
