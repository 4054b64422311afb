//! PTX of the functions that are more than an instruction. Those of f32 are the steps of [`crate::scalar::cpu::math`], bit for
//! bit. Those of f64 are power series after a reduction of the argument, within 16 units in the last place; f32 uses them for
//! what models rarely need, and rounds once.

use crate::scalar::cpu::math;

/// Coefficients of a polynomial in f32, the highest power's first.
pub fn polynomial(name: &str) -> &'static [f32] {
    match name {
        "exp" => &math::EXP,
        "log" => &math::LOG,
        "tanh" => &math::TANH,
        "erf_numerator" => &math::ERF_NUMERATOR,
        "erf_denominator" => &math::ERF_DENOMINATOR,
        other => unreachable!("no polynomial is called {other}"),
    }
}

/// Coefficients of a power series, the highest power's first, of as many terms as reach f64's precision: e^x for |x| < 0.35;
/// `f(x) / x` or cos in powers of x^2, for sin and cos below pi/4, sinh below 1, atan below tan(pi/16), atanh below 0.172.
pub fn series(name: &str) -> Vec<f64> {
    let factorial = |n: u32| (1..=n).map(f64::from).product::<f64>();
    let sign = |k: u32| if k.is_multiple_of(2) { 1.0 } else { -1.0 };
    let terms = |n: u32, term: &dyn Fn(u32) -> f64| (0..n).rev().map(term).collect();
    match name {
        "exp" => terms(14, &|k| 1.0 / factorial(k)),
        "sin" => terms(10, &|k| sign(k) / factorial(2 * k + 1)),
        "cos" => terms(10, &|k| sign(k) / factorial(2 * k)),
        "sinh" => terms(10, &|k| 1.0 / factorial(2 * k + 1)),
        "atan" => terms(13, &|k| sign(k) / f64::from(2 * k + 1)),
        "atanh" => terms(12, &|k| 1.0 / f64::from(2 * k + 1)),
        other => unreachable!("no series is called {other}"),
    }
}

/// The text of a function.
pub fn function(name: &str) -> &'static str {
    FUNCTIONS.iter().find(|f| f.0 == name).map_or_else(|| unreachable!("no function is called {name}"), |f| f.1)
}

static FUNCTIONS: &[(&str, &str)] = &[
    ("exp32", EXP32),
    ("log32", LOG32),
    ("tanh32", TANH32),
    ("erf32", ERF32),
    ("exp64", EXP64),
    ("log64", LOG64),
    ("sincos64", SINCOS64),
    ("sin64", ".reg .f64 %c;\n!sincos64 $d, $a, %c;"),
    ("cos64", ".reg .f64 %s;\n!sincos64 %s, $a, $d;"),
    ("tan64", ".reg .f64 %s, %c;\n!sincos64 %s, $a, %c;\ndiv.rn.f64 $d, %s, %c;"),
    ("atan64", ATAN64),
    ("asin64", ASIN64),
    ("acos64", ACOS64),
    ("sinh64", SINH64),
    ("cosh64", COSH64),
    ("tanh64", TANH64),
    ("asinh64", ASINH64),
    ("acosh64", ACOSH64),
    ("atanh64", ATANH64),
    ("erf64", ERF64),
    ("pow64", POW64),
    ("rem64", REM64),
    ("pows64", POW_S64),
    ("rems64", REM_S64),
];

