//! Inference requests.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::json::{self, Few, Parameters};
use super::limits::RANK;
use super::messages::{InferInputTensor, InferRequestedOutputTensor, ModelInferRequest, Parameter};
use super::{Limits, Malformed, contents, dtype, elements, wire};
use crate::base::{DType, Shape, Tensor, tensor::size_bytes};

/// What a request asks for, however it came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InferRequest {
    /// The caller's name for it; empty when there is none.
    pub id: String,
    /// Tensors by input. Those that came in binary share the body's bytes and may lie misaligned.
    pub inputs: Vec<(String, Tensor)>,
    /// The outputs wanted; all of them when empty.
    pub outputs: Vec<RequestedOutput>,
    /// Whether outputs come back in binary over HTTP unless [`RequestedOutput::binary`] says something else.
    pub binary_output: bool,
    /// How long the caller wants to wait.
    pub timeout: Option<Duration>,
    /// The parameter `priority`: 0 is the default, 1 the highest.
    pub priority: u64,
}

/// An output that is wanted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestedOutput {
    /// Its name.
    pub name: String,
    /// The parameter `binary_data`.
    pub binary: Option<bool>,
}

/// What is left of a request's limits.
struct Left<'l> {
    limits: &'l Limits,
    elements: usize,
    json_numbers: usize,
}

impl Left<'_> {
    fn new(limits: &Limits) -> Left<'_> {
        Left { limits, elements: limits.elements, json_numbers: limits.json_numbers }
    }

    /// Takes a tensor's elements off; errors where too few are left, or where their bytes cannot be counted.
    fn take(&mut self, at: &str, dtype: DType, shape: &Shape) -> Result<(), Malformed> {
        let cure = format!("send at most {} elements in a request", self.limits.elements);
        // Without its zeros too: strides of an empty tensor are products as well.
        let filled: Shape = shape.iter().map(|&d| d.max(1)).collect();
        size_bytes(dtype, &filled).map_err(|e| Malformed::too_large(format!("{at}.shape"), e, &cure))?;
        let over = || Malformed::too_large(format!("{at}.shape"), format!("{shape} is more elements than are left"), &cure);
        self.elements = self.elements.checked_sub(shape.numel()).ok_or_else(over)?;
        Ok(())
    }

    /// Takes numbers in JSON off.
    fn take_json(&mut self, at: &str, shape: &Shape) -> Result<(), Malformed> {
        let Limits { json_depth, json_numbers, .. } = *self.limits;
        let over = |why| Malformed::too_large(format!("{at}.data"), why, "send it as binary data");
        if shape.rank() > json_depth {
            return Err(over(format!("{} axes, where JSON may have {json_depth}", shape.rank())));
        }
        let left = self.json_numbers.checked_sub(shape.numel());
        self.json_numbers = left.ok_or_else(|| over(format!("more than {json_numbers} numbers in JSON")))?;
        Ok(())
    }
}

impl InferRequest {
    /// Reads an HTTP body: JSON, and behind its `header_bytes` (the header `Inference-Header-Content-Length`) the binary tensors in the
    /// order of the inputs, which are not copied. Errors name the field, what is wrong and what to send.
    pub fn from_http(body: Bytes, header_bytes: Option<usize>, limits: &Limits) -> Result<InferRequest, Malformed> {
        within(body.len(), limits)?;
        let end = header_bytes.unwrap_or(body.len());
        let header = body.get(..end).ok_or_else(|| {
            let why = format!("{end} bytes of JSON, but the body has {}", body.len());
            Malformed::invalid("Inference-Header-Content-Length", why, "send the length of the JSON before the binary data")
        })?;
        let request = json::read(header)?;
        refuse_unsupported("parameters", &request.parameters)?;
        let (mut left, mut binary) = (Left::new(limits), Binary { body: &body, next: end });
        let mut inputs = Vec::with_capacity(request.inputs.0.len());
        for (i, input) in request.inputs.0.into_iter().enumerate() {
            let tensor = tensor_of_json(&format!("inputs[{i}]"), &input, &mut left, &mut binary)?;
            inputs.push((input.name.into_owned(), tensor));
        }
        binary.end()?;
        unique(&inputs)?;
        Ok(InferRequest {
            id: request.id.into_owned(),
            inputs,
            outputs: outputs(request.outputs)?,
            binary_output: request.parameters.binary_data_output.unwrap_or(false),
            timeout: request.parameters.timeout.map(Duration::from_micros),
            priority: request.parameters.priority.unwrap_or(0),
        })
    }

