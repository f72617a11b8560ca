//! Signatures: what is accepted, and what is refused in which words.

use aws_sdk_ec2::config::Credentials as SdkCredentials;
use bytes::Bytes;
use http::{HeaderValue, Request};
use jiff::{SignedDuration, Timestamp};
use muster_tests::fakes::Clock;
use muster_tests::fakes::aws::{Credentials, Options, Principal};

use crate::aws_support::{As, Cloud, code};

/// Signs a request as the agent does, with the crate that the fake's verifier shares nothing with.
pub(crate) fn signed(request: Request<Bytes>, service: &str, by: &As) -> Request<Bytes> {
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    let key = &by.key;
    let identity = SdkCredentials::new(
        &key.access_key_id,
        &key.secret_access_key,
        key.session_token.clone(),
        None,
        "test",
    )
    .into();
    let params = aws_sigv4::sign::v4::SigningParams::builder()
        .identity(&identity)
        .region(&by.region)
        .name(service)
        .time(std::time::SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .unwrap()
        .into();
    let (parts, body) = request.into_parts();
    let headers = parts.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
    let uri = parts.uri.to_string();
    let signable = SignableRequest::new(
        parts.method.as_str(),
        &uri,
        headers,
        SignableBody::Bytes(&body),
    );
    let (instructions, _) = sign(signable.unwrap(), &params).unwrap().into_parts();
    let mut request = Request::from_parts(parts, body.clone());
    instructions.apply_to_request_http1x(&mut request);
    request
}

fn golden() -> Request<Bytes> {
    let headers = "accept;content-type;host;x-amz-date;x-amz-security-token;x-runner-challenge";
    let signature = "f94421b2bd6926c7cf0f4dc8877bf662b67fd9dcb584330eeb3b7866c1bbf472";
    Request::post("/")
        .header("host", "sts.us-east-1.amazonaws.com")
        .header("accept", "application/json")
        .header(
            "content-type",
            "application/x-www-form-urlencoded; charset=utf-8",
        )
        .header("x-amz-date", "20260921T141320Z")
        .header("x-amz-security-token", "SESSIONTOKEN")
        .header(
            "x-runner-challenge",
            "v1;coord.example;nonce=abc;csr-sha256=def",
        )
        .header(
            "authorization",
            format!(
                "AWS4-HMAC-SHA256 Credential=ASIAEXAMPLE/20260921/us-east-1/sts/aws4_request, SignedHeaders={headers}, Signature={signature}"
            ),
        )
        .body(Bytes::from_static(
            b"Action=GetCallerIdentity&Version=2011-06-15",
        ))
        .unwrap()
}

/// At the time of the known answer, with its key.
async fn then(at: i64) -> Cloud {
    let cloud = Cloud::with(Options {
        regions: vec!["us-east-1".to_owned()],
        wall: Clock::At(Timestamp::from_second(at).unwrap()),
        ..Options::default()
    })
    .await;
    cloud.aws.add_key(
        Credentials {
            access_key_id: "ASIAEXAMPLE".to_owned(),
            secret_access_key: "secret".to_owned(),
            session_token: Some("SESSIONTOKEN".to_owned()),
            expires: None,
        },
        Principal {
            account: "123456789012".to_owned(),
            arn: "arn:aws:sts::123456789012:assumed-role/aws:ec2-instance/i-00000000000000001"
                .to_owned(),
            user_id: "123456789012:aws:ec2-instance:i-00000000000000001".to_owned(),
            instance: true,
        },
    );
    cloud
}

const KNOWN: i64 = 1_790_000_000;

/// The signature that botocore and aws-sigv4 both make.
#[tokio::test]
async fn the_known_answer_is_accepted() {
    let cloud = then(KNOWN).await;
    let answer = cloud.aws.handle(golden()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let body: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    let result = &body["GetCallerIdentityResponse"]["GetCallerIdentityResult"];
    assert_eq!(result["Account"], "123456789012");
    assert_eq!(
        result["Arn"],
        "arn:aws:sts::123456789012:assumed-role/aws:ec2-instance/i-00000000000000001"
    );
    cloud.assert_conforms();
}

#[tokio::test]
async fn whatever_is_signed_can_not_be_changed() {
    let cloud = then(KNOWN).await;
    let change = |name: &'static str, value: &'static str| {
        let mut request = golden();
        let headers = request.headers_mut();
        headers.insert(name, HeaderValue::from_static(value));
        request
    };
    for (request, wanted) in [
        (
            change("x-runner-challenge", "v1;x"),
            "SignatureDoesNotMatch",
        ),
        (change("accept", "text/xml"), "SignatureDoesNotMatch"),
        (change("host", "127.0.0.1"), "SignatureDoesNotMatch"),
        (
            change("x-amz-date", "20260921T141321Z"),
            "SignatureDoesNotMatch",
        ),
        (
            change("x-amz-security-token", "OTHER"),
            "InvalidClientTokenId",
        ),
        (change("authorization", "Bearer x"), "IncompleteSignature"),
        (
            golden().map(|_| Bytes::from_static(b"Action=AssumeRole&Version=2011-06-15")),
            "SignatureDoesNotMatch",
        ),
    ] {
        let answer = cloud.aws.handle(request).await.unwrap();
        let body = String::from_utf8_lossy(answer.body()).into_owned();
        assert!(answer.status().is_client_error());
        assert!(body.contains(wanted), "{wanted}: {body}");
    }
    assert_eq!(cloud.aws.served("GetCallerIdentity"), 0);
}

#[tokio::test]
async fn a_signature_is_good_for_five_minutes() {
    for (at, status) in [
        (KNOWN + 300, 200),
        (KNOWN + 301, 403),
        (KNOWN - 300, 200),
        (KNOWN - 301, 403),
    ] {
        let answer = then(at).await.aws.handle(golden()).await.unwrap();
        assert_eq!(answer.status(), status, "{at}");
    }
}

#[tokio::test]
async fn each_service_refuses_in_its_own_words() {
    let cloud = Cloud::start().await;
    let mut wrong = cloud.coordinator();
    wrong.key.secret_access_key = "another".to_owned();
    let mut unknown = cloud.coordinator();
    unknown.key.access_key_id = "AKIANOBODYHASTHISKEY".to_owned();
    for (by, ec2, sts, json) in [
        (
            &wrong,
            "AuthFailure",
            "SignatureDoesNotMatch",
            "InvalidSignatureException",
        ),
        (
            &unknown,
            "AuthFailure",
            "InvalidClientTokenId",
            "UnrecognizedClientException",
        ),
    ] {
        let call = cloud.ec2_as(by).describe_subnets().send().await;
        assert_eq!(code(call), ec2);
        let call = cloud.sts_as(by).get_caller_identity().send().await;
        assert_eq!(code(call), sts);
        let call = cloud.ssm_as(by).get_parameter().name("/a").send().await;
        assert_eq!(code(call), json);
        let url = cloud.aws.queue_url(&cloud.home);
        let call = cloud
            .sqs_as(by)
            .receive_message()
            .queue_url(url)
            .send()
            .await;
        assert_eq!(code(call), json);
    }
    cloud.assert_conforms();
}

#[tokio::test]
async fn requests_made_by_hand_are_verified_as_those_of_the_sdk() {
    let cloud = Cloud::start().await;
    let request = Request::post(&cloud.aws.url)
        .header("accept", "application/json")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Bytes::from_static(
            b"Action=GetCallerIdentity&Version=2011-06-15",
        ))
        .unwrap();
    let request = signed(request, "sts", &cloud.coordinator());
    let answer = cloud.aws.handle(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(Timestamp::now() - SignedDuration::from_mins(1) < cloud.aws.calls()[0].at);
    cloud.assert_conforms();
}
