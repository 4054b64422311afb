//! Python's pickle format, protocol 2, as far as snapshots need it (CPython, Lib/pickletools.py). The viewer's own reader takes lists
//! in pieces of a thousand, as Python writes them, and strings by reference.

use std::collections::HashMap;

/// What is pickled.
pub(super) enum Value<'a> {
    Int(u64),
    Flag(bool),
    Text(&'a str),
    List(Vec<Value<'a>>),
    Dict(Vec<(&'static str, Value<'a>)>),
}

const PROTOCOL: [u8; 2] = [0x80, 2];
const TRUE: u8 = 0x88;
const FALSE: u8 = 0x89;
const LONG1: u8 = 0x8a;
/// Items appended at once.
const BATCH: usize = 1000;

/// The pickle of a value.
pub(super) fn pickle(value: &Value) -> Vec<u8> {
    let mut pickler = Pickler { bytes: PROTOCOL.to_vec(), known: HashMap::new() };
    pickler.value(value);
    pickler.bytes.push(b'.');
    pickler.bytes
}

struct Pickler<'a> {
    bytes: Vec<u8>,
    /// Strings that were written, by their numbers in the memo.
    known: HashMap<&'a str, u32>,
}

impl<'a> Pickler<'a> {
    fn value(&mut self, value: &Value<'a>) {
        match value {
            Value::Int(n) => self.int(*n),
            Value::Flag(flag) => self.bytes.push(if *flag { TRUE } else { FALSE }),
            Value::Text(text) => self.text(text),
            Value::List(items) => {
                self.bytes.push(b']');
                for batch in items.chunks(BATCH) {
                    self.bytes.push(b'(');
                    batch.iter().for_each(|item| self.value(item));
                    self.bytes.push(b'e');
                }
            }
            Value::Dict(fields) => {
                self.bytes.extend(b"}(");
                for (key, value) in fields {
                    self.text(key);
                    self.value(value);
                }
                self.bytes.push(b'u');
            }
        }
    }

    /// In one, four or more bytes of two's complement, which needs one more where the highest bit is set.
    fn int(&mut self, n: u64) {
        if let Ok(small) = u8::try_from(n) {
            self.bytes.extend([b'K', small]);
        } else if let Ok(word) = i32::try_from(n) {
            self.bytes.push(b'J');
            self.bytes.extend(word.to_le_bytes());
        } else {
            let length = (u64::BITS - n.leading_zeros()) as usize / 8 + 1;
            self.bytes.extend([LONG1, length as u8]);
            self.bytes.extend(&u128::from(n).to_le_bytes()[..length]);
        }
    }

    fn text(&mut self, text: &'a str) {
        if let Some(&at) = self.known.get(text) {
            return self.numbered([b'h', b'j'], at);
        }
        self.bytes.push(b'X');
        self.bytes.extend((text.len() as u32).to_le_bytes());
        self.bytes.extend(text.as_bytes());
        let at = self.known.len() as u32;
        self.numbered([b'q', b'r'], at);
        self.known.insert(text, at);
    }

    /// An operation on a number of the memo: its short form, or its long one.
    fn numbered(&mut self, [short, long]: [u8; 2], at: u32) {
        if let Ok(at) = u8::try_from(at) {
            self.bytes.extend([short, at]);
        } else {
            self.bytes.push(long);
            self.bytes.extend(at.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn pickles_are_as_the_format_says() {
        use Value::*;
        let value = Dict(vec![("a", List(vec![Int(255), Int(256), Int(1 << 31), Flag(true)])), ("b", Text("a"))]);
        let numbers = b"K\xffJ\0\x01\0\0\x8a\x05\0\0\0\x80\0\x88";
        let expected = [b"\x80\x02}(X\x01\0\0\0aq\0](", &numbers[..], b"eX\x01\0\0\0bq\x01h\0u."].concat();
        assert_eq!(pickle(&value), expected);
    }

    /// Lists of any length and more strings than a byte counts, read by Python itself where there is one.
    #[test]
    fn python_reads_them() {
        let words: Vec<String> = (0..300).map(|i| format!("word {i} \u{e9}")).collect();
        let list = |from: u64| Value::List((0..2500).map(|i| Value::Int(from + i)).collect());
        let texts = || Value::List(words.iter().map(|w| Value::Text(w)).collect());
        let fields = vec![("small", list(0)), ("large", list((1 << 63) - 1000)), ("words", texts()), ("again", texts())];
        let code = r"import pickle, sys; v = pickle.load(sys.stdin.buffer); w = [f'word {i} \u00e9' for i in range(300)]
assert v == {'small': list(range(2500)), 'large': [2**63 - 1000 + i for i in range(2500)], 'words': w, 'again': w}";
        let python = Command::new("python3").args(["-c", code]).stdin(Stdio::piped()).spawn();
        let Ok(mut python) = python else { return println!("SKIP: no python3 here") };
        python.stdin.take().unwrap().write_all(&pickle(&Value::Dict(fields))).unwrap();
        assert!(python.wait().unwrap().success());
    }
}
