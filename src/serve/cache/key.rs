//! Keys: a cryptographic hash of everything that an answer depends on, so that no two requests with different answers share one,
//! neither by accident nor by intent.

use std::path::Path;

use smallvec::SmallVec;

use crate::base::Tensor;
use crate::error::{Error, Result};

/// 32 bytes of BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of a file's bytes: a model's weights.
    pub fn of_file(path: &Path) -> Result<Self> {
        let mut hasher = blake3::Hasher::new();
        let read = std::fs::File::open(path).and_then(|file| hasher.update_reader(file).map(drop));
        read.map_err(|e| Error::File { path: path.display().to_string(), why: e.to_string() })?;
        Ok(Digest(hasher.finalize().into()))
    }

    /// In hexadecimal digits.
    pub fn hex(&self) -> String {
        blake3::Hash::from(self.0).to_hex().to_string()
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.hex())
    }
}

/// What answers whom: all that an answer depends on besides the request's tensors.
#[derive(Debug, Clone, Copy, Default)]
pub struct Identity<'a> {
    /// The model's name.
    pub model: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Hash of its file ([`Digest::of_file`]). Without it a version that is loaded again with other weights would find the old answers.
    pub weights: Digest,
    /// Precision and whatever else of the session's options changes answers, as one text.
    pub precision: &'a str,
    /// Whose answers: with a tenant's name here none finds those of another, nor learns from the time taken what others have asked.
    pub partition: &'a str,
}

/// The hash of an [`Identity`]; made once, used for every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope(Digest);

/// Begins every identity. The number is raised when what follows is written in another way.
const FORMAT: &str = concat!("halfbyte ", env!("CARGO_PKG_VERSION"), " result 1");

type Text = SmallVec<[u8; 256]>;

/// Texts have their length before them, so that no two lists of texts are written alike.
fn push(text: &mut Text, part: &[u8]) {
    text.extend_from_slice(&(part.len() as u64).to_le_bytes());
    text.extend_from_slice(part);
}

impl Scope {
    /// The scope of an identity.
    pub fn new(identity: &Identity) -> Self {
        let Identity { model, version, weights, precision, partition } = identity;
        let mut text = Text::new();
        for part in
            [FORMAT.as_bytes(), model.as_bytes(), version.as_bytes(), &weights.0, precision.as_bytes(), partition.as_bytes()]
        {
            push(&mut text, part);
        }
        Scope(Digest(blake3::hash(&text).into()))
    }

    /// The key of a request: the outputs asked for (none for all) in their order, and the inputs in any order. Elements are taken as the
    /// bits they are: -0.0 is not 0.0, and a NaN is equal to one of the same bits.
    pub fn key<'a>(&self, outputs: &[&str], inputs: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Digest {
        let mut inputs: SmallVec<[(&str, &Tensor); 8]> = inputs.into_iter().collect();
        inputs.sort_by_key(|(name, _)| *name);
        let mut text = Text::from_slice(&self.0.0);
        text.extend_from_slice(&(outputs.len() as u64).to_le_bytes());
        outputs.iter().for_each(|name| push(&mut text, name.as_bytes()));
        text.extend_from_slice(&(inputs.len() as u64).to_le_bytes());
        let mut hasher = blake3::Hasher::new();
        for (name, tensor) in inputs {
            push(&mut text, name.as_bytes());
            text.push(tensor.dtype().onnx() as u8);
            text.extend_from_slice(&(tensor.shape().rank() as u64).to_le_bytes());
            tensor.shape().iter().for_each(|&dim| text.extend_from_slice(&(dim as u64).to_le_bytes()));
            hasher.update(&text);
            // Their number follows from type and shape.
            hasher.update(tensor.bytes());
            text.clear();
        }
        Digest(hasher.update(&text).finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::vector(values)
    }

    #[test]
    fn keys_differ_in_everything_that_changes_an_answer_and_in_nothing_else() {
        let identity = Identity { model: "bert", version: "1", precision: "i8", ..Identity::default() };
        let scope = Scope::new(&identity);
        let (a, b) = (tensor(&[1.0, 2.0]), tensor(&[3.0]));
        let base = scope.key(&[], [("a", &a), ("b", &b)]);
        assert_eq!(base, scope.key(&[], [("b", &b), ("a", &a)]), "the order of inputs is of no account");
        assert_eq!(base, scope.key(&[], [("a", &tensor(&[1.0, 2.0])), ("b", &b)]), "nor is where they lie");

        let other = |change: fn(&mut Identity)| {
            let mut identity = identity;
            change(&mut identity);
            Scope::new(&identity).key(&[], [("a", &a), ("b", &b)])
        };
        let square = a.reshaped([2, 1].into()).unwrap();
        let bits = Tensor::vector(&[1.0f32.to_bits() as i32, 2.0f32.to_bits() as i32]);
        let keys = [
            base,
            other(|i| i.model = "bertha"),
            other(|i| i.version = "2"),
            other(|i| i.precision = "f32"),
            other(|i| i.partition = "tenant"),
            other(|i| i.weights.0[31] = 1),
            other(|i| (i.model, i.version) = ("bert1", "")),
            scope.key(&["x"], [("a", &a), ("b", &b)]),
            scope.key(&["x", "y"], [("a", &a), ("b", &b)]),
            scope.key(&["y", "x"], [("a", &a), ("b", &b)]),
            scope.key(&["xy"], [("a", &a), ("b", &b)]),
            scope.key(&[], [("b", &a), ("a", &b)]),
            scope.key(&[], [("a", &a)]),
            scope.key(&[], [("a", &square), ("b", &b)]),
            scope.key(&[], [("a", &bits), ("b", &b)]),
            scope.key(&[], [("a", &tensor(&[1.0])), ("b", &tensor(&[2.0, 3.0]))]),
            scope.key(&[], []),
        ];
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
    }

    #[test]
    fn elements_are_their_bits() {
        let scope = Scope::new(&Identity::default());
        let key = |value: f32| scope.key(&[], [("x", &tensor(&[value]))]);
        assert_ne!(key(0.0), key(-0.0));
        assert_eq!(key(f32::NAN), key(f32::NAN));
        assert_ne!(key(f32::NAN), key(-f32::NAN));
        let empty = |dims: [usize; 2]| scope.key(&[], [("x", &Tensor::zeros(crate::DType::F32, dims).unwrap())]);
        assert_ne!(empty([0, 3]), empty([3, 0]));
    }
}
