//! Products of few rows on sm_90a as they ship, interpreted: two launches, work shared evenly among blocks; and planted errors.

use halfbyte::base::xorshift::Xorshift;
use halfbyte::{DType, Shape};

use crate::hopper_gemm::{Text, padded};
use crate::kernels::{encoded, integers};
use crate::ptx_interpreter::{Argument, Fault, Gpu, Kind, Launch, Module, TensorMap, caught};

/// A product of m rows, done by so many blocks.
struct Case {
    product: Text,
    reduce: Text,
    m: usize,
    n: usize,
    k: usize,
    blocks: usize,
}

impl Case {
    fn new(types: &str, tokens: usize, change: &[(&str, i64)], [m, n, k]: [usize; 3], blocks: usize) -> Case {
        let reduce = match types {
            "f16" | "bf16" => "f32",
            _ => "s32_f32",
        };
        let product = Text::new(&format!("gemm_sm90_skinny_{types}_{tokens}"), change);
        Case { product, reduce: Text::new(&format!("gemm_sm90_skinny_reduce_{reduce}"), &[]), m, n, k, blocks }
    }

    fn integer(&self) -> bool {
        self.product.word("w") == "s8"
    }

    /// Whether the texts give the exact result: the product's, and the shipped sum's.
    fn run(&self, text: &str, seed: u64) -> Result<bool, Fault> {
        let Case { m, n, k, .. } = *self;
        let random = &mut Xorshift::new(9);
        let bytes = if self.integer() { 1 } else { 2 };
        let (tokens, rows) = (self.product.number("tokens"), self.product.number("rows"));
        let (w, x) = (integers(random, n * k), integers(random, m * k));
        let shift = if self.product.word("x") == "u8" { 4 } else { 0 };
        let x: Vec<i32> = x.into_iter().map(|x| x + shift).collect();
        let records = |random: &mut Xorshift, count: usize| -> Vec<[i32; 4]> {
            let one = |_| {
                let small = integers(random, 3);
                [small[0], small[1], (0.25 * (1 + random.below(4)) as f32).to_bits() as i32, small[2]]
            };
            (0..count).map(one).collect()
        };
        let (of_x, of_w) = (records(random, m), records(random, n));
        let mut gpu = Gpu::default();
        let element = if self.integer() { "s8" } else { self.product.word("x") };
        let w_at = padded(&mut gpu, "w", &encoded(element, &w), k * bytes);
        let x_at = padded(&mut gpu, "x", &encoded(element, &x), k * bytes);
        let slots = (k * bytes).div_ceil(128);
        let tiles = n.div_ceil(rows);
        let share = (tiles * slots).div_ceil(self.blocks);
        let sums = gpu.global.reserve("sums", (self.blocks + tiles) * tokens * rows * 4);
        let out = gpu.global.reserve("out", m * n * 4);
        let map = |address, count: usize, extent: usize| {
            let strides = vec![(k * bytes).next_multiple_of(16) as u64];
            let (dims, extents) = (vec![k as u64, count as u64], vec![128 / bytes, extent]);
            Argument::Map(TensorMap { address, element_bytes: bytes, dims, strides, extents, swizzle_bytes: 128 })
        };
        let mut arguments = vec![map(w_at, n, rows), map(x_at, m, tokens), Argument::u64(sums)];
        arguments.extend([slots, tiles * slots, share].map(|v| Argument::u32(v as u32)));
        let module = Module::read(text)?;
        let row = &self.product.row;
        let shared_bytes = row.shared_bytes as usize;
        let grid = [self.blocks as u32, 1, 1];
        gpu.launch(module.entry(&row.name)?, &Launch { grid, block: [row.threads, 1, 1], shared_bytes, arguments, seed })?;
        let mut arguments = vec![Argument::u64(sums)];
        arguments.extend([n, slots, share, tokens, rows].map(|v| Argument::u32(v as u32)));
        if self.integer() {
            let flat = |r: &[[i32; 4]]| r.concat();
            arguments.push(Argument::u64(gpu.global.allocate("records of rows", &flat(&of_x))));
            arguments.push(Argument::u64(gpu.global.allocate("records of columns", &flat(&of_w))));
        }
        let finish = Text::finish(DType::F32, DType::F32, &Shape::from([m, n]), None);
        arguments.push(Text::argument(&finish, out, 0));
        let reduce = self.reduce.filled(&self.reduce.text, finish);
        let module = Module::read(&reduce)?;
        let row = &self.reduce.row;
        let grid = [n.div_ceil(2 * row.threads as usize) as u32, m as u32, 1];
        gpu.launch(module.entry(&row.name)?, &Launch { grid, block: [row.threads, 1, 1], shared_bytes: 0, arguments, seed })?;
        let got: Vec<f32> = gpu.global.values(out)?;
        Ok((0..m * n).all(|at| {
            let (i, j) = (at / n, at % n);
            let sum: i32 = (0..k).map(|l| x[i * k + l] * w[j * k + l]).sum();
            let (row, column) = (of_x[i], of_w[j]);
            let scale = |r: [i32; 4]| f32::from_bits(r[2] as u32);
            got[at]
                == match self.integer() {
                    true => (sum + column[3] - column[1] * row[0] - row[1] * column[0]) as f32 * (scale(row) * scale(column)),
                    false => sum as f32,
                }
        }))
    }
}

