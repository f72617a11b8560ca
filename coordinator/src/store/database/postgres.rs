//! The PostgreSQL server: its URL, time-outs and certificates.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use url::Url;

use crate::store::StoreError;

/// How much longer than the server we wait ourselves for the end of a statement: where the server is out
/// of reach, only our own clock ends the wait.
const MARGIN: Duration = Duration::from_secs(1);
/// How long a connection of the pool lives: after a failover the new server gets its part.
const LIFETIME: Duration = Duration::from_secs(30 * 60);
/// How long a transaction may wait for its coordinator. One that is cut off or paused in the middle of it holds the
/// lease, and nobody leads until the server has ended it.
const IDLE: Duration = Duration::from_secs(2);
/// How long a change of the schema may take.
const MIGRATION: Duration = Duration::from_secs(5 * 60);

/// Time and connections that the server may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that read at the same time.
    pub readers: u32,
    /// To connect, TLS and password included.
    pub connect: Duration,
    /// For one statement, by the server's clock.
    pub statement: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            readers: 4,
            connect: Duration::from_secs(5),
            statement: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// How long we wait for one statement.
    pub(in crate::store) fn patience(self) -> Duration {
        self.statement + MARGIN
    }
}

/// Where a PostgreSQL database is. `Debug` shows nothing of the URL.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// `postgres://user:password@host/database`, with the parameters that libpq knows: `sslmode`,
    /// `sslrootcert`, `host`, `options`.
    pub url: SecretString,
    /// Roots to trust beside the usual ones, PEM; RDS's are no usual ones.
    pub ca_file: Option<PathBuf>,
    /// Allows a server elsewhere whose certificate is not verified.
    pub insecure: bool,
    /// Time and connections.
    pub limits: Limits,
}

impl PostgresSettings {
    /// A server with the usual limits.
    #[must_use]
    pub fn new(url: SecretString) -> Self {
        Self {
            url,
            ca_file: None,
            insecure: false,
            limits: Limits::default(),
        }
    }
}

/// A server, and how connections to it are made. Has no `Debug`: sqlx's options would show the password.
#[derive(Clone)]
pub(in crate::store) struct Server {
    options: PgConnectOptions,
    pub(super) limits: Limits,
}

impl Server {
    /// Checks the settings; connects to nobody.
    pub(in crate::store) fn new(settings: &PostgresSettings) -> Result<Self, StoreError> {
        let options = checked(
            settings.url.expose_secret(),
            settings.ca_file.as_deref(),
            settings.insecure,
        )
        .map_err(StoreError::Url)?;
        Ok(Self {
            options,
            limits: settings.limits,
        })
    }

    /// How connections are made. A transaction whose coordinator stopped in the middle of it is ended by the
    /// server, so that it holds no lock for long; a commit is on disk when it is answered, whatever the
    /// server's default is.
    pub(in crate::store) fn options(&self) -> PgConnectOptions {
        let statement = millis(self.limits.statement);
        let idle = millis(self.limits.statement.min(IDLE));
        self.options.clone().options([
            ("statement_timeout", statement.as_str()),
            ("lock_timeout", statement.as_str()),
            ("idle_in_transaction_session_timeout", idle.as_str()),
            ("synchronous_commit", "on"),
        ])
    }

    /// How long connecting may take.
    pub(in crate::store) fn connect_limit(&self) -> Duration {
        self.limits.connect
    }

    /// The same for changes of the schema, which may take long.
    pub(in crate::store) fn for_migrations(&self) -> Self {
        let limits = Limits {
            statement: MIGRATION,
            ..self.limits
        };
        Self {
            limits,
            ..self.clone()
        }
    }

    /// Connections that read; none is made before it is needed.
    pub(super) fn readers(&self) -> PgPool {
        let options = self
            .options()
            .options([("default_transaction_read_only", "on")]);
        PgPoolOptions::new()
            .max_connections(self.limits.readers)
            .acquire_timeout(self.limits.connect)
            .max_lifetime(LIFETIME)
            .connect_lazy_with(options)
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// Reads a URL. What is wrong is said without a word of it: it holds a password.
fn checked(
    text: &str,
    ca_file: Option<&Path>,
    insecure: bool,
) -> Result<PgConnectOptions, &'static str> {
    let url = Url::parse(text).map_err(|_| "it is no URL")?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err("it does not begin with postgres://");
    }
    let mut mode = None;
    for (key, value) in url.query_pairs() {
        match &*key {
            "sslmode" | "ssl-mode" => {
                let known = PgSslMode::from_str(&value).map_err(|_| "its sslmode is not known")?;
                mode = Some(known);
            }
            // sqlx logs a parameter that it does not know, with its value.
            key if !is_known(key) => return Err("it has a parameter that is not known"),
            _ => {}
        }
    }
    let mut options = PgConnectOptions::from_str(text).map_err(|_| "a part of it is wrong")?;
    // Not by the URL: where it names no host, the environment does.
    let here = is_here(&options);
    if !here && !insecure && mode.is_some_and(|mode| !matches!(mode, PgSslMode::VerifyFull)) {
        return Err(
            "its sslmode leaves open who answers: only verify-full will do for another host",
        );
    }
    if mode.is_none() && !here {
        options = options.ssl_mode(PgSslMode::VerifyFull);
    }
    if let Some(path) = ca_file {
        options = options.ssl_root_cert(path);
    }
    Ok(options.application_name("muster-coordinator"))
}

