//! Copies of the SQLite file: made while the coordinator writes, put back while it doesn't run.

mod beside;
mod rights;
mod stop;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions as _, Connection as _};
use thiserror::Error;

use super::database::sqlite::{self, directory_of};
use super::{StoreError, schema};
use beside::Beside;
use rights::Rights;
pub use stop::Stop;

/// Bytes that are copied between two looks whether to stop.
const PORTION: usize = 1 << 20;

/// No copy was made or put back.
#[derive(Debug, Error)]
pub enum BackupError {
    /// There is no database to copy.
    #[error("{}: there is no database", .0.display())]
    NoDatabase(PathBuf),
    /// Something is there already.
    #[error("{} exists; --force replaces it", .0.display())]
    Exists(PathBuf),
    /// A device, a pipe, a directory or a link is there, which nothing of ours replaces.
    #[error("{} is no regular file; nothing replaces it, --force neither", .0.display())]
    NoFile(PathBuf),
    /// The copy would replace what it is made of.
    #[error("{} is a part of the database itself; the copy needs a place of its own", .0.display())]
    Itself(PathBuf),
    /// What is to be put back is what it would replace.
    #[error("{} is a part of the database itself, and no copy of it", .0.display())]
    Live(PathBuf),
    /// The copy is damaged, or is something else.
    #[error("{} is no good copy of the store: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file can't be read, written or moved.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What was put back can't be made its owner's, who could not open it then.
    #[error("{} can't be given to its owner, {user}:{group}: {source}", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// The number of the user.
        user: u32,
        /// The number of the group.
        group: u32,
        /// Why not.
        source: io::Error,
    },
    /// It was asked to stop by the signal of this number.
    #[error("interrupted by signal {0}: nothing was made or replaced")]
    Interrupted(u8),
    /// The database refuses, or a coordinator runs.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for BackupError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Copies the database to a file that only its owner may read. A running coordinator may go on writing: all
/// that was answered before the copy began is in it, and every transaction wholly or not at all. The file is
/// there, checked and on disk, when this returns; before, there is none of its name, or the old one.
///
/// # Errors
/// When there is no database, the file exists and may not be replaced, is the database itself or is no regular
/// file (a link is none), or either can't be read or written.
pub async fn backup(
    database: &Path,
    to: &Path,
    replace: bool,
    stop: &Stop,
) -> Result<(), BackupError> {
    if !database.is_file() {
        return Err(BackupError::NoDatabase(database.to_owned()));
    }
    if is_part(database, to)? {
        return Err(BackupError::Itself(to.to_owned()));
    }
    replaceable(to, replace)?;
    let beside = Beside::of(to)?;
    let mut db = open(database).await?;
    stop.ends(&mut db).await?;
    let copied = sqlx::query("VACUUM INTO $1")
        .bind(text(&beside.path)?)
        .execute(&mut db)
        .await;
    // Before the copy is removed, which it may be writing still.
    db.close().await?;
    copied.map_err(|error| stop.meant(error.into()))?;
    check(&beside.path, stop).await?;
    stop.check()?;
    // Much may have happened meanwhile.
    replaceable(to, replace)?;
    beside.become_file(to, replace)
}

/// Refuses a place that a copy can't have. A link is refused, too, wherever it leads: of the link and of what it
/// leads to, one would be replaced that nobody named.
fn replaceable(place: &Path, replace: bool) -> Result<(), BackupError> {
    match fs::symlink_metadata(place) {
        Ok(there) if !there.is_file() => Err(BackupError::NoFile(place.to_owned())),
        Ok(_) if !replace => Err(BackupError::Exists(place.to_owned())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file(place)(error)),
        _ => Ok(()),
    }
}

/// What was put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Where the database that was there before is now; none if there was none.
    pub aside: Option<PathBuf>,
}

/// Puts a copy in the place of the database, with its owner and mode, or that of the directory if root does it and
/// there is none. What was there is kept beside it. Nothing is made, moved or locked
/// before the copy was found to be good.
///
/// # Errors
/// When a coordinator runs, the copy is damaged, for a newer program or the database itself, a file can't be
/// written, or it was asked to stop; then the database is as it was.
pub async fn restore(
    from: &Path,
    database: &Path,
    now: Timestamp,
    stop: &Stop,
) -> Result<Restored, BackupError> {
    if !from.is_file() {
        return Err(BackupError::NoDatabase(from.to_owned()));
    }
    if database.exists() && !database.is_file() {
        return Err(BackupError::NoFile(database.to_owned()));
    }
    // The log that belongs to it would be put aside: what is only there would be lost.
    if database.exists() && is_part(database, from)? {
        return Err(BackupError::Live(from.to_owned()));
    }
    let mut beside = Beside::above(database)?;
    let mut copied = File::open(from).map_err(file(from))?;
    copy(&mut copied, &mut beside, stop).await?;
    check(&beside.path, stop)
        .await
        .map_err(|error| match error {
            BackupError::Damaged { problem, .. } => BackupError::Damaged {
                path: from.to_owned(),
                problem,
            },
            other => other,
        })?;
    // From here on it is done in a moment, and wholly.
    stop.check()?;
    rights::make_directory(directory_of(database))?;
    let lock = sqlite::lock(database)?;
    let rights = Rights::at(database)?;
    if lock.is_new {
        rights.give_owner(&lock.file, &lock.path)?;
    }
    rights.give(&beside.file, database)?;
    let aside = match database.exists() {
        true => Some(keep_aside(database, now).await?),
        false => None,
    };
    beside.become_file(database, true)?;
    Ok(Restored { aside })
}

