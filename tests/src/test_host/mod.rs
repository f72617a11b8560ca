//! A host: Debian with systemd as its first process, and on it what `ami/install` puts on an image.
//!
//! systemd-nspawn boots it in a fifth of a second, and QEMU in half a minute (see [`machine`]); what it
//! writes is gone with it.

mod cgroup;
pub mod machine;

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use self::cgroup::Cgroup;
use crate::world::{build, wait_for};

/// How long the boot may take, and everything else that should be quick.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is different from the image.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The network namespace, by path.
    pub network: PathBuf,
    files: Vec<Replaced>,
    drop_ins: u32,
}

/// A file in place of what is on the image.
#[derive(Clone, Debug)]
struct Replaced {
    path: PathBuf,
    text: String,
    /// Nobody else may read it.
    owner: Option<String>,
}

impl Default for Boot {
    /// As the image is, in the network namespace of who starts it.
    fn default() -> Self {
        Self::new("/proc/self/ns/net".into())
    }
}

impl Boot {
    /// As the image is, in this network namespace.
    #[must_use]
    pub fn new(network: PathBuf) -> Self {
        Self {
            network,
            files: Vec::new(),
            drop_ins: 0,
        }
    }

    /// Puts a file in place of what is there. Executable if it begins with `#!`.
    #[must_use]
    pub fn file(self, path: &str, text: &str) -> Self {
        self.replace(path, text, None)
    }

    /// Puts a file there that only one user may read.
    #[must_use]
    pub fn secret(self, path: &str, owner: &str, text: &str) -> Self {
        self.replace(path, text, Some(owner.to_owned()))
    }

    fn replace(mut self, path: &str, text: &str, owner: Option<String>) -> Self {
        self.files.retain(|other| other.path != Path::new(path));
        self.files.push(Replaced {
            path: path.into(),
            text: text.to_owned(),
            owner,
        });
        self
    }

    /// Adds settings to a unit, behind those before.
    #[must_use]
    pub fn drop_in(mut self, unit: &str, text: &str) -> Self {
        self.drop_ins += 1;
        let number = self.drop_ins;
        let path = format!("/etc/systemd/system/{unit}.d/{number:03}-test.conf");
        self.file(&path, text)
    }

    /// Puts shell commands in the place of a service's program; ready at `systemd-notify --ready`.
    #[must_use]
    pub fn script(self, unit: &str, commands: &str) -> Self {
        let path = format!("/usr/lib/muster/test-{unit}");
        let settings =
            format!("[Service]\nExecStart=\nExecStart={path}\nNotifyAccess=all\nWatchdogSec=0\n");
        self.file(
            &path,
            &format!("#!/bin/bash\nset -euo pipefail\n{commands}\n"),
        )
        .drop_in(unit, &settings)
    }

    /// Agent and supervisor that do nothing, for a test of what is around them.
    #[must_use]
    pub fn quiet(self) -> Self {
        let idle = "systemd-notify --ready; exec sleep infinity";
        self.script("muster-supervisor.service", idle)
            .script("muster-agent.service", idle)
    }

