//! How the runner's unit ended, as systemd saw it: written by the unit's `ExecStopPost`, read by the
//! supervisor, which may have died and come back in between.
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
/// Longest record that is read, in bytes.
const SIZE_MAX: u64 = 256;

/// Writes what systemd says in `code` (`exited`, `killed`, `dumped`) and `status` (a number, or the name of a
/// signal). The first record counts: a unit that is started once more finds no errand, and its end is not
/// the runner's.
pub(crate) fn write(dir: &Path, code: &str, status: &str) -> io::Result<()> {
    let fresh = dir.join(format!("{FILE}.new"));
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&fresh)?;
    writeln!(file, "{code} {status}")?;
    match std::fs::hard_link(&fresh, dir.join(FILE)) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    std::fs::remove_file(fresh)
}

/// The record, if there is one.
pub(crate) fn read(dir: &Path) -> io::Result<Option<Exit>> {
    let path = dir.join(FILE);
    let size = match std::fs::metadata(&path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if size > SIZE_MAX {
        return Ok(Some(Exit::Unknown));
    }
    Ok(Some(parse(&std::fs::read_to_string(path)?)))
}

/// Removes the record of an earlier run.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(dir.join(FILE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn parse(text: &str) -> Exit {
    match text.trim().split_once(' ') {
        Some(("exited", code)) => code.parse().map_or(Exit::Unknown, Exit::Code),
        Some(("killed" | "dumped", name)) => Signal::from_str(&format!("SIG{name}"))
            .map_or(Exit::Unknown, |signal| Exit::Signal(signal as i32)),
        _ => Exit::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Exit, parse, read, remove, write};

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
        write(dir.path(), code, status).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(exit));
        write(dir.path(), "exited", "1").unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(exit));
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
    }

    #[test]
    fn a_cut_record_is_unknown() {
        assert_eq!(parse("exi"), Exit::Unknown);
    }
}
