// WGSL's own functions are loosely specified: these are computed from polynomials and additions, products and, where they are
// named, quotients and roots. hb_exact(x) is x in a way that the compiler cannot see through: nothing is fused or reordered.

// The value v(|x|) of an odd function at x: x itself where that is nearest, and for NaN.
fn hb_odd(x: f32, v: f32) -> f32 {
  return select(hb_signed(x, v), x, abs(x) < 0.0001220703125);
}

// v of the sign of x, NaN where x is.
fn hb_signed(x: f32, v: f32) -> f32 {
  return select(bitcast<f32>(bitcast<u32>(v) ^ (bitcast<u32>(x) & 0x80000000u)), x, hb_is_nan(x));
}

fn hb_power_of_2(n: i32) -> f32 {
  return bitcast<f32>((n + 127) << 23u);
}

// y 2^n for y near 1, in two halves, so that results below the normal range come out right.
fn hb_ldexp(y: f32, n: i32) -> f32 {
  let half = n >> 1u;
  return hb_exact(y * hb_power_of_2(half)) * hb_power_of_2(n - half);
}

// e^r for |r| <= ln(2) / 2.
fn hb_exp_near_0(r: f32) -> f32 {
  return hb_poly_exp(r) * r * r + r + 1.0;
}

// e^x 2^k for k from -1 to 0.
fn hb_exp_times(x: f32, k: i32) -> f32 {
  let c = clamp(x, -104.0, 90.0);
  let n = round(c * 1.44269504);
  let r = hb_exact(c - n * HB_LN_2_HIGH) - n * HB_LN_2_LOW;
  return select(hb_ldexp(hb_exp_near_0(r), i32(n) + k), x, hb_is_nan(x));
}

fn hb_exp(x: f32) -> f32 {
  return hb_exp_times(x, 0);
}

// x above 0 and finite as m 2^e, m in [sqrt(1/2), sqrt(2)): (m, e).
fn hb_parts(x: f32) -> vec2<f32> {
  let b = bitcast<u32>(x);
  let tiny = b < 0x00800000u;
  // A subnormal number's bits count multiples of 2^-149.
  let s = bitcast<i32>(select(b, bitcast<u32>(f32(b)), tiny));
  let e = (s - 0x3f3504f3) >> 23u;
  return vec2<f32>(bitcast<f32>(s - (e << 23u)), f32(e - select(0, 149, tiny)));
}

fn hb_log(x: f32) -> f32 {
  let b = bitcast<u32>(x);
  if (b << 1u) == 0u { return hb_float(0xff800000u); }
  if b > 0x7f800000u { return hb_float(0x7fc00000u); }
  if b == 0x7f800000u { return x; }
  let parts = hb_parts(x);
  let m = parts.x - 1.0;
  let z = m * m;
  let y = hb_poly_log(m) * m * z + parts.y * HB_LN_2_LOW - 0.5 * z;
  return hb_exact(m + y) + parts.y * HB_LN_2_HIGH;
}

fn hb_tanh(x: f32) -> f32 {
  let a = abs(x);
  let z = a * a;
  if a < 0.625 { return hb_odd(x, a + a * z * hb_poly_tanh(z)); }
  return hb_odd(x, 1.0 - 2.0 / (hb_exp(2.0 * a) + 1.0));
}

fn hb_erf(x: f32) -> f32 {
  let a = min(abs(x), 4.0);
  let z = a * a;
  return hb_signed(x, min(a * hb_poly_erf_numerator(z) / hb_poly_erf_denominator(z), 1.0));
}

fn hb_sinh(x: f32) -> f32 {
  let a = abs(x);
  let z = a * a;
  if a < 1.0 { return hb_odd(x, a + a * z * hb_poly_sinh(z)); }
  let half = hb_exp_times(a, -1);
  return hb_odd(x, half - 0.25 / half);
}

fn hb_cosh(x: f32) -> f32 {
  let half = hb_exp_times(abs(x), -1);
  return half + 0.25 / half;
}

fn hb_asinh(x: f32) -> f32 {
  let a = abs(x);
  let z = a * a;
  if a < 0.5 { return hb_odd(x, a + a * z * hb_poly_asinh(z)); }
  // From 2^13 on, the root is a.
  if a > 8192.0 { return hb_odd(x, hb_log(a) + 0.693147181); }
  return hb_odd(x, hb_log(a + hb_sqrt(z + 1.0)));
}

fn hb_acosh(x: f32) -> f32 {
  let t = x - 1.0;
  if t < 0.5 { return hb_sqrt(t) * hb_poly_acosh(t); }
  if x > 8192.0 { return hb_log(x) + 0.693147181; }
  return hb_log(x + hb_sqrt(t * (x + 1.0)));
}

