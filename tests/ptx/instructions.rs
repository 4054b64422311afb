//! What each instruction computes, against values worked out by hand or by an independent formula.

use crate::ptx_interpreter::{Argument, Fault, Gpu, Kind, Launch, Module};

pub const HEAD: &str = ".version 8.0\n.target sm_90a\n.address_size 64\n";

/// Runs `body` for a warp. Before it, `%x0` to `%x2` hold each lane's inputs; after it, `%y` is its output.
pub fn kernel(register: &str, body: &str) -> String {
    format!(
        "{HEAD}.visible .entry k(.param .u64 pX, .param .u64 pY)\n{{\n.reg .{register} %x<3>, %y, %t<4>;\n.reg .b32 %r<16>;\n\
         .reg .b64 %l<4>;\n.reg .pred %p<4>;\n.reg .b16 %h<8>;\n.shared .align 16 .b8 s[2048];\n\
         mov.u32 %r0, %tid.x; ld.param.u64 %l0, [pX]; ld.param.u64 %l1, [pY];\n\
         mad.wide.u32 %l0, %r0, 8, %l0; mad.wide.u32 %l1, %r0, 8, %l1;\n\
         ld.global.{register} %x0, [%l0]; ld.global.{register} %x1, [%l0+256]; ld.global.{register} %x2, [%l0+512];\n\
         {body}\nst.global.{register} [%l1], %y;\nret;\n}}\n"
    )
}

/// Each lane's output bits of [`kernel`].
pub fn lanes(register: &str, body: &str, x: [&dyn Fn(usize) -> u64; 3]) -> Vec<u64> {
    run_lanes(&kernel(register, body), x).unwrap_or_else(|f| panic!("{f}"))
}

/// The same of a kernel's text.
pub fn run_lanes(text: &str, x: [&dyn Fn(usize) -> u64; 3]) -> Result<Vec<u64>, Fault> {
    let module = Module::read(text)?;
    let mut gpu = Gpu::default();
    let inputs: Vec<u64> = x.iter().flat_map(|f| (0..32).map(f)).collect();
    let (from, to) = (gpu.global.allocate("x", &inputs), gpu.global.allocate("y", &[0u64; 32]));
    let arguments = vec![Argument::u64(from), Argument::u64(to)];
    gpu.launch(module.entry("k")?, &Launch { grid: [1; 3], block: [32, 1, 1], arguments, ..Launch::default() })?;
    gpu.global.values(to)
}

fn one(register: &str, body: &str, x: [u64; 3]) -> u64 {
    lanes(register, body, [&|_| x[0], &|_| x[1], &|_| x[2]])[0]
}

