// f64. That a number is none shows in its f32.

fn hb_is_nan_f64(x: f64) -> bool {
  return hb_is_nan(f32(x));
}

fn hb_true_f64(x: f64) -> bool {
  return x != 0.0lf || hb_is_nan_f64(x);
}

fn hb_ordered_f64(a: f64, b: f64) -> bool {
  return !hb_is_nan_f64(a) && !hb_is_nan_f64(b);
}

fn hb_min_f64(a: f64, b: f64) -> f64 {
  return select(b, a, hb_is_nan_f64(a) || (a < b && !hb_is_nan_f64(b)));
}

fn hb_max_f64(a: f64, b: f64) -> f64 {
  return select(b, a, hb_is_nan_f64(a) || (a > b && !hb_is_nan_f64(b)));
}

fn hb_sign_f64(x: f64) -> f64 {
  return select(select(x, -1.0lf, x < 0.0lf), 1.0lf, x > 0.0lf);
}

// As f32, the last bit set where bits are lost, so that rounding again is as if it were done once.
fn hb_odd_f64(x: f64) -> f32 {
  // Compilers may take f64(f32(x)) for x.
  let near = hb_exact(f32(x));
  let bits = bitcast<u32>(near);
  let size = abs(f64(near));
  if hb_is_nan(near) || size == abs(x) || (bits & 1u) == 1u { return near; }
  return hb_float(select(bits - 1u, bits + 1u, abs(x) > size));
}

fn hb_whole_f64(x: f64, lo: f64, hi: f64) -> f64 {
  return select(clamp(trunc(x), lo, hi), 0.0lf, hb_is_nan_f64(x) || abs(x) < 1.0lf);
}

fn hb_to_i32_f64(x: f64, lo: f64, hi: f64) -> i32 {
  return i32(hb_whole_f64(x, lo, min(hi, 2147483647.0lf)));
}

fn hb_to_u32_f64(x: f64, hi: f64) -> u32 {
  return u32(hb_whole_f64(x, 0.0lf, min(hi, 4294967295.0lf)));
}

fn hb_magnitude_f64(a: f64) -> vec2<u32> {
  let high = trunc(a * 2.3283064365386963e-10lf);
  return vec2<u32>(u32(a - high * 4294967296.0lf), u32(high));
}

fn hb_to_wide_f64(x: f64) -> vec2<u32> {
  if hb_is_nan_f64(x) { return vec2<u32>(0u, 0u); }
  if x >= 9223372036854775808.0lf { return vec2<u32>(0xffffffffu, 0x7fffffffu); }
  if x <= -9223372036854775808.0lf { return vec2<u32>(0u, 0x80000000u); }
  let w = hb_magnitude_f64(trunc(abs(x)));
  return select(w, hb_negated(w), x < 0.0lf);
}

fn hb_to_wide_unsigned_f64(x: f64) -> vec2<u32> {
  if hb_is_nan_f64(x) || x < 1.0lf { return vec2<u32>(0u, 0u); }
  if x >= 18446744073709551616.0lf { return vec2<u32>(0xffffffffu, 0xffffffffu); }
  return hb_magnitude_f64(trunc(x));
}

fn hb_from_wide_f64(w: vec2<u32>) -> f64 {
  return f64(bitcast<i32>(w.y)) * 4294967296.0lf + f64(w.x);
}

fn hb_count_f64(x: f64) -> u32 {
  return select(64u, hb_to_u32_f64(x, 64.0lf), hb_is_nan_f64(x) || (x > -1.0lf && x < 64.0lf));
}
