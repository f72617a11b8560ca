//! Two accounts as an installer leaves them, and providers that launch in them.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use muster_coordinator::compute::ec2::{
    Ec2Pool, Ec2Settings, Given, ImageSource, RoleSettings, SpotStrategy, Template, TemplateKey,
};
use muster_coordinator::compute::{
    Ec2Provider, HeldUp, LaunchError, LaunchOrder, Launched, Provider,
};
use muster_coordinator::store::Store;
use muster_coordinator::tasks::Tasks;
use muster_core::{Event, LaunchId, Market, PoolName, Shape};
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::metadata::{Host, Keys};
use crate::moto::{Instance, Moto};
use crate::policies::filled;

/// The account that the coordinator runs in.
pub(crate) const ACCOUNT: &str = "111111111111";
/// An account that it launches in by a role.
pub(crate) const OTHER: &str = "222222222222";
pub(crate) const REGION: &str = "eu-west-1";
pub(crate) const COORDINATOR: &str = "muster";
pub(crate) const EXTERNAL_ID: &str = "a-secret-handshake";
/// Where the coordinator runs and launches.
pub(crate) const HERE: (&str, &str) = (ACCOUNT, REGION);
/// The session of the instance profile's role, named as EC2 names it.
pub(crate) const INSTANCE: &str = "i-0123456789abcdef0";
/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was made before the coordinator starts.
#[derive(Debug, Deserialize)]
pub(crate) struct Made {
    pub(crate) accounts: Vec<MadeAccount>,
    pub(crate) sessions: BTreeMap<String, Keys>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct MadeAccount {
    pub(crate) subnets: Vec<String>,
    /// Of the launch templates, of the parameter, and another.
    pub(crate) images: Vec<String>,
    pub(crate) queue: String,
    pub(crate) group: String,
}

/// moto with two accounts, and the host that the coordinator runs on.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) moto: Moto,
    pub(crate) made: Made,
    pub(crate) host: Host,
    dir: TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        let moto = Moto::start().await;
        let instance_trust = filled("instance-trust.json", ACCOUNT, REGION);
        let account = |id| {
            json!({
                "id": id, "region": REGION, "coordinator": COORDINATOR,
                "instance_trust": instance_trust,
            })
        };
        let plan = json!({
            "accounts": [account(ACCOUNT), account(OTHER)],
            "roles": [
                {
                    "account": ACCOUNT, "name": "muster-coordinator",
                    "trust": filled("coordinator-trust.json", ACCOUNT, REGION),
                    "policies": {
                        "account": filled("account.json", ACCOUNT, REGION),
                        "accounts": filled("coordinator-accounts.json", ACCOUNT, REGION),
                        "secrets": filled("coordinator-secrets.json", ACCOUNT, REGION),
                        "database": filled("coordinator-database.json", ACCOUNT, REGION),
                        "instance-role": filled("pass-instance-role.json", ACCOUNT, REGION),
                    },
                },
                {
                    "account": OTHER, "name": "muster-account",
                    "trust": filled("account-trust.json", OTHER, REGION),
                    "policies": { "account": filled("account.json", OTHER, REGION) },
                },
            ],
            "sessions": {
                "coordinator":
                    { "account": ACCOUNT, "role": "muster-coordinator", "region": REGION, "name": "task" },
                "instance":
                    { "account": ACCOUNT, "role": "muster-runner", "region": REGION, "name": INSTANCE },
            },
        });
        let made: Made = moto
            .order(json!({ "order": "bootstrap", "plan": plan }))
            .await;
        let host = Host::new(made.sessions["coordinator"].clone());
        let dir = tempfile::tempdir().unwrap();
        Self {
            moto,
            made,
            host,
            dir,
        }
    }

    /// The account that the coordinator runs in, with a pool for each launch template.
    pub(crate) fn settings(&self) -> Ec2Settings {
        let made = &self.made.accounts[0];
        let pool = |template: &str, market| Ec2Pool {
            template: Template {
                key: TemplateKey::Name(template.to_owned()),
                version: "$Default".to_owned(),
            },
            image: ImageSource::Parameter("/muster/ami/linux-x64".to_owned()),
            canary: None,
            subnets: made.subnets.clone(),
            types: ["m5.large", "c5.xlarge"].map(str::to_owned).into(),
            market,
            on_demand_fallback: false,
            strategy: SpotStrategy::PriceCapacityOptimized,
        };
        let mut pools: BTreeMap<PoolName, Ec2Pool> = [
            "no-metadata-options",
            "loose-hop-limit",
            "with-profile",
            "not-ours",
        ]
        .into_iter()
        .map(|name| (PoolName::from(name), pool(name, Market::Spot)))
        .collect();
        pools.insert("linux".into(), pool("muster-runner", Market::Spot));
        pools.insert("steady".into(), pool("muster-runner", Market::OnDemand));
        Ec2Settings {
            name: "main".into(),
            account_id: ACCOUNT.to_owned(),
            region: REGION.to_owned(),
            role: None,
            endpoint: Some(self.moto.url().parse().unwrap()),
            queue_url: Some(made.queue.clone()),
            coordinator: COORDINATOR.to_owned(),
            pools,
        }
    }

    /// The other account, through its role.
    pub(crate) fn other_settings(&self, external_id: &str) -> Ec2Settings {
        let here = self.settings();
        let made = &self.made.accounts[1];
        Ec2Settings {
            name: "other".into(),
            account_id: OTHER.to_owned(),
            role: Some(RoleSettings {
                arn: format!("arn:aws:iam::{OTHER}:role/muster-account"),
                external_id: Some(external_id.to_owned()),
            }),
            queue_url: Some(made.queue.clone()),
            pools: here
                .pools
                .into_iter()
                .map(|(name, pool)| {
                    let subnets = made.subnets.clone();
                    (name, Ec2Pool { subnets, ..pool })
                })
                .collect(),
            ..here
        }
    }

    /// Starts a provider. `database` names the directory of its store.
    pub(crate) async fn provider(&self, settings: Ec2Settings, database: &str) -> Running {
        Running::start(settings, &self.host, &self.dir, database).await
    }

    /// Panics unless these instances exist, each once, and no other.
    pub(crate) async fn made_once(&self, ids: &[String]) {
        let made = self.alive(HERE).await;
        let mut made: Vec<_> = made.into_iter().map(|one| one.id).collect();
        let mut ids = ids.to_vec();
        made.sort();
        ids.sort();
        assert_eq!(made, ids);
    }

    /// Instances that exist and have not ended.
    pub(crate) async fn alive(&self, place: (&str, &str)) -> Vec<Instance> {
        let mut instances = self.moto.instances(place).await;
        instances.retain(|one| one.state != "terminated");
        instances
    }
}