#[test]
fn integers() {
    let minus = |n: u64| (n as u32).wrapping_neg() as u64;
    let cases: [(&str, [u64; 3], u64); 40] = [
        ("add.s32 %y, %x0, %x1;", [0x7fff_ffff, 1, 0], 0x8000_0000),
        ("add.sat.s32 %y, %x0, %x1;", [0x7fff_ffff, 1, 0], 0x7fff_ffff),
        ("sub.u32 %y, %x0, %x1;", [1, 2, 0], 0xffff_ffff),
        ("mul.lo.u32 %y, %x0, %x1;", [0x10001, 0x10001, 0], 0x20001),
        ("mul.hi.u32 %y, %x0, %x1;", [0xffff_ffff, 0xffff_ffff, 0], 0xffff_fffe),
        ("mul.hi.s32 %y, %x0, %x1;", [minus(1), 5, 0], 0xffff_ffff),
        ("mad.lo.s32 %y, %x0, %x1, %x2;", [minus(3), 7, 1], minus(20)),
        ("div.s32 %y, %x0, %x1;", [minus(7), 2, 0], minus(3)),
        ("rem.s32 %y, %x0, %x1;", [minus(7), 2, 0], minus(1)),
        ("div.u32 %y, %x0, %x1;", [minus(7), 2, 0], 0x7fff_fffc),
        ("min.s32 %y, %x0, %x1;", [minus(7), 2, 0], minus(7)),
        ("min.u32 %y, %x0, %x1;", [minus(7), 2, 0], 2),
        ("max.s32 %y, %x0, %x1;", [minus(7), 2, 0], 2),
        ("abs.s32 %y, %x0;", [minus(7), 0, 0], 7),
        ("neg.s32 %y, %x0;", [7, 0, 0], minus(7)),
        ("not.b32 %y, %x0;", [0xf0f0, 0, 0], 0xffff_0f0f),
        ("shl.b32 %y, %x0, %x1;", [1, 31, 0], 0x8000_0000),
        ("shl.b32 %y, %x0, %x1;", [1, 32, 0], 0),
        ("shr.u32 %y, %x0, %x1;", [0x8000_0000, 31, 0], 1),
        ("shr.s32 %y, %x0, %x1;", [0x8000_0000, 40, 0], 0xffff_ffff),
        ("shr.u32 %y, %x0, %x1;", [0x8000_0000, 40, 0], 0),
        ("lop3.b32 %y, %x0, %x1, %x2, 0x96;", [0b1100, 0b1010, 0b1111], 0b1001),
        ("lop3.b32 %y, %x0, %x1, %x2, 0xCA;", [0b1100, 0b1010, 0b0101], 0b1001),
        ("shf.l.wrap.b32 %y, %x0, %x1, %x2;", [0x8765_4321, 0x1234_5678, 8], 0x3456_7887),
        ("shf.r.clamp.b32 %y, %x0, %x1, %x2;", [0x8765_4321, 0x1234_5678, 40], 0x1234_5678),
        ("shf.r.wrap.b32 %y, %x0, %x1, %x2;", [0x8765_4321, 0x1234_5678, 4], 0x8876_5432),
        ("popc.b32 %y, %x0;", [0xf0f0, 0, 0], 8),
        ("clz.b32 %y, %x0;", [0xf0f0, 0, 0], 16),
        ("brev.b32 %y, %x0;", [1, 0, 0], 0x8000_0000),
        ("bfe.u32 %y, %x0, %x1, %x2;", [0xabcd_1234, 4, 8], 0x23),
        ("bfe.s32 %y, %x0, %x1, %x2;", [0x0000_0ff0, 4, 8], 0xffff_ffff),
        ("bfi.b32 %y, %x0, %x1, 8, 4;", [0x5, 0xffff_ffff, 0], 0xffff_f5ff),
        ("prmt.b32 %y, %x0, %x1, 0x5410;", [0x3322_1100, 0x7766_5544, 0], 0x5544_1100),
        ("prmt.b32 %y, %x0, %x1, 0xb0b0;", [0x80ff_00ee, 0, 0], 0xffee_ffee),
        ("dp4a.s32.s32 %y, %x0, %x1, %x2;", [0xff02_8003, 0x017f_8004, 100], 16_749),
        ("dp4a.u32.s32 %y, %x0, %x1, %x2;", [0xff00_0000, 0xff00_0000, 0], minus(255)),
        ("dp2a.lo.s32.s32 %y, %x0, %x1, %x2;", [0x8000_0003, 0x7f7f_02ff, 0], minus(65_539)),
        ("mov.b32 {%h0, %h1}, %x0; mov.b32 %y, {%h1, %h0};", [0x1234_5678, 0, 0], 0x5678_1234),
        ("cvt.s32.s8 %y, %x0;", [0x1280, 0, 0], 0xffff_ff80),
        ("cvt.pack.sat.s8.s32.b32 %y, %x0, %x1, %x2;", [300, minus(300), 0xabcd], 0xabcd_7f80),
    ];
    let wrong = |(body, x, want): (&str, [u64; 3], u64)| {
        let got = one("b32", body, x);
        (got != want).then(|| format!("{body} of {x:x?}: {got:#x}, not {want:#x}"))
    };
    let wrong: Vec<String> = cases.into_iter().filter_map(wrong).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let wide = "mul.wide.s32 %y, %r1, %r2;";
    assert_eq!(one("b64", &format!("mov.u32 %r1, -3; mov.u32 %r2, 5; {wide}"), [0; 3]) as i64, -15);
    assert_eq!(one("b64", "mov.u32 %r1, -1; mad.wide.u32 %y, %r1, 16, %x0;", [3, 0, 0]), 0xf_ffff_fff3);
}

