//! A kernel in the style of sm_90a: a producer that copies boxes of tensors into a ring of barriers, a warpgroup that
//! multiplies them, and a result that goes back as a box; under many schedules, and with planted errors.

use halfbyte::base::xorshift::Xorshift;

use crate::kernels::{encoded, integers, product};
use crate::ptx_interpreter::{Argument, Fault, Gpu, Kind, Launch, Module, TensorMap, caught, sound};

/// Tile of C: 64 x 16; 128 bytes of k a stage, two stages of 10240 bytes, then 2048 bytes of C, then the barriers.
pub fn kernel(element: &str) -> String {
    let (shape, sum, tail) = match element {
        "s8" => ("m64n16k32", "s32", ""),
        _ => ("m64n16k16", "f32", ", 1, 1, 0, 0"),
    };
    let d: Vec<String> = (0..8).map(|i| format!("%d{i}")).collect();
    let mut products = String::new();
    for step in 0..4 {
        let advance = if step == 0 { "" } else { "  add.u64 %l4, %l4, 2; add.u64 %l5, %l5, 2; setp.eq.u32 %p6, %r0, %r0;\n" };
        let opcode = format!("wgmma.mma_async.sync.aligned.{shape}.{sum}.{element}.{element}");
        products += &format!("{advance}  {opcode} {{{}}}, %l4, %l5, %p6{tail};\n", d.join(", "));
    }
    let mut pack = String::new();
    for i in 0..4 {
        let (low, high) = (2 * i, 2 * i + 1);
        pack += &match element {
            "s8" => format!("cvt.rn.f32.s32 %f0, %d{low}; cvt.rn.f32.s32 %f1, %d{high}; cvt.rn.f16x2.f32 %h{i}, %f1, %f0;\n"),
            _ => format!("cvt.rn.f16x2.f32 %h{i}, %d{high}, %d{low};\n"),
        };
    }
    let columns = if element == "s8" { 7 } else { 6 };
    let load = "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes";
    format!(
        "
.version 8.0
.target sm_90a
.address_size 64
.extern .shared .align 1024 .b8 smem[];
.visible .entry hopper(.param .align 64 .b8 mA[128], .param .align 64 .b8 mB[128], .param .align 64 .b8 mC[128], .param .u32 pTiles)
.maxntid 256, 1, 1
.minnctapersm 1
{{
  .reg .b32 %r<32>; .reg .b64 %l<8>; .reg .pred %p<8>; .reg .b32 %h<4>; .reg .f32 %f<2>; .reg .b32 %d<8>;
  mov.u32 %r0, %tid.x; mov.u32 %r1, smem; add.u32 %r2, %r1, 22528; ld.param.u32 %r3, [pTiles];
  setp.ne.u32 %p0, %r0, 0; @%p0 bra READY;
  mbarrier.init.shared::cta.b64 [%r2], 1; mbarrier.init.shared::cta.b64 [%r2+8], 1;
  mbarrier.init.shared::cta.b64 [%r2+16], 1; mbarrier.init.shared::cta.b64 [%r2+24], 1;
  fence.mbarrier_init.release.cluster;
READY:
  bar.sync 0;
  mov.b64 %l0, mA; cvta.param.u64 %l0, %l0; mov.b64 %l1, mB; cvta.param.u64 %l1, %l1; mov.b64 %l2, mC; cvta.param.u64 %l2, %l2;
  mov.u32 %r4, 0; mov.u32 %r5, 0; mov.u32 %r6, 0;   // stage, phase, tile of k
  mov.u32 %r12, %ctaid.y; shl.b32 %r12, %r12, 6; mov.u32 %r13, %ctaid.x; shl.b32 %r13, %r13, 4;
  setp.lt.u32 %p1, %r0, 128; @%p1 bra CONSUMER;
  setmaxnreg.dec.sync.aligned.u32 40;
  setp.ne.u32 %p2, %r0, 128; @%p2 bra DONE;
PRODUCE:
  shl.b32 %r7, %r4, 3; add.u32 %r8, %r2, %r7; xor.b32 %r9, %r5, 1;
EMPTY:
  mbarrier.try_wait.parity.shared::cta.b64 %p3, [%r8+16], %r9; @!%p3 bra EMPTY;
  mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r8], 10240;
  mad.lo.u32 %r10, %r4, 10240, %r1; shl.b32 %r11, %r6, {columns}; add.u32 %r14, %r10, 8192;
  {load} [%r10], [%l0, {{%r11, %r12}}], [%r8];
  {load} [%r14], [%l1, {{%r11, %r13}}], [%r8];
  add.u32 %r4, %r4, 1; setp.eq.u32 %p4, %r4, 2; selp.b32 %r4, 0, %r4, %p4; @%p4 xor.b32 %r5, %r5, 1;
  add.u32 %r6, %r6, 1; setp.lt.u32 %p5, %r6, %r3; @%p5 bra PRODUCE;
  bra DONE;
CONSUMER:
  setmaxnreg.inc.sync.aligned.u32 232;
  setp.eq.u32 %p7, %r0, 0; mov.b64 %l3, 0x4000004000010000;
CONSUME:
  shl.b32 %r7, %r4, 3; add.u32 %r8, %r2, %r7;
FULL:
  mbarrier.try_wait.parity.shared::cta.b64 %p3, [%r8], %r5; @!%p3 bra FULL;
  mad.lo.u32 %r10, %r4, 10240, %r1; add.u32 %r14, %r10, 8192;
  shr.u32 %r15, %r10, 4; cvt.u64.u32 %l4, %r15; or.b64 %l4, %l4, %l3; shr.u32 %r15, %r14, 4; cvt.u64.u32 %l5, %r15; or.b64 %l5, %l5, %l3;
  setp.ne.u32 %p6, %r6, 0;
  wgmma.fence.sync.aligned;
{products}
  wgmma.commit_group.sync.aligned;
  wgmma.wait_group.sync.aligned 0;
  @%p7 mbarrier.arrive.release.cta.shared::cta.b64 _, [%r8+16];
  add.u32 %r4, %r4, 1; setp.eq.u32 %p4, %r4, 2; selp.b32 %r4, 0, %r4, %p4; @%p4 xor.b32 %r5, %r5, 1;
  add.u32 %r6, %r6, 1; setp.lt.u32 %p5, %r6, %r3; @%p5 bra CONSUME;
  {pack}
  // Matrix l / 8 of four: rows 8 (m & 1), columns 8 (m / 2); rows of 32 bytes.
  shr.u32 %r16, %r0, 5; shl.b32 %r16, %r16, 4; and.b32 %r17, %r0, 15; add.u32 %r16, %r16, %r17; shl.b32 %r16, %r16, 5;
  and.b32 %r18, %r0, 16; add.u32 %r16, %r16, %r18; add.u32 %r19, %r1, 20480; add.u32 %r16, %r16, %r19;
  stmatrix.sync.aligned.m8n8.x4.shared.b16 [%r16], {{%h0, %h1, %h2, %h3}};
  fence.proxy.async.shared::cta;
  bar.sync 1, 128;
  @!%p7 bra DONE;
  cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%l2, {{%r13, %r12}}], [%r19];
  cp.async.bulk.commit_group;
  cp.async.bulk.wait_group 0;
DONE:
  ret;
}}
"
    )
}

