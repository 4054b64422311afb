//! Small kernels of each kind, run under many schedules against plain loops, and the same kernels with planted errors.

use halfbyte::base::xorshift::Xorshift;

use crate::ptx_interpreter::{Argument, Fault, Gpu, Kind, Launch, Module, caught, sound};

pub fn integers(random: &mut Xorshift, n: usize) -> Vec<i32> {
    (0..n).map(|_| random.below(9) as i32 - 4).collect()
}

/// `a[m, k] * b[n, k]` of integers, which every format here holds exactly.
pub fn product(a: &[i32], b: &[i32], [m, n, k]: [usize; 3]) -> Vec<i32> {
    (0..m * n).map(|i| (0..k).map(|x| a[i / n * k + x] * b[i % n * k + x]).sum()).collect()
}

/// C[m, n] = A[m, k] B[n, k]^T in f32, a thread for each element, through tiles of 16 x 16 in shared memory; any m, n, k.
pub const TILED: &str = ".version 7.0
.target sm_70
.address_size 64
.visible .entry tiled(.param .u64 pA, .param .u64 pB, .param .u64 pC, .param .u32 pM, .param .u32 pN, .param .u32 pK)
.maxntid 16, 16, 1
{
  .reg .b32 %r<24>; .reg .b64 %l<12>; .reg .f32 %f<4>; .reg .pred %p<6>;
  .shared .align 16 .f32 tileA[256]; .shared .align 16 .f32 tileB[256];
  mov.u32 %r0, %tid.x; mov.u32 %r1, %tid.y; mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ctaid.y;
  ld.param.u64 %l0, [pA]; ld.param.u64 %l1, [pB]; ld.param.u64 %l2, [pC];
  ld.param.u32 %r4, [pM]; ld.param.u32 %r5, [pN]; ld.param.u32 %r6, [pK];
  mad.lo.u32 %r7, %r3, 16, %r1;   // row of A and C
  mad.lo.u32 %r8, %r2, 16, %r1;   // row of B to load
  mad.lo.u32 %r9, %r2, 16, %r0;   // column of C
  mad.lo.u32 %r10, %r1, 16, %r0; shl.b32 %r10, %r10, 2;
  mov.u32 %r11, tileA; add.u32 %r12, %r11, %r10; mov.u32 %r13, tileB; add.u32 %r14, %r13, %r10;
  shl.b32 %r15, %r1, 6; add.u32 %r15, %r15, %r11;
  shl.b32 %r16, %r0, 6; add.u32 %r16, %r16, %r13;
  mov.f32 %f0, 0f00000000; mov.u32 %r17, 0;
TILE:
  add.u32 %r18, %r17, %r0;        // k
  setp.lt.u32 %p0, %r18, %r6; setp.lt.and.u32 %p1, %r7, %r4, %p0; setp.lt.and.u32 %p2, %r8, %r5, %p0;
  mov.f32 %f1, 0.0; mov.f32 %f2, 0.0;
  mad.lo.u32 %r19, %r7, %r6, %r18; mad.wide.u32 %l3, %r19, 4, %l0; @%p1 ld.global.f32 %f1, [%l3];
  mad.lo.u32 %r19, %r8, %r6, %r18; mad.wide.u32 %l3, %r19, 4, %l1; @%p2 ld.global.f32 %f2, [%l3];
  st.shared.f32 [%r12], %f1; st.shared.f32 [%r14], %f2;
  bar.sync 0;                     // written
  mov.u32 %r20, 0;
STEP:
  add.u32 %r21, %r15, %r20; add.u32 %r22, %r16, %r20;
  ld.shared.f32 %f1, [%r21]; ld.shared.f32 %f2, [%r22]; fma.rn.f32 %f0, %f1, %f2, %f0;
  add.u32 %r20, %r20, 4; setp.lt.u32 %p3, %r20, 64; @%p3 bra STEP;
  barrier.sync.aligned 0;         // read
  add.u32 %r17, %r17, 16; setp.lt.u32 %p4, %r17, %r6; @%p4 bra TILE;
  setp.lt.u32 %p0, %r7, %r4; setp.lt.and.u32 %p1, %r9, %r5, %p0; @!%p1 bra DONE;
  mad.lo.u32 %r19, %r7, %r5, %r9; mad.wide.u32 %l3, %r19, 4, %l2; st.global.f32 [%l3], %f0;
DONE:
  ret;
}
";

