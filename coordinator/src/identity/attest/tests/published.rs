//! The published vulnerabilities of this class, each by its name.
//!
//! Those of other parts are tested there: CVE-2021-27098 in `identity/ca`, CVE-2021-27099 in
//! `identity/spiffe`, SPIRE's of resumption in `identity/tls`, of chains in `identity/peer`, of large keys in
//! `identity/csr`, of its join tokens in `store` and `grpc`.

use rstest::rstest;

use super::super::Role;
use super::fake::{Play, success};
use super::*;

fn answer() -> String {
    success(&Credentials::of_instance(ACCOUNT, INSTANCE))
}

async fn refused(body: String) {
    let world = World::new().await;
    world.sts.play([Play::Answer(200, body.clone())]);
    let error = world.attest(&world.fields()).await.unwrap_err();
    assert!(matches!(error, AttestError::Refused(_)), "{body}: {error}");
    assert!(!error.to_string().contains("evil"), "{error}");
}

/// An answer of another action, with what was looked for in a text that the attacker chose.
#[rstest]
#[case::decoded_message(r#"{"DecodeAuthorizationMessageResponse":{"DecodeAuthorizationMessageResult":{"DecodedMessage":"<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>evil</Arn></GetCallerIdentityResult></GetCallerIdentityResponse>"}}}"#)]
#[case::openid(r#"{"jwks":{"keys":[{"kid":"<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>evil</Arn><UserId>evil</UserId><Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"}]}}"#)]
#[case::json_in_a_string(r#"{"AssumeRoleResponse":{"AssumeRoleResult":{"PackedPolicySize":"{\"GetCallerIdentityResponse\":{}}"}}}"#)]
#[tokio::test]
async fn cve_2020_16250_json_of_another_action_is_refused(#[case] body: &str) {
    refused(body.to_owned()).await;
}

#[tokio::test]
async fn cve_2020_16250_the_answer_beside_another_is_refused() {
    let inner = answer();
    let inner = &inner[1..inner.len() - 1];
    refused(format!("{{\"evil\":1,{inner}}}")).await;
    refused(format!("{{{inner},{inner}}}")).await;
}

#[tokio::test]
async fn cve_2020_16250_html_and_xml_are_refused() {
    refused("<html>evil</html>".to_owned()).await;
    refused(format!(
        "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:sts::{ACCOUNT}:assumed-role/\
         aws:ec2-instance/{INSTANCE}</Arn><UserId>evil</UserId><Account>{ACCOUNT}</Account>\
         </GetCallerIdentityResult></GetCallerIdentityResponse>"
    ))
    .await;
}

#[tokio::test]
async fn cve_2020_16250_two_roots_and_trailing_data_are_refused() {
    refused(format!("{}{}", answer(), answer())).await;
    refused(format!("{} evil", answer())).await;
    refused(format!("[{}]", answer())).await;
    refused(String::new()).await;
}

#[rstest]
#[case::missing("\"Account\":\"123456789012\",", "")]
#[case::empty("\"Account\":\"123456789012\"", "\"Account\":\"\"")]
#[case::duplicate("\"Account\":", "\"Account\":\"210987654321\",\"Account\":")]
#[case::duplicate_arn("\"Arn\":", "\"Arn\":\"evil\",\"Arn\":")]
#[case::number("\"Account\":\"123456789012\"", "\"Account\":123456789012")]
#[case::null("\"Account\":\"123456789012\"", "\"Account\":null")]
#[case::another_account("\"Account\":\"123456789012\"", "\"Account\":\"210987654321\"")]
#[case::second_result(
    "\"GetCallerIdentityResult\":",
    "\"GetCallerIdentityResult\":{},\"GetCallerIdentityResult\":"
)]
#[case::list_for_an_object(
    "{\"Account\":\"123456789012\",\"Arn\":\"arn:aws:sts::123456789012:assumed-role/aws:ec2-instance/i-0123456789abcdef0\",\"UserId\":\"123456789012:aws:ec2-instance:i-0123456789abcdef0\"}",
    "[\"123456789012\",\"arn:aws:sts::123456789012:assumed-role/aws:ec2-instance/i-0123456789abcdef0\",\"evil\"]"
)]
#[tokio::test]
async fn cve_2020_16250_missing_and_duplicate_keys_are_refused(
    #[case] part: &str,
    #[case] instead: &str,
) {
    let body = answer();
    assert!(body.contains(part), "{part} is not in {body}");
    refused(body.replacen(part, instead, 1)).await;
}

/// Keys that differ in case only: one reader's is not the other's.
#[rstest]
#[case("\"Arn\":", "\"arn\":\"evil\",\"Arn\":")]
#[case("\"Arn\":", "\"ARN\":")]
#[case("\"GetCallerIdentityResponse\":", "\"getCallerIdentityResponse\":")]
#[tokio::test]
async fn cve_2022_2385_keys_in_another_case_are_refused(#[case] part: &str, #[case] instead: &str) {
    refused(answer().replacen(part, instead, 1)).await;
}

