//! How far a device's result of a formula may lie from the exact one, step by step.
//!
//! Every step is computed as `fl(f(x)) = f(x) (1 + d)` with `|d|` at most the unit roundoff of the formula's domain times what
//! the function's own error is in units of it, or with an absolute error of the smallest subnormal number below the normal
//! range. The enclosure of each step's value is carried along as an interval, so that overflow to one side, cancellation and
//! decisions near a threshold are accounted for.
//!
//! Source: N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, SIAM 2002: the model of section 2.2,
//! running error analysis of section 3.3, intervals of section 26.4.

use super::steps::Step;
use super::{Binary, Domain, Steps, Unary};
use crate::base::DType;

/// What a device's arithmetic promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// IEEE 754: CPUs and CUDA.
    Ieee,
    /// WGSL, section 15.7.4, "Floating point accuracy" (as Vulkan, appendix "Precision and operation of SPIR-V instructions"):
    /// sums and products are rounded correctly; a quotient is within 2.5 units in the last place for divisors from 2^-126 to
    /// 2^126, beyond which their reciprocals may be 0, and a root within 4.5 (a quotient by an inverse root within 2). Numbers
    /// below the normal range may count as 0, into an operation and out of it.
    Wgsl,
}

/// A formula on a device.
#[derive(Clone, Copy)]
struct Model<'a> {
    steps: &'a Steps,
    arithmetic: Arithmetic,
}

/// Every value that a device may hold: the interval `[lo, hi]`, and NaN when `nan`. No number when `lo > hi`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub struct Range {
    pub lo: f64,
    pub hi: f64,
    pub nan: bool,
}

const NONE: Range = Range { lo: f64::INFINITY, hi: f64::NEG_INFINITY, nan: false };
const ANY: Range = Range { lo: f64::NEG_INFINITY, hi: f64::INFINITY, nan: true };

impl Range {
    /// Exactly `x`.
    pub fn point(x: f64) -> Range {
        Range::of([x])
    }

    /// Within `error` of `x`; anything when that is no number.
    pub fn around(x: f64, error: f64) -> Range {
        if x.is_nan() {
            return Range::point(x);
        }
        if error.is_nan() { ANY } else { Range::of([x - error, x + error]) }
    }

    /// The smallest range with all these values.
    fn of(values: impl IntoIterator<Item = f64>) -> Range {
        values.into_iter().fold(NONE, |r, x| {
            if x.is_nan() {
                Range { nan: true, ..r }
            } else {
                Range { lo: if x < r.lo { x } else { r.lo }, hi: if x > r.hi { x } else { r.hi }, ..r }
            }
        })
    }

    fn hull(self, other: Range) -> Range {
        Range { lo: self.lo.min(other.lo), hi: self.hi.max(other.hi), nan: self.nan || other.nan }
    }

    fn truth(may_be: bool, may_not_be: bool) -> Range {
        Range::of(may_be.then_some(1.0).into_iter().chain(may_not_be.then_some(0.0)))
    }

    /// Whether a device may give `x`.
    pub fn holds(self, x: f64) -> bool {
        if x.is_nan() { self.nan } else { (self.lo..=self.hi).contains(&x) }
    }

    /// The farthest that a device may be from `exact`: 0 when both are the same infinity or both NaN, infinite when it may be
    /// NaN where `exact` is not.
    pub fn error(self, exact: f64) -> f64 {
        if self.nan != exact.is_nan() {
            return f64::INFINITY;
        }
        let off = |x: f64| if x == exact { 0.0 } else { (x - exact).abs() };
        if self.lo > self.hi { 0.0 } else { off(self.lo).max(off(self.hi)) }
    }

    fn is_point(self) -> bool {
        self.lo == self.hi && !self.nan
    }

    /// Whether it may count as true, and as false.
    fn truths(self) -> (bool, bool) {
        (self.nan || self.lo < 0.0 || self.hi > 0.0, self.lo <= 0.0 && self.hi >= 0.0)
    }

    /// The interval's ends, with those of `at` that lie inside.
    fn ends(self, at: &'static [f64]) -> impl Iterator<Item = f64> + Clone {
        let inside = at.iter().copied().filter(move |c| self.lo < *c && *c < self.hi);
        let ends = if self.lo > self.hi { [f64::NAN; 2] } else { [self.lo, self.hi] };
        ends.into_iter().chain(inside)
    }
}

