//! The services over real TLS, a real store and a real engine. Only GitHub is not there.

mod attested;
mod aws;
mod enrollment;
mod jumps;
mod leaving;
mod operator;
mod renewal;
mod session;
mod stream;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use muster_core::{Event, Fleet, FleetSpec, LaunchId, Runner, Work};
use muster_proto::v1::enroll_proof::Evidence;
use muster_proto::v1::enroll_request::Step as Asked;
use muster_proto::v1::enroll_response::Step as Answer;
use muster_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use muster_proto::v1::{
    EnrollBegin, EnrollChallenge, EnrollIssued, EnrollProof, EnrollRequest, EnrollResponse,
    JoinTokenEvidence,
};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::authorize::Role;
use super::enrollment::{AwsEnrollment, Enrollment, PATIENCE, Parts as EnrollmentParts, Patience};
use super::listen::{Limits, Listener};
use super::operator::{Known, LogLevel, Operators};
use super::sample::{
    ClientIdentity, INSTANCE, channel, channel_from, operator_identity, pool, runner,
};
use super::session::{AgentSettings, Agents};
use crate::clock;
use crate::engine::{Engine, Executor, Parts, Vault};

use crate::github::{GithubClient, Settings};
use crate::identity::ca::Authority;
use crate::identity::ca::fixtures::Pair;
use crate::identity::join_token;
use crate::identity::serving::Serving;
use crate::identity::spiffe::TrustDomain;
use crate::presence::Presence;
use crate::store::{Batch, Store};
use crate::telemetry::Metrics;

const LAUNCH: &str = "launch-a";
const AUDIENCE: &str = "muster.test";
/// Longest wait for anything in these tests.
const SOON: Duration = Duration::from_secs(10);

struct World {
    store: Store,
    engine: Engine,
    presence: Presence,
    vault: Vault,
    authority: Arc<Authority>,
    serving: Serving,
    metrics: Metrics,
    enroll: SocketAddr,
    agents: SocketAddr,
    operators: SocketAddr,
    stop: CancellationToken,
    directory: tempfile::TempDir,
}

/// A launch that was decided now, whose instance boots.
fn booting() -> Runner {
    let mut record = runner(LAUNCH, Work::Booting);
    let now = clock::now();
    record.marks.created_at = now;
    record.marks.stage_since = now;
    record
}

fn github() -> GithubClient {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    // Port 9 of loopback refuses: nothing is registered, and the effects wait.
    let url = "http://127.0.0.1:9".parse().unwrap();
    let pem = SecretString::from(key.serialize_pem());
    GithubClient::new(Settings::new(url, "1".to_owned(), pem)).unwrap()
}

impl World {
    async fn with(runners: Vec<Runner>) -> Self {
        Self::with_aws(runners, None).await
    }

    async fn with_aws(runners: Vec<Runner>, aws: Option<AwsEnrollment>) -> Self {
        Self::with_patience(runners, aws, PATIENCE).await
    }

    async fn with_patience(
        runners: Vec<Runner>,
        aws: Option<AwsEnrollment>,
        patience: Patience,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("muster.db"))
            .await
            .unwrap();
        let batch = Batch {
            runners,
            ..Batch::default()
        };
        store.commit(batch).await.unwrap();

        let stop = CancellationToken::new();
        let metrics = Metrics::new().unwrap();
        let presence = Presence::default();
        let executor = Executor::new(github(), HashMap::new(), &[pool()], metrics.clone());
        let vault = executor.vault();
        let parts = Parts {
            store: Arc::new(store.clone()),
            spec: FleetSpec {
                pools: vec![pool()],
                accounts: BTreeMap::new(),
            },
            presence: presence.clone(),
            executor,
            metrics: metrics.clone(),
            list_first: false,
        };
        let (engine, runnable) = Engine::new(parts).await.unwrap();
        tokio::spawn(runnable.run(CancellationToken::new()));

