//! Products of matrices in every shape, layout and element of the interpreter, from layouts written out as the ISA draws them.

use halfbyte::base::xorshift::Xorshift;

use crate::instructions::HEAD;
use crate::kernels::{integers, product};
use crate::ptx_interpreter::{Argument, Gpu, Kind, Launch, Module};

/// An integer as an element, and the bytes it takes.
fn element(of: &str, x: i32) -> (u32, usize) {
    match of {
        "f16" => (half::f16::from_f32(x as f32).to_bits().into(), 2),
        "bf16" => (half::bf16::from_f32(x as f32).to_bits().into(), 2),
        "tf32" => ((x as f32).to_bits() | 0x1abc, 4),
        _ => (u32::from(x as u8), 1),
    }
}

/// Integers that the element holds.
fn values(random: &mut Xorshift, of: &str, n: usize) -> Vec<i32> {
    integers(random, n).into_iter().map(|x| if of == "u8" { x.abs() + 200 } else { x }).collect()
}

/// Row and column of element i of a lane's fragment. Source: PTX ISA 9.7.13.4, the lists under the figures.
type Layout = fn(usize, usize, usize) -> (usize, usize);

struct Shape {
    name: &'static str,
    m: usize,
    k: usize,
    /// Elements of A, of B.
    counts: [usize; 2],
    a: Layout,
    b: Layout,
}

const SHAPES: [(&str, Shape); 8] = [
    (
        "f16",
        Shape {
            name: "m16n8k8",
            m: 16,
            k: 8,
            counts: [4, 2],
            a: |i, g, t| (g + i / 2 * 8, t * 2 + i % 2),
            b: |i, g, t| (t * 2 + i, g),
        },
    ),
    (
        "f16",
        Shape {
            name: "m16n8k16",
            m: 16,
            k: 16,
            counts: [8, 4],
            a: |i, g, t| (if i < 2 || (4..6).contains(&i) { g } else { g + 8 }, t * 2 + i % 2 + if i < 4 { 0 } else { 8 }),
            b: |i, g, t| (t * 2 + i % 2 + if i < 2 { 0 } else { 8 }, g),
        },
    ),
    (
        "bf16",
        Shape {
            name: "m16n8k8",
            m: 16,
            k: 8,
            counts: [4, 2],
            a: |i, g, t| (g + i / 2 * 8, t * 2 + i % 2),
            b: |i, g, t| (t * 2 + i, g),
        },
    ),
    ("tf32", Shape { name: "m16n8k4", m: 16, k: 4, counts: [2, 1], a: |i, g, t| (g + i * 8, t), b: |_, g, t| (t, g) }),
    (
        "tf32",
        Shape {
            name: "m16n8k8",
            m: 16,
            k: 8,
            counts: [4, 2],
            a: |i, g, t| (g + i % 2 * 8, t + i / 2 * 4),
            b: |i, g, t| (t + 4 * i, g),
        },
    ),
    ("s8", Shape { name: "m8n8k16", m: 8, k: 16, counts: [4, 4], a: |i, g, t| (g, t * 4 + i), b: |i, g, t| (t * 4 + i, g) }),
    (
        "s8",
        Shape {
            name: "m16n8k16",
            m: 16,
            k: 16,
            counts: [8, 4],
            a: |i, g, t| (g + i / 4 * 8, t * 4 + i % 4),
            b: |i, g, t| (t * 4 + i, g),
        },
    ),
    (
        "s8",
        Shape {
            name: "m16n8k32",
            m: 16,
            k: 32,
            counts: [16, 8],
            a: |i, g, t| (if i < 4 || (8..12).contains(&i) { g } else { g + 8 }, t * 4 + i % 4 + if i < 8 { 0 } else { 16 }),
            b: |i, g, t| (t * 4 + i % 4 + if i < 4 { 0 } else { 16 }, g),
        },
    ),
];

