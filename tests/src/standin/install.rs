//! Lays the stand-in out as the official package does.

use std::path::{Path, PathBuf};

/// Why the stand-in can't be laid out.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Not built.
    #[error("find {name} beside {beside}: build it with `cargo build -p muster-tests --bins`")]
    NotBuilt {
        /// The binary.
        name: &'static str,
        /// Where it was looked for.
        beside: PathBuf,
    },
    /// A file can't be written.
    #[error("install the stand-in runner: {0}")]
    Io(#[from] std::io::Error),
}

/// Where the two binaries are: beside this program, or (for tests) one folder up.
///
/// # Errors
///
/// If they have not been built.
pub fn binaries() -> Result<[PathBuf; 2], InstallError> {
    let program = std::env::current_exe()?;
    let find = |name: &'static str| {
        program
            .ancestors()
            .skip(1)
            .take(2)
            .map(|folder| folder.join(name))
            .find(|file| file.exists())
            .ok_or_else(|| InstallError::NotBuilt {
                name,
                beside: program.clone(),
            })
    };
    Ok([find("standin-listener")?, find("standin-worker")?])
}

/// Makes `root` a runner's root: `bin/Runner.Listener` and `bin/Runner.Worker`.
///
/// # Errors
///
/// If the binaries have not been built or `root` can't be written.
pub fn install_runner(root: &Path) -> Result<(), InstallError> {
    let [listener, worker] = binaries()?;
    let bin = root.join("bin");
    std::fs::create_dir_all(&bin)?;
    for (from, name) in [(listener, "Runner.Listener"), (worker, "Runner.Worker")] {
        let to = bin.join(name);
        if to.exists() {
            std::fs::remove_file(&to)?;
        }
        // A link keeps a hundred runner roots small; other file systems get a copy.
        if std::fs::hard_link(&from, &to).is_err() {
            std::fs::copy(&from, &to)?;
        }
    }
    Ok(())
}
