//! What the agent needs to face the network.

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use secrecy::SecretString;
use url::Url;

use super::fields::Fields;
use crate::imds::{self, Configured};

const ATTESTATION: &str = "attestation";
const JOIN_TOKEN: &str = "join_token";
const ROLE: &str = "instance_profile_role";

/// The network's part of the configuration, checked.
#[derive(Debug)]
pub(crate) struct NetworkConfig {
    /// Where to enrol.
    pub(crate) enroll: Remote,
    /// Where to hold the session.
    pub(crate) agents: Remote,
    /// The authorities that the coordinator's certificate may come from. At least one.
    pub(crate) trust_anchors: Vec<CertificateDer<'static>>,
    /// How this machine proves which launch it is.
    pub(crate) attestation: Attestation,
    /// The base of the instance metadata service, if there is one. Scheme http, no final slash.
    pub(crate) metadata_endpoint: Option<Url>,
    /// The launch, for logs. An image that serves any launch doesn't name one.
    pub(crate) launch: Option<String>,
    /// The instance that this must be, if the provider knows it.
    pub(crate) instance_id: Option<String>,
}

/// How this machine proves which launch it is.
#[derive(Debug)]
pub(crate) enum Attestation {
    /// By a secret that works once: the local provider, tests, machines outside AWS.
    JoinToken(SecretString),
    /// By a request to STS that it signs with credentials of its own: EC2.
    AwsSts(CredentialSource),
}

/// Where an instance has credentials of its own from.
#[derive(Debug)]
pub(crate) struct CredentialSource {
    /// The base of the metadata service. Scheme http, no final slash.
    pub(crate) metadata: Url,
    /// The role of the instance profile, to sign with where there is no instance identity role.
    pub(crate) instance_profile_role: Option<String>,
}

/// One listener of the coordinator.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    /// Scheme https, a host, a port.
    pub(crate) url: Url,
    /// The name that its certificate must carry.
    pub(crate) server_name: ServerName<'static>,
}

impl NetworkConfig {
    /// Takes these fields, all of them before it gives up.
    pub(super) fn read(fields: &mut Fields) -> Option<Self> {
        let server_name = fields.optional_string("server_name");
        let enroll = remote(fields, "enroll_url", server_name.as_deref());
        let agents = remote(fields, "agents_url", server_name.as_deref());
        let trust_anchors = trust_anchors(fields);
        let by_sts = fields.optional_string(ATTESTATION);
        let metadata_endpoint = metadata_endpoint(fields, by_sts.as_deref() == Some("aws-sts"));
        let attestation = match by_sts.as_deref() {
            Some("aws-sts") => aws_sts(fields, metadata_endpoint.as_ref()),
            Some("join-token") => join_token(fields),
            None if fields.has(JOIN_TOKEN) => join_token(fields),
            None => {
                fields.take(ROLE);
                fields.missing(ATTESTATION, "\"aws-sts\", or else a join_token");
                None
            }
            Some(other) => {
                fields.take(JOIN_TOKEN);
                fields.take(ROLE);
                let expected = "\"aws-sts\" or \"join-token\"";
                fields.problem(ATTESTATION, &format!("{other:?}"), expected);
                None
            }
        };
        let launch = match &attestation {
            Some(Attestation::AwsSts(_)) => Some(fields.optional_string("launch")),
            _ => fields.string("launch").map(Some),
        };
        let instance_id = fields.optional_string("instance_id");
        Some(Self {
            enroll: enroll?,
            agents: agents?,
            trust_anchors: trust_anchors?,
            attestation: attestation?,
            metadata_endpoint,
            launch: launch?,
            instance_id,
        })
    }
}

fn remote(fields: &mut Fields, name: &str, server_name: Option<&str>) -> Option<Remote> {
    const EXPECTED: &str = "https://host:port";
    let text = fields.string(name)?;
    let shown = format!("{text:?}");
    let url = match Url::parse(&text) {
        Ok(url) => url,
        Err(e) => {
            fields.problem(name, &format!("{shown} is not a URL ({e})"), EXPECTED);
            return None;
        }
    };
    if url.scheme() != "https" || url.path() != "/" || url.query().is_some() {
        fields.problem(name, &shown, EXPECTED);
        return None;
    }
    // `host_str` puts IPv6 addresses into brackets, which a server name doesn't have.
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    let wanted = server_name.unwrap_or(&host).to_owned();
    match ServerName::try_from(wanted.clone()) {
        Ok(server_name) => Some(Remote { url, server_name }),
        Err(_) => {
            let field = if server_name.is_some() {
                "server_name"
            } else {
                name
            };
            fields.problem(field, &format!("{wanted:?}"), "a DNS name or an IP address");
            None
        }
    }
}

fn trust_anchors(fields: &mut Fields) -> Option<Vec<CertificateDer<'static>>> {
    const NAME: &str = "trust_anchors_pem";
    const EXPECTED: &str = "one or more certificates as PEM text";
    let text = fields.string(NAME)?;
    match CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>() {
        Ok(anchors) if !anchors.is_empty() => Some(anchors),
        Ok(_) => {
            fields.problem(NAME, "no certificate in it", EXPECTED);
            None
        }
        Err(e) => {
            fields.problem(NAME, &format!("not PEM ({e})"), EXPECTED);
            None
        }
    }
}

fn join_token(fields: &mut Fields) -> Option<Attestation> {
    if fields.take(ROLE).is_some() {
        let expected = "none: it goes with the attestation \"aws-sts\"";
        fields.problem(ROLE, "given beside a join_token", expected);
    }
    fields.secret(JOIN_TOKEN).map(Attestation::JoinToken)
}

fn aws_sts(fields: &mut Fields, metadata: Option<&Url>) -> Option<Attestation> {
    // The value isn't shown: it is a secret.
    if fields.take(JOIN_TOKEN).is_some() {
        let expected = "one of join_token and attestation \"aws-sts\"";
        fields.problem(JOIN_TOKEN, "given beside attestation \"aws-sts\"", expected);
    }
    let role = fields.optional_string(ROLE);
    if let Some(role) = &role
        && !is_role_name(role)
    {
        let expected = "the name of an IAM role, without its path";
        fields.problem(ROLE, &format!("{role:?}"), expected);
    }
    Some(Attestation::AwsSts(CredentialSource {
        metadata: metadata?.clone(),
        instance_profile_role: role,
    }))
}

/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateRole.html>, `RoleName`. It becomes
/// part of a path, which the dots alone could leave.
fn is_role_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    text.len() <= 64 && text.bytes().all(allowed) && text != "." && text != ".."
}

/// The service that the document names, or the environment (`AWS_EC2_METADATA_SERVICE_ENDPOINT`). If it
/// is `needed`, this is EC2, and EC2's own is meant where neither names one.
fn metadata_endpoint(fields: &mut Fields, needed: bool) -> Option<Url> {
    let unnamed = if needed {
        Configured::Default
    } else {
        Configured::Unset
    };
    let resolved = match fields.optional_string(Configured::FIELD) {
        Some(text) => Configured::parse(&text),
        None => Ok(unnamed),
    }
    .and_then(|configured| imds::resolve(&configured, |name| std::env::var(name).ok()));
    match resolved {
        Ok(None) if needed => {
            let expected = "a service: attestation \"aws-sts\" needs it";
            let off = "switched off by AWS_EC2_METADATA_DISABLED";
            fields.problem(Configured::FIELD, off, expected);
            None
        }
        Ok(url) => url,
        Err(error) => {
            fields.problems().push(error.to_string());
            None
        }
    }
}
