//! The agents' service: what they say becomes events, what the core wants goes down to them.

mod events;
mod rations;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::Map;
use futures::{Stream, StreamExt as _};
use jiff::Timestamp;
use muster_core::LaunchId;
use muster_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use muster_proto::v1::{
    RenewCertificateRequest, RenewCertificateResponse, SessionRequest, SessionResponse,
};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};

use self::rations::Rations;
use self::stream::Session;
use super::authorize::{self, Refused, Validity};
use super::time::to_wire;
use crate::clock;
use crate::engine::{Engine, Stopped};
use crate::identity::csr::RequestedKey;
use crate::identity::serving::PresentAuthority;
use crate::identity::spiffe::AgentId;
use crate::presence::{Presence, Standing};

/// What goes down to an agent. On the heap, as a channel has places for 32 of them, full or not.
type Answer = Box<Result<SessionResponse, Status>>;

/// Messages on their way from a session to its connection.
const OUT_CAPACITY: usize = 4;
/// Most bytes of a message: both tails of a runner's end, of 64 KiB each, and room for the rest. An end that
/// is refused would be said again and again.
const MAX_MESSAGE: usize = 256 * 1024;
/// Renewals of a certificate that may come one after the other.
const RENEWALS: u32 = 8;
/// Renewals in one life of a certificate beside those. An agent renews once in half of it; more often is one
/// whose answers are lost, or somebody who keeps the authority's key busy.
const RENEWALS_IN_A_LIFE: u32 = 16;
/// How long the ledger is waited for before a renewal, which has to be answered while the agent waits: 10 s.
const LEDGER: Duration = Duration::from_secs(2);
/// Sessions that a launch may open one after the other: each is written down.
const OPENS: u32 = 32;
/// Time from one more to the next. An agent that fails to connect waits about as long between its tries.
const OPEN_EVERY: Duration = Duration::from_secs(5);

/// What agents are told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentSettings {
    /// Time between two heartbeats.
    pub heartbeat_interval: Duration,
    /// How long before an interruption a busy runner is told to stop its job.
    pub interrupt_lead: Duration,
    /// How long a runner that was told to stop may take before it is killed.
    pub stop_grace: Duration,
    /// When the coordinator stops: agents come back after a random wait up to this.
    pub reconnect_within: Duration,
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(5),
            interrupt_lead: Duration::from_secs(45),
            stop_grace: Duration::from_secs(30),
            reconnect_within: Duration::from_secs(5),
        }
    }
}

/// Serves the agents.
#[derive(Clone, Debug)]
pub struct Agents {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engine: Engine,
    presence: Presence,
    authority: PresentAuthority,
    settings: AgentSettings,
    renewals: Rations,
    opens: Rations,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Agents {
    /// A service whose sessions run in `tasks` until they end or `stop` is cancelled.
    #[must_use]
    pub fn new(
        engine: Engine,
        presence: Presence,
        authority: PresentAuthority,
        settings: AgentSettings,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                engine,
                presence,
                renewals: Rations::new(RENEWALS, authority.get().agent_ttl() / RENEWALS_IN_A_LIFE),
                opens: Rations::new(OPENS, OPEN_EVERY),
                authority,
                settings,
                stop,
                tasks,
            }),
        }
    }

    /// The service with its limits, to be put on the agents' listener.
    #[must_use]
    pub fn into_service(self) -> AgentServiceServer<Self> {
        AgentServiceServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// Starts a session; answers with what it says.
    fn open(&self, caller: Caller, requests: impl Requests) -> mpsc::Receiver<Answer> {
        let Caller {
            launch,
            validity,
            heard_at,
            heard_through,
            lifetime,
        } = caller;
        let (out, stream) = mpsc::channel(OUT_CAPACITY);
        let session = Session {
            shared: Arc::clone(&self.shared),
            launch,
            validity,
            heard_at,
            heard_through,
            lifetime,
            runner_name: String::new(),
            out,
        };
        self.shared.tasks.spawn(session.run(requests));
        stream
    }

    /// A session of an agent that needs no connection.
    #[cfg(test)]
    pub(crate) async fn simulated(
        &self,
        id: &AgentId,
        validity: Validity,
        requests: impl Requests,
    ) -> Result<mpsc::Receiver<Answer>, Status> {
        let caller = self.shared.caller(id, validity).await?;
        Ok(self.open(caller, requests))
    }
}

/// What an agent says, as it comes.
pub(crate) trait Requests:
    Stream<Item = Result<SessionRequest, Status>> + Send + Unpin + 'static
{
}

impl<S: Stream<Item = Result<SessionRequest, Status>> + Send + Unpin + 'static> Requests for S {}

