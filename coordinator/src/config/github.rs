//! `[github]`: the app, its webhooks, and how GitHub is asked.

use std::path::Path;
use std::time::Duration;

use url::Url;

use super::document::{Section, Value, all};
use super::sections::{api_url, parameter, source, word};
use super::values::{duration, http_url, path, secret_path};
use super::{GithubSettings, SecretSource};
use crate::github::survey::SurveySettings;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
/// What GitHub admits: 900 points a minute for an endpoint, five for each registration
/// (<https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>).
const REGISTRATIONS: u32 = 180;
/// Where nothing is limited, such as on GitHub Enterprise Server unless its administrators say otherwise.
const MAX_REGISTRATIONS: u32 = 100_000;

pub(super) fn github(
    mut section: Section<'_>,
    base: &Path,
    development: bool,
) -> Option<GithubSettings> {
    if !section.exists() {
        section.refuse("the table is missing");
        return None;
    }
    let default = Url::parse("https://api.github.com").ok()?;
    let api_url = section.default("api_url", default, |value| api_url(value, development));
    let app_id = section.required("app_id", app_id);
    let private_key = source(
        &mut section,
        base,
        ("private_key_file", "private_key_parameter"),
    );
    if private_key == Some(None) {
        section.refuse("private_key_file is missing, or private_key_parameter");
    }
    let webhook_secrets = webhook_secrets(&mut section, base);
    let ca_file = section.optional("ca_file", path(base));
    let proxy = section.optional("proxy", http_url);
    let credentials = section.optional("proxy_credentials_file", secret_path(base));
    if let (Some(None), Some(Some(_))) = (&proxy, &credentials) {
        section.refuse("proxy_credentials_file is of no use without proxy");
    }
    let redeliver = section.default(
        "redeliver_interval",
        MINUTE,
        duration(Duration::ZERO, 24 * HOUR),
    );
    let reconcile = section.default(
        "reconcile_interval",
        8 * SECOND,
        duration(Duration::ZERO, HOUR),
    );
    let share = section.default("reconcile_share", 40, |value| value.integer(1, 90));
    let registrations = section.default("registrations_per_minute", REGISTRATIONS, |value| {
        value.integer(1, MAX_REGISTRATIONS)
    });
    section.finish();
    let survey = SurveySettings {
        interval: reconcile?,
        share: share?,
    };
    Some(GithubSettings {
        api_url: api_url?,
        app_id: app_id?,
        private_key: private_key??,
        webhook_secrets: webhook_secrets?,
        ca_file: ca_file?,
        proxy: proxy?,
        proxy_credentials_file: credentials?,
        redeliver_interval: Some(redeliver?).filter(|interval| !interval.is_zero()),
        survey: Some(survey).filter(|survey| !survey.interval.is_zero()),
        registrations_per_minute: registrations?,
    })
}

/// Secrets that sign webhooks: some in files, some in parameters.
fn webhook_secrets(section: &mut Section<'_>, base: &Path) -> Option<Vec<SecretSource>> {
    let files = section.optional("webhook_secret_files", |value| {
        let read = secret_path(base);
        let files = all(&value.list()?, |value| read(value).map(SecretSource::File))?;
        if files.is_empty() {
            return value.refused("has no file; at least one is needed");
        }
        Some(files)
    });
    let parameters = section.optional("webhook_secret_parameters", |value| {
        let read = |value: &Value<'_>| parameter(value).map(SecretSource::Parameter);
        all(&value.list()?, read)
    });
    let sources: Vec<_> = [files?, parameters?]
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    if sources.is_empty() {
        section.refuse("webhook_secret_files is missing, or webhook_secret_parameters");
        return None;
    }
    Some(sources)
}

fn app_id(value: &Value<'_>) -> Option<String> {
    if value.is_integer() {
        return value.integer(1, u32::MAX).map(|id| id.to_string());
    }
    word(value, "the number or the client id of a GitHub app", |c| {
        c.is_ascii_alphanumeric() || ".-_".contains(c)
    })
}
