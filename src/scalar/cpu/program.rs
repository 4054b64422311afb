//! Runs a formula's steps over chunks of elements that stay in the first cache, each step a vectorised loop.

use std::cell::RefCell;

use half::{bf16, f16};

use super::joined::{Op, joined};
use super::number::Number;
use crate::base::{AlignedBytes, DType, round};
use crate::scalar::steps::Step;
use crate::scalar::{Binary, Domain, Steps, Unary};

/// Elements computed at a time: with 20 registers of f32, 20 KiB.
const CHUNK: usize = 256;
/// What vector loops take at once; a chunk is computed in whole ones.
const WHOLE: usize = 64;

/// One argument of a run.
#[derive(Debug, Clone, Copy)]
pub enum Lane<'a> {
    /// As many contiguous elements as the run writes.
    Slice(&'a [u8]),
    /// One element for all.
    Splat(&'a [u8]),
}

/// A formula ready to run.
#[derive(Debug, Clone)]
pub struct Program {
    steps: Steps,
    /// Each with the step that it gives.
    loops: Vec<(usize, Op)>,
}

thread_local! {
    static REGISTERS: RefCell<AlignedBytes> = RefCell::new(AlignedBytes::zeroed(0));
}

impl Program {
    /// Takes over a compiled formula.
    pub fn new(steps: Steps) -> Self {
        let loops = joined(&steps.steps);
        Program { steps, loops }
    }

    /// Computes as many elements as `out` holds. Every [`Lane::Slice`] must hold as many of its argument's type.
    ///
    /// # Panics
    /// When a lane is too short or misaligned for its type, which is a planner's bug.
    pub fn run(&self, args: &[Lane<'_>], out: &mut [u8]) {
        REGISTERS.with_borrow_mut(|memory| match self.steps.domain {
            Domain::F32 => self.dispatch::<f32>(args, out, memory),
            Domain::F64 => self.dispatch::<f64>(args, out, memory),
            Domain::I64 => self.dispatch::<i64>(args, out, memory),
        });
    }

    fn dispatch<T: Number>(&self, args: &[Lane<'_>], out: &mut [u8], memory: &mut AlignedBytes) {
        let need = self.steps.steps.len() * CHUNK * size_of::<T>();
        if memory.len() < need {
            *memory = AlignedBytes::zeroed(need);
        }
        let registers: &mut [T] = bytemuck::cast_slice_mut(&mut memory[..need]);
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") && is_x86_feature_detected!("avx512vl")
            {
                // SAFETY: the processor has these instruction sets.
                return unsafe { run_avx512(self, args, out, registers) };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
                // SAFETY: the processor has these instruction sets.
                return unsafe { run_avx2(self, args, out, registers) };
            }
        }
        run_chunks(self, args, out, registers);
    }
}

/// # Safety
/// The processor must have the instruction sets named.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn run_avx512<T: Number>(program: &Program, args: &[Lane<'_>], out: &mut [u8], registers: &mut [T]) {
    run_chunks(program, args, out, registers);
}

/// # Safety
/// The processor must have the instruction sets named.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2<T: Number>(program: &Program, args: &[Lane<'_>], out: &mut [u8], registers: &mut [T]) {
    run_chunks(program, args, out, registers);
}

#[inline(always)]
fn run_chunks<T: Number>(program: &Program, args: &[Lane<'_>], out: &mut [u8], registers: &mut [T]) {
    let steps = &program.steps;
    let size = steps.out.size_bytes();
    let total = out.len() / size;
    let widest = total.min(CHUNK).next_multiple_of(WHOLE);
    // Constants and splats are written once; slices are loaded for each chunk.
    for (i, step) in steps.steps.iter().enumerate() {
        let register = &mut registers[i * CHUNK..i * CHUNK + widest];
        match *step {
            Step::Constant(v) => register.fill(T::from_f64(v)),
            Step::Arg(a) => {
                if let Lane::Splat(bytes) = args[a] {
                    let mut one = [T::from_i64(0)];
                    load(steps.args[a], &bytes[..steps.args[a].size_bytes()], &mut one);
                    register.fill(one[0]);
                }
            }
            _ => {}
        }
    }
    let Some(((end, last), loops_before)) = program.loops.split_last() else { return };
    let direct = steps.out == T::DTYPE && !matches!(last, Op::One(Step::Arg(_) | Step::Constant(_) | Step::Cast(..)));
    for at in (0..total).step_by(CHUNK) {
        let count = CHUNK.min(total - at);
        let n = count.next_multiple_of(WHOLE);
        for (i, op) in loops_before {
            let (before, register) = registers.split_at_mut(i * CHUNK);
            one_loop(&Chunk { steps, args, at, count, n, before }, *op, &mut register[..n]);
        }
        let (before, register) = registers.split_at_mut(end * CHUNK);
        let (chunk, out) = (Chunk { steps, args, at, count, n, before }, &mut out[at * size..(at + count) * size]);
        if direct && count == n {
            one_loop(&chunk, *last, bytemuck::cast_slice_mut(out));
            continue;
        }
        one_loop(&chunk, *last, &mut register[..n]);
        if count == n {
            store(steps.out, chunk.value(*end, register), out);
            continue;
        }
        // Of a part, the registers before are no longer needed: room to store whole vectors.
        match bytemuck::cast_slice_mut(before).get_mut(..n * size) {
            Some(room) => {
                store(steps.out, &register[..n], room);
                out.copy_from_slice(&room[..count * size]);
            }
            None => store(steps.out, &register[..count], out),
        }
    }
}

/// Elements `at..at + count` of a run, computed in `n` with those behind the last one, and the registers of the loops done.
struct Chunk<'a, T> {
    steps: &'a Steps,
    args: &'a [Lane<'a>],
    at: usize,
    count: usize,
    n: usize,
    before: &'a [T],
}

