//! `backup` and `restore`: copies of the store.

use std::path::{Path, PathBuf};
use std::pin::pin;

use jiff::Timestamp;

use super::ending::Signals;
use super::wiring;
use crate::config::Config;
use crate::store::{BackupError, Stop, StoreError, backup, restore};

/// What `backup` is told.
#[derive(Debug, clap::Args)]
pub struct BackupArguments {
    /// The configuration.
    #[arg(long, env = "MUSTER_CONFIG", default_value = "muster.toml")]
    pub config: PathBuf,
    /// The file for the copy.
    #[arg(long)]
    pub to: PathBuf,
    /// Replace a file that exists. A device, a pipe, a directory or a symbolic link is never replaced.
    #[arg(long)]
    pub force: bool,
}

/// What `restore` is told.
#[derive(Debug, clap::Args)]
pub struct RestoreArguments {
    /// The configuration.
    #[arg(long, env = "MUSTER_CONFIG", default_value = "muster.toml")]
    pub config: PathBuf,
    /// A copy that `backup` made.
    #[arg(long)]
    pub from: PathBuf,
}

/// Who copies a PostgreSQL database.
pub(super) const OF_POSTGRES: &str = "\
the store is in PostgreSQL, whose own tools copy it. On RDS and Aurora: snapshots and point-in-time recovery. \
Elsewhere, with the URL of store.url in DATABASE_URL:
  pg_dump --format=custom --file=muster.dump \"$DATABASE_URL\"
  pg_restore --clean --if-exists --single-transaction --dbname=\"$DATABASE_URL\" muster.dump   # no coordinator runs";

/// Runs one thing to its end; SIGTERM and SIGINT ask it to stop.
fn until_signal<T>(
    stop: &Stop,
    work: impl Future<Output = Result<T, BackupError>>,
) -> Result<T, BackupError> {
    super::alone(async {
        let signals = Signals::new();
        let mut signals =
            signals.map_err(|error| BackupError::Store(StoreError::Unavailable(error.into())))?;
        let mut work = pin!(work);
        loop {
            tokio::select! {
                ended = &mut work => return ended,
                signal = signals.either() => {
                    stop.ask(u8::try_from(signal.as_raw_value()).unwrap_or(u8::MAX));
                }
            }
        }
    })
}

/// Copies the store; says where to.
pub(super) fn make(config: &Config, to: &Path, force: bool) -> Result<String, BackupError> {
    let database = wiring::database_file(config);
    let stop = Stop::default();
    until_signal(&stop, backup(&database, to, force, &stop))?;
    Ok(format!(
        "{} is a copy of {}",
        to.display(),
        database.display()
    ))
}

/// Puts a copy back; says what became of the old one.
pub(super) fn put_back(config: &Config, from: &Path) -> Result<String, BackupError> {
    let database = wiring::database_file(config);
    let stop = Stop::default();
    let restored = until_signal(&stop, restore(from, &database, Timestamp::now(), &stop))?;
    let place = database.display();
    Ok(match restored.aside {
        Some(aside) => format!(
            "{place} is as {} was; what it was before is {}",
            from.display(),
            aside.display()
        ),
        None => format!("{place} is as {} was", from.display()),
    })
}

#[cfg(test)]
mod tests {
    use std::process::ExitCode;

    use super::super::{USAGE, alone, backup as command};
    use super::*;
    use crate::store::Store;

    const CONFIG: &str = r#"
[coordinator]
data_dir = "data"
[github]
app_id = 12345
private_key_file = "app.pem"
webhook_secret_files = ["hook"]
[accounts.local]
max_instances = 4
[local]
runner_dir = "."
[[pool]]
name = "linux"
scope = { organization = "octo-org" }
labels = ["self-hosted"]
account = "local"
max = 4
"#;

    fn note(database: &Path, value: Option<&str>) -> Option<String> {
        let work = async {
            let store = Store::open(database).await?;
            if let Some(value) = value {
                store.set_note("n", value).await?;
            }
            let note = store.note("n").await?;
            store.close().await;
            Ok(note)
        };
        alone(work).unwrap()
    }

    #[test]
    fn a_copy_is_made_once_and_put_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("muster.toml");
        let config = Config::parse(CONFIG, &path).unwrap();
        let database = directory.path().join("data/muster.db");
        let copy = directory.path().join("copy");
        std::fs::create_dir(directory.path().join("data")).unwrap();
        note(&database, Some("then"));
        make(&config, &copy, false).unwrap();
        let refused = make(&config, &copy, false).unwrap_err();
        assert!(
            refused
                .to_string()
                .ends_with("copy exists; --force replaces it")
        );
        note(&database, Some("now"));

        let told = put_back(&config, &copy).unwrap();
        let aside = told.rsplit(' ').next().unwrap();
        assert_eq!(note(&database, None).as_deref(), Some("then"));
        assert_eq!(note(Path::new(aside), None).as_deref(), Some("now"));
    }

    #[test]
    fn a_signal_stops_it_and_the_exit_code_says_which() {
        use nix::sys::signal::{Signal, raise};
        for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
            let stop = Stop::default();
            let work = async {
                raise(signal).unwrap();
                while stop.asked().is_none() {
                    tokio::task::yield_now().await;
                }
                Err::<(), _>(BackupError::Interrupted(stop.asked().unwrap()))
            };
            let error = until_signal(&stop, work).unwrap_err();
            assert_eq!(super::super::code_of(&error), code, "{error}");
        }
    }

    #[test]
    fn a_server_is_left_to_its_own_tools() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("muster.toml");
        let text = format!("{CONFIG}\n[store]\nurl = \"postgres:///muster\"\n");
        std::fs::write(&config, text).unwrap();
        let arguments = BackupArguments {
            to: directory.path().join("copy"),
            config,
            force: false,
        };
        assert_eq!(command(&arguments), ExitCode::from(USAGE));
        assert!(!arguments.to.exists());
        assert!(OF_POSTGRES.contains("pg_dump --format=custom"));
    }
}
