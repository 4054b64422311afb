//! Keys of callers, and who they are.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::error::{Error, Result};

/// On whose behalf a request comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tenant(pub Arc<str>);

impl Tenant {
    /// What the engine's scheduler calls it.
    pub fn number(&self) -> u32 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish() as u32
    }
}

/// Who may ask; without a key, everybody. Only digests are kept.
#[derive(Clone, Default)]
pub struct Keys(Vec<([u8; 32], Tenant)>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

impl Keys {
    /// Keys with the name of the tenant that each stands for; several may have one name.
    pub fn new<'a>(keys: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Keys(keys.into_iter().map(|(name, key)| (digest(key.as_bytes()), Tenant(name.into()))).collect())
    }

    /// The keys of a file, one a line: `NAME KEY`, or `KEY` alone for the tenant without a name. Empty lines and those that start with
    /// `#` are none. Errors when it holds no key, or a line of more than two words.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong = |why: String| Error::File { path: path.display().to_string(), why };
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        let lines =
            text.lines().enumerate().map(|(i, line)| (i + 1, line.trim())).filter(|(_, l)| !l.is_empty() && !l.starts_with('#'));
        let key = |(line, text): (usize, &'_ str)| match text.split_whitespace().collect::<Vec<_>>()[..] {
            [key] => Ok((String::new(), key.to_string())),
            [name, key] => Ok((name.to_string(), key.to_string())),
            _ => Err(wrong(format!("line {line} has more than a name and a key, neither of which has white space in it"))),
        };
        let keys = lines.map(key).collect::<Result<Vec<_>>>()?;
        if keys.is_empty() {
            return Err(wrong("no key in it: write one a line, with a name before it".into()));
        }
        Ok(Self::new(keys.iter().map(|(name, key)| (name.as_str(), key.as_str()))))
    }

    /// Who sends a request with `authorization: Bearer KEY`; `None` unless it is one of the keys. Takes as long for a wrong key as for a
    /// right one.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Option<Tenant> {
        if self.0.is_empty() {
            return Some(Tenant("".into()));
        }
        let given = headers.get(header::AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
        let key = given.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer ")).map(|(_, key)| key);
        let (given, has_key) = (digest(key.unwrap_or_default()), Choice::from(u8::from(key.is_some())));
        let mut found = 0;
        for ((known, _), place) in self.0.iter().zip(1u32..) {
            found.conditional_assign(&place, known.ct_eq(&given) & has_key);
        }
        self.0.get((found as usize).checked_sub(1)?).map(|(_, tenant)| tenant.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_keys_are_admitted_each_as_its_tenant() {
        let keys = Keys::new([("a", "first"), ("b", "second"), ("a", "next")]);
        let admitted = |value: &str| {
            let tenant = keys.admit(&HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]));
            tenant.map(|t| t.0.to_string())
        };
        let named = |name: &str| Some(name.to_string());
        assert_eq!(["Bearer first", "bearer second", "Bearer next"].map(admitted), ["a", "b", "a"].map(named));
        assert_eq!(["Bearer third", "Bearer ", "Basic first", "first"].map(admitted), [None, None, None, None]);
        assert!(keys.admit(&HeaderMap::new()).is_none() && Keys::default().admit(&HeaderMap::new()).is_some());
    }

    #[test]
    fn files_have_a_key_a_line_with_or_without_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Keys::read(&path)
        };
        let keys = read("# callers\n\nteam-a  one\n  two  \n").unwrap();
        let names: Vec<&str> = keys.0.iter().map(|(_, tenant)| &*tenant.0).collect();
        assert_eq!(names, ["team-a", ""]);
        assert!(read("# none\n").is_err());
        assert!(read("a b\nc d e\n").unwrap_err().to_string().contains("line 2"));
    }
}
