//! The SDK's clients of one account, and the credentials that they use.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_sts::types::Tag;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;

use super::error;
use super::settings::{Ec2Settings, Pace, RoleSettings};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a call may take. CreateFleet answers once it has looked for capacity everywhere.
const CALL: Duration = Duration::from_secs(60);
/// How long credentials of a role live: the shortest that AWS allows is 15 minutes.
const SESSION_SECS: i32 = 3_600;

/// The clients of one account. Cheap to clone. Each account has its own, credentials included: nothing
/// is looked up by a name that two accounts could share.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    pub(super) ec2: aws_sdk_ec2::Client,
    pub(super) sqs: aws_sdk_sqs::Client,
    pub(super) ssm: aws_sdk_ssm::Client,
}

impl Clients {
    /// Makes the clients; calls nobody.
    pub(super) async fn new(settings: &Ec2Settings, given: Given) -> Self {
        let own = own_config(settings, given).await;
        let config = match &settings.role {
            None => own,
            Some(role) => {
                let assumed = AssumedRole {
                    sts: aws_sdk_sts::Client::new(&own),
                    role: role.clone(),
                    coordinator: settings.coordinator.clone(),
                };
                own.into_builder()
                    .credentials_provider(SharedCredentialsProvider::new(assumed))
                    .build()
            }
        };
        Self {
            ec2: aws_sdk_ec2::Client::new(&config),
            sqs: aws_sdk_sqs::Client::new(&config),
            ssm: aws_sdk_ssm::Client::new(&config),
        }
    }
}

/// What is given in place of what the SDK would find by itself and the provider would choose.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Its HTTP client.
    pub http: Option<SharedHttpClient>,
    /// The coordinator's own credentials.
    pub credentials: Option<SharedCredentialsProvider>,
    /// How often AWS is asked again.
    pub pace: Pace,
}

/// The coordinator's own credentials, by the chain that all SDKs share.
async fn own_config(settings: &Ec2Settings, given: Given) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_timeout(CALL)
        .build();
    let mut config = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(settings.region.clone()))
        // Who knows what may be repeated is our own code.
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts);
    if let Some(endpoint) = &settings.endpoint {
        config = config.endpoint_url(endpoint.as_str().trim_end_matches('/'));
    }
    if let Some(http) = given.http {
        config = config.http_client(http);
    }
    if let Some(credentials) = given.credentials {
        config = config.credentials_provider(credentials);
    }
    config.load().await
}

/// Credentials of a role that is assumed. The SDK keeps them until they are about to expire.
#[derive(Debug)]
struct AssumedRole {
    sts: aws_sdk_sts::Client,
    role: RoleSettings,
    coordinator: String,
}

impl ProvideCredentials for AssumedRole {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.assume())
    }
}

impl AssumedRole {
    async fn assume(&self) -> provider::Result {
        let tag = Tag::builder()
            .key("muster:coordinator")
            .value(&self.coordinator)
            .build()
            .map_err(CredentialsError::invalid_configuration)?;
        let output = self
            .sts
            .assume_role()
            .role_arn(&self.role.arn)
            .role_session_name(session_name(&self.coordinator))
            .set_external_id(self.role.external_id.clone())
            .duration_seconds(SESSION_SECS)
            .tags(tag)
            .send()
            .await
            .map_err(|error| {
                let what = format!("AssumeRole of {}", self.role.arn);
                CredentialsError::provider_error(error::of_call(&what, &error))
            })?;
        let credentials = output
            .credentials()
            .ok_or_else(|| CredentialsError::provider_error("AssumeRole gave no credentials"))?;
        let expiry = std::time::SystemTime::try_from(*credentials.expiration())
            .map_err(CredentialsError::provider_error)?;
        Ok(Credentials::new(
            credentials.access_key_id(),
            credentials.secret_access_key(),
            Some(credentials.session_token().to_owned()),
            Some(expiry),
            "muster-assumed-role",
        ))
    }
}

/// What CloudTrail calls us: `[\w+=,.@-]{2,64}`.
fn session_name(coordinator: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    let name: String = format!("muster-{coordinator}")
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .collect();
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::session_name;

    #[test]
    fn a_session_has_a_name_that_sts_takes() {
        assert_eq!(session_name("ci.example"), "muster-ci.example");
        assert_eq!(session_name("a b/ü"), "muster-a-b--");
        assert_eq!(session_name(&"x".repeat(100)).len(), 64);
    }
}
