//! Answers in the form of each service's protocol.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::error::AwsError;
use super::faults::Answer;
use super::model::{Protocol, Service};
use super::shared::Shared;
use super::{ids, xml};

const XML: &str = "text/xml;charset=UTF-8";

/// A success.
pub(super) fn answer(
    shared: &Shared,
    service: &str,
    action: &str,
    wants_json: bool,
    value: &Value,
) -> Response<Bytes> {
    let id = ids::uuid();
    let known = shared.models.get(service);
    let Some((model, operation)) =
        known.and_then(|model| Some((model, model.operations.get(action)?)))
    else {
        return respond(500, XML, String::new(), &id);
    };
    match model.protocol {
        Protocol::Json => respond(200, json_type(service), value.to_string(), &id),
        Protocol::Query if wants_json => {
            let wrapper = operation.wrapper.clone().unwrap_or_default();
            let body = json!({
                format!("{action}Response"): {
                    wrapper: value, "ResponseMetadata": { "RequestId": id },
                },
            });
            respond(200, "application/json", body.to_string(), &id)
        }
        _ => {
            let mut inner = String::new();
            let shape = operation.output.as_deref().unwrap_or_default();
            xml::members(&mut inner, model, shape, value);
            respond(
                200,
                XML,
                envelope(model, action, operation.wrapper.as_deref(), &inner, &id),
                &id,
            )
        }
    }
}

fn envelope(model: &Service, action: &str, wrapper: Option<&str>, inner: &str, id: &str) -> String {
    let namespace = model.namespace.as_deref().unwrap_or_default();
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{action}Response xmlns=\"{namespace}\">"
    );
    match wrapper {
        None => {
            xml::text(&mut out, "requestId", id);
            out.push_str(inner);
        }
        Some(wrapper) => {
            xml::open(&mut out, wrapper);
            out.push_str(inner);
            xml::close(&mut out, wrapper);
            xml::open(&mut out, "ResponseMetadata");
            xml::text(&mut out, "RequestId", id);
            xml::close(&mut out, "ResponseMetadata");
        }
    }
    xml::close(&mut out, &format!("{action}Response"));
    out
}

/// An error.
pub(super) fn error(
    shared: &Shared,
    service: &str,
    wants_json: bool,
    error: &AwsError,
) -> Response<Bytes> {
    let id = ids::uuid();
    let AwsError {
        status,
        code,
        message,
    } = error;
    let fault = if *status < 500 { "Sender" } else { "Receiver" };
    let protocol = shared.models.get(service).map(|model| model.protocol);
    match protocol {
        Some(Protocol::Json) => {
            let body = json!({ "__type": code, "message": message });
            let mut answer = respond(*status, json_type(service), body.to_string(), &id);
            set(&mut answer, "x-amzn-errortype", code);
            if service == "sqs" {
                let query = format!("{};{fault}", query_code(code));
                set(&mut answer, "x-amzn-query-error", &query);
            }
            answer
        }
        Some(Protocol::Query) if wants_json => {
            let body = json!({
                "Error": { "Code": code, "Message": message, "Type": fault }, "RequestId": id,
            });
            respond(*status, "application/json", body.to_string(), &id)
        }
        Some(Protocol::Query) => {
            let mut out = String::from(
                "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error>",
            );
            xml::text(&mut out, "Type", fault);
            xml::text(&mut out, "Code", code);
            xml::text(&mut out, "Message", message);
            out.push_str("</Error>");
            xml::text(&mut out, "RequestId", &id);
            out.push_str("</ErrorResponse>");
            respond(*status, XML, out, &id)
        }
        _ => {
            let mut out = String::from(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error>",
            );
            xml::text(&mut out, "Code", code);
            xml::text(&mut out, "Message", message);
            out.push_str("</Error></Errors>");
            xml::text(&mut out, "RequestID", &id);
            out.push_str("</Response>");
            respond(*status, XML, out, &id)
        }
    }
}

/// What a code of SQS was before it spoke JSON; SDKs go by that still.
fn query_code(code: &str) -> String {
    match code {
        "QueueDoesNotExist" => "AWS.SimpleQueueService.NonExistentQueue".to_owned(),
        "EmptyBatchRequest" | "TooManyEntriesInBatchRequest" | "BatchEntryIdsNotDistinct" => {
            format!("AWS.SimpleQueueService.{code}")
        }
        other => other.to_owned(),
    }
}

/// An answer that a test gave.
pub(super) fn verbatim(answer: Answer) -> Response<Bytes> {
    let mut response = Response::new(answer.body);
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &answer.headers {
        set(&mut response, name, value);
    }
    response
}

fn json_type(service: &str) -> &'static str {
    if service == "sqs" {
        "application/x-amz-json-1.0"
    } else {
        "application/x-amz-json-1.1"
    }
}

fn respond(status: u16, content_type: &'static str, body: String, id: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    set(&mut response, "x-amzn-requestid", id);
    response
}

fn set(response: &mut Response<Bytes>, name: &str, value: &str) {
    let name = HeaderName::from_bytes(name.as_bytes());
    if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
        response.headers_mut().insert(name, value);
    }
}