#[test]
fn few_rows() {
    let ring = &[("stages", 3)];
    for case in [
        Case::new("f16", 8, ring, [5, 300, 650], 4),
        Case::new("bf16", 16, &[], [16, 130, 72], 3),
        Case::new("f16", 32, ring, [27, 301, 330], 5),
        Case::new("bf16", 64, ring, [64, 520, 200], 2),
        Case::new("s8", 8, ring, [1, 300, 650], 4),
        Case::new("s8", 64, ring, [50, 300, 400], 3),
        Case::new("u8s8", 16, ring, [9, 257, 1000], 7),
    ] {
        for seed in 0..3 {
            let right =
                case.run(&case.product.text, seed).unwrap_or_else(|f| panic!("{} seed {seed}: {f}", case.product.row.name));
            assert!(right, "{} seed {seed}: another result", case.product.row.name);
        }
    }
}

#[test]
fn planted_errors_are_caught() {
    use Kind::*;
    let early = &[Unfinished, Race, Uninitialised, Proxy][..];
    let stuck = &[Deadlock, Misuse, Unfinished, Race, Uninitialised][..];
    let case = Case::new("f16", 32, &[("stages", 2)], [27, 301, 330], 3);
    let plants: &[(&str, &str, &[Kind])] = &[
        ("fence.mbarrier_init.release.cluster;", "", &[Proxy]),
        ("  bar.sync 0;", "", &[Misuse, Race, Uninitialised]),
        ("[%empty+0], 8;", "[%empty+0], 4;", stuck),
        ("[%ready], 36864;", "[%ready], 32768;", stuck),
        ("wgmma.fence.sync.aligned;", "", &[Misuse]),
        ("wgmma.wait_group.sync.aligned 1;", "", early),
        ("wgmma.wait_group.sync.aligned 0;", "", early),
        ("add.u64 %slot_w, %slot_w, 512;", "", &[]),
        ("add.u64 %slot_w, %slot_w, 512;", "add.u64 %slot_w, %slot_w, 256;", &[]),
        ("setp.ne.u32 %keep, %unit, %first;", "setp.eq.u32 %keep, %unit, %unit;", &[Uninitialised]),
        ("  mov.u32 %first, %unit;\n  @%more bra", "  @%more bra", &[]),
        ("add.u32 %at, %block, %tile;", "mov.u32 %at, %tile;", &[Uninitialised, Race]),
        ("@%is add.u32 %tile, %tile, 1;", "", &[]),
        ("selp.b32 %k, 0, %k, %is;", "", &[]),
    ];
    caught(&case.product.text, &|text, seed| case.run(text, seed), plants);
}