/// The bound of `|device - oracle|` for arguments that are known exactly.
pub fn bound(steps: &Steps, args: &[f64]) -> f64 {
    let exact = steps.stored(steps.eval(args));
    enclose(steps, &args.iter().map(|&x| Range::point(x)).collect::<Vec<_>>()).error(exact)
}

/// What a device of IEEE 754 arithmetic may store for arguments that lie in the given ranges.
pub fn enclose(steps: &Steps, args: &[Range]) -> Range {
    enclose_in(Arithmetic::Ieee, steps, args)
}

/// What a device of that arithmetic may store for arguments that lie in the given ranges.
pub fn enclose_in(arithmetic: Arithmetic, steps: &Steps, args: &[Range]) -> Range {
    let model = Model { steps, arithmetic };
    let mut values: Vec<Range> = Vec::with_capacity(steps.steps.len());
    for step in &steps.steps {
        values.push(match *step {
            Step::Arg(i) => load(steps, steps.args[i], args[i]),
            Step::Constant(v) => load(steps, DType::F64, Range::point(v)),
            Step::Unary(op, a) => unary(model, op, values[a]),
            Step::Binary(op, a, b) => binary(model, op, values[a], values[b]),
            Step::Select(c, a, b) => match values[c].truths() {
                (true, true) => values[a].hull(values[b]),
                (true, false) => values[a],
                _ => values[b],
            },
            Step::Cast(d, a) => cast(steps, d, values[a]),
        });
    }
    let last = values.last().map_or(NONE, |&r| cast(steps, steps.out, r));
    match (steps.domain, steps.out) {
        _ if last.is_point() => Range::point(steps.stored(last.lo)),
        (Domain::I64, DType::U64) if last.lo < 0.0 => Range { nan: false, ..ANY },
        _ => last,
    }
}

/// Conversions round to nearest, so that they keep order: the ends are enough.
fn load(steps: &Steps, from: DType, r: Range) -> Range {
    match steps.domain {
        Domain::F32 if !matches!(from, DType::F16 | DType::BF16) => cast(steps, DType::F32, r),
        Domain::I64 => integers(Range { lo: r.lo.trunc(), hi: r.hi.trunc(), nan: false }),
        _ => r,
    }
}

/// Beyond 2^53 neither the oracle nor these bounds tell integers apart.
fn integers(r: Range) -> Range {
    const EXACT: f64 = (1u64 << 53) as f64;
    if r.lo < -EXACT || r.hi > EXACT || r.nan { Range { nan: false, ..ANY } } else { r }
}

fn cast(steps: &Steps, to: DType, r: Range) -> Range {
    if steps.domain == Domain::I64 && to != DType::Bool && !r.is_point() {
        // Integers wrap: the order is kept only where they fit.
        let ends = Range::of(r.ends(&[]).map(|x| steps.cast(to, x)));
        return if ends == r { r } else { Range { nan: false, ..ANY } };
    }
    let nan = r.nan.then(|| steps.cast(to, f64::NAN));
    Range::of(r.ends(&[0.0]).filter(|x| !x.is_nan()).map(|x| steps.cast(to, x)).chain(nan))
}

/// What a function may be off by, in units of the result's last place. Every backend keeps these:
/// - 0.5: correctly rounded, as IEEE 754 demands;
/// - exp, log, tanh and erf in f32: the polynomials of [`super::cpu::math`], measured over all of their range;
/// - the other functions of f32 are computed in f64;
/// - functions of f64: the worse of the C library's and the series of [`super::ptx`].
///
/// WGSL computes all of them in f32: what was measured with correct quotients and roots (at most 1.7, erf 6.0), and on top what
/// these may add, most to asin: at 0.5 its root's error counts twice.
fn ulps(model: Model, op: Unary) -> f64 {
    use Unary::*;
    match (op, model.steps.domain, model.arithmetic) {
        (Neg | Abs | Floor | Ceil | Round | Trunc | Sign | IsNan | IsPosInf | IsNegInf | Not | BitNot, ..) => 0.0,
        (Sqrt, _, Arithmetic::Wgsl) => 4.5,
        (Sqrt, ..) => 0.5,
        (Exp, Domain::F32, _) => 2.0,
        (Log, Domain::F32, _) => 3.0,
        (Tanh, Domain::F32, Arithmetic::Ieee) => 6.0,
        (Erf, Domain::F32, Arithmetic::Ieee) => 20.0,
        (_, Domain::F32, Arithmetic::Ieee) => 1.0,
        (Sin | Cos, Domain::F32, _) => 3.0,
        (Sinh | Cosh, Domain::F32, _) => 5.0,
        (Asin, Domain::F32, _) => 11.0,
        (Erf, Domain::F32, _) => 24.0,
        (_, Domain::F32, _) => 8.0,
        _ => 16.0,
    }
}

