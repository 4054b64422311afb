//! A loaded model.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::graph::{Graph, Port};
use crate::load::onnx;

/// A model as its file says it, ready for any number of sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Model {
    pub(crate) graph: Arc<Graph>,
    pub(crate) metadata: Arc<Vec<(String, String)>>,
    name: Arc<str>,
}

impl Model {
    /// Opens an ONNX file. Weights stay in the mapped file, which must not be changed while the model or a session of it lives.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Ok(Self::new(onnx::open(path)?, model_name(path)))
    }

    /// Reads an ONNX model from memory; one with external data must be opened from its path.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self> {
        Ok(Self::new(onnx::from_bytes(bytes.into())?, String::new()))
    }

    /// A model made in memory.
    pub fn from_graph(graph: Graph) -> Self {
        Self::new(onnx::Loaded { graph, metadata: Vec::new() }, String::new())
    }

    /// The model with another graph: the same name and metadata.
    pub fn with_graph(&self, graph: Graph) -> Self {
        Model { graph: Arc::new(graph), ..self.clone() }
    }

    fn new(loaded: onnx::Loaded, name: String) -> Self {
        let name = [&*name, &loaded.graph.name, "model"].into_iter().find(|n| !n.is_empty()).unwrap_or_default().into();
        Model { graph: Arc::new(loaded.graph), metadata: Arc::new(loaded.metadata), name }
    }

    /// See [`model_name`]; of a model from memory, the graph's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the caller must give.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, &Port)> {
        self.graph.inputs.iter().map(|p| (self.graph.values[p.value.0].name.as_str(), p))
    }

    /// What the caller gets.
    pub fn outputs(&self) -> impl Iterator<Item = (&str, &Port)> {
        self.graph.outputs.iter().map(|p| (self.graph.values[p.value.0].name.as_str(), p))
    }

    /// The graph as loaded.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// `metadata_props` of the file.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }
}

/// What to call the model in a file: the file's name without its extension, or its folder's where that is `model`.
pub fn model_name(path: &Path) -> String {
    let stem = |p: &Path| p.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    Some(stem(path)).filter(|s| s != "model").or_else(|| path.parent().map(stem)).unwrap_or_default()
}