fn tiled(text: &str, seed: u64) -> Result<bool, Fault> {
    let [m, n, k] = [19, 18, 35];
    let random = &mut Xorshift::new(3);
    let (a, b) = (integers(random, m * k), integers(random, n * k));
    let floats = |v: &[i32]| v.iter().map(|x| *x as f32).collect::<Vec<_>>();
    let module = Module::read(text)?;
    let mut gpu = Gpu::default();
    let (pa, pb) = (gpu.global.allocate("a", &floats(&a)), gpu.global.allocate("b", &floats(&b)));
    let pc = gpu.global.reserve("c", m * n * 4);
    let mut arguments = [pa, pb, pc].map(Argument::u64).to_vec();
    arguments.extend([m, n, k].map(|x| Argument::u32(x as u32)));
    gpu.launch(module.entry("tiled")?, &Launch { grid: [2, 2, 1], block: [16, 16, 1], shared_bytes: 0, arguments, seed })?;
    Ok(gpu.global.values::<f32>(pc)? == floats(&product(&a, &b, [m, n, k])))
}

#[test]
fn tiled_products_and_their_planted_errors() {
    sound(TILED, &tiled);
    let races = &[Kind::Race, Kind::Uninitialised][..];
    let mutants: [(&str, &str, &[Kind]); 7] = [
        ("bar.sync 0; ", "", races),
        ("barrier.sync.aligned 0; ", "", races),
        ("setp.lt.u32 %p0, %r18, %r6;", "setp.le.u32 %p0, %r18, %r6;", &[Kind::Bounds]),
        ("setp.lt.and.u32 %p1, %r9, %r5, %p0;", "setp.le.and.u32 %p1, %r9, %r5, %p0;", &[Kind::Bounds, Kind::Race]),
        ("mov.f32 %f0, 0f00000000;", "", &[Kind::Uninitialised]),
        ("setp.lt.u32 %p3, %r20, 64;", "setp.lt.u32 %p3, %r20, 60;", &[]),
        ("st.shared.f32 [%r14], %f2;", "@%p2 st.shared.f32 [%r14], %f2;", &[Kind::Uninitialised]),
    ];
    caught(TILED, &tiled, &mutants);
}

/// C[m, n] = A[m, k] B[n, k]^T by `mma.sync` with operands of `element`; two warps share tiles of 16 rows of 32 bytes of k,
/// copied two stages deep.
pub fn mma_kernel(element: &str, sm: u32) -> String {
    let (shape, sum, zero) = match element {
        "s8" => ("m16n8k32", "s32", "0"),
        _ => ("m16n8k16", "f32", "0f00000000"),
    };
    let zeros: String = (0..4).map(|i| format!("mov.b32 %d{i}, {zero}; ")).collect();
    format!(
        "
.version 7.4
.target sm_{sm}
.address_size 64
.visible .entry product(.param .u64 pA, .param .u64 pB, .param .u64 pC, .param .u32 pBytes, .param .u32 pN)
.maxntid 64, 1, 1
{{
  .reg .b32 %r<32>; .reg .b64 %l<8>; .reg .pred %p<4>; .reg .b32 %a<4>; .reg .b32 %b<2>; .reg .b32 %d<4>;
  .shared .align 128 .b8 s[2048];
  mov.u32 %r0, %tid.x; shr.u32 %r1, %r0, 5; and.b32 %r2, %r0, 31; mov.u32 %r5, %ctaid.y; mov.u32 %r6, %ctaid.x;
  ld.param.u32 %r8, [pBytes]; ld.param.u64 %l0, [pA]; ld.param.u64 %l1, [pB]; ld.param.u64 %l2, [pC];
  // The first warp copies A, the second B: a lane 16 bytes of a row.
  shr.u32 %r3, %r2, 1; and.b32 %r4, %r2, 1; shl.b32 %r4, %r4, 4;
  setp.eq.u32 %p0, %r1, 0; selp.b32 %r7, %r5, %r6, %p0; selp.b64 %l0, %l0, %l1, %p0;
  mad.lo.u32 %r7, %r7, 16, %r3; mad.wide.u32 %l0, %r7, %r8, %l0; cvt.u64.u32 %l3, %r4; add.u64 %l0, %l0, %l3;
  mov.u32 %r9, s; mad.lo.u32 %r10, %r1, 512, %r9; mad.lo.u32 %r10, %r3, 32, %r10; add.u32 %r10, %r10, %r4;
  // Where the lane's rows of the matrices are.
  and.b32 %r11, %r2, 15; shr.u32 %r12, %r2, 4; shl.b32 %r12, %r12, 4; mad.lo.u32 %r11, %r11, 32, %r9; add.u32 %r11, %r11, %r12;
  and.b32 %r13, %r2, 7; mad.lo.u32 %r13, %r1, 8, %r13; mad.lo.u32 %r13, %r13, 32, %r9;
  shr.u32 %r14, %r2, 3; and.b32 %r14, %r14, 1; mad.lo.u32 %r13, %r14, 16, %r13; add.u32 %r13, %r13, 512;
  {zeros}
  shr.u32 %r15, %r8, 5; mov.u32 %r16, 0; mov.u32 %r17, 0;
  cp.async.cg.shared.global [%r10], [%l0], 16; cp.async.commit_group;
K:
  add.u32 %r18, %r16, 1; xor.b32 %r19, %r17, 1024; setp.lt.u32 %p1, %r18, %r15; @!%p1 bra LAST;
  add.u64 %l0, %l0, 32; add.u32 %r20, %r10, %r19; cp.async.cg.shared.global [%r20], [%l0], 16;
LAST:
  cp.async.commit_group;
  cp.async.wait_group 1;
  bar.sync 0;
  add.u32 %r21, %r11, %r17; add.u32 %r22, %r13, %r17;
  ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%a0, %a1, %a2, %a3}}, [%r21];
  ldmatrix.sync.aligned.m8n8.x2.shared.b16 {{%b0, %b1}}, [%r22];
  mma.sync.aligned.{shape}.row.col.{sum}.{element}.{element}.{sum} {{%d0, %d1, %d2, %d3}}, {{%a0, %a1, %a2, %a3}}, {{%b0, %b1}}, {{%d0, %d1, %d2, %d3}};
  bar.sync 1;
  mov.u32 %r17, %r19; mov.u32 %r16, %r18; setp.lt.u32 %p2, %r16, %r15; @%p2 bra K;
  ld.param.u32 %r23, [pN]; shr.u32 %r24, %r2, 2; mad.lo.u32 %r24, %r5, 16, %r24; and.b32 %r25, %r2, 3; shl.b32 %r25, %r25, 1;
  mad.lo.u32 %r25, %r1, 8, %r25; mad.lo.u32 %r25, %r6, 16, %r25; mad.lo.u32 %r26, %r24, %r23, %r25; mad.wide.u32 %l4, %r26, 4, %l2;
  st.global.v2.b32 [%l4], {{%d0, %d1}}; mul.wide.u32 %l5, %r23, 32; add.u64 %l4, %l4, %l5; st.global.v2.b32 [%l4], {{%d2, %d3}};
  ret;
}}
"
    )
}

