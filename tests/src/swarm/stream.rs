//! One stream of one agent, from the connection to its end.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use muster_proto::v1::agent_service_client::AgentServiceClient;
use muster_proto::v1::session_request::Message as Said;
use muster_proto::v1::session_response::Message as Told;
use muster_proto::v1::{Heartbeat, RenewCertificateRequest, SessionRequest, SessionResponse};
use rand::RngExt as _;
use tokio::sync::mpsc;
use tokio::time::{
    Instant, Interval, MissedTickBehavior, interval_at, sleep, sleep_until, timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::agent::Agent;
use super::figures::Figures;
use super::ground::Season;
use super::identity::{Anchor, Identity, Request};
use super::line::{Fate, connect};
use super::plan::{Habit, up_to};

// As the agent has them (`agent/src/session/link.rs`, `agent/src/front/coordinator.rs`).
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const REQUESTS: usize = 16;
const RENEW_AGAIN: Duration = Duration::from_secs(1);
/// Longer than any swarm.
const NEVER: Duration = Duration::from_hours(24);

/// Why a stream ended.
#[derive(Debug)]
pub(super) enum End {
    NoConnection,
    NoAnswer,
    /// The coordinator closed it.
    Closed,
    /// The work of the instance is over, says the coordinator.
    Denied,
    Superseded,
    Failed(Code),
    /// The coordinator asked for another, within this time.
    Reconnect(Duration),
    /// There is a new certificate.
    Renewed(Box<Identity>),
    /// All drop their connections.
    Ordered,
    /// By its habit.
    Vanished,
    /// By its habit; the connection stays.
    HalfOpen,
    /// By its habit, or by the order of all.
    Stormed,
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::PermissionDenied => Self::Denied,
            Code::Aborted => Self::Superseded,
            code => Self::Failed(code),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoConnection => "no connection",
            Self::NoAnswer => "no answer in time",
            Self::Closed => "closed by the coordinator",
            Self::Denied => "denied",
            Self::Superseded => "superseded",
            Self::Failed(code) => return write!(f, "failed with {code:?}"),
            Self::Reconnect(_) => "told to reconnect",
            Self::Renewed(_) => "certificate renewed",
            Self::Ordered => "dropped in a storm",
            Self::Vanished => "vanished",
            Self::HalfOpen => "half-open",
            Self::Stormed => "closed, to come back at once",
        })
    }
}

/// An open stream.
pub(super) struct Link {
    requests: mpsc::Sender<SessionRequest>,
    messages: Streaming<SessionResponse>,
    fate: Fate,
    /// When its connection was begun.
    began: Instant,
    /// Whether the coordinator has said something on it.
    accepted: bool,
    /// Whether it is read from.
    reading: bool,
}

impl Agent {
    /// Holds one stream to its end. Gives it out if its connection is to be kept open.
    pub(super) async fn stream(&mut self) -> (End, Option<Link>) {
        let (mut link, channel) = match self.open().await {
            Ok(opened) => opened,
            Err(end) => return (end, None),
        };
        let end = match self.hold(&mut link, channel).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        let kept = matches!(end, End::HalfOpen).then_some(link);
        (end, kept)
    }

    async fn open(&mut self) -> Result<(Link, Channel), End> {
        let began = Instant::now();
        let address = self.ground.world.coordinator.addresses().agents;
        let network = self.ground.agents.clone();
        let (channel, fate) = connect(network, address, self.identity.tls.clone())
            .await
            .map_err(|_| End::NoConnection)?;
        let (requests, stream) = mpsc::channel(REQUESTS);
        let hello = self.host.lock().hello();
        // The queue is new, so it has room.
        let _ = requests.try_send(said(Said::Hello(hello)));
        self.introduced.get_or_insert(Instant::now());
        let mut client = AgentServiceClient::new(channel.clone());
        let call = client.session(ReceiverStream::new(stream));
        let messages = timeout(CALL_TIMEOUT, call)
            .await
            .map_err(|_| End::NoAnswer)??
            .into_inner();
        let link = Link {
            requests,
            messages,
            fate,
            began,
            accepted: false,
            reading: true,
        };
        Ok((link, channel))
    }

