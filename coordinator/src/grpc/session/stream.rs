//! One stream of one agent, from its hello to its last words.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::{FutureExt as _, TryStreamExt as _};
use jiff::Timestamp;
use muster_core::{Event, LaunchId};
use muster_proto::v1::session_request::Message as Said;
use muster_proto::v1::session_response::Message as Told;
use muster_proto::v1::{
    Acknowledge, AgentEvent, Configure, Hello, Reconnect, SessionRequest, SessionResponse,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use tracing::{info, warn};

use super::{AgentSettings, Answer, Requests, Shared, events, stopping};
use crate::clock;
use crate::engine::Stopped;
use crate::grpc::authorize::{Refused, Validity};
use crate::grpc::time::duration;
use crate::presence::{Connection, Ended};

/// Messages that are still taken from an agent that has left: more than one has that waits for a store.
const HEARD_OUT: usize = 1_000;
/// How long a new stream may take to say hello.
const HELLO: Duration = Duration::from_secs(10);
/// How long a message may wait for an agent that does not read.
const SEND: Duration = Duration::from_secs(10);
/// How long each of the last words may wait.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long an agent whose work is over may go on: to end what it runs and to say so.
const LAST_REPORTS: Duration = Duration::from_secs(1);

/// One stream.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) launch: LaunchId,
    /// For how long the certificate that it was opened with counts.
    pub(super) validity: Validity,
    /// When the agent was there for sure, for the last time.
    pub(super) heard_at: Timestamp,
    /// Number of the last of the agent's events that was stored when the stream was opened.
    pub(super) heard_through: u64,
    /// How long its pool lets it live.
    pub(super) lifetime: Option<Duration>,
    /// Name of the agent's runner, for the log; empty until it has one.
    pub(super) runner_name: String,
    pub(super) out: mpsc::Sender<Answer>,
}

/// Why a stream ends.
#[derive(Debug)]
enum End {
    /// The agent closed it, or the connection broke.
    Left,
    /// The agent does not read.
    Stalled,
    /// The agent was silent, does not read, or was forgotten; or a newer stream took over.
    Cut,
    /// The work of the instance is over, so that its certificate counts no more.
    Over,
    /// The certificate counts no more: it has expired, or its authority was dropped.
    Invalid(Refused),
    /// The coordinator stops.
    Stopping,
    /// The agent does not keep to the protocol.
    Protocol(&'static str),
}

impl From<Stopped> for End {
    fn from(Stopped: Stopped) -> Self {
        Self::Stopping
    }
}

impl Session {
    /// Serves the stream until it ends, for whatever reason.
    ///
    /// Most streams only wait for the next message, and there are thousands: what is awaited seldom is on the heap
    /// meanwhile, and not in each of them all the time.
    pub(super) async fn run(mut self, mut requests: impl Requests) {
        let hello = match Box::pin(self.hello(&mut requests)).await {
            Ok(hello) => hello,
            Err(end) => return Box::pin(self.close(&end, Ended::Last)).await,
        };
        let end;
        let ended;
        match Box::pin(self.open(&hello)).await {
            Err(stopped) => (end, ended) = (stopped, Ended::Last),
            Ok((connection, mut messages)) => {
                end = match self
                    .converse(&connection, &mut requests, &mut messages)
                    .await
                {
                    Ok(never) => match never {},
                    Err(end) => end,
                };
                if matches!(end, End::Left) {
                    Box::pin(self.hear_out(&connection, &mut requests)).await;
                }
                ended = Box::pin(self.lost(connection, &end)).await;
            }
        }
        Box::pin(self.close(&end, ended)).await;
    }

    async fn hello(&self, requests: &mut impl Requests) -> Result<Hello, End> {
        let first = tokio::select! {
            biased;
            () = self.shared.stop.cancelled() => return Err(End::Stopping),
            first = timeout(HELLO, requests.try_next()) => first,
        };
        match first {
            Ok(Ok(Some(request))) => match request.message {
                Some(Said::Hello(hello)) => Ok(hello),
                _ => Err(End::Protocol("the first message must be hello")),
            },
            Ok(Ok(None) | Err(_)) => Err(End::Left),
            Err(_) => Err(End::Protocol("no hello in time")),
        }
    }

