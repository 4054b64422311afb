//! Products of weights of which two in every four are zero: `mma.sp`, and the packed form that it reads.

use halfbyte::base::sparse::{COLUMNS, ROWS, TwoOfFour};
use halfbyte::base::xorshift::Xorshift;

use crate::kernels::encoded;
use crate::ptx_interpreter::{Argument, Fault, Gpu, Kind, Launch, Module};

/// Y[n, m] = X[n, k] W[m, k]^T for packed W. A warp computes 16 outputs of 8 rows of X: the weights are the left operand. `k` counts
/// blocks of 64 columns, rows of X are `pitch` bytes apart. What it shows is where everything lies, not speed: nothing goes through shared memory.
fn kernel(element: &str, ordered: bool) -> String {
    let (shape, sum, zero, steps) = match element {
        "s8" => ("m16n8k64", "s32", "0", 1),
        _ => ("m16n8k32", "f32", "0f00000000", 2),
    };
    let (version, sp) = if ordered { ("8.5", "sp::ordered_metadata") } else { ("7.4", "sp") };
    let zeros: String = (0..4).map(|i| format!("mov.b32 %d{i}, {zero}; ")).collect();
    let d = "{%d0, %d1, %d2, %d3}";
    let step = |s: usize| {
        let b: String = (0..4).map(|r| format!("ld.global.b32 %b{r}, [%x+{}]; ", 64 * s + 16 * r)).collect();
        format!(
            "ld.global.v4.b32 {{%a0, %a1, %a2, %a3}}, [%w+{}]; {b}\n  mma.{sp}.sync.aligned.{shape}.row.col.{sum}.{element}.{element}.{sum} {d}, \
             {{%a0, %a1, %a2, %a3}}, {{%b0, %b1, %b2, %b3}}, {d}, %e, {s};\n",
            512 * s
        )
    };
    let multiply: String = (0..steps).map(step).collect();
    format!(
        "
.version {version}
.target sm_80
.address_size 64
.visible .entry sparse(.param .u64 pW, .param .u64 pE, .param .u64 pX, .param .u64 pY, .param .u32 pK, .param .u32 pPitch, .param .u32 pM)
.maxntid 32, 1, 1
{{
  .reg .b32 %r<16>, %a<4>, %b<4>, %d<4>, %e; .reg .b64 %w, %m, %x, %y, %l; .reg .pred %p;
  ld.param.u64 %w, [pW]; ld.param.u64 %m, [pE]; ld.param.u64 %x, [pX]; ld.param.u64 %y, [pY];
  ld.param.u32 %r0, [pK]; ld.param.u32 %r1, [pPitch]; ld.param.u32 %r2, [pM];
  mov.u32 %r3, %tid.x; shr.u32 %r4, %r3, 2; and.b32 %r5, %r3, 3; mov.u32 %r6, %ctaid.x; mov.u32 %r7, %ctaid.y;
  // This lane's part of the first block of its rows, and its word of metadata.
  mul.lo.u32 %r8, %r6, %r0; mul.wide.u32 %l, %r8, {block}; add.u64 %w, %w, %l; mul.wide.u32 %l, %r3, 16; add.u64 %w, %w, %l;
  mul.wide.u32 %l, %r8, 128; add.u64 %m, %m, %l; mul.wide.u32 %l, %r3, 4; add.u64 %m, %m, %l;
  // Its row of X, and of the result.
  mad.lo.u32 %r9, %r7, 8, %r4; mad.wide.u32 %x, %r9, %r1, %x; mul.wide.u32 %l, %r5, 4; add.u64 %x, %x, %l;
  {zeros}
NEXT:
  ld.global.b32 %e, [%m];
  {multiply}
  add.u64 %w, %w, {block}; add.u64 %m, %m, 128; add.u64 %x, %x, {across};
  sub.u32 %r0, %r0, 1; setp.ne.u32 %p, %r0, 0; @%p bra NEXT;
  // Outputs g and g + 8 of rows 2 t and 2 t + 1.
  mad.lo.u32 %r10, %r7, 8, %r5; add.u32 %r10, %r10, %r5; mad.lo.u32 %r11, %r6, 16, %r4; mad.lo.u32 %r12, %r10, %r2, %r11;
  mul.wide.u32 %l, %r12, 4; add.u64 %y, %y, %l; mul.wide.u32 %l, %r2, 4;
  st.global.b32 [%y], %d0; st.global.b32 [%y+32], %d2; add.u64 %y, %y, %l; st.global.b32 [%y], %d1; st.global.b32 [%y+32], %d3;
  ret;
}}
",
        block = ROWS * COLUMNS / 2 * if element == "s8" { 1 } else { 2 },
        across = COLUMNS * if element == "s8" { 1 } else { 2 },
    )
}