/// m and n are no multiples of the tile, k none of the stage.
fn run(element: &str, text: &str, seed: u64) -> Result<bool, Fault> {
    let (m, n) = (100, 24);
    let (bytes, k) = if element == "s8" { (1, 336) } else { (2, 168) };
    let random = &mut Xorshift::new(5);
    let (a, b) = (integers(random, m * k), integers(random, n * k));
    let mut gpu = Gpu::default();
    let (pa, pb) = (gpu.global.allocate("a", &encoded(element, &a)), gpu.global.allocate("b", &encoded(element, &b)));
    let pc = gpu.global.reserve("c", m * n * 2);
    let map = |address, rows: usize, element_bytes, columns: usize, extents: [usize; 2], swizzle_bytes| {
        let strides = vec![(columns * element_bytes) as u64];
        let dims = vec![columns as u64, rows as u64];
        Argument::Map(TensorMap { address, element_bytes, dims, strides, extents: extents.to_vec(), swizzle_bytes })
    };
    let arguments = vec![
        map(pa, m, bytes, k, [128 / bytes, 64], 128),
        map(pb, n, bytes, k, [128 / bytes, 16], 128),
        map(pc, m, 2, n, [16, 64], 0),
        Argument::u32((k * bytes).div_ceil(128) as u32),
    ];
    let module = Module::read(text)?;
    let launch = Launch { grid: [2, 2, 1], block: [256, 1, 1], shared_bytes: 22528 + 32, arguments, seed };
    gpu.launch(module.entry("hopper")?, &launch)?;
    let got = gpu.global.values::<u16>(pc)?;
    let want = product(&a, &b, [m, n, k]);
    Ok(got.iter().zip(want).all(|(got, want)| half::f16::from_bits(*got) == half::f16::from_f32(want as f32)))
}

