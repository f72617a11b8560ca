//! Network namespaces that live as long as the test which made them, and leave nothing behind.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace with a loopback of its own. The kernel removes it with its last user.
#[derive(Debug)]
pub struct Namespace {
    handle: File,
}

impl Namespace {
    /// Makes one; needs root.
    ///
    /// # Errors
    /// Without the right to.
    pub fn new() -> anyhow::Result<Self> {
        let made = std::thread::spawn(|| -> anyhow::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context(
                "make a network namespace; tests of the host need root, leave them out with \
                 `-E 'not binary(guard) and not binary(host) and not binary(siege)'`",
            )?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        let handle = made.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        let namespace = Self { handle };
        // Nobody else is on these links: an address need not wait a second to be sure of it.
        namespace.set("ipv6/conf/default/accept_dad", "0")?;
        namespace.set("ipv6/conf/default/dad_transmits", "0")?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Names it for programs that take a namespace by path, as long as this lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let (process, fd) = (std::process::id(), self.handle.as_raw_fd());
        format!("/proc/{process}/fd/{fd}").into()
    }

    /// Runs `step` on a thread inside; what it starts and opens is inside too.
    ///
    /// # Errors
    /// When the step fails or can't be run.
    pub fn enter<T: Send>(
        &self,
        step: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.handle, CloneFlags::CLONE_NEWNET).context("enter the namespace")?;
                step()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Sets one of the kernel's values below `/proc/sys/net`.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn set(&self, name: &str, value: &str) -> anyhow::Result<()> {
        let path = format!("/proc/sys/net/{name}");
        self.enter(|| std::fs::write(&path, value).with_context(|| format!("set {path}")))
    }

    /// Runs `ip` with these words inside.
    ///
    /// # Errors
    /// When it fails.
    pub fn ip(&self, words: &str) -> anyhow::Result<()> {
        self.enter(|| {
            let output = Command::new("ip").args(words.split(' ')).output();
            let output = output.context("start ip; .ci/tools installs iproute2")?;
            if !output.status.success() {
                bail!("ip {words}: {}", String::from_utf8_lossy(&output.stderr));
            }
            Ok(())
        })
    }

    /// Joins two by a cable: this side gets 10.0.`net`.1 and fd01:`net`::1, the other .2 and ::2.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn cable(&self, other: &Self, net: u8) -> anyhow::Result<()> {
        let far = other.path();
        let far = far.display();
        self.ip(&format!(
            "link add to{net} type veth peer name from{net} netns {far}"
        ))?;
        for (side, name, host) in [(self, "to", 1), (other, "from", 2)] {
            let name = format!("{name}{net}");
            side.ip(&format!("addr add 10.0.{net}.{host}/24 dev {name}"))?;
            side.ip(&format!("addr add fd01:{net}::{host}/64 dev {name} nodad"))?;
            side.ip(&format!("link set {name} up"))?;
        }
        Ok(())
    }
}
