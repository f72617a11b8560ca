use std::fs;

use proptest::prelude::*;
use rstest::rstest;
use tempfile::TempDir;

use super::*;

/// Of an m7i.large with docker: two cores, one EBS volume, one container.
const STAT: &str = "\
cpu  33031 12 10292 297105 1195 0 85 17 40 0
cpu0 15792 6 3240 151352 432 0 34 6 20 0
cpu1 17239 6 7051 145753 763 0 50 10 20 0
intr 306243 0 0 0 0
ctxt 494030
btime 1795578562
";
const LOADAVG: &str = "0.52 0.58 0.59 3/467 12345\n";
const MEMINFO: &str = "\
MemTotal:        8035452 kB
MemFree:         4030120 kB
MemAvailable:    7021340 kB
Buffers:            2088 kB
Cached:          3060988 kB
SwapCached:            0 kB
Active:          1203340 kB
SwapTotal:       2097148 kB
SwapFree:        2097000 kB
Dirty:               180 kB
HugePages_Total:       0
";
const DISKSTATS: &str = "\
   7       0 loop0 90 0 2000 10 0 0 0 0 0 10 10 0 0 0 0 0 0
 259       0 nvme0n1 83385 8024 6925290 80828 11362 88412 34827544 132314 0 14060 214861 5192 110 261216 1715 49 3
 259       1 nvme0n1p1 83000 8024 6925000 80828 11362 88412 34827544 132314 0 14060 214861 5192 110 261216 1715 0 0
 253       0 dm-0 83385 0 6925290 80828 11362 0 34827544 132314 0 14060 214861 0 0 0 0 0 0
";
const NET_DEV: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    3193      29    0    0    0     0          0         0     3193      29    0    0    0     0       0          0
  ens5: 87749047    3467    0    0    0     0          0         0   214810    1869    0    0    0     0       0          0
docker0:    500       3    0    0    0     0          0         0      600       9    0    0    0     0       0          0
vethfa2b11c:700       3    0    0    0     0          0         0      800       9    0    0    0     0       0          0
";

struct Fixture {
    root: TempDir,
    host: Host,
    buffer: Buffer,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in [
            "proc/1/net",
            "proc/net",
            "sys/block/loop0",
            "sys/block/dm-0",
        ] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::create_dir_all(root.path().join("sys/block/nvme0n1/device")).unwrap();
        fs::create_dir_all(root.path().join("sys/block/nvme0n1/nvme0n1p1")).unwrap();
        let write = |name: &str, text| fs::write(root.path().join("proc").join(name), text);
        write("stat", STAT).unwrap();
        write("loadavg", LOADAVG).unwrap();
        write("meminfo", MEMINFO).unwrap();
        write("diskstats", DISKSTATS).unwrap();
        write("1/net/dev", NET_DEV).unwrap();
        let host = Host::new(&root.path().join("proc"), &root.path().join("sys"));
        let buffer = Buffer::new();
        Self { root, host, buffer }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.root.path().join("proc").join(name), text).unwrap();
    }

    fn read(&mut self) -> Sample {
        let mut sample = Sample::default();
        self.host.read_gauges(&mut self.buffer, &mut sample);
        self.host.read_counters(&mut self.buffer, &mut sample);
        sample
    }
}

#[test]
fn gauges_are_read() {
    let sample = Fixture::new().read();
    assert_eq!(sample.cpu_count, 2);
    assert_eq!(sample.load_one_minute, 0.52);
    assert_eq!(sample.memory_total_bytes, 8_035_452 * 1024);
    assert_eq!(sample.memory_available_bytes, 7_021_340 * 1024);
    assert_eq!(sample.memory_used_bytes, (8_035_452 - 7_021_340) * 1024);
    assert_eq!(sample.swap_total_bytes, 2_097_148 * 1024);
    assert_eq!(sample.swap_used_bytes, 148 * 1024);
}

#[test]
fn the_first_reading_of_counters_has_nothing_to_compare_with() {
    let sample = Fixture::new().read();
    assert_eq!(sample.cpu_percent, 0.0);
    assert_eq!((sample.disk_read_bytes, sample.disk_written_bytes), (0, 0));
    assert_eq!(
        (sample.network_received_bytes, sample.network_sent_bytes),
        (0, 0)
    );
}

#[test]
fn only_the_disk_itself_and_the_interface_itself_count() {
    let mut fixture = Fixture::new();
    fixture.read();
    // Every device has read 10 sectors more and written 4 more; each interface got and sent more.
    fixture.write(
        "diskstats",
        &DISKSTATS
            .replace("6925290", "6925300")
            .replace("34827544", "34827548"),
    );
    let net = NET_DEV
        .replace("3193", "9999")
        .replace("87749047", "87750047");
    let net = net.replace("214810", "214850").replace("00 ", "99 ");
    fixture.write("1/net/dev", &net.replace(":700", ":999"));
    let sample = fixture.read();
    assert_eq!(
        (sample.disk_read_bytes, sample.disk_written_bytes),
        (5120, 2048)
    );
    assert_eq!(
        (sample.network_received_bytes, sample.network_sent_bytes),
        (1000, 40)
    );
}

