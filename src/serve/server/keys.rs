//! Keys of callers.

use std::path::Path;

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::error::{Error, Result};

/// Who may ask; without a key, everybody. Only digests are kept.
#[derive(Clone, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

impl Keys {
    /// These keys.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Keys(keys.into_iter().map(|key| digest(key.as_bytes())).collect())
    }

    /// The keys of a file, one a line; empty lines and those that start with `#` are none. Errors when it holds no key.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong = |why: String| Error::File { path: path.display().to_string(), why };
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        let keys = Self::new(text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')));
        if keys.0.is_empty() { Err(wrong("no key in it: write one a line".into())) } else { Ok(keys) }
    }

    /// Whether a request's `authorization: Bearer KEY` is one of the keys. Takes as long for a wrong key as for a right one.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
        let key = given.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer ")).map(|(_, key)| key);
        let (given, has_key) = (digest(key.unwrap_or_default()), Choice::from(u8::from(key.is_some())));
        let found = self.0.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&given));
        self.0.is_empty() || bool::from(found & has_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_keys_are_admitted() {
        let keys = Keys::new(["first", "second"]);
        let admitted = |value: &str| keys.admit(&HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]));
        assert!(admitted("Bearer first") && admitted("bearer second"));
        assert!(!admitted("Bearer third") && !admitted("Bearer ") && !admitted("Basic first") && !admitted("first"));
        assert!(!keys.admit(&HeaderMap::new()) && Keys::default().admit(&HeaderMap::new()));
    }
}
