//! One stream, from the connection to its end.

use std::time::Duration;

use muster_proto::v1::agent_service_client::AgentServiceClient;
use muster_proto::v1::session_response::Message;
use muster_proto::v1::{RenewCertificateRequest, SessionRequest};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::backoff::Backoff;
use crate::config::Remote;
use crate::identity::{Identity, IdentityError, Request};
use crate::tls::{self, TlsError};

/// Longest time for the coordinator to answer a call with its first byte.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time from the hello of a successor to the coordinator's first message. Meanwhile events wait.
const SUCCESSION: Duration = Duration::from_secs(3);
/// Waits between two tries to renew the certificate.
const RENEW_BASE: Duration = Duration::from_secs(1);
/// The longest of them.
const RENEW_CAP: Duration = Duration::from_secs(60);

/// What a link tells its owner.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// There is a connection, on which a hello is waited for.
    Connected,
    /// The stream is open.
    Open,
    /// The coordinator said something.
    Message(Message),
    /// There is a new certificate. The link goes on with the old one.
    Renewed(Identity),
    /// The link is over. Nothing follows.
    Closed(Closed),
}

/// Why a link ended.
#[derive(Debug, Error)]
pub(crate) enum Closed {
    /// No TLS connection.
    #[error("{0}")]
    NoConnection(#[from] TlsError),
    /// No answer in time.
    #[error("no answer in time")]
    NoAnswer,
    /// The coordinator closed it.
    #[error("the coordinator ended the stream")]
    Ended,
    /// This instance is over, says the coordinator.
    #[error("permission denied: {0}")]
    Denied(String),
    /// A newer stream of the same instance took over.
    #[error("a newer stream took over: {0}")]
    Superseded(String),
    /// Anything else.
    #[error("{0:?}: {1}")]
    Failed(Code, String),
}

impl From<Status> for Closed {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::PermissionDenied => Self::Denied(message),
            Code::Aborted => Self::Superseded(message),
            code => Self::Failed(code, message),
        }
    }
}

/// Where and as whom to connect.
#[derive(Debug)]
pub(crate) struct Link {
    /// The coordinator.
    pub(crate) remote: Remote,
    /// Who we are.
    pub(crate) identity: Identity,
    /// Comes with each event, so that those of an older link can be told apart.
    pub(crate) generation: u64,
    /// Whether it is to take the place of one that is open. That one waits for it, so it has to be answered
    /// soon.
    pub(crate) succeeds: bool,
}

impl Link {
    /// Opens the stream and passes messages both ways until it ends or `cancel` is given. The first of
    /// `requests` is the hello, which follows [`LinkEvent::Connected`].
    pub(crate) async fn hold(
        self,
        requests: mpsc::Receiver<SessionRequest>,
        events: mpsc::Sender<(u64, LinkEvent)>,
        cancel: CancellationToken,
    ) {
        let closed = tokio::select! {
            () = cancel.cancelled() => return,
            closed = self.session(requests, &events) => closed,
        };
        self.tell(&events, LinkEvent::Closed(closed)).await;
    }

    async fn session(
        &self,
        requests: mpsc::Receiver<SessionRequest>,
        events: &mpsc::Sender<(u64, LinkEvent)>,
    ) -> Closed {
        match self.converse(requests, events).await {
            Ok(()) => Closed::Ended,
            Err(closed) => closed,
        }
    }

    async fn converse(
        &self,
        requests: mpsc::Receiver<SessionRequest>,
        events: &mpsc::Sender<(u64, LinkEvent)>,
    ) -> Result<(), Closed> {
        let channel = tls::connect(&self.remote, self.identity.tls.clone()).await?;
        let mut client = AgentServiceClient::new(channel.clone());
        self.tell(events, LinkEvent::Connected).await;
        let answer_due = sleep(if self.succeeds {
            SUCCESSION
        } else {
            CALL_TIMEOUT
        });
        tokio::pin!(answer_due);
        let call = client.session(ReceiverStream::new(requests));
        let answer = timeout_at(answer_due.deadline(), call)
            .await
            .map_err(|_| Closed::NoAnswer)?;
        let mut messages = answer?.into_inner();
        self.tell(events, LinkEvent::Open).await;
        let renewal = self.renew(channel);
        tokio::pin!(renewal);
        let mut renewed = false;
        let mut waits = self.succeeds;
        loop {
            tokio::select! {
                () = &mut answer_due, if waits => return Err(Closed::NoAnswer),
                message = messages.message() => match message? {
                    None => return Ok(()),
                    Some(response) => match response.message.inspect(|_| waits = false) {
                        Some(message) => self.tell(events, LinkEvent::Message(message)).await,
                        None => tracing::debug!("a message of an unknown kind"),
                    },
                },
                identity = &mut renewal, if !renewed => {
                    renewed = true;
                    self.tell(events, LinkEvent::Renewed(identity)).await;
                }
            }
        }
    }

    /// Waits for half of the certificate's life, then asks for a new one until it gets it.
    async fn renew(&self, channel: Channel) -> Identity {
        sleep_until(self.identity.renew_at).await;
        let mut backoff = Backoff::new(RENEW_BASE, RENEW_CAP);
        loop {
            let call = self.ask_for_certificate(AgentServiceClient::new(channel.clone()));
            match timeout(CALL_TIMEOUT, call).await {
                Ok(Ok(identity)) => return identity,
                Ok(Err(error)) => tracing::warn!(%error, "certificate was not renewed"),
                Err(_) => tracing::warn!("certificate was not renewed: no answer"),
            }
            sleep(backoff.next()).await;
        }
    }

    async fn ask_for_certificate(
        &self,
        mut client: AgentServiceClient<Channel>,
    ) -> Result<Identity, RenewError> {
        let request = Request::new()?;
        let answer = client
            .renew_certificate(RenewCertificateRequest {
                csr_der: request.csr_der(),
            })
            .await?
            .into_inner();
        Ok(request.accept(
            answer.certificate_der,
            answer.trust_anchors_der,
            &self.identity.anchors,
            self.identity.steady,
        )?)
    }

    async fn tell(&self, events: &mpsc::Sender<(u64, LinkEvent)>, event: LinkEvent) {
        if events.send((self.generation, event)).await.is_err() {
            tracing::debug!("an event of the link came too late");
        }
    }
}

#[derive(Debug, Error)]
enum RenewError {
    #[error("{0}")]
    Identity(#[from] IdentityError),
    #[error("{0}")]
    Status(#[from] Status),
}