const EXP32: &str = "
.reg .f32 %x, %n, %s, %r, %y, %p; .reg .s32 %k, %h; .reg .pred %c;
setp.lt.f32 %c, $a, -104.0; selp.f32 %x, -104.0, $a, %c;
setp.gt.f32 %c, %x, 89.0; selp.f32 %x, 89.0, %x, %c;
// Adding 1.5 * 2^23 rounds to an integer in the low bits.
mul.rn.f32 %s, %x, 0f3FB8AA3B; add.rn.f32 %s, %s, 12582912.0; sub.rn.f32 %n, %s, 12582912.0;
mul.rn.f32 %y, %n, 0f3F318000; sub.rn.f32 %r, %x, %y;
mul.rn.f32 %y, %n, 0fB95E8083; sub.rn.f32 %r, %r, %y;
!polynomial exp %p, %r;
mul.rn.f32 %y, %p, %r; mul.rn.f32 %y, %y, %r; add.rn.f32 %y, %y, %r; add.rn.f32 %y, %y, 1.0;
// 2^n in two halves, so that results below the normal range come out right.
mov.b32 %k, %s; sub.s32 %k, %k, 0x4b400000; shr.s32 %h, %k, 1; sub.s32 %k, %k, %h;
add.s32 %h, %h, 127; shl.b32 %h, %h, 23; mov.b32 %p, %h; mul.rn.f32 %y, %y, %p;
add.s32 %k, %k, 127; shl.b32 %k, %k, 23; mov.b32 %p, %k; mul.rn.f32 $d, %y, %p;";

const LOG32: &str = "
.reg .f32 %s, %m, %z, %p, %e, %y, %t; .reg .s32 %b, %k, %h; .reg .pred %tiny, %c;
setp.lt.f32 %tiny, $a, 0f00800000; mul.rn.f32 %s, $a, 8388608.0; selp.f32 %s, %s, $a, %tiny;
// The mantissa in [sqrt(1/2), sqrt(2)).
mov.b32 %b, %s; sub.s32 %k, %b, 0x3f3504f3; shr.s32 %k, %k, 23; shl.b32 %h, %k, 23; sub.s32 %b, %b, %h;
mov.b32 %m, %b; sub.rn.f32 %m, %m, 1.0; mul.rn.f32 %z, %m, %m;
!polynomial log %p, %m;
cvt.rn.f32.s32 %e, %k; selp.f32 %t, 23.0, 0.0, %tiny; sub.rn.f32 %e, %e, %t;
mul.rn.f32 %y, %p, %m; mul.rn.f32 %y, %y, %z; mul.rn.f32 %t, %e, 0fB95E8083; add.rn.f32 %y, %y, %t;
mul.rn.f32 %t, %z, 0.5; sub.rn.f32 %y, %y, %t;
add.rn.f32 %y, %m, %y; mul.rn.f32 %t, %e, 0f3F318000; add.rn.f32 %y, %y, %t;
setp.eq.f32 %c, $a, 0f7F800000; selp.f32 %y, $a, %y, %c;
setp.eq.f32 %c, $a, 0.0; selp.f32 %y, 0fFF800000, %y, %c;
setp.ge.f32 %c, $a, 0.0; selp.f32 $d, %y, 0f7FC00000, %c;";

const TANH32: &str = "
.reg .f32 %z, %s, %x, %e, %l, %n; .reg .pred %c;
mul.rn.f32 %z, $a, $a;
!polynomial tanh %s, %z;
mul.rn.f32 %e, $a, %z; mul.rn.f32 %s, %e, %s; add.rn.f32 %s, $a, %s;
abs.f32 %x, $a; mul.rn.f32 %e, %x, 2.0;
!exp32 %l, %e;
add.rn.f32 %l, %l, 1.0; mov.f32 %n, 2.0; div.rn.f32 %l, %n, %l; mov.f32 %n, 1.0; sub.rn.f32 %l, %n, %l;
neg.f32 %n, %l; setp.lt.f32 %c, $a, 0.0; selp.f32 %l, %n, %l, %c;
setp.nan.f32 %c, $a, $a; selp.f32 %l, $a, %l, %c;
setp.lt.f32 %c, %x, 0.625; selp.f32 $d, %s, %l, %c;";

const ERF32: &str = "
.reg .f32 %x, %z, %p, %q; .reg .pred %c;
setp.lt.f32 %c, $a, -4.0; selp.f32 %x, -4.0, $a, %c;
setp.gt.f32 %c, %x, 4.0; selp.f32 %x, 4.0, %x, %c;
mul.rn.f32 %z, %x, %x;
!polynomial erf_numerator %p, %z;
!polynomial erf_denominator %q, %z;
mul.rn.f32 %p, %x, %p; div.rn.f32 %p, %p, %q;
setp.lt.f32 %c, %p, -1.0; selp.f32 %p, -1.0, %p, %c;
setp.gt.f32 %c, %p, 1.0; selp.f32 $d, 1.0, %p, %c;";

