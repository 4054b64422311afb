//! The project's own rules, read off its sources.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const LAYERS: [&str; 18] = [
    "base",
    "scalar",
    "hardware",
    "graph",
    "kernel",
    "memory",
    "device",
    "load",
    "export",
    "pass",
    "calibrate",
    "plan",
    "session",
    "optimize",
    "serve",
    "search",
    "retrieval",
    "cli",
];
/// Layers on one level: none may use another of it.
const LEVEL: [usize; 18] = [0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 8, 9, 10, 10, 10, 11, 12];

fn sources(folder: &Path, into: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            into.push((path, text));
        }
    }
}

fn all() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    sources(Path::new("src"), &mut found);
    found
}

/// The part of a file before its tests; nothing of files that are tests.
fn code<'a>(path: &Path, text: &'a str) -> &'a str {
    let name = path.file_stem().and_then(|s| s.to_str()).unwrap_or("");
    if name == "tests" || path.components().any(|c| c.as_os_str() == "tests") {
        return "";
    }
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("")
}

fn offenders(rule: &str, list: Vec<String>) {
    assert!(list.is_empty(), "{rule}:\n{}", list.join("\n"));
}

#[test]
fn layers_use_only_those_below() {
    let mut bad = Vec::new();
    for (path, text) in all() {
        let Some(own) = path.iter().nth(1).and_then(|l| LAYERS.iter().position(|n| l == *n)) else { continue };
        for (at, _) in code(&path, &text).match_indices("crate::") {
            let name: String = text[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let used = LAYERS.iter().position(|l| *l == name).filter(|&used| used != own && LEVEL[used] >= LEVEL[own]);
            bad.extend(used.map(|_| format!("{}: {} uses {name}", path.display(), LAYERS[own])));
        }
    }
    offenders("a layer may use only those below it", bad);
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut bad = Vec::new();
    for (path, text) in all() {
        let lines = code(&path, &text).lines().count();
        if lines > 400 {
            bad.push(format!("{}: {lines} lines before the tests, at most 400", path.display()));
        }
        if !text.starts_with("//!") && !text.starts_with("#![doc") {
            bad.push(format!("{}: no header", path.display()));
        }
    }
    offenders("files", bad);
}

/// Lines of every function, by the indentation of its first and last line.
fn functions(path: &Path, text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = code(path, text).lines().collect();
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        let starts =
            ["fn ", "pub fn ", "pub(super) fn ", "pub(crate) fn ", "unsafe fn ", "pub unsafe fn ", "pub const fn ", "const fn "];
        if !starts.iter().any(|s| body.starts_with(s)) || body.ends_with(';') {
            continue;
        }
        let end = format!("{}}}", " ".repeat(line.len() - body.len()));
        let length = if body.ends_with('}') { 1 } else { lines[i..].iter().position(|l| *l == end).map_or(1, |n| n + 1) };
        found.push((format!("{}: {}", path.display(), body.split('(').next().unwrap_or("")), length));
    }
    found
}

#[test]
fn functions_are_short() {
    let mut all: Vec<(String, usize)> = all().iter().flat_map(|(p, t)| functions(p, t)).collect();
    all.sort_by_key(|f| f.1);
    let long = all.iter().filter(|f| f.1 > 100).map(|(n, l)| format!("{n}: {l} lines")).collect();
    offenders("functions have at most 100 lines", long);
    let (median, p99) = (all[all.len() / 2].1, all[all.len() * 99 / 100].1);
    println!("{} functions, median {median} lines, 99th percentile {p99}", all.len());
    assert!(median <= 8 && p99 <= 60, "median {median}, 99th percentile {p99}");
}

#[test]
fn macros_are_few_and_nothing_forbidden_stands_in_the_code() {
    let (mut macros, mut bad) = (0, Vec::new());
    for (path, text) in all() {
        let code = code(&path, &text);
        macros += code.matches("macro_rules!").count();
        for word in ["dyn Any", "todo!", "unimplemented!", ".unwrap()", "fn get_", "dbg!("] {
            bad.extend(code.contains(word).then(|| format!("{}: {word}", path.display())));
        }
        let excused = |rest: &str| rest.starts_with("expect(\"invariant") || rest.starts_with("expect_err");
        let unexcused = code.match_indices(".expect(").filter(|(at, _)| !excused(code[at + 1..].trim_start())).count();
        bad.extend((unexcused > 0).then(|| format!("{}: expect without a stated invariant", path.display())));
        for kind in ["struct ", "enum ", "trait "] {
            let names = code
                .match_indices(kind)
                .map(|(at, _)| code[at + kind.len()..].split(|c: char| !c.is_alphanumeric()).next().unwrap_or(""));
            let vague = names.filter(|n| ["Manager", "Handler", "Helper", "Util"].iter().any(|s| n.ends_with(s)));
            bad.extend(vague.map(|n| format!("{}: {n}", path.display())));
        }
    }
    offenders("not in this project", bad);
    println!("{macros} macros");
    assert!(macros < 10, "{macros} macros, fewer than 10 are wanted");
}

#[test]
fn every_row_of_the_kernel_table_has_code_and_the_other_way_round() {
    use halfbyte::hardware::DeviceKind::{self, *};
    let rows =
        |device: DeviceKind| -> BTreeSet<_> { halfbyte::kernel::all().filter(|k| k.device == device).map(|k| k.name).collect() };
    assert_eq!(rows(Cpu), halfbyte::device::cpu::kernels().map(|k| k.name).collect());
    #[cfg(feature = "gpu")]
    {
        let code = |name: &'static str| name.split_once('-').map(|(_, code)| code).unwrap();
        let gpus: BTreeSet<_> = rows(Cuda).into_iter().chain(rows(Wgpu)).map(code).collect();
        assert_eq!(gpus, halfbyte::device::gpu::kernels().map(|k| k.name).collect());
    }
    let names: BTreeSet<_> = halfbyte::kernel::all().map(|k| k.name).collect();
    assert_eq!(names.len(), halfbyte::kernel::all().count(), "names are unique");
}