fn is_known(key: &str) -> bool {
    let known = [
        "sslrootcert",
        "sslcert",
        "sslkey",
        "statement-cache-capacity",
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "application_name",
        "options",
    ];
    known.contains(&key) || (key.starts_with("options[") && key.ends_with(']'))
}

/// Whether the server is on this machine: a Unix socket or a loopback address.
fn is_here(options: &PgConnectOptions) -> bool {
    if options.get_socket().is_some() {
        return true;
    }
    let host = options.get_host();
    // An IPv6 address stands in brackets in a URL.
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<IpAddr>();
    host.starts_with('/') || host == "localhost" || address.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::another_host("postgres://u:hush@db.example.com/muster", PgSslMode::VerifyFull)]
    #[case::said_so(
        "postgresql://u:hush@10.0.0.1/m?sslmode=verify-full",
        PgSslMode::VerifyFull
    )]
    #[case::loopback("postgres://u:hush@127.0.0.1:5433/m", PgSslMode::Prefer)]
    #[case::loopback_6("postgres://u:hush@[::1]/m?sslmode=require", PgSslMode::Require)]
    #[case::socket("postgres:///m?host=/var/run/postgresql", PgSslMode::Prefer)]
    #[case::socket_as_host("postgres://u@%2Fvar%2Frun%2Fpostgresql/m", PgSslMode::Prefer)]
    #[case::by_parameter("postgres:///m?host=db.example.com", PgSslMode::VerifyFull)]
    fn a_server_elsewhere_is_verified(#[case] url: &str, #[case] expected: PgSslMode) {
        let options = checked(url, None, false).unwrap();
        let mode = format!("{:?}", options.get_ssl_mode());
        assert_eq!(mode, format!("{expected:?}"));
    }

    #[rstest]
    #[case::not_verified("postgres://u:hush@db.example.com/m?sslmode=require")]
    #[case::plain("postgres://u:hush@db.example.com/m?sslmode=disable")]
    #[case::hidden("postgres://u:hush@localhost/m?hostaddr=10.0.0.1&sslmode=prefer")]
    #[case::another_database("mysql://u:hush@localhost/m")]
    #[case::unknown_parameter("postgres://u@localhost/m?passwd=hush")]
    #[case::unknown_mode("postgres://u@localhost/m?sslmode=hush")]
    #[case::bad_port("postgres://u@localhost/m?port=hush")]
    #[case::no_url("hush")]
    fn a_url_that_is_refused_is_not_repeated(#[case] url: &str) {
        let settings = PostgresSettings::new(SecretString::from(url));
        assert!(!format!("{settings:?}").contains("hush"));
        let error = Server::new(&settings).err().unwrap();
        let told = format!("{error} {error:?}");
        assert!(told.contains("store.url"), "{told}");
        assert!(!told.contains("hush"), "{told}");
    }

    #[test]
    fn a_url_without_a_host_is_judged_by_where_it_leads() {
        // The environment of a process of its own: this test once more.
        if std::env::var_os("PGHOST").is_none() {
            let mut again = std::process::Command::new(std::env::current_exe().unwrap());
            let name = "a_url_without_a_host_is_judged_by_where_it_leads";
            again.args([name, "--nocapture"]);
            again
                .env("PGHOST", "db.example.com")
                .env("PGSSLMODE", "disable");
            let output = again.output().unwrap();
            let told = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && told.contains("1 passed"),
                "{told}"
            );
            return;
        }
        let options = checked("postgres:///m", None, false).unwrap();
        assert_eq!(options.get_host(), "db.example.com");
        assert!(matches!(options.get_ssl_mode(), PgSslMode::VerifyFull));
        assert!(checked("postgres:///m?sslmode=prefer", None, false).is_err());
        assert!(checked("postgres:///m?sslmode=prefer", None, true).is_ok());
        let socket = "postgres:///m?host=/run/postgresql&sslmode=prefer";
        assert!(checked(socket, None, false).is_ok());
    }

    #[test]
    fn development_may_leave_the_certificate_unverified() {
        let url = "postgres://u@db.example.com/m?sslmode=require";
        assert!(checked(url, None, true).is_ok());
    }
}