fn hb_atanh(x: f32) -> f32 {
  let a = abs(x);
  let z = a * a;
  if a < 0.5 { return hb_odd(x, a + a * z * hb_poly_atanh(z)); }
  return hb_odd(x, 0.5 * hb_log((1.0 + a) / (1.0 - a)));
}

// asin(a) for a in [0, 0.5].
fn hb_asin_small(a: f32) -> f32 {
  let z = a * a;
  return a + a * z * hb_poly_asin(z);
}

fn hb_asin(x: f32) -> f32 {
  let a = abs(x);
  if a <= 0.5 { return hb_odd(x, hb_asin_small(a)); }
  return hb_odd(x, 1.57079633 - 2.0 * hb_asin_small(hb_sqrt(0.5 - 0.5 * a)));
}

fn hb_acos(x: f32) -> f32 {
  let a = abs(x);
  // pi/2 in two parts, and pi.
  if a <= 0.5 { return 1.57079637 - (hb_odd(x, hb_asin_small(a)) + 4.37113883e-8); }
  let y = 2.0 * hb_asin_small(hb_sqrt(0.5 - 0.5 * a));
  return select(y, 3.14159274 - (y + 8.74227766e-8), x < 0.0);
}

// After atan(1/a) = pi/2 - atan(a), atan((a - 1) / (a + 1)) = atan(a) - pi/4.
fn hb_atan(x: f32) -> f32 {
  let a = abs(x);
  var t = a;
  var turn = 0.0;
  if a > 2.41421356 {
    t = -1.0 / a;
    turn = 1.57079633;
  } else if a > 0.41421356 {
    t = (a - 1.0) / (a + 1.0);
    turn = 0.785398163;
  }
  let z = t * t;
  return hb_odd(x, turn + (t + t * z * hb_poly_atan(z)));
}

// All 64 bits of a product, the low half first.
fn hb_product(a: u32, b: u32) -> vec2<u32> {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let first = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let second = (a & 0xffffu) * (b >> 16u) + (first & 0xffffu);
  return vec2<u32>((second << 16u) | (low & 0xffffu), (a >> 16u) * (b >> 16u) + (first >> 16u) + (second >> 16u));
}

// Bits of 2/pi below the point, after 64 zeros.
const HB_2_OVER_PI = array<u32, 8>(0u, 0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u);

// |x| finite, less the nearest multiple of pi/2, and that multiple mod 4. Exact in integers, then rounded once (Payne and
// Hanek, "Radian reduction for trigonometric functions", 1983): of 2/pi the 96 bits that count.
fn hb_quarters(x: f32) -> vec2<f32> {
  let b = bitcast<u32>(x) & 0x7fffffffu;
  if b < 0x3f490fdbu { return vec2<f32>(abs(x), 0.0); }
  var table = HB_2_OVER_PI;
  let m = (b << 8u) | 0x80000000u;
  // x = m 2^(e - 158); the product's bits above 4 quarters are not wanted.
  let at = (b >> 23u) - 96u;
  let i = at >> 5u;
  let s = at & 31u;
  let w0 = (table[i] << s) | ((table[i + 1u] >> 1u) >> (31u - s));
  let w1 = (table[i + 1u] << s) | ((table[i + 2u] >> 1u) >> (31u - s));
  let w2 = (table[i + 2u] << s) | ((table[i + 3u] >> 1u) >> (31u - s));
  let p2 = hb_product(m, w2);
  let p1 = hb_product(m, w1);
  let low = p1.x + p2.y;
  let high = m * w0 + p1.y + select(0u, 1u, low < p2.y);
  // Of the quarter's fraction, as a signed number of 64 bits, the magnitude.
  let f = vec2<u32>(low << 2u, (high << 2u) | (low >> 30u));
  let negative = (f.y >> 31u) == 1u;
  let a = select(f, ~f, negative);
  let zeros = min(countLeadingZeros(a.y), 31u);
  let bits = (a.y << zeros) | ((a.x >> 1u) >> (31u - zeros));
  let r = f32(hb_product(bits, 0xc90fdaa2u).y) * bitcast<f32>((96u - zeros) << 23u);
  return vec2<f32>(select(r, -r, negative), f32(((high >> 30u) + select(0u, 1u, negative)) & 3u));
}

fn hb_sin_near_0(r: f32) -> f32 {
  let z = r * r;
  return r + r * z * hb_poly_sin(z);
}

fn hb_cos_near_0(r: f32) -> f32 {
  let z = r * r;
  return 1.0 - (0.5 * z - z * z * hb_poly_cos(z));
}

// sin(r + n pi/2).
fn hb_sin_turned(r: f32, n: u32) -> f32 {
  let y = select(hb_sin_near_0(r), hb_cos_near_0(r), (n & 1u) == 1u);
  return select(y, -y, (n & 2u) == 2u);
}

fn hb_not_finite(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7f800000u) == 0x7f800000u;
}