    /// Reads a gRPC message's bytes: see [`InferRequest::from_message`].
    pub fn from_grpc(body: Bytes, limits: &Limits) -> Result<InferRequest, Malformed> {
        Self::from_message(wire::decode(body, limits)?, limits)
    }

    /// Takes the tensors out of a gRPC message, from `raw_input_contents` (not copied) or typed contents, which may not be mixed.
    pub fn from_message(message: ModelInferRequest, limits: &Limits) -> Result<InferRequest, Malformed> {
        let (raw, count) = (message.raw_input_contents, message.inputs.len());
        if !raw.is_empty() && raw.len() != count {
            let why = format!("{} of them for {count} inputs", raw.len());
            return Err(Malformed::invalid("raw_input_contents", why, "send one for each input, or none"));
        }
        let (mut left, mut raw) = (Left::new(limits), raw.into_iter());
        let mut inputs = Vec::with_capacity(count);
        for (i, input) in message.inputs.into_iter().enumerate() {
            let tensor = tensor_of_message(&format!("inputs[{i}]"), &input, raw.next(), &mut left)?;
            inputs.push((input.name, tensor));
        }
        unique(&inputs)?;
        if message.parameters.contains_key("sequence_id") {
            return Err(unsupported("parameters.sequence_id", "models here keep no state between requests"));
        }
        let wanted = |(i, output): (usize, InferRequestedOutputTensor)| {
            if output.parameters.contains_key("classification") {
                return Err(unsupported(&format!("outputs[{i}].parameters.classification"), "there are no labels here"));
            }
            Ok(RequestedOutput { name: output.name, binary: None })
        };
        let number = |name: &str| match message.parameters.get(name)?.parameter_choice {
            Some(Parameter::Int64Param(v)) => u64::try_from(v).ok(),
            Some(Parameter::Uint64Param(v)) => Some(v),
            _ => None,
        };
        Ok(InferRequest {
            id: message.id,
            inputs,
            outputs: message.outputs.into_iter().enumerate().map(wanted).collect::<Result<_, _>>()?,
            binary_output: true,
            timeout: number("timeout").map(Duration::from_micros),
            priority: number("priority").unwrap_or(0),
        })
    }
}

pub(super) fn within(bytes: usize, limits: &Limits) -> Result<(), Malformed> {
    let why = || format!("{bytes} bytes, where {} are allowed", limits.body_bytes);
    let over = || Malformed::too_large("body", why(), "send less at once, or have the server's limit raised");
    if bytes > limits.body_bytes { Err(over()) } else { Ok(()) }
}

fn unsupported(at: &str, why: &str) -> Malformed {
    Malformed::unsupported(at, why, "leave it out")
}

fn refuse_unsupported(at: &str, parameters: &Parameters) -> Result<(), Malformed> {
    let Parameters { sequence_id, classification, shared_memory_region, .. } = parameters;
    let given = [
        (sequence_id, "sequence_id", "models here keep no state between requests"),
        (classification, "classification", "there are no labels here"),
        (shared_memory_region, "shared_memory_region", "no shared memory is registered here"),
    ];
    let refused = given.into_iter().find(|(given, ..)| given.is_some());
    refused.map_or(Ok(()), |(_, name, why)| Err(unsupported(&format!("{at}.{name}"), why)))
}

fn unique(inputs: &[(String, Tensor)]) -> Result<(), Malformed> {
    let mut seen = BTreeSet::new();
    let twice = inputs.iter().find(|(name, _)| !seen.insert(name.as_str()));
    twice
        .map_or(Ok(()), |(name, _)| Err(Malformed::invalid("inputs", format!("{name:?} is there twice"), "send each input once")))
}

fn outputs(of: Few<json::Output>) -> Result<Vec<RequestedOutput>, Malformed> {
    let one = |(i, output): (usize, json::Output)| {
        refuse_unsupported(&format!("outputs[{i}].parameters"), &output.parameters)?;
        Ok(RequestedOutput { name: output.name.into_owned(), binary: output.parameters.binary_data })
    };
    of.0.into_iter().enumerate().map(one).collect()
}

