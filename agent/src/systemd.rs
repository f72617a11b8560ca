//! What systemd is told and asked: notices of readiness, `systemctl`, and the store for descriptors.

use std::convert::Infallible;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use sd_notify::NotifyState;
use secrecy::zeroize::Zeroizing;
use thiserror::Error;
use tokio::process::Command;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Longest time for one call of `systemctl`. It answers in milliseconds unless the host is broken.
const SYSTEMCTL_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of its complaint that are kept.
const COMPLAINT_MAX: usize = 512;
/// The first descriptor that systemd hands over (`SD_LISTEN_FDS_START`).
const FIRST_DESCRIPTOR: &str = "/proc/self/fd/3";
/// Largest content of a stored descriptor, in bytes.
const STORED_MAX: u64 = 64 * 1024;

/// `systemctl` failed.
#[derive(Debug, Error)]
pub(crate) enum SystemctlError {
    /// It could not be run.
    #[error("run systemctl: {0}")]
    Run(#[from] io::Error),
    /// It did not answer.
    #[error("systemctl did not answer within {SYSTEMCTL_TIMEOUT:?}")]
    Timeout,
    /// It said no.
    #[error("systemctl {words}: {complaint}")]
    Refused {
        /// What was asked.
        words: String,
        /// What it said.
        complaint: String,
    },
}

/// Runs `systemctl` with `words`, and gives out what it prints.
pub(crate) async fn systemctl(words: &[&str]) -> Result<String, SystemctlError> {
    let call = Command::new("systemctl")
        .args(words)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(SYSTEMCTL_TIMEOUT, call)
        .await
        .map_err(|_| SystemctlError::Timeout)??;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint: String = String::from_utf8_lossy(&output.stderr)
        .trim()
        .chars()
        .take(COMPLAINT_MAX)
        .collect();
    Err(SystemctlError::Refused {
        words: words.join(" "),
        complaint,
    })
}

/// Whether the host is being shut down, by whomever. Not, if systemd doesn't say so.
pub(crate) async fn shuts_down() -> bool {
    match systemctl(&["show", "--value", "--property=SystemState"]).await {
        Ok(state) => state.trim() == "stopping",
        Err(error) => {
            tracing::warn!(%error, "nobody says whether the host is being shut down");
            false
        }
    }
}

/// Between two tries to switch the host off.
const POWER_OFF_INTERVAL: Duration = Duration::from_secs(10);
/// How often it is asked nicely.
const POWER_OFF_TRIES: u32 = 3;

/// Switches the host off: by systemd, and past it if that doesn't. Returns once it was asked.
pub(crate) async fn power_off() {
    for _ in 0..POWER_OFF_TRIES {
        tracing::info!("switching the host off");
        match systemctl(&["poweroff", "--no-block"]).await {
            Ok(_) => return,
            Err(error) => tracing::error!(%error, "the host can't be switched off"),
        }
        sleep(POWER_OFF_INTERVAL).await;
    }
    if let Err(error) = systemctl(&["poweroff", "--force", "--force"]).await {
        tracing::error!(%error, "the host can't be switched off by force");
    }
}

/// The service manager of this process, if it has one that wants to hear from it.
#[derive(Debug)]
pub(crate) struct Notifier {
    watchdog: Option<Watchdog>,
    status: String,
}

#[derive(Debug)]
struct Watchdog {
    every: Duration,
    next: Instant,
}

impl Notifier {
    /// Reads what the manager has asked for. Without a manager, nothing is ever said.
    pub(crate) fn new() -> Self {
        // Three in each period, so that one may be late.
        let every = sd_notify::watchdog_enabled().map(|period| period / 3);
        Self {
            watchdog: every
                .filter(|every| !every.is_zero())
                .map(|every| Watchdog {
                    every,
                    next: Instant::now(),
                }),
            status: String::new(),
        }
    }

    /// The service works.
    pub(crate) fn ready(&self) {
        notify(&[NotifyState::Ready]);
    }

    /// What it does, for `systemctl status`.
    pub(crate) fn status(&mut self, text: String) {
        if text != self.status {
            notify(&[NotifyState::Status(&text)]);
            self.status = text;
        }
    }

    /// When [`Notifier::alive`] must be called at the latest.
    pub(crate) fn next(&self) -> Option<Instant> {
        Some(self.watchdog.as_ref()?.next)
    }

