// Bits, comparisons, conversions, remainders. Compilers may take floats for finite: NaN is told by its bits.

// Through a call, since infinities and NaN are refused where they can be folded.
fn hb_float(bits: u32) -> f32 {
  return bitcast<f32>(bits);
}

fn hb_is_nan(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// Not 0, or NaN.
fn hb_true(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7fffffffu) != 0u;
}

fn hb_ordered(a: f32, b: f32) -> bool {
  return !hb_is_nan(a) && !hb_is_nan(b);
}

fn hb_min(a: f32, b: f32) -> f32 {
  return select(b, a, hb_is_nan(a) || (a < b && !hb_is_nan(b)));
}

fn hb_max(a: f32, b: f32) -> f32 {
  return select(b, a, hb_is_nan(a) || (a > b && !hb_is_nan(b)));
}

fn hb_sign(x: f32) -> f32 {
  return select(x, bitcast<f32>(0x3f800000u | (bitcast<u32>(x) & 0x80000000u)), hb_true(x) && !hb_is_nan(x));
}

fn hb_sqrt(x: f32) -> f32 {
  if !hb_true(x) || bitcast<u32>(x) == 0x7f800000u { return x; }
  return select(sqrt(x), hb_float(0x7fc00000u), x < 0.0 || hb_is_nan(x));
}

// Half to even: up to the largest exponent that rounding carries into, adding to the bits rounds.
fn hb_to_f16(x: f32) -> u32 {
  let sign = (bitcast<u32>(x) >> 16u) & 0x8000u;
  let a = bitcast<u32>(x) & 0x7fffffffu;
  if a > 0x7f800000u { return sign | 0x7e00u; }
  if a >= 0x47800000u { return sign | 0x7c00u; }
  if a >= 0x38800000u { return sign | ((a - 0x38000000u + 0xfffu + ((a >> 13u) & 1u)) >> 13u); }
  if a < 0x33000000u { return sign; }
  // Subnormal: the mantissa moves right by 14 to 24.
  let shift = 126u - (a >> 23u);
  let m = (a & 0x7fffffu) | 0x800000u;
  let kept = m >> shift;
  return sign | ((m + (1u << (shift - 1u)) - 1u + (kept & 1u)) >> shift);
}

fn hb_to_bf16(x: f32) -> u32 {
  let b = bitcast<u32>(x);
  return select((b + 0x7fffu + ((b >> 16u) & 1u)) >> 16u, (b >> 16u) | 0x40u, hb_is_nan(x));
}

// Truncated, within [lo, hi], 0 for NaN. A float below 2^31 is at most 2^31 - 128.
fn hb_to_i32(x: f32, lo: f32, hi: f32) -> i32 {
  if hb_is_nan(x) { return 0; }
  if x >= 2147483648.0 && hi >= 2147483648.0 { return 2147483647; }
  return i32(clamp(x, lo, min(hi, 2147483520.0)));
}

fn hb_to_u32(x: f32, hi: f32) -> u32 {
  if hb_is_nan(x) { return 0u; }
  if x >= 4294967296.0 && hi >= 4294967296.0 { return 4294967295u; }
  return u32(clamp(x, 0.0, min(hi, 4294967040.0)));
}

// The same as a float, for integers of 64 bits.
fn hb_whole(x: f32, lo: f32, hi: f32) -> f32 {
  return select(clamp(trunc(x), lo, hi), 0.0, hb_is_nan(x) || abs(x) < 1.0);
}

// A 64-bit integer as its low and high half.
fn hb_negated(w: vec2<u32>) -> vec2<u32> {
  return vec2<u32>(~w.x + 1u, ~w.y + select(0u, 1u, w.x == 0u));
}

fn hb_magnitude(a: f32) -> vec2<u32> {
  let high = u32(a * 2.3283064365386963e-10);
  return vec2<u32>(u32(a - hb_exact(f32(high) * 4294967296.0)), high);
}

fn hb_to_wide(x: f32) -> vec2<u32> {
  if hb_is_nan(x) { return vec2<u32>(0u, 0u); }
  if x >= 9223372036854775808.0 { return vec2<u32>(0xffffffffu, 0x7fffffffu); }
  if x <= -9223372036854775808.0 { return vec2<u32>(0u, 0x80000000u); }
  let w = hb_magnitude(abs(x));
  return select(w, hb_negated(w), x < 0.0);
}

fn hb_to_wide_unsigned(x: f32) -> vec2<u32> {
  if hb_is_nan(x) || x < 1.0 { return vec2<u32>(0u, 0u); }
  if x >= 18446744073709551616.0 { return vec2<u32>(0xffffffffu, 0xffffffffu); }
  return hb_magnitude(x);
}

// Rounded once: bits below the upper 32 are only told from none.
fn hb_from_wide(w: vec2<u32>) -> f32 {
  let negative = (w.y >> 31u) == 1u;
  let a = select(w, hb_negated(w), negative);
  if a.y == 0u { return select(f32(a.x), -f32(a.x), negative); }
  let shift = countLeadingZeros(a.y);
  let upper = (a.y << shift) | ((a.x >> 1u) >> (31u - shift));
  let y = f32(upper | select(0u, 1u, (a.x << shift) != 0u)) * bitcast<f32>((159u - shift) << 23u);
  return select(y, -y, negative);
}