#[test]
fn floats() {
    let f = |x: f32| u64::from(x.to_bits());
    let cases: [(&str, [f32; 3], f32); 17] = [
        ("add.rn.f32 %y, %x0, %x1;", [1.0, 2.5, 0.0], 3.5),
        ("fma.rn.f32 %y, %x0, %x1, %x2;", [1.0 + f32::EPSILON, 1.0 - f32::EPSILON, -1.0], -(f32::EPSILON * f32::EPSILON)),
        ("mul.rn.f32 %y, %x0, %x1;", [1e-30, 1e-10, 0.0], 1e-40),
        ("mul.rn.ftz.f32 %y, %x0, %x1;", [1e-30, 1e-10, 0.0], 0.0),
        ("add.sat.f32 %y, %x0, %x1;", [1.0, 2.5, 0.0], 1.0),
        ("div.rn.f32 %y, %x0, %x1;", [1.0, 3.0, 0.0], 1.0 / 3.0),
        ("rcp.approx.f32 %y, %x0;", [8.0, 0.0, 0.0], 0.125),
        ("sqrt.rn.f32 %y, %x0;", [2.0, 0.0, 0.0], std::f32::consts::SQRT_2),
        ("ex2.approx.f32 %y, %x0;", [-3.0, 0.0, 0.0], 0.125),
        ("lg2.approx.f32 %y, %x0;", [32.0, 0.0, 0.0], 5.0),
        ("rsqrt.approx.f32 %y, %x0;", [16.0, 0.0, 0.0], 0.25),
        ("min.f32 %y, %x0, %x1;", [f32::NAN, 2.0, 0.0], 2.0),
        ("max.f32 %y, %x0, %x1;", [-0.0, 0.0, 0.0], 0.0),
        ("copysign.f32 %y, %x0, %x1;", [-1.0, 3.0, 0.0], -3.0),
        ("cvt.rni.f32.f32 %y, %x0;", [2.5, 0.0, 0.0], 2.0),
        ("setp.ltu.f32 %p0, %x0, %x1; selp.f32 %y, %x0, %x2, %p0;", [1.0, f32::NAN, 7.0], 1.0),
        ("setp.lt.f32 %p0|%p1, %x0, %x1; selp.f32 %y, %x0, %x2, %p1;", [1.0, 0.5, 7.0], 1.0),
    ];
    for (body, x, want) in cases {
        let got = one("f32", body, x.map(f));
        assert_eq!(got, f(want), "{body} of {x:?}: {}, not {want}", f32::from_bits(got as u32));
    }
    assert!(f32::from_bits(one("f32", "min.NaN.f32 %y, %x0, %x1;", [f(f32::NAN), f(2.0), 0]) as u32).is_nan());
    for (body, x, want) in [
        ("cvt.rni.sat.s8.f32 %y, %x0;", 127.5, 127u32),
        ("cvt.rni.sat.s8.f32 %y, %x0;", -200.0, 0xffff_ff80),
        ("cvt.rni.s32.f32 %y, %x0;", 2.5, 2),
        ("cvt.rzi.s32.f32 %y, %x0;", -2.5, 0xffff_fffe),
        ("cvt.rni.s32.f32 %y, %x0;", 3e9, 0x7fff_ffff),
        ("cvt.rni.s32.f32 %y, %x0;", f32::NAN, 0),
        ("cvt.rn.f16x2.f32 %y, %x0, 0f3F800000;", -2.0, 0xc000_3c00),
        ("cvt.rn.bf16x2.f32 %y, %x0, 0f3F800000;", -2.0, 0xc000_3f80),
        ("cvt.rn.f16.f32 %h0, %x0; mov.b32 %y, {%h0, %h0};", 2049.0, 0x6800_6800),
    ] {
        assert_eq!(one("b32", body, [f(x), 0, 0]), u64::from(want), "{body} of {x}");
    }
    for (body, x, want) in [
        ("fma.rn.f16x2 %y, %x0, %x1, %x2;", [0x4000_3c00, 0x4200_4200, 0x3c00_c200], 0x4700_0000u64),
        ("add.rn.bf16x2 %y, %x0, %x1;", [0x3f80_4000, 0x3f80_3f80, 0], 0x4000_4040),
        ("max.f16x2 %y, %x0, %x1;", [0x3c00_bc00, 0x4000_c000, 0], 0x4000_bc00),
    ] {
        assert_eq!(one("b32", body, x), want, "{body}");
    }
}

