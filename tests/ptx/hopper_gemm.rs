//! The matrix products of sm_90a as they ship, interpreted: ragged shapes, batches, clusters, formulas, integer corrections, under
//! many schedules; and the same texts with planted errors.

use std::path::Path;
use std::sync::Arc;

use half::{bf16, f16};
use halfbyte::base::xorshift::Xorshift;
use halfbyte::device::gpu::{Arg, Finish, Module as Filled, Pointer, Variant};
use halfbyte::graph::Type;
use halfbyte::scalar::arg;
use halfbyte::{DType, Shape};

use crate::cuda::render::{Row, render_rows, rows};
use crate::kernels::{encoded, integers};
use crate::ptx_interpreter::{Argument, Fault, Gpu, Kind, Launch, Module, Statistics, TensorMap, caught};

/// A kernel's row and text.
pub struct Text {
    pub row: Row,
    pub text: String,
}

impl Text {
    /// The row of this name with other parameters.
    pub fn new(name: &str, change: &[(&str, i64)]) -> Text {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels"));
        let mut row = rows(folder).unwrap().into_iter().find(|r: &Row| r.name == name).unwrap_or_else(|| panic!("no {name}"));
        for (key, value) in change {
            row.params.insert(key.to_string(), toml::Value::Integer(*value));
        }
        let text = render_rows(folder, std::iter::once(row.clone())).unwrap().remove(0).text;
        Text { row, text }
    }

    pub fn number(&self, key: &str) -> usize {
        self.row.params[key].as_integer().unwrap() as usize
    }

    pub fn word(&self, key: &str) -> &str {
        self.row.params.get(key).and_then(|v| v.as_str()).unwrap_or("")
    }

    fn is(&self, key: &str) -> bool {
        self.row.params.get(key).and_then(|v| v.as_bool()).unwrap_or(false)
    }

    /// The value stored as `out`, or the value plus the operand.
    pub fn finish(value: DType, out: DType, shape: &Shape, operand: Option<Type>) -> Arc<Finish> {
        let out = Type::new(out, shape.clone());
        Arc::new(match operand {
            Some(operand) => Finish::new(Some(value), &(arg(0) + arg(1)), &[operand], &out).unwrap(),
            None => Finish::new(Some(value), &arg(0), &[], &out).unwrap(),
        })
    }

    /// The parameter `finish`.
    pub fn argument(finish: &Finish, out: u64, operand: u64) -> Argument {
        let mut block = Vec::new();
        flatten(&finish.argument(Pointer::Output(0, 0), &[Pointer::Input(0, 0)]), &mut block, &|p| match p {
            Pointer::Output(..) => out,
            Pointer::Input(..) => operand,
            _ => 0,
        });
        Argument::Bytes(block)
    }

    /// `text` with its slots filled.
    pub fn filled(&self, text: &str, finish: Arc<Finish>) -> String {
        let variant = Variant {
            name: "",
            template: "",
            target: "sm_90a",
            threads: self.row.threads,
            shared_bytes: self.row.shared_bytes,
            numbers: &[],
            value: "f32",
            text: "",
            cubin: None,
        };
        Filled { variant: Box::leak(Box::new(variant)), finish: Some(finish), constants: 0 }.fill(text).unwrap()
    }
}

/// A kernel and the product it is given.
struct Case {
    kernel: Text,
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    /// Whether all matrices of a batch share B.
    shared_b: bool,
    blocks: u32,
    out: DType,
}

impl Case {
    /// The row of this name with other parameters, on `[batch, m, n, k]`, run by so many blocks.
    fn new(name: &str, change: &[(&str, i64)], [batch, m, n, k]: [usize; 4], blocks: u32) -> Case {
        Case { kernel: Text::new(name, change), batch, m, n, k, shared_b: false, blocks, out: DType::F16 }
    }

    fn sharing(self) -> Case {
        Case { shared_b: true, ..self }
    }

    fn giving(self, out: DType) -> Case {
        Case { out, ..self }
    }

