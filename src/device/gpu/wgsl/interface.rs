//! What a shader declares about its arguments, on a line of its template:
//!
//! `//@entry to: out b32, from: in b32, n: u32, axes: block 40, finish`
//!
//! in the order of the launch's arguments. A pointer is `in`, `out` or `inout` and says how its elements are read and written (see
//! [`super::element`]), `reads T` as elements of type [`Finish::reads`], or of T where there is none, that are values of type T to
//! the shader (`value` is [`Finish::value_type`]); `block N` is a parameter of N words; `finish` is [`crate::device::gpu::Finish::argument`].

use super::element::Element;
use crate::base::DType;
use crate::device::gpu::finish::{self, Finish};
use crate::error::{Error, Result};

/// Words in front of the arguments: the grid, whether it is folded, and a 0 that no compiler knows.
pub const HEADER_WORDS: usize = 8;

/// How a pointer is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Mode {
    In,
    Out,
    InOut,
}

/// What an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    U32,
    F32,
    U64,
    /// So many words.
    Block(usize),
    Pointer(Mode, Element),
    /// What a formula's slots need.
    Finish,
}

impl Kind {
    fn words(self) -> usize {
        match self {
            Kind::U32 | Kind::F32 => 1,
            Kind::U64 | Kind::Pointer(..) => 2,
            Kind::Block(words) => words,
            Kind::Finish => finish::BYTES / 4,
        }
    }
}

/// An argument, and its first word in the uniform block.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Param {
    pub name: String,
    pub kind: Kind,
    pub word: usize,
}

/// A storage binding of the shader, in the order of bindings from 1 on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Its accessors' prefix.
    pub name: String,
    /// Where its address is in the uniform block, and where the shader finds the first element's number.
    pub word: usize,
    /// How it is used.
    pub mode: Mode,
    /// How its elements are read and written.
    pub element: Element,
    /// Whether nothing writes the buffer: a constant.
    pub is_constant: bool,
}

/// A shader's arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// In order.
    pub params: Vec<Param>,
}

fn broken(why: String) -> Error {
    Error::Device { device: "wgpu".into(), why }
}

impl Interface {
    /// Reads a shader's declaration. `finish` says what its elements `value` and `reads` are. Errors on anything unknown.
    pub fn read(text: &str, finish: Option<&Finish>) -> Result<Interface> {
        let line =
            text.lines().find_map(|l| l.strip_prefix("//@entry")).ok_or_else(|| broken("a shader without //@entry".into()))?;
        let mut params = Vec::new();
        let mut word = HEADER_WORDS;
        for part in line.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (name, words) = part.split_once(':').map_or((part, "finish"), |(n, w)| (n.trim(), w.trim()));
            let kind = kind(words, finish).ok_or_else(|| broken(format!("a shader's argument `{part}`")))?;
            params.push(Param { name: name.into(), kind, word });
            word += kind.words();
        }
        Ok(Interface { params })
    }

    /// Words of the uniform block.
    pub fn words(&self) -> usize {
        self.params.last().map_or(HEADER_WORDS, |p| p.word + p.kind.words())
    }

    /// Bytes of each argument.
    pub fn bytes(&self) -> Vec<u64> {
        self.params.iter().map(|p| 4 * p.kind.words() as u64).collect()
    }

    /// The storage bindings; of the pointers in order, those whose bit is set in `constants` are read only.
    pub fn bindings(&self, finish: Option<&Finish>, constants: u64) -> Vec<Binding> {
        let mut found = Vec::new();
        let mut push = |name: &str, word, mode, element| {
            let is_constant = mode == Mode::In && constants >> found.len() & 1 == 1;
            found.push(Binding { name: name.into(), word, mode, element, is_constant });
        };
        for param in &self.params {
            match (param.kind, finish) {
                (Kind::Pointer(mode, element), _) => push(&param.name, param.word, mode, element),
                (Kind::Finish, Some(f)) => {
                    push("hb_out", param.word, Mode::Out, Element::stored_by(f));
                    let own = usize::from(f.value);
                    for i in 0..f.operands.len() {
                        let at = param.word + finish::OPERANDS_AT / 4 + 2 * i;
                        push(&format!("hb_x{i}"), at, Mode::In, Element::of(f.steps.args[own + i]));
                    }
                }
                _ => {}
            }
        }
        found
    }
}

fn kind(words: &str, finish: Option<&Finish>) -> Option<Kind> {
    let element = |name: &str| match (name, finish) {
        ("value", f) => Some(Element::natural(f.map_or(DType::F32, |f| f.value_type))),
        _ => Element::named(name),
    };
    let reads = |value: &str| {
        let to = element(value)?.dtype()?;
        Some(Element::converted(finish.and_then(|f| f.reads).unwrap_or(to), to))
    };
    Some(match words.split_whitespace().collect::<Vec<_>>()[..] {
        ["u32"] => Kind::U32,
        ["f32"] => Kind::F32,
        ["u64"] => Kind::U64,
        ["finish"] => Kind::Finish,
        ["block", n] => Kind::Block(n.parse().ok()?),
        ["in", "reads", value] => Kind::Pointer(Mode::In, reads(value)?),
        ["out", "reads", value] => Kind::Pointer(Mode::Out, reads(value)?),
        ["in", e] => Kind::Pointer(Mode::In, element(e)?),
        ["out", e] => Kind::Pointer(Mode::Out, element(e)?),
        ["inout", e] => Kind::Pointer(Mode::InOut, element(e)?),
        _ => return None,
    })
}
