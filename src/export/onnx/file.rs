//! A model in memory, in a file, or in a file with its weights beside it.

use std::io::{BufWriter, Write};
use std::path::Path;

use bytes::Bytes;
use prost::Message;

use super::message::{entry, model};
use crate::base::NewFile;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::graph::proto::{GraphProto, ModelProto};

/// Protobuf's limit: no reader takes a longer message.
const MAX_MESSAGE_BYTES: usize = i32::MAX as usize;
/// Smaller tensors stay in the model's file: shapes and axes are wanted before weights are.
const MIN_EXTERNAL_BYTES: usize = 1024;
/// Where tensors begin in the file beside, so that they can be mapped.
const ALIGN_BYTES: usize = 4096;

/// The graph as an ONNX file in memory. Errors when it is longer than the 2 GiB that such a file may have.
pub fn to_bytes(graph: &Graph, metadata: &[(String, String)]) -> Result<Vec<u8>> {
    let model = model(graph, metadata)?;
    let bytes = model.encoded_len();
    if bytes > MAX_MESSAGE_BYTES {
        return Err(Error::BadInput(format!(
            "{bytes} bytes are too many for one message: write a file with its weights beside it"
        )));
    }
    Ok(model.encode_to_vec())
}

/// Writes the graph as an ONNX file, in one step: an interrupted write leaves what was there. More than 2 GiB are written as
/// [`write_external`] does.
///
/// Only standard ONNX can be written: nodes made for this engine's kernels, and what the loader could not hold, are errors that name the node.
pub fn write(graph: &Graph, metadata: &[(String, String)], path: impl AsRef<Path>) -> Result<()> {
    let (model, path) = (model(graph, metadata)?, path.as_ref());
    if model.encoded_len() > MAX_MESSAGE_BYTES { write_both(model, path) } else { write_one(&model, path) }
}

/// Writes the graph as an ONNX file, its weights in the file `NAME.data` beside it. Each file appears in one step, the weights first: whoever
/// has both files and writes other weights over them should know that a crash between the two steps leaves the old model with the new weights.
pub fn write_external(graph: &Graph, metadata: &[(String, String)], path: impl AsRef<Path>) -> Result<()> {
    write_both(model(graph, metadata)?, path.as_ref())
}

fn write_one(model: &ModelProto, path: &Path) -> Result<()> {
    whole(path, |file| file.write_all(&model.encode_to_vec()))?.put().map_err(|e| Error::file(path, e))
}

fn write_both(mut model: ModelProto, path: &Path) -> Result<()> {
    let name = path.file_name().map(|n| format!("{}.data", n.to_string_lossy())).unwrap_or_default();
    let beside = path.with_file_name(&name);
    let mut weights = Weights { name, parts: Vec::new(), bytes: 0 };
    model.graph.iter_mut().for_each(|g| weights.take(g));
    let data = whole(&beside, |file| weights.write(file))?;
    let main = whole(path, |file| file.write_all(&model.encode_to_vec()))?;
    data.put().map_err(|e| Error::file(&beside, e))?;
    main.put().map_err(|e| Error::file(path, e))
}

/// A file with all that `fill` writes, not yet in its place.
fn whole(path: &Path, fill: impl FnOnce(&mut BufWriter<&mut NewFile>) -> std::io::Result<()>) -> Result<NewFile> {
    let mut file = NewFile::create(path).map_err(|e| Error::file(path, e))?;
    let mut buffered = BufWriter::new(&mut file);
    let done = fill(&mut buffered).and_then(|()| buffered.flush());
    drop(buffered);
    done.map(|()| file).map_err(|e| Error::file(path, e))
}

/// The file beside: tensors in order, each on a boundary of [`ALIGN_BYTES`].
struct Weights {
    name: String,
    parts: Vec<Bytes>,
    bytes: usize,
}

impl Weights {
    /// Takes the elements of large initialisers, those of subgraphs too.
    fn take(&mut self, graph: &mut GraphProto) {
        for tensor in &mut graph.initializer {
            let Some(elements) = tensor.raw_data.take_if(|raw| raw.len() >= MIN_EXTERNAL_BYTES) else { continue };
            let [offset, length] = [self.bytes, elements.len()].map(|n| n.to_string());
            tensor.external_data = vec![entry("location", &self.name), entry("offset", &offset), entry("length", &length)];
            // TensorProto.DataLocation.EXTERNAL
            tensor.data_location = Some(1);
            self.bytes = (self.bytes + elements.len()).next_multiple_of(ALIGN_BYTES);
            self.parts.push(elements);
        }
        for inner in graph.node.iter_mut().flat_map(|n| &mut n.attribute).filter_map(|a| a.g.as_mut()) {
            self.take(inner);
        }
    }

    fn write(&self, to: &mut impl Write) -> std::io::Result<()> {
        let zeros = [0; ALIGN_BYTES];
        for part in &self.parts {
            to.write_all(part)?;
            to.write_all(&zeros[..part.len().next_multiple_of(ALIGN_BYTES) - part.len()])?;
        }
        Ok(())
    }
}
