//! What departs from AWS's models is answered as AWS would, and remembered.

use muster_tests::fakes::aws::Principal;
use reqwest::header::CONTENT_TYPE;

use crate::aws_support::{Cloud, code};

/// Sends a form or a JSON body with a signature of the static key, made by hand.
async fn send(cloud: &Cloud, service: &str, target: Option<&str>, body: &str) -> (u16, String) {
    let mut request = http::Request::post(&cloud.aws.url);
    let mut kind = "application/x-www-form-urlencoded".to_owned();
    if let Some(target) = target {
        request = request.header("x-amz-target", target);
        let version = if service == "sqs" { "1.0" } else { "1.1" };
        kind = format!("application/x-amz-json-{version}");
    }
    let request = request.header(CONTENT_TYPE, kind);
    let request = request.body(body.to_owned().into()).unwrap();
    let signed = crate::aws_signatures::signed(request, service, &cloud.coordinator());
    let answer = cloud.aws.handle(signed).await.unwrap();
    let status = answer.status().as_u16();
    (
        status,
        String::from_utf8(answer.into_body().to_vec()).unwrap(),
    )
}

#[tokio::test]
async fn forms_that_depart_from_the_model_are_refused() {
    let cloud = Cloud::start().await;
    for (service, form, wanted) in [
        (
            "ec2",
            "Action=TerminateInstances&Version=2016-11-15",
            "MissingParameter",
        ),
        (
            "ec2",
            "Action=TerminateInstances&Version=2016-11-15&InstanceId.1=i-00000000000000000&Hard=true",
            "UnknownParameter",
        ),
        (
            "ec2",
            "Action=TerminateInstances&Version=2016-11-15&InstanceId.1=i-00000000000000000&Force=yes",
            "InvalidParameterValue",
        ),
        (
            "ec2",
            "Action=TerminateInstances&Version=2016-11-15&InstanceId.2=i-00000000000000000",
            "InvalidParameterValue",
        ),
        (
            "ec2",
            "Action=DescribeSubnets&Version=2016-11-15&MaxResults=1",
            "InvalidParameterValue",
        ),
        (
            "ec2",
            "Action=DescribeSubnets&Version=2015-10-01",
            "InvalidParameterValue",
        ),
        (
            "ec2",
            "Action=RunInstances&Version=2016-11-15",
            "InvalidAction",
        ),
        (
            "sts",
            "Action=GetCallerIdentity&Action=AssumeRole&Version=2011-06-15",
            "ValidationError",
        ),
        (
            "sts",
            "Action=AssumeRole&Version=2011-06-15&RoleArn=arn:aws:iam::123456789012:role/a&RoleSessionName=a%20b",
            "ValidationError",
        ),
    ] {
        let (status, body) = send(&cloud, service, None, form).await;
        assert_eq!(status, 400, "{form}: {body}");
        assert!(
            body.contains(&format!("<Code>{wanted}</Code>")),
            "{form}: {body}"
        );
        assert_ne!(cloud.aws.take_violations().len(), 0, "{form}");
    }
    assert_eq!(cloud.aws.all_served().len(), 0);
}

