//! An STS on loopback that verifies signatures by itself, keeps every byte that came, and can be told to
//! misbehave.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use aws_lc_rs::{digest, hmac};
use muster_proto::sts;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use url::Url;

/// What somebody's credentials are, and who that is.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) access_key_id: String,
    pub(crate) secret: String,
    pub(crate) token: String,
    pub(crate) account: String,
    pub(crate) arn: String,
    pub(crate) user_id: String,
}

impl Credentials {
    /// The instance identity role's.
    pub(crate) fn of_instance(account: &str, instance: &str) -> Self {
        Self::named(
            account,
            format!("arn:aws:sts::{account}:assumed-role/aws:ec2-instance/{instance}"),
            format!("{account}:aws:ec2-instance:{instance}"),
        )
    }

    /// A session of a role, with this name.
    pub(crate) fn of_role(account: &str, role: &str, session: &str) -> Self {
        Self::named(
            account,
            format!("arn:aws:sts::{account}:assumed-role/{role}/{session}"),
            format!("AROAEXAMPLE{account}:{session}"),
        )
    }

    pub(crate) fn named(account: &str, arn: String, user_id: String) -> Self {
        let hash = hex(digest::digest(&digest::SHA256, arn.as_bytes()).as_ref());
        Self {
            access_key_id: format!("ASIA{}", hash[..16].to_uppercase()),
            secret: format!("secret/{hash}"),
            token: format!("TOKEN+/{hash}=="),
            account: account.to_owned(),
            arn,
            user_id,
        }
    }
}

/// What the next request meets.
#[derive(Clone, Debug)]
pub(crate) enum Play {
    /// This status and this body.
    Answer(u16, String),
    /// The same, with more lines in its head.
    With(u16, String, String),
    /// Pieces of a body, for as long as they are taken.
    Endless,
    /// No answer at all.
    Silence,
    /// The connection is closed.
    HangUp,
}

/// A request, byte for byte and taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) line: String,
    /// In their order, as they were written.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} came twice");
        value
    }
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<String, Credentials>,
    script: VecDeque<Play>,
    seen: Vec<Seen>,
    open: usize,
    most_open: usize,
}

/// The running fake. Ends when dropped.
pub(crate) struct FakeSts {
    pub(crate) url: Url,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

impl FakeSts {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self {
            url: url.parse().unwrap(),
            state,
            _tasks: tasks,
        }
    }

    pub(crate) fn know(&self, credentials: &Credentials) {
        let key = credentials.access_key_id.clone();
        self.lock().known.insert(key, credentials.clone());
    }

