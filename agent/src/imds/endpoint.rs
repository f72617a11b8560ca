//! Where the metadata service is: by the configuration, else by the environment that AWS's own tools read.
//!
//! <https://docs.aws.amazon.com/sdkref/latest/guide/feature-ec2-instance-metadata.html>

use thiserror::Error;
use url::Url;

/// An address to use in place of EC2's own.
const ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
/// Which of EC2's own addresses to use: `IPv4` or `IPv6`.
const MODE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE";
/// `true`: don't ask the service for anything.
const DISABLED: &str = "AWS_EC2_METADATA_DISABLED";
const EC2_IPV4: &str = "http://169.254.169.254";
/// On Nitro instances, where the launch switched it on (`HttpProtocolIpv6`).
const EC2_IPV6: &str = "http://[fd00:ec2::254]";
const URL_EXPECTED: &str = "http://host[:port][/path]";

/// What the configuration says of the metadata service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Configured {
    /// Nothing. There is a service only if the environment names one.
    #[default]
    Unset,
    /// `default`: EC2's own, unless the environment names another.
    Default,
    /// This one, whatever the environment says.
    At(Url),
}

/// Neither the configuration nor the environment may name a service like this.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("{name}: {value:?}; expected {expected}")]
pub(crate) struct EndpointError {
    /// The variable, or the field.
    name: &'static str,
    value: String,
    expected: &'static str,
}

impl Configured {
    /// Name of the field, for messages.
    pub(crate) const FIELD: &'static str = "metadata_endpoint";
    /// What the field may hold, for messages.
    pub(crate) const EXPECTED: &'static str = "\"default\" or http://host[:port][/path]";

    /// Reads the field.
    pub(crate) fn parse(text: &str) -> Result<Self, EndpointError> {
        if text == "default" {
            return Ok(Self::Default);
        }
        parse_url(text).map(Self::At).ok_or_else(|| EndpointError {
            name: Self::FIELD,
            value: text.to_owned(),
            expected: Self::EXPECTED,
        })
    }
}

/// The base of the service to use, if there is one. `env` looks up a variable.
pub(crate) fn resolve(
    configured: &Configured,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Option<Url>, EndpointError> {
    let variable = |name| env(name).filter(|value| !value.is_empty());
    let refuse = |name, value, expected| EndpointError {
        name,
        value,
        expected,
    };
    if let Configured::At(url) = configured {
        return Ok(Some(url.clone()));
    }
    if variable(DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    if let Some(text) = variable(ENDPOINT) {
        return match parse_url(&text) {
            Some(url) => Ok(Some(url)),
            None => Err(refuse(ENDPOINT, text, URL_EXPECTED)),
        };
    }
    if *configured == Configured::Unset {
        return Ok(None);
    }
    let own = match variable(MODE) {
        None => EC2_IPV4,
        Some(mode) if mode.eq_ignore_ascii_case("ipv4") => EC2_IPV4,
        Some(mode) if mode.eq_ignore_ascii_case("ipv6") => EC2_IPV6,
        Some(mode) => return Err(refuse(MODE, mode, "IPv4 or IPv6")),
    };
    Ok(parse_url(own))
}

/// A base to which paths can be added.
fn parse_url(text: &str) -> Option<Url> {
    let url = Url::parse(text.trim_end_matches('/')).ok()?;
    let plain = url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    (url.scheme() == "http" && url.has_host() && plain).then_some(url)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Configured, resolve};

    /// What comes of a field and an environment, as text.
    fn resolved(field: Option<&str>, environment: &[(&str, &str)]) -> String {
        let configured = match field.map(Configured::parse) {
            None => Configured::Unset,
            Some(Ok(configured)) => configured,
            Some(Err(error)) => return error.to_string(),
        };
        let env = |name: &str| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        match resolve(&configured, env) {
            Ok(Some(url)) => url.to_string(),
            Ok(None) => "none".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    const ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
    const MODE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE";
    const DISABLED: &str = "AWS_EC2_METADATA_DISABLED";

    #[rstest]
    // Off EC2 there is no service, unless somebody names one.
    #[case(None, &[], "none")]
    #[case(None, &[(MODE, "IPv6")], "none")]
    #[case(None, &[(ENDPOINT, "http://127.0.0.1:1338/")], "http://127.0.0.1:1338/")]
    #[case(None, &[(ENDPOINT, "")], "none")]
    #[case(None, &[(ENDPOINT, "http://h"), (DISABLED, "true")], "none")]
    // On EC2.
    #[case(Some("default"), &[], "http://169.254.169.254/")]
    #[case(Some("default"), &[(MODE, "IPv4")], "http://169.254.169.254/")]
    #[case(Some("default"), &[(MODE, "ipv6")], "http://[fd00:ec2::254]/")]
    #[case(Some("default"), &[(MODE, "")], "http://169.254.169.254/")]
    #[case(Some("default"), &[(MODE, "IPv6"), (ENDPOINT, "http://h:1/p/")], "http://h:1/p")]
    #[case(Some("default"), &[(DISABLED, "TRUE")], "none")]
    #[case(Some("default"), &[(DISABLED, "false")], "http://169.254.169.254/")]
    // A service that is configured is the one.
    #[case(Some("http://h:2/i-1/"), &[(ENDPOINT, "http://h:1")], "http://h:2/i-1")]
    #[case(Some("http://[::1]:2"), &[(ENDPOINT, "nonsense")], "http://[::1]:2/")]
    #[case(Some("http://h"), &[(DISABLED, "true")], "http://h/")]
    fn the_configuration_comes_before_the_environment(
        #[case] field: Option<&str>,
        #[case] environment: &[(&str, &str)],
        #[case] expected: &str,
    ) {
        assert_eq!(resolved(field, environment), expected);
    }

    #[rstest]
    #[case("169.254.169.254")]
    #[case("https://h")]
    #[case("http://")]
    #[case("http://h?x=y")]
    #[case("http://h#f")]
    #[case("http://u@h")]
    #[case("Default")]
    fn an_address_that_cannot_be_used_is_named(#[case] text: &str) {
        assert_eq!(
            resolved(Some(text), &[]),
            format!(
                "metadata_endpoint: {text:?}; expected \"default\" or http://host[:port][/path]"
            )
        );
        assert_eq!(
            resolved(Some("default"), &[(ENDPOINT, text)]),
            format!(
                "AWS_EC2_METADATA_SERVICE_ENDPOINT: {text:?}; expected http://host[:port][/path]"
            )
        );
        assert_eq!(
            resolved(Some("default"), &[(MODE, text)]),
            format!("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE: {text:?}; expected IPv4 or IPv6")
        );
    }
}