/// The registers of a lane that hold the elements.
fn packed(of: &str, elements: &[i32]) -> Vec<u32> {
    let per = 4 / element(of, 0).1;
    let bits = |(n, x): (usize, &i32)| element(of, *x).0 << (8 * n * element(of, 0).1);
    elements.chunks(per).map(|c| c.iter().enumerate().map(bits).fold(0, |all, b| all | b)).collect()
}

fn names(stem: &str, n: usize) -> String {
    let all: Vec<String> = (0..n).map(|i| format!("%{stem}{i}")).collect();
    format!("{{{}}}", all.join(", "))
}

/// Loads or stores of each lane's registers, one after another.
fn moved(stem: &str, n: usize, first: usize, store: bool) -> String {
    let one = |i: usize| {
        let at = (first + i) * 4;
        if store { format!("st.global.b32 [%l1+{at}], %{stem}{i}; ") } else { format!("ld.global.b32 %{stem}{i}, [%l0+{at}]; ") }
    };
    (0..n).map(one).collect()
}

/// D of lanes from their registers, each 32 in a row.
fn run(text: &str, threads: u32, inputs: &[u32], shared: usize) -> Result<Vec<u32>, Kind> {
    let module = Module::read(text).map_err(|f| panic!("{f}")).unwrap();
    let mut gpu = Gpu::default();
    let from = gpu.global.allocate("x", inputs);
    let to = gpu.global.allocate("y", &vec![0u32; threads as usize * 128]);
    let launch = Launch {
        grid: [1; 3],
        block: [threads, 1, 1],
        shared_bytes: shared,
        arguments: vec![Argument::u64(from), Argument::u64(to)],
        seed: 0,
    };
    gpu.launch(&module.entries[0], &launch).map_err(|f| {
        println!("{f}");
        f.kind
    })?;
    Ok(gpu.global.values(to).unwrap())
}

#[test]
fn every_shape_of_mma() {
    let random = &mut Xorshift::new(8);
    let mut cases = 0;
    for (of, shape) in &SHAPES {
        for b_of in ["s8", "u8", of] {
            for a_of in ["s8", "u8", of] {
                if (*of == "s8") != (a_of.ends_with('8') && b_of.ends_with('8')) || (*of != "s8" && (a_of != *of || b_of != *of))
                {
                    continue;
                }
                for sum in if *of == "f16" {
                    &["f32", "f16"][..]
                } else if *of == "s8" {
                    &["s32"]
                } else {
                    &["f32"]
                } {
                    one_mma(random, shape, [a_of, b_of], sum);
                    cases += 1;
                }
            }
        }
    }
    assert!(cases >= 16, "{cases}");
}

