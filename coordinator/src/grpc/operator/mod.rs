//! What operators see and do, made for `grpcurl`.

mod actions;
mod convert;
mod jobs;
mod near;
mod pools;
mod runners;
mod timeline;
mod wait;
mod watch;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use jiff::Timestamp;
use muster_core::Fleet;
use muster_proto::v1;
use muster_proto::v1::operator_service_server::{OperatorService, OperatorServiceServer};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::server::HealthReporter;
use tracing::warn;

use super::authorize;
use crate::engine::{Engine, Stopped};
use crate::github::survey::Surveys;
use crate::presence::Presence;
use crate::runner_versions::RunnerVersions;
use crate::store::{Store, StoreError};

/// Most bytes of a request.
const MAX_REQUEST: usize = 64 * 1024;
/// Most watches at a time.
const WATCHES: usize = 64;
/// Items in a list, unless the request says otherwise, and the most it may ask for.
const LIST: (u32, u32) = (100, 1_000);

/// Sets a log level, or says why not.
pub type SetLevel = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// Reads and sets the log level of the process.
#[derive(Clone)]
pub struct LogLevel {
    /// The level in force.
    pub get: Arc<dyn Fn() -> String + Send + Sync>,
    /// Sets the level.
    pub set: Arc<SetLevel>,
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogLevel").field(&(self.get)()).finish()
    }
}

/// What reflection shows.
const OPERATOR_SERVICE: &str = "muster.v1.OperatorService";
const HEALTH_SERVICE: &str = "grpc.health.v1.Health";

/// What is known beside the fleet.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// How GitHub is looked at.
    pub surveys: Surveys,
    /// How old the runners in the pools' images are.
    pub versions: RunnerVersions,
}

/// Serves the operators.
#[derive(Clone, Debug)]
pub struct Operators {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engine: Engine,
    store: Store,
    presence: Presence,
    log_level: LogLevel,
    known: Known,
    stop: CancellationToken,
    watches: Arc<Semaphore>,
}

impl Operators {
    /// A service whose streams end when `stop` is cancelled.
    #[must_use]
    pub fn new(
        engine: Engine,
        store: Store,
        presence: Presence,
        log_level: LogLevel,
        known: Known,
        stop: CancellationToken,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                engine,
                store,
                presence,
                log_level,
                known,
                stop,
                watches: Arc::new(Semaphore::new(WATCHES)),
            }),
        }
    }

    /// The services of the operators' listener: this one, health, and reflection in both versions
    /// that clients ask for. The reporter says "serving" for the whole until it is told otherwise.
    ///
    /// # Errors
    /// When the descriptors that are built in can't be read.
    pub async fn into_routes(
        self,
    ) -> Result<(Routes, HealthReporter), tonic_reflection::server::Error> {
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_serving::<OperatorServiceServer<Self>>().await;
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // The package has services of other listeners too, which are not to be had here.
                .with_service_name(OPERATOR_SERVICE)
                .with_service_name(HEALTH_SERVICE)
        };
        let routes =
            Routes::new(OperatorServiceServer::new(self).max_decoding_message_size(MAX_REQUEST))
                .add_service(health)
                .add_service(reflection().build_v1()?)
                .add_service(reflection().build_v1alpha()?);
        Ok((routes, reporter))
    }
}

