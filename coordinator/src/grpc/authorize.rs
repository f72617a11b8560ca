//! Who may call: decided for each call, and for each message of a long stream.

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use muster_core::{AccountName, Fleet, InstanceId, LaunchId};
use thiserror::Error;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::time::until;
use crate::clock;
use crate::identity::peer::Peer;
use crate::identity::spiffe::{AgentId, OperatorId, SpiffeId};

/// Whom a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Machines that have no certificate yet.
    Newcomer,
    /// Agents.
    Agent,
    /// Operators.
    Operator,
}

/// A call is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// It needs a certificate.
    #[error("a client certificate is needed")]
    NoCertificate,
    /// The certificate is of the wrong kind.
    #[error("{0} may not call this listener's services")]
    WrongRole(&'static str),
    /// The certificate has expired, on a connection that is older.
    #[error("the certificate expired at {0}")]
    Expired(Timestamp),
    /// The authority of the certificate was dropped, on a connection that is older.
    #[error("the authority of the certificate is not trusted any more")]
    Distrusted,
    /// The ledger has no such instance, or not with these particulars.
    #[error("the ledger has no instance {0} as the certificate names it")]
    Unknown(String),
    /// The ledger doesn't have it yet, as the account has not been listed: it may have lost it.
    #[error("the ledger has no instance {0} yet: come again")]
    NotYet(String),
    /// The work of the instance is over.
    #[error("the work of instance {0} is over")]
    Over(String),
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let text = refused.to_string();
        match refused {
            Refused::NoCertificate | Refused::Expired(_) | Refused::Distrusted => {
                Self::unauthenticated(text)
            }
            Refused::NotYet(_) => Self::unavailable(text),
            Refused::WrongRole(_) | Refused::Unknown(_) | Refused::Over(_) => {
                Self::permission_denied(text)
            }
        }
    }
}

/// Who is at the other end of a connection, and for how long that counts.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is.
    pub peer: Peer,
    validity: Validity,
    /// The launch that its certificate spoke for when a stream was opened on this connection.
    streams_for: Arc<OnceLock<LaunchId>>,
}

/// For how long a certificate counts on a connection: until it expires, or its authority is dropped.
#[derive(Clone, Debug)]
pub struct Validity {
    not_after: Timestamp,
    distrusted: CancellationToken,
}

impl Caller {
    /// A caller whose certificate was verified.
    #[must_use]
    pub fn new(peer: Peer) -> Self {
        let validity = Validity {
            not_after: peer.not_after,
            distrusted: CancellationToken::new(),
        };
        Self {
            peer,
            validity,
            streams_for: Arc::default(),
        }
    }

    /// Lets the certificate count no more: its authority was dropped.
    pub fn distrust(&self) {
        self.validity.distrusted.cancel();
    }

    /// Notes that the ledger let a stream for this launch be opened on the connection.
    pub fn opened(&self, launch: &LaunchId) {
        // An instance has one launch: whoever opens another stream says the same.
        self.streams_for.get_or_init(|| launch.clone());
    }

    /// The launch that a stream was opened for on the connection, if one was. It may be over since.
    #[must_use]
    pub fn streams_for(&self) -> Option<&LaunchId> {
        self.streams_for.get()
    }
}

impl Validity {
    /// That of an agent without a certificate.
    #[cfg(test)]
    pub(crate) fn for_ever() -> Self {
        Self {
            not_after: Timestamp::MAX,
            distrusted: CancellationToken::new(),
        }
    }

    /// Whether the certificate counts at this time.
    ///
    /// # Errors
    /// When it has expired, or its authority was dropped.
    pub fn check(&self, now: Timestamp) -> Result<(), Refused> {
        if self.distrusted.is_cancelled() {
            return Err(Refused::Distrusted);
        }
        if self.not_after <= now {
            return Err(Refused::Expired(self.not_after));
        }
        Ok(())
    }

    /// Waits until the certificate counts no more; tells why.
    pub async fn ended(self) -> Refused {
        let left = until(self.not_after, clock::now());
        tokio::select! {
            biased;
            () = self.distrusted.cancelled() => Refused::Distrusted,
            () = sleep(left) => Refused::Expired(self.not_after),
        }
    }
}

/// Whether a caller may call a listener that serves this role, at this time.
///
/// # Errors
/// When it has no certificate, one of another role, or one that counts no more.
pub fn admit(role: Role, caller: Option<&Caller>, now: Timestamp) -> Result<(), Refused> {
    if role == Role::Newcomer {
        return Ok(());
    }
    let caller = caller.ok_or(Refused::NoCertificate)?;
    match (role, &caller.peer.id) {
        (Role::Agent, SpiffeId::Agent(_)) | (Role::Operator, SpiffeId::Operator(_)) => {}
        (_, SpiffeId::Agent(_)) => return Err(Refused::WrongRole("an agent")),
        (_, SpiffeId::Operator(_)) => return Err(Refused::WrongRole("an operator")),
    }
    caller.validity.check(now)
}

/// The agent that makes a call, and for how long its certificate counts.
///
/// # Errors
/// When the call comes from somebody else. The listener has refused that before; this holds also if
/// the service is put on another listener.
pub fn agent<T>(request: &Request<T>) -> Result<(AgentId, Validity), Refused> {
    let Caller { peer, validity, .. } = caller(request)?;
    match &peer.id {
        SpiffeId::Agent(id) => Ok((id.clone(), validity.clone())),
        SpiffeId::Operator(_) => Err(Refused::WrongRole("an operator")),
    }
}

