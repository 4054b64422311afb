//! A loaded model.

use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::graph::{Graph, Port};

/// A model as its file says it, ready for any number of sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Model {
    pub(crate) graph: Arc<Graph>,
    pub(crate) metadata: Arc<Vec<(String, String)>>,
}

impl Model {
    /// Opens an ONNX file. Weights stay in the mapped file.
    pub fn open(_path: impl AsRef<Path>) -> Result<Self> {
        Err(crate::Error::BadInput("the loader is not wired yet".into()))
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