fn one_mma(random: &mut Xorshift, shape: &Shape, [a_of, b_of]: [&str; 2], sum: &str) {
    let Shape { name, m, k, counts, a: a_at, b: b_at } = *shape;
    let (a, b) = (values(random, a_of, m * k), values(random, b_of, k * 8));
    let (ra, rb, rd) =
        (counts[0] * element(a_of, 0).1 / 4, counts[1] * element(b_of, 0).1 / 4, m / 8 * if sum == "f16" { 1 } else { 2 });
    let mut inputs = Vec::new();
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        let of = |list: &[i32], width: usize, (r, c): (usize, usize)| list[r * width + c];
        let row: Vec<i32> = (0..counts[0]).map(|i| of(&a, k, a_at(i, g, t))).collect();
        let column: Vec<i32> = (0..counts[1]).map(|i| of(&b, 8, b_at(i, g, t))).collect();
        let start = inputs.len();
        inputs.extend(packed(a_of, &row));
        inputs.extend(packed(b_of, &column));
        inputs.resize(start + 32, 0);
    }
    let zero: String = (0..rd).map(|i| format!("mov.b32 %d{i}, 0; ")).collect();
    let opcode = format!("mma.sync.aligned.{name}.row.col.{sum}.{a_of}.{b_of}.{sum}");
    let d = names("d", rd);
    let text = format!(
        "{HEAD}.visible .entry k(.param .u64 pX, .param .u64 pY)\n{{\n.reg .b64 %l<2>; .reg .b32 %r, %a<4>, %b<2>, %d<4>;\n\
         mov.u32 %r, %tid.x; ld.param.u64 %l0, [pX]; ld.param.u64 %l1, [pY];\n\
         mad.wide.u32 %l0, %r, 128, %l0; mad.wide.u32 %l1, %r, 512, %l1;\n{}{}{zero}\n{opcode} {d}, {}, {}, {d};\n\
         {opcode} {d}, {}, {}, {d};\n{}ret;\n}}\n",
        moved("a", ra, 0, false),
        moved("b", rb, ra, false),
        names("a", ra),
        names("b", rb),
        names("a", ra),
        names("b", rb),
        moved("d", rd, 0, true)
    );
    let got = run(&text, 32, &inputs, 0).unwrap();
    if let Some(ptxas) = crate::ptxas() {
        crate::assemble(&ptxas, "sm_90a", &text);
    }
    let want: Vec<i32> = (0..m * 8).map(|i| 2 * (0..k).map(|x| a[i / 8 * k + x] * b[x * 8 + i % 8]).sum::<i32>()).collect();
    for lane in 0..32 {
        for i in 0..m / 4 {
            let (row, column) = (lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2);
            let value = match sum {
                "s32" => got[lane * 128 + i] as i32,
                "f32" => f32::from_bits(got[lane * 128 + i]) as i32,
                _ => half::f16::from_bits((got[lane * 128 + i / 2] >> (16 * (i % 2))) as u16).to_f32() as i32,
            };
            assert_eq!(value, want[row * 8 + column], "{opcode} row {row} column {column}");
        }
    }
}

/// How a factor lies in shared memory.
#[derive(Clone, Copy, Debug)]
struct Lies {
    swizzle: usize,
    transposed: bool,
}

/// Bytes of a factor of `rows` rows of k, and its descriptor but for the start. Source: CUTLASS, canonical layouts of
/// `mma_sm90_desc.hpp`.
fn image(of: &str, values: &[i32], rows: usize, Lies { swizzle, transposed }: Lies) -> (Vec<u8>, u64) {
    let size = element(of, 0).1;
    let k = values.len() / rows;
    let mut bytes = vec![0; 32768];
    let span = swizzle.max(16);
    // In bytes along the dimension that lies together, and along the other.
    let (leading, stride) = match (transposed, swizzle) {
        (false, 0) => (128, 8 * k * size),
        (false, n) => (16, 8 * n),
        (true, 0) => (rows * 16, 128),
        (true, n) => (k / 8 * 8 * n, 8 * n),
    };
    for (i, x) in values.iter().enumerate() {
        let (row, kk) = (i / k, i % k);
        let at = if transposed {
            let (atom, inside) = (row * size / span, row * size % span);
            match swizzle {
                0 => row / 8 * stride + kk / 8 * leading + kk % 8 * 16 + row % 8 * size,
                n => atom * leading + kk / 8 * stride + kk % 8 * n + inside,
            }
        } else {
            match swizzle {
                0 => row / 8 * stride + kk * size / 16 * leading + row % 8 * 16 + kk * size % 16,
                n => row / 8 * stride + row % 8 * n + kk * size,
            }
        };
        let turned = match swizzle {
            0 => at,
            n => at ^ (at / 128 % (n / 16) * 16),
        };
        let (bits, n) = element(of, *x);
        bytes[turned..turned + n].copy_from_slice(&bits.to_le_bytes()[..n]);
    }
    let mode = [(0, 0u64), (128, 1), (64, 2), (32, 3)].into_iter().find(|m| m.0 == swizzle).unwrap().1;
    (bytes, mode << 62 | (stride as u64 >> 4) << 32 | (leading as u64 >> 4) << 16)
}

