// 64-bit integers.

fn hb_join(w: vec2<u32>) -> i64 {
  return i64((u64(w.y) << 32u) | u64(w.x));
}

// The low 32 bits.
fn hb_low(a: i64) -> u32 {
  return u32(u64(a) & 0xfffffffflu);
}

// Toward zero; by 0 it is 0. Dividing by -1 negates, since the smallest integer's quotient does not fit.
fn hb_div_i64(a: i64, b: i64) -> i64 {
  if b == 0li { return 0li; }
  if b == -1li { return 0li - a; }
  return a / b;
}

fn hb_rem_i64(a: i64, b: i64) -> i64 {
  if b == 0li || b == -1li { return 0li; }
  return a % b;
}

fn hb_modulo_i64(a: i64, b: i64) -> i64 {
  let r = hb_rem_i64(a, b);
  return select(r, r + b, r != 0li && (r < 0li) != (b < 0li));
}

fn hb_shift_left_i64(a: i64, n: i64) -> i64 {
  if n < 0li || n > 63li { return 0li; }
  return i64(u64(a) << u32(n));
}

fn hb_shift_right_i64(a: i64, n: i64) -> i64 {
  if n < 0li || n > 63li { return 0li; }
  return i64(u64(a) >> u32(n));
}

// Exponents below 64 wrap like products do; of the others, all but 0 and 1 vanish or saturate.
fn hb_pow_i64(a: i64, b: i64) -> i64 {
  let odd = (b & 1li) == 1li;
  if b >= 0li && b < 64li {
    var power = 1li;
    var square = a;
    for (var n = u32(b); n > 0u; n >>= 1u) {
      if (n & 1u) == 1u { power *= square; }
      square *= square;
    }
    return power;
  }
  if a == 1li || (a == -1li && !odd) { return 1li; }
  if a == -1li { return -1li; }
  if a == 0li { return select(0li, 9223372036854775807li, b < 0li); }
  if b < 0li { return 0li; }
  return select(9223372036854775807li, i64(1lu << 63u), a < 0li && odd);
}