/// The binary tensors behind the JSON.
struct Binary<'b> {
    body: &'b Bytes,
    next: usize,
}

impl Binary<'_> {
    fn take(&mut self, at: &str, size_bytes: usize) -> Result<Bytes, Malformed> {
        let left = self.body.len() - self.next;
        if size_bytes > left {
            let why = format!("{size_bytes} bytes, where {left} are left of the body");
            return Err(Malformed::invalid(
                format!("{at}.parameters.binary_data_size"),
                why,
                "send the tensors' bytes behind the JSON, in the order of the inputs, and its length as Inference-Header-Content-Length",
            ));
        }
        self.next += size_bytes;
        Ok(self.body.slice(self.next - size_bytes..self.next))
    }

    fn end(&self) -> Result<(), Malformed> {
        match self.body.len() - self.next {
            0 => Ok(()),
            left => Err(Malformed::invalid(
                "body",
                format!("{left} bytes belong to no tensor"),
                "send as many as binary_data_size says",
            )),
        }
    }
}

fn tensor_of_json(at: &str, input: &json::Input, left: &mut Left, binary: &mut Binary) -> Result<Tensor, Malformed> {
    refuse_unsupported(&format!("{at}.parameters"), &input.parameters)?;
    let dtype = dtype(&format!("{at}.datatype"), &input.datatype)?;
    let shape = input.shape.0.clone();
    left.take(at, dtype, &shape)?;
    match (input.data, input.parameters.binary_data_size) {
        (Some(data), None) => {
            left.take_json(at, &shape)?;
            elements::read(&format!("{at}.data"), dtype, shape, data.get())
        }
        (None, Some(size)) => raw(&format!("{at}.parameters.binary_data_size"), dtype, shape, binary.take(at, size)?),
        (Some(_), Some(_)) => Err(Malformed::invalid(at, "data both in JSON and in binary", "send one of the two")),
        (None, None) => Err(Malformed::invalid(at, "no data", "send data, or binary_data_size and the bytes behind the JSON")),
    }
}

fn tensor_of_message(at: &str, input: &InferInputTensor, given: Option<Bytes>, left: &mut Left) -> Result<Tensor, Malformed> {
    if input.parameters.contains_key("shared_memory_region") {
        return Err(unsupported(&format!("{at}.parameters.shared_memory_region"), "no shared memory is registered here"));
    }
    let dtype = dtype(&format!("{at}.datatype"), &input.datatype)?;
    let axes = format!("{at}.shape");
    if input.shape.len() > RANK {
        return Err(Malformed::too_large(axes, format!("{} axes", input.shape.len()), format!("send at most {RANK}")));
    }
    let dim =
        |&d: &i64| usize::try_from(d).map_err(|_| Malformed::invalid(&axes, format!("{d} is no size"), "send sizes from 0 on"));
    let shape: Shape = input.shape.iter().map(dim).collect::<Result<_, _>>()?;
    left.take(at, dtype, &shape)?;
    let typed = input.contents.as_ref().filter(|c| given.is_none() || c.filled().iter().any(|(_, len)| *len > 0));
    match (given, typed) {
        (Some(bytes), None) => raw(&format!("raw_input_contents of {at}"), dtype, shape, bytes),
        (None, Some(typed)) => contents::read(&format!("{at}.contents"), dtype, shape, typed),
        (Some(_), Some(_)) => Err(Malformed::invalid(at, "data both raw and typed", "send one of the two")),
        (None, None) => Err(Malformed::invalid(at, "no data", "send raw_input_contents, or contents of the datatype")),
    }
}

/// A tensor of little-endian bytes, which it shares. Errors when they are not as many as its shape asks for.
fn raw(at: &str, dtype: DType, shape: Shape, bytes: Bytes) -> Result<Tensor, Malformed> {
    let cure = "send the elements' bytes, little-endian, row-major, without padding";
    if dtype == DType::Bool && bytes.iter().any(|&b| b > 1) {
        return Err(Malformed::invalid(at, "a BOOL that is neither 0 nor 1", cure));
    }
    Tensor::from_shared(dtype, shape, bytes).map_err(|e| Malformed::invalid(at, e, cure))
}
