//! An AWS with a memory: EC2, STS, SSM and SQS, as far as Muster calls them, for any number of accounts
//! and regions.
//!
//! Each request and each answer is checked against AWS's own models; what departs from them is a
//! violation, and [`FakeAws::violations`] must be empty when a test ends. Each signature is verified,
//! by code that shares nothing with what signs.
//!
//! Clients reach it at [`FakeAws::url`] (`AWS_ENDPOINT_URL`), or without a socket through
//! [`FakeAws::http_client`]. Which service, account and region are meant follows from the signature.
//! There is a static key of a user in the first account ([`Options`]); roles of any account can be
//! assumed once a test has added them ([`FakeAws::add_role`]); each instance has its own key.
//!
//! In each account and region there are three subnets, an image for each architecture and the launch
//! template `muster` from the start.

mod buckets;
mod connector;
mod dispatch;
mod disturb;
mod ec2;
mod error;
mod events;
mod faults;
mod ids;
mod keys;
mod look;
mod model;
mod options;
mod query;
mod render;
mod server;
mod set_up;
mod shared;
mod sigv4;
mod sqs;
mod ssm;
mod sts;
mod sts_lies;
mod xml;

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use bytes::Bytes;
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::buckets::Bucket;
use self::buckets::Buckets;
pub use self::ec2::{
    Capacity, Fleet, Image, Instance, InstanceState, InstanceType, Life, Market, Offering, Subnet,
    TYPES, Template, TemplateVersion,
};
pub use self::events::Told;
use self::faults::Faults;
pub use self::faults::{Answer, Chaos, Effect, Fault};
use self::keys::Keys;
pub use self::keys::{Credentials, Principal};
pub use self::look::Lives;
pub use self::model::{ModelError, default_path};
pub use self::options::{Addresses, Options, Stages};
pub use self::shared::{Call, Place};
use self::shared::{Shared, State};
use self::sqs::Queue;
pub use self::ssm::ParameterKind;
use self::ssm::Parameters;
pub use self::sts::{Role, Session};
pub use self::sts_lies::{Claim, StsLie};
use crate::fakes::{HangUp, http_server};

/// Why the fake does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// AWS's models are not there.
    #[error(transparent)]
    Models(#[from] ModelError),
    /// The address can't be listened on.
    #[error("listen for the fake AWS: {0}")]
    Listen(#[from] std::io::Error),
}

/// The fake. Stops when dropped.
pub struct FakeAws {
    /// Its address, for all services.
    pub url: String,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for FakeAws {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl FakeAws {
    /// Starts on a free port unless the options name one.
    ///
    /// # Errors
    ///
    /// If AWS's models are missing (run `tests/install`) or the port is taken.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let models = model::read(&options.models)?;
        let listener = TcpListener::bind(options.listen).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let options = Arc::new(options);
        let state = State::new(Arc::clone(&options));
        let shared = Arc::new(Shared::new(options, models, url.clone(), state));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let serving = Arc::clone(&shared);
        tasks.spawn(http_server::serve(listener, stop.clone(), move |request| {
            let shared = Arc::clone(&serving);
            async move { server::serve(&shared, request).await }
        }));
        tasks.spawn(shared::keep_time(Arc::clone(&shared), stop.clone()));
        tasks.close();
        Ok(Self {
            url,
            shared,
            stop,
            tasks,
        })
    }

    /// Stops serving and waits for all tasks.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    /// Answers one request as if it had come over a socket.
    ///
    /// # Errors
    ///
    /// Where the connection would be closed without an answer.
    pub async fn handle(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HangUp> {
        server::serve(&self.shared, request).await
    }

    /// An HTTP client for the AWS SDKs whose requests come here without a socket.
    pub fn http_client(&self) -> SharedHttpClient {
        connector::client(&self.shared)
    }
}

impl State {
    fn new(options: Arc<Options>) -> Self {
        let mut places = Vec::new();
        for account in &options.accounts {
            for region in &options.regions {
                places.push(Place {
                    account: account.clone(),
                    region: region.clone(),
                });
            }
        }
        let mut keys = Keys::default();
        let home = options.accounts.first().cloned().unwrap_or_default();
        keys.add(
            Credentials {
                access_key_id: options.access_key_id.clone(),
                secret_access_key: options.secret_access_key.clone(),
                session_token: None,
                expires: None,
            },
            Principal {
                arn: format!("arn:aws:iam::{home}:user/coordinator"),
                user_id: "AIDAMUSTERCOORDINATOR".to_owned(),
                account: home,
                instance: false,
            },
        );
        let each = |place: &Place| place.clone();
        Self {
            keys,
            roles: Vec::new(),
            sessions: Vec::new(),
            regions: places
                .iter()
                .map(|place| (each(place), ec2::Region::furnished(each(place))))
                .collect(),
            parameters: places
                .iter()
                .map(|place| (each(place), Parameters::default()))
                .collect(),
            queues: places
                .iter()
                .map(|place| (each(place), Queue::default()))
                .collect(),
            faults: Faults::default(),
            buckets: Buckets::default(),
            calls: Vec::new(),
            served: BTreeMap::new(),
            lives: Vec::new(),
            violations: Vec::new(),
            options,
        }
    }
}
