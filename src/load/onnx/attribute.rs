//! AttributeProto to [`Attr`].

use bytes::Bytes;

use super::build::Builder;
use super::tensor::tensor;
use crate::error::{Error, Result};
use crate::graph::Attr;
use crate::graph::proto::AttributeProto;

/// An attribute's kind: declared, or (in files of IR version 1) the field that is set.
fn kind(a: &AttributeProto) -> i32 {
    match a.r#type {
        Some(t) if t != 0 => t,
        _ if a.f.is_some() => 1,
        _ if a.i.is_some() => 2,
        _ if a.s.is_some() => 3,
        _ if a.t.is_some() => 4,
        _ if a.g.is_some() => 5,
        _ if !a.floats.is_empty() => 6,
        _ if !a.ints.is_empty() => 7,
        _ => 8,
    }
}

impl Builder<'_> {
    /// The attribute. Kinds that no operator in the table reads (sparse tensors, type protos) and bytes that are no text are unsupported.
    pub(super) fn attribute(&mut self, a: &AttributeProto) -> Result<Attr> {
        let at = || format!("attribute {}", a.name.as_deref().unwrap_or(""));
        let unsupported = |why: String| Error::Unsupported { at: at(), why };
        let text = |s: &Bytes| String::from_utf8(s.to_vec()).map_err(|_| unsupported("bytes that are no text".into()));
        let missing = || Error::BadModel { at: at(), why: "its value is missing".into() };
        Ok(match kind(a) {
            1 => Attr::Float(a.f.unwrap_or(0.0)),
            2 => Attr::Int(a.i.unwrap_or(0)),
            3 => Attr::Str(a.s.as_ref().map_or(Ok(String::new()), text)?),
            4 => Attr::Tensor(tensor(a.t.as_ref().ok_or_else(missing)?, &self.context.files)?),
            5 => Attr::Graph(Box::new(self.subgraph(a.g.as_ref().ok_or_else(missing)?)?)),
            6 => Attr::Floats(a.floats.clone()),
            7 => Attr::Ints(a.ints.clone()),
            8 => Attr::Strs(a.strings.iter().map(text).collect::<Result<_>>()?),
            other => return Err(unsupported(format!("kind {other} of onnx.proto"))),
        })
    }
}
