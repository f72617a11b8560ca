use muster_core::Stage;
use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::agent_service_client::AgentServiceClient;
use muster_proto::v1::operator_service_client::OperatorServiceClient;
use muster_proto::v1::session_request::Message as Said;
use muster_proto::v1::session_response::Message as Told;
use muster_proto::v1::{
    GetRunnerRequest, Heartbeat, Hello, JobUse, Pressure, RenewCertificateRequest, ResourceKind,
    ResourceWarning, RunnerFinished, RunnerOutcome, RunnerPhase, Sample,
};
use tonic::Code;

use super::stream::{NAME, Request, Stream, accepted, minted, phase, returning};
use super::*;
use crate::grpc::sample::agent_id;
use crate::identity::ca::AGENT_TTL;
use crate::identity::ca::fixtures::Pair;
use crate::identity::csr::RequestedKey;

#[tokio::test]
async fn a_session_goes_from_hello_to_an_idle_runner() {
    let world = World::with(vec![booting()]).await;
    let channel = world.as_agent().await;
    let mut stream = Stream::greeted(&channel, Hello::default()).await;
    minted(&world).await;
    match stream.next().await {
        Ok(Some(Told::Assignment(assignment))) => {
            assert_eq!(assignment.runner_name, NAME);
            assert_eq!(assignment.encoded_jit_config, "c2VjcmV0");
        }
        other => panic!("no assignment: {other:?}"),
    }
    stream.event(1, accepted()).await;
    assert_eq!(stream.acknowledged().await, 1);
    assert_eq!(world.runner().await.stage(), Stage::Starting);
    stream.event(2, phase(RunnerPhase::Listening)).await;
    assert_eq!(stream.acknowledged().await, 2);
    assert_eq!(world.runner().await.stage(), Stage::Idle);

    let sample = Some(Sample {
        cpu_count: 4,
        ..Sample::default()
    });
    stream.say(Said::Heartbeat(Heartbeat { sample })).await;
    // The answer to an event shows that what came before it was taken.
    stream.event(3, None).await;
    assert_eq!(stream.acknowledged().await, 3);
    let seen = world.presence.get(&LAUNCH.into()).unwrap();
    assert!(seen.connected);
    assert_eq!(seen.sample.unwrap().cpu_count, 4);

    drop(stream);
    world
        .until("silent", |runner| runner.silent_since.is_some())
        .await;
}

#[tokio::test]
async fn a_host_hears_how_long_its_pool_lets_it_live() {
    let world = World::with(vec![booting()]).await;
    let channel = world.as_agent().await;
    let mut stream = Stream::open(&channel).await.unwrap();
    stream.say(Said::Hello(Hello::default())).await;
    let Ok(Some(Told::Configure(settings))) = stream.next().await else {
        panic!("no settings");
    };
    let allowed = muster_core::TimeLimits::default().lifetime;
    assert_eq!(settings.lifetime, Some(allowed.try_into().unwrap()));
}

#[tokio::test]
async fn an_operator_sees_the_whole_sample_and_the_warnings() {
    let world = World::with(vec![booting()]).await;
    let channel = world.as_agent().await;
    let mut stream = Stream::greeted(&channel, Hello::default()).await;
    let sample = Some(Sample {
        memory_available_bytes: 5,
        pressure: Some(Pressure {
            memory_full: 12.5,
            ..Pressure::default()
        }),
        job: Some(JobUse {
            out_of_memory_kills: 1,
            ..JobUse::default()
        }),
        ..Sample::default()
    });
    stream.say(Said::Heartbeat(Heartbeat { sample })).await;
    let warning = Kind::ResourceWarning(ResourceWarning {
        kind: ResourceKind::Disk.into(),
        detail: "the runner's disk has 812.0 MiB of 20.0 GiB left".into(),
    });
    stream.event(1, Some(warning)).await;
    assert_eq!(stream.acknowledged().await, 1);

    let mut operator = OperatorServiceClient::new(world.as_operator());
    let shown = operator.get_runner(GetRunnerRequest::default()).await;
    let shown = shown.unwrap().into_inner();
    assert_eq!(shown.latest_sample, sample);
    let entry = shown.timeline.iter().find(|entry| entry.what == "disk low");
    assert!(entry.unwrap().detail.contains("812.0 MiB"));
}

