//! The tables of the file, but for the pools.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls_pki_types::ServerName;
use tracing::level_filters::LevelFilter;
use url::Url;

use super::document::{Section, Value, all};
use super::values::{address, duration, http_url, is_word, path, secret_path};
use super::{
    CaSource, CoordinatorSettings, IdentitySettings, ListenSettings, LocalSettings, SecretSource,
    SecretsSettings, TelemetrySettings,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const TENTH: Duration = Duration::from_millis(100);

pub(super) fn coordinator(mut section: Section<'_>, base: &Path) -> Option<CoordinatorSettings> {
    let name = section.default("name", "muster".to_owned(), |value| {
        word(value, "a name of letters, digits, - and _", |c| {
            c.is_ascii_alphanumeric() || "-_".contains(c)
        })
    });
    let trust_domain = section.default("trust_domain", "muster.internal".to_owned(), |value| {
        // https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md, section 2.1
        word(value, "a trust domain of a-z, 0-9, ., - and _", |c| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c)
        })
    });
    let data_dir = section.default("data_dir", PathBuf::from("/var/lib/muster"), path(base));
    let heartbeat = section.default(
        "heartbeat_interval",
        5 * SECOND,
        duration(TENTH, 5 * MINUTE),
    );
    let development = section.default("development", false, Value::boolean);
    section.finish();
    Some(CoordinatorSettings {
        name: name?,
        trust_domain: trust_domain?,
        data_dir: data_dir?,
        heartbeat_interval: heartbeat?,
        development: development?,
    })
}

pub(super) fn word(value: &Value<'_>, expected: &str, allowed: fn(char) -> bool) -> Option<String> {
    match value.text()? {
        text if is_word(text, 255, allowed) => Some(text.to_owned()),
        _ => value.refused(format_args!("is not {expected}")),
    }
}

pub(super) fn listen(mut section: Section<'_>, base: &Path) -> Option<ListenSettings> {
    let mut taken = BTreeSet::new();
    let bind = |section: &mut Section<'_>, key, port: u16| {
        let default = SocketAddr::from(([127, 0, 0, 1], port));
        section.default(key, default, address)
    };
    let web = bind(&mut section, "web", 7440);
    let enroll = bind(&mut section, "enroll", 7441);
    let agents = bind(&mut section, "agents", 7442);
    let operators = bind(&mut section, "operators", 7443);
    let addresses = [
        ("web", web),
        ("enroll", enroll),
        ("agents", agents),
        ("operators", operators),
    ];
    for (key, address) in addresses {
        if let Some(address) = address
            && address.port() != 0
            && !taken.insert(address)
        {
            section.refuse(format_args!(
                "{key}: {address} is the address of another listener too"
            ));
        }
    }
    let names = section.default("server_names", vec!["localhost".to_owned()], server_names);
    let advertise = section.optional("advertise_host", |value| server_name(value));
    let ports_file = section.optional("ports_file", path(base));
    section.finish();
    let names = names?;
    let first = names.first().cloned();
    Some(ListenSettings {
        web: web?,
        enroll: enroll?,
        agents: agents?,
        operators: operators?,
        advertise_host: advertise?.or(first)?,
        server_names: names,
        ports_file: ports_file?,
    })
}

fn server_names(value: &Value<'_>) -> Option<Vec<String>> {
    let names = all(&value.list()?, |value| server_name(value))?;
    if names.is_empty() {
        return value.refused("has no name; at least one is needed");
    }
    Some(names)
}

fn server_name(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    match ServerName::try_from(text) {
        Ok(_) => Some(text.to_owned()),
        Err(_) => value.refused("is not a host name or an IP address"),
    }
}

/// Where a secret is: in a file by the first key, or in a parameter by the second.
#[expect(clippy::option_option, reason = "absent is not wrong")]
pub(super) fn source(
    section: &mut Section<'_>,
    base: &Path,
    (file_key, parameter_key): (&'static str, &'static str),
) -> Option<Option<SecretSource>> {
    let file = section.optional(file_key, secret_path(base));
    let named = section.optional(parameter_key, parameter);
    match (file?, named?) {
        (Some(_), Some(_)) => {
            section.refuse(format_args!(
                "{file_key} and {parameter_key} are both there; one is needed"
            ));
            None
        }
        (Some(path), None) => Some(Some(SecretSource::File(path))),
        (None, Some(name)) => Some(Some(SecretSource::Parameter(name))),
        (None, None) => Some(None),
    }
}

/// The name of an SSM parameter that holds a secret; what is none may be the secret, and is not repeated
/// (<https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html>).
pub(super) fn parameter(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if is_word(text, 255, |c| {
        c.is_ascii_alphanumeric() || "/._-".contains(c)
    }) {
        return Some(text.to_owned());
    }
    value.report("is not the name of an SSM parameter; what is secret is its value");
    None
}

pub(super) fn secrets(
    mut section: Section<'_>,
    development: bool,
    named: Option<&str>,
) -> Option<SecretsSettings> {
    let region = section.optional("region", |value| {
        word(value, "a region such as \"eu-west-1\"", |c| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
        })
    });
    let endpoint = section.optional("endpoint_url", |value| api_url(value, development));
    let reload = section.default("reload_interval", MINUTE, duration(TENTH, HOUR));
    if let (Some(None), Some(name)) = (&region, named) {
        section.refuse(format_args!(
            "region is missing; parameter {name} is in one"
        ));
    }
    section.finish();
    Some(SecretsSettings {
        region: region?,
        endpoint: endpoint?,
        reload_interval: reload?,
    })
}

