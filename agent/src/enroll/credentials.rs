//! The instance's own credentials, as its metadata service gives them.
//!
//! They are those of the instance identity role, which every instance has and nobody can assume:
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-identity-roles.html>. Those of the
//! instance profile are used only where the configuration names its role.

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use thiserror::Error;
use tokio::time::timeout;

use crate::config::CredentialSource;
use crate::imds::{Client, ImdsError};

const REGION: &str = "meta-data/placement/region";
const IDENTITY_ROLE: &str = "meta-data/identity-credentials/ec2/security-credentials/ec2-instance";
const INSTANCE_PROFILE: &str = "meta-data/iam/security-credentials";
/// How long the instance identity role's credentials are waited for where the instance profile's would
/// do. At boot they come later than the service itself.
const PREFERRED_FOR: Duration = Duration::from_secs(5);

/// What a request is signed with.
pub(super) struct InstanceCredentials {
    /// Where the instance is.
    pub(super) region: String,
    pub(super) access_key_id: String,
    pub(super) secret_access_key: SecretString,
    pub(super) session_token: SecretString,
}

impl fmt::Debug for InstanceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceCredentials")
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// There are no credentials.
#[derive(Debug, Error)]
pub(crate) enum CredentialsError {
    /// The service can't be reached, or hadn't got it for long.
    #[error("read {path} of the metadata service: {source}")]
    Metadata {
        /// What was read.
        path: String,
        /// Why not.
        source: ImdsError,
    },
    /// What was read is something else. It isn't shown: it may hold a part of a secret.
    #[error("{path} of the metadata service is not {expected}")]
    Form {
        /// What was read.
        path: String,
        expected: &'static str,
    },
}

/// Reads them.
pub(super) struct Source<'a> {
    client: Client,
    instance_profile_role: Option<&'a str>,
}

/// As both paths give them: facts of <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html>.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    code: String,
    access_key_id: String,
    secret_access_key: String,
    token: String,
}

impl<'a> Source<'a> {
    pub(super) fn new(source: &'a CredentialSource) -> Self {
        Self {
            client: Client::new(&source.metadata),
            instance_profile_role: source.instance_profile_role.as_deref(),
        }
    }

    /// The credentials of now. What is not there yet is waited for, up to a minute each.
    pub(super) async fn read(&mut self) -> Result<InstanceCredentials, CredentialsError> {
        let region = self.get(REGION.to_owned()).await?;
        let region = std::str::from_utf8(&region)
            .ok()
            .filter(|text| is_region(text))
            .ok_or_else(|| form(REGION, "the name of a region"))?
            .to_owned();
        let Some(role) = self.instance_profile_role else {
            let body = self.get(IDENTITY_ROLE.to_owned()).await?;
            return parse(IDENTITY_ROLE, &body, region);
        };
        if let Ok(Ok(body)) = timeout(PREFERRED_FOR, self.get(IDENTITY_ROLE.to_owned())).await {
            return parse(IDENTITY_ROLE, &body, region);
        }
        tracing::warn!(
            role,
            "no instance identity role; signing with the instance profile's"
        );
        let path = format!("{INSTANCE_PROFILE}/{role}");
        let body = self.get(path.clone()).await?;
        parse(&path, &body, region)
    }

    async fn get(&mut self, path: String) -> Result<bytes::Bytes, CredentialsError> {
        match self.client.get_when_there(&path).await {
            Ok(body) => Ok(body),
            Err(source) => Err(CredentialsError::Metadata { path, source }),
        }
    }
}

fn parse(path: &str, body: &[u8], region: String) -> Result<InstanceCredentials, CredentialsError> {
    // The parser's own error would show text of the document.
    let document: Document =
        serde_json::from_slice(body).map_err(|_| form(path, "a JSON document of credentials"))?;
    if document.code != "Success" {
        return Err(form(path, "a success, by its Code"));
    }
    let filled = [
        &document.access_key_id,
        &document.secret_access_key,
        &document.token,
    ];
    if filled.iter().any(|text| text.is_empty()) {
        return Err(form(path, "complete"));
    }
    Ok(InstanceCredentials {
        region,
        access_key_id: document.access_key_id,
        secret_access_key: document.secret_access_key.into(),
        session_token: document.token.into(),
    })
}