/// The largest argument of sine, cosine and tangent whose turns every backend counts exactly.
fn turns(model: Model) -> f64 {
    match (model.steps.domain, model.arithmetic) {
        (Domain::F32, Arithmetic::Wgsl) => f64::MAX,
        (Domain::F64, _) => 2f64.powi(30),
        _ => 2f64.powi(52),
    }
}

/// With 0, where a number below the normal range may count as 0.
fn flushed(model: Model, r: Range) -> Range {
    let least = match model.steps.domain {
        Domain::F32 => f64::from(f32::MIN_POSITIVE),
        Domain::F64 => f64::MIN_POSITIVE,
        Domain::I64 => return r,
    };
    let zero = |x: f64| if x.abs() < least { 0f64.copysign(x) } else { x };
    match model.arithmetic {
        Arithmetic::Ieee => r,
        Arithmetic::Wgsl => Range { lo: r.lo.min(zero(r.lo)), hi: r.hi.max(zero(r.hi)), ..r },
    }
}

/// The values that a device may hold for exact results in `r`, `ulps` units in the last place off.
fn rounded(steps: &Steps, r: Range, ulps: f64) -> Range {
    let (unit, least, most) = match steps.domain {
        Domain::I64 => return integers(r),
        Domain::F32 => (f64::from(f32::EPSILON), f64::from(f32::from_bits(1)), f64::from(f32::MAX)),
        // The oracle's own rounding counts as well.
        Domain::F64 => (2.0 * f64::EPSILON, f64::from_bits(1), f64::MAX),
    };
    if ulps == 0.0 || (ulps == 0.5 && r.is_point() && steps.domain == Domain::F32 && f64::from(r.lo as f32) == r.lo) {
        return r;
    }
    let slack = |x: f64| if x.is_infinite() { 0.0 } else { ulps * (unit * x.abs() + least) };
    let (lo, hi) = (r.lo - slack(r.lo), r.hi + slack(r.hi));
    let down = |x: f64| if x < -most { f64::NEG_INFINITY } else { x.min(most) };
    let up = |x: f64| if x > most { f64::INFINITY } else { x.max(-most) };
    let infinite = |x: f64, y: f64| if x.is_infinite() { x } else { y };
    if lo > hi { r } else { Range { lo: infinite(r.lo, down(lo)), hi: infinite(r.hi, up(hi)), nan: r.nan } }
}

fn unary(model: Model, op: Unary, r: Range) -> Range {
    let steps = model.steps;
    let r = match op {
        // Told by the bits.
        Unary::IsNan | Unary::IsPosInf | Unary::IsNegInf | Unary::Not | Unary::BitNot => r,
        _ => flushed(model, r),
    };
    let f = |x: f64| steps.unary(op, x);
    let nan = r.nan.then_some(f64::NAN);
    let over = |at: &'static [f64]| Range::of(r.ends(at).chain(nan).map(f));
    let exact = match op {
        Unary::IsNan => Range::truth(r.nan, r.lo <= r.hi),
        Unary::IsPosInf => Range::truth(r.hi == f64::INFINITY, r.lo < f64::INFINITY || r.nan),
        Unary::IsNegInf => Range::truth(r.lo == f64::NEG_INFINITY, r.hi > f64::NEG_INFINITY || r.nan),
        Unary::Not => Range::truth(r.truths().1, r.truths().0),
        Unary::BitNot if !r.is_point() => ANY,
        // Beyond these arguments turns are not counted exactly.
        Unary::Sin | Unary::Cos | Unary::Tan if r.lo.abs().max(r.hi.abs()) > turns(model) => {
            let infinite = r.nan || r.lo.is_infinite() || r.hi.is_infinite();
            let most = if op == Unary::Tan { f64::INFINITY } else { 1.0 };
            Range { lo: -most, hi: most, nan: infinite }
        }
        // Neither changes faster than its argument.
        Unary::Sin | Unary::Cos => {
            let (ends, width) = (over(&[]), (r.hi - r.lo).max(0.0));
            Range { lo: (ends.lo - width).max(-1.0), hi: (ends.hi + width).min(1.0), ..ends }
        }
        Unary::Tan if !r.is_point() && (r.hi - r.lo >= 1.5 || r.lo.cos() * r.hi.cos() <= 0.0) => ANY,
        // The rest is monotone between these points.
        Unary::Abs | Unary::Cosh | Unary::Log | Unary::Sqrt => over(&[0.0]),
        Unary::Asin | Unary::Acos | Unary::Atanh => over(&[-1.0, 1.0]),
        Unary::Acosh => over(&[1.0]),
        _ => over(&[]),
    };
    flushed(model, rounded(steps, exact, ulps(model, op)))
}

