//! The authority and the listeners' TLS that are in use, replaced while the coordinator runs: by another
//! authority, and by a new certificate of the coordinator before the present one gets old.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use thiserror::Error;
use tokio::sync::watch;

use super::ca::{Authority, CaError, ServerIdentity, ServerName};
use super::tls::{Clients, Tls, TlsError};
use crate::telemetry::{Certificate, Metrics};

/// How long it takes after a failure until the coordinator's certificate is made anew again.
const RETRY: Duration = Duration::from_secs(60);

/// The authority that is in use at the time of each look. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PresentAuthority(watch::Receiver<Arc<Authority>>);

impl PresentAuthority {
    /// One that is never replaced.
    #[must_use]
    pub fn fixed(authority: Authority) -> Self {
        // Whoever looks needs no sender.
        Self(watch::channel(Arc::new(authority)).1)
    }

    /// The authority. To be looked up for each use and not kept.
    #[must_use]
    pub fn get(&self) -> Arc<Authority> {
        Arc::clone(&self.0.borrow())
    }
}

/// The TLS of a listener, to be looked up for each connection.
pub type PresentTls = watch::Receiver<Arc<Tls>>;

/// Neither an authority nor the TLS that comes of it can be had.
#[derive(Debug, Error)]
pub enum ServingError {
    /// By the authority.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// By TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What is in use, and its one owner.
#[derive(Debug)]
pub struct Serving {
    authority: watch::Sender<Arc<Authority>>,
    names: Vec<ServerName>,
    enroll: watch::Sender<Arc<Tls>>,
    agents: watch::Sender<Arc<Tls>>,
    operators: watch::Sender<Arc<Tls>>,
    renew_at: Timestamp,
    not_after: Timestamp,
    metrics: Option<Metrics>,
}

/// The TLS of all listeners at one time.
struct Made {
    enroll: Tls,
    agents: Tls,
    operators: Tls,
    renew_at: Timestamp,
    not_after: Timestamp,
}

impl Serving {
    /// Serves with this authority, under these names.
    ///
    /// # Errors
    /// When the coordinator's certificate or the TLS can't be made.
    pub fn new(
        authority: Authority,
        names: Vec<ServerName>,
        now: Timestamp,
    ) -> Result<Self, ServingError> {
        let made = Made::by(&authority, &names, now)?;
        let sender = |tls| watch::Sender::new(Arc::new(tls));
        Ok(Self {
            authority: watch::Sender::new(Arc::new(authority)),
            names,
            enroll: sender(made.enroll),
            agents: sender(made.agents),
            operators: sender(made.operators),
            renew_at: made.renew_at,
            not_after: made.not_after,
            metrics: None,
        })
    }

    /// Has these figures show until when the certificates in use are good.
    #[must_use]
    pub fn told_to(mut self, metrics: Metrics) -> Self {
        self.metrics = Some(metrics);
        self.tell();
        self
    }

    fn tell(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.certificate(Certificate::Authority, self.authority.borrow().not_after());
            metrics.certificate(Certificate::Serving, self.not_after);
        }
    }

    /// The authority, for those who issue.
    #[must_use]
    pub fn authority(&self) -> PresentAuthority {
        PresentAuthority(self.authority.subscribe())
    }

    /// The TLS of the enrolment listener, whose clients have no certificate.
    #[must_use]
    pub fn enroll(&self) -> PresentTls {
        self.enroll.subscribe()
    }

    /// The TLS of the agents' listener.
    #[must_use]
    pub fn agents(&self) -> PresentTls {
        self.agents.subscribe()
    }

    /// The TLS of the operators' listener.
    #[must_use]
    pub fn operators(&self) -> PresentTls {
        self.operators.subscribe()
    }

    /// Replaces the authority: new connections and certificates are of the new one. Connections whose
    /// certificates it doesn't trust are ended by their listeners.
    ///
    /// # Errors
    /// When the texts make no authority, or no TLS comes of it. Then the present one stays in use.
    pub fn take_up(
        &mut self,
        certificates: &str,
        key: &SecretString,
        now: Timestamp,
    ) -> Result<(), ServingError> {
        let present = Arc::clone(&self.authority.borrow());
        let authority = Authority::of(certificates, key, now)?.with_agent_ttl(present.agent_ttl());
        let made = Made::by(&authority, &self.names, now)?;
        let dropped = present.trust_anchors().iter();
        let dropped = dropped.filter(|anchor| !authority.trust_anchors().contains(anchor));
        let dropped = dropped.count();
        // First the listeners: what the authority issues is taken from the first moment.
        self.put(made);
        let authority = Arc::new(authority);
        self.authority.send_replace(Arc::clone(&authority));
        self.tell();
        tracing::info!(
            issuing = authority.fingerprint(),
            same_issuer = authority.certificate() == present.certificate(),
            until = %authority.not_after(),
            trusted = authority.trust_anchors().len(),
            dropped,
            "a new certificate authority is in use"
        );
        Ok(())
    }

    /// Makes a new certificate of the coordinator if the present one has lived for half of its time.
    pub fn renew_if_due(&mut self, now: Timestamp) {
        if now < self.renew_at {
            return;
        }
        let authority = Arc::clone(&self.authority.borrow());
        match Made::by(&authority, &self.names, now) {
            Ok(made) => {
                self.put(made);
                self.tell();
                tracing::info!(next = %self.renew_at, "the coordinator has a new certificate");
            }
            Err(error) => {
                self.renew_at = now.checked_add(RETRY).unwrap_or(Timestamp::MAX);
                tracing::error!(
                    %error,
                    until = %authority.not_after(),
                    "the coordinator's certificate can't be made anew; it is tried again. If the authority \
                     has expired, replace identity.ca_certificate and ca_key"
                );
            }
        }
    }

    fn put(&mut self, made: Made) {
        self.enroll.send_replace(Arc::new(made.enroll));
        self.agents.send_replace(Arc::new(made.agents));
        self.operators.send_replace(Arc::new(made.operators));
        (self.renew_at, self.not_after) = (made.renew_at, made.not_after);
    }
}

impl Made {
    fn by(
        authority: &Authority,
        names: &[ServerName],
        now: Timestamp,
    ) -> Result<Self, ServingError> {
        let identity = authority.server(names, now)?;
        let certified = Clients::CertifiedBy(authority.trust_anchors());
        Ok(Self {
            enroll: Tls::new(&identity, Clients::Anonymous)?,
            agents: Tls::new(&identity, certified)?,
            operators: Tls::new(&identity, certified)?,
            renew_at: half_life(&identity, now),
            not_after: identity.not_after,
        })
    }
}

fn half_life(identity: &ServerIdentity, now: Timestamp) -> Timestamp {
    let left = identity.not_after.duration_since(now);
    now.checked_add(left / 2).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
