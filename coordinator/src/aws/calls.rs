//! Each call to AWS as it ends: counted by its outcome, and with its endpoint named if nobody answered.

use std::error::Error as StdError;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextRef, Error, FinalizerInterceptorContextMut,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, Metadata, OrchestratorError};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use serde::Deserialize;
use thiserror::Error as ThisError;

use crate::compute::ec2::is_throttle;
use crate::telemetry::{AwsOutcome, Metrics};

/// Watches the calls of one of the SDK's clients.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    metrics: Option<Metrics>,
}

/// Where a call goes, `https://ec2.eu-west-1.amazonaws.com`.
#[derive(Clone, Debug)]
struct Endpoint(String);

impl Storable for Endpoint {
    type Storer = StoreReplace<Self>;
}

/// Nobody answered a call.
#[derive(Debug, ThisError)]
#[error("{endpoint} {what}")]
struct Unanswered {
    endpoint: String,
    what: String,
}

impl Watched {
    pub(crate) fn new(metrics: Option<Metrics>) -> Self {
        Self { metrics }
    }
}

impl Intercept for Watched {
    fn name(&self) -> &'static str {
        "Watched"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // The request itself is gone once it was sent.
        if let Some(endpoint) = endpoint(context.request().uri()) {
            config.interceptor_state().store_put(Endpoint(endpoint));
        }
        Ok(())
    }

    fn modify_before_completion(
        &self,
        context: &mut FinalizerInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let (Some(metrics), Some(call)) = (&self.metrics, config.load::<Metadata>()) {
            let service = call.service().to_ascii_lowercase();
            metrics.aws_call(&service, call.name(), outcome(context));
        }
        if let (Some(Endpoint(endpoint)), Some(Err(error))) =
            (config.load::<Endpoint>(), context.output_or_error_mut())
        {
            name_endpoint(endpoint.clone(), error);
        }
        Ok(())
    }
}

fn outcome(context: &FinalizerInterceptorContextMut<'_>) -> AwsOutcome {
    match (context.output_or_error(), context.response()) {
        (Some(Ok(_)), _) => AwsOutcome::Done,
        (Some(Err(error)), Some(response)) if error.is_operation_error() => refusal(response),
        // An answer that can't be read.
        (Some(Err(_)), Some(_)) => AwsOutcome::Failed,
        (Some(Err(_)) | None, _) => AwsOutcome::Unanswered,
    }
}

fn refusal(response: &HttpResponse) -> AwsOutcome {
    let status = response.status();
    let throttled = code(response).is_some_and(|code| is_throttle(&code));
    if throttled || status.as_u16() == 429 {
        AwsOutcome::Throttled
    } else if status.is_server_error() {
        AwsOutcome::Failed
    } else {
        AwsOutcome::Refused
    }
}

/// The code of an error, in the form of each of AWS's protocols
/// (<https://smithy.io/2.0/aws/protocols/aws-ec2-query-protocol.html>,
/// <https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html>).
fn code(response: &HttpResponse) -> Option<String> {
    #[derive(Deserialize)]
    struct Json {
        #[serde(rename = "__type")]
        kind: String,
    }

    let body = std::str::from_utf8(response.body().bytes()?).ok()?;
    if let Ok(Json { kind }) = serde_json::from_str(body) {
        let code = kind.rsplit('#').next().unwrap_or_default();
        return Some(code.to_owned());
    }
    let (_, rest) = body.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    Some(code.to_owned())
}

/// The part of a request's URL that says where it goes.
fn endpoint(uri: &str) -> Option<String> {
    let url = url::Url::parse(uri).ok()?;
    url.has_host().then(|| url.origin().ascii_serialization())
}

/// Says where there was no answer: the SDK's own words don't.
fn name_endpoint(endpoint: String, error: &mut OrchestratorError<Error>) {
    if let Some(source) = error.as_connector_error() {
        let timed_out = source.is_timeout();
        let what = format!("can't be reached: {}", causes(source));
        let unanswered = Box::new(Unanswered { endpoint, what });
        *error = OrchestratorError::connector(if timed_out {
            ConnectorError::timeout(unanswered)
        } else {
            ConnectorError::io(unanswered)
        });
    } else if error.is_timeout_error() {
        let what = format!("does not answer: {}", causes(error));
        *error = OrchestratorError::timeout(Box::new(Unanswered { endpoint, what }));
    }
}

/// What led to an error, without its own words: those of the SDK only name a kind.
fn causes(error: &dyn StdError) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !texts.last().is_some_and(|last| last.ends_with(&text)) {
            texts.push(text);
        }
        next = cause.source();
    }
    if texts.is_empty() {
        error.to_string()
    } else {
        texts.join(": ")
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::body::SdkBody;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::ec2(
        "https://ec2.eu-west-1.amazonaws.com/",
        Some("https://ec2.eu-west-1.amazonaws.com")
    )]
    #[case::port("http://127.0.0.1:9/?a=b", Some("http://127.0.0.1:9"))]
    #[case::not_yet_known("/", None)]
    fn an_endpoint_is_what_can_be_reached_or_not(#[case] uri: &str, #[case] said: Option<&str>) {
        assert_eq!(endpoint(uri).as_deref(), said);
    }

    #[rstest]
    #[case::ec2(
        503,
        "<Response><Errors><Error><Code>RequestLimitExceeded</Code></Error></Errors></Response>",
        AwsOutcome::Throttled
    )]
    #[case::sts(
        400,
        "<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>",
        AwsOutcome::Throttled
    )]
    #[case::ssm(400, "{\"__type\":\"ThrottlingException\"}", AwsOutcome::Throttled)]
    #[case::sqs(
        400,
        "{\"__type\":\"com.amazonaws.sqs#RequestThrottled\"}",
        AwsOutcome::Throttled
    )]
    #[case::status(429, "", AwsOutcome::Throttled)]
    #[case::denied(
        403,
        "<Response><Errors><Error><Code>UnauthorizedOperation</Code></Error></Errors></Response>",
        AwsOutcome::Refused
    )]
    #[case::denied_json(400, "{\"__type\":\"AccessDeniedException\"}", AwsOutcome::Refused)]
    #[case::broken(500, "<html>", AwsOutcome::Failed)]
    fn a_refusal_is_told_from_a_throttle(
        #[case] status: u16,
        #[case] body: &'static str,
        #[case] expected: AwsOutcome,
    ) {
        let response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body));
        assert_eq!(refusal(&response), expected);
    }

    #[test]
    fn nobody_at_an_endpoint_is_said_with_its_name() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let mut error = OrchestratorError::connector(ConnectorError::io(refused.into()));
        name_endpoint("https://ec2.eu-west-1.amazonaws.com".to_owned(), &mut error);
        assert_eq!(
            causes(&error),
            "io error: https://ec2.eu-west-1.amazonaws.com can't be reached: connection refused"
        );
        let mut error = OrchestratorError::timeout("60 s have passed".into());
        name_endpoint("https://ec2.eu-west-1.amazonaws.com".to_owned(), &mut error);
        assert_eq!(
            causes(&error),
            "https://ec2.eu-west-1.amazonaws.com does not answer: 60 s have passed"
        );
    }
}
