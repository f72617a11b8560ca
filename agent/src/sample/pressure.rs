//! Pressure stall information: <https://docs.kernel.org/accounting/psi.html>.

use std::path::Path;

use muster_proto::v1;

use super::file::{Buffer, KeptFile};
use super::text::{hundredths, lines, words};

/// The kernel's three files of it.
#[derive(Debug)]
pub(super) struct Pressure {
    cpu: KeptFile,
    memory: KeptFile,
    io: KeptFile,
}

/// The averages over 10 s of one file, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Averages {
    some: f64,
    full: f64,
}

impl Pressure {
    pub(super) fn new(proc: &Path) -> Self {
        let file = |name| KeptFile::new(proc.join("pressure").join(name));
        Self {
            cpu: file("cpu"),
            memory: file("memory"),
            io: file("io"),
        }
    }

    /// None if the kernel doesn't tell: it is older than 4.20, built without, or started with `psi=0`.
    pub(super) fn read(&mut self, buffer: &mut Buffer) -> Option<v1::Pressure> {
        let cpu = self.cpu.read(buffer).and_then(averages);
        let memory = self.memory.read(buffer).and_then(averages);
        let io = self.io.read(buffer).and_then(averages);
        if cpu.is_none() && memory.is_none() && io.is_none() {
            return None;
        }
        let [cpu, memory, io] = [cpu, memory, io].map(Option::unwrap_or_default);
        Some(v1::Pressure {
            cpu_some: cpu.some,
            memory_some: memory.some,
            memory_full: memory.full,
            io_some: io.some,
            io_full: io.full,
        })
    }
}

fn averages(text: &[u8]) -> Option<Averages> {
    let mut found = None;
    for line in lines(text) {
        let mut words = words(line);
        let (Some(kind), Some(average)) = (words.next(), words.next()) else {
            continue;
        };
        let Some(average) = average.strip_prefix(b"avg10=").and_then(hundredths) else {
            continue;
        };
        let percent = (f64::from(average) / 100.0).min(100.0);
        let averages = found.get_or_insert(Averages::default());
        match kind {
            b"some" => averages.some = percent,
            b"full" => averages.full = percent,
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn some_and_full_are_read_and_cpus_of_old_kernels_lack_full() {
        let text = b"some avg10=12.34 avg60=1.00 avg300=0.10 total=123\n\
                     full avg10=5.06 avg60=0.00 avg300=0.00 total=45\n";
        let (some, full) = (12.34, 5.06);
        assert_eq!(averages(text), Some(Averages { some, full }));
        let text = b"some avg10=100.00 avg60=1.00 avg300=0.10 total=123\n";
        let (some, full) = (100.0, 0.0);
        assert_eq!(averages(text), Some(Averages { some, full }));
        assert_eq!(averages(b"garbage\n"), None);
    }

    #[test]
    fn a_kernel_that_does_not_tell_leaves_it_unset() {
        let proc = tempfile::tempdir().unwrap();
        let (mut pressure, mut buffer) = (Pressure::new(proc.path()), Buffer::new());
        assert_eq!(pressure.read(&mut buffer), None);
        fs::create_dir(proc.path().join("pressure")).unwrap();
        let text =
            "some avg10=1.50 avg60=0 avg300=0 total=0\nfull avg10=0.25 avg60=0 avg300=0 total=0\n";
        fs::write(proc.path().join("pressure/memory"), text).unwrap();
        let read = pressure.read(&mut buffer).unwrap();
        assert_eq!((read.memory_some, read.memory_full), (1.5, 0.25));
        assert_eq!(read.io_full, 0.0);
    }

    proptest! {
        #[test]
        fn any_text_gives_percentages(text in "(some|full|x)? ?(avg10=)?[0-9.]{0,24}[ \n]\\PC{0,9}") {
            if let Some(Averages { some, full }) = averages(text.as_bytes()) {
                prop_assert!((0.0..=100.0).contains(&some) && (0.0..=100.0).contains(&full));
            }
        }
    }
}
