//! Files that appear as a whole.

use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A file written aside, in the folder of the one that it replaces. Until [`NewFile::put`] that one stays as it was.
pub struct NewFile {
    file: File,
    aside: PathBuf,
    path: PathBuf,
}

impl NewFile {
    /// Begins a file that will lie at `path`.
    pub fn create(path: &Path) -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = path.file_name().ok_or_else(|| Error::new(ErrorKind::InvalidInput, "not the name of a file"))?;
        let count = MADE.fetch_add(1, Ordering::Relaxed);
        let aside = path.with_file_name(format!(".{}.{}-{count}.new", name.to_string_lossy(), std::process::id()));
        Ok(NewFile { file: File::create(&aside)?, aside, path: path.to_path_buf() })
    }

    /// Puts it in its place, in one step, when all of it is on the disk.
    pub fn put(self) -> Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.aside, &self.path)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Nothing lies aside any more when it was put in its place.
        let _ = std::fs::remove_file(&self.aside);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_file_stays_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let write = |text: &str| -> Result<NewFile> {
            let mut new = NewFile::create(&path)?;
            new.write_all(text.as_bytes()).map(|()| new)
        };
        write("old").unwrap().put().unwrap();
        drop(write("interrupted").unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        write("new").unwrap().put().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left aside");
        assert!(NewFile::create(Path::new("/")).is_err());
    }
}
