use muster_proto::v1;
use muster_proto::v1::operator_service_client::OperatorServiceClient;
use tonic::Code;
use tonic_reflection::pb::v1 as reflection;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::*;

const NAME: &str = "muster-linux-launch-a";

async fn world() -> (World, OperatorServiceClient<Channel>) {
    let world = World::with(vec![booting()]).await;
    let client = OperatorServiceClient::new(world.as_operator());
    (world, client)
}

/// A job in the queue, as a webhook tells of it.
async fn queue(world: &World, id: i64) {
    let mut report = crate::grpc::sample::job(muster_core::JobStatus::Queued).report;
    report.id = muster_core::JobId(id);
    report.labels = vec!["gpu".to_owned()];
    report.created_at = Some(Timestamp::now());
    let event = Event::Job(Box::new(report));
    world.engine.submit(event).await.unwrap();
}

#[tokio::test]
async fn a_pool_whose_launches_wait_says_what_for() {
    let mut waiting = booting();
    waiting.instance = muster_core::Instance::Requested;
    waiting.held_up = Some("CreateFleet: nobody answers".to_owned());
    let world = World::with(vec![waiting]).await;
    let mut client = OperatorServiceClient::new(world.as_operator());
    let pools = client.list_pools(v1::ListPoolsRequest::default()).await;
    let pools = pools.unwrap().into_inner().pools;
    assert_eq!(
        pools[0].limited_by,
        "launches wait: CreateFleet: nobody answers"
    );
}

