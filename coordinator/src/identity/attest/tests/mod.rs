//! Proof by STS against a fake that verifies signatures, and against one that doesn't keep to any form.

pub(crate) mod fake;
mod published;
mod request;
mod sts;

use aws_lc_rs::digest;
use jiff::Timestamp;
use muster_proto::sts as form;

use self::fake::{Credentials, FakeSts, sign};
use super::{AttestAccount, AttestError, AttestSettings, Attested, Attestor, Evidence, Proof};

pub(crate) const REGION: &str = "eu-west-1";
pub(crate) const ACCOUNT: &str = "123456789012";
pub(crate) const INSTANCE: &str = "i-0123456789abcdef0";
const AUDIENCE: &str = "muster.test";
const NONCE: [u8; 32] = [7; 32];
const CSR: &[u8] = b"a certificate request";

/// One entry of the configuration.
pub(crate) fn account(name: &str, account_id: &str) -> AttestAccount {
    AttestAccount {
        name: name.into(),
        account_id: account_id.to_owned(),
        region: REGION.to_owned(),
        instance_profile_role: None,
        check_peer_ip: false,
    }
}

/// The fields that an instance sends, owned.
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    pub(crate) access_key_id: String,
    pub(crate) amz_date: String,
    pub(crate) region: String,
    pub(crate) session_token: String,
    pub(crate) signature: String,
}

impl Fields {
    pub(crate) fn evidence(&self) -> Evidence<'_> {
        Evidence {
            access_key_id: &self.access_key_id,
            amz_date: &self.amz_date,
            region: &self.region,
            session_token: &self.session_token,
            signature: &self.signature,
        }
    }
}

/// What an honest agent would send.
pub(crate) fn signed(
    who: &Credentials,
    audience: &str,
    nonce: &[u8],
    csr: &[u8],
    at: Timestamp,
) -> Fields {
    signed_in(REGION, who, audience, nonce, csr, at)
}

fn signed_in(
    region: &str,
    who: &Credentials,
    audience: &str,
    nonce: &[u8],
    csr: &[u8],
    at: Timestamp,
) -> Fields {
    let hash = digest::digest(&digest::SHA256, csr);
    let challenge = form::challenge(audience, nonce, hash.as_ref());
    let amz_date = at.strftime("%Y%m%dT%H%M%SZ").to_string();
    let host = form::host(region);
    let headers = [
        ("accept", form::ACCEPT),
        ("content-type", form::CONTENT_TYPE),
        ("host", host.as_str()),
        ("x-amz-date", amz_date.as_str()),
        ("x-amz-security-token", who.token.as_str()),
        (form::CHALLENGE_HEADER, challenge.as_str()),
    ];
    let line = (form::METHOD, form::PATH);
    let signature = sign(&who.secret, region, line, &headers, form::BODY.as_bytes());
    Fields {
        access_key_id: who.access_key_id.clone(),
        amz_date,
        region: region.to_owned(),
        session_token: who.token.clone(),
        signature,
    }
}

/// An attestor that asks a fake.
struct World {
    sts: FakeSts,
    attestor: Attestor,
    who: Credentials,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// `change` may change the settings.
    async fn with(change: impl FnOnce(&mut AttestSettings)) -> Self {
        let sts = FakeSts::start().await;
        let who = Credentials::of_instance(ACCOUNT, INSTANCE);
        sts.know(&who);
        let mut settings = AttestSettings::new(vec![account("main", ACCOUNT)]);
        settings.endpoint = Some(sts.url.clone());
        change(&mut settings);
        let attestor = Attestor::new(settings).unwrap();
        Self { sts, attestor, who }
    }

    fn fields(&self) -> Fields {
        signed(&self.who, AUDIENCE, &NONCE, CSR, Timestamp::now())
    }

    async fn attest(&self, fields: &Fields) -> Result<Attested<'_>, AttestError> {
        let proof = Proof {
            evidence: fields.evidence(),
            nonce: &NONCE,
            audience: AUDIENCE,
            csr_der: CSR,
        };
        self.attestor.attest(&proof, Timestamp::now()).await
    }
}