#[test]
fn warp_specialised_products() {
    for element in ["f16", "bf16", "s8"] {
        sound(&kernel(element), &|text, seed| run(element, text, seed));
    }
}

#[test]
fn planted_errors_of_asynchronous_kernels_are_caught() {
    use Kind::*;
    let early = &[Unfinished, Race, Uninitialised][..];
    let mutants: [(&str, &str, &[Kind]); 18] = [
        ("fence.proxy.async.shared::cta;", "", &[Proxy]),
        ("fence.mbarrier_init.release.cluster;", "", &[Proxy]),
        ("bar.sync 1, 128;", "", &[Race, Uninitialised]),
        ("bar.sync 1, 128;", "bar.sync 1, 96;", &[Misuse, Race, Deadlock, Uninitialised]),
        ("  bar.sync 0;", "", &[Misuse, Race, Uninitialised]),
        ("@!%p3 bra EMPTY;", "", early),
        ("@!%p3 bra FULL;", "", early),
        ("wgmma.wait_group.sync.aligned 0;", "", &[Unfinished, Race]),
        ("wgmma.wait_group.sync.aligned 0;", "wgmma.wait_group.sync.aligned 1;", &[Unfinished, Race]),
        ("wgmma.fence.sync.aligned;", "", &[Misuse]),
        ("wgmma.commit_group.sync.aligned;", "", &[Unfinished, Race]),
        (", 10240;", ", 8192;", &[Unfinished, Race, Deadlock, Uninitialised, Misuse]),
        (", 10240;", ", 12288;", &[Deadlock]),
        ("@%p7 mbarrier.arrive.release.cta.shared::cta.b64 _, [%r8+16];", "", &[Deadlock]),
        ("cp.async.bulk.wait_group 0;", "", &[Unfinished]),
        ("[%r2+16], 1;", "[%r2+16], 2;", &[Deadlock]),
        ("0x4000004000010000", "0x8000004000010000", &[]),
        ("xor.b32 %r9, %r5, 1;", "mov.u32 %r9, %r5;", &[Deadlock]),
    ];
    caught(&kernel("f16"), &|text, seed| run("f16", text, seed), &mutants);
}

#[test]
fn early_release_is_a_race() {
    let text = kernel("f16");
    let arrive = "@%p7 mbarrier.arrive.release.cta.shared::cta.b64 _, [%r8+16];";
    let wait = "wgmma.wait_group.sync.aligned 0;";
    let mutant = text.replace(arrive, "").replace(wait, &format!("{arrive}\n{wait}"));
    let fault = (0..6).find_map(|seed| run("f16", &mutant, seed).err()).expect("an error shows");
    assert!(matches!(fault.kind, Kind::Race | Kind::Unfinished), "{fault}");
}
