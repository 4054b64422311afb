//! Traces from files: CSV of `op,id,size`, where `a` allocates `size` bytes under `id` and `f` frees `id`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::trace::{Recorder, Trace};
use crate::error::{Error, Result};

/// Most bytes of one trace together: sums of sizes stay far from overflow.
const MAX_BYTES: u64 = 1 << 50;

/// Reads a trace from a CSV's text. Ids may be used again once they are freed. Errors name the line, what is wrong and what is expected.
pub fn parse(name: &str, text: &str) -> Result<Trace> {
    let bad = |line: usize, why: String| Error::BadInput(format!("trace {name}, line {}: {why}", line + 1));
    let mut lines = text.lines().enumerate();
    if lines.next().map(|(_, l)| l.trim()) != Some("op,id,size") {
        return Err(bad(0, "a trace begins with the header op,id,size".into()));
    }
    let (mut recorder, mut live, mut total) = (Recorder::default(), HashMap::new(), 0u64);
    for (at, line) in lines.filter(|(_, l)| !l.trim().is_empty()) {
        let (op, id, bytes) = fields(line).map_err(|why| bad(at, why))?;
        if op == "f" {
            let buffer = live.remove(&id).ok_or_else(|| bad(at, format!("{id} is freed but not allocated")))?;
            recorder.free(buffer);
            continue;
        }
        total = total.saturating_add(bytes);
        if bytes == 0 || total > MAX_BYTES {
            return Err(bad(at, format!("{bytes} bytes: sizes are positive and sum to at most 2^50; leave such lines out")));
        }
        if live.insert(id, recorder.alloc(bytes)).is_some() {
            return Err(bad(at, format!("{id} is allocated twice without a free between")));
        }
    }
    if total == 0 {
        return Err(bad(0, "nothing is allocated in it".into()));
    }
    Ok(recorder.finish(name))
}

fn fields(line: &str) -> Result<(&str, u64, u64), String> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [op @ ("a" | "f"), id, size] = fields[..] else {
        return Err(format!("{:?} is not op,id,size with op a or f", shortened(line)));
    };
    let number = |what, text: &str| text.parse::<u64>().map_err(|_| format!("{what} {:?} is no whole number", shortened(text)));
    Ok((op, number("id", id)?, number("size", size)?))
}

/// The beginning of what may be a very long line.
fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Reads one file; the trace is named after it.
pub fn read(path: &Path) -> Result<Trace> {
    let file = |why: String| Error::File { path: path.display().to_string(), why };
    let text = std::fs::read_to_string(path).map_err(|e| file(e.to_string()))?;
    let name = path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    parse(&name, &text)
}

/// The CSV files of a folder, sorted by name. Errors when the folder cannot be read or has none.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let error = |why: String| Error::File { path: folder.display().to_string(), why };
    let entries = std::fs::read_dir(folder).map_err(|e| error(e.to_string()))?;
    let mut found: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "csv")).collect();
    found.sort();
    if found.is_empty() {
        return Err(error("no .csv file: a trace is a CSV of op,id,size".into()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::xorshift::Xorshift;
    use crate::memory::replay::trace::Event;

    #[test]
    fn ids_are_numbered_anew_and_may_come_back() {
        let trace = parse("t", "op,id,size\na,7,100\nf,7,0\n\n a , 7 , 5 \r\na,900000000000,1\n").unwrap();
        let alloc = |buffer, bytes| Event::Alloc { buffer, bytes };
        assert_eq!(trace.events(), [alloc(0, 100), Event::Free { buffer: 0 }, alloc(1, 5), alloc(2, 1)]);
    }

    #[test]
    fn bad_input_names_the_line_and_the_cause() {
        let cases = [
            ("", "line 1", "header"),
            ("a,1,4\n", "line 1", "header"),
            ("op,id,size\n", "line 1", "nothing"),
            ("op,id,size\na,1\n", "line 2", "op,id,size"),
            ("op,id,size\na,1,4\nx,1,4\n", "line 3", "a or f"),
            ("op,id,size\na,1,-4\n", "line 2", "whole number"),
            ("op,id,size\na,one,4\n", "line 2", "id"),
            ("op,id,size\nf,1,0\n", "line 2", "not allocated"),
            ("op,id,size\na,1,4\nf,1,0\nf,1,0\n", "line 4", "not allocated"),
            ("op,id,size\na,1,4\na,1,4\n", "line 3", "twice"),
            ("op,id,size\na,1,0\n", "line 2", "positive"),
            ("op,id,size\na,1,18446744073709551615\n", "line 2", "2^50"),
        ];
        for (text, line, why) in cases {
            let error = parse("t", text).unwrap_err().to_string();
            assert!(error.contains(line) && error.contains(why), "{text:?}: {error}");
        }
    }

    /// Whatever the bytes are, reading ends with a trace that keeps its promises or with an error that names a line.
    #[test]
    fn damaged_text_never_panics() {
        let mut random = Xorshift::new(5);
        let (mut read, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let mut text = b"op,id,size\na,1,4\na,2,1024\nf,1,0\na,1,77\nf,2,0\n".to_vec();
            for _ in 0..random.below(4) {
                let at = random.below(text.len());
                match random.below(3) {
                    0 => text[at] = b"af,0123456789\n-x \xff"[random.below(18)],
                    1 => drop(text.remove(at)),
                    _ => text.insert(at, b"af,0123456789\n\xc3"[random.below(15)]),
                }
            }
            match parse("t", &String::from_utf8_lossy(&text)) {
                Ok(trace) => {
                    trace.live_peak();
                    assert!(trace.buffers() <= trace.events().len());
                    read += 1;
                }
                Err(e) => {
                    assert!(e.to_string().contains("line "), "{e}");
                    refused += 1;
                }
            }
        }
        assert!(read > 1000 && refused > 1000, "{read} read, {refused} refused");
    }
}