fn hb_sin(x: f32) -> f32 {
  if hb_not_finite(x) { return hb_float(0x7fc00000u); }
  let q = hb_quarters(x);
  return hb_odd(x, hb_sin_turned(q.x, u32(q.y)));
}

fn hb_cos(x: f32) -> f32 {
  if hb_not_finite(x) { return hb_float(0x7fc00000u); }
  let q = hb_quarters(x);
  return hb_sin_turned(q.x, u32(q.y) + 1u);
}

fn hb_tan(x: f32) -> f32 {
  if hb_not_finite(x) { return hb_float(0x7fc00000u); }
  let q = hb_quarters(x);
  return hb_odd(x, hb_sin_turned(q.x, u32(q.y)) / hb_sin_turned(q.x, u32(q.y) + 1u));
}

// The rounded sum and its error, |a| >= |b| (Dekker 1971).
fn hb_sum(a: f32, b: f32) -> vec2<f32> {
  let s = hb_exact(a + b);
  return vec2<f32>(s, b - hb_exact(s - a));
}

fn hb_upper(x: f32) -> f32 {
  return bitcast<f32>(bitcast<u32>(x) & 0xfffff000u);
}

// The rounded product and its error: the halves' products have no error (Dekker 1971).
fn hb_exact_product(a: f32, b: f32) -> vec2<f32> {
  let p = hb_exact(a * b);
  let ah = hb_upper(a);
  let bh = hb_upper(b);
  let al = hb_exact(a - ah);
  let bl = hb_exact(b - bh);
  return vec2<f32>(p, hb_exact(hb_exact(hb_exact(ah * bh - p) + ah * bl) + al * bh) + al * bl);
}

// log2(x) for x above 0 and finite, as a sum of two numbers: 2/ln(2) t (1 + t^2/3 + ..) with t = (m - 1) / (m + 1) in two parts.
fn hb_log2_parts(x: f32) -> vec2<f32> {
  let parts = hb_parts(x);
  let n = parts.x - 1.0;
  let d = hb_sum(max(parts.x, 1.0), min(parts.x, 1.0));
  let t = hb_exact(n / d.x);
  let back = hb_exact_product(t, d.x);
  let low = (hb_exact(n - back.x) - back.y - t * d.y) / d.x;
  let z = t * t;
  let main = hb_exact_product(t, HB_2_OVER_LN_2_HIGH);
  let rest = main.y + (t * HB_2_OVER_LN_2_LOW + low * HB_2_OVER_LN_2_HIGH + t * z * hb_poly_log2(z));
  // The exponent is 0 or larger than what it is added to.
  let sum = hb_sum(parts.y, main.x);
  let all = select(vec2<f32>(sum.x, sum.y + rest), vec2<f32>(main.x, rest), parts.y == 0.0);
  return hb_sum(all.x, all.y);
}

// |a|^b for |a| above 0 and finite, b finite.
fn hb_pow_positive(a: f32, b: f32) -> f32 {
  let l = hb_log2_parts(abs(a));
  let rough = b * l.x;
  if rough > 130.0 { return hb_float(0x7f800000u); }
  if rough < -152.0 { return 0.0; }
  let p = hb_exact_product(b, l.x);
  let n = round(p.x);
  let r = hb_exact(p.x - n) + hb_exact(p.y + b * l.y);
  return hb_ldexp(hb_exp_near_0(r * 0.693147181), i32(n));
}

// Special cases as C99 has them.
fn hb_pow(a: f32, b: f32) -> f32 {
  let x = bitcast<u32>(a) & 0x7fffffffu;
  let y = bitcast<u32>(b) & 0x7fffffffu;
  if y == 0u || bitcast<u32>(a) == 0x3f800000u { return 1.0; }
  if x > 0x7f800000u || y > 0x7f800000u { return hb_float(0x7fc00000u); }
  let negative = bitcast<u32>(a) != x;
  let down = bitcast<u32>(b) != y;
  // Of b's mantissa, the bits below the point.
  let e = y >> 23u;
  let m = (y & 0x7fffffu) | 0x800000u;
  let point = clamp(150u - min(e, 150u), 0u, 24u);
  let whole = e >= 127u && (m & ((1u << point) - 1u)) == 0u;
  let odd = whole && e <= 150u && ((m >> point) & 1u) == 1u;
  let sign = select(0u, 0x80000000u, negative && odd);
  if y == 0x7f800000u {
    if x == 0x3f800000u { return 1.0; }
    return hb_float(select(0u, 0x7f800000u, (x > 0x3f800000u) != down));
  }
  if x == 0u || x == 0x7f800000u { return hb_float(sign | select(0u, 0x7f800000u, (x != 0u) != down)); }
  if negative && !whole { return hb_float(0x7fc00000u); }
  return bitcast<f32>(bitcast<u32>(hb_pow_positive(a, b)) | sign);
}