const EXP64: &str = "
.reg .f64 %x, %n, %r, %y; .reg .s64 %k, %h; .reg .pred %c;
setp.lt.f64 %c, $a, -746.0; selp.f64 %x, -746.0, $a, %c;
setp.gt.f64 %c, %x, 710.0; selp.f64 %x, 710.0, %x, %c;
mul.rn.f64 %n, %x, 0d3FF71547652B82FE; cvt.rni.f64.f64 %n, %n;
fma.rn.f64 %r, %n, 0dBFE62E42FEE00000, %x; fma.rn.f64 %r, %n, 0dBDEA39EF35793C76, %r;
!series exp %y, %r;
cvt.rzi.s64.f64 %k, %n; shr.s64 %h, %k, 1; sub.s64 %k, %k, %h;
add.s64 %h, %h, 1023; shl.b64 %h, %h, 52; mov.b64 %n, %h; mul.rn.f64 %y, %y, %n;
add.s64 %k, %k, 1023; shl.b64 %k, %k, 52; mov.b64 %n, %k; mul.rn.f64 $d, %y, %n;";

const LOG64: &str = "
.reg .f64 %s, %m, %q, %z, %e, %y, %t; .reg .s64 %b, %k, %h; .reg .pred %tiny, %c;
setp.lt.f64 %tiny, $a, 0d0010000000000000; mul.rn.f64 %s, $a, 0d4350000000000000; selp.f64 %s, %s, $a, %tiny;
mov.b64 %b, %s; sub.s64 %k, %b, 0x3fe6a09e667f3bcd; shr.s64 %k, %k, 52; shl.b64 %h, %k, 52; sub.s64 %b, %b, %h;
mov.b64 %m, %b; cvt.rn.f64.s64 %e, %k; selp.f64 %t, 54.0, 0.0, %tiny; sub.rn.f64 %e, %e, %t;
// log(m) = 2 atanh((m - 1) / (m + 1)).
sub.rn.f64 %q, %m, 1.0; add.rn.f64 %t, %m, 1.0; div.rn.f64 %q, %q, %t; mul.rn.f64 %z, %q, %q;
!series atanh %y, %z;
mul.rn.f64 %y, %y, %q; mul.rn.f64 %y, %y, 2.0;
fma.rn.f64 %y, %e, 0d3DEA39EF35793C76, %y; fma.rn.f64 %y, %e, 0d3FE62E42FEE00000, %y;
setp.eq.f64 %c, $a, 0d7FF0000000000000; selp.f64 %y, $a, %y, %c;
setp.eq.f64 %c, $a, 0.0; selp.f64 %y, 0dFFF0000000000000, %y, %c;
setp.ge.f64 %c, $a, 0.0; selp.f64 $d, %y, 0d7FF8000000000000, %c;";

/// Sine into `$d`, cosine into `$b`. Quarter turns are taken off with pi/2 in three parts; beyond 2^50 turns, where they cannot
/// be counted, the result is only kept in [-1, 1].
const SINCOS64: &str = "
.reg .f64 %x, %n, %r, %z, %s, %c, %t; .reg .s64 %k, %h; .reg .pred %odd, %p;
mov.f64 %x, 0d433921FB54442D18;
!rem64 %x, $a, %x;
mul.rn.f64 %n, %x, 0d3FE45F306DC9C883; cvt.rni.f64.f64 %n, %n;
fma.rn.f64 %r, %n, 0dBFF921FB54442D18, %x; fma.rn.f64 %r, %n, 0dBC91A62633145C07, %r;
fma.rn.f64 %r, %n, 0d391F1976B7ED8FBC, %r;
mul.rn.f64 %z, %r, %r;
!series sin %s, %z;
mul.rn.f64 %s, %s, %r;
!series cos %c, %z;
cvt.rzi.s64.f64 %k, %n; and.b64 %h, %k, 1; setp.ne.s64 %odd, %h, 0;
selp.f64 %t, %c, %s, %odd; selp.f64 %c, %s, %c, %odd;
and.b64 %h, %k, 2; setp.ne.s64 %p, %h, 0; neg.f64 %s, %t; selp.f64 $d, %s, %t, %p;
add.s64 %k, %k, 1; and.b64 %h, %k, 2; setp.ne.s64 %p, %h, 0; neg.f64 %t, %c; selp.f64 $b, %t, %c, %p;";