#[tokio::test]
async fn events_that_come_again_are_acknowledged_and_not_applied() {
    let world = World::with(vec![booting()]).await;
    let channel = world.as_agent().await;
    let mut stream = Stream::greeted(&channel, Hello::default()).await;
    minted(&world).await;
    stream.next().await.unwrap();
    stream.event(1, accepted()).await;
    stream.event(2, phase(RunnerPhase::Listening)).await;
    assert_eq!(stream.acknowledged().await, 1);
    assert_eq!(stream.acknowledged().await, 2);
    drop(stream);
    let mut stream = Stream::greeted(&channel, returning(2)).await;
    // With the number of the first: it is not even looked at.
    stream.event(1, phase(RunnerPhase::Running)).await;
    assert_eq!(stream.acknowledged().await, 2);
    assert_eq!(world.runner().await.stage(), Stage::Idle);
    // One is missing: it is lost, the rest goes on.
    stream.event(4, phase(RunnerPhase::Running)).await;
    assert_eq!(stream.acknowledged().await, 4);
    assert_eq!(world.runner().await.stage(), Stage::Busy);
}

#[tokio::test]
async fn what_an_earlier_process_stored_is_acknowledged_and_not_applied() {
    let mut idle = booting();
    (idle.work, idle.heard_through) = (Work::Idle, 2);
    let world = World::with(vec![idle]).await;
    let channel = world.as_agent().await;
    let mut stream = Stream::greeted(&channel, returning(2)).await;
    // As if it were another than the one that was stored: it is not even looked at.
    stream.event(2, phase(RunnerPhase::Running)).await;
    assert_eq!(stream.acknowledged().await, 2);
    assert_eq!(world.runner().await.stage(), Stage::Idle);
    stream.event(3, phase(RunnerPhase::Running)).await;
    assert_eq!(stream.acknowledged().await, 3);
    assert_eq!(world.runner().await.stage(), Stage::Busy);
}

#[tokio::test]
async fn an_end_with_both_tails_full_is_taken() {
    let world = World::with(vec![booting()]).await;
    let channel = world.as_agent().await;
    let mut stream = Stream::greeted(&channel, Hello::default()).await;
    let finished = Kind::RunnerFinished(RunnerFinished {
        outcome: RunnerOutcome::Failed.into(),
        console_tail: "c".repeat(65_536),
        diagnostic_tail: "d".repeat(65_536),
        ..RunnerFinished::default()
    });
    stream.event(1, Some(finished)).await;
    assert_eq!(stream.acknowledged().await, 1);
}

#[tokio::test]
async fn a_newer_stream_ends_the_older_and_the_agent_is_not_lost() {
    let world = World::with(vec![booting()]).await;
    let channel = world.as_agent().await;
    let mut older = Stream::greeted(&channel, Hello::default()).await;
    let mut newer = Stream::greeted(&channel, Hello::default()).await;
    let ended = older.next().await.unwrap_err();
    assert_eq!(ended.code(), Code::Aborted);
    newer.event(1, None).await;
    assert_eq!(newer.acknowledged().await, 1);
    assert_eq!(world.runner().await.silent_since, None);
}

