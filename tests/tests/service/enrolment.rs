//! Enrolment: one host for each launch, and nobody else.

use std::time::Duration;

use futures::future::join_all;
use muster_proto::v1::enroll_request::Step as Asked;
use muster_proto::v1::{EnrollBegin, EnrollRequest, ListRunnersRequest, RunnerState};
use rcgen::{CertificateParams, SanType};
use rstest::rstest;
use tonic::Code;

use crate::newcomer::{Exchange, Hosts, Invitation, Request, Session, open, renew};
use crate::tls;

/// All present the same token in one instant; answers the codes of those who were refused.
async fn race(invitation: &Invitation, runners: usize) -> Vec<Code> {
    let begun = join_all((0..runners).map(|_| Exchange::begin(invitation.enrolment()))).await;
    let proofs = begun.into_iter().map(|exchange| async {
        let mut exchange = exchange.unwrap();
        let outcome = exchange
            .prove(&Request::new(), &invitation.join_token)
            .await;
        outcome.map(|_| ()).map_err(|status| status.code())
    });
    let outcomes = join_all(proofs).await;
    outcomes.into_iter().filter_map(Result::err).collect()
}

#[rstest]
#[case(2)]
#[case(64)]
#[tokio::test]
async fn of_those_who_present_one_token_exactly_one_enrols(#[case] runners: usize) {
    let (hosts, invitations) = Hosts::start(1, "").await;
    let refused = race(&invitations[0], runners).await;
    assert_eq!(refused, vec![Code::AlreadyExists; runners - 1]);
    // Nor does it work later, nor after a restart.
    let late = invitations[0].enrol().await.unwrap_err();
    assert_eq!(late.code(), Code::AlreadyExists, "{late}");
    let world = hosts.world;
    world.coordinator.kill_nine();
    world.coordinator.start_again().await.unwrap();
    let later = invitations[0].enrol().await.unwrap_err();
    assert_eq!(later.code(), Code::AlreadyExists, "{later}");
}

#[tokio::test]
async fn an_enrolled_host_is_told_who_it_is() {
    let (hosts, invitations) = Hosts::start(2, "").await;
    let (first, second) = (&invitations[0], &invitations[1]);
    // What the request asks to be called is nobody's business.
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let forged = "spiffe://muster.internal/operator/mallory";
    params.subject_alt_names = vec![SanType::URI(forged.try_into().unwrap())];
    let request = Request::of(&params);
    let mut exchange = Exchange::begin(first.enrolment()).await.unwrap();
    let issued = exchange.prove(&request, &first.join_token).await.unwrap();
    let id = &first.instance_id;
    assert_eq!(issued.instance_id, *id);
    let expected = format!("spiffe://muster.internal/pool/linux/instance/local/local/{id}");
    assert_eq!(issued.spiffe_id, expected);
    let enrolled = request.with(issued);
    let certificate = String::from_utf8_lossy(&enrolled.issued.certificate_der).into_owned();
    assert!(certificate.contains(&expected));
    assert!(!certificate.contains("mallory"));
    // It is no operator, and its session is its own: the other's runner is not connected.
    let operators = hosts.world.coordinator.addresses().operators;
    let config = tls::client(&first.anchor(), Some(enrolled.identity.clone()));
    let mut client = muster_proto::v1::operator_service_client::OperatorServiceClient::new(
        tls::channel(operators, config),
    );
    let refused = client.list_runners(ListRunnersRequest::default());
    assert_eq!(refused.await.unwrap_err().code(), Code::PermissionDenied);
    let _session = Session::open(first.agent(&enrolled.identity), "")
        .await
        .unwrap();
    let mut operator = hosts.world.operator("alice").await.unwrap();
    for runner in operator.runners().await.unwrap() {
        assert_eq!(runner.connected, runner.instance_id != second.instance_id);
    }
}

