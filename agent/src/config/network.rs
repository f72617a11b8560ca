//! What the agent needs to face the network.

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use secrecy::SecretString;
use url::Url;

use super::fields::Fields;
use crate::imds::{self, Configured};

/// The network's part of the configuration, checked.
#[derive(Debug)]
pub(crate) struct NetworkConfig {
    /// Where to enrol.
    pub(crate) enroll: Remote,
    /// Where to hold the session.
    pub(crate) agents: Remote,
    /// The authorities that the coordinator's certificate may come from. At least one.
    pub(crate) trust_anchors: Vec<CertificateDer<'static>>,
    /// The secret that proves which launch this is; it works once.
    pub(crate) join_token: SecretString,
    /// The base of the instance metadata service, if there is one. Scheme http, no final slash.
    pub(crate) metadata_endpoint: Option<Url>,
    /// The launch, for logs.
    pub(crate) launch: String,
    /// The instance that this must be, if the provider knows it.
    pub(crate) instance_id: Option<String>,
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
        let join_token = fields.secret("join_token");
        let metadata_endpoint = metadata_endpoint(fields);
        let launch = fields.string("launch");
        let instance_id = fields.optional_string("instance_id");
        Some(Self {
            enroll: enroll?,
            agents: agents?,
            trust_anchors: trust_anchors?,
            join_token: join_token?,
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

/// The service that the document names, or the environment (`AWS_EC2_METADATA_SERVICE_ENDPOINT`).
fn metadata_endpoint(fields: &mut Fields) -> Option<Url> {
    let resolved = match fields.optional_string(Configured::FIELD) {
        Some(text) => Configured::parse(&text),
        None => Ok(Configured::Unset),
    }
    .and_then(|configured| imds::resolve(&configured, |name| std::env::var(name).ok()));
    match resolved {
        Ok(url) => url,
        Err(error) => {
            fields.problems().push(error.to_string());
            None
        }
    }
}
