//! The two messages of a machine, checked before anything is looked up or used.

use muster_proto::v1::enroll_proof::Evidence;
use muster_proto::v1::{AwsStsEvidence, EnrollBegin, EnrollProof};
use tonic::Status;

use super::NONCE_BYTES;
use crate::identity::csr::RequestedKey;
use crate::identity::join_token::TOKEN_CHARS;

/// Most characters of the version that an agent says it has.
const MAX_VERSION: usize = 64;

/// What a machine proves itself with.
#[derive(Debug)]
pub(super) enum Means<'a> {
    JoinToken(&'a str),
    AwsSts(&'a AwsStsEvidence),
}

pub(super) fn check_begin(begin: &EnrollBegin) -> Result<(), Status> {
    let version = &begin.agent_version;
    if version.len() > MAX_VERSION || !version.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Status::invalid_argument(format!(
            "agent_version: expected up to {MAX_VERSION} printable characters"
        )));
    }
    Ok(())
}

/// The public key and the means of a proof that is well-formed and answers this challenge.
pub(super) fn check_proof<'a>(
    proof: &'a EnrollProof,
    nonce: &[u8],
) -> Result<(RequestedKey, Means<'a>), Status> {
    if proof.nonce.len() != NONCE_BYTES {
        return Err(Status::invalid_argument(format!(
            "nonce: expected {NONCE_BYTES} bytes, not {}",
            proof.nonce.len()
        )));
    }
    if proof.nonce != nonce {
        return Err(Status::unauthenticated(
            "the proof answers another challenge",
        ));
    }
    let means = match &proof.evidence {
        Some(Evidence::JoinToken(evidence)) if evidence.token.len() == TOKEN_CHARS => {
            Means::JoinToken(&evidence.token)
        }
        Some(Evidence::JoinToken(_)) => {
            return Err(Status::unauthenticated("there is no such join token"));
        }
        Some(Evidence::AwsSts(evidence)) => Means::AwsSts(evidence),
        None => {
            return Err(Status::invalid_argument(
                "evidence: expected a join_token or aws_sts; no other kind is known here",
            ));
        }
    };
    let key = RequestedKey::from_csr(&proof.csr_der)
        .map_err(|error| Status::invalid_argument(format!("csr_der: {error}")))?;
    Ok((key, means))
}

#[cfg(test)]
mod tests {
    use muster_proto::v1::JoinTokenEvidence;
    use rcgen::{CertificateParams, KeyPair};
    use rstest::rstest;
    use tonic::Code;

    use super::*;

    const NONCE: [u8; NONCE_BYTES] = [7; NONCE_BYTES];

    fn proof() -> EnrollProof {
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        EnrollProof {
            csr_der: request.der().to_vec(),
            nonce: NONCE.to_vec(),
            evidence: Some(Evidence::JoinToken(JoinTokenEvidence {
                token: "t".repeat(TOKEN_CHARS),
            })),
        }
    }

    #[test]
    fn a_good_proof_passes() {
        let proof = proof();
        let (_, means) = check_proof(&proof, &NONCE).unwrap();
        assert!(matches!(means, Means::JoinToken(token) if token.len() == TOKEN_CHARS));
    }

    #[rstest]
    #[case::short_nonce(|proof: &mut EnrollProof| { proof.nonce.pop(); }, Code::InvalidArgument)]
    #[case::no_nonce(|proof: &mut EnrollProof| proof.nonce.clear(), Code::InvalidArgument)]
    #[case::old_nonce(|proof: &mut EnrollProof| proof.nonce[31] = 8, Code::Unauthenticated)]
    #[case::no_evidence(|proof: &mut EnrollProof| proof.evidence = None, Code::InvalidArgument)]
    #[case::no_csr(|proof: &mut EnrollProof| proof.csr_der.clear(), Code::InvalidArgument)]
    #[case::large_csr(|proof: &mut EnrollProof| proof.csr_der = vec![0x30; 8192], Code::InvalidArgument)]
    #[case::long_token(|proof: &mut EnrollProof| {
        let token = "t".repeat(10_000);
        proof.evidence = Some(Evidence::JoinToken(JoinTokenEvidence { token }));
    }, Code::Unauthenticated)]
    fn a_bad_proof_is_refused_before_the_token_is_used(
        #[case] damage: fn(&mut EnrollProof),
        #[case] code: Code,
    ) {
        let mut proof = proof();
        damage(&mut proof);
        let refused = check_proof(&proof, &NONCE).unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }

    #[rstest]
    #[case("", true)]
    #[case("0.1.0", true)]
    #[case("0.1.0\nforged log line", false)]
    #[case(
        "0123456789012345678901234567890123456789012345678901234567890123456789",
        false
    )]
    fn an_agent_version_is_short_and_printable(#[case] version: &str, #[case] accepted: bool) {
        let begin = EnrollBegin {
            agent_version: version.to_owned(),
        };
        assert_eq!(check_begin(&begin).is_ok(), accepted);
    }
}