    async fn hold(&mut self, link: &mut Link, channel: Channel) -> Result<Infallible, End> {
        let mut beats = self.beats();
        let mut renewal = Box::pin(renewed(
            self.ground.anchor.clone(),
            channel,
            self.identity.renew_at,
        ));
        let mut habit = std::pin::pin!(sleep(self.until_habit()));
        loop {
            self.carry_out_orders(link)?;
            if self.is_done() {
                return Err(End::Closed);
            }
            let unsent = link.accepted && self.host.lock().has_unsent();
            let requests = link.requests.clone();
            tokio::select! {
                message = link.messages.message(), if link.reading => {
                    let message = message?.ok_or(End::Closed)?.message;
                    if let Some(message) = message {
                        self.told(link, &mut beats, message)?;
                    }
                }
                permit = requests.reserve(), if unsent => {
                    let permit = permit.map_err(|_| End::Closed)?;
                    if let Some(event) = self.host.lock().next_unsent() {
                        permit.send(said(Said::Event(event)));
                    }
                }
                due = beats.tick(), if link.accepted => self.heartbeat(link, due),
                Some(news) = self.news.1.recv() => self.host.lock().heard(news),
                _ = self.orders.changed() => {}
                _ = self.season.changed() => {
                    link.reading = true;
                    habit.as_mut().reset(Instant::now() + self.until_habit());
                }
                () = &mut habit => {
                    let next = self.has_its_way(link)?;
                    habit.as_mut().reset(Instant::now() + next);
                }
                identity = &mut renewal => {
                    Figures::count(&self.ground.figures.renewals);
                    return Err(End::Renewed(Box::new(identity)));
                }
            }
        }
    }

    fn told(&mut self, link: &mut Link, beats: &mut Interval, message: Told) -> Result<(), End> {
        self.backoff.reset();
        if !link.accepted {
            link.accepted = true;
            self.ground.figures.stream.add(link.began.elapsed());
            {
                let mut host = self.host.lock();
                host.connected = true;
                host.opened.push(Instant::now());
            }
            if self.storms_on() {
                return Err(End::Ordered);
            }
        }
        let before = self.beat;
        let todo = self.host.lock().told(message);
        self.carry_out(todo)?;
        if self.beat != before {
            *beats = self.beats();
        }
        Ok(())
    }

    /// Heartbeats from a random moment on, so that those of all agents are spread evenly.
    fn beats(&mut self) -> Interval {
        let first = Instant::now() + up_to(&mut self.random, self.beat);
        let mut beats = interval_at(first, self.beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beats
    }

    fn heartbeat(&mut self, link: &Link, due: Instant) {
        let sample = self.machine.sample(&mut self.random);
        let heartbeat = Said::Heartbeat(Heartbeat {
            sample: Some(sample),
        });
        let figures = &self.ground.figures;
        // As the agent does: a reading can be missed.
        if link.requests.try_send(said(heartbeat)).is_ok() {
            Figures::count(&figures.heartbeats);
            figures.lag.add(due.elapsed());
        } else {
            Figures::count(&figures.left_out);
        }
    }

    fn carry_out_orders(&mut self, link: &Link) -> Result<(), End> {
        let orders = *self.orders.borrow_and_update();
        let done = std::mem::replace(&mut self.done, orders);
        if orders.warnings > done.warnings {
            self.warn();
        }
        if orders.storms > done.storms {
            link.fate.cut();
            return Err(End::Ordered);
        }
        Ok(())
    }

    /// How long until the agent has its habit's way.
    fn until_habit(&mut self) -> Duration {
        let wild = *self.season.borrow() == Season::Wild;
        if !wild || self.host.lock().habit == Habit::Steady {
            return NEVER;
        }
        up_to(&mut self.random, self.ground.plan.steady / 2)
    }

    /// Does as its habit is; gives how long until the next time.
    fn has_its_way(&mut self, link: &mut Link) -> Result<Duration, End> {
        let habit = self.host.lock().habit;
        match habit {
            Habit::Steady => Ok(NEVER),
            Habit::Stalls if link.reading => {
                // What it says meanwhile is acknowledged, and that is not read.
                self.warn();
                link.reading = false;
                Ok(self.beat * self.random.random_range(1..=5))
            }
            Habit::Stalls => {
                link.reading = true;
                Ok(self.until_habit())
            }
            Habit::Vanishes => {
                link.fate.cut();
                Err(End::Vanished)
            }
            Habit::HalfOpen => {
                link.fate.mute();
                Err(End::HalfOpen)
            }
            Habit::Storms => Err(End::Stormed),
        }
    }

    fn warn(&mut self) {
        let mut host = self.host.lock();
        let detail = format!(
            "swarm: warning {} of {}",
            host.warnings.len() + 1,
            self.instance.id
        );
        host.warn(detail);
    }
}

/// Waits for a quarter of the certificate's life, then asks for a new one until it gets it.
async fn renewed(anchor: Anchor, channel: Channel, at: Instant) -> Identity {
    sleep_until(at).await;
    loop {
        if let Ok(Ok(identity)) = timeout(CALL_TIMEOUT, renew(&anchor, channel.clone())).await {
            return identity;
        }
        sleep(RENEW_AGAIN).await;
    }
}

async fn renew(anchor: &Anchor, channel: Channel) -> anyhow::Result<Identity> {
    let request = Request::new()?;
    let answer = AgentServiceClient::new(channel)
        .renew_certificate(RenewCertificateRequest {
            csr_der: request.csr_der.clone(),
        })
        .await?
        .into_inner();
    request.accept(
        anchor,
        answer.certificate_der,
        &answer.trust_anchors_der,
        answer.not_after,
    )
}

fn said(message: Said) -> SessionRequest {
    SessionRequest {
        message: Some(message),
    }
}