/// Keeps two of each four of the 64 rows of a matrix. Gives what is left and a word of places for each thread. Source: PTX ISA,
/// `wgmma.mma_async.sp`, figures 176, 180 and 181 of the metadata: of 16 bits lane 4 g + 2 selector + h of a warp has columns 16 h to 16 h + 15 of its
/// rows g (low half) and g + 8, of bytes lane 4 g + 2 h + low columns 32 h to 32 h + 31 of row g + 8 low.
fn halved(random: &mut Xorshift, a: &mut [i32], k: usize, selector: usize) -> (Vec<i32>, Vec<u32>) {
    let (mut left, mut words) = (Vec::new(), vec![0; 128]);
    for (i, four) in a.chunks_exact_mut(4).enumerate() {
        let (row, column) = (i / (k / 4), i % (k / 4) * 4);
        let (x, y) = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)][random.below(6)];
        left.extend([four[x], four[y]]);
        (0..4).filter(|at| ![x, y].contains(at)).for_each(|at| four[at] = 0);
        let (warp, g, low) = (row / 16, row % 8, row / 8 % 2);
        let (lane, bit) = match k {
            32 => (4 * g + 2 * selector + column / 16, 16 * low + column % 16),
            _ => (4 * g + 2 * (column / 32) + low, column % 32),
        };
        words[32 * warp + lane] |= ((x | y << 2) as u32) << bit;
    }
    (left, words)
}

/// D = A B twice, with the left factor in shared memory, or in registers where `a` says nothing; with two of its fours left, and this selector of
/// their places, where there is one.
fn one_wgmma(n: usize, types: [&str; 2], sum: &str, a_lies: Option<Lies>, b_lies: Lies) {
    wgmma_of(n, types, sum, [a_lies, Some(b_lies)], None);
}

fn wgmma_of(n: usize, [a_of, b_of]: [&str; 2], sum: &str, [a_lies, b_lies]: [Option<Lies>; 2], sparse: Option<usize>) {
    let (text, inputs, want) = wgmma_case(n, [a_of, b_of], sum, [a_lies, b_lies], sparse);
    let got = run(&text, 128, &inputs, 65536).unwrap_or_else(|k| panic!("{k:?} {text}"));
    if let Some(ptxas) = crate::ptxas().filter(|_| n == 64 || n == 8) {
        crate::assemble(&ptxas, "sm_90a", &text);
    }
    for thread in 0..128 {
        for i in 0..n / 2 {
            let row = thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8;
            let column = i / 4 * 8 + thread % 4 * 2 + i % 2;
            let value = match sum {
                "s32" => got[thread * 128 + i] as i32,
                "f32" => f32::from_bits(got[thread * 128 + i]) as i32,
                _ => half::f16::from_bits((got[thread * 128 + i / 2] >> (16 * (i % 2))) as u16).to_f32() as i32,
            };
            assert_eq!(value, 2 * want[row * n + column], "row {row} column {column} {a_lies:?} {b_lies:?} {text}");
        }
    }
}

