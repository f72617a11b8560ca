//! What the engine does at its start with what an earlier process left behind.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use muster_core::{Effect, FleetSpec, InstanceId};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::{Engine, Executor, Parts};
use crate::compute::Provider;
use crate::compute::local::{LocalProvider, LocalSettings};
use crate::github::{GithubClient, Settings};
use crate::identity::ca::Authority;
use crate::identity::serving::PresentAuthority;
use crate::presence::Presence;
use crate::store::{Batch, Store};
use crate::telemetry::Metrics;

fn github() -> GithubClient {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let url = "http://127.0.0.1:9".parse().unwrap();
    let pem = SecretString::from(key.serialize_pem());
    GithubClient::new(Settings::new(url, "1".to_owned(), pem)).unwrap()
}

#[tokio::test]
async fn an_effect_of_an_earlier_process_is_carried_out_and_leaves_the_outbox() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("muster.db"))
        .await
        .unwrap();
    let instance = InstanceId::from("i-0123456789abcdef0");
    let folder = directory.path().join("instances").join(instance.as_str());
    std::fs::create_dir_all(folder.join("runner")).unwrap();
    let effect = Effect::TerminateStray {
        account: "local".into(),
        instance,
    };
    let batch = Batch {
        effects: vec![effect],
        ..Batch::default()
    };
    store.commit(batch).await.unwrap();

    let settings = LocalSettings {
        agent_binary: "muster-agent".into(),
        runner_dir: directory.path().join("template"),
        instances_dir: directory.path().join("instances"),
        enroll_url: String::new(),
        agents_url: String::new(),
        server_name: String::new(),
        authority: PresentAuthority::fixed(
            Authority::load_or_create(directory.path(), Timestamp::now()).unwrap(),
        ),
        metadata_endpoint: None,
        environment: BTreeMap::new(),
    };
    let provider = Provider::Local(LocalProvider::new(settings, store.clone()));
    let providers = HashMap::from([("local".into(), provider)]);
    let metrics = Metrics::new().unwrap();
    let parts = Parts {
        store: store.clone(),
        spec: FleetSpec {
            pools: Vec::new(),
            accounts: BTreeMap::new(),
        },
        presence: Presence::default(),
        executor: Executor::new(github(), providers, &[], metrics.clone()),
        metrics,
    };
    let (_engine, runnable) = Engine::new(parts).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(runnable.run(stop.clone()));
    let emptied = async {
        while !store.pending_effects().await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), emptied)
        .await
        .expect("the effect leaves the outbox");
    assert!(!folder.join("runner").exists(), "what it asks for was done");
    stop.cancel();
    running.await.unwrap().unwrap();
}