#[tokio::test]
async fn json_that_departs_from_the_model_is_refused() {
    let cloud = Cloud::start().await;
    for (service, target, body) in [
        (
            "ssm",
            "AmazonSSM.GetParameter",
            r#"{"WithDecryption":true}"#,
        ),
        (
            "ssm",
            "AmazonSSM.GetParameter",
            r#"{"Name":"/a","Decrypt":true}"#,
        ),
        ("ssm", "AmazonSSM.GetParameters", r#"{"Names":[]}"#),
        ("ssm", "AmazonSSM.GetParameter", "nonsense"),
        ("ssm", "AmazonSQS.GetParameter", r#"{"Name":"/a"}"#),
        ("sqs", "AmazonSQS.ReceiveMessage", r#"{"QueueUrl":7}"#),
        ("sqs", "AmazonSQS.DeleteMessage", r#"{"QueueUrl":"a"}"#),
    ] {
        let (status, answer) = send(&cloud, service, Some(target), body).await;
        assert_eq!(status, 400, "{target} {body}: {answer}");
        assert!(
            answer.contains("ValidationException"),
            "{target} {body}: {answer}"
        );
        assert_ne!(cloud.aws.take_violations().len(), 0, "{target} {body}");
    }
}

#[tokio::test]
async fn what_only_aws_knows_is_a_violation_too() {
    let cloud = Cloud::start().await;
    let behaviour = aws_sdk_ec2::types::SpotOptionsRequest::builder().single_instance_type(true);
    let fleet = cloud.fleet("mb-1", 1, &[("m7i.large", 'a')]);
    let fleet = fleet.spot_options(behaviour.build()).send().await;
    assert_eq!(code(fleet), "UnsupportedByTheFake");
    let [violation] = &cloud.aws.take_violations()[..] else {
        panic!("not one violation");
    };
    assert!(violation.contains("SingleInstanceType"), "{violation}");
}

#[tokio::test]
async fn an_instance_may_ask_for_nothing_but_its_identity() {
    let cloud = Cloud::start().await;
    let id = cloud.launch("mb-1", 1).await.remove(0);
    let mut by = cloud.coordinator();
    by.key = cloud.aws.identity_credentials(&id).unwrap();
    let call = cloud.ec2_as(&by).describe_instances().send().await;
    assert_eq!(code(call), "UnauthorizedOperation");
    let call = cloud.ssm_as(&by).get_parameter().name("/a").send().await;
    assert_eq!(code(call), "AccessDeniedException");
    cloud.assert_conforms();
}

#[tokio::test]
async fn calls_are_remembered_with_their_parameters() {
    let cloud = Cloud::start().await;
    cloud.launch("mb-1", 1).await;
    let [call] = &cloud.aws.calls_of("CreateFleet")[..] else {
        panic!("not one call");
    };
    assert_eq!(call.parameters["ClientToken"], "mb-1");
    let overrides = &call.parameters["LaunchTemplateConfigs"][0]["Overrides"];
    assert_eq!(overrides[1]["InstanceType"], "m7i.large");
    assert_eq!(call.status, Some(200));
    assert_eq!(call.account.as_deref(), Some("123456789012"));
}

#[tokio::test]
async fn accounts_and_regions_are_apart() {
    let options = muster_tests::fakes::aws::Options {
        accounts: vec!["123456789012".to_owned(), "210987654321".to_owned()],
        regions: vec!["eu-central-1".to_owned(), "us-east-1".to_owned()],
        ..Default::default()
    };
    let cloud = Cloud::with(options).await;
    cloud.launch("mb-1", 1).await;
    let mut elsewhere = cloud.coordinator();
    elsewhere.region = "us-east-1".to_owned();
    let mut other = cloud.coordinator();
    other.key.access_key_id = "AKIAOTHEROTHEROTHERO".to_owned();
    let principal = Principal {
        account: "210987654321".to_owned(),
        arn: "arn:aws:iam::210987654321:user/other".to_owned(),
        user_id: "AIDAOTHER".to_owned(),
        instance: false,
    };
    cloud.aws.add_key(other.key.clone(), principal);
    for by in [elsewhere, other] {
        let answer = cloud.ec2_as(&by).describe_instances().send().await;
        assert_eq!(answer.unwrap().reservations().len(), 0);
        let answer = cloud.ec2_as(&by).describe_subnets().send().await.unwrap();
        assert_ne!(answer.subnets()[0].subnet_id(), Some(&*cloud.subnet('a')));
    }
    let mut nowhere = cloud.coordinator();
    nowhere.region = "mars-north-1".to_owned();
    let answer = cloud.ec2_as(&nowhere).describe_instances().send().await;
    assert_eq!(code(answer), "AuthFailure");
    cloud.assert_conforms();
}
