//! Who may call: decided for each call, and for each message of a long stream.

use jiff::Timestamp;
use muster_core::{AccountName, Fleet, InstanceId, LaunchId};
use thiserror::Error;
use tonic::{Request, Status};

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
    /// The ledger has no such instance, or not with these particulars.
    #[error("the ledger has no instance {0} as the certificate names it")]
    Unknown(String),
    /// The work of the instance is over.
    #[error("the work of instance {0} is over")]
    Over(String),
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let text = refused.to_string();
        match refused {
            Refused::NoCertificate | Refused::Expired(_) => Self::unauthenticated(text),
            Refused::WrongRole(_) | Refused::Unknown(_) | Refused::Over(_) => {
                Self::permission_denied(text)
            }
        }
    }
}

/// Whether a peer may call a listener that serves this role, at this time.
///
/// # Errors
/// When it has no certificate, one of another role, or one that has expired.
pub fn admit(role: Role, peer: Option<&Peer>, now: Timestamp) -> Result<(), Refused> {
    if role == Role::Newcomer {
        return Ok(());
    }
    let peer = peer.ok_or(Refused::NoCertificate)?;
    match (role, &peer.id) {
        (Role::Agent, SpiffeId::Agent(_)) | (Role::Operator, SpiffeId::Operator(_)) => {}
        (_, SpiffeId::Agent(_)) => return Err(Refused::WrongRole("an agent")),
        (_, SpiffeId::Operator(_)) => return Err(Refused::WrongRole("an operator")),
    }
    if peer.not_after <= now {
        return Err(Refused::Expired(peer.not_after));
    }
    Ok(())
}

/// The agent that makes a call, and when its certificate expires.
///
/// # Errors
/// When the call comes from somebody else. The listener has refused that before; this holds also if
/// the service is put on another listener.
pub fn agent<T>(request: &Request<T>) -> Result<(AgentId, Timestamp), Refused> {
    let peer = peer(request)?;
    match &peer.id {
        SpiffeId::Agent(id) => Ok((id.clone(), peer.not_after)),
        SpiffeId::Operator(_) => Err(Refused::WrongRole("an operator")),
    }
}

/// The operator who makes a call, and when the certificate expires.
///
/// # Errors
/// When the call comes from somebody else.
pub fn operator<T>(request: &Request<T>) -> Result<(OperatorId, Timestamp), Refused> {
    let peer = peer(request)?;
    match &peer.id {
        SpiffeId::Operator(id) => Ok((id.clone(), peer.not_after)),
        SpiffeId::Agent(_) => Err(Refused::WrongRole("an agent")),
    }
}

fn peer<T>(request: &Request<T>) -> Result<&Peer, Refused> {
    request
        .extensions()
        .get::<Peer>()
        .ok_or(Refused::NoCertificate)
}

/// The launch that an agent's certificate speaks for. This is where certificates are revoked: when
/// the work of the launch is over, or the ledger says otherwise than the certificate.
///
/// # Errors
/// When there is no such launch, or it is over.
pub fn launch_of(fleet: &Fleet, id: &AgentId) -> Result<LaunchId, Refused> {
    let account = AccountName::new(id.account());
    let runner = fleet
        .runner_of(&account, &InstanceId::new(id.instance()))
        .filter(|runner| runner.pool.as_str() == id.pool())
        .ok_or_else(|| Refused::Unknown(id.instance().to_owned()))?;
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

    fn peer(id: SpiffeId) -> Peer {
        Peer {
            id,
            not_after: Timestamp::from_second(1_000).unwrap(),
            serial: "01".to_owned(),
        }
    }

    fn agent_peer() -> Peer {
        peer(SpiffeId::Agent(agent_id()))
    }

    fn operator_peer() -> Peer {
        let domain = TrustDomain::new("muster.test").unwrap();
        peer(SpiffeId::Operator(
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
    fn each_listener_serves_its_role_until_the_certificate_expires(
        #[case] role: Role,
        #[case] peer: Option<Peer>,
        #[case] now: i64,
        #[case] refused: Option<Code>,
    ) {
        let now = Timestamp::from_second(now).unwrap();
        let outcome = admit(role, peer.as_ref(), now);
        let code = outcome.err().map(|refused| Status::from(refused).code());
        assert_eq!(code, refused);
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
