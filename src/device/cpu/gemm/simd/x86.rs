//! AVX2, AVX-512, and VNNI on registers of 256 and 512 bits.

use std::arch::x86_64::*;

use super::{Dot, Real};

/// A vector type's [`Real`] from its intrinsics.
macro_rules! real {
    ($t:ident, $n:literal; zero: $zero:expr, splat $x:ident: $splat:expr, load $p:ident: $load:expr,
     f16 $h:ident: $f16:expr, bf16 $q:ident: $bf16:expr, fma: $fma:ident, store: $store:ident) => {
#[rustfmt::skip]
        #[allow(clippy::undocumented_unsafe_blocks)] // The trait's contract covers each intrinsic.
        impl Real for $t {
            const LANES: usize = $n;
            #[inline(always)] unsafe fn zero() -> Self { $t(unsafe { $zero }) }
            #[inline(always)] unsafe fn splat($x: f32) -> Self { $t(unsafe { $splat }) }
            #[inline(always)] unsafe fn load($p: *const f32) -> Self { $t(unsafe { $load }) }
            #[inline(always)] unsafe fn load_f16($h: *const u16) -> Self { $t(unsafe { $f16 }) }
            #[inline(always)] unsafe fn load_bf16($q: *const u16) -> Self { $t(unsafe { $bf16 }) }
            #[inline(always)] unsafe fn mul_add(self, b: Self, c: Self) -> Self { $t(unsafe { $fma(self.0, b.0, c.0) }) }
            #[inline(always)] unsafe fn store(self, p: *mut f32) { unsafe { $store(p, self.0) } }
        }
    };
}

/// A vector type's [`Dot`] from its intrinsics.
macro_rules! dot {
    ($t:ident, $n:literal, $group:literal, $a_bytes:literal; zero: $zero:expr, splat: $splat:ident, load $p:ident: $load:expr,
     $(overlapping $o:ident: $overlapping:expr,)? dot $s:ident, $a:ident, $b:ident: $dot:expr, sums $r:ident: $sums:expr, store $q:ident, $v:ident: $store:expr) => {
        #[rustfmt::skip]
        #[allow(clippy::undocumented_unsafe_blocks)] // The trait's contract covers each intrinsic.
        impl Dot for $t {
            const LANES: usize = $n;
            const GROUP: usize = $group;
            const A_BYTES: usize = $a_bytes;
            #[inline(always)] unsafe fn zero() -> Self { $t(unsafe { $zero }) }
            #[inline(always)] unsafe fn splat_a(p: *const u8) -> Self { $t(unsafe { $splat(p.cast::<i32>().read_unaligned()) }) }
            #[inline(always)] unsafe fn load_b($p: *const i8) -> Self { $t(unsafe { $load }) }
            $(#[inline(always)] unsafe fn load_overlapping($o: *const i8) -> Self { $t(unsafe { $overlapping }) })?
            #[inline(always)] unsafe fn dot(self, x: Self, y: Self) -> Self { let ($s, $a, $b) = (self.0, x.0, y.0); $t(unsafe { $dot }) }
            #[inline(always)] unsafe fn load($r: *const i32) -> Self { $t(unsafe { $sums }) }
            #[inline(always)] unsafe fn store(self, $q: *mut i32) { let $v = self.0; unsafe { $store } }
        }
    };
}

/// The byte that each byte of overlapping quads is.
static NEIGHBOURS: [u8; 64] = {
    let mut places = [0; 64];
    let mut i = 0;
    while i < 64 {
        places[i] = (i / 4 + i % 4) as u8;
        i += 1;
    }
    places
};

/// 8 lanes.
#[derive(Clone, Copy)]
pub struct Avx2(__m256);
/// 16 lanes.
#[derive(Clone, Copy)]
pub struct Avx512(__m512);
/// 8 lanes, pairs by vpmaddwd.
#[derive(Clone, Copy)]
pub struct Avx2Dot(__m256i);
/// 16 lanes, pairs by vpmaddwd.
#[derive(Clone, Copy)]
pub struct Avx512Dot(__m512i);
/// 8 lanes, quads by vpdpbusd.
#[derive(Clone, Copy)]
pub struct AvxVnni(__m256i);
/// 16 lanes, quads by vpdpbusd; overlapping ones by vpermb of VBMI.
#[derive(Clone, Copy)]
pub struct Avx512Vnni(__m512i);

real! { Avx2, 8;
zero: _mm256_setzero_ps(), splat x: _mm256_set1_ps(x), load p: _mm256_loadu_ps(p),
f16 p: _mm256_cvtph_ps(_mm_loadu_si128(p.cast())),
bf16 p: _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())))),
fma: _mm256_fmadd_ps, store: _mm256_storeu_ps }
real! { Avx512, 16;
zero: _mm512_setzero_ps(), splat x: _mm512_set1_ps(x), load p: _mm512_loadu_ps(p),
f16 p: _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())),
bf16 p: _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())))),
fma: _mm512_fmadd_ps, store: _mm512_storeu_ps }
dot! { Avx2Dot, 8, 2, 2; zero: _mm256_setzero_si256(), splat: _mm256_set1_epi32,
load p: _mm256_cvtepi8_epi16(_mm_loadu_si128(p.cast())),
dot s, a, b: _mm256_add_epi32(s, _mm256_madd_epi16(a, b)),
sums p: _mm256_loadu_si256(p.cast()), store p, v: _mm256_storeu_si256(p.cast(), v) }
dot! { Avx512Dot, 16, 2, 2; zero: _mm512_setzero_si512(), splat: _mm512_set1_epi32,
load p: _mm512_cvtepi8_epi16(_mm256_loadu_si256(p.cast())),
dot s, a, b: _mm512_add_epi32(s, _mm512_madd_epi16(a, b)),
sums p: _mm512_loadu_si512(p.cast()), store p, v: _mm512_storeu_si512(p.cast(), v) }
dot! { AvxVnni, 8, 4, 1; zero: _mm256_setzero_si256(), splat: _mm256_set1_epi32,
load p: _mm256_loadu_si256(p.cast()),
overlapping p: _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(p.cast())), _mm256_loadu_si256(NEIGHBOURS.as_ptr().cast())),
dot s, a, b: _mm256_dpbusd_avx_epi32(s, a, b),
sums p: _mm256_loadu_si256(p.cast()), store p, v: _mm256_storeu_si256(p.cast(), v) }
dot! { Avx512Vnni, 16, 4, 1; zero: _mm512_setzero_si512(), splat: _mm512_set1_epi32,
load p: _mm512_loadu_si512(p.cast()),
overlapping p: _mm512_permutexvar_epi8(_mm512_loadu_si512(NEIGHBOURS.as_ptr().cast()), _mm512_castsi256_si512(_mm256_loadu_si256(p.cast()))),
dot s, a, b: _mm512_dpbusd_epi32(s, a, b),
sums p: _mm512_loadu_si512(p.cast()), store p, v: _mm512_storeu_si512(p.cast(), v) }
