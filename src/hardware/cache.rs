//! Files that are kept between processes, one of a kind for each device.

use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};

use crate::base::NewFile;

/// Where a device's file `NAME-HASH.EXTENSION` lies: in the folder given, else in `HALFBYTE_CACHE`, else in the user's cache folder; `None`
/// when there is no such place, or the variable is empty.
pub fn path(folder: Option<&Path>, identity: &str, name: &str, extension: &str) -> Option<PathBuf> {
    let folder = match (folder, std::env::var_os("HALFBYTE_CACHE")) {
        (Some(folder), _) => folder.to_path_buf(),
        (None, Some(folder)) if folder.is_empty() => return None,
        (None, Some(folder)) => PathBuf::from(folder),
        (None, None) => {
            let user = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
            let home =
                || std::env::var_os("HOME").or_else(|| std::env::var_os("LOCALAPPDATA")).map(|h| Path::new(&h).join(".cache"));
            user.or_else(home)?.join("halfbyte")
        }
    };
    Some(folder.join(format!("{name}-{:016x}.{extension}", hash(identity.as_bytes()))))
}

/// Writes a file as a whole: a reader sees the old one or the new one.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().ok_or_else(|| Error::new(ErrorKind::InvalidInput, "a file in no folder"))?;
    std::fs::create_dir_all(folder)?;
    let mut file = NewFile::create(path)?;
    file.write_all(bytes)?;
    file.put()
}

/// FNV-1a of 64 bits. Source: Fowler, Noll, Vo; IETF draft-eastlake-fnv.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_fnv_1a() {
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