#[tokio::test]
async fn who_asks_while_the_store_cannot_be_written_is_told_why_and_does_not_wait() {
    let (world, mut client) = world().await;
    let refused = world
        .while_nothing_is_stored(client.list_pools(v1::ListPoolsRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let start = "the store can't be written, and until it can nothing is decided or told";
    assert!(refused.message().starts_with(start), "{refused}");
    let pools = client.list_pools(v1::ListPoolsRequest::default()).await;
    assert_eq!(pools.unwrap().into_inner().pools.len(), 1);
}

#[tokio::test]
async fn lists_and_records_are_useful_without_any_field() {
    let (world, mut client) = world().await;
    queue(&world, 11).await;
    let pools = client.list_pools(v1::ListPoolsRequest::default()).await;
    assert_eq!(pools.unwrap().into_inner().pools[0].name, "linux");
    let runners = client.list_runners(v1::ListRunnersRequest::default()).await;
    assert_eq!(runners.unwrap().into_inner().runners[0].name, NAME);
    let runner = client.get_runner(v1::GetRunnerRequest::default()).await;
    let runner = runner.unwrap().into_inner().runner.unwrap();
    assert_eq!(runner.state(), v1::RunnerState::Booting);
    let jobs = client.list_jobs(v1::ListJobsRequest::default()).await;
    assert_eq!(jobs.unwrap().into_inner().jobs[0].id, 11);
    let job = client.get_job(v1::GetJobRequest::default()).await;
    let job = job.unwrap().into_inner();
    assert!(!job.timeline.is_empty() && job.wait.unwrap().total.is_some());
    let explained = client.explain_job(v1::ExplainJobRequest::default()).await;
    let explained = explained.unwrap().into_inner();
    assert_eq!(explained.job.unwrap().id, 11);
    assert!(!explained.summary.is_empty() && !explained.pools[0].accepts);
    let timeline = client.get_timeline(v1::GetTimelineRequest::default()).await;
    assert!(!timeline.unwrap().into_inner().entries.is_empty());
    let level = client
        .set_log_level(v1::SetLogLevelRequest::default())
        .await;
    assert_eq!(level.unwrap().into_inner().level, "info");
    let actions = v1::ListOperatorActionsRequest::default();
    let actions = client.list_operator_actions(actions).await.unwrap();
    assert!(actions.into_inner().actions.is_empty());
}

#[tokio::test]
async fn what_changes_something_must_be_named_and_is_recorded() {
    let (_world, mut client) = world().await;
    let unnamed = client
        .terminate_runner(v1::TerminateRunnerRequest::default())
        .await
        .unwrap_err();
    assert_eq!(unnamed.code(), Code::InvalidArgument);
    assert!(unnamed.message().contains(NAME), "{unnamed}");
    let unknown = client
        .drain_runner(v1::DrainRunnerRequest {
            name: "muster-linux-launch-b".to_owned(),
            reason: String::new(),
        })
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().contains(NAME), "{unknown}");

    let paused = client
        .pause_pool(v1::PausePoolRequest {
            name: "linux".to_owned(),
            reason: "bad image".to_owned(),
        })
        .await;
    let paused = paused.unwrap().into_inner().pool.unwrap();
    assert!(paused.paused && paused.limited_by.contains("alice: bad image"));
    let resumed = client
        .resume_pool(v1::ResumePoolRequest {
            name: "linux".to_owned(),
        })
        .await;
    assert!(!resumed.unwrap().into_inner().pool.unwrap().paused);
    let level = v1::SetLogLevelRequest {
        level: "debug".to_owned(),
    };
    let level = client.set_log_level(level).await.unwrap().into_inner();
    assert_eq!(level.level, "debug");
    let terminated = client
        .terminate_runner(v1::TerminateRunnerRequest {
            name: INSTANCE.to_owned(),
            reason: "stuck".to_owned(),
        })
        .await;
    let terminated = terminated.unwrap().into_inner().runner.unwrap();
    assert_eq!(terminated.state(), v1::RunnerState::Ending);
    assert!(terminated.reason.contains("alice: stuck"), "{terminated:?}");

    let actions = v1::ListOperatorActionsRequest::default();
    let actions = client.list_operator_actions(actions).await.unwrap();
    let actions = actions.into_inner().actions;
    let done: Vec<_> = actions
        .iter()
        .map(|action| (action.method.as_str(), action.target.as_str()))
        .collect();
    assert_eq!(
        done,
        [
            ("TerminateRunner", NAME),
            ("SetLogLevel", "debug"),
            ("ResumePool", "linux"),
            ("PausePool", "linux"),
        ]
    );
    assert!(actions.iter().all(|action| action.operator == "alice"));
}

#[tokio::test]
async fn a_watch_shows_what_was_and_what_comes_once_each() {
    let (world, mut client) = world().await;
    for id in 1..=30 {
        queue(&world, id).await;
    }
    let watch = client.watch_events(v1::WatchEventsRequest::default()).await;
    let mut watch = watch.unwrap().into_inner();
    let mut sequences = Vec::new();
    for _ in 0..20 {
        let entry = watch.message().await.unwrap().unwrap().entry.unwrap();
        sequences.push(entry.sequence);
    }
    queue(&world, 31).await;
    let entry = tokio::time::timeout(SOON, watch.message()).await.unwrap();
    let entry = entry.unwrap().unwrap().entry.unwrap();
    assert_eq!(entry.job_id, 31);
    sequences.push(entry.sequence);
    assert!(
        sequences.is_sorted_by(|one, next| one < next),
        "{sequences:?}"
    );

    let from_the_start = v1::WatchEventsRequest {
        after_sequence: 1,
        stop_at_end: true,
        ..v1::WatchEventsRequest::default()
    };
    let mut all = client
        .watch_events(from_the_start)
        .await
        .unwrap()
        .into_inner();
    let mut seen = 0;
    while let Some(entry) = all.message().await.unwrap() {
        assert!(entry.entry.unwrap().sequence > 1);
        seen += 1;
    }
    assert!(seen >= 30, "{seen}");

    world.stop.cancel();
    let ended = watch.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
}

#[tokio::test]
async fn reflection_lists_the_services_to_operators_only() {
    let world = World::with(vec![booting()]).await;
    let list = || {
        tokio_stream::once(reflection::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        })
    };
    let mut client = ServerReflectionClient::new(world.as_operator());
    let answers = client.server_reflection_info(list()).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("no list");
    };
    let names: Vec<_> = services.service.into_iter().map(|it| it.name).collect();
    for service in ["muster.v1.OperatorService", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|name| name == service), "{names:?}");
    }

    let token = world.token(SOON).await;
    let (_, agent) = world.enroll(token.expose_secret()).await.unwrap();
    let agent = world.connect(world.operators, Some(agent));
    let refused = ServerReflectionClient::new(agent.clone())
        .server_reflection_info(list())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = OperatorServiceClient::new(agent)
        .list_pools(v1::ListPoolsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_watch_ends_with_the_reason_when_the_authority_of_its_certificate_is_dropped() {
    let (mut world, mut client) = world().await;
    let watch = client.watch_events(v1::WatchEventsRequest::default()).await;
    let mut watch = watch.unwrap().into_inner();
    let new = Pair::new();
    world.rotate(&new.certificate, &new);
    let ended = tokio::time::timeout(SOON, async {
        while watch.message().await?.is_some() {}
        Ok::<_, Status>(())
    });
    let ended = ended.await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended}");
    assert!(ended.message().contains("not trusted any more"), "{ended}");
}
