//! The test host as a machine of its own, with a kernel of its own: limits of memory and of addresses hold
//! as on EC2, whatever cgroups the machine that runs the tests has.
//!
//! QEMU emulates its processors, so that it needs no virtualisation, and is ten times as slow as the real
//! ones. What the machine sends to its own loopback comes out on ours, where coordinator and GitHub are; the
//! metadata service is at its real address, with the port of ours.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{Boot, Replaced, root, text, uid};
use crate::world::build;

/// Memory of the machine, in MiB: little, so that it is soon eaten.
pub const MEMORY_MIB: u32 = 1024;
/// Size of the disk; its file takes as much as is in it.
const DISK: &str = "2G";
/// Where administrators' programs are, which not everybody's PATH has.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The interfaces, and what is behind them. `.254` is this machine's loopback.
const NETWORKS: [(&str, &str); 2] = [
    ("52:54:00:00:00:01", "10.0.2"),
    ("52:54:00:00:00:02", "169.254.169"),
];
/// The machine's own loopback is ours. Nothing on it listens there.
const LOOPBACK: &str = "\
    table ip loopback {\n\
        chain from_host {\n\
            type nat hook output priority -100; policy accept;\n\
            ip daddr 127.0.0.1 meta l4proto tcp dnat to 10.0.2.254\n\
        }\n\
        chain leaving {\n\
            type nat hook postrouting priority 100; policy accept;\n\
            ip daddr 10.0.2.254 masquerade\n\
        }\n\
    }\n";
const LOOPBACK_UNIT: &str = "\
    [Unit]\nDefaultDependencies=no\nBefore=muster-agent.service systemd-networkd.service\n\
    [Service]\nType=oneshot\nRemainAfterExit=yes\n\
    ExecStart=/usr/sbin/sysctl -qw net.ipv4.conf.all.route_localnet=1\n\
    ExecStart=/usr/sbin/nft -f /etc/test-loopback.nft\n";

/// What an image does not have: its network is of the cloud's making. Consoles for nobody are left out.
const KERNEL_ARGUMENTS: &str = "root=/dev/vda rw console=ttyS0 quiet panic=-1 \
    systemd.wants=test-loopback.service systemd.wants=systemd-networkd.service \
    systemd.mask=serial-getty@ttyS0.service systemd.mask=getty@tty1.service systemd.mask=e2scrub_reap.service \
    systemd.journald.forward_to_console=1 systemd.show_status=0 systemd.log_color=0";

impl Boot {
    /// Switches a machine on that is set up like this. `network` plays no part.
    ///
    /// # Errors
    /// When its disk can't be made or QEMU can't be started.
    pub async fn power_on(mut self) -> anyhow::Result<Machine> {
        ensure!(
            cfg!(target_arch = "x86_64"),
            "the machine's processors are those that QEMU's qemu-system-x86_64 emulates"
        );
        self = self
            .file("/etc/test-loopback.nft", LOOPBACK)
            .file("/etc/systemd/system/test-loopback.service", LOOPBACK_UNIT);
        for (number, (mac, net)) in NETWORKS.into_iter().enumerate() {
            self = self.file(
                &format!("/etc/systemd/network/{number}-test.network"),
                &format!(
                    "[Match]\nMACAddress={mac}\n\
                     [Network]\nAddress={net}.15/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
                ),
            );
        }
        let root = root().await?;
        // Beside the root: what is the same in both is linked, not copied.
        let cache = root.parent().context("the root has a folder")?;
        let dir = tempfile::Builder::new()
            .prefix("machine-")
            .tempdir_in(cache)?;
        let disk = self.disk(&root, dir.path()).await?;
        let log = dir.path().join("console.log");
        let process = qemu(&root, &disk, &log)?;
        Ok(Machine {
            process,
            log,
            _dir: dir,
        })
    }

    /// Makes a file system of the root with what is different from it.
    async fn disk(&self, root: &Path, dir: &Path) -> anyhow::Result<PathBuf> {
        let (tree, disk) = (dir.join("tree"), dir.join("disk"));
        succeed(Command::new("cp").args(["-al"]).arg(root).arg(&tree)).await?;
        for replaced in &self.files {
            put(&tree, replaced)?;
        }
        succeed(
            Command::new("mke2fs")
                .args(["-q", "-t", "ext4", "-d"])
                .args([&tree, &disk])
                .arg(DISK),
        )
        .await
        .context("`.ci/tools host` installs e2fsprogs")?;
        std::fs::remove_dir_all(tree)?;
        Ok(disk)
    }
}

