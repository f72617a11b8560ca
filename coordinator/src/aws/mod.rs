//! What all calls to AWS share, whoever makes them: the coordinator's own credentials, the bounds of a
//! call, and who counts it and names its endpoint when it fails.

mod calls;
mod credentials;

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use url::Url;

pub(crate) use self::calls::Watched;
use self::credentials::Own;
use crate::compute::ec2::Pace;
use crate::telemetry::Metrics;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);

/// What the SDK is given in place of what it would find by itself, and who counts its calls.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Its HTTP client.
    pub http: Option<SharedHttpClient>,
    /// The coordinator's own credentials.
    pub credentials: Option<SharedCredentialsProvider>,
    /// Where calls are counted.
    pub metrics: Option<Metrics>,
    /// How often EC2 and SSM are asked again.
    pub pace: Pace,
}

/// The SDK's configuration for a region, with the coordinator's own credentials, found by the chain that
/// all SDKs share. Nothing is repeated by the SDK: who knows what may be repeated is our own code. Calls
/// nobody.
pub(crate) async fn own_config(
    region: &str,
    endpoint: Option<&Url>,
    call: Duration,
    given: &Given,
) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_timeout(call)
        .build();
    let mut config = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts);
    if let Some(endpoint) = endpoint {
        config = config.endpoint_url(endpoint.as_str().trim_end_matches('/'));
    }
    if let Some(http) = &given.http {
        config = config.http_client(http.clone());
    }
    if let Some(credentials) = &given.credentials {
        config = config.credentials_provider(credentials.clone());
    }
    let config = config.load().await;
    match config.credentials_provider() {
        Some(found) => config
            .into_builder()
            .credentials_provider(SharedCredentialsProvider::new(Own(found)))
            .build(),
        None => config,
    }
}