impl<'a, T: Number> Chunk<'a, T> {
    /// An argument's elements, where they are stored as they are computed with, and as many.
    #[inline(always)]
    fn stored(&self, arg: usize) -> Option<&'a [T]> {
        match self.args[arg] {
            Lane::Slice(bytes) if self.steps.args[arg] == T::DTYPE && self.count == self.n => {
                Some(&bytemuck::cast_slice(bytes)[self.at..self.at + self.n])
            }
            _ => None,
        }
    }

    /// What step `i` gave; its register is in `own` or before it.
    #[inline(always)]
    fn value<'s>(&'s self, i: usize, own: &'s [T]) -> &'s [T] {
        match self.steps.steps[i] {
            Step::Arg(a) => self.stored(a).unwrap_or(&own[..self.n]),
            _ => &own[..self.n],
        }
    }

    #[inline(always)]
    fn register(&self, i: usize) -> &[T] {
        self.value(i, &self.before[i * CHUNK..])
    }
}

#[inline(always)]
fn one_loop<T: Number>(chunk: &Chunk<T>, op: Op, out: &mut [T]) {
    // Zipped: what is indexed keeps its bounds checks here, and with them a loop of scalars after the one of vectors.
    match op {
        Op::One(step) => one_step(chunk, step, out),
        Op::MulAdd([a, b, c]) => {
            for (((o, &a), &b), &c) in out.iter_mut().zip(chunk.register(a)).zip(chunk.register(b)).zip(chunk.register(c)) {
                *o = T::binary(Binary::Add, T::binary(Binary::Mul, a, b), c);
            }
        }
        Op::Clip([a, low, high]) => {
            for (((o, &a), &low), &high) in
                out.iter_mut().zip(chunk.register(a)).zip(chunk.register(low)).zip(chunk.register(high))
            {
                *o = T::binary(Binary::Min, T::binary(Binary::Max, a, low), high);
            }
        }
        Op::Quantize([a, scale, zero, low, high]) => {
            let bounds = chunk.register(low).iter().zip(chunk.register(high));
            let shifted = chunk.register(a).iter().zip(chunk.register(scale)).zip(chunk.register(zero));
            for ((o, ((&a, &scale), &zero)), (&low, &high)) in out.iter_mut().zip(shifted).zip(bounds) {
                let rounded = T::unary(Unary::Round, T::binary(Binary::Div, a, scale));
                *o = T::binary(Binary::Min, T::binary(Binary::Max, T::binary(Binary::Add, rounded, zero), low), high);
            }
        }
    }
}

#[inline(always)]
fn one_step<T: Number>(chunk: &Chunk<T>, step: Step, out: &mut [T]) {
    let register = |i: usize| chunk.register(i);
    match step {
        Step::Constant(_) => {}
        Step::Arg(a) => {
            if let (Lane::Slice(bytes), None) = (chunk.args[a], chunk.stored(a)) {
                let dtype = chunk.steps.args[a];
                let size = dtype.size_bytes();
                load(dtype, &bytes[chunk.at * size..(chunk.at + chunk.count) * size], out);
            }
        }
        Step::Unary(op, a) => unary(op, register(a), out),
        Step::Binary(op, a, b) => binary(op, register(a), register(b), out),
        Step::Select(c, a, b) => {
            let (c, a, b) = (register(c), register(a), register(b));
            for (i, o) in out.iter_mut().enumerate() {
                *o = if c[i].is_true() { a[i] } else { b[i] };
            }
        }
        Step::Cast(d, a) => {
            for (o, &x) in out.iter_mut().zip(register(a)) {
                *o = T::cast(d, x);
            }
        }
    }
}

