//! Networks and a disk that only a siege has: hosts, PostgreSQL and agents are each in a network of their own,
//! joined by cables that can be cut, and PostgreSQL's files are on a disk that can be full. All of it goes with
//! the process. Needs root.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use crate::network::Namespace;
use crate::postgres::Server;

/// The cable between agents and hosts.
const AGENTS: u8 = 3;
/// Size of PostgreSQL's disk.
const DISK: &str = "256m";
/// The file that fills it.
const BALLAST: &str = "ballast";

/// The networks, before anything runs in them.
pub(super) struct Site {
    hosts: Namespace,
    database: Namespace,
    agents: Arc<Namespace>,
    disk: TempDir,
}

impl Site {
    /// Makes the networks and their cables: one to PostgreSQL for each coordinator, one to the agents.
    pub(super) fn build() -> anyhow::Result<Self> {
        let site = Self {
            hosts: Namespace::new()?,
            database: Namespace::new()?,
            agents: Arc::new(Namespace::new()?),
            disk: tempfile::Builder::new().prefix("muster-disk-").tempdir()?,
        };
        for number in [1, 2] {
            site.hosts.cable(&site.database, number)?;
        }
        site.hosts.cable(&site.agents, AGENTS)?;
        Ok(site)
    }

    /// Runs all that follows beside the hosts, where the disk is, too.
    pub(super) fn run<T: Send>(
        &self,
        step: impl FnOnce(&Grounds<'_>) -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        self.hosts.enter(|| {
            unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
            mount(&["--make-rprivate", "/"])?;
            let disk = self.disk.path().to_owned();
            let size = format!("size={DISK},mode=0755");
            let place = disk.to_str().context("a path without letters")?;
            mount(&["-t", "tmpfs", "-o", &size, "tmpfs", place])?;
            let options = [
                "listen_addresses=*",
                "max_wal_size=32MB",
                "min_wal_size=32MB",
            ];
            let server = self
                .database
                .enter(|| Ok(Server::start_in(&disk, &options)))?;
            step(&Grounds {
                site: self,
                server,
                disk,
            })
        })
    }
}

/// A site in use.
pub(super) struct Grounds<'a> {
    site: &'a Site,
    server: Server,
    disk: PathBuf,
}

impl Grounds<'_> {
    /// PostgreSQL, as the coordinator of this number reaches it, 1 or 2.
    pub(super) fn database(number: u8) -> String {
        format!("postgres://postgres@10.0.{number}.2:5432/postgres?sslmode=disable")
    }

    /// Where the agents find the coordinator.
    pub(super) fn agents_ip() -> Ipv4Addr {
        Ipv4Addr::new(10, 0, AGENTS, 1)
    }

    /// The agents' network.
    pub(super) fn agents(&self) -> Arc<Namespace> {
        Arc::clone(&self.site.agents)
    }

    /// Cuts or mends the cable between a coordinator and PostgreSQL: nothing gets through, and nobody is told.
    pub(super) fn database_cable(&self, number: u8, whole: bool) -> anyhow::Result<()> {
        set(&self.site.database, number, whole)
    }

    /// The same for the cable between all agents and the coordinators.
    pub(super) fn agents_cable(&self, whole: bool) -> anyhow::Result<()> {
        set(&self.site.agents, AGENTS, whole)
    }

    /// Stops PostgreSQL as a power cut would.
    pub(super) fn stop_database(&self) {
        self.server.stop();
    }

    /// Starts PostgreSQL, if it doesn't run.
    pub(super) fn start_database(&self) -> anyhow::Result<()> {
        if self.server.answers() {
            return Ok(());
        }
        self.site.database.enter(|| {
            let started = self.server.start_again();
            started.map_err(|error| anyhow::anyhow!("{error}"))
        })
    }

    /// Fills PostgreSQL's disk to the last byte.
    pub(super) fn fill_disk(&self) -> anyhow::Result<()> {
        let ballast = self.disk.join(BALLAST);
        let mut file = fs::File::create(ballast)?;
        let block = vec![0_u8; 1 << 16];
        loop {
            if let Err(error) = std::io::Write::write_all(&mut file, &block) {
                let full = error.kind() == std::io::ErrorKind::StorageFull;
                return if full { Ok(()) } else { Err(error.into()) };
            }
        }
    }

    /// Makes room on it again.
    pub(super) fn free_disk(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.disk.join(BALLAST))?)
    }
}

/// The far end of a cable up or down.
fn set(far: &Namespace, net: u8, up: bool) -> anyhow::Result<()> {
    let word = if up { "up" } else { "down" };
    far.ip(&format!("link set from{net} {word}"))
}

fn mount(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("mount").args(arguments).output();
    let output = output.context("start mount")?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        bail!("mount {}: {told}", arguments.join(" "));
    }
    Ok(())
}
