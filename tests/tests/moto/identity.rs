//! The proof of identity: signed as the agent signs it, asked about by the coordinator's own attestor,
//! judged by moto's check of signatures.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_lc_rs::digest;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use jiff::Timestamp;
use muster_coordinator::identity::attest::{
    AttestAccount, AttestError, AttestSettings, Attestor, Evidence, Proof, Role,
};
use muster_proto::sts;

use crate::metadata::Keys;
use crate::world::{ACCOUNT, COORDINATOR, INSTANCE, REGION, World};

const NONCE: [u8; 32] = [7; 32];
const CSR: &[u8] = b"a certificate request";

/// What the agent's `enroll/signature.rs` makes of its keys: date and signature. The agent is a program
/// and no library; its own tests hold it to the same signature as this library's.
fn signed(keys: &Keys) -> (String, String) {
    let token = Some(keys.token.clone());
    let identity: Identity = Credentials::new(&keys.id, &keys.secret, token, None, "test").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(REGION)
        .name(sts::SERVICE)
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .unwrap()
        .into();
    let host = sts::host(REGION);
    let hash = digest::digest(&digest::SHA256, CSR);
    let challenge = sts::challenge(COORDINATOR, &NONCE, hash.as_ref());
    let headers = [
        ("accept", sts::ACCEPT),
        ("content-type", sts::CONTENT_TYPE),
        ("host", &host),
        (sts::CHALLENGE_HEADER, &challenge),
    ];
    let body = SignableBody::Bytes(sts::BODY.as_bytes());
    let url = format!("https://{host}{}", sts::PATH);
    let request = SignableRequest::new(sts::METHOD, &url, headers.into_iter(), body).unwrap();
    let (instructions, signature) = sign(request, &params).unwrap().into_parts();
    let mut headers = instructions.headers();
    let (_, date) = headers.find(|(name, _)| *name == "x-amz-date").unwrap();
    (date.to_owned(), signature)
}

fn attestor(world: &World) -> Attestor {
    let account = AttestAccount {
        name: "main".into(),
        account_id: ACCOUNT.to_owned(),
        region: REGION.to_owned(),
        instance_profile_role: Some("muster-runner".to_owned()),
        check_peer_ip: false,
    };
    Attestor::new(AttestSettings {
        endpoint: Some(world.moto.url().parse().unwrap()),
        ..AttestSettings::new(vec![account])
    })
    .unwrap()
}

/// What the attestor says to keys, a certificate request and a nonce.
async fn said(
    attestor: &Attestor,
    keys: &Keys,
    (date, signature): &(String, String),
    (csr_der, nonce): (&[u8], &[u8]),
) -> Result<(String, Role), AttestError> {
    let proof = Proof {
        evidence: Evidence {
            access_key_id: &keys.id,
            amz_date: date,
            region: REGION,
            session_token: &keys.token,
            signature,
        },
        nonce,
        audience: COORDINATOR,
        csr_der,
    };
    let attested = attestor.attest(&proof, Timestamp::now()).await?;
    Ok((attested.instance.to_string(), attested.role))
}

#[tokio::test]
async fn moto_accepts_the_signature_of_an_instance_and_no_other() {
    let world = World::start().await;
    let attestor = attestor(&world);
    let keys = world.made.sessions["instance"].clone();
    let good = signed(&keys);
    let whole = (CSR, &NONCE[..]);

    let accepted = said(&attestor, &keys, &good, whole).await.unwrap();
    let role = Role::InstanceProfile("muster-runner".to_owned());
    assert_eq!(accepted, (INSTANCE.to_owned(), role));

    // The same signature for another certificate request, another nonce, by other keys.
    let mut other_nonce = NONCE;
    other_nonce[31] ^= 1;
    let wrong_secret = Keys {
        secret: "wrong".to_owned(),
        ..keys.clone()
    };
    let (date, signature) = &good;
    let first = if signature.starts_with('0') { "1" } else { "0" };
    let altered = (date.clone(), format!("{first}{}", &signature[1..]));
    for (what, signed, made_for) in [
        (
            "another request",
            &good,
            (&b"another request"[..], &NONCE[..]),
        ),
        ("another nonce", &good, (CSR, &other_nonce[..])),
        ("another signature", &altered, whole),
        ("a wrong secret", &signed(&wrong_secret), whole),
    ] {
        let refused = said(&attestor, &keys, signed, made_for).await.unwrap_err();
        let AttestError::Refused(reason) = refused else {
            panic!("{what}: {refused:?}");
        };
        assert!(reason.contains("SignatureDoesNotMatch"), "{what}: {reason}");
    }
    // The token of other keys.
    let token = world.made.sessions["coordinator"].token.clone();
    let mixed = Keys { token, ..keys };
    let refused = said(&attestor, &mixed, &good, whole).await.unwrap_err();
    // STS says the same of a key that it doesn't know yet, so this may be asked again.
    let AttestError::Unavailable(reason) = refused else {
        panic!("{refused:?}");
    };
    assert!(reason.contains("InvalidClientTokenId"), "{reason}");
}

#[tokio::test]
async fn a_session_that_is_no_instance_proves_nothing() {
    let world = World::start().await;
    let attestor = attestor(&world);
    let keys = &world.made.sessions["coordinator"];
    let refused = said(&attestor, keys, &signed(keys), (CSR, &NONCE[..])).await;
    let Err(AttestError::Refused(reason)) = refused else {
        panic!("{refused:?}");
    };
    assert!(reason.contains("not named after an instance"), "{reason}");
}
