//! Safetensors files: named tensors behind a header in JSON. Source: the format's description, github.com/huggingface/safetensors.

use std::path::Path;

use bytes::Bytes;

use super::onnx::map;
use crate::base::{DType, Shape, Tensor};
use crate::error::{Error, Result};

/// The longest header that is read; the format's own limit.
const HEADER_BYTES: u64 = 100_000_000;
/// How deep objects and lists may lie in one another.
const DEPTH: usize = 16;

/// All tensors of the file at `path`, in the order of its header. They stay in the mapped file, which must not be changed meanwhile. Errors
/// when the file is damaged.
pub fn open(path: &Path) -> Result<Vec<(String, Tensor)>> {
    parse(map(path)?.bytes()).map_err(|why| Error::File { path: path.display().to_string(), why })
}

/// All tensors of a file in memory. Errors with what is wrong.
pub fn parse(bytes: Bytes) -> Result<Vec<(String, Tensor)>, String> {
    let size = bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)).ok_or("not a safetensors file: too short")?;
    let size = usize::try_from(size.min(HEADER_BYTES)).map_err(|e| e.to_string())?;
    let header = bytes[8..].get(..size).ok_or("not a safetensors file, or a truncated one: the header is cut off")?;
    let text = std::str::from_utf8(header).map_err(|_| "the header is not text")?;
    let mut reader = Reader { rest: text };
    let Json::Object(entries) = reader.value(0)? else { return Err("the header is not an object".into()) };
    if !reader.rest.trim().is_empty() {
        return Err("something follows the header's object".into());
    }
    let data = bytes.slice(8 + size..);
    let tensors = entries.into_iter().filter(|(name, _)| name != "__metadata__");
    tensors
        .map(|(name, entry)| tensor(&entry, &data).map(|t| (name.clone(), t)).map_err(|why| format!("{name}: {why}")))
        .collect()
}

fn tensor(entry: &Json, data: &Bytes) -> Result<Tensor, String> {
    let Json::Object(fields) = entry else { return Err("not an object".into()) };
    let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v).ok_or_else(|| format!("no {name}"));
    let sizes = |name: &str| match field(name)? {
        Json::List(all) => {
            all.iter().map(Json::size).collect::<Option<Vec<usize>>>().ok_or_else(|| format!("{name} holds no sizes"))
        }
        _ => Err(format!("{name} is not a list")),
    };
    let dtype = match field("dtype")? {
        Json::Text(name) => dtype(name).ok_or_else(|| format!("type {name:?} is not known"))?,
        _ => return Err("dtype is not a text".into()),
    };
    let [begin, end] = sizes("data_offsets")?[..] else { return Err("data_offsets are not two".into()) };
    if begin > end || end > data.len() {
        return Err(format!("bytes {begin} to {end} of {}", data.len()));
    }
    Tensor::from_shared(dtype, Shape::from(&sizes("shape")?[..]), data.slice(begin..end)).map_err(|e| e.to_string())
}

fn dtype(name: &str) -> Option<DType> {
    Some(match name {
        "F64" => DType::F64,
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        "I64" => DType::I64,
        "I32" => DType::I32,
        "I16" => DType::I16,
        "I8" => DType::I8,
        "U64" => DType::U64,
        "U32" => DType::U32,
        "U16" => DType::U16,
        "U8" => DType::U8,
        "BOOL" => DType::Bool,
        _ => return None,
    })
}

