//! The `muster.v1` protocol: what agents and operators say to the coordinator.
//!
//! The documentation of each message and field is in `proto/muster/v1/*.proto`.

pub mod certificate;
pub mod codec;
pub mod sts;

use std::fmt;

/// Package `muster.v1`.
pub mod v1 {
    tonic::include_proto!("muster.v1");

    /// The encoded `FileDescriptorSet` of the package and its imports, for server reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/muster.v1.binpb"));
}

// These carry secrets, so their Debug shows everything but those.

impl fmt::Debug for v1::Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assignment")
            .field("runner_name", &self.runner_name)
            .field("encoded_jit_config", &"[redacted]")
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::JoinTokenEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinTokenEvidence([redacted])")
    }
}

impl fmt::Debug for v1::AwsStsEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsStsEvidence")
            .field("region", &self.region)
            .field("amz_date", &self.amz_date)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::v1;

    #[test]
    fn debug_of_a_secret_message_shows_no_secret() {
        let assignment = v1::Assignment {
            runner_name: "muster-a".into(),
            encoded_jit_config: "c2VjcmV0".into(),
        };
        let wrapped = v1::SessionResponse {
            message: Some(v1::session_response::Message::Assignment(assignment)),
        };
        assert!(!format!("{wrapped:?}").contains("c2VjcmV0"));
        let evidence = v1::JoinTokenEvidence {
            token: "c2VjcmV0".into(),
        };
        assert!(!format!("{evidence:?}").contains("c2VjcmV0"));
        let evidence = v1::AwsStsEvidence {
            session_token: "c2VjcmV0".into(),
            signature: "c2VjcmV0".into(),
            ..v1::AwsStsEvidence::default()
        };
        assert!(!format!("{evidence:?}").contains("c2VjcmV0"));
    }
}