/// atan(x) = 2 atan(x / (1 + sqrt(1 + x^2))), twice, after 1/x for what is above 1.
const ATAN64: &str = "
.reg .f64 %x, %y, %t, %z; .reg .pred %big;
abs.f64 %x, $a; setp.gt.f64 %big, %x, 1.0; rcp.rn.f64 %y, %x; selp.f64 %y, %y, %x, %big;
mul.rn.f64 %t, %y, %y; add.rn.f64 %t, %t, 1.0; sqrt.rn.f64 %t, %t; add.rn.f64 %t, %t, 1.0; div.rn.f64 %y, %y, %t;
mul.rn.f64 %t, %y, %y; add.rn.f64 %t, %t, 1.0; sqrt.rn.f64 %t, %t; add.rn.f64 %t, %t, 1.0; div.rn.f64 %y, %y, %t;
mul.rn.f64 %z, %y, %y;
!series atan %t, %z;
mul.rn.f64 %y, %y, %t; mul.rn.f64 %y, %y, 4.0;
mov.f64 %t, 0d3FF921FB54442D18; sub.rn.f64 %t, %t, %y; selp.f64 %y, %t, %y, %big;
copysign.f64 $d, $a, %y;";

const ASIN64: &str = "
.reg .f64 %u, %v;
mov.f64 %u, 1.0; sub.rn.f64 %u, %u, $a; add.rn.f64 %v, $a, 1.0; mul.rn.f64 %u, %u, %v; sqrt.rn.f64 %u, %u;
div.rn.f64 %u, $a, %u;
!atan64 $d, %u;";

const ACOS64: &str = "
.reg .f64 %u, %v;
mov.f64 %u, 1.0; sub.rn.f64 %u, %u, $a; add.rn.f64 %v, $a, 1.0; div.rn.f64 %u, %u, %v; sqrt.rn.f64 %u, %u;
!atan64 %v, %u;
mul.rn.f64 $d, %v, 2.0;";

/// Above 1 by e^(x/2), squared last, so that nothing overflows too early.
const SINH64: &str = "
.reg .f64 %x, %z, %s, %e, %i, %h; .reg .pred %c;
abs.f64 %x, $a; mul.rn.f64 %z, %x, %x;
!series sinh %s, %z;
mul.rn.f64 %s, %s, %x; mul.rn.f64 %h, %x, 0.5;
!exp64 %e, %h;
mov.f64 %i, 0.5; div.rn.f64 %i, %i, %e; div.rn.f64 %i, %i, %e; mul.rn.f64 %h, %e, 0.5; mul.rn.f64 %e, %h, %e;
sub.rn.f64 %e, %e, %i; setp.lt.f64 %c, %x, 1.0; selp.f64 %s, %s, %e, %c; copysign.f64 $d, $a, %s;";

const COSH64: &str = "
.reg .f64 %h, %e, %i;
abs.f64 %h, $a; mul.rn.f64 %h, %h, 0.5;
!exp64 %e, %h;
mov.f64 %i, 0.5; div.rn.f64 %i, %i, %e; div.rn.f64 %i, %i, %e; mul.rn.f64 %h, %e, 0.5; mul.rn.f64 %e, %h, %e;
add.rn.f64 $d, %e, %i;";