/// The id of the access key is the client's word: it says nothing, in any case.
#[tokio::test]
async fn cve_2022_2385_nothing_is_believed_of_the_access_key() {
    let world = World::new().await;
    let mut fields = world.fields();
    let victim = Credentials::of_instance(ACCOUNT, "i-00000000000000000");
    world.sts.know(&victim);
    fields.access_key_id = victim.access_key_id;
    let error = world.attest(&fields).await.unwrap_err();
    assert!(error.to_string().contains("STS answered 403"), "{error}");
    world.sts.play([Play::Answer(200, answer())]);
    let attested = world.attest(&fields).await.unwrap();
    assert_eq!(attested.instance.as_str(), INSTANCE);
}

const ROLE: &str = "muster-runner";
const OTHER: &str = "210987654321";

/// Two accounts, the same name of a role, the same text of an instance id: each is its own.
#[tokio::test]
async fn cve_2025_11621_the_same_role_of_another_account_is_another() {
    let world = World::with(|settings| {
        settings.accounts[0].instance_profile_role = Some(ROLE.to_owned());
    })
    .await;
    let ours = Credentials::of_role(ACCOUNT, ROLE, INSTANCE);
    let theirs = Credentials::of_role(OTHER, ROLE, INSTANCE);
    for who in [&ours, &theirs] {
        world.sts.know(who);
    }
    let sign = |who| signed(who, AUDIENCE, &NONCE, CSR, Timestamp::now());
    let attested = world.attest(&sign(&ours)).await.unwrap();
    assert_eq!(attested.role, Role::InstanceProfile(ROLE.to_owned()));
    let error = world.attest(&sign(&theirs)).await.unwrap_err();
    assert!(matches!(error, AttestError::Refused(_)), "{error}");

    // Where both are configured, each is found in its own entry only.
    let world = World::with(|settings| {
        settings.accounts.push(account("other", OTHER));
        for entry in &mut settings.accounts {
            entry.instance_profile_role = Some(ROLE.to_owned());
        }
    })
    .await;
    for (who, name) in [(&ours, "main"), (&theirs, "other")] {
        world.sts.know(who);
        let attested = world.attest(&sign(who)).await.unwrap();
        let names: Vec<&str> = attested
            .accounts
            .iter()
            .map(|it| it.name.as_str())
            .collect();
        assert_eq!(names, [name]);
    }
}

/// No pattern is matched: a role is believed by its whole name, and only where it is configured.
#[rstest]
#[case::not_configured(None, ROLE)]
#[case::longer(Some(ROLE), "muster-runner2")]
#[case::shorter(Some(ROLE), "muster")]
#[case::other_case(Some(ROLE), "Muster-Runner")]
#[tokio::test]
async fn cve_2025_11621_a_role_counts_by_its_whole_name(
    #[case] configured: Option<&str>,
    #[case] role: &str,
) {
    let configured = configured.map(str::to_owned);
    let world = World::with(|settings| {
        settings.accounts[0].instance_profile_role = configured;
    })
    .await;
    let who = Credentials::of_role(ACCOUNT, role, INSTANCE);
    world.sts.know(&who);
    let fields = signed(&who, AUDIENCE, &NONCE, CSR, Timestamp::now());
    let error = world.attest(&fields).await.unwrap_err();
    assert!(matches!(error, AttestError::Refused(_)), "{error}");
}

/// A role that isn't EC2's can have no colon in its name, and a path that imitates one has a slash more.
#[rstest]
#[case::path("arn:aws:sts::123456789012:assumed-role/aws/ec2-instance/i-0123456789abcdef0")]
#[case::no_colon("arn:aws:sts::123456789012:assumed-role/aws-ec2-instance/i-0123456789abcdef0")]
#[case::user("arn:aws:iam::123456789012:user/aws:ec2-instance/i-0123456789abcdef0")]
#[case::federated("arn:aws:sts::123456789012:federated-user/i-0123456789abcdef0")]
#[tokio::test]
async fn a_name_that_imitates_the_identity_role_is_refused(#[case] arn: &str) {
    let world = World::new().await;
    let who = Credentials::named(ACCOUNT, arn.to_owned(), format!("X:{INSTANCE}"));
    world.sts.know(&who);
    let fields = signed(&who, AUDIENCE, &NONCE, CSR, Timestamp::now());
    let error = world.attest(&fields).await.unwrap_err();
    assert!(matches!(error, AttestError::Refused(_)), "{error}");
}

/// SPIRE's signed identity document (1.14.6) is a proof that we don't take: no field can hold one.
#[tokio::test]
async fn spire_1_14_6_no_identity_is_taken_from_beside_the_proof() {
    let world = World::new().await;
    let attested = world.attest(&world.fields()).await.unwrap();
    let seen = world.sts.seen();
    assert!(!format!("{seen:?}").contains(INSTANCE));
    assert_eq!(attested.instance.as_str(), INSTANCE);
}

/// SPIRE's HTTP challenge (1.14.2) fetched what the client named: here it can name a region of ours only.
#[tokio::test]
async fn spire_1_14_2_the_client_names_no_place_to_ask() {
    let world = World::new().await;
    for region in [
        "127.0.0.1",
        "localhost",
        "169.254.169.254/latest",
        "eu-west-1.",
    ] {
        let mut fields = world.fields();
        fields.region = region.to_owned();
        let error = world.attest(&fields).await.unwrap_err();
        assert!(matches!(
            error,
            AttestError::Malformed {
                field: "region",
                ..
            }
        ));
    }
    assert!(world.sts.seen().is_empty());
}
