//! Replies to inference requests.

use bytes::Bytes;
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::elements::{Data, is_sayable};
use super::messages::{ModelInferResponse, TensorMetadata};
use super::{InferRequest, Malformed, datatype};
use crate::base::Tensor;

/// What a model gave, to be sent.
#[derive(Debug, Clone)]
pub struct InferReply {
    /// The model's name.
    pub model: String,
    /// The version that ran.
    pub version: String,
    /// The request's name.
    pub id: String,
    /// The outputs, in the order to send them.
    pub outputs: Vec<(String, Tensor)>,
}

/// An HTTP body.
#[derive(Debug, Clone)]
pub struct HttpReply {
    /// Bytes of JSON before binary data: the header `Inference-Header-Content-Length`. `None` when all is JSON.
    pub header_bytes: Option<usize>,
    /// The body in parts: the JSON, then each binary tensor, which shares the output's bytes.
    pub parts: Vec<Bytes>,
}

impl InferReply {
    /// The outputs that a request wants, in its order; all when it names none. Errors on names that the model has not.
    pub fn select(outputs: Vec<(String, Tensor)>, request: &InferRequest) -> Result<Vec<(String, Tensor)>, Malformed> {
        if request.outputs.is_empty() {
            return Ok(outputs);
        }
        let one = |(i, wanted): (usize, &super::RequestedOutput)| {
            let found = outputs.iter().find(|(name, _)| *name == wanted.name).cloned();
            found.ok_or_else(|| {
                let known: Vec<&str> = outputs.iter().map(|(name, _)| name.as_str()).collect();
                let why = format!("the model has no output {:?}", wanted.name);
                Malformed::invalid(format!("outputs[{i}].name"), why, format!("it gives {}", known.join(", ")))
            })
        };
        request.outputs.iter().enumerate().map(one).collect()
    }

    /// As HTTP, each output in binary or in JSON as the request says. Errors on NaN and infinities in JSON, which has no word for them.
    pub fn to_http(&self, request: &InferRequest) -> Result<HttpReply, Malformed> {
        let is_binary = |name: &str| {
            let wanted = request.outputs.iter().find(|o| o.name == name).and_then(|o| o.binary);
            wanted.unwrap_or(request.binary_output)
        };
        let outputs: Vec<Output> =
            self.outputs.iter().map(|(name, tensor)| Output { name, tensor, binary: is_binary(name) }).collect();
        if let Some(output) = outputs.iter().find(|o| !o.binary && !is_sayable(o.tensor)) {
            let why = "it holds NaN or infinity, which JSON cannot say";
            return Err(Malformed::unsupported(format!("output {:?}", output.name), why, "ask for it with binary_data: true"));
        }
        let json = serde_json::to_vec(&Body { reply: self, outputs: &outputs });
        let json = json.map_err(|e| Malformed::unsupported("reply", e, "ask for binary data"))?;
        let header_bytes = outputs.iter().any(|o| o.binary).then_some(json.len());
        let binary = outputs.iter().filter(|o| o.binary).map(|o| o.tensor.to_shared());
        Ok(HttpReply { header_bytes, parts: [Bytes::from(json)].into_iter().chain(binary).collect() })
    }

    /// As a gRPC message, with raw contents that share the outputs' bytes.
    pub fn into_message(self) -> ModelInferResponse {
        let metadata = |(name, tensor): &(String, Tensor)| TensorMetadata {
            name: name.clone(),
            datatype: datatype(tensor.dtype()).into(),
            shape: tensor.shape().iter().map(|&d| d as i64).collect(),
        };
        ModelInferResponse {
            outputs: self.outputs.iter().map(metadata).collect(),
            raw_output_contents: self.outputs.iter().map(|(_, tensor)| tensor.to_shared()).collect(),
            model_name: self.model,
            model_version: self.version,
            id: self.id,
        }
    }
}

struct Body<'a> {
    reply: &'a InferReply,
    outputs: &'a [Output<'a>],
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut body = to.serialize_struct("", 4)?;
        body.serialize_field("model_name", &self.reply.model)?;
        body.serialize_field("model_version", &self.reply.version)?;
        if !self.reply.id.is_empty() {
            body.serialize_field("id", &self.reply.id)?;
        }
        body.serialize_field("outputs", self.outputs)?;
        body.end()
    }
}

struct Output<'a> {
    name: &'a str,
    tensor: &'a Tensor,
    binary: bool,
}

#[derive(serde::Serialize)]
struct BinarySize {
    binary_data_size: usize,
}

impl Serialize for Output<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut output = to.serialize_struct("", 4)?;
        output.serialize_field("name", self.name)?;
        output.serialize_field("datatype", datatype(self.tensor.dtype()))?;
        output.serialize_field("shape", &self.tensor.shape()[..])?;
        match self.binary {
            true => output.serialize_field("parameters", &BinarySize { binary_data_size: self.tensor.bytes().len() })?,
            false => output.serialize_field("data", &Data(self.tensor))?,
        }
        output.end()
    }
}