/// sinh / sqrt(1 + sinh^2) below 1, else 1 - 2 / (e^2x + 1).
const TANH64: &str = "
.reg .f64 %x, %z, %s, %t, %e; .reg .pred %c;
abs.f64 %x, $a; mul.rn.f64 %z, %x, %x;
!series sinh %s, %z;
mul.rn.f64 %s, %s, %x; mul.rn.f64 %t, %s, %s; add.rn.f64 %t, %t, 1.0; sqrt.rn.f64 %t, %t; div.rn.f64 %s, %s, %t;
mul.rn.f64 %t, %x, 2.0;
!exp64 %e, %t;
add.rn.f64 %e, %e, 1.0; mov.f64 %t, -2.0; div.rn.f64 %e, %t, %e; add.rn.f64 %e, %e, 1.0;
setp.lt.f64 %c, %x, 1.0; selp.f64 %s, %s, %e, %c; copysign.f64 $d, $a, %s;";

/// atanh(x / sqrt(1 + x^2)) below 0.17, log(x + sqrt(x^2 + 1)) above, log(x) + log(2) where x^2 overflows.
const ASINH64: &str = "
.reg .f64 %x, %r, %q, %z, %s, %l, %t; .reg .pred %c, %big;
abs.f64 %x, $a; mul.rn.f64 %r, %x, %x; add.rn.f64 %r, %r, 1.0; sqrt.rn.f64 %r, %r;
div.rn.f64 %q, %x, %r; mul.rn.f64 %z, %q, %q;
!series atanh %s, %z;
mul.rn.f64 %s, %s, %q;
setp.gt.f64 %big, %x, 1e9; add.rn.f64 %t, %x, %r; selp.f64 %t, %x, %t, %big;
!log64 %l, %t;
add.rn.f64 %t, %l, 0d3FE62E42FEFA39EF; selp.f64 %l, %t, %l, %big;
setp.lt.f64 %c, %x, 0.17; selp.f64 %s, %s, %l, %c; copysign.f64 $d, $a, %s;";

/// 2 asinh(sqrt((x - 1) / 2)).
const ACOSH64: &str = "
.reg .f64 %t, %y;
sub.rn.f64 %t, $a, 1.0; mul.rn.f64 %t, %t, 0.5; sqrt.rn.f64 %t, %t;
!asinh64 %y, %t;
mul.rn.f64 $d, %y, 2.0;";

const ATANH64: &str = "
.reg .f64 %x, %z, %s, %u, %v, %l; .reg .pred %c;
abs.f64 %x, $a; mul.rn.f64 %z, %x, %x;
!series atanh %s, %z;
mul.rn.f64 %s, %s, %x; add.rn.f64 %u, %x, 1.0; mov.f64 %v, 1.0; sub.rn.f64 %v, %v, %x; div.rn.f64 %u, %u, %v;
!log64 %l, %u;
mul.rn.f64 %l, %l, 0.5; setp.lt.f64 %c, %x, 0.17; selp.f64 %s, %s, %l, %c; copysign.f64 $d, $a, %s;";

/// x e^(-x^2) 2/sqrt(pi) (1 + 2x^2/3 (1 + 2x^2/5 (1 + ..))), all terms positive; 1 from 6 on. Abramowitz and Stegun 7.1.6.
const ERF64: &str = "
.reg .f64 %x, %z, %k, %p, %t, %e; .reg .pred %c, %big;
abs.f64 %x, $a; setp.ge.f64 %big, %x, 6.0; selp.f64 %x, 6.0, %x, %big;
mul.rn.f64 %z, %x, %x; mov.f64 %p, 1.0; mov.f64 %k, 301.0;
more: div.rn.f64 %t, %z, %k; mul.rn.f64 %t, %t, 2.0; fma.rn.f64 %p, %p, %t, 1.0;
sub.rn.f64 %k, %k, 2.0; setp.gt.f64 %c, %k, 2.0; @%c bra more;
neg.f64 %z, %z;
!exp64 %e, %z;
mul.rn.f64 %p, %p, %x; mul.rn.f64 %p, %p, %e; mul.rn.f64 %p, %p, 0d3FF20DD750429B6D;
selp.f64 %p, 1.0, %p, %big; copysign.f64 $d, $a, %p;";

