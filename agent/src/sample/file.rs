//! Files of the kernel that are read again and again through one descriptor.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

/// Bytes of the buffer at the beginning: enough on small hosts.
const FIRST: usize = 4 * 1024;
/// Most bytes of a file that are read.
const LIMIT: usize = 64 * 1024;

/// A file that stays open. One that is missing, or that the kernel took away, is looked for again at
/// the next reading.
#[derive(Debug)]
pub(super) struct KeptFile {
    path: PathBuf,
    file: Option<File>,
}

impl KeptFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// What the file says now; none if it can't be read.
    pub(super) fn read<'b>(&mut self, buffer: &'b mut Buffer) -> Option<&'b [u8]> {
        let filled = match &self.file {
            Some(file) => buffer.fill(file),
            None => File::open(&self.path).and_then(|file| buffer.fill(self.file.insert(file))),
        };
        match filled {
            Ok(length) => Some(&buffer.bytes[..length]),
            Err(error) => {
                tracing::trace!(path = %self.path.display(), %error, "no reading");
                self.file = None;
                None
            }
        }
    }
}

/// Where files are read into, one after the other. It grows until the largest of them fits.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
}

impl Buffer {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; FIRST],
        }
    }

    /// Number of bytes that the file says now, without a last line that doesn't fit as a whole.
    fn fill(&mut self, file: &File) -> io::Result<usize> {
        loop {
            let mut length = 0;
            // Lists of the kernel come in pages: only a read of nothing is the end.
            while length < self.bytes.len() {
                match file.read_at(&mut self.bytes[length..], length as u64)? {
                    0 => return Ok(length),
                    read => length += read,
                }
            }
            if length >= LIMIT {
                let last = self.bytes.iter().rposition(|&byte| byte == b'\n');
                return Ok(last.map_or(0, |last| last + 1));
            }
            self.bytes.resize((length * 4).min(LIMIT), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Buffer, FIRST, KeptFile, LIMIT};

    #[test]
    fn a_file_is_read_anew_each_time_and_looked_for_until_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stat");
        let (mut file, mut buffer) = (KeptFile::new(path.clone()), Buffer::new());
        assert_eq!(file.read(&mut buffer), None);
        fs::write(&path, "one\n").unwrap();
        assert_eq!(file.read(&mut buffer), Some(&b"one\n"[..]));
        fs::write(&path, "2\n").unwrap();
        assert_eq!(file.read(&mut buffer), Some(&b"2\n"[..]));
    }

    #[test]
    fn a_file_that_can_not_be_read_is_no_reading() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = KeptFile::new(folder.path().to_owned());
        assert_eq!(file.read(&mut Buffer::new()), None);
    }

    #[test]
    fn the_buffer_grows_up_to_its_limit_and_ends_at_a_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stat");
        let (mut file, mut buffer) = (KeptFile::new(path.clone()), Buffer::new());
        for lines in [FIRST / 6 + 1, FIRST, LIMIT] {
            let text = "12345\n".repeat(lines);
            fs::write(&path, &text).unwrap();
            let read = file.read(&mut buffer).unwrap();
            assert!(text.as_bytes().starts_with(read));
            assert!(read.len() == text.len() || read.len() > LIMIT - 6);
            assert!(read.ends_with(b"12345\n"));
        }
    }
}
