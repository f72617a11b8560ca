//! The HTTP side: checks each REST request and answer against the description, plays faults,
//! counts budgets.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::auth::Caller;
use super::limits::{Standing, Verdict};
use super::openapi::Operation;
use super::routes::{self, Answer, Call};
use super::runner_endpoint::{self, RunnerCall};
use super::shared::Shared;
use super::spec::{Effect, Fault};
use super::state::State;
use crate::fakes::HangUp;

/// A request, read.
struct Received {
    parts: http::request::Parts,
    body: Bytes,
}

/// Answers one request.
pub(super) async fn serve(
    shared: &Shared,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, HangUp> {
    let (parts, body) = request.into_parts();
    let received = Received { parts, body };
    let path = received.parts.uri.path();
    if let Some(rest) = path.strip_prefix("/_runner/") {
        let call = RunnerCall {
            method: &received.parts.method,
            path: rest,
            query: received.parts.uri.query().unwrap_or_default(),
            credential: bearer(&received.parts.headers).unwrap_or_default(),
            body: &received.body,
        };
        return Ok(respond(runner_endpoint::serve(shared, &call).await));
    }
    let mut lose_answer = false;
    for effect in shared.quietly(|state| hit(state, received.parts.method.as_str(), path)) {
        match effect {
            Effect::Delay(wait) => tokio::time::sleep(wait).await,
            Effect::DropConnection => return Err(HangUp),
            Effect::LoseAnswer => lose_answer = true,
            Effect::Answer { status, headers } => return Ok(respond_with_fault(status, &headers)),
        }
    }
    let answer = rest(shared, &received);
    if lose_answer {
        return Err(HangUp);
    }
    Ok(respond(answer))
}

/// The faults that this request meets, each used once: delays, then one that decides.
fn hit(state: &mut State, method: &str, path: &str) -> Vec<Effect> {
    let mut effects = Vec::new();
    for fault in &mut state.faults {
        let Fault {
            method: wanted,
            path: part,
            times,
            effect,
        } = fault;
        let fits = wanted.as_deref().is_none_or(|wanted| wanted == method) && path.contains(&*part);
        if *times == 0 || !fits {
            continue;
        }
        *times -= 1;
        effects.push(effect.clone());
        if !matches!(effect, Effect::Delay(_)) {
            break;
        }
    }
    effects
}

/// Checks, counts and carries out a REST call.
fn rest(shared: &Shared, received: &Received) -> Answer {
    let (method, path) = (received.parts.method.as_str(), received.parts.uri.path());
    let query = received.parts.uri.query().unwrap_or_default();
    let Some((operation, parameters)) = shared.description.find(method, path) else {
        shared.violation(format!(
            "{method} {path}: GitHub has no such call that we know"
        ));
        return Answer::not_found();
    };
    if !received.parts.headers.contains_key(header::USER_AGENT) {
        shared.violation(format!("{method} {path}: no User-Agent"));
        return Answer::error(
            StatusCode::FORBIDDEN,
            "Request forbidden by administrative rules.",
        );
    }
    let body = (!received.body.is_empty())
        .then(|| serde_json::from_slice(&received.body).unwrap_or(Value::Null));
    let wrong = shared
        .description
        .check_request(operation, &parameters, query, body.as_ref());
    if !wrong.is_empty() {
        let text = wrong.join("; ");
        shared.violation(format!("{method} {path}: {text}"));
        return Answer::error(
            StatusCode::UNPROCESSABLE_ENTITY,
            &format!("Invalid request. {text}"),
        );
    }
    let now = shared.now();
    let answer = shared.change(|state| {
        *state
            .served
            .entry(format!("{method} {}", operation.template))
            .or_default() += 1;
        let call = Call {
            shared,
            method,
            template: &operation.template,
            path: parameters,
            query: form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
            body: body.unwrap_or(Value::Null),
            caller: None,
            now,
        };
        metered(state, call, &received.parts.headers)
    });
    check_answer(shared, operation, &answer);
    answer
}

/// Finds out who calls, counts the call, and carries it out if the budget allows.
fn metered(state: &mut State, mut call: Call<'_>, headers: &HeaderMap) -> Answer {
    let token = bearer(headers).unwrap_or_default();
    call.caller = if token.matches('.').count() == 2 {
        let options = call.options();
        match call.shared.app_key.verify(
            token,
            options.app_id,
            &options.client_id,
            Timestamp::now(),
        ) {
            Ok(()) => Some(Caller::App),
            Err(message) => return Answer::error(StatusCode::UNAUTHORIZED, message),
        }
    } else {
        state
            .installation_of(token, call.now)
            .map(Caller::Installation)
    };
    let Some(Caller::Installation(installation)) = call.caller else {
        return routes::dispatch(state, &call);
    };
    if !state.permits(token, call.method, call.template) {
        return Answer::error(
            StatusCode::FORBIDDEN,
            "Resource not accessible by integration",
        );
    }
    if !call.options().enforce_limits || call.template == "/rate_limit" {
        return conditional(call.method, headers, routes::dispatch(state, &call));
    }
    match state
        .budgets
        .spend(installation, call.method, call.template, call.now)
    {
        Verdict::Pass(mut standing) => {
            let mut answer = conditional(call.method, headers, routes::dispatch(state, &call));
            if answer.status == StatusCode::NOT_MODIFIED {
                standing = state.budgets.give_back(installation, &standing, call.now);
            }
            answer.headers.extend(rate_headers(&standing));
            answer
        }
        Verdict::Exhausted(standing) => {
            let mut answer = Answer::error(
                StatusCode::FORBIDDEN,
                "API rate limit exceeded for installation.",
            );
            answer.headers.extend(rate_headers(&standing));
            answer
        }
        Verdict::Secondary { retry_after_secs } => {
            let mut answer = Answer::error(
                StatusCode::FORBIDDEN,
                "You have exceeded a secondary rate limit.",
            );
            answer
                .headers
                .push(("retry-after", retry_after_secs.to_string()));
            answer
        }
    }
}

fn rate_headers(at: &Standing) -> [(&'static str, String); 5] {
    [
        ("x-ratelimit-limit", at.limit.to_string()),
        (
            "x-ratelimit-remaining",
            at.limit.saturating_sub(at.used).to_string(),
        ),
        ("x-ratelimit-used", at.used.to_string()),
        ("x-ratelimit-reset", at.reset.as_second().to_string()),
        ("x-ratelimit-resource", at.bucket.name().to_owned()),
    ]
}

/// Our own answers must keep to the description too.
fn check_answer(shared: &Shared, operation: &Operation, answer: &Answer) {
    // HTTP's own, which the description lists for some calls only and GitHub answers to all.
    if answer.status == StatusCode::NOT_MODIFIED {
        return;
    }
    let wrong =
        shared
            .description
            .check_answer(operation, answer.status.as_u16(), answer.body.as_ref());
    for error in wrong {
        shared.violation(format!(
            "the fake's answer to {} {}: {error}",
            operation.method, operation.template
        ));
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token")).then_some(token)
}

fn respond(answer: Answer) -> Response<Bytes> {
    let text = answer.body.map(|body| body.to_string()).unwrap_or_default();
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json; charset=utf-8"),
    );
    for (name, value) in answer.headers {
        if let Ok(value) = header::HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}

fn respond_with_fault(status: u16, extra: &[(String, String)]) -> Response<Bytes> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = json!({ "message": status.canonical_reason(), "documentation_url": "https://docs.github.com/rest" });
    let mut response = respond(Answer::json(status, body));
    for (name, value) in extra {
        let name = header::HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, header::HeaderValue::from_str(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Adds an `ETag` to what was read, and answers 304 to a client that has it already.
fn conditional(method: &str, headers: &HeaderMap, mut answer: Answer) -> Answer {
    if method != "GET" || answer.status != StatusCode::OK {
        return answer;
    }
    let mut hasher = DefaultHasher::new();
    answer.body.as_ref().map(Value::to_string).hash(&mut hasher);
    let tag = format!("\"{:016x}\"", hasher.finish());
    if headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known == tag.as_str())
    {
        answer = Answer {
            headers: answer.headers,
            ..Answer::empty(StatusCode::NOT_MODIFIED)
        };
    }
    answer.headers.push(("etag", tag));
    answer
}
