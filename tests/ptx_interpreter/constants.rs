//! Constant memory: `.const [.align N] .type name[N] = { values };`, as many bytes as 64 KiB for a module.

use super::number::Ty;
use super::operand::{literal_bits, number};
use super::{Kind, Result, fault};

/// Bytes that a module may declare.
const MOST: usize = 64 << 10;

/// Adds the variable to the bytes. Gives its name and where it is.
pub fn declare(statement: &str, bytes: &mut Vec<u8>) -> Result<(String, u64)> {
    let (head, values) = statement.split_once('=').map_or((statement, None), |(head, values)| (head, Some(values)));
    let words: Vec<&str> = head.split_whitespace().collect();
    let ty = words.iter().skip(1).find_map(|w| Ty::named(w.strip_prefix('.')?));
    let (Some(ty), Some(name)) = (ty, words.last()) else { return fault(Kind::Syntax, "a constant has a type and a name") };
    let given: Vec<&str> = values.map_or(Vec::new(), |v| v.trim().trim_matches(['{', '}']).split(',').map(str::trim).collect());
    let given: Vec<&str> = given.into_iter().filter(|v| !v.is_empty()).collect();
    let (name, count) = match name.split_once('[') {
        Some((name, "]")) => (name, given.len()),
        Some((name, n)) => match n.trim_end_matches(']').parse() {
            Ok(n) => (name, n),
            Err(_) => return fault(Kind::Syntax, format!("{name} has no size")),
        },
        None => (*name, 1),
    };
    let align = words.iter().position(|w| *w == ".align").and_then(|i| words.get(i + 1)?.parse().ok());
    let at = bytes.len().next_multiple_of(align.unwrap_or(1).max(ty.bytes()));
    if given.len() > count || at + count * ty.bytes() > MOST {
        return fault(Kind::Syntax, format!("{name} has more values than elements, or there are more than {MOST} bytes"));
    }
    bytes.resize(at, 0);
    for value in given {
        let Some(literal) = number(value) else { return fault(Kind::Syntax, format!("{value} is no number")) };
        bytes.extend_from_slice(&literal_bits(literal, ty)?.to_le_bytes()[..ty.bytes()]);
    }
    bytes.resize(at + count * ty.bytes(), 0);
    Ok((name.into(), at as u64))
}