/// It becomes part of a host's name.
fn is_region(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(allowed)
}

fn form(path: &str, expected: &'static str) -> CredentialsError {
    CredentialsError::Form {
        path: path.to_owned(),
        expected,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rstest::rstest;
    use secrecy::ExposeSecret as _;

    use super::{IDENTITY_ROLE, Source, is_region, parse};
    use crate::config::CredentialSource;
    use crate::imds::service::{Reply, Service, guarded};

    const PROFILE: &str = "meta-data/iam/security-credentials/runner";

    fn document(secret: &str) -> String {
        format!(
            r#"{{"Code":"Success","LastUpdated":"2026-01-01T00:00:00Z","Type":"AWS-HMAC",
            "AccessKeyId":"ASIAEXAMPLE00000","SecretAccessKey":"{secret}","Token":"TOKEN",
            "Expiration":"2026-01-01T06:00:00Z"}}"#
        )
    }

    /// A service where the paths below answer, the identity role's after `late` reads.
    async fn service(late: usize, identity: bool, profile: bool) -> Service {
        let reads = AtomicUsize::new(0);
        Service::start(guarded(move |path| match path {
            "meta-data/placement/region" => Reply::text(200, "eu-west-1"),
            IDENTITY_ROLE if identity && reads.fetch_add(1, Ordering::SeqCst) >= late => {
                Reply::text(200, &document("identity"))
            }
            PROFILE if profile => Reply::text(200, &document("profile")),
            _ => Reply::text(404, ""),
        }))
        .await
    }

    async fn read(service: &Service, role: Option<&str>) -> Result<String, String> {
        let source = CredentialSource {
            metadata: service.base.clone(),
            instance_profile_role: role.map(str::to_owned),
        };
        let credentials = Source::new(&source).read().await;
        credentials
            .map(|read| {
                assert_eq!(read.region, "eu-west-1");
                assert_eq!(read.session_token.expose_secret(), "TOKEN");
                assert!(!format!("{read:?}").contains(read.secret_access_key.expose_secret()));
                read.secret_access_key.expose_secret().to_owned()
            })
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn credentials_that_come_late_are_waited_for() {
        let service = service(3, true, true).await;
        assert_eq!(read(&service, None).await.unwrap(), "identity");
        assert_eq!(
            service
                .log()
                .count(&format!("get /i-1/latest/{IDENTITY_ROLE} ")),
            4
        );
    }

    #[tokio::test]
    async fn the_instance_profile_is_used_only_if_its_role_is_configured() {
        let both = service(0, true, true).await;
        assert_eq!(read(&both, Some("runner")).await.unwrap(), "identity");
        assert_eq!(both.log().count(&format!("get /i-1/latest/{PROFILE} ")), 0);
        let profile = service(0, false, true).await;
        assert_eq!(read(&profile, Some("runner")).await.unwrap(), "profile");
    }

    #[tokio::test]
    async fn what_is_no_document_is_refused_and_not_shown() {
        let service = Service::start(guarded(|path| match path {
            "meta-data/placement/region" => Reply::text(200, "eu-west-1"),
            _ => Reply::text(200, r#"{"SecretAccessKey": ["hunter2"]}"#),
        }))
        .await;
        let error = read(&service, None).await.unwrap_err();
        assert_eq!(
            error,
            format!(
                "{IDENTITY_ROLE} of the metadata service is not a JSON document of credentials"
            )
        );
    }

    #[rstest]
    #[case(document("s3cret").replace("Success", "Failed"), "not a success, by its Code")]
    #[case(document(""), "not complete")]
    #[case(String::from("<html>s3cret</html>"), "not a JSON document")]
    fn a_document_without_usable_credentials_is_refused(#[case] body: String, #[case] why: &str) {
        let error = parse("p", body.as_bytes(), "eu-west-1".into()).unwrap_err();
        let error = format!("{error} {error:?}");
        assert!(error.contains(why), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[rstest]
    #[case("us-gov-east-1", true)]
    #[case("", false)]
    #[case("eu-west-1.example.com", false)]
    #[case("eu-west-1/", false)]
    #[case("EU-WEST-1", false)]
    fn a_region_is_a_part_of_a_hosts_name(#[case] text: &str, #[case] is: bool) {
        assert_eq!(is_region(text), is);
    }
}
