//! Files mapped into memory, and letting go of what was read in them.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Mmap, MmapOptions};

/// A file mapped to be read only. Clones share the mapping. Whoever truncates the file meanwhile breaks the process.
#[derive(Debug, Clone)]
pub struct Mapped(Arc<Mmap>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Mapped {
    /// Maps the file at `path`. Errors as the system does, and when it is not a file.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = std::fs::File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::other("not a file"));
        }
        // SAFETY: the mapping is private and read only. As with every mapped file, whoever truncates it while it is in use breaks
        // the process; the documentation of `Model::open` says so.
        Ok(Mapped(Arc::new(unsafe { MmapOptions::new().map_copy_read_only(&file) }?)))
    }

    /// All of its bytes, which keep the mapping.
    pub fn bytes(&self) -> Bytes {
        Bytes::from_owner(self.clone())
    }

    /// Whether `bytes` lie in this mapping.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        let (own, of) = (self.0.as_ptr_range(), bytes.as_ptr_range());
        !bytes.is_empty() && own.start <= of.start && of.end <= own.end
    }

    /// Gives the pages of `bytes` back to the system, if they lie in this mapping: who reads them again gets them from the file, mostly
    /// from what the system keeps of it. Only a hint, so errors are nobody's.
    pub fn let_go(&self, bytes: &[u8]) {
        if !self.holds(bytes) {
            return;
        }
        #[cfg(unix)]
        {
            let start = bytes.as_ptr().addr() - self.0.as_ptr().addr();
            // SAFETY: the mapping is of a file and nobody ever writes to it, so each of its pages reads as the file does before and after.
            let _ = unsafe { self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, bytes.len()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KiB of a mapping in memory, as Linux says.
    #[cfg(target_os = "linux")]
    fn resident_kib(bytes: &[u8]) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let start = format!("{:x}-", bytes.as_ptr().addr());
        let own = maps.lines().skip_while(|l| !l.starts_with(&start));
        let rss = own.into_iter().find_map(|l| l.strip_prefix("Rss:")).unwrap();
        rss.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_let_go_of_leaves_memory_and_reads_as_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let content: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let file = Mapped::open(&path).unwrap();
        let bytes = file.bytes();
        assert!(bytes == content && resident_kib(&bytes) == 1024);
        file.let_go(&content);
        assert_eq!(resident_kib(&bytes), 1024, "bytes elsewhere are not the file's");
        file.let_go(&bytes[512 << 10..]);
        assert_eq!(resident_kib(&bytes), 512);
        file.let_go(&bytes);
        assert_eq!(resident_kib(&bytes), 0);
        assert!(bytes == content);
    }
}