/// A loop for each operation, so that each becomes vector code of its own.
macro_rules! loops {
    ($op:expr, [$($name:path),*], $out:expr, |$o:ident, $i:ident| $value:expr) => {
        match $op {
            $($name => { let $o = $name; for $i in 0..$out.len() { $out[$i] = $value; } })*
            $o => for $i in 0..$out.len() { $out[$i] = $value; },
        }
    };
}

#[inline(always)]
fn unary<T: Number>(op: Unary, a: &[T], out: &mut [T]) {
    use Unary::*;
    let a = &a[..out.len()];
    loops!(op, [Neg, Abs, Exp, Log, Sqrt, Erf, Tanh, Floor, Ceil, Round, Trunc, Not], out, |op, i| T::unary(op, a[i]));
}

#[inline(always)]
fn binary<T: Number>(op: Binary, a: &[T], b: &[T], out: &mut [T]) {
    use Binary::*;
    let (a, b) = (&a[..out.len()], &b[..out.len()]);
    loops!(op, [Add, Sub, Mul, Div, Min, Max, Less, LessEqual, Equal, And, Or], out, |op, i| T::binary(op, a[i], b[i]));
}

#[inline(always)]
fn load<T: Number>(dtype: DType, bytes: &[u8], out: &mut [T]) {
    #[inline(always)]
    fn each<S: bytemuck::Pod, T>(bytes: &[u8], out: &mut [T], f: impl Fn(S) -> T) {
        for (o, &x) in out.iter_mut().zip(bytemuck::cast_slice::<u8, S>(bytes)) {
            *o = f(x);
        }
    }
    match dtype {
        DType::F32 => each(bytes, out, |x: f32| T::from_f64(x.into())),
        DType::F64 => each(bytes, out, |x: f64| T::from_f64(x)),
        DType::F16 => each(bytes, out, |x: f16| T::from_f64(x.to_f32().into())),
        DType::BF16 => each(bytes, out, |x: bf16| T::from_f64(x.to_f32().into())),
        DType::I8 => each(bytes, out, |x: i8| T::from_i64(x.into())),
        DType::U8 => each(bytes, out, |x: u8| T::from_i64(x.into())),
        DType::Bool => each(bytes, out, |x: u8| T::from_i64((x != 0).into())),
        DType::I16 => each(bytes, out, |x: i16| T::from_i64(x.into())),
        DType::U16 => each(bytes, out, |x: u16| T::from_i64(x.into())),
        DType::I32 => each(bytes, out, |x: i32| T::from_i64(x.into())),
        DType::U32 => each(bytes, out, |x: u32| T::from_i64(x.into())),
        DType::I64 => each(bytes, out, T::from_i64),
        DType::U64 => each(bytes, out, T::from_u64),
    }
}

