// What rounds as the CPU does: each step by itself, in its order. exp, log, tanh and erf are those of src/scalar/cpu/math.rs.

fn hb_mul(a: f32, b: f32) -> f32 {
  return hb_exact(a * b);
}

fn hb_add(a: f32, b: f32) -> f32 {
  return hb_exact(a + b);
}

fn hb_cpu_exp(x: f32) -> f32 {
  let c = clamp(x, -104.0, 89.0);
  let n = round(hb_mul(c, 1.44269504));
  let r = hb_add(hb_add(c, -hb_mul(n, HB_LN_2_HIGH)), -hb_mul(n, HB_LN_2_LOW));
  let y = hb_add(hb_add(hb_mul(hb_mul(hb_cpu_poly_exp(r), r), r), r), 1.0);
  return select(hb_exact(hb_ldexp(y, i32(n))), x, hb_is_nan(x));
}

fn hb_cpu_log(x: f32) -> f32 {
  // 0, negative numbers, infinity and NaN.
  if bitcast<u32>(x) - 1u >= 0x7f7fffffu { return hb_log(x); }
  let parts = hb_parts(x);
  let m = parts.x - 1.0;
  let z = hb_mul(m, m);
  let p = hb_mul(hb_mul(hb_cpu_poly_log(m), m), z);
  let y = hb_add(hb_add(p, hb_mul(parts.y, HB_LN_2_LOW)), -hb_mul(0.5, z));
  return hb_add(hb_add(m, y), hb_mul(parts.y, HB_LN_2_HIGH));
}

fn hb_cpu_tanh(x: f32) -> f32 {
  let a = abs(x);
  let z = hb_mul(a, a);
  if a < 0.625 { return hb_add(x, hb_mul(hb_mul(x, z), hb_cpu_poly_tanh(z))); }
  return hb_odd(x, hb_add(1.0, -hb_div(2.0, hb_add(hb_cpu_exp(2.0 * a), 1.0))));
}

fn hb_cpu_erf(x: f32) -> f32 {
  let a = min(abs(x), 4.0);
  let z = hb_mul(a, a);
  let y = hb_div(hb_mul(a, hb_cpu_poly_erf_numerator(z)), hb_cpu_poly_erf_denominator(z));
  return hb_signed(x, min(y, 1.0));
}