/// Puts a file into the tree, in place of the link to the root's.
fn put(tree: &Path, replaced: &Replaced) -> anyhow::Result<()> {
    let file = tree.join(replaced.path.strip_prefix("/")?);
    std::fs::create_dir_all(file.parent().context("it has a folder")?)?;
    if file.exists() {
        std::fs::remove_file(&file)?;
    }
    std::fs::write(&file, &replaced.text)?;
    let mode = match &replaced.owner {
        Some(owner) => {
            chown(&file, Some(uid(tree, owner)?), None)?;
            0o400
        }
        None if replaced.text.starts_with("#!") => 0o755,
        None => 0o644,
    };
    std::fs::set_permissions(&file, Permissions::from_mode(mode))?;
    Ok(())
}

fn qemu(root: &Path, disk: &Path, log: &Path) -> anyhow::Result<Child> {
    let mut command = build::mortal(program("qemu-system-x86_64")?);
    command
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"])
        .args(["-m", &MEMORY_MIB.to_string()])
        .args(["-no-reboot", "-nodefaults", "-display", "none"])
        .arg("-kernel")
        .arg(boot_file(root, "vmlinuz-")?)
        .arg("-initrd")
        .arg(boot_file(root, "initrd.img-")?)
        .args(["-append", KERNEL_ARGUMENTS])
        .arg("-serial")
        .arg(format!("file:{}", log.display()))
        .arg("-drive")
        // Nobody reads it afterwards.
        .arg(format!(
            "file={},if=virtio,format=raw,cache=unsafe",
            disk.display()
        ));
    for (number, (mac, net)) in NETWORKS.into_iter().enumerate() {
        let user = format!("user,id=net{number},ipv6=off,net={net}.0/24,host={net}.254");
        // Without the ROM that would boot from it.
        let card = format!("virtio-net-pci,netdev=net{number},mac={mac},romfile=");
        command.args(["-netdev", &user, "-device", &card]);
    }
    let complaints = log.with_extension("qemu");
    command
        .env(
            "PATH",
            std::env::var("PATH").unwrap_or_default() + ":" + PATH,
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(complaints)?)
        .kill_on_drop(true)
        .spawn()
        .context("start setpriv")
}

/// Where a program is.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":" + PATH;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("{name} is missing; run `.ci/tools host`"))
}

/// The root's one file of this kind.
fn boot_file(root: &Path, prefix: &str) -> anyhow::Result<PathBuf> {
    for entry in std::fs::read_dir(root.join("boot"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(entry.path());
        }
    }
    bail!("{} has no /boot/{prefix}*", root.display())
}

async fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .stdin(Stdio::null())
        .env("PATH", PATH)
        .output()
        .await;
    let program = command.as_std().get_program().display().to_string();
    let output = output.with_context(|| format!("start {program}"))?;
    ensure!(
        output.status.success(),
        "{program}: {}: {}",
        output.status,
        text(&output.stderr)
    );
    Ok(())
}

/// A running machine. It is switched off when dropped.
#[derive(Debug)]
pub struct Machine {
    process: Child,
    log: PathBuf,
    _dir: TempDir,
}

impl Machine {
    /// Waits until it has powered itself off; nothing else ends it.
    ///
    /// # Errors
    /// When it doesn't within this time, or goes down in another way; the message has the end of its console.
    pub async fn off(&mut self, within: Duration) -> anyhow::Result<()> {
        let status: ExitStatus = match tokio::time::timeout(within, self.process.wait()).await {
            Ok(status) => status?,
            Err(_) => bail!("not off after {within:?}\n{}", self.log()),
        };
        // A kernel that panics restarts, which ends QEMU too.
        let powered_off = self.log().contains("reboot: Power down");
        ensure!(
            status.success() && powered_off,
            "it went down otherwise: {status}\n{}\n{}",
            std::fs::read_to_string(self.log.with_extension("qemu"))?,
            self.log()
        );
        Ok(())
    }

    /// The console so far: the journal, and what the kernel says.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