#[tokio::test]
async fn the_certificate_of_one_instance_opens_no_session_of_another() {
    let (hosts, invitations) = Hosts::start(2, "").await;
    let mut operator = hosts.world.operator("alice").await.unwrap();
    let (mine, theirs) = (&invitations[0], &invitations[1]);
    let (me, them) = (mine.enrol().await.unwrap(), theirs.enrol().await.unwrap());
    let mut their_session = Session::open(theirs.agent(&them.identity), "")
        .await
        .unwrap();
    let their_runner = their_session.assigned().await;
    // Claims to hold the other's assignment: gets neither it nor the other's place.
    let mut my_session = Session::open(mine.agent(&me.identity), &their_runner)
        .await
        .unwrap();
    // Whoever lies like that is ended; the other's stream is not touched.
    let a_while = Duration::from_secs(2);
    let (my_end, their_end) = tokio::join!(
        my_session.end(),
        tokio::time::timeout(a_while, their_session.end()),
    );
    assert_eq!(my_end.code(), Code::PermissionDenied, "{my_end}");
    assert!(their_end.is_err(), "{their_end:?}");
    let request = ListRunnersRequest {
        include_gone: true,
        ..ListRunnersRequest::default()
    };
    let runners = operator.client.list_runners(request).await.unwrap();
    let runners = runners.into_inner().runners;
    let of = |invitation: &Invitation| {
        let mut runners = runners.iter();
        let found = runners.find(|runner| runner.instance_id == invitation.instance_id);
        found.unwrap_or_else(|| panic!("{runners:#?}"))
    };
    assert!(of(mine).state() >= RunnerState::Ending, "{runners:#?}");
    assert_ne!(of(mine).name, their_runner);
    assert_eq!(of(theirs).name, their_runner);
    assert!(of(theirs).connected, "{runners:#?}");
    assert!(of(theirs).state() < RunnerState::Ending, "{runners:#?}");
}

#[tokio::test]
async fn a_token_that_is_none_is_refused() {
    let (_hosts, invitations) = Hosts::start(1, "").await;
    let (_others, foreign) = Hosts::start(1, "").await;
    let good = &invitations[0].join_token;
    let tokens = [
        foreign[0].join_token.clone(),
        "A".repeat(good.len()),
        good[..good.len() - 1].to_owned(),
        format!("{good}A"),
        good.to_lowercase(),
        String::new(),
    ];
    for token in tokens {
        let mut exchange = Exchange::begin(invitations[0].enrolment()).await.unwrap();
        let refused = exchange.prove(&Request::new(), &token).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
        assert!(!refused.message().contains(good), "{refused}");
    }
    // None of them used it up.
    invitations[0].enrol().await.unwrap();
}

#[tokio::test]
async fn the_token_of_a_launch_that_is_over_is_refused() {
    let (hosts, invitations) = Hosts::start(1, "").await;
    let mut operator = hosts.world.operator("alice").await.unwrap();
    let request = muster_proto::v1::TerminateRunnerRequest {
        name: invitations[0].instance_id.clone(),
        reason: String::new(),
    };
    operator.client.terminate_runner(request).await.unwrap();
    let refused = invitations[0].enrol().await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
}

#[tokio::test]
async fn a_bad_proof_is_refused_and_uses_nothing_up() {
    let (_hosts, invitations) = Hosts::start(1, "").await;
    let invitation = &invitations[0];
    let request = Request::new();
    let good = request.csr.clone();
    let mut unsigned = good.clone();
    *unsigned.last_mut().unwrap() ^= 1;
    let other_nonce = Exchange::begin(invitation.enrolment()).await.unwrap().nonce;
    let cases = [
        ("bad signature", unsigned, None, Code::InvalidArgument),
        ("no request", Vec::new(), None, Code::InvalidArgument),
        (
            "two requests",
            [good.clone(), good.clone()].concat(),
            None,
            Code::InvalidArgument,
        ),
        (
            "another challenge's nonce",
            good.clone(),
            Some(other_nonce),
            Code::Unauthenticated,
        ),
        (
            "short nonce",
            good.clone(),
            Some(vec![0; 31]),
            Code::InvalidArgument,
        ),
        (
            "large request",
            vec![0x30; 5_000],
            None,
            Code::InvalidArgument,
        ),
    ];
    for (what, csr_der, nonce, code) in cases {
        let mut exchange = Exchange::begin(invitation.enrolment()).await.unwrap();
        let right = exchange.proof(&request, &invitation.join_token);
        let mut bad = right.clone();
        bad.csr_der = csr_der;
        if let Some(nonce) = nonce {
            bad.nonce = nonce;
        }
        let refused = exchange.send(bad).await.unwrap_err();
        assert_eq!(refused.code(), code, "{what}: {refused}");
        assert!(!refused.message().is_empty(), "{what}");
        // There is no second try on this stream.
        let step = Some(Asked::Proof(right));
        let _ = exchange.say.send(EnrollRequest { step }).await;
        assert!(!matches!(exchange.next().await, Ok(Some(_))), "{what}");
    }
    invitation.enrol().await.unwrap();
}

