//! The SDK's HTTP client, with the metadata service of the coordinator's host in it: that is where the
//! SDK finds the role's keys. What else it is asked goes over the wire.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_smithy_http_client::Builder;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use serde::Deserialize;
use serde_json::json;

const PLACE: &str = "/latest/meta-data/iam/security-credentials";

/// Keys of a role.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: String,
}

/// The client. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    wire: SharedHttpClient,
    keys: Arc<Mutex<Keys>>,
    late: Arc<AtomicUsize>,
}

impl Host {
    pub(crate) fn new(keys: Keys) -> Self {
        Self {
            wire: Builder::new().build_http(),
            keys: Arc::new(Mutex::new(keys)),
            late: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// The answers to the next calls of CreateFleet come too late: they are carried out, and the SDK
    /// is told that it has waited long enough.
    pub(crate) fn answer_late(&self, calls: usize) {
        self.late.store(calls, Ordering::SeqCst);
    }

    pub(crate) fn client(&self) -> SharedHttpClient {
        SharedHttpClient::new(self.clone())
    }
}

impl HttpClient for Host {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector {
            wire: self.wire.http_connector(settings, components),
            keys: Arc::clone(&self.keys),
            late: Arc::clone(&self.late),
        })
    }
}

#[derive(Debug)]
struct Connector {
    wire: SharedHttpConnector,
    keys: Arc<Mutex<Keys>>,
    late: Arc<AtomicUsize>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if let Some(path) = request.uri().strip_prefix("http://169.254.169.254") {
            return HttpConnectorFuture::ready(Ok(metadata(path, &self.keys.lock().unwrap())));
        }
        let body = request.body().bytes().unwrap_or_default();
        let launches = body.starts_with(b"Action=CreateFleet&");
        let less = |left: usize| left.checked_sub(1);
        let late = launches
            && self
                .late
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
                .is_ok();
        let answer = self.wire.call(request);
        if !late {
            return answer;
        }
        HttpConnectorFuture::new(async move {
            answer.await?;
            Err(ConnectorError::timeout("no answer in time".into()))
        })
    }
}

/// What the metadata service says.
fn metadata(path: &str, keys: &Keys) -> HttpResponse {
    let text = match path.trim_end_matches('/') {
        "/latest/api/token" => Some("token".to_owned()),
        PLACE => Some("muster-coordinator".to_owned()),
        path if path == format!("{PLACE}/muster-coordinator") => Some(
            json!({
                "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-11-25T00:00:00Z",
                "AccessKeyId": keys.id, "SecretAccessKey": keys.secret, "Token": keys.token,
                "Expiration": "2099-01-01T00:00:00Z",
            })
            .to_string(),
        ),
        _ => None,
    };
    let status: u16 = if text.is_some() { 200 } else { 404 };
    let mut response = HttpResponse::new(
        status.try_into().unwrap(),
        SdkBody::from(text.unwrap_or_default()),
    );
    let headers = response.headers_mut();
    headers.insert("x-aws-ec2-metadata-token-ttl-seconds", "21600");
    response
}
