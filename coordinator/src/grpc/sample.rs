//! Fleets and clients for the tests of the services.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use muster_core::{
    Decision, Fleet, FleetSpec, Instance, Job, JobId, JobReport, JobStatus, Lineage, Marks,
    PoolSpec, Registration, Repository, Runner, Scope, Shape, SizeRules, Stored, TimeLimits, Work,
};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::ExposeSecret as _;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::identity::ca::Authority;
use crate::identity::spiffe::{AgentId, OperatorId, TrustDomain};

/// What a client proves who it is with.
pub(super) type ClientIdentity = (CertificateDer<'static>, PrivateKeyDer<'static>);

pub(super) const INSTANCE: &str = "i-0123456789abcdef0";

pub(super) fn agent_id() -> AgentId {
    let domain = TrustDomain::new("muster.test").unwrap();
    AgentId::new(&domain, "linux", "local", "local", INSTANCE).unwrap()
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(super) fn pool() -> PoolSpec {
    PoolSpec {
        name: "linux".into(),
        scope: Scope::Organization("octo-org".to_owned()),
        runner_group: "Default".to_owned(),
        labels: ["linux".to_owned()].into(),
        sizes: SizeRules::default(),
        public_repositories: false,
        account: "local".into(),
        min_idle: 0,
        max: 4,
        limits: TimeLimits::default(),
        rerun: None,
        canary: None,
    }
}

pub(super) fn operator_identity(authority: &Authority, trust_domain: &str) -> ClientIdentity {
    let domain = TrustDomain::new(trust_domain).unwrap();
    let id = OperatorId::new(&domain, "alice").unwrap();
    let hour = Duration::from_secs(3600);
    let issued = authority.operator(&id, hour, Timestamp::now()).unwrap();
    let key = issued.key_pem.expose_secret().as_bytes();
    (
        CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap(),
        PrivateKeyDer::from_pem_slice(key).unwrap(),
    )
}

/// A client that connects when it is used, over TLS, and counts how often.
pub(super) fn channel(
    address: SocketAddr,
    authority: &Authority,
    identity: Option<ClientIdentity>,
    connections: Arc<AtomicUsize>,
) -> Channel {
    counted_channel("0.0.0.0", address, authority, identity, connections)
}

/// A client that connects from an address of this machine.
pub(super) fn channel_from(
    from: &str,
    address: SocketAddr,
    authority: &Authority,
    identity: Option<ClientIdentity>,
) -> Channel {
    counted_channel(from, address, authority, identity, Arc::default())
}

fn counted_channel(
    from: &str,
    address: SocketAddr,
    authority: &Authority,
    identity: Option<ClientIdentity>,
    connections: Arc<AtomicUsize>,
) -> Channel {
    let from = SocketAddr::new(from.parse().unwrap(), 0);
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut tls = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(vec![certificate], key)
            .unwrap(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(tls));
    let connect = tower::service_fn(move |_| {
        connections.fetch_add(1, Ordering::SeqCst);
        let connector = connector.clone();
        async move {
            let socket = TcpSocket::new_v4()?;
            socket.bind(from)?;
            let tcp = socket.connect(address).await?;
            let name = "localhost".try_into().map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, tcp).await?))
        }
    });
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect)
}

pub(crate) fn runner(launch: &str, work: Work) -> Runner {
    Runner {
        launch: launch.into(),
        pool: "linux".into(),
        shape: Shape::default(),
        scope: pool().scope,
        account: "local".into(),
        name: format!("muster-linux-{launch}").as_str().into(),
        attempt: 1,
        offering: None,
        instance: Instance::Exists {
            id: INSTANCE.into(),
        },
        registration: Registration::None,
        work,
        drain: None,
        job: None,
        job_name: None,
        held_up: None,
        silent_since: None,
        heard_at: None,
        warnings: 0,
        notice: None,
        cut_short: None,
        heard_through: 0,
        trialed: None,
        marks: Marks {
            created_at: at(100),
            withdrawn_at: None,
            launched_at: None,
            enrolled_at: None,
            registered_at: None,
            listening_at: None,
            busy_at: None,
            over_at: None,
            instance_gone_at: None,
            gone_at: None,
            stage_since: at(100),
        },
    }
}

pub(super) fn fleet_with(runners: impl IntoIterator<Item = Runner>) -> Fleet {
    let spec = FleetSpec {
        pools: vec![pool()],
        accounts: BTreeMap::new(),
    };
    let stored = Stored {
        runners: runners.into_iter().collect(),
        ..Stored::default()
    };
    Fleet::restore(spec, stored, 1)
}

pub(super) fn job(status: JobStatus) -> Job {
    Job {
        report: JobReport {
            id: JobId(1),
            run_id: 10,
            run_attempt: Some(1),
            repository: Repository {
                owner: "octo-org".to_owned(),
                name: "octo-repo".to_owned(),
                public: false,
                enterprise: None,
            },
            workflow: Some("ci".to_owned()),
            name: "build".to_owned(),
            labels: vec!["linux".to_owned()],
            status,
            conclusion: None,
            runner_name: None,
            created_at: None,
            started_at: None,
            completed_at: None,
            installation: None,
        },
        known_at: at(100),
        decision: Decision::Served {
            pool: "linux".into(),
            shape: Shape::default(),
        },
        taken_by: None,
        started_at: None,
        completed_at: None,
        closed: None,
        doubted: false,
        missing_since: None,
        passed_over: false,
        cut_short: None,
        lineage: Lineage::default(),
    }
}