impl Shared {
    async fn query<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Fleet) -> T + Send + 'static,
    ) -> Result<T, Status> {
        self.answered(self.engine.query(read)).await
    }

    /// What the engine answers. While the store is out of order it answers nobody: whoever asks is told so, and needn't wait
    /// for the end of the call's time.
    async fn answered<T>(
        &self,
        answer: impl Future<Output = Result<T, Stopped>>,
    ) -> Result<T, Status> {
        tokio::select! {
            biased;
            answered = answer => answered.map_err(|Stopped| stopping()),
            why = self.engine.held_up() => Err(Status::unavailable(format!(
                "the store can't be written, and until it can nothing is decided or told; what was asked for may \
                 be done then: {why}"
            ))),
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;
type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchEventsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl OperatorService for Operators {
    async fn list_pools(&self, _: Request<v1::ListPoolsRequest>) -> Answer<v1::ListPoolsResponse> {
        self.shared.list_pools().await.map(Response::new)
    }

    async fn list_runners(
        &self,
        request: Request<v1::ListRunnersRequest>,
    ) -> Answer<v1::ListRunnersResponse> {
        let answer = self.shared.list_runners(request.into_inner()).await;
        answer.map(Response::new)
    }

    async fn get_runner(
        &self,
        request: Request<v1::GetRunnerRequest>,
    ) -> Answer<v1::GetRunnerResponse> {
        let answer = self.shared.get_runner(request.into_inner()).await;
        answer.map(Response::new)
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Answer<v1::ListJobsResponse> {
        let answer = self.shared.list_jobs(request.into_inner()).await;
        answer.map(Response::new)
    }

    async fn get_job(&self, request: Request<v1::GetJobRequest>) -> Answer<v1::GetJobResponse> {
        let answer = self.shared.get_job(request.get_ref().id).await;
        answer.map(Response::new)
    }

    async fn explain_job(
        &self,
        request: Request<v1::ExplainJobRequest>,
    ) -> Answer<v1::ExplainJobResponse> {
        let answer = self.shared.explain_job(request.get_ref().id).await;
        answer.map(Response::new)
    }

    async fn get_timeline(
        &self,
        request: Request<v1::GetTimelineRequest>,
    ) -> Answer<v1::GetTimelineResponse> {
        let answer = self.shared.get_timeline(request.into_inner()).await;
        answer.map(Response::new)
    }

    type WatchEventsStream = WatchStream;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Answer<Self::WatchEventsStream> {
        let (_, validity) = authorize::operator(&request)?;
        let shared = Arc::clone(&self.shared);
        let stream = shared.watch(request.into_inner(), validity).await?;
        Ok(Response::new(stream))
    }

    async fn drain_runner(
        &self,
        request: Request<v1::DrainRunnerRequest>,
    ) -> Answer<v1::DrainRunnerResponse> {
        let (operator, _) = authorize::operator(&request)?;
        let answer = self.shared.drain_runner(&operator, request.into_inner());
        answer.await.map(Response::new)
    }

    async fn terminate_runner(
        &self,
        request: Request<v1::TerminateRunnerRequest>,
    ) -> Answer<v1::TerminateRunnerResponse> {
        let (operator, _) = authorize::operator(&request)?;
        let answer = self
            .shared
            .terminate_runner(&operator, request.into_inner());
        answer.await.map(Response::new)
    }

    async fn pause_pool(
        &self,
        request: Request<v1::PausePoolRequest>,
    ) -> Answer<v1::PausePoolResponse> {
        let (operator, _) = authorize::operator(&request)?;
        let answer = self.shared.pause_pool(&operator, request.into_inner());
        answer.await.map(Response::new)
    }

    async fn resume_pool(
        &self,
        request: Request<v1::ResumePoolRequest>,
    ) -> Answer<v1::ResumePoolResponse> {
        let (operator, _) = authorize::operator(&request)?;
        let answer = self.shared.resume_pool(&operator, request.into_inner());
        answer.await.map(Response::new)
    }

    async fn set_log_level(
        &self,
        request: Request<v1::SetLogLevelRequest>,
    ) -> Answer<v1::SetLogLevelResponse> {
        let (operator, _) = authorize::operator(&request)?;
        let answer = self
            .shared
            .set_log_level(&operator, &request.get_ref().level);
        answer.await.map(Response::new)
    }

    async fn list_operator_actions(
        &self,
        request: Request<v1::ListOperatorActionsRequest>,
    ) -> Answer<v1::ListOperatorActionsResponse> {
        let answer = self.shared.list_actions(request.get_ref().limit).await;
        answer.map(Response::new)
    }
}

/// How many items to give: what was asked for, within the bounds.
fn limit(asked: u32, (usual, most): (u32, u32)) -> u32 {
    match asked {
        0 => usual,
        asked => asked.min(most),
    }
}

fn as_len(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

fn now() -> Timestamp {
    Timestamp::now()
}

fn stopping() -> Status {
    Status::unavailable("the coordinator is stopping")
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn store_failed(error: StoreError) -> Status {
    warn!(%error, "the store failed a call of an operator");
    Status::unavailable("the store does not answer as it should; the log says more")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, 100)]
    #[case(7, 7)]
    #[case(1_000, 1_000)]
    #[case(u32::MAX, 1_000)]
    fn a_list_has_a_usual_length_and_a_bound(#[case] asked: u32, #[case] given: u32) {
        assert_eq!(limit(asked, LIST), given);
    }
}