    /// Boots it.
    ///
    /// # Errors
    /// When the root can't be built or nspawn can't be started.
    pub async fn start(self) -> anyhow::Result<TestHost> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let root = root().await?;
        let dir = tempfile::Builder::new().prefix("muster-host-").tempdir()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let machine = format!("muster-{}-{number}", std::process::id());
        let log = dir.path().join("console.log");
        let output = std::fs::File::create(&log)?;
        // For whoever runs on it to leave what the test shall see.
        let report = dir.path().join("report");
        std::fs::create_dir(&report)?;
        open_to_all(&report)?;
        let cgroup = Cgroup::new(&machine)?;
        let mut command = build::mortal("sh");
        command
            .args(["-c", r#"echo $$ >"$0" && exec systemd-nspawn "$@""#])
            .arg(cgroup.entrance())
            .arg("--quiet")
            .arg(format!("--directory={}", root.display()))
            .arg(format!("--machine={machine}"))
            .args([
                "--boot",
                "--register=no",
                "--keep-unit",
                "--volatile=overlay",
            ])
            .arg(format!(
                "--network-namespace-path={}",
                self.network.display()
            ))
            // For the guard's rules.
            .args(["--capability=CAP_NET_ADMIN", "--console=read-only"])
            .arg(format!("--bind={}:/report", report.display()));
        for (number, replaced) in self.files.iter().enumerate() {
            let file = dir.path().join(number.to_string());
            std::fs::write(&file, &replaced.text)?;
            if replaced.text.starts_with("#!") {
                open_to_all(&file)?;
            }
            if let Some(owner) = &replaced.owner {
                std::fs::set_permissions(&file, Permissions::from_mode(0o400))?;
                std::os::unix::fs::chown(&file, Some(uid(&root, owner)?), None)?;
            }
            let (from, to) = (file.display(), replaced.path.display());
            command.arg(format!("--bind-ro={from}:{to}"));
        }
        let process = command
            // The journal shall be readable when the host is off, and nothing else be in between.
            .arg("systemd.journald.forward_to_console=1")
            .args(["systemd.show_status=0", "systemd.log_color=0"])
            .arg("systemd.mask=console-getty.service")
            // cgroup v2, as on today's distributions, though this machine may still mount v1.
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .context("start systemd-nspawn; `.ci/tools host` installs it")?;
        Ok(TestHost {
            process,
            log,
            dir,
            _cgroup: cgroup,
        })
    }
}

/// A running host. It is killed when dropped.
#[derive(Debug)]
pub struct TestHost {
    process: Child,
    log: PathBuf,
    dir: TempDir,
    /// After the process, so that it is empty when it goes.
    _cgroup: Cgroup,
}

impl TestHost {
    /// Waits until everything that is enabled has started; fails if any of it failed.
    ///
    /// # Errors
    /// When that doesn't come in time, with the end of the journal.
    pub async fn booted(&self) -> anyhow::Result<()> {
        let state = wait_for("the boot", PATIENCE, || async {
            let said = self.run(&["systemctl", "is-system-running"]).await;
            let state = said.map(|o| text(&o.stdout)).unwrap_or_default();
            Ok(matches!(&*state, "running" | "degraded").then_some(state))
        })
        .await;
        let state = state.with_context(|| self.log())?;
        if state != "running" {
            let failed = self.read(&["systemctl", "--failed", "--no-legend"]).await?;
            bail!("the host is {state}: {failed}\n{}", self.log_tail());
        }
        Ok(())
    }