#[inline(always)]
fn store<T: Number>(dtype: DType, values: &[T], bytes: &mut [u8]) {
    #[inline(always)]
    fn each<D: bytemuck::Pod, T: Copy>(values: &[T], bytes: &mut [u8], f: impl Fn(T) -> D) {
        for (o, &x) in bytemuck::cast_slice_mut::<u8, D>(bytes).iter_mut().zip(values) {
            *o = f(x);
        }
    }
    let float = T::from_f64(0.5).to_f64() != 0.0;
    match dtype {
        DType::F32 => each(values, bytes, |x| x.to_f64() as f32),
        DType::F64 => each(values, bytes, |x| x.to_f64()),
        DType::F16 if size_of::<T>() == 8 => each(values, bytes, |x| round::to_f16(x.to_f64())),
        DType::BF16 if size_of::<T>() == 8 => each(values, bytes, |x| round::to_bf16(x.to_f64())),
        DType::F16 => each(values, bytes, |x| f16::from_f32(x.to_f64() as f32)),
        DType::BF16 => each(values, bytes, |x| bf16::from_f32(x.to_f64() as f32)),
        DType::Bool => each(values, bytes, |x| u8::from(x.is_true())),
        DType::I64 => each(values, bytes, |x| x.to_i64()),
        DType::U64 if float => each(values, bytes, |x| x.to_f64() as u64),
        DType::U64 => each(values, bytes, |x| x.to_i64() as u64),
        narrow if float => store_saturated(narrow, values, bytes),
        narrow => store_wrapped(narrow, values, bytes),
    }
    #[inline(always)]
    fn store_saturated<T: Number>(dtype: DType, values: &[T], bytes: &mut [u8]) {
        match dtype {
            DType::I8 => each(values, bytes, |x| x.to_i32_in(i8::MIN.into(), i8::MAX.into()) as i8),
            DType::U8 => each(values, bytes, |x| x.to_i32_in(u8::MIN.into(), u8::MAX.into()) as u8),
            DType::I16 => each(values, bytes, |x| x.to_i32_in(i16::MIN.into(), i16::MAX.into()) as i16),
            DType::U16 => each(values, bytes, |x| x.to_i32_in(u16::MIN.into(), u16::MAX.into()) as u16),
            DType::I32 => each(values, bytes, |x| x.to_f64() as i32),
            _ => each(values, bytes, |x| x.to_f64() as u32),
        }
    }
    #[inline(always)]
    fn store_wrapped<T: Number>(dtype: DType, values: &[T], bytes: &mut [u8]) {
        match dtype {
            DType::I8 => each(values, bytes, |x| x.to_i64() as i8),
            DType::U8 => each(values, bytes, |x| x.to_i64() as u8),
            DType::I16 => each(values, bytes, |x| x.to_i64() as i16),
            DType::U16 => each(values, bytes, |x| x.to_i64() as u16),
            DType::I32 => each(values, bytes, |x| x.to_i64() as i32),
            _ => each(values, bytes, |x| x.to_i64() as u32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{arg, constant};
    use super::*;

    fn run<A: bytemuck::Pod, B: bytemuck::Pod + Default>(f: &crate::scalar::Formula, types: (DType, DType), x: &[A]) -> Vec<B> {
        let steps = Steps::compile(f, &[types.0], types.1).unwrap();
        let mut out = vec![B::default(); x.len()];
        Program::new(steps).run(&[Lane::Slice(bytemuck::cast_slice(x))], bytemuck::cast_slice_mut(&mut out));
        out
    }

    #[test]
    fn long_runs_agree_with_the_oracle() {
        let f = arg(0).clone() * arg(0).sigmoid() + arg(0).erf() - arg(0).tanh() * constant(0.25);
        let x: Vec<f32> = (0..1000).map(|i| (i as f32 - 500.0) / 60.0).collect();
        let steps = Steps::compile(&f, &[DType::F32], DType::F32).unwrap();
        for (x, y) in x.iter().zip(run::<f32, f32>(&f, (DType::F32, DType::F32), &x)) {
            let want = steps.eval(&[(*x).into()]);
            assert!((f64::from(y) - want).abs() < 3e-6, "{x}: {y} against {want}");
        }
    }

    /// Runs of any length give each element what it is given alone, whatever whole vectors it is computed in.
    #[test]
    fn an_element_does_not_depend_on_its_place() {
        let x: Vec<f32> = (0..600).map(|i| ((i * 7919) % 601) as f32 * 0.37 - 90.0).collect();
        let bytes: Vec<i8> = (0..600).map(|i| (i * 31 % 256) as u8 as i8).collect();
        let swish = arg(0).clone() * (arg(0) * 0.17 + constant(0.5)).clip(0.0, 1.0) + arg(1) * 0.5;
        let quantized = ((swish.clone() / 0.31).round() + arg(1)).clip(-128.0, 127.0);
        for (formula, out) in
            [(swish.tanh(), DType::F32), (quantized.clone(), DType::I8), (quantized, DType::I64), (arg(1), DType::F32)]
        {
            let program = Program::new(Steps::compile(&formula, &[DType::F32, DType::I8], out).unwrap());
            let run = |from: usize, to: usize| {
                let mut bits = vec![0u64; 600];
                let bits: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut bits)[..(to - from) * out.size_bytes()];
                program.run(
                    &[Lane::Slice(bytemuck::cast_slice(&x[from..to])), Lane::Slice(bytemuck::cast_slice(&bytes[from..to]))],
                    bits,
                );
                bits.to_vec()
            };
            let alone: Vec<u8> = (0..600).flat_map(|i| run(i, i + 1)).collect();
            for n in [1, 2, 49, 63, 64, 65, 200, 255, 256, 257, 300, 512, 599, 600] {
                assert_eq!(run(0, n), alone[..n * out.size_bytes()], "{n} of {out}");
            }
        }
    }

    #[test]
    fn stores_saturate_from_floats_and_wrap_from_integers() {
        assert_eq!(run::<f32, u8>(&arg(0), (DType::F32, DType::U8), &[-3.0, 300.0, 7.9, f32::NAN]), [0, 255, 7, 0]);
        assert_eq!(
            run::<f64, i8>(&arg(0), (DType::F64, DType::I8), &[-1e300, -7.9, f64::INFINITY, f64::NAN]),
            [-128, -7, 127, 0]
        );
        assert_eq!(run::<f32, i16>(&arg(0), (DType::F32, DType::I16), &[-4e4, 32_766.9, 1e9]), [-32_768, 32_766, 32_767]);
        assert_eq!(run::<i64, u8>(&arg(0), (DType::I64, DType::U8), &[-3, 300, 7]), [253, 44, 7]);
        assert_eq!(run::<i64, i64>(&(arg(0) / 0.0), (DType::I64, DType::I64), &[5]), [0]);
        assert_eq!(run::<f32, u8>(&arg(0), (DType::F32, DType::Bool), &[0.0, 0.3, -2.0]), [0, 1, 1]);
    }
}