#[tokio::test]
async fn a_stream_must_begin_with_one_hello() {
    let world = World::with(vec![booting()]).await;
    let channel = world.as_agent().await;
    let mut stream = Stream::open(&channel).await.unwrap();
    stream.event(1, None).await;
    let refused = stream.next().await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let mut stream = Stream::greeted(&channel, Hello::default()).await;
    stream.say(Said::Hello(Hello::default())).await;
    let refused = stream.next().await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_certificate_of_an_ended_launch_opens_and_renews_nothing() {
    let world = World::with(vec![booting()]).await;
    let channel = world.as_agent().await;
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key);
    let renewal = RenewCertificateRequest {
        csr_der: csr.unwrap().der().to_vec(),
    };
    let mut client = AgentServiceClient::new(channel.clone());
    let renewed = client.renew_certificate(renewal.clone()).await.unwrap();
    let certificate = CertificateDer::from(renewed.into_inner().certificate_der);
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let renewed = world.connect(world.agents, Some((certificate, key)));
    Stream::greeted(&renewed, Hello::default()).await;

    world.end_the_launch().await;
    for channel in [channel, renewed] {
        let mut client = AgentServiceClient::new(channel.clone());
        let refused = client.renew_certificate(renewal.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        let refused = Stream::open(&channel).await.err().unwrap();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
}

#[tokio::test]
async fn an_agent_that_renews_again_and_again_has_to_wait() {
    let world = World::with(vec![booting()]).await;
    let mut client = AgentServiceClient::new(world.as_agent().await);
    let csr_der = csr(&KeyPair::generate().unwrap());
    let mut renewed = 0;
    let refused = loop {
        let request = RenewCertificateRequest {
            csr_der: csr_der.clone(),
        };
        match client.renew_certificate(request).await {
            Ok(_) => renewed += 1,
            Err(refused) => break refused,
        }
        assert!(renewed < 100, "no end of it");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(
        renewed >= 4,
        "lost answers must not keep an agent from its certificate"
    );
}

#[tokio::test]
async fn an_agent_that_comes_again_and_again_has_to_wait() {
    let world = World::with(vec![booting()]).await;
    let channel = world.as_agent().await;
    let mut opened = 0;
    let refused = loop {
        match Stream::open(&channel).await {
            Ok(mut stream) => {
                stream.say(Said::Hello(Hello::default())).await;
                assert!(matches!(stream.next().await, Ok(Some(Told::Configure(_)))));
                opened += 1;
            }
            Err(refused) => break refused,
        }
        assert!(opened < 200, "no end of it");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(
        opened >= 16,
        "a bad network must not keep an agent from its stream"
    );
}

#[tokio::test]
async fn the_stream_of_a_launch_that_is_over_ends_though_the_agent_goes_on() {
    let world = World::with(vec![booting()]).await;
    let channel = world.as_agent().await;
    let mut stream = Stream::greeted(&channel, Hello::default()).await;
    world.end_the_launch().await;
    // What it has to say yet is taken, for a moment.
    stream.event(1, phase(RunnerPhase::Finished)).await;
    assert_eq!(stream.acknowledged().await, 1);
    let ended = stream.next().await.unwrap_err();
    assert_eq!(ended.code(), Code::PermissionDenied, "{ended}");
}

#[tokio::test]
async fn a_stop_sends_the_agents_away() {
    let world = World::with(vec![booting()]).await;
    let channel = world.as_agent().await;
    let mut stream = Stream::greeted(&channel, Hello::default()).await;
    world.stop.cancel();
    assert!(matches!(stream.next().await, Ok(Some(Told::Reconnect(_)))));
    let ended = stream.next().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
    assert_eq!(world.runner().await.silent_since, None);
}

#[tokio::test]
async fn a_sweep_ends_a_silent_stream_and_the_core_hears_it() {
    let world = World::with(vec![booting()]).await;
    let channel = world.as_agent().await;
    let mut stream = Stream::greeted(&channel, Hello::default()).await;
    stream.event(1, None).await;
    stream.acknowledged().await;
    let later = Timestamp::now() + Duration::from_secs(60);
    let silent = world.presence.sweep(later, Duration::from_secs(30));
    assert_eq!(silent, [LaunchId::from(LAUNCH)]);
    let ended = stream.next().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
    world
        .until("silent", |runner| runner.silent_since.is_some())
        .await;
}

#[tokio::test]
async fn a_stream_ends_when_the_certificate_expires_and_no_new_one_opens() {
    let world = World::with(vec![booting()]).await;
    world.as_agent().await;
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key);
    let requested = RequestedKey::from_csr(csr.unwrap().der()).unwrap();
    // Issued almost an hour ago: a moment of its life is left.
    let then = Timestamp::now() - AGENT_TTL + Duration::from_secs(6);
    let issued = world.authority.agent(&agent_id(), &requested, then);
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let identity = (issued.unwrap().certificate, key);
    let channel = world.connect(world.agents, Some(identity));
    let mut stream = Stream::greeted(&channel, Hello::default()).await;
    let ended = stream.next().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated);
    assert!(ended.message().contains("expired"), "{ended}");
    // On the same connection, and so without a new look at the certificate by TLS.
    let refused = Stream::open(&channel).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    world
        .until("silent", |runner| runner.silent_since.is_some())
        .await;
}

#[tokio::test]
async fn a_stream_goes_on_while_an_authority_replaces_another_and_ends_when_the_first_is_dropped() {
    let mut world = World::with(vec![booting()]).await;
    let channel = world.as_agent().await;
    let mut stream = Stream::greeted(&channel, Hello::default()).await;
    let new = Pair::new();
    let both = format!("{}{}", world.authority.trust_anchors_pem(), new.certificate);
    world.rotate(&both, &new);

    let request = Request::new();
    let mut client = AgentServiceClient::new(channel.clone());
    let renewed = client.renew_certificate(request.message()).await.unwrap();
    let renewed = renewed.into_inner();
    let present = new.with(&[]);
    let anchors = [present.certificate(), world.authority.certificate()];
    assert_eq!(renewed.trust_anchors_der, anchors.map(|it| it.to_vec()));
    stream.event(1, phase(RunnerPhase::Unassigned)).await;
    assert_eq!(stream.acknowledged().await, 1);

    world.rotate(&new.certificate, &new);
    let ended = tokio::time::timeout(SOON, async {
        while stream.next().await?.is_some() {}
        Ok::<_, Status>(())
    });
    let ended = ended.await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended}");
    let reason = "the authority of the certificate is not trusted any more";
    assert_eq!(ended.message(), reason);
    Stream::open(&channel).await.err().unwrap();
    // What was renewed is of the new authority.
    world.authority = Arc::new(present);
    let identity = request.identity(&renewed.certificate_der);
    let channel = world.connect(world.agents, Some(identity));
    Stream::greeted(&channel, Hello::default()).await;
}