    /// Runs a program on the host, as root.
    ///
    /// # Errors
    /// When there is no host any more, or not yet.
    pub async fn run(&self, words: &[impl AsRef<OsStr>]) -> anyhow::Result<Output> {
        let first = self.first_process()?;
        let command = Command::new("nsenter")
            .args(["--all", "--target", &first, "--"])
            .args(words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        tokio::time::timeout(PATIENCE, command)
            .await
            .context("it did not end")?
            .context("start nsenter")
    }

    /// Its systemd, by the id that it has here.
    fn first_process(&self) -> anyhow::Result<String> {
        let id = self.process.id().context("the host is off")?;
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let first = children.split(' ').next().filter(|id| !id.is_empty());
        Ok(first
            .context("the host has no first process yet")?
            .to_owned())
    }

    /// Lets its systemd hang. What runs goes on.
    ///
    /// # Errors
    /// When there is no host any more, or not yet.
    pub fn freeze_systemd(&self) -> anyhow::Result<()> {
        let first = Pid::from_raw(self.first_process()?.parse()?);
        Ok(kill(first, Signal::SIGSTOP)?)
    }

    /// What a program prints on the host; it must succeed.
    ///
    /// # Errors
    /// When it doesn't.
    pub async fn read(&self, words: &[&str]) -> anyhow::Result<String> {
        let output = self.run(words).await?;
        let (said, errors) = (text(&output.stdout), text(&output.stderr));
        ensure!(
            output.status.success(),
            "{words:?}: {}: {said}{errors}\n{}",
            output.status,
            self.log_tail()
        );
        Ok(said)
    }

    /// A property of a unit, as `systemctl show` has it.
    ///
    /// # Errors
    /// When systemd doesn't answer.
    pub async fn property(&self, unit: &str, name: &str) -> anyhow::Result<String> {
        self.read(&["systemctl", "show", "--value", "--property", name, unit])
            .await
    }

    /// Waits until a property of a unit has a value.
    ///
    /// # Errors
    /// When it doesn't in time.
    pub async fn wait_property(&self, unit: &str, name: &str, value: &str) -> anyhow::Result<()> {
        wait_for(&format!("{name}={value} of {unit}"), PATIENCE, || async {
            Ok((self.property(unit, name).await? == value).then_some(()))
        })
        .await
        .with_context(|| self.log_tail())
    }

    /// What was left in `/report` under this name, once it is there and not empty.
    ///
    /// # Errors
    /// When it isn't in time.
    pub async fn report(&self, name: &str) -> anyhow::Result<String> {
        let file = self.dir.path().join("report").join(name);
        wait_for(&format!("/report/{name}"), PATIENCE, || async {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            Ok((!text.is_empty()).then_some(text))
        })
        .await
        .with_context(|| self.log_tail())
    }

    /// Waits until something is in `/report` under this name.
    ///
    /// # Errors
    /// When it isn't in time.
    pub async fn report_exists(&self, name: &str) -> anyhow::Result<()> {
        let file = self.dir.path().join("report").join(name);
        wait_for(&format!("/report/{name}"), PATIENCE, || async {
            Ok(file.exists().then_some(()))
        })
        .await
        .with_context(|| self.log_tail())
    }

    /// Waits until the journal has a text.
    ///
    /// # Errors
    /// When it hasn't in time.
    pub async fn logged(&self, words: &str) -> anyhow::Result<()> {
        wait_for(&format!("{words:?} in the journal"), PATIENCE, || async {
            Ok(self.log().contains(words).then_some(()))
        })
        .await
        .with_context(|| self.log_tail())
    }

    /// Leaves an empty file in `/report` under this name.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn leave(&self, name: &str) -> std::io::Result<()> {
        std::fs::write(self.dir.path().join("report").join(name), "")
    }

    /// Waits until the host is off.
    ///
    /// # Errors
    /// When it isn't within this time, with the end of the journal.
    pub async fn off(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        match tokio::time::timeout(within, self.process.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("the host is not off after {within:?}\n{}", self.log_tail()),
        }
    }

    /// Asks the host to power off, as EC2 does.
    ///
    /// # Errors
    /// When it can't be asked.
    pub fn press_power_button(&self) -> anyhow::Result<()> {
        let id = self.process.id().context("the host is off")?;
        let id = nix::unistd::Pid::from_raw(i32::try_from(id)?);
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM)?;
        Ok(())
    }

    /// The journal and the console so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

/// The root of the host, built by `tests/host/build` if it isn't there.
///
/// # Errors
/// When it can't be built.
pub async fn root() -> anyhow::Result<PathBuf> {
    let binaries = build::binary("muster-agent")?;
    let binaries = binaries.parent().context("the binaries have a folder")?;
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("host/build"))
        .arg(binaries)
        .stdin(Stdio::null())
        .output()
        .await
        .context("start tests/host/build")?;
    ensure!(
        output.status.success(),
        "tests/host/build: {}",
        text(&output.stderr)
    );
    let said = text(&output.stdout);
    Ok(said.lines().last().context("it names no root")?.into())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn open_to_all(path: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(0o777))
}

/// The number of a user of the host.
fn uid(root: &Path, name: &str) -> anyhow::Result<u32> {
    let users = std::fs::read_to_string(root.join("etc/passwd"))?;
    let user = users
        .lines()
        .find(|line| line.split(':').next() == Some(name));
    let number = user.and_then(|line| line.split(':').nth(2));
    let number = number.with_context(|| format!("the host has no user {name}"))?;
    Ok(number.parse()?)
}