fn binary(model: Model, op: Binary, a: Range, b: Range) -> Range {
    use Binary::*;
    let steps = model.steps;
    let (a, b) = match op {
        // Computed from the bits.
        Rem | Modulo | And | Or | Xor | BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight => (a, b),
        _ => (flushed(model, a), flushed(model, b)),
    };
    let nan = (a.nan || b.nan).then_some(f64::NAN);
    let f = |x: f64, y: f64| steps.binary(op, x, y);
    // Extremes of functions that are monotone in each argument on both sides of these points lie in their corners.
    let corners =
        |at: &'static [f64]| Range::of(a.ends(at).flat_map(|x| b.ends(at).map(move |y| (x, y))).map(|(x, y)| f(x, y)).chain(nan));
    let points = a.is_point() && b.is_point();
    let result = match op {
        Add | Sub | Mul => rounded(steps, corners(&[0.0]), 0.5),
        Div if !points && b.lo <= 0.0 && b.hi >= 0.0 => integers_or(steps, ANY),
        Div => quotient(model, corners(&[0.0]), b),
        Min | Max => Range { nan: nan.is_some(), ..Range::of([f(a.lo, b.lo), f(a.hi, b.hi)]) },
        Pow if !points && a.lo <= 0.0 && !b.is_point() => integers_or(steps, ANY),
        Pow => rounded(steps, corners(&[0.0]), power_ulps(model, a, b)),
        Rem if points => corners(&[]),
        Modulo if points => rounded(steps, corners(&[]), 0.5),
        Rem | Modulo => {
            let most = b.lo.abs().max(b.hi.abs());
            Range { lo: -most, hi: most, nan: true }
        }
        Less => Range::truth(a.lo < b.hi, a.hi >= b.lo || nan.is_some()),
        LessEqual => Range::truth(a.lo <= b.hi, a.hi > b.lo || nan.is_some()),
        Equal => Range::truth(a.lo <= b.hi && b.lo <= a.hi, !points || a.lo != b.lo),
        And | Or | Xor => {
            let choices = |r: Range| {
                let (yes, no) = r.truths();
                [yes.then_some(1.0), no.then_some(0.0)].into_iter().flatten()
            };
            Range::of(choices(a).flat_map(|x| choices(b).map(move |y| (x, y))).map(|(x, y)| f(x, y)))
        }
        BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight if points => rounded(steps, corners(&[]), 0.0),
        BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight => integers_or(steps, ANY),
    };
    flushed(model, result)
}

/// The rounded quotients of `exact` for divisors in `b`.
fn quotient(model: Model, exact: Range, b: Range) -> Range {
    let most = 2f64.powi(if model.steps.domain == Domain::F64 { 1022 } else { 126 });
    match model.arithmetic {
        Arithmetic::Ieee => rounded(model.steps, exact, 0.5),
        Arithmetic::Wgsl if b.lo.abs().max(b.hi.abs()) > most => rounded(model.steps, exact.hull(Range::point(0.0)), 2.5),
        Arithmetic::Wgsl => rounded(model.steps, exact, 2.5),
    }
}

fn integers_or(steps: &Steps, r: Range) -> Range {
    if steps.domain == Domain::I64 { integers(r) } else { r }
}