/// The integers in an element's format.
pub fn encoded(element: &str, values: &[i32]) -> Vec<u8> {
    let one = |x: &i32| match element {
        "s8" => vec![*x as i8 as u8],
        "f16" => half::f16::from_f32(*x as f32).to_le_bytes().to_vec(),
        _ => half::bf16::from_f32(*x as f32).to_le_bytes().to_vec(),
    };
    values.iter().flat_map(one).collect()
}

fn mma(element: &str, text: &str, seed: u64) -> Result<bool, Fault> {
    let (m, n, bytes) = (32, 48, 96);
    let k = if element == "s8" { bytes } else { bytes / 2 };
    let random = &mut Xorshift::new(4);
    let (a, b) = (integers(random, m * k), integers(random, n * k));
    let module = Module::read(text)?;
    let mut gpu = Gpu::default();
    let (pa, pb) = (gpu.global.allocate("a", &encoded(element, &a)), gpu.global.allocate("b", &encoded(element, &b)));
    let pc = gpu.global.reserve("c", m * n * 4);
    let mut arguments = [pa, pb, pc].map(Argument::u64).to_vec();
    arguments.extend([bytes, n].map(|x| Argument::u32(x as u32)));
    gpu.launch(module.entry("product")?, &Launch { grid: [3, 2, 1], block: [64, 1, 1], shared_bytes: 0, arguments, seed })?;
    let want = product(&a, &b, [m, n, k]);
    Ok(match element {
        "s8" => gpu.global.values::<i32>(pc)? == want,
        _ => gpu.global.values::<f32>(pc)?.iter().zip(want).all(|(got, want)| *got == want as f32),
    })
}

#[test]
fn tensor_core_products_and_their_planted_errors() {
    for element in ["f16", "bf16", "s8"] {
        sound(&mma_kernel(element, 80), &|text, seed| mma(element, text, seed));
    }
    let early = &[Kind::Unfinished, Kind::Race, Kind::Uninitialised][..];
    let mutants: [(&str, &str, &[Kind]); 8] = [
        ("cp.async.wait_group 1;", "", early),
        ("cp.async.wait_group 1;", "cp.async.wait_group 2;", early),
        ("bar.sync 0;", "", early),
        ("bar.sync 1;", "", early),
        ("bar.sync 0;", "bar.sync 0, 32;", early),
        ("mov.u32 %r17, %r19;", "", early),
        ("setp.lt.u32 %p1, %r18, %r15;", "setp.le.u32 %p1, %r18, %r15;", &[Kind::Bounds, Kind::Unfinished]),
        ("mad.lo.u32 %r13, %r14, 16, %r13;", "", &[]),
    ];
    caught(&mma_kernel("f16", 80), &|text, seed| mma("f16", text, seed), &mutants);
}