/// The operator who makes a call, and for how long the certificate counts.
///
/// # Errors
/// When the call comes from somebody else.
pub fn operator<T>(request: &Request<T>) -> Result<(OperatorId, Validity), Refused> {
    let Caller { peer, validity, .. } = caller(request)?;
    match &peer.id {
        SpiffeId::Operator(id) => Ok((id.clone(), validity.clone())),
        SpiffeId::Agent(_) => Err(Refused::WrongRole("an agent")),
    }
}

/// The other end of the connection of a call.
///
/// # Errors
/// When it has no certificate.
pub fn caller<T>(request: &Request<T>) -> Result<&Caller, Refused> {
    request
        .extensions()
        .get::<Caller>()
        .ok_or(Refused::NoCertificate)
}

/// The launch that an agent's certificate speaks for. This is where certificates are revoked: when
/// the work of the launch is over, or the ledger says otherwise than the certificate.
///
/// # Errors
/// When there is no such launch, or it is over.
pub fn launch_of(fleet: &Fleet, id: &AgentId) -> Result<LaunchId, Refused> {
    let account = AccountName::new(id.account());
    let Some(runner) = fleet.runner_of(&account, &InstanceId::new(id.instance())) else {
        let instance = id.instance().to_owned();
        return Err(if fleet.is_listed(&account) {
            Refused::Unknown(instance)
        } else {
            Refused::NotYet(instance)
        });
    };
    if runner.pool.as_str() != id.pool() {
        return Err(Refused::Unknown(id.instance().to_owned()));
    }
    if runner.is_over() {
        return Err(Refused::Over(id.instance().to_owned()));
    }
    Ok(runner.launch.clone())
}

#[cfg(test)]
mod tests {
    use muster_core::Work;
    use rstest::rstest;
    use tonic::Code;

    use super::*;
    use crate::grpc::sample::{agent_id, fleet_with, runner};
    use crate::identity::spiffe::TrustDomain;

    fn caller(id: SpiffeId) -> Caller {
        Caller::new(Peer {
            id,
            not_after: Timestamp::from_second(1_000).unwrap(),
            serial: "01".to_owned(),
        })
    }

    fn agent_peer() -> Caller {
        caller(SpiffeId::Agent(agent_id()))
    }

    fn distrusted() -> Caller {
        let caller = operator_peer();
        caller.distrust();
        caller
    }

    fn operator_peer() -> Caller {
        let domain = TrustDomain::new("muster.test").unwrap();
        caller(SpiffeId::Operator(
            OperatorId::new(&domain, "alice").unwrap(),
        ))
    }

    #[rstest]
    #[case::agent(Role::Agent, Some(agent_peer()), 999, None)]
    #[case::operator(Role::Operator, Some(operator_peer()), 999, None)]
    #[case::newcomer(Role::Newcomer, None, 999, None)]
    #[case::agent_as_operator(
        Role::Operator,
        Some(agent_peer()),
        999,
        Some(Code::PermissionDenied)
    )]
    #[case::operator_as_agent(
        Role::Agent,
        Some(operator_peer()),
        999,
        Some(Code::PermissionDenied)
    )]
    #[case::nobody_as_agent(Role::Agent, None, 999, Some(Code::Unauthenticated))]
    #[case::nobody_as_operator(Role::Operator, None, 999, Some(Code::Unauthenticated))]
    #[case::expired_agent(Role::Agent, Some(agent_peer()), 1_000, Some(Code::Unauthenticated))]
    #[case::expired_operator(
        Role::Operator,
        Some(operator_peer()),
        1_001,
        Some(Code::Unauthenticated)
    )]
    #[case::distrusted(Role::Operator, Some(distrusted()), 999, Some(Code::Unauthenticated))]
    fn each_listener_serves_its_role_while_the_certificate_counts(
        #[case] role: Role,
        #[case] caller: Option<Caller>,
        #[case] now: i64,
        #[case] refused: Option<Code>,
    ) {
        let now = Timestamp::from_second(now).unwrap();
        let outcome = admit(role, caller.as_ref(), now);
        let code = outcome.err().map(|refused| Status::from(refused).code());
        assert_eq!(code, refused);
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_counts_until_it_expires_or_its_authority_is_dropped() {
        let not_after = Timestamp::now() + std::time::Duration::from_secs(60);
        let mut peer = agent_peer().peer;
        peer.not_after = not_after;
        let caller = Caller::new(peer);
        let ended = caller.validity.clone().ended();
        assert_eq!(ended.await, Refused::Expired(not_after));
        let ended = tokio::spawn(caller.validity.clone().ended());
        tokio::task::yield_now().await;
        caller.clone().distrust();
        assert_eq!(ended.await.unwrap(), Refused::Distrusted);
    }

    #[test]
    fn a_certificate_speaks_for_the_launch_of_its_instance() {
        let fleet = fleet_with([runner("launch-a", Work::Idle)]);
        let launch = launch_of(&fleet, &agent_id()).unwrap();
        assert_eq!(launch, LaunchId::from("launch-a"));
    }

    #[test]
    fn a_certificate_is_revoked_when_the_work_is_over() {
        let over = Work::Over {
            outcome: None,
            reason: "terminated".to_owned(),
        };
        let fleet = fleet_with([runner("launch-a", over)]);
        assert!(matches!(
            launch_of(&fleet, &agent_id()),
            Err(Refused::Over(_))
        ));
    }

    #[test]
    fn a_certificate_that_the_ledger_contradicts_is_refused() {
        let mut other_pool = runner("launch-a", Work::Idle);
        other_pool.pool = "another".into();
        for fleet in [fleet_with([]), fleet_with([other_pool])] {
            assert!(matches!(
                launch_of(&fleet, &agent_id()),
                Err(Refused::Unknown(_))
            ));
        }
    }
}
