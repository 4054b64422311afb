//! What a run gives back.

use crate::base::{Element, Tensor};
use crate::error::{Error, Result};

/// The outputs of one run, in the model's order.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    pub(crate) named: Vec<(String, Tensor)>,
}

impl FromIterator<(String, Tensor)> for Outputs {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(named: I) -> Self {
        Outputs { named: named.into_iter().collect() }
    }
}

impl Outputs {
    /// Output `name`.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        let known = || self.named.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(", ");
        let found = self.named.iter().find(|(n, _)| n == name).map(|(_, t)| t);
        found.ok_or_else(|| Error::BadInput(format!("no output {name:?}; the model gives {}", known())))
    }

    /// The elements of output `name`, row-major. Errors when there is no such output or it is of another type.
    pub fn values<T: Element>(&self, name: &str) -> Result<std::borrow::Cow<'_, [T]>> {
        self.tensor(name)?.values()
    }

    /// All outputs with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.named.iter().map(|(n, t)| (n.as_str(), t))
    }
}