    pub(crate) fn play(&self, plays: impl IntoIterator<Item = Play>) {
        self.lock().script.extend(plays);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// Most requests that were open at a time.
    pub(crate) fn most_open(&self) -> usize {
        self.lock().most_open
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) -> Option<()> {
    loop {
        let seen = read(&mut stream).await?;
        let play = {
            let mut state = state.lock().unwrap();
            state.open += 1;
            state.most_open = state.most_open.max(state.open);
            state.seen.push(seen.clone());
            state.script.pop_front()
        };
        let (status, head, body) = match play {
            Some(Play::Answer(status, body)) => (status, String::new(), body),
            Some(Play::With(status, head, body)) => (status, head, body),
            Some(Play::HangUp) => {
                state.lock().unwrap().open -= 1;
                return None;
            }
            Some(Play::Endless) => {
                let head = "HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).await.ok()?;
                loop {
                    let piece = format!("400\r\n{}\r\n", " ".repeat(0x400));
                    stream.write_all(piece.as_bytes()).await.ok()?;
                }
            }
            Some(Play::Silence) => std::future::pending().await,
            None => {
                let known = state.lock().unwrap().known.clone();
                let (status, body) = verify(&seen, &known);
                (status, String::new(), body)
            }
        };
        tokio::task::yield_now().await;
        state.lock().unwrap().open -= 1;
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} x\r\n{head}content-length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut raw = Vec::new();
    let end = loop {
        if let Some(at) = raw.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut raw).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(raw[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let line = lines.next()?.to_owned();
    let headers: Vec<(String, String)> = lines
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        })
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(0, |(_, length)| length.parse().unwrap());
    let mut body = raw.split_off(end + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Seen {
        line,
        headers,
        body,
    })
}

/// The answer of the real one to a request that is signed well.
pub(crate) fn success(who: &Credentials) -> String {
    format!(
        r#"{{"GetCallerIdentityResponse":{{"GetCallerIdentityResult":{{"Account":"{}","Arn":"{}","UserId":"{}"}},"ResponseMetadata":{{"RequestId":"01234567-89ab-cdef-0123-456789abcdef"}}}}}}"#,
        who.account, who.arn, who.user_id
    )
}

/// The answer of the real one to one that isn't.
pub(crate) fn failure(code: &str) -> String {
    format!(
        r#"{{"Error":{{"Code":"{code}","Message":"as it is","Type":"Sender"}},"RequestId":"01234567-89ab-cdef-0123-456789abcdef"}}"#
    )
}

fn verify(seen: &Seen, known: &HashMap<String, Credentials>) -> (u16, String) {
    match verified(seen, known) {
        Ok(who) => (200, success(&who)),
        Err(code) => (403, failure(code)),
    }
}

fn verified(
    seen: &Seen,
    known: &HashMap<String, Credentials>,
) -> Result<Credentials, &'static str> {
    const MALFORMED: &str = "IncompleteSignature";
    let authorization = seen
        .header("authorization")
        .ok_or("MissingAuthenticationToken")?;
    let fields = authorization
        .strip_prefix("AWS4-HMAC-SHA256 ")
        .ok_or(MALFORMED)?;
    let fields: BTreeMap<&str, &str> = fields
        .split(", ")
        .filter_map(|field| field.split_once('='))
        .collect();
    let scope: Vec<&str> = fields
        .get("Credential")
        .ok_or(MALFORMED)?
        .split('/')
        .collect();
    let [key, date, region, "sts", "aws4_request"] = scope.as_slice() else {
        return Err(MALFORMED);
    };
    let who = known.get(*key).ok_or("InvalidClientTokenId")?;
    if seen.header("x-amz-security-token") != Some(&who.token) {
        return Err("InvalidClientTokenId");
    }
    if seen.header("host") != Some(&sts::host(region)) {
        return Err("SignatureDoesNotMatch");
    }
    let amz_date = seen.header("x-amz-date").ok_or(MALFORMED)?;
    if !amz_date.starts_with(date) {
        return Err("SignatureDoesNotMatch");
    }
    let signed: Vec<&str> = fields
        .get("SignedHeaders")
        .ok_or(MALFORMED)?
        .split(';')
        .collect();
    let headers: Vec<(&str, &str)> = signed
        .iter()
        .map(|name| Some((*name, seen.header(name)?)))
        .collect::<Option<_>>()
        .ok_or("SignatureDoesNotMatch")?;
    let (method, path) = seen
        .line
        .strip_suffix(" HTTP/1.1")
        .and_then(|line| line.split_once(' '))
        .ok_or(MALFORMED)?;
    let signature = sign(&who.secret, region, (method, path), &headers, &seen.body);
    if fields.get("Signature") != Some(&signature.as_str()) {
        return Err("SignatureDoesNotMatch");
    }
    Ok(who.clone())
}

/// Signature Version 4 over headers that are sorted and lower case, one of which is `x-amz-date`.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>
pub(crate) fn sign(
    secret: &str,
    region: &str,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: &[u8],
) -> String {
    let sha256 = |bytes: &[u8]| hex(digest::digest(&digest::SHA256, bytes).as_ref());
    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let canonical = format!("{method}\n{path}\n\n{lines}\n{names}\n{}", sha256(body));
    let at = headers
        .iter()
        .find(|(name, _)| *name == "x-amz-date")
        .unwrap()
        .1;
    let date = &at[..8];
    let hash = sha256(canonical.as_bytes());
    let text = format!("AWS4-HMAC-SHA256\n{at}\n{date}/{region}/sts/aws4_request\n{hash}");
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in [date, region, "sts", "aws4_request"] {
        key = mac(&key, part.as_bytes());
    }
    hex(&mac(&key, text.as_bytes()))
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text).as_ref().to_vec()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