#[tonic::async_trait]
impl AgentService for Agents {
    type SessionStream = Map<ReceiverStream<Answer>, fn(Answer) -> Result<SessionResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (id, validity) = authorize::agent(&request)?;
        let caller = self.shared.caller(&id, validity).await?;
        if !self.shared.opens.take(&caller.launch) {
            warn!(launch = %caller.launch, "an agent opens sessions again and again; it has to wait");
            return Err(Status::resource_exhausted(
                "sessions were opened often enough for now",
            ));
        }
        authorize::caller(&request)?.opened(&caller.launch);
        let stream = self.open(caller, request.into_inner());
        let unboxed: fn(Answer) -> _ = |answer| *answer;
        Ok(Response::new(ReceiverStream::new(stream).map(unboxed)))
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateResponse>, Status> {
        let (id, validity) = authorize::agent(&request)?;
        let streams_for = authorize::caller(&request)?.streams_for();
        let launch = self.shared.renewing(&id, &validity, streams_for).await?;
        if !self.shared.renewals.take(&launch) {
            warn!(%launch, "an agent renews its certificate again and again; it has to wait");
            return Err(Status::resource_exhausted(
                "the certificate was renewed often enough for now",
            ));
        }
        let key = RequestedKey::from_csr(&request.get_ref().csr_der)
            .map_err(|error| Status::invalid_argument(format!("csr_der: {error}")))?;
        let authority = self.shared.authority.get();
        let issued = authority.agent(&id, &key, clock::now()).map_err(|error| {
            warn!(%launch, %error, "no certificate could be issued");
            Status::internal("the certificate can't be issued")
        })?;
        let trusted = authority.trust_anchors().len();
        debug!(%launch, issuing = authority.fingerprint(), trusted, "a certificate was renewed");
        Ok(Response::new(RenewCertificateResponse {
            certificate_der: issued.certificate.to_vec(),
            trust_anchors_der: authority
                .trust_anchors()
                .iter()
                .map(|anchor| anchor.to_vec())
                .collect(),
            not_after: Some(to_wire(issued.not_after)),
        }))
    }
}

/// What a call speaks for.
struct Caller {
    launch: LaunchId,
    /// For how long its certificate counts.
    validity: Validity,
    /// When it came: whoever calls is there.
    heard_at: Timestamp,
    /// Number of the last of its agent's events that is stored.
    heard_through: u64,
    /// How long its pool lets it live.
    lifetime: Option<Duration>,
}

impl Shared {
    async fn caller(&self, id: &AgentId, validity: Validity) -> Result<Caller, Status> {
        let heard_at = clock::now();
        let (name, sought) = (id.to_string(), id.clone());
        let found = self
            .engine
            .query(move |fleet| {
                let launch = authorize::launch_of(fleet, &sought)?;
                let runner = fleet.runner(&launch);
                let heard_through = runner.map_or(0, |runner| runner.heard_through);
                let pool = runner.and_then(|runner| fleet.pool(&runner.pool));
                let lifetime = pool.map(|pool| pool.limits.lifetime);
                Ok::<_, Refused>((launch, heard_through, lifetime))
            })
            .await
            .map_err(|Stopped| stopping())?;
        let (launch, heard_through, lifetime) = found.inspect_err(|refused| {
            warn!(id = name, %refused, "a certificate was refused");
        })?;
        Ok(Caller {
            launch,
            validity,
            heard_at,
            heard_through,
            lifetime,
        })
    }

    /// The launch that an agent's new certificate will speak for.
    ///
    /// While the store is out of order the ledger doesn't answer, for longer perhaps than certificates live, and
    /// agents that lose theirs can't come back. So a stream that this process holds open vouches for the certificate
    /// that it was opened with, as long as the work isn't known to be over. What comes of it is no more than the old
    /// certificate was: the ledger is asked at each call that it is used for.
    async fn renewing(
        &self,
        id: &AgentId,
        validity: &Validity,
        streams_for: Option<&LaunchId>,
    ) -> Result<LaunchId, Status> {
        if let Ok(caller) = timeout(LEDGER, self.caller(id, validity.clone())).await {
            return Ok(caller?.launch);
        }
        // The ledger was waited for.
        validity.check(clock::now())?;
        let standing = streams_for.map(|launch| (launch, self.presence.standing(launch)));
        match standing {
            Some((launch, Standing::Connected)) => {
                debug!(%launch, "the ledger doesn't answer: the open stream vouches for the agent");
                Ok(launch.clone())
            }
            Some((launch, Standing::Revoked)) => {
                let refused = Refused::Over(id.instance().to_owned());
                warn!(%launch, %refused, "a certificate was refused");
                Err(refused.into())
            }
            Some((_, Standing::Away)) | None => Err(Status::unavailable(
                "the ledger doesn't answer and no stream vouches for the agent: come again",
            )),
        }
    }
}

fn stopping() -> Status {
    Status::unavailable("the coordinator is stopping")
}