#[test]
fn a_share_of_the_cores_leaves_idleness_out_and_counts_guests_once() {
    let mut fixture = Fixture::new();
    fixture.read();
    // 100 ticks: 10 user (a guest's), 5 system, 80 idle, 4 for a disk, 1 stolen.
    fixture.write(
        "stat",
        &STAT.replace(
            "cpu  33031 12 10292 297105 1195 0 85 17 40 0",
            "cpu  33041 12 10297 297185 1199 0 85 18 50 0",
        ),
    );
    assert_eq!(fixture.read().cpu_percent, 16.0);
    // Less than a tenth of a second later nothing new can be said.
    fixture.write(
        "stat",
        &STAT.replace(
            "cpu  33031 12 10292 297105 1195 0 85 17 40 0",
            "cpu  33051 12 10297 297185 1199 0 85 18 60 0",
        ),
    );
    assert_eq!(fixture.read().cpu_percent, 16.0);
    fixture.write(
        "stat",
        &STAT.replace(
            "cpu  33031 12 10292 297105 1195 0 85 17 40 0",
            "cpu  33061 12 10297 297185 1199 0 85 18 70 0",
        ),
    );
    assert_eq!(fixture.read().cpu_percent, 100.0);
}

#[test]
fn times_that_went_back_begin_anew() {
    let mut fixture = Fixture::new();
    fixture.read();
    fixture.write(
        "stat",
        "cpu  10 0 0 90 0 0 0 0 0 0\ncpu0 10 0 0 90 0 0 0 0 0 0\n",
    );
    assert_eq!(fixture.read().cpu_percent, 0.0);
    fixture.write(
        "stat",
        "cpu  60 0 0 140 0 0 0 0 0 0\ncpu0 60 0 0 140 0 0 0 0 0 0\n",
    );
    assert_eq!(fixture.read().cpu_percent, 50.0);
}

#[test]
fn kernels_without_an_estimate_have_free_memory_and_caches() {
    let mut sample = Sample::default();
    let text = "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 20 kB\nCached: 30 kB\n";
    note_memory(text.as_bytes(), &mut sample);
    assert_eq!(sample.memory_available_bytes, 150 * 1024);
    let text = "MemTotal: 1000 kB\nMemAvailable: 2000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n";
    note_memory(text.as_bytes(), &mut sample);
    assert_eq!(sample.memory_used_bytes, 0, "the estimate is too high");
}

#[test]
fn files_that_are_missing_leave_zeros() {
    let nowhere = Path::new("/nonexistent");
    let mut sample = Sample::default();
    let (mut host, mut buffer) = (Host::new(nowhere, nowhere), Buffer::new());
    host.read_gauges(&mut buffer, &mut sample);
    host.read_counters(&mut buffer, &mut sample);
    assert_eq!(sample, Sample::default());
    assert_eq!(started_at(nowhere), None);
}

#[test]
fn without_the_first_process_the_own_network_is_read() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("net")).unwrap();
    let (mut host, mut buffer) = (Host::new(root.path(), root.path()), Buffer::new());
    let mut sample = Sample::default();
    for text in [NET_DEV, &NET_DEV.replace("214810", "214811")] {
        fs::write(root.path().join("net/dev"), text).unwrap();
        host.read_counters(&mut buffer, &mut sample);
    }
    assert_eq!(sample.network_sent_bytes, 1);
}

#[rstest]
#[case("eth0", true)]
#[case("ens5", true)]
#[case("enX0", true)]
#[case("enp39s0", true)]
#[case("lo", false)]
#[case("br-0f1d2c3b4a59", false)]
#[case("docker0", false)]
#[case("veth12ab", false)]
#[case("ens5.100", false)]
fn interfaces(#[case] name: &str, #[case] counts: bool) {
    assert_eq!(is_physical(name.as_bytes()), counts);
}

#[test]
fn the_kernel_started_as_long_ago_as_it_says() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("uptime"), "120.50 200.00\n").unwrap();
    let before = Timestamp::now();
    let started = started_at(root.path()).unwrap();
    let age = Timestamp::now().duration_since(started);
    assert!(age >= SignedDuration::from_millis(120_500));
    assert!(before.duration_since(started) <= SignedDuration::from_millis(120_500));
}

/// Text of the kernel's, broken somewhere.
fn broken() -> impl Strategy<Value = Vec<u8>> {
    let texts = [STAT, LOADAVG, MEMINFO, DISKSTATS, NET_DEV];
    let text = prop::sample::select(texts.to_vec());
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (text, edits, any::<prop::sample::Index>()).prop_map(|(text, edits, end)| {
        let mut bytes = text.as_bytes().to_vec();
        for (place, byte) in edits {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.truncate(end.index(bytes.len() + 1));
        bytes
    })
}

proptest! {
    #[test]
    fn any_text_gives_plausible_figures(
        texts in prop::collection::vec(prop_oneof![broken(), prop::collection::vec(any::<u8>(), 0..200)], 1..5),
    ) {
        let nowhere = Path::new("/nonexistent");
        let mut host = Host::new(nowhere, nowhere);
        for text in texts {
            let mut sample = Sample::default();
            note_memory(&text, &mut sample);
            prop_assert!(sample.memory_used_bytes <= sample.memory_total_bytes);
            prop_assert!(sample.swap_used_bytes <= sample.swap_total_bytes);
            host.note_cpu(&text);
            prop_assert!((0.0..=100.0).contains(&host.cpu_percent));
            for line in lines(&text) {
                let _ = (disk(line), interface(line));
            }
        }
    }
}
