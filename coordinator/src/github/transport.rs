//! One HTTP call: bounded in time, size, number, and in where it may be led.

use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, IF_NONE_MATCH, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Proxy, Response};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::sync::Semaphore;
use url::Url;

use super::errors::{self, GithubError, Reply, SetupError};
use super::rest::Settings;
use crate::telemetry::Metrics;

/// Calls at once. GitHub allows 100.
/// <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#about-secondary-rate-limits>
const MAX_CALLS: usize = 100;

/// Bytes of an answer.
const MAX_ANSWER: usize = 5 * 1024 * 1024;

/// Redirects in a row, such as of a renamed repository.
const MAX_REDIRECTS: usize = 3;

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) path: Vec<&'a str>,
    pub(super) query: Vec<(&'a str, &'a str)>,
    pub(super) body: Option<Value>,
    /// The version that is known already: the answer is 304 if it is still the one.
    pub(super) known: Option<&'a str>,
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, path: Vec<&'a str>) -> Self {
        Self {
            method,
            path,
            query: Vec::new(),
            body: None,
            known: None,
        }
    }

    pub(super) fn get(path: Vec<&'a str>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn query(mut self, name: &'a str, value: &'a str) -> Self {
        self.query.push((name, value));
        self
    }

    pub(super) fn unless(mut self, known: Option<&'a str>) -> Self {
        self.known = known;
        self
    }

    pub(super) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }
}

/// The way to GitHub's API.
#[derive(Debug)]
pub(super) struct Transport {
    client: Client,
    #[cfg(test)]
    simulated: Option<simulated::Way>,
    base: Url,
    slots: Semaphore,
    total: Duration,
    metrics: Option<Metrics>,
}

impl Transport {
    pub(super) fn new(settings: &Settings) -> Result<Self, SetupError> {
        let base = settings.api_url.clone();
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(SetupError::ApiUrl(base));
        }
        let mut headers = HeaderMap::new();
        headers.insert(
            "accept",
            HeaderValue::from_static("application/vnd.github+json"),
        );
        headers.insert(
            "x-github-api-version",
            HeaderValue::from_static("2022-11-28"),
        );
        let mut builder = Client::builder()
            .user_agent(&settings.user_agent)
            .default_headers(headers)
            .redirect(Policy::none())
            .connect_timeout(settings.connect_timeout)
            .no_proxy();
        if let Some(pem) = &settings.ca_pem {
            let certificates = Certificate::from_pem_bundle(pem).map_err(SetupError::Ca)?;
            builder = builder.tls_certs_merge(certificates);
        }
        if let Some(url) = &settings.proxy {
            builder = builder.proxy(proxy(url, settings.proxy_credentials.as_ref())?);
        }
        Ok(Self {
            client: builder.build().map_err(SetupError::Http)?,
            #[cfg(test)]
            simulated: settings.simulated.clone(),
            base,
            slots: Semaphore::new(MAX_CALLS),
            total: settings.total_timeout,
            metrics: settings.metrics.clone(),
        })
    }

    /// Where requests are counted.
    pub(super) fn metrics(&self) -> Option<&Metrics> {
        self.metrics.as_ref()
    }

    /// Makes one call. The answer may be any that HTTP knows.
    pub(super) async fn send(
        &self,
        call: &Call<'_>,
        bearer: &SecretString,
    ) -> Result<Reply, GithubError> {
        let url = self.url(call)?;
        // The wait for a slot counts: a caller must not hang behind a hundred slow calls.
        let outcome = tokio::time::timeout(self.total, self.exchange(call, url, bearer))
            .await
            .unwrap_or_else(|_| Err(errors::too_slow(self.total)));
        if let Some(metrics) = &self.metrics {
            metrics.github_request(outcome.as_ref().ok().map(|reply| reply.status.as_u16()));
        }
        outcome
    }

    async fn exchange(
        &self,
        call: &Call<'_>,
        mut url: Url,
        bearer: &SecretString,
    ) -> Result<Reply, GithubError> {
        let _slot = self.slots.acquire().await;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", bearer.expose_secret()))
            .map_err(|_| GithubError::Garbled("a token with foreign characters".to_owned()))?;
        bearer.set_sensitive(true);
        for _ in 0..MAX_REDIRECTS {
            let response = self.once(call, url.clone(), bearer.clone()).await?;
            match target(&response, &url, &call.method) {
                Some(next) => url = next,
                None => return read(response).await,
            }
        }
        read(self.once(call, url, bearer).await?).await
    }

    async fn once(
        &self,
        call: &Call<'_>,
        url: Url,
        bearer: HeaderValue,
    ) -> Result<Response, GithubError> {
        #[cfg(test)]
        if let Some(way) = &self.simulated {
            return way.go(call, &url).await;
        }
        let mut request = self
            .client
            .request(call.method.clone(), url)
            .header(AUTHORIZATION, bearer);
        if let Some(known) = call.known {
            request = request.header(IF_NONE_MATCH, known);
        }
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        request.send().await.map_err(errors::network)
    }

    fn url(&self, call: &Call<'_>) -> Result<Url, GithubError> {
        let mut url = self.base.clone();
        for segment in &call.path {
            // Such a segment would be dropped, and the call would go to another path.
            if matches!(*segment, "" | "." | "..") {
                let path = call.path.join("/");
                return Err(GithubError::Unaskable(format!("{segment:?} in {path}")));
            }
        }
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(&call.path);
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        Ok(url)
    }
}

