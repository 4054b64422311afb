//! The modifiers of an opcode, taken one by one: what remains is unknown.

use super::number::Ty;
use super::{Kind, Result, fault};

pub struct Modifiers<'a> {
    pub name: &'a str,
    left: Vec<&'a str>,
}

impl<'a> Modifiers<'a> {
    /// Of `name.modifier.modifier`.
    pub fn new(opcode: &'a str) -> Self {
        let mut parts = opcode.split('.');
        Modifiers { name: parts.next().unwrap_or(""), left: parts.collect() }
    }

    /// Takes the modifier if it stands.
    pub fn take(&mut self, modifier: &str) -> bool {
        let at = self.left.iter().position(|m| *m == modifier);
        at.map(|at| self.left.remove(at)).is_some()
    }

    /// Takes every modifier of the list that stands.
    pub fn skip(&mut self, modifiers: &[&str]) {
        self.left.retain(|m| !modifiers.contains(m));
    }

    /// Takes the first that is of the list.
    pub fn choose<T: Copy>(&mut self, list: &[(&str, T)]) -> Option<T> {
        let found = |m: &str| list.iter().find(|(name, _)| *name == m).map(|(_, value)| *value);
        let (at, value) = self.left.iter().enumerate().find_map(|(at, m)| Some((at, found(m)?)))?;
        self.left.remove(at);
        Some(value)
    }

    /// As [`Modifiers::choose`], one must stand.
    pub fn one<T: Copy>(&mut self, list: &[(&str, T)]) -> Result<T> {
        match self.choose(list) {
            Some(value) => Ok(value),
            None => fault(Kind::Syntax, format!("{} wants one of {:?}", self.name, list.iter().map(|l| l.0).collect::<Vec<_>>())),
        }
    }

    /// Takes the modifier that must stand.
    pub fn must(&mut self, modifier: &str) -> Result<()> {
        if self.take(modifier) { Ok(()) } else { fault(Kind::Syntax, format!("{} wants .{modifier}", self.name)) }
    }

    /// Takes the last modifier, which must be a type.
    pub fn ty(&mut self) -> Result<Ty> {
        match self.left.last().and_then(|m| Ty::named(m)) {
            Some(ty) => {
                self.left.pop();
                Ok(ty)
            }
            None => fault(Kind::Syntax, format!("{} wants a type", self.name)),
        }
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<()> {
        match self.left.first() {
            Some(m) => fault(Kind::Syntax, format!("{} has the unknown modifier .{m}", self.name)),
            None => Ok(()),
        }
    }
}