#[tokio::test]
async fn an_exchange_gives_one_certificate() {
    let (_hosts, invitations) = Hosts::start(1, "").await;
    let token = &invitations[0].join_token;
    let mut exchange = Exchange::begin(invitations[0].enrolment()).await.unwrap();
    // Both are there before the first is answered.
    let second = exchange.proof(&Request::new(), token);
    let first = exchange.proof(&Request::new(), token);
    let step = Some(Asked::Proof(first));
    exchange.say.send(EnrollRequest { step }).await.unwrap();
    exchange.send(second).await.unwrap();
    assert!(!matches!(exchange.next().await, Ok(Some(_))));
}

#[tokio::test]
async fn what_does_not_keep_to_the_protocol_is_refused() {
    let (_hosts, invitations) = Hosts::start(1, "").await;
    let invitation = &invitations[0];
    let exchange = Exchange::begin(invitation.enrolment()).await.unwrap();
    let proof = exchange.proof(&Request::new(), &invitation.join_token);
    let begin = |agent_version: String| Asked::Begin(EnrollBegin { agent_version });
    let cases = [
        ("proof first", Asked::Proof(proof), Code::InvalidArgument),
        (
            "odd version",
            begin("1\n2".to_owned()),
            Code::InvalidArgument,
        ),
        // More than a message may have.
        ("large", begin("1".repeat(17 * 1024)), Code::OutOfRange),
    ];
    for (what, first, code) in cases {
        let (_say, mut answers) = open(invitation.enrolment(), Some(first)).await.unwrap();
        let refused = answers.message().await.unwrap_err();
        assert_eq!(refused.code(), code, "{what}: {refused}");
    }
    // Nothing at all, and the end.
    let (say, mut answers) = open(invitation.enrolment(), None).await.unwrap();
    drop(say);
    let refused = answers.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    invitation.enrol().await.unwrap();
}

#[tokio::test]
async fn a_silent_stream_is_ended() {
    let (_hosts, invitations) = Hosts::start(1, "").await;
    let began = tokio::time::Instant::now();
    let (_say, mut answers) = open(invitations[0].enrolment(), None).await.unwrap();
    let refused = answers.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused}");
    assert!(began.elapsed() >= Duration::from_secs(9));
    invitations[0].enrol().await.unwrap();
}

#[tokio::test]
async fn a_certificate_is_renewed_for_the_same_instance_only() {
    let (_hosts, invitations) = Hosts::start(1, "").await;
    let invitation = &invitations[0];
    let first = invitation.enrol().await.unwrap();
    let mut params = CertificateParams::default();
    let forged = "spiffe://muster.internal/operator/mallory";
    params.subject_alt_names = vec![SanType::URI(forged.try_into().unwrap())];
    let client = invitation.agent(&first.identity);
    let second = renew(client, Request::of(&params)).await.unwrap();
    let text = String::from_utf8_lossy(&second.certificate).into_owned();
    assert!(text.contains(&first.issued.spiffe_id));
    assert!(!text.contains("mallory"));
    // Both work until they expire.
    for identity in [&first.identity, &second] {
        renew(invitation.agent(identity), Request::new())
            .await
            .unwrap();
    }
    let mut bad = Request::new();
    *bad.csr.last_mut().unwrap() ^= 1;
    let refused = renew(invitation.agent(&second), bad).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
}