/// e^(b log|a|) with the sign of a where b is odd. Special cases as C99 has them.
const POW64: &str = "
.reg .f64 %l, %t, %y, %h; .reg .pred %whole, %odd, %c, %q;
abs.f64 %l, $a;
!log64 %t, %l;
mul.rn.f64 %t, %t, $b;
!exp64 %y, %t;
setp.eq.f64 %c, %l, 1.0; abs.f64 %h, $b; setp.eq.and.f64 %c, %h, 0d7FF0000000000000, %c; selp.f64 %y, 1.0, %y, %c;
cvt.rzi.f64.f64 %h, $b; setp.eq.f64 %whole, %h, $b;
mul.rn.f64 %t, $b, 0.5; cvt.rzi.f64.f64 %h, %t; setp.ne.and.f64 %odd, %h, %t, %whole;
copysign.f64 %h, $a, %y; selp.f64 %y, %h, %y, %odd;
// A negative number's power is none unless the exponent is whole.
setp.lt.f64 %c, $a, 0.0; setp.gt.and.f64 %c, $a, 0dFFF0000000000000, %c; not.pred %q, %whole; and.pred %c, %c, %q;
selp.f64 %y, 0d7FF8000000000000, %y, %c;
setp.nan.f64 %c, $a, $b; selp.f64 %y, 0d7FF8000000000000, %y, %c;
setp.eq.f64 %c, $b, 0.0; setp.eq.or.f64 %c, $a, 1.0, %c; selp.f64 $d, 1.0, %y, %c;";

/// Exact: each turn takes off a multiple of b that keeps what is left a number of f64.
const REM64: &str = "
.reg .f64 %r, %m, %s, %q; .reg .pred %c, %far;
abs.f64 %r, $a; abs.f64 %m, $b;
setp.eq.f64 %c, %m, 0.0; setp.eq.or.f64 %c, %r, 0d7FF0000000000000, %c; setp.nan.or.f64 %c, $a, $b, %c;
selp.f64 %r, 0d7FF8000000000000, %r, %c;
more: setp.ge.f64 %c, %r, %m; @!%c bra done;
div.rz.f64 %q, %r, %m; setp.ge.f64 %far, %q, 0d7FE0000000000000;
mul.rn.f64 %s, %m, 0d7E70000000000000; selp.f64 %s, %s, %m, %far;
div.rz.f64 %q, %r, %s; cvt.rzi.f64.f64 %q, %q; neg.f64 %q, %q; fma.rn.f64 %r, %q, %s, %r; bra more;
done: copysign.f64 $d, $a, %r;";

/// Exponents below 64 wrap like products do, the others go by f64.
const POW_S64: &str = "
.reg .s64 %p, %s, %n, %w, %o; .reg .f64 %x, %y; .reg .pred %c;
cvt.rn.f64.s64 %x, $a; cvt.rn.f64.s64 %y, $b;
!pow64 %x, %x, %y;
cvt.rzi.s64.f64 %w, %x;
mov.s64 %p, 1; mov.s64 %s, $a; mov.s64 %n, $b; setp.lt.u64 %c, $b, 64; selp.s64 %n, %n, 0, %c;
more: setp.eq.s64 %c, %n, 0; @%c bra done;
and.b64 %o, %n, 1; setp.ne.s64 %c, %o, 0; @%c mul.lo.s64 %p, %p, %s;
mul.lo.s64 %s, %s, %s; shr.s64 %n, %n, 1; bra more;
done: setp.lt.u64 %c, $b, 64; selp.s64 $d, %p, %w, %c;";

const REM_S64: &str = "
.reg .s64 %s, %q; .reg .pred %c;
setp.eq.s64 %c, $b, 0; selp.s64 %s, 1, $b, %c; setp.eq.s64 %c, $b, -1; selp.s64 %s, 1, %s, %c; rem.s64 $d, $a, %s;";
