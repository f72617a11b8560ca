//! The request that goes to STS.

use std::sync::OnceLock;

use jiff::Timestamp;
use muster_proto::sts as form;
use proptest::prelude::*;
use rstest::rstest;
use tokio::runtime::Runtime;

use super::fake::{Seen, sign};
use super::*;

/// aws-sigv4 1.6.4 and botocore make the same of these values, bit for bit. The agent's test has them too.
#[test]
fn the_signature_that_the_fake_verifies_is_the_known_one() {
    let headers = [
        ("accept", form::ACCEPT),
        ("content-type", form::CONTENT_TYPE),
        ("host", "sts.us-east-1.amazonaws.com"),
        ("x-amz-date", "20260921T141320Z"),
        ("x-amz-security-token", "SESSIONTOKEN"),
        (
            "x-runner-challenge",
            "v1;coord.example;nonce=abc;csr-sha256=def",
        ),
    ];
    let line = (form::METHOD, form::PATH);
    assert_eq!(
        sign("secret", "us-east-1", line, &headers, form::BODY.as_bytes()),
        "f94421b2bd6926c7cf0f4dc8877bf662b67fd9dcb584330eeb3b7866c1bbf472"
    );
}

/// The agent's tests have the same (`enroll/signature.rs`), made by other code.
#[test]
fn an_agent_signs_what_is_rebuilt_here() {
    let mut who = Credentials::of_instance(ACCOUNT, INSTANCE);
    who.secret = "secret".to_owned();
    who.token = "SESSIONTOKEN".to_owned();
    let at = Timestamp::from_second(1_790_000_000).unwrap();
    let fields = signed_in("cn-north-1", &who, AUDIENCE, &NONCE, b"csr", at);
    assert_eq!(
        fields.signature,
        "33e270178d24109f39b3a221d28221b4c9985f06e334d4f39c4e484d7738ff76"
    );
}

/// What may arrive at STS, whatever came in: one line, these headers, this body.
fn assert_form(seen: &Seen, fields: &Fields, audience: &str) {
    assert_eq!(seen.line, "POST / HTTP/1.1");
    assert_eq!(seen.body, form::BODY.as_bytes());
    let hash = digest::digest(&digest::SHA256, CSR);
    let challenge = form::challenge(audience, &NONCE, hash.as_ref());
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={}/{}/{REGION}/sts/aws4_request, SignedHeaders={}, Signature={}",
        fields.access_key_id,
        &fields.amz_date[..8],
        form::SIGNED_HEADERS,
        fields.signature
    );
    let mut headers = seen.headers.clone();
    headers.sort();
    let expected = [
        ("accept", "application/json"),
        ("authorization", &authorization),
        ("content-length", "43"),
        (
            "content-type",
            "application/x-www-form-urlencoded; charset=utf-8",
        ),
        ("host", "sts.eu-west-1.amazonaws.com"),
        ("x-amz-date", &fields.amz_date),
        ("x-amz-security-token", &fields.session_token),
        ("x-muster-challenge", &challenge),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(headers, expected);
}

/// Vault 1.5.1 forgot the session token in its list of headers, and nobody could log in.
#[tokio::test]
async fn vault_1_5_3_the_request_is_whole_with_its_session_token() {
    let world = World::new().await;
    let fields = world.fields();
    let attested = world.attest(&fields).await.unwrap();
    assert_eq!(attested.instance.as_str(), INSTANCE);
    let seen = world.sts.seen();
    assert_eq!(seen.len(), 1);
    assert_form(&seen[0], &fields, AUDIENCE);
}

/// Vault's tests of its parser, as far as a field can hold them, and more: nothing is sent at all.
#[rstest]
#[case::other_host(|f: &mut Fields| f.region = "eu-west-1.evil.example/".into(), "region")]
#[case::user_in_host(|f: &mut Fields| f.region = "x@evil.example".into(), "region")]
#[case::other_region(|f: &mut Fields| f.region = "us-east-1".into(), "region")]
#[case::no_region(|f: &mut Fields| f.region.clear(), "region")]
#[case::region_in_capitals(|f: &mut Fields| f.region = "EU-WEST-1".into(), "region")]
#[case::short_key(|f: &mut Fields| f.access_key_id = "ASIA".into(), "access_key_id")]
#[case::long_key(|f: &mut Fields| f.access_key_id = "A".repeat(129), "access_key_id")]
#[case::key_with_scope(|f: &mut Fields| f.access_key_id.push_str("/20260921"), "access_key_id")]
#[case::key_with_headers(|f: &mut Fields| f.access_key_id.push_str(", SignedHeaders=host"), "access_key_id")]
#[case::lower_key(|f: &mut Fields| f.access_key_id.make_ascii_lowercase(), "access_key_id")]
#[case::no_date(|f: &mut Fields| f.amz_date.clear(), "amz_date")]
#[case::date_line(|f: &mut Fields| f.amz_date.push_str("\r\nx: y"), "amz_date")]
#[case::old_date(|f: &mut Fields| f.amz_date = "20200101T000000Z".into(), "amz_date")]
#[case::far_date(|f: &mut Fields| f.amz_date = "99991231T235959Z".into(), "amz_date")]
#[case::no_token(|f: &mut Fields| f.session_token.clear(), "session_token")]
#[case::long_token(|f: &mut Fields| f.session_token = "A".repeat(4_097), "session_token")]
#[case::token_line(|f: &mut Fields| f.session_token.push_str("\r\nhost: evil.example"), "session_token")]
#[case::token_newline(|f: &mut Fields| f.session_token.push('\n'), "session_token")]
#[case::token_unicode(|f: &mut Fields| f.session_token.push('é'), "session_token")]
#[case::short_signature(|f: &mut Fields| { f.signature.pop(); }, "signature")]
#[case::upper_signature(|f: &mut Fields| f.signature = "A".repeat(64), "signature")]
#[case::second_signature(|f: &mut Fields| f.signature.push_str(", Signature=0"), "signature")]
#[tokio::test]
async fn a_field_of_another_form_is_named_and_nothing_is_sent(
    #[case] damage: fn(&mut Fields),
    #[case] named: &str,
) {
    let world = World::new().await;
    let mut fields = world.fields();
    damage(&mut fields);
    let Err(AttestError::Malformed { field, .. }) = world.attest(&fields).await else {
        panic!("it was taken");
    };
    assert_eq!(field, named);
    assert!(world.sts.seen().is_empty());
}

