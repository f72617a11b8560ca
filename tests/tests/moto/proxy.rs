//! What can happen to a call between the SDK and AWS.
//!
//! A proxy of our own and not one from PyPI (microburst): it breaks connections where we say, to the
//! byte, it costs nothing to start, and its rules and its log are values of the test.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use url::Url;

const PATIENCE: Duration = Duration::from_secs(60);

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection breaks before AWS hears of it.
    NeverArrives,
    /// It is carried out, and the connection breaks before the answer.
    AnswerLost,
    /// It is carried out, and the connection breaks in the middle of the answer.
    AnswerCut,
    /// It is carried out, and the answer never comes.
    AnswerWithheld,
    /// It is not carried out; the answer is this error of EC2.
    Error(u16, &'static str),
    /// It is not carried out; the answer is a page that some load balancer wrote.
    Page(u16),
}

/// A call as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) action: String,
    pub(crate) token: Option<String>,
    pub(crate) fault: Option<Fault>,
}

/// The proxy. Ends with this value.
#[derive(Debug)]
pub(crate) struct Proxy {
    url: Url,
    state: Arc<State>,
    _serving: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    upstream: u16,
    rules: Mutex<Rules>,
    seen: Mutex<Vec<Seen>>,
}

#[derive(Debug, Default)]
struct Rules {
    /// The next calls of an action, in order.
    next: VecDeque<(String, Fault)>,
    /// For calls that no rule is for: the fault of this one, if any, by its number.
    storm: Option<fn(u64, u64) -> Option<Fault>>,
    seed: u64,
    calls: u64,
}

type Body = BoxBody<Bytes, io::Error>;

impl Proxy {
    /// A proxy before the server on this port.
    pub(crate) async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            upstream,
            rules: Mutex::default(),
            seen: Mutex::default(),
        });
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&state)));
        Self {
            url: url.parse().unwrap(),
            state,
            _serving: serving,
        }
    }

    pub(crate) fn url(&self) -> Url {
        self.url.clone()
    }

    /// What happens to the next call of an action that nothing is planned for yet.
    pub(crate) fn next(&self, action: &str, fault: Fault) {
        let mut rules = self.state.rules.lock().unwrap();
        rules.next.push_back((action.to_owned(), fault));
    }

    /// What happens to all other calls, chosen by a seed and the number of the call.
    pub(crate) fn storm(&self, seed: u64, storm: fn(u64, u64) -> Option<Fault>) {
        let mut rules = self.state.rules.lock().unwrap();
        rules.seed = seed;
        rules.storm = Some(storm);
    }

    /// Nothing happens any more.
    pub(crate) fn calm(&self) {
        *self.state.rules.lock().unwrap() = Rules::default();
    }

    /// The calls of an action so far.
    pub(crate) fn seen(&self, action: &str) -> Vec<Seen> {
        let mut seen = self.state.seen.lock().unwrap().clone();
        seen.retain(|one| one.action == action);
        seen
    }

    /// Waits until so many calls of an action came.
    pub(crate) async fn wait_for(&self, action: &str, calls: usize) {
        let enough = async {
            while self.seen(action).len() < calls {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let came = timeout(PATIENCE, enough).await;
        came.unwrap_or_else(|_| panic!("{} calls of {action}", self.seen(action).len()));
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&state)));
            // Broken connections are what it is for.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// Answers, or breaks the connection by an error.
async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
) -> Result<Response<Body>, io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let mut seen = read(&parts.headers, &body);
    let fault = state.rules.lock().unwrap().choose(&seen.action);
    seen.fault = fault;
    state.seen.lock().unwrap().push(seen);

    let broken = || io::Error::other("broken on purpose");
    match fault {
        Some(Fault::NeverArrives) => return Err(broken()),
        Some(Fault::Error(status, code)) => {
            let text = format!(
                "<Response><Errors><Error><Code>{code}</Code><Message>on purpose</Message></Error></Errors>\
                 <RequestID>r</RequestID></Response>"
            );
            return Ok(page(status, text));
        }
        Some(Fault::Page(status)) => {
            return Ok(page(status, "<html>Bad gateway</html>".to_owned()));
        }
        _ => {}
    }
    let request = Request::from_parts(parts, Full::new(body));
    let response = forward(request, state.upstream).await?;
    match fault {
        Some(Fault::AnswerLost) => Err(broken()),
        Some(Fault::AnswerWithheld) => std::future::pending().await,
        Some(Fault::AnswerCut) => {
            let (mut parts, body) = response.into_parts();
            let half = body.slice(..body.len() / 2);
            parts.headers.insert("content-length", body.len().into());
            let frames = stream::iter([Ok(Frame::data(half)), Err(broken())]);
            Ok(Response::from_parts(parts, StreamBody::new(frames).boxed()))
        }
        _ => Ok(response.map(whole)),
    }
}

fn whole(body: Bytes) -> Body {
    Full::new(body)
        .map_err(|never: Infallible| match never {})
        .boxed()
}

fn page(status: u16, text: String) -> Response<Body> {
    let mut response = Response::new(whole(text.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

async fn forward(
    request: Request<Full<Bytes>>,
    upstream: u16,
) -> Result<Response<Bytes>, io::Error> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let (parts, body) = response.into_parts();
        Ok::<_, hyper::Error>(Response::from_parts(
            parts,
            body.collect().await?.to_bytes(),
        ))
    };
    // The connection ends when the exchange drops its sender.
    let (response, _) = futures::join!(exchange, connection);
    response.map_err(io::Error::other)
}

/// What a call is: its name is in the body, or in a header.
fn read(headers: &http::HeaderMap, body: &[u8]) -> Seen {
    let fields: Vec<(String, String)> = url::form_urlencoded::parse(body).into_owned().collect();
    let field = |name: &str| {
        let found = fields.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    };
    let target = headers
        .get("x-amz-target")
        .and_then(|value| value.to_str().ok());
    let named = target.and_then(|target| Some(target.split_once('.')?.1.to_owned()));
    Seen {
        action: named.or_else(|| field("Action")).unwrap_or_default(),
        token: field("ClientToken"),
        fault: None,
    }
}

impl Rules {
    fn choose(&mut self, action: &str) -> Option<Fault> {
        if let Some(at) = self.next.iter().position(|(name, _)| name == action) {
            return self.next.remove(at).map(|(_, fault)| fault);
        }
        self.calls += 1;
        self.storm.and_then(|storm| storm(self.seed, self.calls))
    }
}