#[test]
fn shuffles_and_votes() {
    let own: &dyn Fn(usize) -> u64 = &|lane| lane as u64 * 10;
    let zero: &dyn Fn(usize) -> u64 = &|_| 0;
    let run = |body: &str| lanes("b32", body, [own, zero, zero]);
    let butterfly = run("shfl.sync.bfly.b32 %y, %x0, 5, 31, -1;");
    let down = run("shfl.sync.down.b32 %y|%p0, %x0, 3, 31, -1; @!%p0 mov.u32 %y, 999;");
    let up = run("shfl.sync.up.b32 %y, %x0, 4, 0, -1;");
    let segment = run("shfl.sync.idx.b32 %y, %x0, 2, 0x181f, -1;");
    for lane in 0..32u64 {
        let l = lane as usize;
        assert_eq!(butterfly[l], (lane ^ 5) * 10);
        assert_eq!(down[l], if lane + 3 < 32 { (lane + 3) * 10 } else { 999 });
        assert_eq!(up[l], if lane >= 4 { (lane - 4) * 10 } else { lane * 10 });
        assert_eq!(segment[l], (lane / 8 * 8 + 2) * 10, "segments of 8 lanes");
    }
    let set = "setp.gt.u32 %p0, %x0, 100;";
    assert_eq!(run(&format!("{set} vote.sync.ballot.b32 %y, %p0, -1;"))[7], 0xffff_f800);
    assert_eq!(run(&format!("{set} vote.sync.any.pred %p1, %p0, -1; selp.b32 %y, 1, 0, %p1;"))[0], 1);
    assert_eq!(run(&format!("{set} vote.sync.all.pred %p1, %p0, -1; selp.b32 %y, 1, 0, %p1;"))[31], 0);
    // Lanes that went apart meet again at the vote.
    let apart =
        "setp.lt.u32 %p0, %r0, 5; @%p0 bra LOW; mov.u32 %r1, 1; bra MEET; LOW: mov.u32 %r1, 0; MEET: setp.eq.u32 %p1, %r1, 0;";
    assert_eq!(run(&format!("{apart} vote.sync.ballot.b32 %y, %p1, -1;"))[20], 31);
    let elected = run("mov.u32 %y, 0; elect.sync _|%p0, -1; @%p0 mov.u32 %y, 1;");
    assert_eq!(elected.iter().sum::<u64>(), 1);
}

