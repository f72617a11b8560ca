//! `[store]`: where state is kept, and how the lead is held.

use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::SecretSource;
use super::document::{Section, Value};
use super::sections::source;
use super::values::{duration, path};
use crate::store::{LeaseTimes, Limits};

const MINUTE: Duration = Duration::from_secs(60);
const TENTH: Duration = Duration::from_millis(100);

/// Where state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// The PostgreSQL database; none is a SQLite file in the data directory.
    pub postgres: Option<PostgresSource>,
    /// How the lead is held, with PostgreSQL.
    pub lease: LeaseTimes,
}

/// A PostgreSQL database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresSource {
    /// Its URL.
    pub url: UrlSource,
    /// Roots to trust beside the usual ones, PEM.
    pub ca_file: Option<PathBuf>,
    /// Time and connections.
    pub limits: Limits,
}

/// Where the URL of a database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlSource {
    /// Here, as it holds no password.
    Plain(String),
    /// In a secret.
    Secret(SecretSource),
}

pub(super) fn store(mut section: Section<'_>, base: &Path) -> Option<StoreSettings> {
    let plain = section.optional("url", plain_url);
    let secret = source(&mut section, base, ("url_file", "url_parameter"));
    let url = match (plain, secret) {
        (Some(Some(_)), Some(Some(_))) => {
            section.refuse("url is there twice; one is needed");
            None
        }
        (Some(plain), Some(secret)) => {
            let secret = secret.map(UrlSource::Secret);
            Some(plain.map(UrlSource::Plain).or(secret))
        }
        _ => None,
    };
    let ca_file = section.optional("ca_file", path(base));
    if let (Some(None), Some(Some(_))) = (&url, &ca_file) {
        section.refuse("ca_file is of no use without a url");
    }
    let usual = Limits::default();
    let readers = section.default("readers", usual.readers, |value| value.integer(1, 64));
    let connect = section.default("connect_timeout", usual.connect, duration(TENTH, MINUTE));
    let statement = section.default(
        "statement_timeout",
        usual.statement,
        duration(TENTH, MINUTE),
    );
    let lease = lease(&mut section);
    section.finish();
    let limits = Limits {
        readers: readers?,
        connect: connect?,
        statement: statement?,
    };
    let ca_file = ca_file?;
    Some(StoreSettings {
        postgres: url?.map(|url| PostgresSource {
            url,
            ca_file,
            limits,
        }),
        lease: lease?,
    })
}

fn lease(section: &mut Section<'_>) -> Option<LeaseTimes> {
    let usual = LeaseTimes::default();
    let second = Duration::from_secs(1);
    let ttl = section.default("lease_ttl", usual.ttl, duration(second, MINUTE));
    let renew = section.default(
        "lease_renew_interval",
        usual.renew,
        duration(TENTH, MINUTE / 3),
    );
    let (ttl, renew) = (ttl?, renew?);
    if renew > ttl / 3 {
        section.refuse("lease_renew_interval is more than a third of lease_ttl: one late answer would lose the lead");
        return None;
    }
    Some(LeaseTimes { ttl, renew })
}

/// A URL that may be read by anybody. One that can't be parsed may hold a password all the same, so
/// nothing of it is repeated.
fn plain_url(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let Ok(url) = Url::parse(text) else {
        value.report("is not a postgres:// URL");
        return None;
    };
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        value.report("is not a postgres:// URL");
        return None;
    }
    let told = url.query_pairs().any(|(key, _)| key == "password");
    if url.password().is_some() || told {
        value.report("must not carry a password: put the URL into a file and name the file in url_file, or into a parameter and name it in url_parameter");
        return None;
    }
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::tests::{errors, parse, small_with};
    use super::*;

    fn read(store: &str) -> StoreSettings {
        let authority = "[identity]\nca_certificate_file = \"ca.pem\"\nca_key_file = \"ca.key\"";
        parse(&small_with(&format!("{store}\n{authority}")))
            .unwrap()
            .store
    }

    #[test]
    fn coordinators_that_may_share_a_database_need_one_authority() {
        let told = errors(&small_with("[store]\nurl_file = \"db.url\""));
        assert!(told.contains("names no authority"), "{told}");
    }

    #[test]
    fn the_default_is_a_file() {
        assert_eq!(read("").postgres, None);
        assert_eq!(read("").lease, LeaseTimes::default());
    }

    #[test]
    fn a_url_comes_from_a_file_a_parameter_or_if_harmless_from_here() {
        let of = |store| read(store).postgres.unwrap().url;
        assert_eq!(
            of("[store]\nurl_file = \"db.url\""),
            UrlSource::Secret(SecretSource::File("/etc/muster/db.url".into()))
        );
        assert_eq!(
            of("[store]\nurl_parameter = \"/muster/db\"\n[secrets]\nregion = \"eu-west-1\""),
            UrlSource::Secret(SecretSource::Parameter("/muster/db".to_owned()))
        );
        let url = "postgres:///muster?host=/run/postgresql";
        assert_eq!(
            of(&format!("[store]\nurl = \"{url}\"")),
            UrlSource::Plain(url.to_owned())
        );
    }

    #[test]
    fn limits_and_lease_are_read() {
        let store = read(
            "[store]\nurl_file = \"db.url\"\nca_file = \"rds.pem\"\nreaders = 9\n\
             connect_timeout = \"2s\"\nstatement_timeout = \"3s\"\n\
             lease_ttl = \"3s\"\nlease_renew_interval = \"500ms\"",
        );
        let postgres = store.postgres.unwrap();
        assert_eq!(postgres.ca_file, Some("/etc/muster/rds.pem".into()));
        let expected = Limits {
            readers: 9,
            connect: Duration::from_secs(2),
            statement: Duration::from_secs(3),
        };
        assert_eq!(postgres.limits, expected);
        assert_eq!(store.lease.renew, Duration::from_millis(500));
    }

    #[rstest]
    #[case("url = \"postgres://u:hunter2@db/m\"", "must not carry a password")]
    #[case(
        "url = \"postgres://u@db/m?password=hunter2\"",
        "must not carry a password"
    )]
    #[case("url = \"hunter2\"", "is not a postgres:// URL")]
    #[case("url = \"mysql://u:hunter2@db/m\"", "is not a postgres:// URL")]
    #[case(
        "url = \"postgres://db/m\"\nurl_file = \"db.url\"",
        "url is there twice"
    )]
    #[case("ca_file = \"rds.pem\"", "ca_file is of no use without a url")]
    #[case("readers = 0", "is not between 1 and 64")]
    #[case("lease_ttl = \"1s\"", "is more than a third of lease_ttl")]
    #[case(
        "url_parameter = \"/muster/db\"",
        "region is missing; parameter /muster/db"
    )]
    fn what_is_wrong_is_told_without_a_password(#[case] store: &str, #[case] expected: &str) {
        let told = errors(&small_with(&format!("[store]\n{store}")));
        assert!(told.contains(expected), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}