/// In f64 a power is `e^(b ln a)`, which magnifies the logarithm's rounding by the exponent.
fn power_ulps(model: Model, a: Range, b: Range) -> f64 {
    let exponent = |x: f64, y: f64| {
        let t = (y * x.abs().ln()).abs();
        if t.is_finite() { t } else { 0.0 }
    };
    let most = [a.lo, a.hi].into_iter().flat_map(|x| [b.lo, b.hi].map(|y| exponent(x, y))).fold(0.0, f64::max);
    match (model.steps.domain, model.arithmetic) {
        (Domain::F64, _) => 16.0 + 4.0 * most.min(1e3),
        (_, Arithmetic::Ieee) => 1.0,
        (_, Arithmetic::Wgsl) => 4.0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{arg, constant};
    use super::*;

    fn f32s(f: &crate::scalar::Formula) -> Steps {
        Steps::compile(f, &[DType::F32; 2], DType::F32).unwrap()
    }

    #[test]
    fn basic_operations_are_within_half_a_unit() {
        let steps = f32s(&(arg(0) + arg(1)));
        assert_eq!(bound(&steps, &[1.5, 2.25]), 0.0, "exact in f32");
        let b = bound(&steps, &[1.0, 1e-9]);
        assert!(b >= 1e-9 && b <= 2f64.powi(-23), "{b}");
    }

    #[test]
    fn cancellation_magnifies_what_came_before() {
        let steps = f32s(&(arg(0).exp() - arg(1)));
        let near = bound(&steps, &[1.0, 2.72]);
        assert!(near > 2f64.powi(-23) && near < 2f64.powi(-19), "{near}");
        let error = near / (1f64.exp() - 2.72).abs();
        assert!(error > 1e-4, "the relative error grows: {error}");
    }

    #[test]
    fn overflow_to_one_side_is_no_obstacle() {
        let steps = f32s(&arg(0).sigmoid());
        assert!(bound(&steps, &[-100.0, 0.0]) < 1e-37, "{}", bound(&steps, &[-100.0, 0.0]));
        let range = enclose(&f32s(&arg(0).exp()), &[Range::point(100.0), Range::point(0.0)]);
        assert!(range.holds(f64::INFINITY) && range.holds(f32::MAX.into()) && !range.holds(1e38) && !range.holds(f64::NAN));
    }

    #[test]
    fn uncertain_decisions_admit_both_branches() {
        let f = arg(0).less(arg(1)).select(constant(5.0), constant(7.0));
        let steps = f32s(&f);
        assert_eq!(bound(&steps, &[1.0, 1.0]), 0.0);
        let unsure = enclose(&steps, &[Range::around(1.0, 0.1), Range::point(1.0)]);
        assert_eq!((unsure.lo, unsure.hi), (5.0, 7.0));
        let round = enclose(&f32s(&arg(0).round()), &[Range::around(2.5, 1e-3), Range::point(0.0)]);
        assert_eq!((round.lo, round.hi), (2.0, 3.0));
    }

    #[test]
    fn nan_is_expected_exactly_where_it_can_be() {
        let root = f32s(&arg(0).sqrt());
        assert!(enclose(&root, &[Range::point(-1.0), Range::point(0.0)]).holds(f64::NAN));
        assert!(!enclose(&root, &[Range::point(1.0), Range::point(0.0)]).holds(f64::NAN));
        assert!(enclose(&root, &[Range::around(0.0, 1e-3), Range::point(0.0)]).nan, "the argument may be negative");
        assert_eq!(bound(&root, &[f64::NAN, 0.0]), 0.0);
        assert!(enclose(&f32s(&arg(0).max(arg(1))), &[Range::point(f64::NAN), Range::point(1.0)]).nan);
    }

    #[test]
    fn storage_rounds_saturates_and_wraps() {
        let store = |from, to, x: f64| {
            let steps = Steps::compile(&arg(0), &[from], to).unwrap();
            let r = enclose(&steps, &[Range::point(x)]);
            assert!(r.is_point());
            r.lo
        };
        assert_eq!(store(DType::F32, DType::F16, 1.0 + 2f64.powi(-11)), 1.0, "half to even");
        assert_eq!(store(DType::F32, DType::F16, 1e6), f64::INFINITY);
        assert_eq!(store(DType::F32, DType::I8, -1000.0), -128.0);
        assert_eq!(store(DType::I64, DType::I8, 130.0), -126.0);
    }
}