/// As much of JSON as a header may hold.
#[derive(Debug, Clone, PartialEq)]
enum Json {
    Text(String),
    Number(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
    /// true, false or null.
    Word,
}

impl Json {
    fn size(&self) -> Option<usize> {
        if let Json::Number(digits) = self { digits.parse().ok() } else { None }
    }
}

struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    /// Takes a character that may stand behind space.
    fn take(&mut self, c: char) -> bool {
        let after = self.rest.trim_start().strip_prefix(c);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn expect_char(&mut self, c: char) -> Result<(), String> {
        if self.take(c) { Ok(()) } else { Err(format!("{c:?} is missing in the header")) }
    }

    fn value(&mut self, depth: usize) -> Result<Json, String> {
        if depth > DEPTH {
            return Err("the header is nested too deep".into());
        }
        if self.take('{') {
            return self
                .all('}', |r| {
                    r.expect_char('"')?;
                    let name = r.text()?;
                    r.expect_char(':')?;
                    Ok((name, r.value(depth + 1)?))
                })
                .map(Json::Object);
        }
        if self.take('[') {
            return self.all(']', |r| r.value(depth + 1)).map(Json::List);
        }
        if self.take('"') {
            return self.text().map(Json::Text);
        }
        let text = self.rest.trim_start();
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c)).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.rest = rest;
        match word {
            "true" | "false" | "null" => Ok(Json::Word),
            _ if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') => Ok(Json::Number(word.into())),
            _ => Err("the header is no JSON".into()),
        }
    }

    /// Items between commas up to `end`.
    fn all<T>(&mut self, end: char, item: impl Fn(&mut Self) -> Result<T, String>) -> Result<Vec<T>, String> {
        let mut items = Vec::new();
        if self.take(end) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.take(end) {
                return Ok(items);
            }
            self.expect_char(',')?;
        }
    }

    /// The rest of a text behind its first quote.
    fn text(&mut self) -> Result<String, String> {
        let mut text = String::new();
        let mut chars = self.rest.chars();
        loop {
            match chars.next().ok_or("a text in the header does not end")? {
                '"' => break,
                '\\' => text.push(match chars.next().ok_or("a text in the header does not end")? {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'u' => {
                        let digits: String = chars.by_ref().take(4).collect();
                        let code = u32::from_str_radix(&digits, 16).map_err(|_| format!("\\u{digits} in the header"))?;
                        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
                    }
                    other => other,
                }),
                c => text.push(c),
            }
        }
        self.rest = chars.as_str();
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;

    fn file(header: &str, data: &[u8]) -> Bytes {
        let mut all = (header.len() as u64).to_le_bytes().to_vec();
        all.extend(header.as_bytes());
        all.extend(data);
        all.into()
    }

    const HEADER: &str = r#"{"__metadata__":{"format":"pt","a\u00e4\"b":"{"}, "x.lora_A.weight":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},
        "y":{"dtype":"BF16","shape":[],"data_offsets":[8,10]}}  "#;

    fn good() -> Bytes {
        file(HEADER, &[0, 0, 128, 63, 0, 0, 0, 64, 0x80, 0x3f])
    }

    #[test]
    fn tensors_come_with_their_names() {
        let all = parse(good()).unwrap();
        assert_eq!(all[0], ("x.lora_A.weight".into(), Tensor::new([1, 2], &[1f32, 2.0]).unwrap()));
        assert_eq!((all[1].0.as_str(), all[1].1.dtype(), all[1].1.to_f64()), ("y", DType::BF16, vec![1.0]));
        assert_eq!(parse(file("{}", &[])).unwrap(), []);
    }

    #[test]
    fn damaged_files_say_what_is_wrong() {
        let why = |header: &str| parse(file(header, &[0; 8])).unwrap_err();
        let entry =
            |dtype: &str, shape: &str, at: &str| format!(r#"{{"x":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{at}}}}}"#);
        assert!(why("[]").contains("object") && why("{").contains("missing") && why("{\"a").contains("end"));
        assert!(why(&entry("F7", "[2]", "[0,8]")).contains("F7") && why(&entry("F32", "[3]", "[0,8]")).contains("12 bytes"));
        assert!(why(&entry("F32", "[2]", "[8,0]")).contains("8 to 0") && why(&entry("F32", "[2]", "[0,16]")).contains("of 8"));
        assert!(why(&entry("F32", "[-1]", "[0,8]")).contains("sizes"));
        assert!(why(&entry("F32", "[4294967296,4294967296,4]", "[0,8]")).contains("overflows"));
        assert!(why(&"[".repeat(100_000)).contains("deep") && why("{} {}").contains("follows"));
        assert!(parse(Bytes::from_static(&[255; 64])).unwrap_err().contains("cut off"));
        assert!(parse(Bytes::from_static(&[1, 2])).unwrap_err().contains("short"));
    }

    #[test]
    fn no_damage_makes_it_panic() {
        let (good, mut random) = (good(), Xorshift::new(11));
        for length in 0..good.len() {
            let _ = parse(good.slice(..length));
        }
        let mut errors = 0;
        for _ in 0..20_000 {
            let mut bytes = good.to_vec();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                bytes[at] = if random.below(2) == 0 { random.bits() as u8 } else { b"{}[]\",:0-9\\u"[random.below(12)] };
            }
            errors += usize::from(parse(bytes.into()).is_err());
        }
        assert!(errors > 1000, "{errors}");
    }
}
