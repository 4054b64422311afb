//! Tensor data in files beside the model.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::reader::map;
use crate::base::Mapped;
use crate::error::{Error, Result};
use crate::graph::proto::TensorProto;

/// The files beside a model, each mapped once.
pub(super) struct Files {
    folder: Option<PathBuf>,
    mapped: RefCell<BTreeMap<PathBuf, Mapped>>,
}

impl Files {
    /// Those in the model's folder; without one, none may be read.
    pub fn beside(folder: Option<&Path>) -> Self {
        Files { folder: folder.map(Path::to_path_buf), mapped: RefCell::default() }
    }

    /// Those that were read.
    pub fn mapped(&self) -> Vec<Mapped> {
        self.mapped.borrow().values().cloned().collect()
    }

    fn map(&self, path: PathBuf) -> Result<Bytes> {
        if let Some(known) = self.mapped.borrow().get(&path) {
            return Ok(known.bytes());
        }
        let new = map(&path)?;
        let bytes = new.bytes();
        self.mapped.borrow_mut().insert(path, new);
        Ok(bytes)
    }

    /// The bytes that an external tensor names. The file must lie in the model's folder: absolute paths, `..` and links that
    /// lead outside are refused.
    pub fn bytes(&self, tensor: &TensorProto) -> Result<Bytes> {
        let at = format!("tensor {}", tensor.name.as_deref().unwrap_or_default());
        let bad = |why: String| Error::BadModel { at: at.clone(), why };
        let entry =
            |key: &str| tensor.external_data.iter().find(|e| e.key.as_deref() == Some(key)).and_then(|e| e.value.as_deref());
        let location = entry("location").ok_or_else(|| bad("external data without a location".into()))?;
        let folder =
            self.folder.as_deref().ok_or_else(|| bad("external data needs the model to be opened from a path".into()))?;
        let inside = Path::new(location).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if !inside {
            return Err(bad(format!("external data at {location:?} is outside the model's folder")));
        }
        let missing = |e: std::io::Error| bad(format!("external data at {location:?}: {e}"));
        let path = folder.join(location).canonicalize().map_err(missing)?;
        if !path.starts_with(folder.canonicalize().map_err(missing)?) {
            return Err(bad(format!("external data at {location:?} links outside the model's folder")));
        }
        let number = |key: &str| match entry(key) {
            Some(text) => text.parse::<usize>().map(Some).map_err(|_| bad(format!("{key} {text:?} is no number"))),
            None => Ok(None),
        };
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        let whole = self.map(path)?;
        let end = length.map_or(Some(whole.len()), |l| offset.checked_add(l));
        match end {
            Some(end) if offset <= end && end <= whole.len() => Ok(whole.slice(offset..end)),
            _ => {
                Err(bad(format!("external data at {location:?} ends after {} bytes, before what the tensor names", whole.len())))
            }
        }
    }
}