fn proxy(url: &Url, credentials: Option<&SecretString>) -> Result<Proxy, SetupError> {
    let proxy = Proxy::all(url.clone()).map_err(|e| SetupError::Proxy(e.to_string()))?;
    let Some(credentials) = credentials else {
        return Ok(proxy);
    };
    match credentials.expose_secret().split_once(':') {
        Some((user, password)) => Ok(proxy.basic_auth(user, password)),
        None => Err(SetupError::Proxy(
            "its credentials are not \"user:password\"".to_owned(),
        )),
    }
}

/// Where an answer leads, if we follow: to the same origin only, as the token goes along, and never
/// where a POST would become a GET.
fn target(response: &Response, from: &Url, method: &Method) -> Option<Url> {
    let follow = match response.status() {
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => method == Method::GET,
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        _ => false,
    };
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let to = from.join(location).ok()?;
    (follow && to.origin() == from.origin()).then_some(to)
}

async fn read(mut response: Response) -> Result<Reply, GithubError> {
    let too_large = || GithubError::Garbled(format!("it is larger than {MAX_ANSWER} bytes"));
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > MAX_ANSWER) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(errors::network)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Reply {
        status,
        headers,
        body,
    })
}

/// A GitHub that is asked without a connection.
#[cfg(test)]
pub(crate) mod simulated {
    use std::fmt;
    use std::sync::Arc;

    use futures::future::BoxFuture;
    use reqwest::Response;
    use serde_json::Value;
    use url::Url;

    use super::{Call, GithubError};
    use crate::github::errors::RetryLater;

    /// What it is asked.
    #[derive(Debug)]
    pub(crate) struct Question {
        pub(crate) method: http::Method,
        pub(crate) url: Url,
        pub(crate) body: Option<Value>,
        pub(crate) known: Option<String>,
    }

    /// Answers; or the connection breaks.
    pub(crate) type Answer = Result<http::Response<Vec<u8>>, String>;

    /// The way there.
    #[derive(Clone)]
    pub(crate) struct Way(
        pub(crate) Arc<dyn Fn(Question) -> BoxFuture<'static, Answer> + Send + Sync>,
    );

    impl fmt::Debug for Way {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Way")
        }
    }

    impl Way {
        pub(super) async fn go(&self, call: &Call<'_>, url: &Url) -> Result<Response, GithubError> {
            let question = Question {
                method: call.method.clone(),
                url: url.clone(),
                body: call.body.clone(),
                known: call.known.map(str::to_owned),
            };
            match (self.0)(question).await {
                Ok(answer) => Ok(answer.into()),
                Err(reason) => Err(GithubError::Later(RetryLater {
                    after: std::time::Duration::ZERO,
                    reason,
                })),
            }
        }
    }
}
