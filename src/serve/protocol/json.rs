//! The JSON of an inference request, as it stands in the text: nothing of a tensor's data is parsed yet.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Malformed;
use super::limits::{ENTRIES, RANK};
use crate::base::Shape;

#[derive(serde::Deserialize)]
pub(super) struct Request<'a> {
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    #[serde(default)]
    pub parameters: Parameters,
    #[serde(borrow)]
    pub inputs: Few<Input<'a>>,
    #[serde(borrow, default)]
    pub outputs: Few<Output<'a>>,
}

#[derive(serde::Deserialize)]
pub(super) struct Input<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    pub shape: Axes,
    #[serde(borrow)]
    pub datatype: Cow<'a, str>,
    #[serde(default)]
    pub parameters: Parameters,
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
}

#[derive(Default, serde::Deserialize)]
pub(super) struct Output<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(default)]
    pub parameters: Parameters,
}

/// The parameters that mean something here. Others are for others: they are skipped.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    pub binary_data_size: Option<usize>,
    pub binary_data: Option<bool>,
    pub binary_data_output: Option<bool>,
    /// Microseconds.
    pub timeout: Option<u64>,
    pub priority: Option<u64>,
    pub sequence_id: Option<IgnoredAny>,
    pub classification: Option<IgnoredAny>,
    pub shared_memory_region: Option<IgnoredAny>,
}

/// At most [`ENTRIES`] of something.
#[derive(Default)]
pub(super) struct Few<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FewVisitor(PhantomData))
    }
}

struct FewVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for FewVisitor<T> {
    type Value = Few<T>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "an array of at most {ENTRIES} objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Few<T>, A::Error> {
        let mut few = Vec::new();
        while let Some(item) = items.next_element()? {
            if few.len() == ENTRIES {
                return Err(A::Error::invalid_length(ENTRIES + 1, &self));
            }
            few.push(item);
        }
        Ok(Few(few))
    }
}

/// A shape of at most [`RANK`] axes.
pub(super) struct Axes(pub Shape);

impl<'de> Deserialize<'de> for Axes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(AxesVisitor)
    }
}

struct AxesVisitor;

impl<'de> Visitor<'de> for AxesVisitor {
    type Value = Axes;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "an array of at most {RANK} sizes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Axes, A::Error> {
        let mut shape = Shape::scalar();
        while let Some(dim) = items.next_element()? {
            if shape.rank() == RANK {
                return Err(A::Error::invalid_length(RANK + 1, &self));
            }
            shape.push(dim);
        }
        Ok(Axes(shape))
    }
}

/// Reads the text. Errors name the member by its path, and the place.
pub(super) fn read(text: &[u8]) -> Result<Request<'_>, Malformed> {
    let text = str::from_utf8(text).map_err(|e| Malformed::invalid("body", e, "JSON is UTF-8"))?;
    let cure = "send an inference request of the Open Inference Protocol, version 2";
    let mut json = serde_json::Deserializer::from_str(text);
    let request = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let at = if e.inner().is_data() { e.path().to_string() } else { "body".into() };
        Malformed::invalid(if at == "." { "body" } else { &at }, e.inner(), cure)
    })?;
    json.end().map_err(|e| Malformed::invalid("body", e, "binary data needs the header Inference-Header-Content-Length"))?;
    Ok(request)
}
