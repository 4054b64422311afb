//! The functions that formulas call, all named `hb_..`.

use std::sync::LazyLock;

use crate::scalar::cpu::math;

/// Polynomials in f32, the highest power's coefficient first. Those that the CPU has not are of Moshier's Cephes library,
/// single precision (`f(x) = x + x^3 p(x^2)` but for cos, `1 - x^2/2 + x^4 p(x^2)`, and acosh, `sqrt(x - 1) p(x - 1)`), each for
/// arguments below where [`FUNCTIONS`] turns to another way.
const POLYNOMIALS: [(&str, &[f32]); 14] = [
    ("exp", &math::EXP),
    ("log", &math::LOG),
    ("tanh", &math::TANH),
    ("erf_numerator", &math::ERF_NUMERATOR),
    ("erf_denominator", &math::ERF_DENOMINATOR),
    ("sinh", &[2.037_219_1e-4, 8.330_284e-3, 0.166_667_16]),
    ("asinh", &[2.012_200_4e-2, -4.269_934e-2, 7.484_759e-2, -0.166_662_88]),
    ("acosh", &[1.759_688_1e-3, -7.527_288_7e-3, 2.645_490_5e-2, -0.117_847_42, std::f32::consts::SQRT_2]),
    ("atanh", &[0.181_740_08, 8.243_703e-2, 0.146_691_43, 0.199_782_16, 0.333_337_3]),
    ("asin", &[4.216_32e-2, 2.418_131e-2, 4.547_002_6e-2, 7.495_3e-2, 0.166_667_52]),
    ("atan", &[8.053_744_5e-2, -0.138_776_86, 0.199_777_1, -0.333_329_5]),
    ("sin", &[-1.951_529_6e-4, 8.332_161e-3, -0.166_666_55]),
    ("cos", &[2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2]),
    // The series of log2((1 + t) / (1 - t)) / t after its first term, in powers of t^2, |t| < 0.172.
    ("log2", &[0.262_308_2, 0.320_598_9, 0.412_198_57, 0.577_078_04, 0.961_796_7]),
];

/// Those of [`super::exact_function`].
const EXACT: [(&str, &[f32]); 5] = [
    ("exp", &math::EXP),
    ("log", &math::LOG),
    ("tanh", &math::TANH),
    ("erf_numerator", &math::ERF_NUMERATOR),
    ("erf_denominator", &math::ERF_DENOMINATOR),
];

const NUMBERS: &str = include_str!("numbers.wgsl");
const FUNCTIONS: &str = include_str!("functions.wgsl");

static SUPPORT: LazyLock<String> = LazyLock::new(|| {
    let mut text: String = POLYNOMIALS
        .iter()
        .map(|(name, c)| polynomial(&format!("hb_poly_{name}"), c, |sum, c| format!("({sum} * x + {c})")))
        .collect();
    // 2/ln(2), like ln(2), as the sum of two floats.
    let high = (2.0 * std::f64::consts::LOG2_E) as f32;
    let low = (2.0 * std::f64::consts::LOG2_E - f64::from(high)) as f32;
    for (name, v) in
        [("LN_2_HIGH", math::LN_2[0]), ("LN_2_LOW", math::LN_2[1]), ("2_OVER_LN_2_HIGH", high), ("2_OVER_LN_2_LOW", low)]
    {
        text += &format!("const HB_{name} = {v:?}f;\n");
    }
    text + NUMBERS + FUNCTIONS
});

static SUPPORT_EXACT: LazyLock<String> = LazyLock::new(|| {
    let step = |sum: String, c: String| format!("hb_add(hb_mul({sum}, x), {c})");
    let polynomials = EXACT.iter().map(|(name, c)| polynomial(&format!("hb_cpu_poly_{name}"), c, step));
    polynomials.collect::<String>() + include_str!("exact.wgsl")
});

/// By Horner's rule: `step` takes the sum so far times x and adds a coefficient.
fn polynomial(name: &str, coefficients: &[f32], step: impl Fn(String, String) -> String) -> String {
    let sum = coefficients.iter().map(|c| format!("{c:?}f")).reduce(step).unwrap_or_default();
    format!("fn {name}(x: f32) -> f32 {{\n  return {sum};\n}}\n")
}

/// Support of every formula, once in a module. It needs no 64-bit types. The module has to define
/// `fn hb_exact(x: f32) -> f32`, which gives `x` in a way that the compiler cannot see through, so that no product is fused with
/// a sum: its bits, combined by exclusive or with a zero from memory.
pub fn support() -> &'static str {
    &SUPPORT
}

/// Besides, for modules with a [`super::exact_function`]; also `hb_mul` and `hb_add`, a product and a sum that are rounded by themselves.
pub fn support_exact() -> &'static str {
    &SUPPORT_EXACT
}

/// Besides, for modules that use 64-bit integers.
pub fn support64() -> &'static str {
    include_str!("integers.wgsl")
}

/// Besides, for modules that use f64.
pub fn support_f64() -> &'static str {
    include_str!("doubles.wgsl")
}
