//! What the kernel says of the whole host, from the files below `/proc`.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use muster_proto::v1::Sample;

use super::counters::Counters;
use super::file::{Buffer, KeptFile};
use super::text::{hundredths, lines, number, words};

/// Fields of the kernel's line of cpu times, without the two that `user` and `nice` contain already.
const CPU_FIELDS: usize = 8;
/// Those in which nothing ran: idle, and idle while a disk was waited for.
const CPU_IDLE: [usize; 2] = [3, 4];
/// Clock ticks of each core that a share of them needs: a tenth of a second. Less is noise.
const TICKS_MIN: u64 = 10;
/// Whatever the disk's own sector is: <https://docs.kernel.org/admin-guide/iostats.html>.
const SECTOR_BYTES: u64 = 512;
const KIB: u64 = 1024;

/// Beginnings of the names of interfaces whose bytes go through another one too, or stay on the host:
/// loopback, bridges and their ports, tunnels, bonds. Names of VLANs have a dot.
const VIRTUAL_INTERFACES: [&[u8]; 22] = [
    b"lo", b"veth", b"docker", b"br", b"virbr", b"podman", b"cni", b"flannel", b"cali", b"lxc",
    b"lxd", b"macv", b"ip", b"tun", b"tap", b"wg", b"gre", b"sit", b"vxlan", b"bond", b"ifb",
    b"dummy",
];

/// The files, and the counters of the reading before.
#[derive(Debug)]
pub(super) struct Host {
    stat: KeptFile,
    load: KeptFile,
    memory: KeptFile,
    disks: KeptFile,
    networks: KeptFile,
    /// Below it each disk has a folder, and no partition has.
    blocks: PathBuf,
    /// Cpu times that the next share is counted from; none before the first reading.
    cpu: Option<[u64; CPU_FIELDS]>,
    cpu_percent: f64,
    disk_counters: Counters,
    network_counters: Counters,
}

impl Host {
    pub(super) fn new(proc: &Path, sys: &Path) -> Self {
        // The first process is in the instance's own network, also when this one has none.
        let first = proc.join("1/net/dev");
        let networks = if first.exists() {
            first
        } else {
            proc.join("net/dev")
        };
        Self {
            stat: KeptFile::new(proc.join("stat")),
            load: KeptFile::new(proc.join("loadavg")),
            memory: KeptFile::new(proc.join("meminfo")),
            disks: KeptFile::new(proc.join("diskstats")),
            networks: KeptFile::new(networks),
            blocks: sys.join("block"),
            cpu: None,
            cpu_percent: 0.0,
            disk_counters: Counters::default(),
            network_counters: Counters::default(),
        }
    }

    /// Reads what is measured from one reading to the next.
    pub(super) fn read_counters(&mut self, buffer: &mut Buffer, sample: &mut Sample) {
        if let Some(text) = self.stat.read(buffer) {
            sample.cpu_count = self.note_cpu(text);
        }
        sample.cpu_percent = self.cpu_percent;
        if let Some(text) = self.disks.read(buffer) {
            let blocks = &self.blocks;
            for (name, values) in lines(text).filter_map(disk) {
                self.disk_counters
                    .note(name, values, |name| is_disk(blocks, name));
            }
        }
        if let Some(text) = self.networks.read(buffer) {
            for (name, values) in lines(text).filter_map(interface) {
                self.network_counters.note(name, values, is_physical);
            }
        }
        let [read, written] = self.disk_counters.end_round();
        sample.disk_read_bytes = read.saturating_mul(SECTOR_BYTES);
        sample.disk_written_bytes = written.saturating_mul(SECTOR_BYTES);
        let [received, sent] = self.network_counters.end_round();
        sample.network_received_bytes = received;
        sample.network_sent_bytes = sent;
    }

    /// Reads what stands for itself.
    pub(super) fn read_gauges(&mut self, buffer: &mut Buffer, sample: &mut Sample) {
        if let Some(text) = self.load.read(buffer) {
            let load = words(text).next().and_then(hundredths).unwrap_or_default();
            sample.load_one_minute = f64::from(load) / 100.0;
        }
        if let Some(text) = self.memory.read(buffer) {
            note_memory(text, sample);
        }
    }

