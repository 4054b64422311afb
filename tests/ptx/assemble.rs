//! Every kernel that ships, assembled by NVIDIA's assembler for its own target and a newer one, and its machine code looked at:
//! nothing spilled, no more registers than its row says, no warning of a serialised product, the instructions that it is about.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use halfbyte::device::gpu::{Finish, Module, Variant, variants};
use halfbyte::graph::Type;
use halfbyte::scalar::{Formula, arg};
use halfbyte::{DType, Shape};

use crate::cuda::render::{Row, rows, version};
use crate::ptxas;

/// What build.rs does where `PTXAS` names an assembler.
#[path = "../../kernels/assemble.rs"]
mod build;

fn table() -> Vec<Row> {
    rows(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels"))).unwrap()
}

/// Type of the register that a variant gives to its slots: the row's `value`, f32 when it says nothing.
fn value(row: &Row, text: &str) -> Option<DType> {
    match row.params.get("value").and_then(|v| v.as_str()) {
        _ if text.contains("//@store -") || text.contains("//@vector") => None,
        Some("s32") => Some(DType::I32),
        Some("s64") => Some(DType::I64),
        Some("f64") => Some(DType::F64),
        _ => Some(DType::F32),
    }
}

/// The variant with a formula of the value and of an operand for each column.
fn filled(variant: &'static Variant, row: &Row, formula: &dyn Fn(Formula) -> Formula, out: DType) -> String {
    let shape = [64, 64];
    let value = value(row, variant.text);
    let operand = Type::new(DType::F32, Shape::from([64]));
    let (formula, operands) = match value {
        None => (formula(arg(0)), vec![operand]),
        Some(_) => (formula(arg(0)), Vec::new()),
    };
    let finish = Finish::new(value, &formula, &operands, &Type::new(out, shape)).unwrap();
    let finish = if variant.text.contains("//@load") { finish.reading(DType::BF16) } else { finish };
    let finish = variant.text.contains("//@").then(|| Arc::new(finish));
    text(&Module { variant, finish, constants: 0 })
}

fn text(module: &Module) -> String {
    match crate::cuda::text_of(module.variant.name) {
        Some(now) => module.fill(now).unwrap(),
        None => module.text().unwrap(),
    }
}

/// What the assembler says, and the machine code's file.
fn assemble(ptxas: &str, text: &str, arch: &str, folder: &Path) -> Output {
    let file = folder.join("kernel.ptx");
    std::fs::write(&file, text).unwrap();
    let cubin = folder.join("kernel.cubin");
    Command::new(ptxas).args(["-v", &format!("-arch={arch}"), "-o"]).arg(cubin).arg(file).output().expect("HALFBYTE_PTXAS")
}

/// The number before `what`, e.g. of "168 registers".
fn number_before(said: &str, what: &str) -> Option<u32> {
    said[..said.find(what)?].trim_end().rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// What is wrong with the assembler's answer for the row's own target, or for a newer one, where the registers of the fullest
/// kernels are allotted otherwise: two words may be spilled there.
fn complaints(row: &Row, said: &str, own: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let most = if own { 0 } else { 8 };
    for what in ["bytes stack frame", "bytes spill stores", "bytes spill loads"] {
        let found = number_before(said, what);
        wrong.extend(found.is_none_or(|n| n > most).then(|| format!("{found:?} {what}")));
    }
    let used = number_before(said, " registers");
    if own && used.is_none_or(|n| n > row.registers) {
        wrong.push(format!("{used:?} registers, at most {}", row.registers));
    }
    let advice = said.match_indices("C75").any(|(at, _)| said[at + 3..].starts_with(|c: char| c.is_ascii_digit()));
    wrong.extend((advice || said.contains("Advisory")).then(|| format!("advice: {said}")));
    wrong
}

/// Lines of machine code whose instruction begins with `mnemonic`, after its predicate.
fn count(sass: &str, mnemonic: &str) -> u32 {
    let instruction = |line: &str| {
        let text = line.split_once("*/")?.1.trim_start();
        let text = if text.starts_with('@') { text.split_once(' ')?.1.trim_start() } else { text };
        text.starts_with(mnemonic).then_some(())
    };
    sass.lines().filter_map(instruction).count() as u32
}

fn machine_code(cubin: &Path) -> Option<String> {
    let nvdisasm = std::env::var("HALFBYTE_NVDISASM").ok()?;
    let done = Command::new(nvdisasm).arg("-c").arg(cubin).output().expect("HALFBYTE_NVDISASM names a program");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// The target itself and the newest that takes its text; of sparse products, which not all have alike, every one between.
fn targets(row: &Row) -> Vec<&str> {
    match &row.target[..] {
        "sm_90a" => vec!["sm_90a"],
        own if row.params.contains_key("pattern") => vec![own, "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"],
        own => vec![own, "sm_120"],
    }
}

fn check(ptxas: &str, variant: &'static Variant, row: &Row) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    let plain = text(&Module::plain(variant).unwrap());
    for arch in targets(row) {
        let done = assemble(ptxas, &plain, arch, folder.path());
        let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        if !done.status.success() {
            wrong.push(format!("{} for {arch}: {said}", row.name));
            continue;
        }
        wrong.extend(complaints(row, &said, arch == row.target).into_iter().map(|w| format!("{} for {arch}: {w}", row.name)));
        if arch != row.target || row.sass.is_empty() {
            continue;
        }
        let Some(sass) = machine_code(&folder.path().join("kernel.cubin")) else { continue };
        for (mnemonic, least) in &row.sass {
            let found = count(&sass, mnemonic);
            wrong.extend((found < *least).then(|| format!("{}: {found} of {mnemonic}, expected {least}", row.name)));
        }
    }
    if variant.text.contains("//@") {
        // Kernels that go on with what a slot gives take it in f32.
        let out = if variant.text.contains("//@apply ") { DType::F32 } else { DType::F16 };
        let fused = filled(variant, row, &|x| (x.clone() * x.sigmoid()).clip(-8.0, 8.0), out);
        let done = assemble(ptxas, &fused, &row.target, folder.path());
        let said = String::from_utf8_lossy(&done.stderr);
        wrong.extend((!done.status.success()).then(|| format!("{} with a formula: {said}", row.name)));
    }
    wrong
}

#[test]
fn every_kernel_assembles_within_its_row() {
    let Some(ptxas) = ptxas() else { return };
    if std::env::var("HALFBYTE_NVDISASM").is_err() {
        assert!(std::env::var("CI").is_err(), "continuous integration needs HALFBYTE_NVDISASM, see scripts/test");
        println!("SKIP machine code: HALFBYTE_NVDISASM is not set, see scripts/test");
    }
    let table = table();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut wrong = Vec::new();
        while let Some(variant) = variants().get(next.fetch_add(1, Ordering::Relaxed)) {
            let row = table.iter().find(|r| r.name == variant.name).expect("a row for each text");
            wrong.extend(check(&ptxas, variant, row));
        }
        wrong
    };
    let wrong: Vec<String> = std::thread::scope(|s| {
        let all: Vec<_> = (0..2).map(|_| s.spawn(work)).collect();
        all.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    println!("{} kernels assembled", variants().len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_build_embeds_machine_code_or_says_why_not() {
    let Some(ptxas) = ptxas() else { return };
    let folder = tempfile::tempdir().unwrap();
    let make = |text: &str, target: &str| build::assemble(&ptxas, text, target, folder.path(), "kernel");
    for target in ["sm_61", "sm_75", "sm_80", "sm_90a"] {
        let complete = |v: &&Variant| v.target == target && !v.text.contains("//@");
        // There may be no such text for a target; the first kernel of sm_61 can be assembled for any.
        let variant = variants().iter().find(complete).or(variants().iter().find(|v| !v.text.contains("//@")));
        let code = make(variant.expect("texts without slots").text, target).unwrap();
        assert!(code.starts_with(b"\x7fELF"), "{target}");
    }
    let broken = make(".version 7.0\n.target sm_61\n.address_size 64\n.visible .entry kernel() { nonsense; }\n", "sm_61");
    assert!(broken.unwrap_err().contains("nonsense"), "the assembler's words");
    assert!(make(variants()[0].text, "sm_1").is_err());
    let embedded: Vec<&Variant> = variants().iter().filter(|v| v.cubin.is_some()).collect();
    println!("{} of {} texts have machine code in this build", embedded.len(), variants().len());
    assert!(embedded.iter().all(|v| v.cubin.is_some_and(|c| c.starts_with(b"\x7fELF")) && !v.text.contains("//@")));
}

#[test]
fn texts_say_what_their_rows_do() {
    for (row, variant) in table().iter().zip(variants()) {
        let mut lines = variant.text.lines();
        let stated = row.version.as_deref().or(version(&row.target)).map(|v| format!(".version {v}"));
        assert_eq!(lines.next().map(String::from), stated, "{}", row.name);
        assert_eq!(lines.next().map(String::from), Some(format!(".target {}", row.target)), "{}", row.name);
        assert!(variant.text.contains(&format!(".visible .entry {}(", row.name)), "{} has no entry of its name", row.name);
        assert_eq!(variant.text.matches(".visible .entry").count(), 1, "{}", row.name);
        assert!(variant.text.contains(".maxntid"), "{} does not say its threads", row.name);
        let header = variant.text.lines().skip(3).take_while(|l| l.starts_with("//")).count();
        assert!(header >= 4, "{}: a header says what it computes, its grid, its needs and its share of the roof", row.template);
        assert!(variant.text.is_ascii(), "{}", row.name);
    }
}

/// An asynchronous store of what threads wrote to shared memory needs the proxy fence before it, and a wait before the exit.
#[test]
fn tensor_stores_are_fenced() {
    for variant in variants().iter().filter(|v| v.text.contains("cp.async.bulk.tensor") && v.text.contains(".global.shared::cta"))
    {
        let store = variant.text.find(".global.shared::cta").unwrap_or(0);
        let before = &variant.text[..store];
        assert!(before.contains("fence.proxy.async"), "{}: a tensor store without a proxy fence before it", variant.name);
        let after = &variant.text[store..];
        assert!(after.contains("cp.async.bulk.wait_group"), "{}: exits with stores under way", variant.name);
    }
}

/// What drops accumulators' registers silently, or is refused by a warning only.
#[test]
fn register_hand_overs_are_legal() {
    for variant in variants().iter().filter(|v| v.text.contains("setmaxnreg")) {
        let has = |word: &str| variant.text.contains(word);
        assert!(has(".minnctapersm") || has(".maxnreg"), "{}: setmaxnreg is ignored without a cap at entry", variant.name);
        assert!(has("setmaxnreg.inc") && has("setmaxnreg.dec"), "{}", variant.name);
    }
}

/// Products of f32 that append to lists of the largest results (`Finish::listed`).
#[test]
fn products_that_append_to_lists_assemble_and_spill_two_words_at_most() {
    let Some(ptxas) = ptxas() else { return };
    let folder = tempfile::tempdir().unwrap();
    let addend = Type::new(DType::F32, Shape::from([64]));
    let mut assembled = 0;
    for row in table().iter().filter(|r| r.template.starts_with("gem") && r.template != "gemm_any.ptx.j2") {
        let variant = Variant::named(&row.name);
        if value(row, variant.text) != Some(DType::F32) || !variant.text.contains("//@store") {
            continue;
        }
        let finish = Finish::listed(&(arg(0) + arg(1)), std::slice::from_ref(&addend), [64, 64], 400).unwrap();
        let text = text(&Module { variant, finish: Some(Arc::new(finish)), constants: 0 });
        let done = assemble(&ptxas, &text, &row.target, folder.path());
        let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{}: {said}", row.name);
        let spilled = number_before(&said, "bytes spill stores");
        assert!(spilled.is_some_and(|bytes| bytes <= 8) && !said.contains("C75"), "{}: {said}", row.name);
        assembled += 1;
    }
    assert!(assembled >= 60, "{assembled}");
}
