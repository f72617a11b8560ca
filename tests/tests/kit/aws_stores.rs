//! Parameters of SSM, and the queue.

use std::time::Duration;

use aws_sdk_sqs::operation::receive_message::builders::ReceiveMessageFluentBuilder;
use aws_sdk_sqs::types::DeleteMessageBatchRequestEntry;
use muster_tests::fakes::aws::{Options, ParameterKind};

use crate::aws_support::{Cloud, code};

#[tokio::test]
async fn a_parameter_has_versions_and_may_be_secret() {
    let cloud = Cloud::start().await;
    let put = |kind, value| {
        cloud
            .aws
            .put_parameter(&cloud.home, "/muster/key", kind, value)
    };
    assert_eq!(put(ParameterKind::Secret, "old"), 1);
    assert_eq!(put(ParameterKind::Secret, "new"), 2);
    let ssm = cloud.ssm_as(&cloud.coordinator());
    let get = |name: &str, decrypt| {
        let call = ssm.get_parameter().name(name).with_decryption(decrypt);
        call.send()
    };
    let it = get("/muster/key", true).await.unwrap().parameter.unwrap();
    assert_eq!(it.value(), Some("new"));
    assert_eq!(it.version(), 2);
    assert_eq!(it.r#type().unwrap().as_str(), "SecureString");
    let old = get("/muster/key:1", true).await.unwrap().parameter.unwrap();
    assert_eq!(old.value(), Some("old"));
    let hidden = get("/muster/key", false).await.unwrap().parameter.unwrap();
    assert_ne!(hidden.value(), Some("new"));
    assert_eq!(code(get("/muster/key:3", true).await), "ParameterNotFound");
    assert_eq!(code(get("/muster/none", true).await), "ParameterNotFound");
    cloud
        .aws
        .put_parameter(&cloud.home, "/ami", ParameterKind::Image, "ami-1");
    let several = ssm.get_parameters().names("/ami").names("/none");
    let several = several.send().await.unwrap();
    let image = &several.parameters()[0];
    assert_eq!(image.data_type(), Some("aws:ec2:image"));
    assert_eq!(several.invalid_parameters(), ["/none"]);
    cloud.aws.delete_parameter(&cloud.home, "/ami");
    assert_eq!(code(get("/ami", false).await), "ParameterNotFound");
    cloud.assert_conforms();
}

#[tokio::test(start_paused = true)]
async fn parameters_are_read_forty_times_a_second() {
    let cloud = Cloud::start().await;
    cloud
        .aws
        .put_parameter(&cloud.home, "/a", ParameterKind::Text, "x");
    let ssm = cloud.ssm_as(&cloud.coordinator());
    let get = async || ssm.get_parameter().name("/a").send().await;
    for _ in 0..40 {
        get().await.unwrap();
    }
    assert_eq!(code(get().await), "ThrottlingException");
    cloud.assert_conforms();
}

/// The queue at home, and a client.
struct Post {
    cloud: Cloud,
    sqs: aws_sdk_sqs::Client,
    url: String,
}

impl Post {
    async fn open() -> Self {
        let cloud = Cloud::with(Options {
            visibility_timeout: Duration::from_secs(30),
            ..Options::default()
        })
        .await;
        let sqs = cloud.sqs_as(&cloud.coordinator());
        let url = cloud.aws.queue_url(&cloud.home);
        Self { cloud, sqs, url }
    }

    fn receive(&self) -> ReceiveMessageFluentBuilder {
        let call = self.sqs.receive_message().queue_url(&self.url);
        call.max_number_of_messages(10)
    }

    fn send(&self, body: &str) {
        self.cloud.aws.send_message(&self.cloud.home, body);
    }

    async fn bodies(&self) -> Vec<String> {
        let answer = self.receive().send().await.unwrap();
        let messages = answer.messages().iter();
        messages.map(|it| it.body().unwrap().to_owned()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_comes_again_until_it_is_deleted() {
    let post = Post::open().await;
    post.send("one");
    let first = post.receive().send().await.unwrap();
    let first = &first.messages()[0];
    assert_eq!(post.cloud.aws.queue_depth(&post.cloud.home), (0, 1));
    assert_eq!(post.bodies().await, Vec::<String>::new());
    tokio::time::advance(Duration::from_secs(30)).await;
    let again = post.receive().send().await.unwrap();
    let again = &again.messages()[0];
    assert_eq!(first.message_id(), again.message_id());
    let delete = async |handle: Option<&str>| {
        let call = post.sqs.delete_message().queue_url(&post.url);
        call.set_receipt_handle(handle.map(str::to_owned))
            .send()
            .await
    };
    delete(first.receipt_handle()).await.unwrap();
    assert_eq!(post.cloud.aws.queue_depth(&post.cloud.home), (0, 1));
    delete(again.receipt_handle()).await.unwrap();
    assert_eq!(post.cloud.aws.queue_depth(&post.cloud.home), (0, 0));
    assert_eq!(
        code(delete(Some("nonsense")).await),
        "ReceiptHandleIsInvalid"
    );
    post.cloud.assert_conforms();
}

#[tokio::test(start_paused = true)]
async fn a_receiver_waits_for_a_message() {
    let post = Post::open().await;
    let from = tokio::time::Instant::now();
    let none = post.receive().wait_time_seconds(20).send().await.unwrap();
    assert_eq!(none.messages().len(), 0);
    assert!(from.elapsed() >= Duration::from_secs(20));
    let (some, ()) = tokio::join!(post.receive().wait_time_seconds(20).send(), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        post.send("late");
    });
    assert_eq!(some.unwrap().messages()[0].body(), Some("late"));
    // Hidden for a while, then back within one wait.
    post.send("hidden");
    post.receive().visibility_timeout(7).send().await.unwrap();
    let back = post.receive().wait_time_seconds(20).send().await.unwrap();
    assert_eq!(back.messages()[0].body(), Some("hidden"));
    post.cloud.assert_conforms();
}

#[tokio::test]
async fn messages_may_come_twice_and_are_deleted_in_batches() {
    let post = Post::open().await;
    post.cloud.aws.send_twice(&post.cloud.home, 1);
    post.send("one");
    post.send("two");
    let got = post.receive().send().await.unwrap();
    let mut bodies: Vec<_> = got.messages().iter().filter_map(|it| it.body()).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, ["one", "one", "two"]);
    let entry = |id: &str, handle: &str| {
        let entry = DeleteMessageBatchRequestEntry::builder().id(id);
        entry.receipt_handle(handle).build().unwrap()
    };
    let all = got.messages().iter().zip(["a", "b", "c"]);
    let all = all.map(|(it, id)| entry(id, it.receipt_handle().unwrap()));
    let deleted = post
        .sqs
        .delete_message_batch()
        .queue_url(&post.url)
        .set_entries(Some(all.chain([entry("d", "nonsense")]).collect()))
        .send()
        .await
        .unwrap();
    assert_eq!((deleted.successful().len(), deleted.failed().len()), (3, 1));
    assert_eq!(post.cloud.aws.queue_depth(&post.cloud.home), (0, 0));
    post.cloud.assert_conforms();
}

#[tokio::test]
async fn there_is_one_queue() {
    let post = Post::open().await;
    let found = post.sqs.get_queue_url().queue_name("muster-events");
    assert_eq!(found.send().await.unwrap().queue_url(), Some(&*post.url));
    let other = post.sqs.receive_message().queue_url("http://x/1/other");
    let other = other.send().await.unwrap_err().into_service_error();
    assert!(other.is_queue_does_not_exist(), "{other:?}");
    post.cloud.assert_conforms();
}
