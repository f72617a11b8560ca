//! Reads the secrets again and again, and has what changed taken up.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{CaPair, Reader, Secrets};
use crate::clock;
use crate::github::GithubClient;
use crate::identity::serving::Serving;

/// Where secrets are taken up while the coordinator runs.
#[derive(Debug)]
pub struct Applied {
    /// Signs as the app.
    pub github: GithubClient,
    /// What webhooks are checked with.
    pub webhook: watch::Sender<Arc<[SecretString]>>,
    /// The authority, and the listeners' TLS. The coordinator's certificate is made anew here, too.
    pub serving: Serving,
}

/// Reads the secrets at each interval until it is told to stop. What can't be read or used leaves the
/// present one in use, and is said in the log each time.
pub async fn watch(
    reader: Reader,
    mut present: Secrets,
    mut applied: Applied,
    interval: Duration,
    stop: CancellationToken,
) {
    loop {
        let wait = tokio::time::sleep(interval);
        if stop.run_until_cancelled(wait).await.is_none() {
            return;
        }
        let reading = reader.read_again(&present);
        let Some((new, errors)) = stop.run_until_cancelled(reading).await else {
            return;
        };
        for error in errors {
            tracing::warn!(%error, "a secret can't be read again; the present one stays in use");
        }
        applied.take_up(&mut present, new);
        applied.serving.renew_if_due(clock::now());
    }
}

impl Applied {
    fn take_up(&mut self, present: &mut Secrets, new: Secrets) {
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
        if let (Some(old), Some(pair)) = (&mut present.ca, new.ca) {
            self.take_up_authority(old, pair);
        }
    }

    fn take_up_authority(&mut self, present: &mut CaPair, new: CaPair) {
        if same(&present.key, &new.key) && same(&present.certificate, &new.certificate) {
            return;
        }
        let certificates = new.certificate.expose_secret();
        match self.serving.take_up(certificates, &new.key, clock::now()) {
            Ok(()) => *present = new,
            Err(error) => tracing::error!(
                secret = "identity.ca_key",
                %error,
                "a new certificate authority can't be used; the present one stays in use, and the new one is \
                 tried again at the next reading. Both must fit: first add the new certificate to \
                 identity.ca_certificate, then replace the key"
            ),
        }
    }
}

fn same(old: &SecretString, new: &SecretString) -> bool {
    old.expose_secret() == new.expose_secret()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use url::Url;

    use super::*;
    use crate::github::{Settings, fake};
    use crate::identity::ca::fixtures::Pair;

    static CA: LazyLock<Pair> = LazyLock::new(Pair::new);

    fn applied(key: &str) -> (Applied, watch::Receiver<Arc<[SecretString]>>) {
        let (webhook, checks) = watch::channel(Arc::from([SecretString::from("old")]));
        let settings = Settings::new(
            Url::parse("https://api.github.com").unwrap(),
            "12345".to_owned(),
            key.to_owned().into(),
        );
        let github = GithubClient::new(settings).unwrap();
        let serving = Serving::new(CA.with(&[]), Vec::new(), clock::now()).unwrap();
        let applied = Applied {
            github,
            webhook,
            serving,
        };
        (applied, checks)
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
                certificate: CA.certificate.as_str().into(),
                key: CA.key.clone(),
            }),
            store_url: None,
        }
    }

    #[test]
    fn a_webhook_secret_that_is_rotated_is_checked_with_at_once() {
        let key = fake::pkcs8();
        let (mut applied, mut checks) = applied(&key);
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
        let (mut applied, _checks) = applied(&key);
        let mut present = secrets(&key, &["old"]);
        applied.take_up(&mut present, secrets("no key", &["old"]));
        assert_eq!(present.app_key.expose_secret(), key);
        let same_key = format!("{key}\n");
        applied.take_up(&mut present, secrets(&same_key, &["old"]));
        assert_eq!(present.app_key.expose_secret(), same_key);
    }

    #[test]
    fn a_new_authority_is_taken_up_in_three_steps_and_half_of_one_is_not() {
        let key = fake::pkcs8();
        let (mut applied, _checks) = applied(&key);
        let mut present = secrets(&key, &["old"]);
        let new = Pair::new();
        let authority = applied.serving.authority();
        let issuing = || authority.get().certificate().clone();
        let [old_issues, new_issues] = [&*CA, &new].map(|it| it.with(&[]).certificate().clone());
        let both = CA.bundle(&[&new]);
        for (certificate, ca_key, issues, trusted) in [
            // Both are replaced at once, and are read in between.
            (&CA.certificate, &new.key, &old_issues, 1),
            (&both, &CA.key, &old_issues, 2),
            (&both, &new.key, &new_issues, 2),
            (&CA.certificate, &new.key, &new_issues, 2),
            (&new.certificate, &new.key, &new_issues, 1),
        ] {
            let mut read = secrets(&key, &["old"]);
            read.ca = Some(CaPair {
                certificate: certificate.as_str().into(),
                key: ca_key.clone(),
            });
            // Once more, as at the next reading.
            for _ in 0..2 {
                applied.take_up(&mut present, read.clone());
                assert_eq!(issuing(), *issues);
                assert_eq!(authority.get().trust_anchors().len(), trusted);
            }
        }
    }
}