pub(super) fn api_url(value: &Value<'_>, development: bool) -> Option<Url> {
    let text = value.text()?;
    let host_is_here = |url: &Url| match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    let plain = Url::parse(text)
        .is_ok_and(|url| url.scheme() == "http" && !development && !host_is_here(&url));
    if plain {
        return value.refused("sends tokens without TLS; https:// is needed");
    }
    http_url(value)
}

pub(super) fn identity(
    mut section: Section<'_>,
    base: &Path,
    development: bool,
) -> Option<IdentitySettings> {
    let certificate = source(
        &mut section,
        base,
        ("ca_certificate_file", "ca_certificate_parameter"),
    );
    let key = source(&mut section, base, ("ca_key_file", "ca_key_parameter"));
    let least = if development { SECOND } else { 5 * MINUTE };
    let agent = section.default("agent_certificate_ttl", HOUR, duration(least, HOUR));
    let operator = section.default(
        "operator_certificate_ttl",
        12 * HOUR,
        duration(least, 12 * HOUR),
    );
    let ca = match (certificate?, key?) {
        (Some(certificate), Some(key)) => Some(CaSource { certificate, key }),
        (None, None) => None,
        _ => {
            section
                .refuse("the certificate and the key of the authority go together; one is missing");
            None
        }
    };
    section.finish();
    Some(IdentitySettings {
        ca,
        agent_certificate_ttl: agent?,
        operator_certificate_ttl: operator?,
    })
}

pub(super) fn local(
    mut section: Section<'_>,
    base: &Path,
    data_dir: Option<&Path>,
) -> Option<LocalSettings> {
    let agent_binary = match section.optional("agent_binary", path(base)) {
        Some(None) => beside_this_program("muster-agent").or_else(|| {
            section.refuse("agent_binary is missing, and this program's directory is not known");
            None
        }),
        Some(given) => given,
        None => None,
    };
    let runner_dir = section.required("runner_dir", path(base));
    let instances = section.optional("instances_dir", path(base));
    let metadata = section.optional("metadata_endpoint", metadata_endpoint);
    let sweep = section.default("sweep_interval", 2 * SECOND, duration(TENTH, 10 * MINUTE));
    let environment = section.default("environment", BTreeMap::new(), environment);
    section.finish();
    Some(LocalSettings {
        agent_binary: agent_binary?,
        runner_dir: runner_dir?,
        instances_dir: match instances? {
            Some(given) => given,
            None => data_dir?.join("instances"),
        },
        metadata_endpoint: metadata?,
        sweep_interval: sweep?,
        environment: environment?,
    })
}

fn beside_this_program(name: &str) -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    Some(program.parent()?.join(name))
}

fn metadata_endpoint(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let example = text.replace("{instance_id}", "i-0123456789abcdef0");
    let good = Url::parse(&example)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        && !example.contains(['{', '}']);
    if good {
        return Some(text.to_owned());
    }
    value.refused("is not an http:// URL, with {instance_id} where the instance's id goes")
}

fn environment(value: &Value<'_>) -> Option<BTreeMap<String, String>> {
    let section = value.section();
    let mut variables = Some(BTreeMap::new());
    for (name, _, value) in section.entries() {
        let text = value.text();
        let named = is_word(name, 255, |c| c.is_ascii_alphanumeric() || c == '_')
            && !name.starts_with(|c: char| c.is_ascii_digit());
        if !named {
            value.report("is not the name of a variable");
        }
        if text.is_some_and(|text| text.contains('\0')) {
            value.report("has a zero byte, which no variable can hold");
        }
        match (text, &mut variables) {
            (Some(text), Some(variables)) => {
                variables.insert(name.to_owned(), text.to_owned());
            }
            _ => variables = None,
        }
    }
    variables
}

pub(super) fn telemetry(mut section: Section<'_>) -> Option<TelemetrySettings> {
    let log_level = section.default("log_level", LevelFilter::INFO, |value| {
        match value.text()? {
            "off" => Some(LevelFilter::OFF),
            "error" => Some(LevelFilter::ERROR),
            "warn" => Some(LevelFilter::WARN),
            "info" => Some(LevelFilter::INFO),
            "debug" => Some(LevelFilter::DEBUG),
            "trace" => Some(LevelFilter::TRACE),
            _ => value.refused("is not one of off, error, warn, info, debug and trace"),
        }
    });
    let emf = section.default("emf", true, Value::boolean);
    // https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html and
    // API_PutMetricData.html: namespaces that begin with AWS/ are Amazon's.
    let namespace = section.default("emf_namespace", "Muster".to_owned(), |value| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || " ._#:/-".contains(c);
        match value.text()? {
            text if is_word(text, 255, allowed) && !text.starts_with("AWS/") => {
                Some(text.to_owned())
            }
            _ => value.refused("is not a CloudWatch namespace of one's own"),
        }
    });
    let interval = section.default("emf_interval", MINUTE, duration(SECOND, HOUR));
    section.finish();
    Some(TelemetrySettings {
        log_level: log_level?,
        emf: emf?,
        emf_namespace: namespace?,
        emf_interval: interval?,
    })
}