#[tokio::test]
async fn a_signature_is_good_for_five_minutes_either_way() {
    let world = World::new().await;
    let now = Timestamp::now();
    for (seconds, good) in [(-301, false), (-290, true), (290, true), (310, false)] {
        let at = now.checked_add(jiff::SignedDuration::from_secs(seconds));
        let fields = signed(&world.who, AUDIENCE, &NONCE, CSR, at.unwrap());
        let proof = Proof {
            evidence: fields.evidence(),
            nonce: &NONCE,
            audience: AUDIENCE,
            csr_der: CSR,
        };
        let outcome = world.attestor.attest(&proof, now).await;
        let malformed = matches!(outcome, Err(AttestError::Malformed { .. }));
        assert_eq!(malformed, !good, "{seconds}: {outcome:?}");
    }
}

/// The signature counts for one challenge, one certificate request, and one coordinator.
#[tokio::test]
async fn a_signature_for_anything_else_is_refused() {
    let world = World::new().await;
    let now = Timestamp::now();
    for fields in [
        signed(&world.who, AUDIENCE, &[8; 32], CSR, now),
        signed(&world.who, AUDIENCE, &NONCE, b"another request", now),
        signed(&world.who, "another.test", &NONCE, CSR, now),
    ] {
        let refused = world.attest(&fields).await.unwrap_err();
        assert!(
            refused.to_string().contains("SignatureDoesNotMatch"),
            "{refused}"
        );
    }
    world.attest(&world.fields()).await.unwrap();
}

#[test]
fn neither_evidence_nor_errors_show_a_secret() {
    let who = Credentials::of_instance(ACCOUNT, INSTANCE);
    let fields = signed(&who, AUDIENCE, &NONCE, CSR, Timestamp::now());
    let shown = format!("{:?}", fields.evidence());
    assert!(!shown.contains(&who.token) && !shown.contains(&fields.signature));
}

/// One server and one client for all cases of the property.
fn shared() -> &'static (Runtime, World) {
    static SHARED: OnceLock<(Runtime, World)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let world = runtime.block_on(World::new());
        (runtime, world)
    })
}

/// A text of the right form, or one that is near it, or any.
fn near(form: &'static str) -> impl Strategy<Value = String> {
    let evil = prop_oneof![
        Just("\r\n"),
        Just("\n"),
        Just("\r\nhost: evil.example\r\n"),
        Just("\0"),
        Just(" "),
        Just("/"),
        Just("?Action=AssumeRole"),
        Just("&Action=AssumeRole"),
        Just("#"),
        Just("@evil.example"),
        Just(", Signature=0"),
        Just(";"),
        Just("%0d%0a"),
        Just("é"),
        Just("\u{2028}"),
        Just("\t"),
    ];
    prop_oneof![
        3 => form,
        2 => (form, evil, any::<prop::sample::Index>()).prop_map(|(text, evil, at)| {
            let mut at = at.index(text.len() + 1);
            while !text.is_char_boundary(at) { at -= 1; }
            format!("{}{evil}{}", &text[..at], &text[at..])
        }),
        1 => ".{0,80}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn cve_2020_16250_no_byte_of_the_client_changes_method_host_path_body_or_another_header(
        access_key_id in near("[A-Z0-9]{16,40}"),
        date in near("[0-9]{8}T[0-9]{6}Z"),
        fresh in prop::bool::weighted(0.8),
        region in prop_oneof![4 => Just(REGION.to_owned()), 1 => near("[a-z0-9-]{1,20}")],
        session_token in near("[A-Za-z0-9+/]{1,200}={0,2}"),
        signature in near("[0-9a-f]{64}"),
    ) {
        let now = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let amz_date = if fresh { now } else { date };
        let fields = Fields { access_key_id, amz_date, region, session_token, signature };
        let (runtime, world) = shared();
        let before = world.sts.seen().len();
        let outcome = runtime.block_on(world.attest(&fields));
        let seen = world.sts.seen().split_off(before);
        match outcome {
            Err(AttestError::Malformed { .. }) => prop_assert_eq!(seen.len(), 0),
            // Nobody has these credentials, or nobody yet.
            Err(AttestError::Refused(_) | AttestError::Unavailable(_)) => {
                prop_assert_eq!(seen.len(), 1);
                assert_form(&seen[0], &fields, AUDIENCE);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
