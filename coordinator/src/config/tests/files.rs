//! Files that a configuration names.

use super::*;

/// A directory with the small file's files.
fn on_disk() -> (tempfile::TempDir, Config) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("app.pem"), "key\n").unwrap();
    std::fs::write(path("webhook.secret"), "hush\r\n").unwrap();
    std::fs::create_dir(path("runner")).unwrap();
    let program = std::env::current_exe().unwrap();
    let text = with(
        "[local]",
        &format!("[local]\nagent_binary = \"{}\"", program.display()),
    );
    std::fs::write(path("muster.toml"), text).unwrap();
    let config = Config::load(&path("muster.toml")).unwrap();
    (directory, config)
}

#[tokio::test]
async fn secrets_are_read_without_their_line_end_and_never_shown() {
    let (_directory, config) = on_disk();
    verify_files(&config).unwrap();
    let secrets = Reader::new(&config, Given::default())
        .await
        .read()
        .await
        .unwrap();
    assert_eq!(secrets.app_key.expose_secret(), "key");
    assert_eq!(secrets.webhook[0].expose_secret(), "hush");
    let shown = format!("{secrets:?} {config:?}");
    assert!(!shown.contains("hush"), "{shown}");
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_again_does_not_hold_up_the_others() {
    let (directory, config) = on_disk();
    let path = |name: &str| directory.path().join(name);
    let text = std::fs::read_to_string(path("muster.toml")).unwrap();
    let two = "[\"webhook.secret\", \"second.secret\"]";
    std::fs::write(path("second.secret"), "second").unwrap();
    std::fs::write(
        path("muster.toml"),
        text.replace("[\"webhook.secret\"]", two),
    )
    .unwrap();
    drop(config);
    let config = Config::load(&path("muster.toml")).unwrap();
    let reader = Reader::new(&config, Given::default()).await;
    let present = reader.read().await.unwrap();
    assert_eq!(present.webhook.len(), 2);

    std::fs::remove_file(path("app.pem")).unwrap();
    std::fs::remove_file(path("webhook.secret")).unwrap();
    std::fs::write(path("second.secret"), "rotated").unwrap();
    let (new, errors) = reader.read_again(&present).await;
    let told: Vec<_> = errors.iter().map(|error| error.key).collect();
    assert_eq!(told, ["github.private_key", "github.webhook_secret"]);
    assert_eq!(new.app_key.expose_secret(), "key");
    let webhook = new.webhook.iter().map(secrecy::ExposeSecret::expose_secret);
    let webhook: Vec<_> = webhook.collect();
    assert_eq!(webhook, ["hush", "rotated"]);
    assert_eq!(reader.read().await.unwrap_err(), errors);
}

#[test]
fn every_file_that_is_not_as_it_should_be_is_named() {
    let (directory, config) = on_disk();
    let path = |name: &str| directory.path().join(name);
    std::fs::remove_file(path("app.pem")).unwrap();
    std::fs::write(path("webhook.secret"), "\n").unwrap();
    std::fs::remove_dir(path("runner")).unwrap();
    std::fs::write(path("runner"), "").unwrap();
    let errors = verify_files(&config).unwrap_err();
    let found: Vec<_> = errors
        .iter()
        .map(|error| (error.key, error.problem.as_str()))
        .collect();
    assert_eq!(found[0].0, "github.private_key_file");
    assert_eq!(found[1], ("github.webhook_secret_files", "is empty"));
    assert_eq!(found[2], ("local.runner_dir", "is not a directory"));
    assert_eq!(found.len(), 3);
}