        let now = Timestamp::now();
        let authority = || Authority::load_or_create(directory.path(), now).unwrap();
        let serving = Serving::new(authority(), vec!["localhost".into()], now).unwrap();
        let authority = Arc::new(authority());
        let domain = TrustDomain::new("muster.test").unwrap();
        let tasks = TaskTracker::new();
        let parts = EnrollmentParts {
            engine: engine.clone(),
            store: store.clone(),
            authority: serving.authority(),
            trust_domain: domain,
            audience: AUDIENCE.to_owned(),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
            aws,
        };
        let enrollment = Enrollment::with_patience(parts, patience);
        let agents = Agents::new(
            engine.clone(),
            presence.clone(),
            serving.authority(),
            AgentSettings::default(),
            stop.clone(),
            tasks,
        );
        let operators = Operators::new(
            engine.clone(),
            store.clone(),
            presence.clone(),
            log_level(),
            Known::default(),
            stop.clone(),
        );
        let (operators, _) = operators.into_routes().await.unwrap();
        let serve = |role, routes| listen(&serving, role, routes, stop.clone());
        Self {
            enroll: serve(Role::Newcomer, Routes::new(enrollment.into_service())).await,
            agents: serve(Role::Agent, Routes::new(agents.into_service())).await,
            operators: serve(Role::Operator, operators).await,
            store,
            engine,
            presence,
            vault,
            authority,
            serving,
            metrics,
            stop,
            directory,
        }
    }

    fn connect(&self, address: SocketAddr, identity: Option<ClientIdentity>) -> Channel {
        channel(address, &self.authority, identity, Arc::default())
    }

    fn as_operator(&self) -> Channel {
        let identity = operator_identity(&self.authority, "muster.test");
        self.connect(self.operators, Some(identity))
    }

    async fn token(&self, life: Duration) -> SecretString {
        let expires_at = clock::now() + life;
        let (launch, pool) = (LAUNCH.into(), "linux".into());
        join_token::make(&self.store, launch, pool, INSTANCE.into(), expires_at)
            .await
            .unwrap()
    }

    async fn enroll(&self, token: &str) -> Result<(EnrollIssued, ClientIdentity), Status> {
        enroll(self.connect(self.enroll, None), token).await
    }

    /// Replaces the authority while it is in use.
    fn rotate(&mut self, certificates: &str, key: &Pair) {
        let now = Timestamp::now();
        self.serving.take_up(certificates, &key.key, now).unwrap();
    }

    /// The channel of an agent that has enrolled.
    async fn as_agent(&self) -> Channel {
        let token = self.token(SOON).await;
        let (_, identity) = self.enroll(token.expose_secret()).await.unwrap();
        self.connect(self.agents, Some(identity))
    }

    async fn runner(&self) -> Runner {
        let launch = LaunchId::from(LAUNCH);
        self.engine
            .query(move |fleet| fleet.runner(&launch).cloned())
            .await
            .unwrap()
            .unwrap()
    }

    /// Waits until the runner is as it should be.
    async fn until(&self, what: &str, is: impl Fn(&Runner) -> bool + Copy + Send + 'static) {
        let launch = LaunchId::from(LAUNCH);
        let found = move |fleet: &Fleet| fleet.runner(&launch).filter(|it| is(it)).map(|_| ());
        let waiting = self.engine.until(found);
        if tokio::time::timeout(SOON, waiting).await.is_err() {
            panic!("not {what}: {:?}", self.runner().await);
        }
    }

    async fn end_the_launch(&self) {
        self.engine.submit(end()).await.unwrap();
    }

    /// Does something while nothing can be stored, so that the engine answers nobody.
    async fn while_nothing_is_stored<T>(&self, act: impl Future<Output = T>) -> T {
        // As an operator's `sqlite3` would hold it.
        let file = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(self.directory.path().join("muster.db"));
        let mut other = sqlx::ConnectOptions::connect(&file).await.unwrap();
        sqlx::raw_sql("BEGIN IMMEDIATE")
            .execute(&mut other)
            .await
            .unwrap();
        let held = async {
            self.engine.held_up().await;
            let done = act.await;
            sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
            done
        };
        let pause = Event::OperatorPause {
            pool: pool().name,
            paused: Some("test".to_owned()),
        };
        // It is answered once it is stored.
        let (stored, done) = tokio::join!(self.engine.submit(pause), held);
        stored.unwrap();
        done
    }
}

