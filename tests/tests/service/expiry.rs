//! Certificates and tokens whose time is over, whatever the client has kept of better days.

use std::time::Duration;

use jiff::Timestamp;
use muster_proto::v1::TerminateRunnerRequest;
use muster_tests::world::wait_for;
use rustls::HandshakeKind;
use sqlx::Connection as _;
use tokio::time::timeout;
use tonic::Code;

use crate::newcomer::{Hosts, PATIENCE, Request, Session, renew};
use crate::tls;

/// Long enough for the first steps of the test, short enough to wait for.
const SHORT_LIFE: &str = "[identity]\nagent_certificate_ttl = \"10s\"\n";

#[tokio::test]
async fn an_expired_certificate_is_refused_also_from_a_client_that_resumes() {
    let (_hosts, invitations) = Hosts::start(1, SHORT_LIFE).await;
    let invitation = &invitations[0];
    let enrolled = invitation.enrol().await.unwrap();
    let not_after = enrolled.issued.not_after.unwrap();
    let expired = || Timestamp::now().as_second() > not_after.seconds;
    // One configuration for all connections: what the server gave to resume is kept in it.
    let config = tls::client(&invitation.anchor(), Some(enrolled.identity.clone()));
    let agents = invitation.agents();
    for _ in 0..3 {
        let kind = tls::shake(agents, &config).await;
        assert_eq!(kind, Ok(HandshakeKind::Full));
    }
    let agent = || {
        let channel = tls::channel(agents, config.clone());
        muster_proto::v1::agent_service_client::AgentServiceClient::new(channel)
    };
    let old = agent();
    let mut session = Session::open(old.clone(), "").await.unwrap();
    assert!(!expired(), "this machine is too slow for the test");

    // The stream that was open ends in time, with the reason.
    let ended = session.end().await;
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended}");
    assert!(Timestamp::now().as_second() >= not_after.seconds);
    // So does what is tried on the connection that was open.
    let refused = renew(old, Request::new()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    wait_for("expiry", PATIENCE, async || Ok(expired().then_some(())))
        .await
        .unwrap();
    for _ in 0..3 {
        let refused = tls::shake(agents, &config).await.unwrap_err();
        assert!(refused.contains("CertificateExpired"), "{refused}");
    }
    renew(agent(), Request::new()).await.unwrap_err();
}

#[tokio::test]
async fn a_renewed_certificate_outlives_the_first() {
    let (_hosts, invitations) = Hosts::start(1, SHORT_LIFE).await;
    let invitation = &invitations[0];
    let first = invitation.enrol().await.unwrap();
    let not_after = first.issued.not_after.unwrap().seconds;
    let mut identity = first.identity;
    while Timestamp::now().as_second() <= not_after {
        identity = renew(invitation.agent(&identity), Request::new())
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    renew(invitation.agent(&identity), Request::new())
        .await
        .unwrap();
}

#[tokio::test]
async fn what_the_agent_of_a_terminated_runner_holds_is_worth_nothing() {
    let (hosts, invitations) = Hosts::start(1, "").await;
    let invitation = &invitations[0];
    let enrolled = invitation.enrol().await.unwrap();
    let agent = || invitation.agent(&enrolled.identity);
    let old = agent();
    renew(old.clone(), Request::new()).await.unwrap();
    let mut session = Session::open(agent(), "").await.unwrap();
    session.assigned().await;

    let mut operator = hosts.world.operator("alice").await.unwrap();
    let request = TerminateRunnerRequest {
        name: invitation.instance_id.clone(),
        reason: "test".to_owned(),
    };
    operator.client.terminate_runner(request).await.unwrap();
    // From now on: on a connection that is open, on a new one, and for a new certificate.
    for client in [old, agent()] {
        let refused = renew(client.clone(), Request::new()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        let refused = Session::open(client, "").await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
    // The stream that was open ends by itself.
    let ended = timeout(PATIENCE, session.end()).await.unwrap();
    assert_eq!(ended.code(), Code::PermissionDenied, "{ended}");
}

#[tokio::test]
async fn a_token_that_came_too_late_is_refused() {
    let (mut hosts, invitations) = Hosts::start(1, "").await;
    let coordinator = &mut hosts.world.coordinator;
    coordinator.stop(PATIENCE).await.unwrap();
    // Tokens work for minutes; nobody waits for that.
    let database = hosts.world.dir().join("data/muster.db");
    let mut database = sqlx::SqliteConnection::connect(&database.to_string_lossy())
        .await
        .unwrap();
    let just_now = (Timestamp::now() - Duration::from_millis(1)).as_microsecond();
    let changed = sqlx::query("UPDATE join_tokens SET expires_at = ?")
        .bind(just_now)
        .execute(&mut database)
        .await
        .unwrap();
    assert_eq!(changed.rows_affected(), 1);
    database.close().await.unwrap();
    hosts.world.coordinator.start_again().await.unwrap();
    let refused = invitations[0].enrol().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    assert!(refused.message().contains("expired"), "{refused}");
}
