//! The HTTP side: finds out what is asked, plays faults, checks requests and answers against AWS's
//! models.

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, header};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::error::{AwsError, Refusal};
use super::faults::Effect;
use super::keys::Principal;
use super::model::{Flaw, Protocol, Service, Wrong};
use super::shared::{Admitted, Call, Place, Shared};
use super::sigv4::{Authorization, Signed};
use super::{dispatch, query, render, sqs};
use crate::fakes::HangUp;

/// What is asked, before anyone knows whether it may be.
struct Asked {
    parts: Parts,
    body: Bytes,
    authorization: Option<Authorization>,
    service: String,
    action: String,
    form: Vec<(String, String)>,
}

impl Asked {
    fn read(shared: &Shared, mut parts: Parts, body: Bytes) -> Self {
        // A client without a socket has no need to write the header out.
        if let (false, Some(host)) = (
            parts.headers.contains_key(header::HOST),
            parts.uri.authority().cloned(),
        ) && let Ok(host) = host.as_str().parse()
        {
            parts.headers.insert(header::HOST, host);
        }
        let authorization = Authorization::parse(&parts.headers);
        let target = parts
            .headers
            .get("x-amz-target")
            .and_then(|value| value.to_str().ok());
        let form: Vec<(String, String)> = if target.is_some() {
            Vec::new()
        } else {
            form_urlencoded::parse(&body).into_owned().collect()
        };
        let field = |name: &str| {
            let found = form.iter().find(|(had, _)| had == name);
            found.map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        let (prefix, action) = match target.and_then(|target| target.split_once('.')) {
            Some((prefix, action)) => (prefix, action),
            None => ("", field("Action")),
        };
        let meant = shared.models.iter().find(|(_, service)| {
            service
                .target
                .as_deref()
                .map_or(service.version == field("Version"), |had| had == prefix)
        });
        let scope = authorization.as_ref().map(|scope| scope.service.clone());
        Self {
            service: scope
                .or(meant.map(|(name, _)| name.clone()))
                .unwrap_or_default(),
            action: action.to_owned(),
            form,
            authorization,
            parts,
            body,
        }
    }

    /// The call's name in texts.
    fn name(&self) -> String {
        format!("{} {}", self.service, self.action)
    }

    fn wants_json(&self) -> bool {
        let accept = self.parts.headers.get(header::ACCEPT);
        accept.is_some_and(|accept| accept == "application/json")
    }

    fn record(&self, shared: &Shared) -> Call {
        Call {
            at: shared.options.clock.now(),
            service: self.service.clone(),
            action: self.action.clone(),
            account: None,
            region: self
                .authorization
                .as_ref()
                .map(|scope| scope.region.clone())
                .unwrap_or_default(),
            parameters: Value::Null,
            status: None,
            error: None,
        }
    }
}

/// Answers one request.
pub(super) async fn serve(
    shared: &Shared,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, HangUp> {
    let (parts, body) = request.into_parts();
    let asked = Asked::read(shared, parts, body);
    let (call, effects) = shared.change(|state, _| {
        state.calls.push(asked.record(shared));
        (state.calls.len() - 1, state.faults.hit(&asked.action))
    });
    let (mut lose_answer, mut replace) = (false, None);
    for effect in effects {
        let error = match effect {
            Effect::Delay(wait) => {
                tokio::time::sleep(wait).await;
                continue;
            }
            Effect::LoseAnswer => {
                lose_answer = true;
                continue;
            }
            Effect::ActThenFail(status) => {
                replace = Some(AwsError::internal(&asked.service, status));
                continue;
            }
            Effect::HangUp => return Err(HangUp),
            Effect::Silence => std::future::pending().await,
            Effect::Answer(answer) => {
                let answer = render::verbatim(answer);
                note(shared, call, answer.status().as_u16(), None);
                return Ok(answer);
            }
            Effect::Throttle => AwsError::throttled(&asked.service),
            Effect::ServerError(status) => AwsError::internal(&asked.service, status),
            Effect::Error {
                status,
                code,
                message,
            } => AwsError::new(status, &code, message),
        };
        note(shared, call, error.status, Some(&error));
        return Ok(render::error(
            shared,
            &asked.service,
            asked.wants_json(),
            &error,
        ));
    }
    let acted = act(shared, &asked, call).await;
    let (status, error) = match &acted {
        Ok(_) => (200, None),
        Err(error) => (error.status, Some(error)),
    };
    note(shared, call, status, error);
    if lose_answer {
        return Err(HangUp);
    }
    let acted = replace.map_or(acted, Err);
    Ok(match acted {
        Ok(value) => render::answer(
            shared,
            &asked.service,
            &asked.action,
            asked.wants_json(),
            &value,
        ),
        Err(error) => render::error(shared, &asked.service, asked.wants_json(), &error),
    })
}

fn note(shared: &Shared, call: usize, status: u16, error: Option<&AwsError>) {
    shared.change(|state, _| {
        if let Some(call) = state.calls.get_mut(call) {
            call.status = Some(status);
            call.error = error.map(|error| error.code.clone());
            if status == 200 {
                let action = call.action.clone();
                *state.served.entry(action).or_default() += 1;
            }
        }
    });
}

/// Checks a call and carries it out.
async fn act(shared: &Shared, asked: &Asked, call: usize) -> Result<Value, AwsError> {
    let Some(service) = shared.models.get(&asked.service) else {
        shared.violation(format!("{}: a service that we don't know", asked.name()));
        return Err(AwsError::client("InvalidAction", "no such service"));
    };
    let (place, principal) = authenticate(shared, asked)?;
    let parameters = parameters(shared, service, asked)?;
    shared.quietly(|state| {
        if let Some(call) = state.calls.get_mut(call) {
            call.account = Some(principal.account.clone());
            call.parameters = parameters.clone();
        }
    });
    let admitted = Admitted {
        service: asked.service.clone(),
        action: asked.action.clone(),
        place,
        principal,
        parameters,
    };
    let answered = if asked.action == "ReceiveMessage" {
        sqs::receive(shared, &admitted).await
    } else {
        shared.change(|state, now| dispatch::run(state, &admitted, &shared.url, now))
    };
    if let Err(error) = &answered
        && error.code == dispatch::UNSUPPORTED
    {
        shared.violation(format!("{}: {}", asked.name(), error.message));
    }
    let operation = service.operations.get(&asked.action);
    if let (Ok(value), Some(shape)) = (&answered, operation.and_then(|known| known.output.as_ref()))
    {
        for wrong in service.check(shape, value) {
            let text = wrong.text;
            shared.violation(format!("the fake's answer to {}: {text}", asked.name()));
        }
    }
    answered
}

/// Who calls, and where.
fn authenticate(shared: &Shared, asked: &Asked) -> Result<(Place, Principal), AwsError> {
    let refused = |refusal: Refusal| refusal.error(&asked.service);
    let authorization = asked
        .authorization
        .as_ref()
        .ok_or_else(|| refused(Refusal::Incomplete))?;
    let signed = Signed {
        method: asked.parts.method.as_str(),
        path: asked.parts.uri.path(),
        query: asked.parts.uri.query().unwrap_or_default(),
        headers: &asked.parts.headers,
        body: &asked.body,
    };
    let principal = shared
        .quietly(|state| {
            let now = state.options.wall.now();
            state.keys.verify(authorization, &signed, now)
        })
        .map_err(refused)?;
    let place = Place {
        account: principal.account.clone(),
        region: authorization.region.clone(),
    };
    if !shared.options.regions.contains(&place.region) {
        return Err(refused(Refusal::Mismatch));
    }
    Ok((place, principal))
}

/// The parameters in the model's names. What is wrong with them is a violation, and an error.
fn parameters(shared: &Shared, service: &Service, asked: &Asked) -> Result<Value, AwsError> {
    let Some(operation) = service.operations.get(&asked.action) else {
        shared.violation(format!("{}: a call that we don't know", asked.name()));
        return Err(AwsError::client(
            "InvalidAction",
            format!(
                "The action {} is not valid for this web service.",
                asked.action
            ),
        ));
    };
    let (mut wrong, parameters) = envelope(service, asked);
    let parameters = match (parameters, &operation.input) {
        (Some(parameters), _) => parameters,
        (None, Some(input)) => {
            let (parameters, flaws) = query::parse(service, input, &asked.form);
            wrong.extend(flaws);
            parameters
        }
        (None, None) => json!({}),
    };
    if let Some(input) = &operation.input {
        wrong.extend(service.check(input, &parameters));
    }
    let Some(first) = wrong.first() else {
        return Ok(parameters);
    };
    let error = flawed(&asked.service, first);
    for Wrong { at, text, .. } in &wrong {
        shared.violation(format!("{}: {at}: {text}", asked.name()));
    }
    Err(error)
}

/// What is around the parameters; those themselves where they come as JSON.
fn envelope(service: &Service, asked: &Asked) -> (Vec<Wrong>, Option<Value>) {
    let mut wrong = Vec::new();
    let mut expect = |what: &str, had: &str, wanted: &str| {
        if had != wanted {
            let text = format!("is {had}, not {wanted}");
            wrong.push(Wrong::new(Flaw::Invalid, what, text));
        }
    };
    let content_type = asked.parts.headers.get(header::CONTENT_TYPE);
    let content_type = content_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default();
    expect("method", asked.parts.method.as_str(), "POST");
    expect("path", asked.parts.uri.path(), "/");
    if service.protocol == Protocol::Json {
        let version = if asked.service == "sqs" { "1.0" } else { "1.1" };
        let wanted = format!("application/x-amz-json-{version}");
        expect("content-type", content_type, &wanted);
        let target = asked.parts.headers.get("x-amz-target");
        let target = target.and_then(|value| value.to_str().ok());
        let wanted = service.target.as_deref().unwrap_or_default();
        let wanted = format!("{wanted}.{}", asked.action);
        expect("x-amz-target", target.unwrap_or_default(), &wanted);
        let parameters = serde_json::from_slice(&asked.body).unwrap_or(Value::Null);
        return (wrong, Some(parameters));
    }
    expect(
        "content-type",
        content_type,
        "application/x-www-form-urlencoded",
    );
    let versions = asked.form.iter().filter(|(name, _)| name == "Version");
    let versions: Vec<&str> = versions.map(|(_, value)| value.as_str()).collect();
    expect("Version", &versions.join(", "), &service.version);
    let actions = asked.form.iter().filter(|(name, _)| name == "Action");
    expect("number of Actions", &actions.count().to_string(), "1");
    (wrong, None)
}

/// The error that AWS answers to a request that departs from its model.
fn flawed(service: &str, wrong: &Wrong) -> AwsError {
    let Wrong { flaw, at, text } = wrong;
    let (code, message) = match (service, flaw) {
        ("ec2", Flaw::Unknown) => (
            "UnknownParameter",
            format!("The parameter {at} is not recognized"),
        ),
        ("ec2", Flaw::Missing) => (
            "MissingParameter",
            format!("The request must contain the parameter {at}"),
        ),
        ("ec2", Flaw::Invalid) => ("InvalidParameterValue", format!("{at}: {text}")),
        ("sts", _) => ("ValidationError", format!("{at}: {text}")),
        _ => ("ValidationException", format!("{at}: {text}")),
    };
    AwsError::client(code, message)
}
