//! Reads the secrets again and again, and has what changed taken up.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Reader, Secrets};
use crate::github::GithubClient;

/// Where secrets are taken up while the coordinator runs.
#[derive(Debug)]
pub struct Applied {
    /// Signs as the app.
    pub github: GithubClient,
    /// What webhooks are checked with.
    pub webhook: watch::Sender<Arc<[SecretString]>>,
}

/// Reads the secrets at each interval until it is told to stop. What can't be read or used leaves the
/// present one in use, and is said in the log each time.
pub async fn watch(
    reader: Reader,
    mut present: Secrets,
    applied: Applied,
    interval: Duration,
    stop: CancellationToken,
) {
    loop {
        let wait = tokio::time::sleep(interval);
        if stop.run_until_cancelled(wait).await.is_none() {
            return;
        }
        let Some(read) = stop.run_until_cancelled(reader.read()).await else {
            return;
        };
        match read {
            Ok(new) => applied.take_up(&mut present, new),
            Err(errors) => {
                for error in errors {
                    tracing::warn!(%error, "a secret can't be read again; the present one stays in use");
                }
            }
        }
    }
}

impl Applied {
    fn take_up(&self, present: &mut Secrets, new: Secrets) {
        if !same(&present.app_key, &new.app_key) {
            match self.github.replace_key(&new.app_key) {
                Ok(()) => {
                    tracing::info!(secret = "github.private_key", "a new secret is in use");
                    present.app_key = new.app_key;
                }
                Err(error) => tracing::error!(
                    secret = "github.private_key",
                    %error,
                    "a new secret can't be used; the present one stays in use"
                ),
            }
        }
        let unchanged = present.webhook.len() == new.webhook.len()
            && present
                .webhook
                .iter()
                .zip(&new.webhook)
                .all(|(old, new)| same(old, new));
        if !unchanged {
            tracing::info!(
                secret = "github.webhook_secret",
                count = new.webhook.len(),
                "new secrets are in use"
            );
            self.webhook.send_replace(new.webhook.as_slice().into());
            present.webhook = new.webhook;
        }
        let moved = match (&present.ca, &new.ca) {
            (Some(old), Some(new)) => {
                !same(&old.key, &new.key) || !same(&old.certificate, &new.certificate)
            }
            _ => false,
        };
        if moved {
            tracing::warn!(
                secret = "identity.ca_key",
                "the certificate authority has changed; restart the coordinator to use it, and expect \
                 agents that trust the old one only to lose it"
            );
            present.ca = new.ca;
        }
    }
}

fn same(old: &SecretString, new: &SecretString) -> bool {
    old.expose_secret() == new.expose_secret()
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;
    use url::Url;

    use super::*;
    use crate::github::{Settings, fake};
    use crate::secrets::CaPair;

    fn applied(key: &str) -> (Applied, watch::Receiver<Arc<[SecretString]>>) {
        let (webhook, checks) = watch::channel(Arc::from([SecretString::from("old")]));
        let settings = Settings::new(
            Url::parse("https://api.github.com").unwrap(),
            "12345".to_owned(),
            key.to_owned().into(),
        );
        let github = GithubClient::new(settings).unwrap();
        (Applied { github, webhook }, checks)
    }

    fn secrets(app_key: &str, webhook: &[&str]) -> Secrets {
        Secrets {
            app_key: app_key.to_owned().into(),
            webhook: webhook
                .iter()
                .map(|text| SecretString::from(*text))
                .collect(),
            proxy_credentials: None,
            ca: Some(CaPair {
                certificate: SecretString::from("certificate"),
                key: KeyPair::generate().unwrap().serialize_pem().into(),
            }),
            store_url: None,
        }
    }

    #[test]
    fn a_webhook_secret_that_is_rotated_is_checked_with_at_once() {
        let key = fake::pkcs8();
        let (applied, mut checks) = applied(&key);
        let mut present = secrets(&key, &["old"]);
        applied.take_up(&mut present, secrets(&key, &["old"]));
        assert!(!checks.has_changed().unwrap(), "nothing has changed");
        applied.take_up(&mut present, secrets(&key, &["old", "new"]));
        let texts: Vec<_> = checks
            .borrow_and_update()
            .iter()
            .map(|secret| secret.expose_secret().to_owned())
            .collect();
        assert_eq!(texts, ["old", "new"]);
        applied.take_up(&mut present, secrets(&key, &["old", "new"]));
        assert!(!checks.has_changed().unwrap());
    }

    #[test]
    fn a_key_that_is_none_leaves_the_present_one_and_is_tried_again() {
        let key = fake::pkcs8();
        let (applied, _checks) = applied(&key);
        let mut present = secrets(&key, &["old"]);
        applied.take_up(&mut present, secrets("no key", &["old"]));
        assert_eq!(present.app_key.expose_secret(), key);
        let same_key = format!("{key}\n");
        applied.take_up(&mut present, secrets(&same_key, &["old"]));
        assert_eq!(present.app_key.expose_secret(), same_key);
    }
}