    fn integer(&self) -> bool {
        self.kernel.word("b") == "s8"
    }

    /// The formula: the value plus an operand, of one element for each column or each result.
    fn finish(&self) -> Arc<Finish> {
        let value = if self.kernel.word("value") == "s32" { DType::I32 } else { DType::F32 };
        let shape = Shape::from([self.batch, self.m, self.n]);
        let operand = if self.boxes() { shape.clone() } else { Shape::from([self.n]) };
        Text::finish(value, self.out, &shape, Some(Type::new(value, operand)))
    }

    /// Whether results are stored by tensor stores.
    fn boxes(&self) -> bool {
        self.kernel.word("out") == "tile"
    }

    /// Whether the text gives the exact result.
    fn run(&self, text: &str, seed: u64) -> Result<bool, Fault> {
        Ok(self.execute(text, seed)?.0)
    }

    /// The same, and what the launch did.
    fn execute(&self, text: &str, seed: u64) -> Result<(bool, Statistics), Fault> {
        let Case { batch, m, n, k, .. } = *self;
        let random = &mut Xorshift::new(7);
        let b_count = if self.shared_b { 1 } else { batch };
        let signed = self.kernel.word("a") != "u8";
        let a: Vec<i32> = integers(random, batch * m * k).into_iter().map(|x| if signed { x } else { x + 4 }).collect();
        let b = integers(random, b_count * n * k);
        let records = |random: &mut Xorshift, count: usize| -> Vec<[i32; 4]> {
            let one = |_| {
                let small = integers(random, 3);
                [small[0], small[1], (0.25 * (1 + random.below(4)) as f32).to_bits() as i32, small[2]]
            };
            (0..count).map(one).collect()
        };
        let (rows, columns) = (records(random, batch * m), records(random, b_count * n));
        let operand = integers(random, if self.boxes() { batch * m * n } else { n });
        let mut gpu = Gpu::default();
        let element = |name| if name == "u8" { "s8" } else { name };
        let a_at = padded(&mut gpu, "a", &encoded(element(self.kernel.word("a")), &a), k * self.bytes());
        let b_at = padded(&mut gpu, "b", &encoded(element(self.kernel.word("b")), &b), k * self.bytes());
        let size = self.out.size_bytes();
        let out = gpu.global.reserve("out", batch * m * n * size);
        let flat = |r: &[[i32; 4]]| r.concat();
        let (rows_at, columns_at) = (gpu.global.allocate("rows", &flat(&rows)), gpu.global.allocate("columns", &flat(&columns)));
        let stored: Vec<i32> = match self.kernel.word("value") {
            "s32" => operand.clone(),
            _ => operand.iter().map(|&x| (x as f32).to_bits() as i32).collect(),
        };
        let operand_at = gpu.global.allocate("operand", &stored);
        let arguments = self.arguments([a_at, b_at, out, rows_at, columns_at, operand_at]);
        let filled = self.kernel.filled(text, self.finish());
        let module = Module::read(&filled)?;
        let shared_bytes = self.kernel.row.shared_bytes as usize;
        let launch = Launch { grid: [self.blocks, 1, 1], block: [self.kernel.row.threads, 1, 1], shared_bytes, arguments, seed };
        let statistics = gpu.launch(module.entry(&self.kernel.row.name)?, &launch)?;
        let got: Vec<u8> = gpu.global.values(out)?;
        let right = (0..batch * m * n).all(|i| {
            let (z, r, c) = (i / (m * n), i / n % m, i % n);
            let zb = if self.shared_b { 0 } else { z };
            let sum: i32 = (0..k).map(|x| a[(z * m + r) * k + x] * b[(zb * n + c) * k + x]).sum();
            let value = self.value(sum, rows[z * m + r], columns[zb * n + c]);
            self.stored(value, operand[if self.boxes() { i } else { c }]) == got[i * size..][..size]
        });
        Ok((right, statistics))
    }

    fn bytes(&self) -> usize {
        if self.integer() { 1 } else { 2 }
    }