    /// Takes the times of all cores; the number of cores.
    fn note_cpu(&mut self, text: &[u8]) -> u32 {
        let mut lines = lines(text).take_while(|line| line.starts_with(b"cpu"));
        let first = lines.next().and_then(cpu_times);
        let cores = u32::try_from(lines.count()).unwrap_or(u32::MAX);
        let Some(times) = first else {
            return cores;
        };
        let before = *self.cpu.get_or_insert(times);
        let mut spent = [0; CPU_FIELDS];
        for ((spent, new), old) in spent.iter_mut().zip(times).zip(before) {
            *spent = new.saturating_sub(old);
        }
        let all = sum(spent);
        // Times of idleness can go back a little, and all do when a virtual machine is restored.
        let went_back = times.iter().zip(before).any(|(new, old)| *new < old);
        if all >= TICKS_MIN.saturating_mul(cores.max(1).into()) {
            let idle = sum(CPU_IDLE.map(|field| spent[field]));
            self.cpu_percent = percent(all.saturating_sub(idle), all);
            self.cpu = Some(times);
        } else if went_back {
            self.cpu = Some(times);
        }
        cores
    }
}

/// When the kernel started, by the clock as it is now.
pub(super) fn started_at(proc: &Path) -> Option<Timestamp> {
    let text = std::fs::read(proc.join("uptime")).ok()?;
    let uptime = i64::from(hundredths(words(&text).next()?)?);
    let uptime = SignedDuration::from_millis(uptime * 10);
    Timestamp::now().checked_sub(uptime).ok()
}

fn sum(times: impl IntoIterator<Item = u64>) -> u64 {
    times.into_iter().fold(0, u64::saturating_add)
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
fn percent(part: u64, all: u64) -> f64 {
    if all == 0 {
        return 0.0;
    }
    (part as f64 * 100.0 / all as f64).clamp(0.0, 100.0)
}

fn cpu_times(line: &[u8]) -> Option<[u64; CPU_FIELDS]> {
    let mut times = [0; CPU_FIELDS];
    let mut words = words(line.strip_prefix(b"cpu ")?);
    for time in &mut times {
        *time = number(words.next()?)?;
    }
    Some(times)
}

/// Name of a block device, and its sectors read and written.
fn disk(line: &[u8]) -> Option<(&[u8], [u64; 2])> {
    let mut words = words(line).skip(2);
    let name = words.next()?;
    let read = number(words.nth(2)?)?;
    let written = number(words.nth(3)?)?;
    Some((name, [read, written]))
}

/// Name of an interface, and its bytes received and sent.
fn interface(line: &[u8]) -> Option<(&[u8], [u64; 2])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let mut figures = words(&line[colon + 1..]);
    let received = number(figures.next()?)?;
    let sent = number(figures.nth(7)?)?;
    Some((words(&line[..colon]).next()?, [received, sent]))
}

/// Whether a block device is a disk of its own: neither a part of one, nor made of others or of
/// memory (loop, device mapper, RAID, zram). Only a disk has a device behind it.
fn is_disk(blocks: &Path, name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|name| blocks.join(name).join("device").exists())
}

fn is_physical(name: &[u8]) -> bool {
    let is_virtual = |prefix: &&[u8]| name.starts_with(prefix);
    !name.contains(&b'.') && !VIRTUAL_INTERFACES.iter().any(is_virtual)
}

fn note_memory(text: &[u8], sample: &mut Sample) {
    let [mut free, mut reclaimable, mut swap_free] = [0_u64; 3];
    let mut available = None;
    for line in lines(text) {
        let mut words = words(line);
        let (Some(name), Some(kib)) = (words.next(), words.next().and_then(number)) else {
            continue;
        };
        let bytes = kib.saturating_mul(KIB);
        match name {
            b"MemTotal:" => sample.memory_total_bytes = bytes,
            b"MemFree:" => free = bytes,
            b"MemAvailable:" => available = Some(bytes),
            b"Buffers:" | b"Cached:" => reclaimable = reclaimable.saturating_add(bytes),
            b"SwapTotal:" => sample.swap_total_bytes = bytes,
            b"SwapFree:" => {
                swap_free = bytes;
                break;
            }
            _ => {}
        }
    }
    // The kernel's estimate can be higher than all memory.
    let total = sample.memory_total_bytes;
    let available = available.unwrap_or_else(|| free.saturating_add(reclaimable));
    sample.memory_available_bytes = available.min(total);
    sample.memory_used_bytes = total - sample.memory_available_bytes;
    sample.swap_used_bytes = sample.swap_total_bytes.saturating_sub(swap_free);
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
