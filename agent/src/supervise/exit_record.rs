//! How the runner's unit ended, as systemd saw it, and whether systemd was shutting the host down: written by the
//! unit's `ExecStopPost`, read by the supervisor, which may have died and come back in between.
//!
//! <https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html#%24EXIT_CODE>

use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::str::FromStr as _;

use nix::sys::signal::Signal;

use super::outcome::Exit;

/// Name of the file in the supervisor's directory. Only root can write there.
pub(crate) const FILE: &str = "runner.exit";
/// Second line of the record of a runner that ended with its host.
const SHUTS_DOWN: &str = "the host shuts down";
/// Longest record that is read, in bytes.
const SIZE_MAX: u64 = 256;

/// Writes what systemd says in `code` (`exited`, `killed`, `dumped`) and `status` (a number, or the name of a
/// signal), and whether the host is being shut down. The first record counts: a unit that is started once more
/// finds no errand, and its end is not the runner's.
pub(crate) fn write(dir: &Path, code: &str, status: &str, shuts_down: bool) -> io::Result<()> {
    let fresh = dir.join(format!("{FILE}.new"));
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&fresh)?;
    let why = if shuts_down { SHUTS_DOWN } else { "" };
    write!(file, "{code} {status}\n{why}\n")?;
    match std::fs::hard_link(&fresh, dir.join(FILE)) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    std::fs::remove_file(fresh)
}

/// How it ended, if there is a record.
pub(crate) fn read(dir: &Path) -> io::Result<Option<Exit>> {
    Ok(text(dir)?.map(|text| parse(&text)))
}

/// Whether there is a record that says that the host is being shut down.
pub(crate) fn shuts_down(dir: &Path) -> bool {
    matches!(text(dir), Ok(Some(text)) if text.lines().nth(1) == Some(SHUTS_DOWN))
}

/// The record, if there is one. Empty if it is none of ours.
fn text(dir: &Path) -> io::Result<Option<String>> {
    let path = dir.join(FILE);
    let size = match std::fs::metadata(&path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if size > SIZE_MAX {
        return Ok(Some(String::new()));
    }
    std::fs::read_to_string(path).map(Some)
}

/// Removes the record of an earlier run.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(dir.join(FILE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn parse(text: &str) -> Exit {
    let how = text.lines().next().unwrap_or_default();
    match how.trim().split_once(' ') {
        Some(("exited", code)) => code.parse().map_or(Exit::Unknown, Exit::Code),
        Some(("killed" | "dumped", name)) => Signal::from_str(&format!("SIG{name}"))
            .map_or(Exit::Unknown, |signal| Exit::Signal(signal as i32)),
        _ => Exit::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Exit, parse, read, remove, shuts_down, write};

    #[rstest]
    #[case("exited", "100", Exit::Code(100))]
    #[case("killed", "KILL", Exit::Signal(9))]
    #[case("dumped", "ABRT", Exit::Signal(6))]
    #[case("exited", "many", Exit::Unknown)]
    #[case("killed", "", Exit::Unknown)]
    #[case("", "", Exit::Unknown)]
    fn what_is_written_is_read(#[case] code: &str, #[case] status: &str, #[case] exit: Exit) {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        assert!(!shuts_down(dir.path()));
        write(dir.path(), code, status, false).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(exit));
        write(dir.path(), "exited", "1", true).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(exit));
        assert!(!shuts_down(dir.path()));
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        write(dir.path(), code, status, true).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(exit));
        assert!(shuts_down(dir.path()));
    }

    #[test]
    fn a_cut_record_is_unknown() {
        assert_eq!(parse("exi"), Exit::Unknown);
    }
}