    /// The sum after the records: an integer, or a float's value.
    fn value(&self, sum: i32, row: [i32; 4], column: [i32; 4]) -> f64 {
        let sum = if self.kernel.is("terms") { sum + column[3] - column[1] * row[0] - row[1] * column[0] } else { sum };
        let scale = |r: [i32; 4]| f32::from_bits(r[2] as u32);
        if self.kernel.is("scaled") { f64::from(sum as f32 * (scale(row) * scale(column))) } else { f64::from(sum) }
    }

    fn stored(&self, value: f64, operand: i32) -> Vec<u8> {
        let x = value as f32 + operand as f32;
        match self.out {
            DType::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
            DType::BF16 => bf16::from_f32(x).to_le_bytes().to_vec(),
            DType::I32 => (value as i32 + operand).to_le_bytes().to_vec(),
            _ => x.to_le_bytes().to_vec(),
        }
    }

    fn arguments(&self, [a, b, out, rows, columns, operand]: [u64; 6]) -> Vec<Argument> {
        let Case { batch, m, n, k, .. } = *self;
        let (tm, tn, cluster) = (self.kernel.number("m"), self.kernel.number("n"), self.kernel.number("cluster"));
        let (bytes, pitch) = (self.bytes(), (k * self.bytes()).next_multiple_of(16));
        let map = |address, bytes: usize, dims: [usize; 3], pitch: usize, extents: [usize; 2]| {
            let strides = vec![pitch as u64, (pitch * dims[1]) as u64];
            let dims = dims.map(|d| d as u64).to_vec();
            let extents = vec![extents[0], extents[1], 1];
            Argument::Map(TensorMap { address, element_bytes: bytes, dims, strides, extents, swizzle_bytes: 128 })
        };
        let b_count = if self.shared_b { 1 } else { batch };
        let mut all = vec![
            map(a, bytes, [k, m, batch], pitch, [128 / bytes, tm]),
            map(b, bytes, [k, n, b_count], pitch, [128 / bytes, tn / cluster]),
        ];
        if self.boxes() {
            all.push(map(out, 2, [n, m, batch], n * 2, [64, 64]));
        }
        let (tiles_m, tiles_n) = (m.div_ceil(tm * cluster), n.div_ceil(tn));
        let slots = (k * bytes).div_ceil(128);
        let steps = [1, usize::from(!self.shared_b)];
        let numbers = [m, n, slots, tiles_m, tiles_n, tiles_m * tiles_n * batch, 2, steps[0], steps[1]];
        all.extend(numbers.map(|x| Argument::u32(x as u32)));
        if self.kernel.is("scaled") || self.kernel.is("terms") {
            let per = |step: usize, count: usize| Argument::u32((step * count) as u32);
            all.extend([Argument::u64(rows), per(1, m), Argument::u64(columns), per(steps[1], n)]);
        }
        all.push(Text::argument(&self.finish(), out, operand));
        all
    }
}

/// Rows of `row_bytes` bytes, each at a multiple of 16 bytes.
pub fn padded(gpu: &mut Gpu, name: &str, rows: &[u8], row_bytes: usize) -> u64 {
    let mut bytes = Vec::new();
    for row in rows.chunks(row_bytes) {
        bytes.extend_from_slice(row);
        bytes.resize(bytes.len().next_multiple_of(16), 0x7F);
    }
    gpu.global.allocate(name, &bytes)
}

fn flatten(arg: &Arg, into: &mut Vec<u8>, address: &dyn Fn(Pointer) -> u64) {
    match arg {
        Arg::U32(v) => into.extend(v.to_le_bytes()),
        Arg::Pointer(p) => into.extend(address(*p).to_le_bytes()),
        Arg::Block(parts) => parts.iter().for_each(|p| flatten(p, into, address)),
        _ => panic!("{arg:?} in a formula's argument"),
    }
}

