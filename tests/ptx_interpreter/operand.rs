//! Operands as they are written.

use super::number::Ty;
use super::{Kind, Result, fault};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Literal {
    Integer(i64),
    Real(f64),
    /// Of `0f`.
    Single(u32),
    /// Of `0d`.
    Double(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    LaneId,
    WarpId,
    LaneMask(Mask),
    ClusterRank,
    ClusterSize,
    ClusterId(usize),
    ClusterCount(usize),
    /// The block in the cluster, and the cluster's extents.
    ClusterBlock(usize),
    ClusterBlocks(usize),
    Clock,
    SharedSize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    Equal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    Register(usize),
    Shared(u64),
    Param(u64),
    Const(u64),
    Absolute,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    Register(usize),
    /// A predicate, negated.
    Negated(usize),
    /// `p|q`, each of which may be a sink.
    Pair(Option<usize>, Option<usize>),
    Literal(Literal),
    Special(Special),
    Vector(Vec<Operand>),
    Address {
        base: Base,
        offset: i64,
    },
    /// A tensor map's address, and coordinates.
    Tensor {
        base: Base,
        offset: i64,
        coordinates: Vec<Operand>,
    },
    /// The address of a variable.
    Symbol(Base, i64),
    Label(usize),
    Sink,
}

/// Where names are looked up.
pub trait Names {
    fn register(&self, name: &str) -> Option<usize>;
    fn variable(&self, name: &str) -> Option<Base>;
    /// A label's number, made when it is new.
    fn label(&mut self, name: &str) -> usize;
}

/// Operands between commas that are in no bracket.
pub fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            ',' if depth == 0 => {
                found.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    let last = text[start..].trim();
    if !last.is_empty() {
        found.push(last);
    }
    found
}

pub fn number(text: &str) -> Option<Literal> {
    let (minus, digits) = text.strip_prefix('-').map_or((false, text), |d| (true, d));
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let signed = |n: u64| Literal::Integer(if minus { (n as i64).wrapping_neg() } else { n as i64 });
    let radix = |prefix: &str, r| digits.strip_prefix(prefix).map(|d| u64::from_str_radix(d.trim_end_matches('U'), r).ok());
    if let Some(d) = digits.strip_prefix("0f").filter(|_| !minus) {
        return u32::from_str_radix(d, 16).ok().map(Literal::Single);
    }
    if let Some(d) = digits.strip_prefix("0d").filter(|_| !minus) {
        return u64::from_str_radix(d, 16).ok().map(Literal::Double);
    }
    if let Some(n) = radix("0x", 16).or_else(|| radix("0b", 2)) {
        return n.map(signed);
    }
    match digits.trim_end_matches('U').parse() {
        Ok(n) => Some(signed(n)),
        Err(_) => text.parse().ok().map(Literal::Real),
    }
}

fn special(text: &str) -> Option<Special> {
    let (name, axis) = match text.split_once('.') {
        Some((name, axis)) => (name, ["x", "y", "z"].iter().position(|a| *a == axis)?),
        None => (text, 0),
    };
    Some(match name {
        "%tid" => Special::Tid(axis),
        "%ntid" => Special::Ntid(axis),
        "%ctaid" => Special::Ctaid(axis),
        "%nctaid" => Special::Nctaid(axis),
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%lanemask_eq" => Special::LaneMask(Mask::Equal),
        "%lanemask_lt" => Special::LaneMask(Mask::Less),
        "%lanemask_le" => Special::LaneMask(Mask::LessEqual),
        "%lanemask_gt" => Special::LaneMask(Mask::Greater),
        "%lanemask_ge" => Special::LaneMask(Mask::GreaterEqual),
        "%cluster_ctarank" => Special::ClusterRank,
        "%cluster_nctarank" => Special::ClusterSize,
        "%clusterid" => Special::ClusterId(axis),
        "%nclusterid" => Special::ClusterCount(axis),
        "%cluster_ctaid" => Special::ClusterBlock(axis),
        "%cluster_nctaid" => Special::ClusterBlocks(axis),
        "%clock" | "%clock64" | "%globaltimer" => Special::Clock,
        "%dynamic_smem_size" => Special::SharedSize,
        _ => return None,
    })
}

/// A base and what is added to it.
fn sum(text: &str, names: &dyn Names) -> Result<(Base, i64)> {
    let at = text.rfind(['+', '-']).filter(|at| *at > 0);
    let (first, second) = at.map_or((text, "0"), |at| (text[..at].trim(), &text[at..]));
    let base = match (names.register(first), names.variable(first), number(first)) {
        (Some(r), ..) => Base::Register(r),
        (_, Some(v), _) => v,
        (_, _, Some(Literal::Integer(n))) => return Ok((Base::Absolute, n)),
        _ => return fault(Kind::Syntax, format!("{first} is not declared")),
    };
    match number(second.trim_start_matches('+').trim()) {
        Some(Literal::Integer(offset)) => Ok((base, offset)),
        _ => fault(Kind::Syntax, format!("the offset {second} is no integer")),
    }
}

/// Reads an operand.
pub fn operand(text: &str, names: &mut dyn Names) -> Result<Operand> {
    if text == "_" {
        return Ok(Operand::Sink);
    }
    if let Some(r) = names.register(text) {
        return Ok(Operand::Register(r));
    }
    if let Some(literal) = number(text) {
        return Ok(Operand::Literal(literal));
    }
    if let Some(special) = special(text) {
        return Ok(Operand::Special(special));
    }
    if text == "WARP_SZ" {
        return Ok(Operand::Literal(Literal::Integer(32)));
    }
    if let Some(inner) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        return split(inner).into_iter().map(|t| operand(t, names)).collect::<Result<_>>().map(Operand::Vector);
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        let parts = split(inner);
        let (base, offset) = sum(parts.first().copied().unwrap_or(""), names)?;
        return match parts[..] {
            [_] => Ok(Operand::Address { base, offset }),
            [_, coordinates] => match operand(coordinates, names)? {
                Operand::Vector(coordinates) => Ok(Operand::Tensor { base, offset, coordinates }),
                _ => fault(Kind::Syntax, format!("{coordinates} are no coordinates")),
            },
            _ => fault(Kind::Syntax, format!("{text} is no address")),
        };
    }
    if let Some(r) = text.strip_prefix('!').and_then(|n| names.register(n.trim())) {
        return Ok(Operand::Negated(r));
    }
    if let Some((p, q)) = text.split_once('|') {
        let (p, q) = (p.trim(), q.trim());
        let pair = (names.register(p), names.register(q));
        if (pair.0.is_some() || p == "_") && (pair.1.is_some() || q == "_") {
            return Ok(Operand::Pair(pair.0, pair.1));
        }
    }
    if text.starts_with('%') {
        return fault(Kind::Syntax, format!("the register {text} is not declared"));
    }
    let name = text.split(['+', '-']).next().unwrap_or("").trim();
    if names.variable(name).is_some() {
        let (base, offset) = sum(text, names)?;
        return Ok(Operand::Symbol(base, offset));
    }
    let plain = !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$');
    if plain { Ok(Operand::Label(names.label(text))) } else { fault(Kind::Syntax, format!("{text} is no operand")) }
}

/// A literal's bits where a value of the type is wanted.
pub fn literal_bits(literal: Literal, ty: Ty) -> Result<u64> {
    match (literal, ty) {
        (Literal::Single(b), Ty::F32 | Ty::Bits(32)) => Ok(b.into()),
        (Literal::Double(b), Ty::F64 | Ty::Bits(64)) => Ok(b),
        (Literal::Double(b), Ty::F32) => Ok((f64::from_bits(b) as f32).to_bits().into()),
        (Literal::Real(x), Ty::F32) => Ok((x as f32).to_bits().into()),
        (Literal::Real(x), Ty::F64) => Ok(x.to_bits()),
        (Literal::Integer(i), _) if !ty.is_float() || matches!(ty, Ty::F16x2 | Ty::BF16x2) => Ok(ty.low(i as u64)),
        _ => fault(Kind::Syntax, format!("the literal {literal:?} where {ty:?} is wanted")),
    }
}

/// The integer of an operand that must be a literal.
pub fn constant(operand: &Operand) -> Result<i64> {
    match operand {
        Operand::Literal(Literal::Integer(n)) => Ok(*n),
        other => fault(Kind::Syntax, format!("{other:?} must be a constant")),
    }
}