/// The text, its inputs, and half of what it gives.
fn wgmma_case(
    n: usize,
    [a_of, b_of]: [&str; 2],
    sum: &str,
    [a_lies, b_lies]: [Option<Lies>; 2],
    sparse: Option<usize>,
) -> (String, Vec<u32>, Vec<i32>) {
    let b_lies = b_lies.expect("B lies in shared memory");
    let random = &mut Xorshift::new(n as u64);
    let left_k = 32 / element(a_of, 0).1;
    let k = if sparse.is_some() { 2 * left_k } else { left_k };
    let (mut a, b) = (values(random, a_of, 64 * k), values(random, b_of, n * k));
    let (left, words) = match sparse {
        Some(selector) => halved(random, &mut a, k, selector),
        None => (a.clone(), vec![0; 128]),
    };
    let (a_bytes, a_bits) = image(a_of, &left, 64, a_lies.unwrap_or(Lies { swizzle: 0, transposed: false }));
    let (b_bytes, b_bits) = image(b_of, &b, n, b_lies);
    let mut inputs: Vec<u32> = bytemuck::pod_collect_to_vec(&[a_bytes, b_bytes].concat());
    let per = 4 / element(a_of, 0).1;
    for (thread, word) in words.into_iter().enumerate() {
        let (g, t) = (thread / 32 * 16 + thread % 32 / 4, thread % 4);
        // Registers: rows g and g + 8, then the upper half of k.
        let at = |i: usize| (g + i / per % 2 * 8) * left_k + t * per + i % per + i / (2 * per) * left_k / 2;
        inputs.extend(packed(a_of, &(0..4 * per).map(|i| left[at(i)]).collect::<Vec<_>>()));
        inputs.push(word);
    }
    let rd = n / if sum == "f16" { 4 } else { 2 };
    let d = names("d", rd);
    let tail = match (a_of, a_lies) {
        ("s8" | "u8", _) => String::new(),
        ("tf32", _) => ", 1, 1".into(),
        (_, Some(a)) => format!(", 1, 1, {}, {}", u8::from(a.transposed), u8::from(b_lies.transposed)),
        _ => format!(", 1, 1, {}", u8::from(b_lies.transposed)),
    };
    let factor = if a_lies.is_some() { "%l2".into() } else { names("a", 4) };
    // Factors of both signs came with 8.4.
    let head = HEAD.replace("8.0", "8.4");
    let (sp, places) = sparse.map_or_else(Default::default, |selector| (".sp", format!("%a4, {selector}, ")));
    let opcode = format!("wgmma.mma_async{sp}.sync.aligned.m64n{n}k{k}.{sum}.{a_of}.{b_of}");
    let text = format!(
        "{head}.extern .shared .align 1024 .b8 smem[];\n.visible .entry k(.param .u64 pX, .param .u64 pY)\n{{\n\
         .reg .b64 %l<6>; .reg .b32 %r<8>, %a<5>, %d<{rd}>; .reg .pred %p<2>;\n\
         mov.u32 %r0, %tid.x; ld.param.u64 %l0, [pX]; ld.param.u64 %l1, [pY]; mad.wide.u32 %l1, %r0, 512, %l1;\n\
         mov.u32 %r1, smem; mov.u32 %r2, 0; mad.lo.u32 %r3, %r0, 512, %r1; mad.wide.u32 %l4, %r0, 512, %l0;\n\
         COPY: ld.global.v4.b32 {{%r4, %r5, %r6, %r7}}, [%l4]; st.shared.v4.b32 [%r3], {{%r4, %r5, %r6, %r7}};\n\
         add.u64 %l4, %l4, 16; add.u32 %r3, %r3, 16; add.u32 %r2, %r2, 16; setp.lt.u32 %p0, %r2, 512; @%p0 bra COPY;\n\
         add.u64 %l0, %l0, 65536; mad.wide.u32 %l0, %r0, 20, %l0; {}\n\
         fence.proxy.async; bar.sync 0;\n\
         shr.u32 %r1, %r1, 4; cvt.u64.u32 %l4, %r1; or.b64 %l2, %l4, {a_bits:#x}; add.u64 %l4, %l4, 2048; or.b64 %l3, %l4, {b_bits:#x};\n\
         setp.ne.u32 %p0, %r0, %r0; setp.eq.u32 %p1, %r0, %r0;\n\
         wgmma.fence.sync.aligned;\n{opcode} {d}, {factor}, %l3, {places}%p0{tail};\n{opcode} {d}, {factor}, %l3, {places}%p1{tail};\n\
         wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;\n{}ret;\n}}\n",
        moved("a", 5, 0, false),
        moved("d", rd, 0, true)
    );
    (text, inputs, product(&a, &b, [64, n, k]))
}