    /// Says so again and again, for as long as it is polled.
    pub(crate) async fn keep_alive(&mut self) -> Infallible {
        loop {
            match self.next() {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
            self.alive(Instant::now());
        }
    }

    /// The loop turns. Says so to the manager if it is time.
    pub(crate) fn alive(&mut self, now: Instant) {
        if let Some(watchdog) = &mut self.watchdog
            && watchdog.next <= now
        {
            watchdog.next = now + watchdog.every;
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

/// Names under which content is stored, in turn.
const STORED_NAMES: [&str; 2] = ["identity-0", "identity-1"];

/// Keeps content with the service manager, where this service finds it if it dies and is started again.
/// It is in memory that no name leads to. Needs `FileDescriptorStoreMax=2` in the unit.
#[derive(Debug)]
pub(crate) struct DescriptorStore {
    turn: usize,
}

/// What the manager is told to do with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Say {
    Remove(&'static str),
    Store(&'static str),
}

impl DescriptorStore {
    /// A store that spares what an earlier process of this service left in it.
    pub(crate) fn new() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").ok().filter(|_| is_handed());
        Self::after(names.as_deref())
    }

    /// A store in which there is something under these names, with `:` between them. The first is of the
    /// descriptor that is read.
    fn after(names: Option<&str>) -> Self {
        let first = names.and_then(|names| names.split(':').next());
        let turn = usize::from(first == Some(STORED_NAMES[0]));
        Self { turn }
    }

    /// What is said to store anew, in this order. A full store takes nothing, and a name is removed with all
    /// that is under it: so the name that is about to be used is freed, and the other one only once the new
    /// content is there. Whoever dies in between leaves what is good.
    fn anew(&mut self) -> [Say; 3] {
        let name = STORED_NAMES[self.turn];
        self.turn = 1 - self.turn;
        let before = STORED_NAMES[self.turn];
        [Say::Remove(name), Say::Store(name), Say::Remove(before)]
    }

    /// Stores `content` in place of what was stored before. Without a manager, does nothing.
    pub(crate) fn keep(&mut self, content: &[u8]) -> io::Result<()> {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(());
        }
        let memory = memfd_create("muster", MFdFlags::MFD_CLOEXEC)?;
        let mut file = std::fs::File::from(memory);
        io::Write::write_all(&mut file, content)?;
        for say in self.anew() {
            match say {
                Say::Remove(name) => {
                    notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
                }
                Say::Store(name) => sd_notify::notify_with_fds(
                    &[NotifyState::FdStore, NotifyState::FdName(name)],
                    &[file.as_fd()],
                )?,
            }
        }
        Ok(())
    }
}

/// What an earlier process of this service left, if it did.
pub(crate) fn stored() -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    if !is_handed() {
        return Ok(None);
    }
    read_stored(Path::new(FIRST_DESCRIPTOR)).map(Some)
}

/// Whether descriptors were handed to this very process.
fn is_handed() -> bool {
    let own = std::process::id().to_string();
    std::env::var("LISTEN_PID").is_ok_and(|pid| pid == own)
        && std::env::var("LISTEN_FDS").is_ok_and(|count| count != "0")
}

/// Opening its path gives a descriptor of our own, read from the start.
fn read_stored(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path)?;
    io::Read::read_to_end(&mut io::Read::take(file, STORED_MAX), &mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::{DescriptorStore, Say};

    /// The manager's store: at most two, the newest first.
    #[derive(Clone, Debug, Default)]
    struct Manager(Vec<(&'static str, u32)>);

    impl Manager {
        fn hear(&mut self, say: Say, content: u32) {
            match say {
                Say::Remove(name) => self.0.retain(|(stored, _)| *stored != name),
                Say::Store(name) if self.0.len() < 2 => self.0.insert(0, (name, content)),
                Say::Store(_) => {}
            }
        }

        /// A process of the service that is started now.
        fn start(&self) -> DescriptorStore {
            let names: Vec<_> = self.0.iter().map(|(name, _)| *name).collect();
            DescriptorStore::after((!names.is_empty()).then(|| names.join(":")).as_deref())
        }

        fn contents(&self) -> Vec<u32> {
            self.0.iter().map(|(_, content)| *content).collect()
        }
    }

    #[test]
    fn what_is_stored_outlives_every_crash_and_every_renewal() {
        // Wherever each of three processes dies: after so many of its words.
        for deaths in 0..1_000 {
            let mut manager = Manager::default();
            for words in [deaths % 10, deaths / 10 % 10, deaths / 100] {
                let mut store = manager.start();
                let mut said = 0;
                'process: for content in 1.. {
                    for say in store.anew() {
                        if said == words {
                            break 'process;
                        }
                        let had = manager.contents();
                        manager.hear(say, content);
                        let has = manager.contents();
                        assert!(had.is_empty() || !has.is_empty(), "{deaths}: emptied");
                        said += 1;
                    }
                    assert_eq!(
                        manager.contents(),
                        [content],
                        "{deaths}: not the newest alone"
                    );
                }
            }
        }
    }
}
