//! The end of the runner's diagnostic logs (`_diag`), for whoever wants to know after the host is gone.
//!
//! Names are `Runner_yyyyMMdd-HHmmss-utc.log` and `Worker_…` (HostTraceListener.cs:12). The job can write
//! there, so they are opened as what a stranger made.

use std::path::Path;

use super::files::ForeignDir;
use super::tail::Masker;

/// How much of the newest log of each kind is taken, in bytes, its name included: 64 KiB together.
const KINDS: [(&str, usize); 2] = [("Runner_", 24 * 1024), ("Worker_", 40 * 1024)];
/// Most entries of the directory that are looked at.
const ENTRIES_MAX: usize = 1000;

/// The ends of the newest logs, with secrets masked. Empty if there are none.
pub(crate) fn tail(runner_dir: &Path, masker: &Masker) -> String {
    let (dir, names) = match ForeignDir::open(runner_dir, "_diag")
        .and_then(|dir| dir.names(ENTRIES_MAX).map(|names| (dir, names)))
    {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(%error, "no diagnostic logs");
            return String::new();
        }
    };
    let mut text = String::new();
    for (kind, most) in KINDS {
        let newest = names
            .iter()
            .filter(|name| name.starts_with(kind) && name.ends_with(".log"))
            .max();
        let Some(name) = newest else { continue };
        match dir.tail(name, u64::try_from(most).unwrap_or(u64::MAX)) {
            Ok(bytes) => {
                let title = format!("==> {} <==\n", masker.mask(name));
                let mut masked = String::new();
                for line in String::from_utf8_lossy(&bytes).lines() {
                    masked.push_str(&masker.mask(line));
                    masked.push('\n');
                }
                // A byte that isn't text has become three.
                let end = last_bytes(&masked, most.saturating_sub(title.len()));
                text.push_str(&title);
                text.push_str(end);
            }
            Err(error) => tracing::debug!(%error, "a diagnostic log can't be read"),
        }
    }
    text
}

/// The end of `text`, at most this long.
fn last_bytes(text: &str, most: usize) -> &str {
    let from = text.len().saturating_sub(most);
    &text[text.ceil_char_boundary(from)..]
}

#[cfg(test)]
mod tests {
    use super::{Masker, tail};

    #[test]
    fn the_newest_log_of_each_kind_is_taken_and_masked() {
        let dir = tempfile::tempdir().unwrap();
        let mut masker = Masker::default();
        masker.add("s3cret-s3cret-token".to_owned().into());
        assert_eq!(tail(dir.path(), &masker), "");
        let diag = dir.path().join("_diag");
        std::fs::create_dir(&diag).unwrap();
        for (name, text) in [
            ("Runner_20260801-100000-utc.log", "old"),
            ("Runner_20260801-110000-utc.log", "listener"),
            (
                "Worker_20260801-110001-utc.log",
                "token=s3cret-s3cret-token end",
            ),
            ("notes.txt", "other"),
        ] {
            std::fs::write(diag.join(name), text).unwrap();
        }
        assert_eq!(
            tail(dir.path(), &masker),
            "==> Runner_20260801-110000-utc.log <==\nlistener\n\
             ==> Worker_20260801-110001-utc.log <==\n*** end\n"
        );
        std::fs::write(
            diag.join("Worker_20260801-110001-utc.log"),
            "x\n".repeat(100_000),
        )
        .unwrap();
        let text = tail(dir.path(), &masker);
        assert!(text.len() < 64 * 1024, "{}", text.len());
        std::fs::write(diag.join("Runner_20260801-110000-utc.log"), [0xff; 100_000]).unwrap();
        let text = tail(dir.path(), &masker);
        assert!(text.len() <= 64 * 1024, "{}", text.len());
        assert!(text.starts_with("==> Runner_") && text.ends_with("x\n"));
    }
}