// How far to shift; 64 where nothing is left.
fn hb_count(x: f32) -> u32 {
  return select(64u, hb_to_u32(x, 64.0), hb_is_nan(x) || (x > -1.0 && x < 64.0));
}

fn hb_shift_left(w: vec2<u32>, n: u32) -> vec2<u32> {
  if n >= 64u { return vec2<u32>(0u, 0u); }
  if n >= 32u { return vec2<u32>(0u, w.x << (n - 32u)); }
  return vec2<u32>(w.x << n, (w.y << n) | ((w.x >> 1u) >> (31u - n)));
}

fn hb_shift_right(w: vec2<u32>, n: u32) -> vec2<u32> {
  if n >= 64u { return vec2<u32>(0u, 0u); }
  if n >= 32u { return vec2<u32>(w.y >> (n - 32u), 0u); }
  return vec2<u32>((w.x >> n) | ((w.y << 1u) << (31u - n)), w.y >> n);
}

// Exact: a long division of the mantissas, 8 bits at a time.
fn hb_rem(a: f32, b: f32) -> f32 {
  let x = bitcast<u32>(a) & 0x7fffffffu;
  let y = bitcast<u32>(b) & 0x7fffffffu;
  let sign = bitcast<u32>(a) & 0x80000000u;
  if x >= 0x7f800000u || y > 0x7f800000u || y == 0u { return hb_float(0x7fc00000u); }
  if x < y { return a; }
  let ex = max(x >> 23u, 1u);
  let ey = max(y >> 23u, 1u);
  let my = (y & 0x7fffffu) | select(0u, 0x800000u, y >= 0x800000u);
  var r = ((x & 0x7fffffu) | select(0u, 0x800000u, x >= 0x800000u)) % my;
  var left = ex - ey;
  while left > 0u && r != 0u {
    let by = min(left, 8u);
    r = (r << by) % my;
    left -= by;
  }
  if r == 0u { return hb_float(sign); }
  let up = countLeadingZeros(r) - 8u;
  if up >= ey { return hb_float(sign | (r << (ey - 1u))); }
  return hb_float(sign | ((ey - up) << 23u) | ((r << up) & 0x7fffffu));
}

// The bits of |x| > 0 as m 2^(e - 150), m in [2^23, 2^24): (m, e).
fn hb_mantissa(x: u32) -> vec2<u32> {
  let up = select(0u, countLeadingZeros(x) - 8u, x < 0x00800000u);
  return vec2<u32>(select((x & 0x7fffffu) | 0x800000u, x << up, up > 0u), select(x >> 23u, 1u - up, up > 0u));
}

// a / b rounded once, as the CPU has it; the language's own may be 2.5 units off, and more where a number is not normal. A long
// division of the mantissas, 8 bits at a time.
fn hb_div(a: f32, b: f32) -> f32 {
  let x = bitcast<u32>(a) & 0x7fffffffu;
  let y = bitcast<u32>(b) & 0x7fffffffu;
  let sign = (bitcast<u32>(a) ^ bitcast<u32>(b)) & 0x80000000u;
  if x > 0x7f800000u || y > 0x7f800000u || (x == y && (x == 0u || x == 0x7f800000u)) { return hb_float(0x7fc00000u); }
  if x == 0x7f800000u || y == 0u { return hb_float(sign | 0x7f800000u); }
  if y == 0x7f800000u || x == 0u { return hb_float(sign); }
  let n = hb_mantissa(x);
  let d = hb_mantissa(y);
  let less = n.x < d.x;
  var r = select(n.x, n.x << 1u, less) - d.x;
  // 1 and 24 bits behind the point.
  var q = 1u;
  for (var i = 0u; i < 3u; i += 1u) {
    r <<= 8u;
    q = (q << 8u) | (r / d.x);
    r %= d.x;
  }
  let e = bitcast<i32>(n.y) - bitcast<i32>(d.y) + select(127, 126, less);
  if e > 254 { return hb_float(sign | 0x7f800000u); }
  let drop = u32(clamp(2 - e, 1, 27));
  let kept = q >> drop;
  let rest = q & ((1u << drop) - 1u);
  let half = 1u << (drop - 1u);
  let up = rest > half || (rest == half && (r != 0u || (kept & 1u) == 1u));
  return hb_float(sign | ((u32(max(e, 1) - 1) << 23u) + kept + select(0u, 1u, up)));
}

// round(a / b), half to even, of the quotient that is rounded once: next to a half, and where the language promises nothing, the exact
// one decides.
fn hb_rounded_quotient(a: f32, b: f32) -> f32 {
  let q = a / b;
  let near = abs(b) > 1.2e-38 && abs(b) < 8.5e37 && abs(q) < 8388608.0;
  if near && abs(abs(q - floor(q)) - 0.5) > abs(q) * 4.8e-7 { return round(q); }
  return round(hb_div(a, b));
}

fn hb_modulo(a: f32, b: f32) -> f32 {
  let r = hb_rem(a, b);
  return select(r, r + b, hb_true(r) && !hb_is_nan(r) && ((bitcast<u32>(r) ^ bitcast<u32>(b)) >> 31u) == 1u);
}
