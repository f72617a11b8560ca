//! The real binaries: where they are, and how they get there.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// The packages whose binaries a world runs.
const PACKAGES: [&str; 3] = ["muster-coordinator", "muster-agent", "muster-tests"];

/// The file of a binary: beside this program, or, for tests, one folder up.
///
/// # Errors
/// When it has not been built.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    program
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|file| file.exists())
        .with_context(|| format!("{name} is not built; run: cargo build --workspace --bins"))
}

/// A command that ends with the thread that starts it, whatever becomes of this process: a coordinator that
/// lived on would find other tests at the ports of this one. Not to be started by a thread that ends early.
#[must_use]
pub fn mortal(program: impl AsRef<OsStr>) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// Builds all binaries with the profile of this program, and fetches what the fakes check by. Cargo
/// and npm say what they do.
///
/// # Errors
/// When the build or the installation fails.
pub fn everything() -> anyhow::Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .arg("build")
        .arg("--manifest-path")
        .arg(here.join("../Cargo.toml"))
        .arg("--bins");
    for package in PACKAGES {
        build.args(["--package", package]);
    }
    // `cargo run` sets these for us; build scripts that look at them would run again for nothing.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            build.env_remove(&name);
        }
    }
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    run(build, "the build of the binaries")?;
    if !crate::fakes::github::default_path().exists() {
        run(Command::new(here.join("install")), "tests/install")?;
    }
    Ok(())
}

fn run(mut command: Command, what: &str) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("can't start {what}"))?;
    if !status.success() {
        bail!("{what} failed: {status}");
    }
    Ok(())
}