    /// Registers the stream and tells the core, in one turn.
    async fn open(
        &mut self,
        hello: &Hello,
    ) -> Result<(Connection, mpsc::Receiver<Box<SessionResponse>>), End> {
        let assignment = events::runner_name(&hello.runner_name);
        if let Some(name) = &assignment {
            name.as_str().clone_into(&mut self.runner_name);
        }
        let phase = events::phase_of_hello(hello);
        info!(
            launch = %self.launch,
            runner = self.runner_name,
            agent_version = events::shortened(&hello.agent_version, 64),
            runner_version = events::shortened(&hello.runner_version, 64),
            ?phase,
            "agent connected"
        );
        let turn = self.shared.presence.turn(&self.launch);
        // While the store is out of order a turn takes long, and agents come again and again: those who have
        // left don't wait in line.
        let _held = tokio::select! {
            biased;
            () = self.out.closed() => return Err(End::Left),
            held = turn.lock() => held,
        };
        // Before anybody can send to the stream: the settings are its first message.
        self.tell(Told::Configure(configure(
            &self.shared.settings,
            self.lifetime,
        )))
        .await?;
        let (connection, messages) = self.shared.presence.connect(&self.launch);
        if connection.acknowledged().is_none() && self.heard_through > 0 {
            // Its first stream to this process: what it said to the one before is not asked for again.
            connection.acknowledge(Some(self.heard_through));
        }
        if connection
            .acknowledged()
            .is_some_and(|known| known > hello.last_sequence)
        {
            warn!(launch = %self.launch, "the agent counts its events anew");
            connection.acknowledge(None);
            let anew = Event::CountsAnew {
                launch: self.launch.clone(),
            };
            connection.unread(self.submit(anew)).await?;
        }
        let connected = Event::AgentConnected {
            launch: self.launch.clone(),
            phase,
            assignment,
            heard_at: self.heard_at,
        };
        connection.unread(self.submit(connected)).await?;
        Ok((connection, messages))
    }

