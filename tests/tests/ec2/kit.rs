//! A provider beside its fake.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use futures::future::join_all;
use muster_coordinator::compute::ec2::{
    Ec2Pool, Ec2Provider, Ec2Settings, Given, ImageSource, Pace, SpotStrategy, Template,
    TemplateKey,
};
use muster_coordinator::compute::{HeldUp, LaunchError, LaunchOrder, Launched, Provider};
use muster_coordinator::store::Store;
use muster_coordinator::tasks::Tasks;
use muster_core::{InstanceId, Marked, Market, Shape};
use muster_tests::fakes::aws::{Effect, FakeAws, Options, Place};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The coordinator's name.
pub(crate) const COORDINATOR: &str = "muster";

/// A provider, its store and its AWS.
pub(crate) struct Home {
    pub(crate) aws: Arc<FakeAws>,
    pub(crate) place: Place,
    pub(crate) provider: Provider,
    pub(crate) settings: Ec2Settings,
    pub(crate) store: Store,
    _dir: TempDir,
    tasks: Tasks,
}

impl Home {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default(), |_| {}).await
    }

    /// One whose pool is changed.
    pub(crate) async fn of_pool(change: impl FnOnce(&mut Ec2Pool)) -> Self {
        let change = |settings: &mut Ec2Settings| {
            settings.pools.get_mut(&"linux".into()).map(change);
        };
        Self::of_pools(change).await
    }

    /// One whose settings are changed.
    pub(crate) async fn of_pools(change: impl FnOnce(&mut Ec2Settings)) -> Self {
        Self::with(Options::default(), change).await
    }

    pub(crate) async fn with(options: Options, change: impl FnOnce(&mut Ec2Settings)) -> Self {
        let aws = Arc::new(FakeAws::start(options).await.unwrap());
        let place = aws.home();
        let subnets = aws.subnets(&place).into_iter().map(|subnet| subnet.id);
        let pool = Ec2Pool {
            template: Template {
                key: TemplateKey::Name("muster".to_owned()),
                version: "$Default".to_owned(),
            },
            image: ImageSource::Template,
            canary: None,
            subnets: subnets.collect(),
            types: ["m7i.large", "c7i.xlarge"].map(str::to_owned).into(),
            market: Market::Spot,
            on_demand_fallback: true,
            strategy: SpotStrategy::PriceCapacityOptimized,
        };
        let mut settings = Ec2Settings {
            name: "main".into(),
            account_id: place.account.clone(),
            region: place.region.clone(),
            role: None,
            endpoint: Some(aws.url.parse().unwrap()),
            queue_url: Some(aws.queue_url(&place)),
            coordinator: COORDINATOR.to_owned(),
            pools: BTreeMap::from([("linux".into(), pool)]),
        };
        change(&mut settings);
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("muster.db")).await.unwrap();
        let tasks = Tasks::new(CancellationToken::new());
        let provider = start(&aws, &settings, &store, &tasks).await;
        Self {
            aws,
            place,
            provider,
            settings,
            store,
            _dir: dir,
            tasks,
        }
    }

    /// Ends the provider wherever it is, as a crash does, and starts another on the same store.
    pub(crate) async fn crash(mut self) -> Self {
        self.tasks.stop().cancel();
        self.tasks.ended().await;
        self.tasks = Tasks::new(CancellationToken::new());
        self.provider = start(&self.aws, &self.settings, &self.store, &self.tasks).await;
        self
    }

    pub(crate) async fn launch(&self, launch: &str) -> Result<Launched, LaunchError> {
        self.launch_shape(launch, Shape::default()).await
    }

    pub(crate) async fn launch_shape(
        &self,
        launch: &str,
        shape: Shape,
    ) -> Result<Launched, LaunchError> {
        tokio::time::timeout(PATIENCE, self.provider.launch(order(launch, shape)))
            .await
            .unwrap_or_else(|_| panic!("{launch} was not answered; {:?}", self.aws.calls()))
    }

    /// Launches so many at once.
    pub(crate) async fn launch_many(&self, count: usize) -> Vec<Result<Launched, LaunchError>> {
        join_all((0..count).map(|n| async move { self.launch(&format!("l-{n:05}")).await })).await
    }

    pub(crate) fn served(&self, call: &str) -> u64 {
        self.aws.served(call)
    }

    /// Waits until AWS has come to a state.
    pub(crate) async fn until(&self, what: &str, look: impl Fn() -> bool) {
        let look = || look().then_some(());
        self.aws.wait_for(what, PATIENCE, look).await.unwrap();
    }

    /// What every test ends with.
    pub(crate) fn no_violations(&self) {
        assert_eq!(self.aws.violations(), [""; 0]);
    }
}

pub(crate) fn order(launch: &str, shape: Shape) -> LaunchOrder {
    LaunchOrder {
        launch: launch.into(),
        pool: "linux".into(),
        shape,
        canary: None,
        lifetime: Duration::from_secs(3_600),
        held_up: HeldUp::nobody(),
    }
}

/// An error of a whole call.
pub(crate) fn refusal(code: &str) -> Effect {
    Effect::Error {
        status: 400,
        code: code.to_owned(),
        message: "in EC2's words".to_owned(),
    }
}

/// An instance that the store knows, as the provider lists it.
pub(crate) fn known(instance: InstanceId) -> Marked {
    Marked {
        instance,
        launch: None,
        origin: None,
    }
}

pub(crate) fn id(launched: &Result<Launched, LaunchError>) -> InstanceId {
    match launched {
        Ok(launched) => launched.instance.clone(),
        Err(error) => panic!("{error}"),
    }
}

async fn start(aws: &FakeAws, settings: &Ec2Settings, store: &Store, tasks: &Tasks) -> Provider {
    let options = aws.options();
    let key = Credentials::new(
        &options.access_key_id,
        &options.secret_access_key,
        None,
        None,
        "test",
    );
    let given = Given {
        http: Some(aws.http_client()),
        credentials: Some(SharedCredentialsProvider::new(key)),
        pace: Pace {
            images: Duration::from_millis(100),
            look: Duration::from_millis(20),
        },
        ..Given::default()
    };
    let started = Ec2Provider::start(settings.clone(), store.clone(), given, tasks).await;
    Provider::Ec2(started.unwrap())
}