fn sound(case: &Case, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let right = case.run(&case.kernel.text, seed).unwrap_or_else(|f| panic!("{} seed {seed}: {f}", case.kernel.row.name));
        assert!(right, "{} seed {seed}: another result", case.kernel.row.name);
    }
}

#[test]
fn every_row_computes() {
    let all: Vec<Row> = rows(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels"))).unwrap();
    let wide = all.iter().filter(|r| r.template == "gemm_sm90.ptx.j2");
    for row in wide.clone() {
        let case = Case::new(&row.name, &[], [1, 72, 72, 80], 2);
        let out = match (case.boxes(), case.kernel.word("value"), case.kernel.word("a")) {
            (true, _, "bf16") => DType::BF16,
            (true, ..) => DType::F16,
            (_, "s32", _) => DType::I32,
            _ => DType::F32,
        };
        sound(&case.giving(out), 0..1);
    }
    assert!(wide.count() > 20);
}

/// Tiles of 128 x 128 and 64 x 256 on a few blocks, so that each takes several tiles; no extent is a multiple of its tile.
#[test]
fn ragged_products() {
    sound(&Case::new("gemm_sm90_f16_128x128", &[("stages", 3)], [2, 200, 136, 200], 2), 0..4);
    sound(&Case::new("gemm_sm90_bf16_128x128", &[], [1, 130, 264, 70], 3).giving(DType::BF16), 0..2);
    sound(&Case::new("gemm_sm90_bf16_64x256", &[("stages", 2)], [3, 70, 264, 130], 2).giving(DType::BF16).sharing(), 0..3);
    sound(&Case::new("gemm_sm90_f16_64x256_any", &[], [1, 65, 259, 136], 2).giving(DType::F32), 0..2);
    sound(&Case::new("gemm_sm90_f16_128x128_any", &[("stages", 2)], [2, 131, 133, 203], 3).giving(DType::F32), 0..3);
}

#[test]
fn big_tiles_and_clusters() {
    sound(&Case::new("gemm_sm90_f16_128x256", &[("stages", 2)], [1, 140, 264, 200], 1), 0..2);
    sound(&Case::new("gemm_sm90_f16_128x256_c2", &[("stages", 2)], [1, 270, 264, 200], 2), 0..4);
    sound(&Case::new("gemm_sm90_bf16_128x256_c2", &[], [2, 140, 72, 330], 4).giving(DType::BF16), 0..2);
}

#[test]
fn integer_products_with_their_records() {
    sound(&Case::new("gemm_sm90_s8_scaled_128x128", &[("stages", 2)], [2, 140, 136, 300], 2), 0..4);
    sound(&Case::new("gemm_sm90_s8_scaled_128x128_any", &[], [1, 140, 133, 300], 2).giving(DType::F32), 0..2);
    sound(&Case::new("gemm_sm90_s8_scaled_terms_128x128", &[("stages", 2)], [2, 140, 136, 300], 2).sharing(), 0..3);
    sound(&Case::new("gemm_sm90_u8s8_scaled_terms_128x128_any", &[], [1, 140, 133, 300], 2).giving(DType::F32), 0..2);
    sound(&Case::new("gemm_sm90_u8s8_terms_128x128_any", &[], [1, 140, 133, 300], 2).giving(DType::I32), 0..2);
    sound(&Case::new("gemm_sm90_s8_scaled_128x256_c2", &[("stages", 3)], [1, 260, 136, 600], 2), 0..2);
}

/// Staging by `stmatrix` and the columns' records.
#[test]
fn shared_memory_serves_at_its_full_rate() {
    for name in ["gemm_sm90_f16_128x256", "gemm_sm90_s8_scaled_terms_128x128"] {
        let case = Case::new(name, &[], [1, 128, 256, 128], 1);
        let statistics = case.execute(&case.kernel.text, 0).unwrap().1;
        assert!(statistics.shared_stores.requests > 0 && statistics.conflicts().is_empty(), "{:?}", statistics.conflicts());
    }
}

/// Each at its place in the text, and the kinds of error that may show; none where a wrong result does.
type Plants<'a> = &'a [(&'a str, &'a str, &'a [Kind])];

use Kind::*;
const EARLY: &[Kind] = &[Unfinished, Race, Uninitialised, Proxy];
const STUCK: &[Kind] = &[Deadlock, Misuse, Unfinished, Race, Uninitialised];

#[test]
fn planted_errors_are_caught() {
    let case = Case::new("gemm_sm90_f16_128x128", &[("stages", 2)], [1, 140, 136, 300], 2);
    let plants: Plants = &[
        ("fence.mbarrier_init.release.cluster;", "", &[Proxy]),
        ("  bar.sync 0;", "", &[Misuse, Race, Uninitialised]),
        ("[%full+0], 1;", "[%full+0], 2;", &[Deadlock]),
        ("[%empty+0], 8;", "[%empty+0], 2;", STUCK),
        ("[%empty+0], 8;", "[%empty+0], 9;", &[Deadlock]),
        ("xor.b32 %other, %parity, 1;", "mov.b32 %other, %parity;", &[Deadlock]),
        ("[%ready], 32768;", "[%ready], 16384;", STUCK),
        ("[%ready], 32768;", "[%ready], 32784;", &[Deadlock]),
        ("add.u32 %to_b, %to, 16384;", "add.u32 %to_b, %to, 8192;", EARLY),
        ("mul.lo.u32 %from, %k, 64;", "mul.lo.u32 %from, %k, 32;", &[]),
        ("@%wraps xor.b32 %parity, %parity, 1;", "", STUCK),
        (
            "setp.eq.u32 %wraps, %slot, 2;",
            "setp.eq.u32 %wraps, %slot, 3;",
            &[Misuse, Race, Bounds, Misaligned, Deadlock, Uninitialised],
        ),
        ("wgmma.fence.sync.aligned;", "", &[Misuse]),
        ("wgmma.commit_group.sync.aligned;", "", EARLY),
        ("wgmma.wait_group.sync.aligned 1;", "", EARLY),
        ("wgmma.wait_group.sync.aligned 1;", "wgmma.wait_group.sync.aligned 2;", EARLY),
        ("wgmma.wait_group.sync.aligned 0;", "", EARLY),
        ("wgmma.wait_group.sync.aligned 0;", "wgmma.wait_group.sync.aligned 1;", EARLY),
        ("setp.ne.u32 %keep, %k, 0;", "setp.eq.u32 %keep, %k, %k;", &[Uninitialised]),
        ("or.b64 %start_b, %start_b, 0x4000004000010000;", "or.b64 %start_b, %start_b, 0x8000004000010000;", &[]),
        ("or.b64 %start_a, %start_a, 0x4000004000010000;", "or.b64 %start_a, %start_a, 0x4000002000010000;", &[]),
        ("add.u64 %a, %slot_a, 2;", "add.u64 %a, %slot_a, 4;", &[]),
        ("mul.wide.u32 %offset, %slot, 2048;", "mul.wide.u32 %offset, %slot, 1024;", EARLY),
        ("and.pred %more, %keep, %speaks;", "and.pred %more, %speaks, %speaks;", &[Uninitialised]),
        ("cp.async.bulk.wait_group.read 1;", "cp.async.bulk.wait_group.read 2;", EARLY),
        ("fence.proxy.async.shared::cta;", "", &[Proxy]),
        ("@%leads cp.async.bulk.wait_group 0;", "", &[Unfinished]),
        ("xor.b32 %chunk, %chunk, %key;", "", &[]),
        ("xor.b32 %at, %lane_at, 32;", "xor.b32 %at, %lane_at, 16;", &[Race]),
        ("cp.async.bulk.commit_group;", "", EARLY),
        (
            "add.u32 %pair, %col, 64;\n  {\n  .reg .b32 %last;\n  sub.u32 %last, %n, 2;",
            "add.u32 %pair, %col, 64;\n  {\n  .reg .b32 %last;\n  mov.u32 %last, -1;",
            &[Bounds],
        ),
    ];
    caught(&case.kernel.text, &|text, seed| case.run(text, seed), plants);
}

#[test]
fn planted_errors_of_stores_by_threads_are_caught() {
    let case = Case::new("gemm_sm90_s8_scaled_128x128_any", &[("stages", 2)], [1, 270, 133, 300], 1).giving(DType::F32);
    let plants: Plants = &[
        ("  bar.warp.sync -1;\n", "", &[Race]),
        ("setp.lt.and.u32 %p1, %next, %n, %in0;", "setp.le.and.u32 %p1, %next, %n, %in0;", &[]),
        ("setp.lt.and.u32 %p0, %pair, %n, %in1;", "setp.lt.u32 %p0, %pair, %n;", &[Race]),
        ("sub.u32 %rows, %tiles_m, %first;", "mov.b32 %rows, %group;", &[]),
    ];
    caught(&case.kernel.text, &|text, seed| case.run(text, seed), plants);
}

/// Both warpgroups' barriers before and after a box is written, and the barriers of what belongs to columns.
#[test]
fn planted_errors_of_the_epilogue_are_caught() {
    let case = Case::new("gemm_sm90_s8_scaled_128x128", &[("stages", 2)], [1, 270, 136, 300], 1);
    let first = "  @!%second bar.sync 1, 128;\n  @%second bar.sync 2, 128;";
    let release = "@%first mbarrier.arrive.release.cta.shared::cta.b64 _, [%columns+8];";
    let plants: Plants = &[
        (first, "", EARLY),
        (
            "fence.proxy.async.shared::cta;\n  @!%second bar.sync 1, 128;\n  @%second bar.sync 2, 128;",
            "fence.proxy.async.shared::cta;",
            EARLY,
        ),
        ("@%second bar.sync 2, 128;", "@%second bar.sync 1, 128;", &[Misuse, Race, Deadlock, Uninitialised, Unfinished]),
        (release, "", &[Deadlock]),
        ("[%columns], 32;", "[%columns], 1;", &[Race, Uninitialised, Misuse]),
        ("[%columns+8], 8;", "[%columns+8], 1;", &[Race, Misuse, Deadlock]),
        ("xor.b32 %column_parity, %column_parity, 1;", "", &[Race, Deadlock, Uninitialised]),
        ("setp.lt.and.u32 %there, %col, %n, %given;", "mov.pred %there, %given;", &[Bounds]),
        ("min.u32 %row1, %row1, %last;", "", &[Bounds]),
    ];
    caught(&case.kernel.text, &|text, seed| case.run(text, seed), plants);
}

#[test]
fn planted_errors_of_clusters_are_caught() {
    let case = Case::new("gemm_sm90_f16_128x256_c2", &[("stages", 2), ("n", 128)], [1, 270, 136, 300], 2);
    let plants: Plants = &[
        ("barrier.cluster.wait.acquire.aligned;", "", &[Misuse, Race, Uninitialised]),
        ("setp.lt.u32 %speaks, %lane, 2;", "setp.lt.u32 %speaks, %lane, 1;", &[Deadlock]),
        ("[%empty+0], 16;", "[%empty+0], 8;", STUCK),
        ("mov.b16 %blocks, 3;", "mov.b16 %blocks, 1;", STUCK),
        ("mapa.shared::cluster.u32 %there, %done, %lane;", "mapa.shared::cluster.u32 %there, %done, %rank;", STUCK),
        ("mad.lo.u32 %to_b, %rank, 8192, %to_b;", "", EARLY),
        ("mad.lo.u32 %col, %rank, 64, %col;", "", &[]),
        // A block whose shared memory others write or arrive at must not leave before they have.
        ("  barrier.cluster.arrive.release;\n  barrier.cluster.wait.acquire;\n  ret;", "  ret;", &[Race, Unfinished]),
        ("  barrier.cluster.wait.acquire;\n  ret;", "  ret;", &[Race, Unfinished]),
    ];
    caught(&case.kernel.text, &|text, seed| case.run(text, seed), plants);
}