    async fn converse(
        &mut self,
        connection: &Connection,
        requests: &mut impl Requests,
        messages: &mut mpsc::Receiver<Box<SessionResponse>>,
    ) -> Result<std::convert::Infallible, End> {
        let stop = self.shared.stop.clone();
        let out = self.out.clone();
        let mut invalid = std::pin::pin!(self.validity.clone().ended());
        let mut over = std::pin::pin!(sleep(LAST_REPORTS));
        let mut is_over = false;
        let mut quiet_at = self.heard_at;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(End::Stopping),
                refused = &mut invalid => return Err(End::Invalid(refused)),
                () = out.closed() => return Err(End::Left),
                () = &mut over, if is_over => return Err(End::Over),
                message = messages.recv(), if !is_over => {
                    match message.and_then(|response| response.message) {
                        Some(message) => Box::pin(self.tell(message)).await?,
                        None if connection.is_revoked() => {
                            is_over = true;
                            over.as_mut().reset(Instant::now() + LAST_REPORTS);
                        }
                        None => return Err(End::Cut),
                    }
                }
                (request, heard_at) = next(requests, &mut quiet_at) => {
                    let Ok(Some(request)) = request else {
                        return Err(End::Left);
                    };
                    self.heard_at = heard_at;
                    let now = clock::now();
                    self.validity.check(now).map_err(End::Invalid)?;
                    Box::pin(self.heard(connection, request, now)).await?;
                }
            }
        }
    }

    /// Takes what an agent that has left had said before. Nothing is read while an event waits for the store, and an
    /// agent waits only so long for the acknowledgement of its end, which nobody says again.
    async fn hear_out(&mut self, connection: &Connection, requests: &mut impl Requests) {
        for _ in 0..HEARD_OUT {
            // To a newer stream everything is said again.
            if connection.is_superseded() || self.validity.check(clock::now()).is_err() {
                return;
            }
            let Some(Ok(Some(request))) = requests.try_next().now_or_never() else {
                return;
            };
            let Some(Said::Event(event)) = request.message else {
                continue;
            };
            if matches!(self.event(connection, event).await, Err(end) if !matches!(end, End::Left))
            {
                return;
            }
        }
    }

    async fn heard(
        &mut self,
        connection: &Connection,
        request: SessionRequest,
        now: Timestamp,
    ) -> Result<(), End> {
        match request.message {
            Some(Said::Heartbeat(heartbeat)) => {
                connection.heard(now, heartbeat.sample);
                Ok(())
            }
            Some(Said::Event(event)) => {
                connection.heard(now, None);
                self.event(connection, event).await
            }
            Some(Said::Hello(_)) => Err(End::Protocol("a second hello")),
            // Of a kind that this version doesn't know.
            None => {
                connection.heard(now, None);
                Ok(())
            }
        }
    }

    /// Has an event applied unless it was before, and acknowledges it once it is durable.
    async fn event(&mut self, connection: &Connection, event: AgentEvent) -> Result<(), End> {
        let sequence = event.sequence;
        if sequence == 0 {
            return Err(End::Protocol("an event without a sequence number"));
        }
        let known = connection.acknowledged();
        let through = match known {
            Some(known) if sequence <= known => known,
            _ => {
                if known.is_some_and(|known| sequence - known > 1) {
                    warn!(launch = %self.launch, ?known, sequence, "events of the agent are missing");
                }
                connection.unread(self.apply(event)).await?;
                connection.acknowledge(Some(sequence));
                sequence
            }
        };
        self.tell(Told::Acknowledge(Acknowledge {
            through_sequence: through,
        }))
        .await
    }

    async fn apply(&mut self, event: AgentEvent) -> Result<(), End> {
        let sequence = event.sequence;
        events::log(&self.launch, &self.runner_name, &event);
        let Some(event) = events::to_core(&self.launch, event) else {
            return Ok(());
        };
        if let Event::AssignmentAccepted { name, .. } = &event {
            name.as_str().clone_into(&mut self.runner_name);
        }
        self.submit(Event::Said {
            launch: self.launch.clone(),
            sequence,
            heard_at: self.heard_at,
            event: Box::new(event),
        })
        .await
    }

    /// Tells the core that the agent is lost, unless it holds a newer stream. Not when the
    /// coordinator stops: its next start begins with nobody connected.
    async fn lost(&self, connection: Connection, end: &End) -> Ended {
        let turn = connection.turn();
        let _held = turn.lock().await;
        let ended = connection.end();
        if ended == Ended::Last && !matches!(end, End::Stopping) {
            let lost = Event::AgentLost {
                launch: self.launch.clone(),
                heard_at: self.heard_at,
            };
            // A failure means that the coordinator stops.
            let _ = self.shared.engine.submit(lost).await;
        }
        ended
    }

    async fn submit(&self, event: Event) -> Result<(), End> {
        Ok(self.shared.engine.submit(event).await?)
    }

    async fn tell(&self, message: Told) -> Result<(), End> {
        let response = SessionResponse {
            message: Some(message),
        };
        match self.out.send_timeout(Box::new(Ok(response)), SEND).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(End::Stalled),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(End::Left),
        }
    }

    /// Sends the last words; an agent that doesn't read them soon gets none.
    async fn close(self, end: &End, ended: Ended) {
        info!(launch = %self.launch, runner = self.runner_name, ?end, ?ended, "agent's stream ended");
        let status = match (end, ended) {
            (End::Left, _) => return,
            (End::Invalid(refused), _) => refused.clone().into(),
            (End::Cut, Ended::Superseded) => Status::aborted("a newer stream took over"),
            (End::Cut | End::Stalled, _) => {
                Status::unavailable("the agent was silent or did not read")
            }
            (End::Over, _) => Status::permission_denied("the work of the instance is over"),
            (End::Stopping, _) => stopping(),
            (End::Protocol(detail), _) => Status::invalid_argument(*detail),
        };
        let reconnect = matches!(end, End::Stopping).then(|| SessionResponse {
            message: Some(Told::Reconnect(Reconnect {
                within: Some(duration(self.shared.settings.reconnect_within)),
            })),
        });
        for last in reconnect.map(Ok).into_iter().chain([Err(status)]) {
            if self
                .out
                .send_timeout(Box::new(last), LAST_WORDS)
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

/// The next message, and a time at which its agent was there for sure. One that need not be waited for may have come
/// at any time since `quiet_at`, when the last one came that was: nothing is read while an event waits for the store.
async fn next(
    requests: &mut impl Requests,
    quiet_at: &mut Timestamp,
) -> (Result<Option<SessionRequest>, Status>, Timestamp) {
    let mut next = requests.try_next();
    let mut has_waited = false;
    poll_fn(|context| match next.poll_unpin(context) {
        Poll::Ready(next) => {
            if has_waited {
                *quiet_at = clock::now();
            }
            Poll::Ready((next, *quiet_at))
        }
        Poll::Pending => {
            has_waited = true;
            Poll::Pending
        }
    })
    .await
}

fn configure(settings: &AgentSettings, lifetime: Option<Duration>) -> Configure {
    Configure {
        heartbeat_interval: Some(duration(settings.heartbeat_interval)),
        interrupt_lead: Some(duration(settings.interrupt_lead)),
        stop_grace: Some(duration(settings.stop_grace)),
        lifetime: lifetime.map(duration),
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_there_already_is_no_later_sign_of_life() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        clock::simulated::start(at(0));
        let (say, requests) = mpsc::channel(4);
        let mut requests = ReceiverStream::new(requests);
        let mut quiet_at = at(0);
        let anything = || Ok(SessionRequest::default());
        let speaking = tokio::spawn(async move {
            sleep(Duration::from_secs(5)).await;
            for _ in 0..2 {
                say.send(anything()).await.unwrap();
            }
            // It is gone from here on.
        });
        let (said, heard_at) = next(&mut requests, &mut quiet_at).await;
        assert!(matches!((said, heard_at), (Ok(Some(_)), heard) if heard == at(5)));
        speaking.await.unwrap();
        // The store was out of order meanwhile.
        sleep(Duration::from_secs(100)).await;
        for more in [true, false] {
            let (said, heard_at) = next(&mut requests, &mut quiet_at).await;
            assert_eq!((said.unwrap().is_some(), heard_at), (more, at(5)));
        }
    }
}
