//! Spot's notices, the metadata of what was launched, and what comes over the queue.

use std::sync::Arc;
use std::time::Duration;

use muster_tests::fakes::aws::{Addresses, InstanceState, Options, Told};
use muster_tests::fakes::imds::FakeImds;
use serde_json::Value;

use crate::aws_support::{Cloud, PATIENCE};

/// Events on the queue at home, taken off it.
async fn events(cloud: &Cloud) -> Vec<Value> {
    let sqs = cloud.sqs_as(&cloud.coordinator());
    let url = cloud.aws.queue_url(&cloud.home);
    let call = sqs.receive_message().queue_url(url);
    let call = call.max_number_of_messages(10);
    let answer = call.send().await.unwrap();
    let messages = answer.messages().iter();
    messages
        .map(|it| serde_json::from_str(it.body().unwrap()).unwrap())
        .collect()
}

/// What an instance reads of itself; `None` for 404.
async fn read(imds: &FakeImds, id: &str, path: &str) -> Option<String> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let base = format!("{}/latest", imds.endpoint(id));
    let token = client
        .put(format!("{base}/api/token"))
        .header("x-aws-ec2-metadata-token-ttl-seconds", "60")
        .send()
        .await
        .unwrap();
    let token = token.text().await.unwrap();
    let answer = client
        .get(format!("{base}/{path}"))
        .header("x-aws-ec2-metadata-token", token)
        .send()
        .await
        .unwrap();
    if answer.status() == 404 {
        return None;
    }
    Some(answer.text().await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn spot_takes_an_instance_back() {
    let cloud = Cloud::with(Options {
        state_notifications: false,
        ..Options::default()
    })
    .await;
    let id = cloud.launch("mb-1", 1).await.remove(0);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(cloud.aws.recommend_rebalance(&id));
    assert!(cloud.aws.interrupt(&id, Duration::from_mins(2)));
    let [rebalance, warning] = &events(&cloud).await[..] else {
        panic!("not two events");
    };
    assert_eq!(
        rebalance["detail-type"],
        "EC2 Instance Rebalance Recommendation"
    );
    assert_eq!(
        warning["detail-type"],
        "EC2 Spot Instance Interruption Warning"
    );
    assert_eq!(warning["source"], "aws.ec2");
    assert_eq!(warning["region"], "eu-central-1");
    assert_eq!(warning["detail"]["instance-id"], *id);
    assert_eq!(warning["detail"]["instance-action"], "terminate");
    let state = || cloud.aws.instance(&id).unwrap().state;
    assert_eq!(state(), InstanceState::Running);
    tokio::time::advance(Duration::from_secs(119)).await;
    assert_eq!(state(), InstanceState::Running);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(state().is_ending());
    let reason = cloud.aws.instance(&id).unwrap().reason;
    assert_eq!(reason.as_deref(), Some("Server.SpotInstanceTermination"));
    assert!(!cloud.aws.interrupt(&id, Duration::ZERO));
    assert!(!cloud.aws.interrupt("i-00000000000000000", Duration::ZERO));
    cloud.assert_conforms();
}

#[tokio::test]
async fn not_everyone_is_told() {
    let imds = Arc::new(FakeImds::start().await.unwrap());
    let cloud = Cloud::with(Options {
        imds: Some(Arc::clone(&imds)),
        state_notifications: false,
        ..Options::default()
    })
    .await;
    let ids = cloud.launch("mb-1", 3).await;
    let wait = Duration::from_mins(2);
    for (id, told, noticed, queued) in [
        (&ids[0], Told::Instance, true, 0),
        (&ids[1], Told::Queue, false, 1),
        (&ids[2], Told::Nobody, false, 0),
    ] {
        assert!(cloud.aws.interrupt_telling(id, wait, told));
        let notice = read(&imds, id, "meta-data/spot/instance-action").await;
        assert_eq!(notice.is_some(), noticed, "{told:?}");
        assert_eq!(events(&cloud).await.len(), queued, "{told:?}");
    }
    cloud.assert_conforms();
}

#[tokio::test(start_paused = true)]
async fn each_state_is_told_of() {
    let cloud = Cloud::start().await;
    let id = cloud.launch("mb-1", 1).await.remove(0);
    tokio::time::advance(Duration::from_secs(1)).await;
    let call = cloud.ec2().terminate_instances().instance_ids(&id);
    call.send().await.unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    let events = events(&cloud).await;
    let states: Vec<_> = events.iter().map(|it| &it["detail"]["state"]).collect();
    assert_eq!(
        states,
        ["pending", "running", "shutting-down", "terminated"]
    );
    let kind = "EC2 Instance State-change Notification";
    assert!(events.iter().all(|it| it["detail-type"] == kind));
    cloud.assert_conforms();
}

#[tokio::test]
async fn an_instance_reads_of_itself_what_is_true() {
    let imds = Arc::new(FakeImds::start().await.unwrap());
    let cloud = Cloud::with(Options {
        imds: Some(Arc::clone(&imds)),
        late_credentials: 1,
        instance_role: Some("runner".to_owned()),
        addresses: Addresses::Fixed(std::net::Ipv4Addr::LOCALHOST),
        ..Options::default()
    })
    .await;
    let id = cloud.launch("mb-1", 1).await.remove(0);
    let it = cloud.aws.instance(&id).unwrap();
    let read = |path: &'static str| read(&imds, &id, path);
    for (path, wanted) in [
        ("meta-data/instance-id", &*id),
        ("meta-data/local-ipv4", "127.0.0.1"),
        ("meta-data/instance-life-cycle", "spot"),
        ("meta-data/instance-type", "m7i.large"),
        ("meta-data/placement/region", "eu-central-1"),
        ("meta-data/placement/availability-zone", &it.zone),
        ("meta-data/ami-id", &it.image_id),
        ("meta-data/iam/security-credentials/", "runner"),
    ] {
        assert_eq!(read(path).await.as_deref(), Some(wanted), "{path}");
    }
    let identity = "meta-data/identity-credentials/ec2/security-credentials/ec2-instance";
    assert_eq!(read(identity).await, None);
    for (path, role) in [
        (identity, "aws:ec2-instance"),
        ("meta-data/iam/security-credentials/runner", "runner"),
    ] {
        let found: Value = serde_json::from_str(&read(path).await.unwrap()).unwrap();
        let mut by = cloud.coordinator();
        let text = |name: &str| found[name].as_str().unwrap().to_owned();
        by.key.access_key_id = text("AccessKeyId");
        by.key.secret_access_key = text("SecretAccessKey");
        by.key.session_token = Some(text("Token"));
        let answer = cloud.sts_as(&by).get_caller_identity().send().await;
        let arn = format!("arn:aws:sts::123456789012:assumed-role/{role}/{id}");
        assert_eq!(answer.unwrap().arn(), Some(&*arn));
    }
    assert_eq!(read("meta-data/spot/instance-action").await, None);
    assert!(cloud.aws.interrupt(&id, Duration::from_mins(2)));
    let notice = read("meta-data/spot/instance-action").await.unwrap();
    assert!(notice.contains("terminate"), "{notice}");
    cloud.aws.end(&id, "Client.UserInitiatedShutdown");
    let over = || {
        let it = cloud.aws.instance(&id)?;
        (it.state == InstanceState::Terminated).then_some(())
    };
    let gone = cloud.aws.wait_for("the end", PATIENCE, over);
    gone.await.unwrap();
    assert_eq!(read("meta-data/instance-id").await, None);
    cloud.assert_conforms();
}
