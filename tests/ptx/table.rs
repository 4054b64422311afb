//! Each instruction of the interpreter on edge cases, as the PTX ISA states them: worked out by hand. What the interpreter
//! takes, NVIDIA's assembler takes too, where there is one.

use crate::instructions::{HEAD, kernel, lanes};
use crate::ptx_interpreter::Kind;

/// A row: what the instruction does to `%x0`, `%x1`, `%x2`, and the wanted `%y`.
type Row = (&'static str, [u64; 3], u64);

const M1: u64 = 0xffff_ffff;
const MIN: u64 = 0x8000_0000;
const ONE: u64 = 0x3f80_0000;
const INF: u64 = 0x7f80_0000;
const NAN: u64 = 0x7fc0_0000;

const INTEGERS: &[Row] = &[
    ("sub.sat.s32 %y, %x0, %x1;", [MIN, 1, 0], MIN),
    ("mad.hi.u32 %y, %x0, %x1, %x2;", [M1, M1, 3], 1),
    ("mad.hi.sat.s32 %y, %x0, %x1, %x2;", [0x7fff_ffff, 0x7fff_ffff, 0x7fff_ffff], 0x7fff_ffff),
    ("mul24.lo.u32 %y, %x0, %x1;", [0xff00_0003, 0xab00_0005, 0], 15),
    ("mul24.lo.s32 %y, %x0, %x1;", [0x00ff_ffff, 5, 0], M1 - 4),
    ("mul24.hi.u32 %y, %x0, %x1;", [0x00ff_ffff, 0x00ff_ffff, 0], 0xffff_fe00),
    ("mad24.lo.s32 %y, %x0, %x1, %x2;", [0x00ff_ffff, 5, 6], 1),
    ("sad.u32 %y, %x0, %x1, %x2;", [3, 10, 100], 107),
    ("sad.s32 %y, %x0, %x1, %x2;", [M1, 1, 0], 2),
    ("abs.s32 %y, %x0;", [MIN, 0, 0], MIN),
    ("shl.b32 %y, %x0, %x1;", [1, 33, 0], 0),
    ("shr.s32 %y, %x0, %x1;", [MIN, M1, 0], M1),
    ("shf.l.clamp.b32 %y, %x0, %x1, %x2;", [0x1111_1111, 0x2222_2222, 32], 0x1111_1111),
    ("shf.r.wrap.b32 %y, %x0, %x1, %x2;", [0x1111_1111, 0x2222_2222, 32], 0x1111_1111),
    ("shf.r.clamp.b32 %y, %x0, %x1, %x2;", [0x1111_1111, 0x2222_2222, 32], 0x2222_2222),
    ("bfind.u32 %y, %x0;", [0x0001_0000, 0, 0], 16),
    ("bfind.u32 %y, %x0;", [0, 0, 0], M1),
    ("bfind.s32 %y, %x0;", [0xffff_fffe, 0, 0], 0),
    ("bfind.s32 %y, %x0;", [M1, 0, 0], M1),
    ("bfind.shiftamt.u32 %y, %x0;", [0x0001_0000, 0, 0], 15),
    ("clz.b32 %y, %x0;", [0, 0, 0], 32),
    ("popc.b32 %y, %x0;", [M1, 0, 0], 32),
    ("brev.b32 %y, %x0;", [0x0000_00f1, 0, 0], 0x8f00_0000),
    ("bfe.u32 %y, %x0, %x1, %x2;", [M1, 28, 8], 0xf),
    ("bfe.s32 %y, %x0, %x1, %x2;", [0x4000_0000, 28, 8], 4),
    ("bfe.s32 %y, %x0, %x1, %x2;", [0x8000_0000, 28, 8], 0xffff_fff8),
    ("bfe.s32 %y, %x0, %x1, %x2;", [0x8000_0000, 40, 4], M1),
    ("bfe.u32 %y, %x0, %x1, %x2;", [M1, 3, 0], 0),
    ("bfi.b32 %y, %x0, %x1, 28, 8;", [0xab, 0, 0], 0xb000_0000),
    ("bfi.b32 %y, %x0, %x1, 40, 8;", [0xab, 0x1234, 0], 0x1234),
    ("bfi.b32 %y, %x0, %x1, 4, 0;", [0xab, 0x1234, 0], 0x1234),
    ("prmt.b32 %y, %x0, %x1, 0x7654;", [0x3322_1100, 0x7766_5544, 0], 0x7766_5544),
    ("prmt.b32 %y, %x0, %x1, 0xf8f8;", [0x3322_1180, 0x8066_5544, 0], M1),
    ("szext.wrap.s32 %y, %x0, %x1;", [0xff, 8, 0], M1),
    ("szext.wrap.u32 %y, %x0, %x1;", [0x1ff, 40, 0], 0xff),
    ("szext.clamp.u32 %y, %x0, %x1;", [0x1ff, 40, 0], 0x1ff),
    ("szext.clamp.s32 %y, %x0, %x1;", [0x1ff, 0, 0], 0),
    ("slct.b32.s32 %y, %x0, %x1, %x2;", [1, 2, M1], 2),
    ("slct.b32.s32 %y, %x0, %x1, %x2;", [1, 2, 0], 1),
    ("slct.b32.f32 %y, %x0, %x1, %x2;", [1, 2, 0x8000_0000], 1),
    ("slct.b32.f32 %y, %x0, %x1, %x2;", [1, 2, NAN], 2),
    ("dp4a.u32.u32 %y, %x0, %x1, %x2;", [M1, M1, 5], 4 * 255 * 255 + 5),
    ("dp4a.s32.u32 %y, %x0, %x1, %x2;", [M1, M1, 0], (1 << 32) - 4 * 255),
    ("dp4a.u32.s32 %y, %x0, %x1, %x2;", [M1, 0x8080_8080, 0], (1 << 32) - 4 * 255 * 128),
    ("dp4a.s32.s32 %y, %x0, %x1, %x2;", [0x8080_8080, 0x8080_8080, 0x7fff_ffff], 0x8000_ffff),
    ("dp2a.lo.u32.u32 %y, %x0, %x1, %x2;", [M1, 0x0001_0203, 0], 0xffff * 5),
    ("dp2a.hi.u32.u32 %y, %x0, %x1, %x2;", [M1, 0x0001_0203, 0], 0xffff),
    ("dp2a.hi.s32.u32 %y, %x0, %x1, %x2;", [M1, 0x0001_ff03, 0], M1),
    ("dp2a.lo.u32.s32 %y, %x0, %x1, %x2;", [0x0001_0001, 0x0000_80ff, 0], (1 << 32) - 129),
    ("cvt.pack.sat.u8.s32.b32 %y, %x0, %x1, %x2;", [300, M1, 0x1234], 0x1234_ff00),
    ("cvt.pack.sat.u16.s32 %y, %x0, %x1;", [70000, M1, 0], 0xffff_0000),
    ("cvt.sat.s8.s32 %y, %x0;", [200, 0, 0], 127),
    ("cvt.sat.u8.s32 %y, %x0;", [M1, 0, 0], 0),
    ("cvt.u32.u16 %y, %h0;", [0, 0, 0], 7),
];

/// Sums of 2^24 and 1 fall between two f32; 1 + 2^-24 is a tie.
const FLOATS: &[Row] = &[
    ("add.rn.f32 %y, %x0, %x1;", [0x4b80_0000, ONE, 0], 0x4b80_0000),
    ("add.rz.f32 %y, %x0, %x1;", [0x4b80_0000, ONE, 0], 0x4b80_0000),
    ("add.rp.f32 %y, %x0, %x1;", [0x4b80_0000, ONE, 0], 0x4b80_0001),
    ("add.rm.f32 %y, %x0, %x1;", [0xcb80_0000, 0xbf80_0000, 0], 0xcb80_0001),
    ("add.rm.f32 %y, %x0, %x1;", [ONE, 0xbf80_0000, 0], 0x8000_0000),
    ("add.rp.f32 %y, %x0, %x1;", [ONE, 0xbf80_0000, 0], 0),
    ("add.rp.f32 %y, %x0, %x1;", [ONE, 1, 0], 0x3f80_0001),
    ("sub.rz.f32 %y, %x0, %x1;", [ONE, 1, 0], 0x3f7f_ffff),
    ("mul.rz.f32 %y, %x0, %x1;", [0x7f7f_ffff, 0x4000_0000, 0], 0x7f7f_ffff),
    ("mul.rm.f32 %y, %x0, %x1;", [0x7f7f_ffff, 0xc000_0000, 0], 0xff80_0000),
    ("mul.rp.f32 %y, %x0, %x1;", [0x3f80_0001, 0x3f80_0001, 0], 0x3f80_0003),
    ("mul.rp.f32 %y, %x0, %x1;", [1, 1, 0], 1),
    ("mul.rm.f32 %y, %x0, %x1;", [1, 1, 0], 0),
    ("fma.rp.f32 %y, %x0, %x1, %x2;", [0x3f80_0001, 0x3f80_0001, 0], 0x3f80_0003),
    ("fma.rz.f32 %y, %x0, %x1, %x2;", [ONE, ONE, 0xb300_0000], 0x3f7f_ffff),
    ("fma.rm.f32 %y, %x0, %x1, %x2;", [ONE, ONE, 0x8000_0001], 0x3f7f_ffff),
    ("div.rz.f32 %y, %x0, %x1;", [ONE, 0x4040_0000, 0], 0x3eaa_aaaa),
    ("div.rp.f32 %y, %x0, %x1;", [ONE, 0x4040_0000, 0], 0x3eaa_aaab),
    ("div.rm.f32 %y, %x0, %x1;", [ONE, 0xc040_0000, 0], 0xbeaa_aaab),
    ("rcp.rz.f32 %y, %x0;", [0x4040_0000, 0, 0], 0x3eaa_aaaa),
    ("rcp.rn.f32 %y, %x0;", [0, 0, 0], INF),
    ("sqrt.rm.f32 %y, %x0;", [0x4000_0000, 0, 0], 0x3fb5_04f3),
    ("sqrt.rp.f32 %y, %x0;", [0x4000_0000, 0, 0], 0x3fb5_04f4),
    ("fma.rn.sat.f32 %y, %x0, %x1, %x2;", [NAN, ONE, ONE], 0),
    ("mul.ftz.f32 %y, %x0, %x1;", [0x8000_0001, ONE, 0], 0x8000_0000),
    ("add.f32 %y, %x0, %x1;", [1, 1, 0], 2),
    ("min.f32 %y, %x0, %x1;", [NAN, ONE, 0], ONE),
    ("min.f32 %y, %x0, %x1;", [0, 0x8000_0000, 0], 0x8000_0000),
    ("max.NaN.f32 %y, %x0, %x1;", [NAN, ONE, 0], 0x7fff_ffff),
    ("max.f32 %y, %x0, %x1;", [NAN, NAN, 0], 0x7fff_ffff),
    ("abs.f32 %y, %x0;", [0xbf80_0000, 0, 0], ONE),
    ("neg.ftz.f32 %y, %x0;", [1, 0, 0], 0x8000_0000),
    ("copysign.f32 %y, %x0, %x1;", [0x8000_0000, ONE, 0], 0xbf80_0000),
    ("ex2.approx.ftz.f32 %y, %x0;", [0xff80_0000, 0, 0], 0),
    ("ex2.approx.f32 %y, %x0;", [0xc316_0000, 0, 0], 0),
    ("lg2.approx.f32 %y, %x0;", [0, 0, 0], 0xff80_0000),
    ("rsqrt.approx.f32 %y, %x0;", [0, 0, 0], INF),
    ("rcp.approx.ftz.f32 %y, %x0;", [0x4080_0000, 0, 0], 0x3e80_0000),
    ("sqrt.approx.f32 %y, %x0;", [0x4180_0000, 0, 0], 0x4080_0000),
    ("sin.approx.f32 %y, %x0;", [0x8000_0000, 0, 0], 0x8000_0000),
    ("cos.approx.f32 %y, %x0;", [0, 0, 0], ONE),
    ("tanh.approx.f32 %y, %x0;", [0xff80_0000, 0, 0], 0xbf80_0000),
    ("div.full.f32 %y, %x0, %x1;", [ONE, 0x4000_0000, 0], 0x3f00_0000),
    ("testp.subnormal.f32 %p0, %x0; selp.b32 %y, 1, 0, %p0;", [1, 0, 0], 1),
    ("testp.normal.f32 %p0, %x0; selp.b32 %y, 1, 0, %p0;", [1, 0, 0], 0),
    ("testp.infinite.f32 %p0, %x0; selp.b32 %y, 1, 0, %p0;", [0xff80_0000, 0, 0], 1),
    ("testp.finite.f32 %p0, %x0; selp.b32 %y, 1, 0, %p0;", [NAN, 0, 0], 0),
    ("testp.number.f32 %p0, %x0; selp.b32 %y, 1, 0, %p0;", [INF, 0, 0], 1),
    ("testp.notanumber.f32 %p0, %x0; selp.b32 %y, 1, 0, %p0;", [NAN, 0, 0], 1),
];

const CONVERSIONS: &[Row] = &[
    ("cvt.rn.f32.s32 %y, %x0;", [0x0100_0001, 0, 0], 0x4b80_0000),
    ("cvt.rp.f32.s32 %y, %x0;", [0x0100_0001, 0, 0], 0x4b80_0001),
    ("cvt.rz.f32.u32 %y, %x0;", [M1, 0, 0], 0x4f7f_ffff),
    ("cvt.rm.f32.s32 %y, %x0;", [0xfeff_ffff, 0, 0], 0xcb80_0001),
    ("cvt.rpi.s32.f32 %y, %x0;", [0x3fc0_0000, 0, 0], 2),
    ("cvt.rmi.s32.f32 %y, %x0;", [0xbfc0_0000, 0, 0], M1 - 1),
    ("cvt.rni.u32.f32 %y, %x0;", [0xbfc0_0000, 0, 0], 0),
    ("cvt.rni.s32.f32 %y, %x0;", [0xff80_0000, 0, 0], MIN),
    ("cvt.rzi.ftz.u32.f32 %y, %x0;", [INF, 0, 0], M1),
    ("cvt.sat.f32.f32 %y, %x0;", [0x4000_0000, 0, 0], ONE),
    ("cvt.rna.tf32.f32 %y, %x0;", [0x3f80_1000, 0, 0], 0x3f80_2000),
    ("cvt.rna.tf32.f32 %y, %x0;", [0xbf80_0fff, 0, 0], 0xbf80_0000),
    ("cvt.rn.f16x2.f32 %y, %x0, %x1;", [0x4780_0000, 0x3a80_0000, 0], 0x7c00_1400),
    ("cvt.rz.f16x2.f32 %y, %x0, %x1;", [0x4780_0000, 0xbf80_1fff, 0], 0x7bff_bc00),
    ("cvt.rn.relu.f16x2.f32 %y, %x0, %x1;", [0xbf80_0000, NAN, 0], 0x7fff),
    ("cvt.rn.relu.bf16x2.f32 %y, %x0, %x1;", [0xbf80_0000, 0x3f80_8000, 0], 0x3f80),
    ("cvt.rz.bf16x2.f32 %y, %x0, %x1;", [0x3f80_ffff, 0xbf80_ffff, 0], 0x3f80_bf80),
    ("cvt.rp.f16.f32 %h0, %x0; mov.b32 %y, {%h0, %h1};", [0x3f80_0001, 0, 0], 0x3c01),
    ("cvt.rm.f16.f32 %h0, %x0; mov.b32 %y, {%h0, %h1};", [0x8000_0001, 0, 0], 0x8001),
    ("cvt.rn.bf16.f32 %h0, %x0; mov.b32 %y, {%h0, %h1};", [0x3f81_8000, 0, 0], 0x3f82),
    ("cvt.f32.bf16 %y, %h2;", [0, 0, 0], 0xc000_0000),
    ("cvt.rzi.s8.f32 %y, %x0;", [0x4348_0000, 0, 0], 127),
    ("add.f16x2 %y, %x0, %x1;", [0x7bff_3c00, 0x7bff_1000, 0], 0x7c00_3c00),
    ("add.sat.f16x2 %y, %x0, %x1;", [0x3c00_bc00, 0x3c00_0000, 0], 0x3c00_0000),
    ("add.ftz.f16x2 %y, %x0, %x1;", [0x0001_0200, 0x0001_0200, 0], 0),
    ("mul.bf16x2 %y, %x0, %x1;", [0x4000_3f80, 0x4040_bf80, 0], 0x40c0_bf80),
    ("sub.f16x2 %y, %x0, %x1;", [0x4000_3c00, 0x3c00_4000, 0], 0x3c00_bc00),
    ("fma.rn.relu.f16x2 %y, %x0, %x1, %x2;", [0xbc00_3c00, 0x3c00_3c00, 0], 0x3c00),
    ("fma.rn.bf16x2 %y, %x0, %x1, %x2;", [0x3f80_3f80, 0x3f80_3f80, 0x3f80_bf80], 0x4000_0000),
    ("min.NaN.f16x2 %y, %x0, %x1;", [0x7e00_3c00, 0x3c00_4000, 0], 0x7fff_3c00),
    ("max.bf16x2 %y, %x0, %x1;", [0x7fc0_3f80, 0x3f80_4000, 0], 0x3f80_4000),
    ("neg.f16x2 %y, %x0;", [0x3c00_bc00, 0, 0], 0xbc00_3c00),
    ("abs.bf16x2 %y, %x0;", [0xbf80_3f80, 0, 0], 0x3f80_3f80),
    ("ex2.approx.f16x2 %y, %x0;", [0x4000_bc00, 0, 0], 0x4400_3800),
    ("ex2.approx.ftz.bf16x2 %y, %x0;", [0x4000_bf80, 0, 0], 0x4080_3f00),
    ("tanh.approx.f16x2 %y, %x0;", [0x7c00_0000, 0, 0], 0x3c00_0000),
    ("tanh.approx.bf16x2 %y, %x0;", [0xff80_0000, 0, 0], 0xbf80_0000),
];

const DOUBLES: &[Row] = &[
    ("add.rz.f64 %y, %x0, %x1;", [0x3ff0_0000_0000_0000, 0xbc00_0000_0000_0000, 0], 0x3fef_ffff_ffff_ffff),
    ("mul.rp.f64 %y, %x0, %x1;", [0x3ff0_0000_0000_0001, 0x3ff0_0000_0000_0001, 0], 0x3ff0_0000_0000_0003),
    ("div.rm.f64 %y, %x0, %x1;", [0x3ff0_0000_0000_0000, 0x4008_0000_0000_0000, 0], 0x3fd5_5555_5555_5555),
    ("div.rp.f64 %y, %x0, %x1;", [0x3ff0_0000_0000_0000, 0x4008_0000_0000_0000, 0], 0x3fd5_5555_5555_5556),
    ("bfind.u64 %r1, %x0; cvt.u64.u32 %y, %r1;", [1 << 40, 0, 0], 40),
    ("popc.b64 %r1, %x0; cvt.u64.u32 %y, %r1;", [u64::MAX, 0, 0], 64),
    ("clz.b64 %r1, %x0; cvt.u64.u32 %y, %r1;", [1, 0, 0], 63),
    ("brev.b64 %y, %x0;", [1, 0, 0], 1 << 63),
    ("shl.b64 %y, %x0, 64;", [1, 0, 0], 0),
    ("shr.s64 %y, %x0, 70;", [1 << 63, 0, 0], u64::MAX),
    ("mul.hi.u64 %y, %x0, %x1;", [u64::MAX, u64::MAX, 0], u64::MAX - 1),
    ("mul.lo.s64 %y, %x0, %x1;", [u64::MAX, 7, 0], 7u64.wrapping_neg()),
    ("mad.lo.u64 %y, %x0, %x1, %x2;", [1 << 32, 1 << 32, 9], 9),
    ("min.s64 %y, %x0, %x1;", [u64::MAX, 1, 0], u64::MAX),
    ("div.u64 %y, %x0, %x1;", [u64::MAX, 16, 0], u64::MAX >> 4),
    ("rem.s64 %y, %x0, %x1;", [7u64.wrapping_neg(), 4, 0], 3u64.wrapping_neg()),
    ("cvt.rz.f64.u64 %y, %x0;", [u64::MAX, 0, 0], 0x43ef_ffff_ffff_ffff),
    ("cvt.rn.f64.s64 %y, %x0;", [u64::MAX, 0, 0], 0xbff0_0000_0000_0000),
    ("cvt.rni.s64.f64 %y, %x0;", [0x4004_0000_0000_0000, 0, 0], 2),
    ("bfe.s64 %y, %x0, 60, 4;", [1 << 63, 0, 0], 8u64.wrapping_neg()),
    ("sad.u64 %y, %x0, %x1, %x2;", [1, 5, 10], 14),
];

const BEFORE: &str = "mov.u16 %h0, 7; mov.u16 %h1, 0; mov.u16 %h2, 0xC000; ";

fn check(register: &str, rows: &[Row]) {
    let wrong = |(body, x, want): &Row| {
        let got = lanes(register, &format!("{BEFORE}{body}"), [&|_| x[0], &|_| x[1], &|_| x[2]])[17];
        (got != *want).then(|| format!("{body} of {x:x?}: {got:#x}, not {want:#x}"))
    };
    let wrong: Vec<String> = rows.iter().filter_map(wrong).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn integers_at_their_edges() {
    check("b32", INTEGERS);
}

#[test]
fn floats_at_their_edges() {
    check("b32", FLOATS);
}

#[test]
fn conversions_at_their_edges() {
    check("b32", CONVERSIONS);
}

#[test]
fn wide_numbers_at_their_edges() {
    check("b64", DOUBLES);
}

/// Lanes predicated off keep what they had.
#[test]
fn lanes_predicated_off_stay() {
    let body = "mov.b32 %y, 7; setp.lt.u32 %p0, %r0, 3; ";
    for (then, low) in [("@%p0 add.u32 %y, %y, 1;", 8), ("@!%p0 add.u32 %y, %y, 1;", 7), ("@%p0 popc.b32 %y, %y;", 3)] {
        let got = lanes("b32", &format!("{body}{then}"), [&|_| 0, &|_| 0, &|_| 0]);
        let high = if then.starts_with("@!") { 8 } else { 7 };
        assert!(got.iter().enumerate().all(|(lane, y)| *y == if lane < 3 { low } else { high }), "{then}: {got:?}");
    }
}

/// What all lanes' values give.
#[test]
fn reductions_and_matches() {
    let own: &dyn Fn(usize) -> u64 = &|lane| (lane as u64 * 7 + 3) % 32;
    let minus: &dyn Fn(usize) -> u64 = &|lane| (lane as u32).wrapping_sub(5).into();
    let run = |body: &str| lanes("b32", body, [own, minus, own])[3];
    assert_eq!(run("redux.sync.add.u32 %y, %x0, -1;"), 496);
    assert_eq!(run("redux.sync.max.u32 %y, %x1, -1;"), u64::from(u32::MAX));
    assert_eq!(run("redux.sync.max.s32 %y, %x1, -1;"), 26);
    assert_eq!(run("redux.sync.min.s32 %y, %x1, -1;"), u64::from(5u32.wrapping_neg()));
    assert_eq!(run("redux.sync.and.b32 %y, %x1, -1;"), 0);
    assert_eq!(run("redux.sync.or.b32 %y, %x0, -1;"), 31);
    assert_eq!(run("redux.sync.xor.b32 %y, %x0, -1;"), 0);
    let some = "setp.lt.u32 %p0, %r0, 4; mov.u32 %y, 0; @%p0 redux.sync.add.u32 %y, %r0, 0xf;";
    assert_eq!((run(some), lanes("b32", some, [own, own, own])[4]), (6, 0));
    assert_eq!(run("and.b32 %r1, %r0, 1; match.any.sync.b32 %y, %r1, -1;"), 0xaaaa_aaaa);
    assert_eq!(run("match.all.sync.b32 %y|%p0, %r0, -1; @%p0 mov.b32 %y, 9;"), 0);
    assert_eq!(run("mov.b32 %r1, 4; match.all.sync.b32 %y|%p0, %r1, -1; @!%p0 mov.b32 %y, 9;"), u64::from(u32::MAX));
}

/// One lane adds to a word that holds the first input.
#[test]
fn atomics_of_every_type() {
    let cases: [(&str, [u64; 2], u64); 14] = [
        ("add.u32", [M1, 2], 1),
        ("add.f32", [ONE, ONE], 0x4000_0000),
        ("min.s32", [5, M1], M1),
        ("min.u32", [5, M1], 5),
        ("max.s32", [5, M1], 5),
        ("max.u32", [5, M1], M1),
        ("and.b32", [0xff, 0x0f], 0x0f),
        ("or.b32", [0xf0, 0x0f], 0xff),
        ("xor.b32", [0xff, 0x0f], 0xf0),
        ("inc.u32", [5, 5], 0),
        ("dec.u32", [0, 5], 5),
        ("add.noftz.f16x2", [0x3c00_4000, 0x3c00_3c00], 0x4000_4200),
        ("add.noftz.bf16x2", [0x3f80_4000, 0x3f80_3f80], 0x4000_4040),
        ("exch.b32", [1, 2], 2),
    ];
    let run = |register: &str, form: &str, x: [u64; 2]| {
        let lone = format!("mov.b{} %y, 0; setp.ne.u32 %p0, %r0, 0; @%p0 bra DONE; {form} DONE:", &register[1..]);
        lanes(register, &lone, [&|_| x[0], &|_| x[1], &|_| 0])[0]
    };
    for (what, x, want) in cases {
        for space in ["shared", "global"] {
            let at = if space == "shared" { "s" } else { "%l1" };
            let store = format!("st.{space}.b32 [{at}], %x0;");
            let atom = format!("{store} atom.{space}.{what} %r2, [{at}], %x1; ld.{space}.b32 %y, [{at}];");
            assert_eq!(run("b32", &atom, x), want, "{atom}");
            let old = atom.replace(&format!("ld.{space}.b32 %y, [{at}];"), "mov.b32 %y, %r2;");
            assert_eq!(run("b32", &old, x), x[0], "{old}");
            if what != "exch.b32" {
                let red = format!("{store} red.relaxed.gpu.{space}.{what} [{at}], %x1; ld.{space}.b32 %y, [{at}];");
                assert_eq!(run("b32", &red.replace("relaxed.gpu.shared", "shared"), x), want, "{red}");
            }
        }
    }
    let wide = "st.shared.b64 [s], %x0; atom.shared.add.u64 %l2, [s], %x1; ld.shared.b64 %y, [s];";
    assert_eq!(run("b64", wide, [u64::MAX, 3]), 2);
    let double = wide.replace("add.u64", "add.f64").replace("%l2, [s], %x1", "%l2, [s], %x0");
    assert_eq!(run("b64", &double, [0x3ff0_0000_0000_0000, 0]), 0x4000_0000_0000_0000);
    let cas = "st.shared.b64 [s], %x0; atom.shared.cas.b64 %l2, [s], %x0, %x1; ld.shared.b64 %y, [s];";
    assert_eq!(run("b64", cas, [7, 9]), 9);
}

/// Accesses of several registers, with every hint.
#[test]
fn vectors_and_hints() {
    let own: &dyn Fn(usize) -> u64 = &|lane| lane as u64;
    let v4 = "mov.u32 %r1, s; mad.lo.u32 %r1, %r0, 16, %r1; add.u32 %r2, %r0, 1;
        st.shared.v4.b32 [%r1], {%r0, %r2, %r0, %r2}; ld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [%r1]; add.u32 %y, %r5, %r6;";
    assert_eq!(lanes("b32", v4, [own; 3])[9], 19);
    for hints in
        ["nc", "nc.L1::no_allocate", "nc.L2::128B", "nc.L1::evict_last.L2::64B", "cg", "relaxed.gpu", "acquire.gpu", "volatile"]
    {
        let body = format!("ld.param.u64 %l2, [pX]; ld.{hints}.global.v2.u32 {{%r1, %r2}}, [%l2+8]; mov.b32 %y, %r1;");
        let body =
            if hints.starts_with("nc") { body.replace(&format!("{hints}.global"), &format!("global.{hints}")) } else { body };
        assert_eq!(lanes("b32", &body, [own; 3])[4], 1, "{hints}");
    }
    let bytes = "ld.param.u64 %l2, [pX]; add.u64 %l2, %l2, 7; prefetch.global.L2 [%l2]; ld.global.s8 %y, [%l2];";
    assert_eq!(lanes("b32", bytes, [&|_| 0x80ff_ffff_ffff_ffff, own, own])[0], 0xffff_ff80);
}

/// Constant memory, by its name, a register and a generic address.
#[test]
fn constants() {
    let own: &dyn Fn(usize) -> u64 = &|lane| lane as u64;
    let all = |body: &str| {
        let declared = ".const .b8 c0 = 7;\n.const .align 16 .f32 table[4] = { 1.0, 0f40000000, -3.0 };\n.const .u16 whole[] = { 1, 0xffff };\n";
        kernel("b32", body).replace(".visible", &format!("{declared}.visible"))
    };
    for (body, want) in [
        ("ld.const.f32 %y, [table+8];", [0xc040_0000; 3]),
        ("ld.const.u16 %y, [whole+2];", [0xffff; 3]),
        (
            "and.b32 %r1, %r0, 3; mov.u64 %l2, table; mad.wide.u32 %l2, %r1, 4, %l2; ld.const.b32 %y, [%l2];",
            [ONE, 0x4000_0000, 0xc040_0000],
        ),
        (
            "and.b32 %r1, %r0, 3; mov.u64 %l2, table; cvta.const.u64 %l2, %l2; mad.wide.u32 %l2, %r1, 4, %l2; ld.b32 %y, [%l2];",
            [ONE, 0x4000_0000, 0xc040_0000],
        ),
    ] {
        assert_eq!(crate::instructions::run_lanes(&all(body), [own; 3]).unwrap()[..3], want, "{body}");
        if let Some(ptxas) = crate::ptxas() {
            crate::assemble(&ptxas, "sm_90a", &all(body));
        }
    }
    let past = crate::instructions::run_lanes(&all("ld.const.b32 %y, [whole+4];"), [own; 3]).unwrap_err();
    assert_eq!(past.kind, Kind::Bounds);
}

#[test]
fn what_the_table_holds_is_ptx() {
    let Some(ptxas) = crate::ptxas() else { return };
    let mut text = HEAD.to_string();
    for (register, rows) in [("b32", INTEGERS), ("b32", FLOATS), ("b32", CONVERSIONS), ("b64", DOUBLES)] {
        for (body, ..) in rows {
            let one = kernel(register, &format!("{BEFORE}{body}")).replace(HEAD, "");
            text += &one.replace(".entry k(", &format!(".entry k{}(", text.len()));
        }
    }
    crate::assemble(&ptxas, "sm_90a", &text);
}