#[test]
fn atomics_and_generic_addresses() {
    let zero: &dyn Fn(usize) -> u64 = &|_| 0;
    let sum = "mov.u32 %r1, s; setp.eq.u32 %p0, %r0, 0; @%p0 st.shared.u32 [%r1], 5; bar.sync 0;
        atom.shared.add.u32 %r2, [%r1], %r0; bar.sync 0; ld.shared.u32 %y, [s];";
    assert!(lanes("b32", sum, [zero; 3]).iter().all(|y| *y == 5 + 31 * 16));
    let cas = "st.shared.u32 [s], 7; atom.shared.cas.b32 %r2, [s], 7, 9; ld.shared.u32 %y, [s]; add.u32 %y, %y, %r2;";
    let lone = format!("mov.u32 %y, 0; setp.ne.u32 %p0, %r0, 0; @%p0 bra DONE; {cas} DONE:");
    assert_eq!(lanes("b32", &lone, [zero; 3])[0], 16);
    let generic = "mov.u64 %l2, s; cvta.shared.u64 %l2, %l2; mad.wide.u32 %l2, %r0, 4, %l2; st.u32 [%l2], %r0;
        cvta.to.shared.u64 %l3, %l2; cvt.u32.u64 %r3, %l3; ld.shared.u32 %y, [%r3];";
    assert_eq!(lanes("b32", generic, [zero; 3])[9], 9);
    let inc = "setp.ne.u32 %p0, %r0, 0; mov.u32 %y, 55; @%p0 bra DONE; st.shared.u32 [s], 3; red.shared.inc.u32 [s], 3;
        ld.shared.u32 %y, [s]; DONE:";
    assert_eq!(lanes("b32", inc, [zero; 3])[0], 0);
}

#[test]
fn transposed_matrices() {
    let zero: &dyn Fn(usize) -> u64 = &|_| 0;
    // Elements 2 l and 2 l + 1 of a matrix of 8 x 8 in each lane's register, or at its place in memory.
    let own = "shl.b32 %r1, %r0, 1; add.u32 %r2, %r1, 1; shl.b32 %r2, %r2, 16; or.b32 %r2, %r2, %r1;
        mov.u32 %r3, s; mad.lo.u32 %r4, %r0, 4, %r3; and.b32 %r5, %r0, 7; mad.lo.u32 %r5, %r5, 16, %r3;";
    let load = "st.shared.u32 [%r4], %r2; bar.warp.sync -1; ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%y}, [%r5];";
    let store = "stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%r5], {%r2}; bar.warp.sync -1; ld.shared.u32 %y, [%r4];";
    for body in [load, store] {
        for (lane, y) in lanes("b32", &format!("{own} {body}"), [zero; 3]).into_iter().enumerate() {
            let (row, column) = (lane % 4 * 2, lane / 4);
            assert_eq!((y & 0xffff, y >> 16), ((row * 8 + column) as u64, ((row + 1) * 8 + column) as u64), "{body}");
        }
        let racy = Module::read(&kernel("b32", &format!("{own} {}", body.replace("bar.warp.sync -1;", "")))).unwrap();
        let mut gpu = Gpu::default();
        let x = gpu.global.allocate("x", &[0u64; 96]);
        let launch = Launch { grid: [1; 3], block: [32, 1, 1], arguments: vec![Argument::u64(x); 2], ..Launch::default() };
        assert_eq!(gpu.launch(racy.entry("k").unwrap(), &launch).unwrap_err().kind, Kind::Race);
    }
}

#[test]
fn what_is_not_of_the_subset_is_named() {
    for (body, word) in [
        ("frob.b32 %y, %x0;", "frob"),
        ("add.rx.f32 %y, %x0, %x1;", "rx"),
        ("add.s32 %y, %x0;", "operands"),
        ("mov.b32 %y, %unknown;", "%unknown"),
        ("bra NOWHERE;", "NOWHERE"),
        ("rcp.f32 %y, %x0;", "Reciprocal"),
    ] {
        let fault = Module::read(&kernel("b32", body)).unwrap_err();
        assert_eq!(fault.kind, Kind::Syntax, "{fault}");
        assert!(fault.line == 15 && fault.to_string().contains(word), "{body}: {fault}");
    }
    let fault = Module::read(".version 8.0\n.target sm_80\n.func f()\n{\n}\n").unwrap_err();
    assert!(fault.line == 3 && fault.what.contains(".func"), "{fault}");
}
