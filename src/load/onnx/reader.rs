//! Opens a file and checks that it is a model.

use std::path::Path;

use bytes::Bytes;
use prost::Message;

use super::build::{Builder, Context};
use super::external::Files;
use crate::base::Mapped;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::graph::proto::ModelProto;

/// A graph with the file's metadata.
#[derive(Debug)]
pub struct Loaded {
    /// The graph.
    pub graph: Graph,
    /// `metadata_props`.
    pub metadata: Vec<(String, String)>,
}

/// Maps a file; weights stay in it.
pub(in crate::load) fn map(path: &Path) -> Result<Mapped> {
    Mapped::open(path).map_err(|e| Error::File { path: path.display().to_string(), why: e.to_string() })
}

/// Reads the model at `path`. External data is looked for beside it.
pub fn open(path: &Path) -> Result<Loaded> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = map(path)?;
    let mut loaded = load(file.bytes(), Some(folder), &path.display().to_string())?;
    loaded.graph.files.push(file);
    Ok(loaded)
}

/// Reads a model from memory. External data is refused.
pub fn from_bytes(bytes: Bytes) -> Result<Loaded> {
    load(bytes, None, "bytes")
}

fn load(bytes: Bytes, folder: Option<&Path>, at: &str) -> Result<Loaded> {
    let bad = |why: String| Error::BadModel { at: at.to_string(), why };
    if bytes.is_empty() {
        return Err(bad("the file is empty".into()));
    }
    let model = ModelProto::decode(bytes).map_err(|e| bad(format!("not an ONNX file, or a truncated one: {e}")))?;
    let graph = model.graph.as_ref().ok_or_else(|| bad("the file holds no graph".into()))?;
    let context = Context::new(&model, Files::beside(folder));
    let mut graph = Builder::new(&context).graph(graph)?;
    graph.files = context.files.mapped();
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    let metadata = model.metadata_props.iter().map(|p| (text(&p.key), text(&p.value))).collect();
    Ok(Loaded { graph, metadata })
}