#[test]
fn every_width_of_wgmma() {
    let plain = Lies { swizzle: 128, transposed: false };
    for n in (8..=256).step_by(8) {
        one_wgmma(n, ["f16", "f16"], "f32", Some(plain), plain);
        if n <= 24 || n % 16 == 0 {
            one_wgmma(n, ["s8", "u8"], "s32", None, plain);
        }
    }
}

#[test]
fn every_layout_and_element_of_wgmma() {
    for swizzle in [0, 32, 64, 128] {
        for (a, b) in [(false, false), (true, false), (false, true), (true, true)] {
            let lies = |transposed| Lies { swizzle, transposed };
            one_wgmma(64, ["f16", "f16"], "f32", Some(lies(a)), lies(b));
            one_wgmma(64, ["bf16", "bf16"], "f32", if a { None } else { Some(lies(a)) }, lies(b));
        }
        let lies = Lies { swizzle, transposed: false };
        for left in [None, Some(lies)] {
            one_wgmma(64, ["f16", "f16"], "f16", left, lies);
            one_wgmma(64, ["tf32", "tf32"], "f32", left, lies);
            for [a, b] in [["s8", "s8"], ["s8", "u8"], ["u8", "s8"], ["u8", "u8"]] {
                one_wgmma(64, [a, b], "s32", left, lies);
            }
        }
    }
}

#[test]
fn wgmma_of_two_in_four() {
    let lies = |swizzle| Lies { swizzle, transposed: false };
    for (n, swizzle) in [(8, 128), (64, 0), (64, 64), (256, 128)] {
        for left in [None, Some(lies(32)), Some(lies(0))] {
            for selector in 0..2 {
                wgmma_of(n, ["f16", "f16"], "f32", [left, Some(lies(swizzle))], Some(selector));
            }
            wgmma_of(n, ["bf16", "bf16"], "f32", [left, Some(lies(swizzle))], Some(0));
            for b in ["s8", "u8"] {
                wgmma_of(n, ["s8", b], "s32", [left, Some(lies(swizzle))], Some(0));
            }
        }
    }
    let across = Lies { swizzle: 128, transposed: true };
    wgmma_of(64, ["f16", "f16"], "f16", [Some(across), Some(across)], Some(0));
}

#[test]
fn errors_in_wgmma_of_two_in_four_are_caught() {
    let lies = Lies { swizzle: 128, transposed: false };
    for (types, sum, selectors) in [(["f16"; 2], "f32", 2), (["s8"; 2], "s32", 1)] {
        let (text, inputs, _) = wgmma_case(8, types, sum, [None, Some(lies)], Some(0));
        let ran = |text: &str, inputs: &[u32]| run(text, 128, inputs, 65536);
        assert!(ran(&text, &inputs).is_ok());
        // Places of a four that are one, or fall: of the last thread with metadata.
        let last = inputs.len() - if selectors == 2 { 11 } else { 1 };
        for four in [0, 5, 10, 15, 1, 2] {
            let mut wrong = inputs.clone();
            wrong[last] = wrong[last] & !15 | four;
            assert_eq!(ran(&text, &wrong).err(), Some(Kind::Misuse), "{four:04b}");
        }
        assert_eq!(ran(&text.replace("%a4, 0", &format!("%a4, {selectors}")), &inputs).err(), Some(Kind::Misuse));
        // The word is read until the group has been waited for, and must lie there when the fence is passed.
        let (commit, fence) = ("wgmma.commit_group.sync.aligned;", "wgmma.fence.sync.aligned;");
        assert!(ran(&text.replace(commit, &format!("{commit} mov.b32 %a4, 0;")), &inputs).is_err());
        assert_eq!(ran(&text.replace(fence, &format!("{fence} mov.b32 %a4, %a4;")), &inputs).err(), Some(Kind::Misuse));
        // 64 bytes of k do not lie in rows of 32.
        assert_eq!(ran(&text.replace("0x400000400", "0xc00000400"), &inputs).err(), Some(Kind::Misuse));
    }
}