/// A provider at work.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) provider: Provider,
    pub(crate) events: mpsc::Receiver<Event>,
    told: mpsc::Sender<Event>,
    store: Store,
    tasks: Tasks,
}

impl Running {
    async fn start(settings: Ec2Settings, host: &Host, dir: &TempDir, database: &str) -> Self {
        // One directory holds one store.
        let home = dir.path().join(database);
        fs::create_dir_all(&home).unwrap();
        let store = Store::open(&home.join("muster.db")).await.unwrap();
        let tasks = Tasks::new(CancellationToken::new());
        let given = Given {
            http: Some(host.client()),
            ..Given::default()
        };
        let started = Ec2Provider::start(settings, store.clone(), given, &tasks).await;
        let (told, events) = mpsc::channel(64);
        Self {
            provider: Provider::Ec2(started.unwrap()),
            events,
            told,
            store,
            tasks,
        }
    }

    /// A launch that is to be waited for; it may be dropped.
    pub(crate) fn launching(
        &self,
        launch: &str,
        pool: &str,
    ) -> impl Future<Output = Result<Launched, LaunchError>> + Send + use<> {
        let launch = LaunchId::from(launch);
        let order = LaunchOrder {
            launch: launch.clone(),
            pool: pool.into(),
            shape: Shape::default(),
            canary: None,
            lifetime: Duration::from_secs(3_600),
            held_up: HeldUp::of(launch, self.told.clone()),
        };
        let provider = self.provider.clone();
        async move {
            let launched = timeout(PATIENCE, provider.launch(order)).await;
            launched.expect("a launch that never ends")
        }
    }

    /// Launches one instance, or says why not.
    pub(crate) async fn launch(&self, launch: &str, pool: &str) -> Result<String, LaunchError> {
        let launched = self.launching(launch, pool).await?;
        Ok(launched.instance.to_string())
    }

    /// Launches so many at once, `{prefix}-0` and so on.
    pub(crate) async fn launch_many(&self, prefix: &str, count: usize, pool: &str) -> Vec<String> {
        let launches = (0..count).map(|index| self.launching(&format!("{prefix}-{index}"), pool));
        let launched = futures::future::join_all(launches).await;
        launched
            .into_iter()
            .map(|one| one.unwrap().instance.to_string())
            .collect()
    }

    /// Why the launch of something waits, as soon as a reason has this in it.
    pub(crate) async fn held_up_by(&mut self, part: &str) -> String {
        let mut last = String::new();
        let search = async {
            loop {
                match self.events.recv().await {
                    Some(Event::HeldUp { reason, .. }) if reason.contains(part) => return reason,
                    Some(Event::HeldUp { reason, .. }) => last = reason,
                    other => panic!("{other:?}"),
                }
            }
        };
        match timeout(PATIENCE, search).await {
            Ok(reason) => reason,
            Err(_) => panic!("nothing has {part:?} in it, last was: {last}"),
        }
    }

    /// Ends it as a crash does, calls under way included.
    pub(crate) async fn crash(self) {
        self.tasks.stop().cancel();
        timeout(PATIENCE, self.tasks.ended()).await.unwrap();
        self.store.close().await;
    }
}