const M: usize = 48;
const N: usize = 24;
const K: usize = 192;

/// Small integers, of every four at most two.
fn weights(random: &mut Xorshift) -> Vec<i32> {
    let mut all = vec![0; M * K];
    for four in all.chunks_exact_mut(4) {
        (0..2).for_each(|_| four[random.below(4)] = random.below(15) as i32 - 7);
    }
    all
}

fn run(element: &str, text: &str, seed: u64) -> Result<bool, Fault> {
    let random = &mut Xorshift::new(6);
    let w = weights(random);
    let x: Vec<i32> = (0..N * K).map(|_| random.below(15) as i32 - 7).collect();
    let bytes = encoded(element, &w);
    let (values, metadata) = if element == "s8" {
        let packed = TwoOfFour::new(bytemuck::cast_slice::<u8, i8>(&bytes), M, K).unwrap();
        (bytemuck::cast_slice(&packed.values).to_vec(), packed.metadata)
    } else {
        let packed = TwoOfFour::<u16>::new(&bytemuck::pod_collect_to_vec(&bytes), M, K).unwrap();
        (bytemuck::cast_slice::<u16, u8>(&packed.values).to_vec(), packed.metadata)
    };
    let module = Module::read(text)?;
    let mut gpu = Gpu::default();
    let x_bytes = encoded(element, &x);
    let (pw, pe) = (gpu.global.allocate("w", &values), gpu.global.allocate("e", &metadata));
    let (px, py) = (gpu.global.allocate("x", &x_bytes), gpu.global.reserve("y", N * M * 4));
    let mut arguments = [pw, pe, px, py].map(Argument::u64).to_vec();
    arguments.extend([K / COLUMNS, x_bytes.len() / N, M].map(|v| Argument::u32(v as u32)));
    let grid = [(M / ROWS) as u32, (N / 8) as u32, 1];
    gpu.launch(module.entry("sparse")?, &Launch { grid, block: [32, 1, 1], shared_bytes: 0, arguments, seed })?;
    let sum = |i: usize| (0..K).map(|k| x[i / M * K + k] * w[i % M * K + k]).sum::<i32>();
    Ok(match element {
        "s8" => gpu.global.values::<i32>(py)?.iter().enumerate().all(|(i, y)| *y == sum(i)),
        _ => gpu.global.values::<f32>(py)?.iter().enumerate().all(|(i, y)| *y == sum(i) as f32),
    })
}

#[test]
fn packed_weights_give_the_products_of_dense_ones() {
    for element in ["f16", "bf16", "s8"] {
        for ordered in [false, true] {
            let text = kernel(element, ordered);
            if let Some(ptxas) = crate::ptxas() {
                ["sm_80", "sm_90a"].iter().for_each(|arch| crate::assemble(&ptxas, arch, &text));
            }
            assert!(run(element, &text, 0).unwrap() && run(element, &text, 7).unwrap(), "{element}");
        }
    }
}

#[test]
fn errors_of_places_are_found() {
    let f16 = kernel("f16", false);
    let swapped = f16.replacen("%e, 1;", "%e, 0;", 1);
    assert!(matches!(run("f16", &swapped, 0), Ok(false)), "the other half's places");
    let selector = f16.replacen("%e, 1;", "%e, 2;", 1);
    assert_eq!(run("f16", &selector, 0).unwrap_err().kind, Kind::Misuse);
    let bytes = kernel("s8", false).replacen("%e, 0;", "%e, 1;", 1);
    assert_eq!(run("s8", &bytes, 0).unwrap_err().kind, Kind::Misuse);
    let none = f16.replacen("ld.global.b32 %e, [%m];", "mov.b32 %e, 0;", 1);
    assert_eq!(run("f16", &none, 0).unwrap_err().kind, Kind::Misuse, "places 0 and 0");
    let unread = f16.replacen("ld.global.b32 %e, [%m];", "", 1);
    assert_eq!(run("f16", &unread, 0).unwrap_err().kind, Kind::Uninitialised);
    assert!(Module::read(&f16.replacen("m16n8k32", "m16n8k64", 1)).is_err_and(|f| f.kind == Kind::Syntax));
}
