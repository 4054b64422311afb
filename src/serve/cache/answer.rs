//! Answers: named tensors that many may hold.

use std::sync::Arc;

use crate::base::Tensor;

/// The outputs of a request by name. Clones share them. Collected from names and tensors, as [`crate::session::Outputs`] is.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer(Arc<[(String, Tensor)]>);

/// What an answer costs beside names and elements, roughly: the key, the cache's entry, the tensors' own fields.
const ENTRY_BYTES: usize = 256;
const TENSOR_BYTES: usize = 160;

impl Answer {
    /// Bytes that keeping it takes.
    pub fn size_bytes(&self) -> usize {
        let tensors = self.iter().map(|(name, tensor)| TENSOR_BYTES + name.len() + tensor.bytes().len());
        ENTRY_BYTES + tensors.sum::<usize>()
    }

    /// The same answer with elements of its own: a part of a batch's output would keep the whole of it.
    pub(super) fn detached(&self) -> Answer {
        self.iter().map(|(name, tensor)| (name.clone(), tensor.detached())).collect()
    }
}

impl FromIterator<(String, Tensor)> for Answer {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(outputs: I) -> Self {
        Answer(outputs.into_iter().collect())
    }
}

impl From<Vec<(String, Tensor)>> for Answer {
    fn from(outputs: Vec<(String, Tensor)>) -> Self {
        Answer(outputs.into())
    }
}

impl std::ops::Deref for Answer {
    type Target = [(String, Tensor)];
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
