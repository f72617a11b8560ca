//! The fake as the HTTP client of an AWS SDK, so that no socket is needed.

use std::fmt;
use std::sync::Arc;

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::Response;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;

use super::server;
use super::shared::Shared;
use crate::fakes::HangUp;

struct Connector(Arc<Shared>);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector to the fake AWS")
    }
}

/// An HTTP client whose requests all go to the fake, whatever their address.
pub(super) fn client(shared: &Arc<Shared>) -> SharedHttpClient {
    let connector = SharedHttpConnector::new(Connector(Arc::clone(shared)));
    http_client_fn(move |_, _| connector.clone())
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let shared = Arc::clone(&self.0);
        HttpConnectorFuture::new(async move {
            let request = request
                .try_into_http1x()
                .map_err(|error| ConnectorError::user(error.into()))?;
            let (parts, body) = request.into_parts();
            // The calls that there are have their bodies in memory.
            let body = Bytes::copy_from_slice(body.bytes().unwrap_or_default());
            let answer = server::serve(&shared, http::Request::from_parts(parts, body))
                .await
                .map_err(|HangUp| ConnectorError::io(HangUp.into()))?;
            Response::try_from(answer.map(SdkBody::from))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}
