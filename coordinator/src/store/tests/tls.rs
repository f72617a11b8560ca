//! The connection to a server elsewhere.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::store::fixtures::Cluster;
use crate::store::{PostgresSettings, Store, StoreError};

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes a file for the server's eyes only.
fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let owner = std::fs::metadata(directory.join("data")).unwrap();
    chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn only_a_server_that_proves_its_name_is_spoken_to() {
    let cluster = Cluster::own(&[]);
    cluster.stop();
    let (ours, others) = (authority("ours"), authority("others"));
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ours).unwrap();
    let at = cluster.directory();
    let certificate = write(at, "server.crt", &certificate.pem());
    let key = write(at, "server.key", &key.serialize_pem());
    // None of those that are given to whoever asks for any.
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = std::iter::repeat_with(|| rand::random_range(10_000..32_000));
    let port = port.take(200).find(free).unwrap();
    cluster.start(&[
        "ssl=on",
        &format!("ssl_cert_file={certificate}"),
        &format!("ssl_key_file={key}"),
        "listen_addresses=127.0.0.1",
        &format!("port={port}"),
    ]);

    let directory = tempfile::tempdir().unwrap();
    let to = |host: &str, authority: &CertifiedIssuer<'static, KeyPair>| {
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, authority.pem()).unwrap();
        let url = format!("postgres://postgres@{host}:{port}/postgres?sslmode=verify-full");
        PostgresSettings {
            ca_file: Some(path),
            ..PostgresSettings::new(url.into())
        }
    };
    let store = Store::connect(&to("localhost", &ours)).await.unwrap();
    let mut db = store.inner.database.connect().await.unwrap();
    let (encrypted,): (bool,) = crate::store::database::statement(
        "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    )
    .one(&mut db)
    .await
    .unwrap();
    assert!(encrypted);
    db.close().await.unwrap();
    store.close().await;

    for wrong in [to("127.0.0.1", &ours), to("localhost", &others)] {
        let error = Store::connect(&wrong).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}
