//! Who may call the operators' service: nobody but an operator.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use muster_tests::world::{Options, World};
use serde_json::json;
use tonic::Code;

use crate::buf::{Buf, SERVICE, methods};
use crate::newcomer::Hosts;
use crate::tls::{self, Authority, Identity};

fn pem(directory: &Path, name: &str, label: &str, der: &[u8]) -> PathBuf {
    let path = directory.join(name);
    let body = BASE64_STANDARD.encode(der);
    let text = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
    std::fs::write(&path, text).unwrap();
    path
}

fn buf_as(world: &World, identity: &Identity) -> Buf {
    let certificate = pem(world.dir(), "as.crt", "CERTIFICATE", &identity.certificate);
    let key = identity.key.secret_der();
    let key = pem(world.dir(), "as.key", "PRIVATE KEY", key);
    let address = world.coordinator.addresses().operators;
    let authority = world.dir().join("data/ca.crt");
    Buf::new(address, &authority, Some((&certificate, &key)))
}

#[tokio::test]
async fn an_agent_is_denied_every_method() {
    let (hosts, invitations) = Hosts::start(1, "").await;
    let world = &hosts.world;
    world.operator("alice").await.unwrap();
    let address = world.coordinator.addresses().operators;
    let alice = Buf::operator(address, &world.dir().join("operator-alice"));
    let methods = methods(&alice, &[]).await;
    let agent = invitations[0].enrol().await.unwrap();
    let buf = buf_as(world, &agent.identity).knowing_the_schema();
    assert!(methods.len() >= 14, "{methods:?}");
    for method in &methods {
        let denied = buf.call(&format!("{SERVICE}/{method}"), &json!({})).await;
        assert!(
            denied.is_status(Code::PermissionDenied),
            "{method}: {denied:?}"
        );
        assert_eq!(denied.stdout, "", "{method}");
    }
    // Nor does it learn what there is.
    let listed = buf_as(world, &agent.identity)
        .run("", &["--list-services"])
        .await;
    assert_ne!(listed.exit, 0, "{listed:?}");
    assert!(listed.stderr.contains("may not call"), "{listed:?}");
    let actions = alice
        .call(&format!("{SERVICE}/ListOperatorActions"), &json!({}))
        .await;
    assert_eq!(actions.json(), json!({}), "an action of an agent");
}

#[tokio::test]
async fn without_a_good_certificate_there_is_no_connection() {
    let world = World::start(Options::default()).await.unwrap();
    world.operator("alice").await.unwrap();
    let data = world.dir().join("data");
    let anchor = tls::anchor(&data);
    let ours = Authority::of(&data);
    let alice = Identity::operator(&world.dir().join("operator-alice"));
    let name = "spiffe://muster.internal/operator/alice";
    let minted = |authority: &Authority, name: &str, years| Some(authority.issue(name, years));
    let now = (2020, 2100);
    let addresses = world.coordinator.addresses();
    let verdict = async |identity| {
        let client = tls::client(&anchor, identity);
        tls::shake(addresses.operators, &client).await
    };
    // What the test makes itself is as good as the real thing, but for what is wrong with it.
    verdict(Some(alice.clone())).await.unwrap();
    verdict(minted(&ours, name, now)).await.unwrap();

    let impostor = Authority::impostor();
    let cases = [
        ("none", None, "CertificateRequired"),
        (
            "expired",
            minted(&ours, name, (2020, 2021)),
            "CertificateExpired",
        ),
        ("of the future", minted(&ours, name, (2090, 2100)), ""),
        ("of another authority", minted(&impostor, name, now), ""),
        (
            "of another trust domain",
            minted(&ours, "spiffe://other/operator/alice", now),
            "",
        ),
        (
            "of nobody",
            minted(&ours, "https://example.com/alice", now),
            "",
        ),
    ];
    for (what, identity, alert) in cases {
        let refused = verdict(identity.clone()).await.unwrap_err();
        assert!(refused.contains(alert), "{what}: {refused}");
        let address = addresses.operators;
        let buf = match &identity {
            Some(identity) => buf_as(&world, identity),
            None => Buf::new(address, &data.join("ca.crt"), None),
        };
        let buf = buf.knowing_the_schema();
        let outcome = buf.call(&format!("{SERVICE}/ListPools"), &json!({})).await;
        assert_ne!(outcome.exit, 0, "{what}: {outcome:?}");
        assert_eq!(outcome.stdout, "", "{what}");
        for code in [Code::PermissionDenied, Code::Unauthenticated] {
            assert!(!outcome.is_status(code), "{what}: {outcome:?}");
        }
    }
    // The agents' listener takes neither nothing nor a stranger; an operator it turns away.
    for identity in [None, minted(&impostor, name, now)] {
        let client = tls::client(&anchor, identity);
        tls::shake(addresses.agents, &client).await.unwrap_err();
    }
    let client = tls::client(&anchor, Some(alice));
    let mut agents = muster_proto::v1::agent_service_client::AgentServiceClient::new(tls::channel(
        addresses.agents,
        client,
    ));
    let request = muster_proto::v1::RenewCertificateRequest::default();
    let refused = agents.renew_certificate(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
}