/// Copies a file, and lets who may ask to stop have a turn after each portion.
async fn copy(from: &mut File, to: &mut Beside, stop: &Stop) -> Result<(), BackupError> {
    let mut portion = vec![0; PORTION];
    loop {
        tokio::task::yield_now().await;
        stop.check()?;
        let bytes = from.read(&mut portion).map_err(file(&to.path))?;
        if bytes == 0 {
            return Ok(());
        }
        let written = to.file.write_all(portion.get(..bytes).unwrap_or_default());
        written.map_err(file(&to.path))?;
    }
}

/// Gives the present database another name, too: at no moment there is none in its place, from which a
/// coordinator would start with nothing.
async fn keep_aside(database: &Path, now: Timestamp) -> Result<PathBuf, BackupError> {
    // What is in the write-ahead log goes into the file; if that is beyond it, the log is kept as well.
    if let Ok(mut db) = open(database).await {
        let flushed = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)");
        drop(flushed.execute(&mut db).await);
        drop(db.close().await);
    }
    let aside = link_aside(database, now)?;
    let log = with_suffix(database, "-wal");
    if log.exists() {
        fs::rename(&log, with_suffix(&aside, "-wal")).map_err(file(&log))?;
    }
    let index = with_suffix(database, "-shm");
    if index.exists() {
        fs::remove_file(&index).map_err(file(&index))?;
    }
    Ok(aside)
}

/// The other name, that has the second of it. Where that is taken, a number follows.
fn link_aside(database: &Path, now: Timestamp) -> Result<PathBuf, BackupError> {
    let name = with_suffix(database, &format!(".before-{}", now.as_second()));
    let mut aside = name.clone();
    let mut number = 2_u32;
    loop {
        // A log of that name would be taken for the log of this one.
        let linked = match with_suffix(&aside, "-wal").exists() {
            true => Err(io::ErrorKind::AlreadyExists.into()),
            false => fs::hard_link(database, &aside),
        };
        match linked {
            Ok(()) => return Ok(aside),
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(file(&aside)(error));
            }
            Err(_) => aside = with_suffix(&name, &format!("-{number}")),
        }
        number += 1;
    }
}

/// Whether a file is a whole database of ours, for this program.
async fn check(path: &Path, stop: &Stop) -> Result<(), BackupError> {
    let damaged = |problem: String| {
        stop.meant(BackupError::Damaged {
            path: path.to_owned(),
            problem,
        })
    };
    let mut db = open(path)
        .await
        .map_err(|error| damaged(error.to_string()))?;
    stop.ends(&mut db).await?;
    let told: Result<Vec<(String,)>, _> = sqlx::query_as("PRAGMA integrity_check(3)")
        .fetch_all(&mut db)
        .await;
    let told = told.map_err(|error| damaged(error.to_string()))?;
    if told.iter().any(|(line,)| line != "ok") {
        let lines: Vec<_> = told.into_iter().map(|(line,)| line).collect();
        return Err(damaged(lines.join("; ")));
    }
    let fits = schema::fits(&mut db).await;
    db.close().await?;
    match fits {
        Ok(()) => Ok(()),
        Err(error @ StoreError::NewerSchema { .. }) => Err(error.into()),
        Err(error) => Err(damaged(error.to_string())),
    }
}

/// Opens a file that is there; changes nothing in it.
async fn open(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    sqlite::options(path).connect().await
}

fn text(path: &Path) -> Result<&str, BackupError> {
    let no_text = || io::Error::new(io::ErrorKind::InvalidInput, "the path is no UTF-8");
    path.to_str().ok_or_else(no_text).map_err(file(path))
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { path, source }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether a path leads to the database or to one of the files that it consists of, by whichever name: to
/// replace one of them ends a database that is in use. Those that aren't there now may be in a moment.
fn is_part(database: &Path, path: &Path) -> Result<bool, BackupError> {
    let inode = |path: &Path| fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
    let place = |path: &Path| {
        let directory = fs::metadata(directory_of(path)).ok()?;
        Some((
            directory.dev(),
            directory.ino(),
            path.file_name()?.to_owned(),
        ))
    };
    let resolved = fs::canonicalize(database).map_err(file(database))?;
    Ok(["", "-wal", "-shm", "-journal", ".lock"]
        .iter()
        .flat_map(|suffix| [database, &resolved].map(|path| with_suffix(path, suffix)))
        .any(|part| {
            let same_file = inode(&part).is_some_and(|part| inode(path) == Some(part));
            same_file || place(&part).is_some_and(|part| place(path) == Some(part))
        }))
}