/// An operator ends the launch.
fn end() -> Event {
    Event::OperatorTerminate {
        launch: LAUNCH.into(),
        reason: "test".to_owned(),
    }
}

fn log_level() -> LogLevel {
    let level = Arc::new(Mutex::new("info".to_owned()));
    let read = Arc::clone(&level);
    LogLevel {
        get: Arc::new(move || read.lock().unwrap().clone()),
        set: Arc::new(move |wanted| {
            wanted.clone_into(&mut level.lock().unwrap());
            Ok(())
        }),
    }
}

async fn listen(
    serving: &Serving,
    role: Role,
    routes: Routes,
    stop: CancellationToken,
) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let listener = Listener {
        socket,
        tls: match role {
            Role::Newcomer => serving.enroll(),
            Role::Agent => serving.agents(),
            Role::Operator => serving.operators(),
        },
        role,
        trust_domain: TrustDomain::new("muster.test").unwrap(),
        limits: Limits::of(role),
        routes,
    };
    tokio::spawn(listener.serve(stop));
    address
}

/// An enrolment that has been challenged.
struct Challenged {
    challenge: EnrollChallenge,
    say: mpsc::Sender<EnrollRequest>,
    answers: Streaming<EnrollResponse>,
}

impl Challenged {
    async fn new(channel: Channel) -> Result<Self, Status> {
        let mut client = EnrollmentServiceClient::new(channel);
        let (say, said) = mpsc::channel(2);
        let begin = Asked::Begin(EnrollBegin {
            agent_version: "0.1.0".to_owned(),
        });
        say.send(EnrollRequest { step: Some(begin) }).await.unwrap();
        let mut answers = client.enroll(ReceiverStream::new(said)).await?.into_inner();
        let answer = answers.message().await?.and_then(|it| it.step);
        let Some(Answer::Challenge(challenge)) = answer else {
            panic!("no challenge: {answer:?}");
        };
        Ok(Self {
            challenge,
            say,
            answers,
        })
    }

    async fn prove(mut self, csr_der: Vec<u8>, evidence: Evidence) -> Result<EnrollIssued, Status> {
        let proof = Asked::Proof(EnrollProof {
            csr_der,
            nonce: self.challenge.nonce,
            evidence: Some(evidence),
        });
        let proof = EnrollRequest { step: Some(proof) };
        self.say.send(proof).await.unwrap();
        match self.answers.message().await?.and_then(|it| it.step) {
            Some(Answer::Issued(issued)) => Ok(issued),
            other => panic!("nothing issued: {other:?}"),
        }
    }
}

/// A request for a certificate of a key, DER.
fn csr(key: &KeyPair) -> Vec<u8> {
    let csr = CertificateParams::default().serialize_request(key).unwrap();
    csr.der().to_vec()
}

/// One whole enrolment, as an agent makes it.
async fn enroll(channel: Channel, token: &str) -> Result<(EnrollIssued, ClientIdentity), Status> {
    let challenged = Challenged::new(channel).await?;
    let key = KeyPair::generate().unwrap();
    let token = Evidence::JoinToken(JoinTokenEvidence {
        token: token.to_owned(),
    });
    let issued = challenged.prove(csr(&key), token).await?;
    let certificate = CertificateDer::from(issued.certificate_der.clone());
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    Ok((issued, (certificate, key)))
}
