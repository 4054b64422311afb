//! Runs a formula's steps over chunks of elements that stay in the first cache, each step a vectorised loop.

use std::cell::RefCell;

use half::{bf16, f16};

use super::joined::{Op, joined};
use super::loops::{Chunk, is_splat, one_loop};
use super::number::Number;
use crate::base::{AlignedBytes, DType, round};
use crate::scalar::steps::Step;
use crate::scalar::{Domain, Steps};

/// Elements computed at a time: 4 KiB of f32 a register, of which a loop uses a few.
pub(super) const CHUNK: usize = 1024;
/// What vector loops take at once; a chunk is computed in whole ones.
pub(super) const WHOLE: usize = 64;
/// Elements for which writing what is the same for all takes less than finding out where one number would do.
const FEW: usize = 256;

/// One argument of a run.
#[derive(Debug, Clone, Copy)]
pub enum Lane<'a> {
    /// As many contiguous elements as the run writes.
    Slice(&'a [u8]),
    /// One element for all.
    Splat(&'a [u8]),
    /// Integers that stand for numbers of the argument's type, each more by the same: sums of products of integers. As many as the
    /// run writes.
    Sums(&'a [i32], i32),
}

/// A formula ready to run.
#[derive(Debug, Clone)]
pub struct Program {
    steps: Steps,
    /// Each with the step that it gives.
    loops: Vec<(usize, Op)>,
    /// Of each loop, as bits: the steps that it reads element by element, and those only if one of them is not the same for all.
    operands: Vec<[u64; 2]>,
    /// Products and sums, the first operand of which nobody else reads.
    absorbing: Vec<[usize; 3]>,
}

/// A step as a bit; those of formulas of more than 64 steps are not told apart.
fn bit(step: usize) -> u64 {
    1 << (step % 64)
}

thread_local! {
    static REGISTERS: RefCell<AlignedBytes> = RefCell::new(AlignedBytes::zeroed(0));
}

impl Program {
    /// Takes over a compiled formula.
    pub fn new(steps: Steps) -> Self {
        let (loops, reads) = joined(&steps.steps);
        let absorbing = |(_, op): &(usize, Op)| match *op {
            Op::MulAdd(of) if reads[of[0]] == 1 => Some(of),
            _ => None,
        };
        let absorbing = loops.iter().filter_map(absorbing).collect();
        let operands = loops.iter().map(|(_, op)| op.operands().map(|of| of.iter().fold(0, |bits, &i| bits | bit(i)))).collect();
        Program { steps, loops, operands, absorbing }
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

    /// The argument of sums that a loop of numbers that are the same for all elements reads itself.
    fn absorbed(&self, args: &[Lane<'_>]) -> Option<usize> {
        self.absorbing.iter().find_map(|&[a, b, c]| match self.steps.steps[a] {
            Step::Arg(arg) if matches!(args[arg], Lane::Sums(..)) => {
                [b, c].iter().all(|&i| is_splat(&self.steps, args, i)).then_some(arg)
            }
            _ => None,
        })
    }

    /// Steps that some loop reads element by element, or that are the result, as bits; the others give one number for all elements.
    fn spread(&self, args: &[Lane<'_>]) -> u64 {
        if self.steps.steps.len() > u64::BITS as usize {
            return u64::MAX;
        }
        let splat = (0..self.steps.steps.len()).filter(|&i| is_splat(&self.steps, args, i)).fold(0, |bits, i| bits | bit(i));
        let result = self.loops.last().map_or(0, |(end, _)| bit(*end));
        self.operands.iter().fold(result, |bits, &[own, rest]| bits | own | if rest & !splat == 0 { 0 } else { rest })
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
        run_chunks(self, args, out, registers, cfg!(target_arch = "aarch64"));
    }
}

/// # Safety
/// The processor must have the instruction sets named.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn run_avx512<T: Number>(program: &Program, args: &[Lane<'_>], out: &mut [u8], registers: &mut [T]) {
    run_chunks(program, args, out, registers, true);
}

/// # Safety
/// The processor must have the instruction sets named.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2<T: Number>(program: &Program, args: &[Lane<'_>], out: &mut [u8], registers: &mut [T]) {
    run_chunks(program, args, out, registers, true);
}

#[inline(always)]
fn run_chunks<T: Number>(program: &Program, args: &[Lane<'_>], out: &mut [u8], registers: &mut [T], is_fused: bool) {
    let steps = &program.steps;
    let size = steps.out.size_bytes();
    let total = out.len() / size;
    let widest = total.min(CHUNK).next_multiple_of(WHOLE);
    // Constants and splats are written once, and once only where loops keep them to themselves; slices are loaded for each chunk.
    let spread = if widest <= FEW { u64::MAX } else { program.spread(args) };
    for (i, step) in steps.steps.iter().enumerate() {
        let register = &mut registers[i * CHUNK..][..if spread & bit(i) == 0 { 1 } else { widest }];
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
    let absorbed = program.absorbed(args);
    for at in (0..total).step_by(CHUNK) {
        let count = CHUNK.min(total - at);
        let n = count.next_multiple_of(WHOLE);
        for (i, op) in loops_before {
            let (before, register) = registers.split_at_mut(i * CHUNK);
            one_loop(&Chunk { steps, args, at, count, n, before, absorbed, is_fused }, *op, &mut register[..n]);
        }
        let (before, register) = registers.split_at_mut(end * CHUNK);
        let chunk = Chunk { steps, args, at, count, n, before, absorbed, is_fused };
        let out = &mut out[at * size..(at + count) * size];
        if chunk.bytes(*last, bytemuck::cast_slice_mut(&mut register[..n]), out) {
            continue;
        }
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

#[inline(always)]
pub(super) fn load<T: Number>(dtype: DType, bytes: &[u8], out: &mut [T]) {
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

    /// Integer sums give what the same numbers give as f32, whichever loop reads them first.
    #[test]
    fn sums_are_numbers() {
        let scaled = arg(0) * arg(1) + arg(2);
        let gate = scaled.clone() * (scaled.clone() * 0.17 + constant(0.5)).clip(0.0, 1.0);
        let bytes = ((scaled.clone() / 0.31).round() + constant(3.0)).clip(-128.0, 127.0);
        let sums: Vec<i32> = (0..1500).map(|i| (i * 7919) % 5003 - 2500).collect();
        let add = i32::MAX - 2000;
        let reals: Vec<f32> = sums.iter().map(|s| s.wrapping_add(add) as f32).collect();
        let types = [DType::F32, DType::F32, DType::F32];
        for (formula, out) in [(gate, DType::F32), (bytes, DType::I8), (arg(0) + arg(2), DType::F32), (arg(0), DType::F32)] {
            let program = Program::new(Steps::compile(&formula, &types, out).unwrap());
            let (scale, bias) = ([3e-8f32], [-20f32]);
            let rest = [Lane::Splat(bytemuck::cast_slice(&scale)), Lane::Splat(bytemuck::cast_slice(&bias))];
            for n in [1, 49, 64, 1000, 1024, 1500] {
                let run = |first: Lane| {
                    let mut out = vec![0; n * out.size_bytes()];
                    program.run(&[first, rest[0], rest[1]], &mut out);
                    out
                };
                let [got, want] = [Lane::Sums(&sums[..n], add), Lane::Slice(bytemuck::cast_slice(&reals[..n]))].map(run);
                assert_eq!(got, want, "{n} of {out}");
            }
        }
    }

    /// Formulas of fewer and more than 64 steps whose results and operands are the same for all elements, or are not.
    #[test]
    fn what_is_one_number_is_that_of_every_element() {
        let long = (0..80).fold(arg(0), |sum, i| (sum * constant(f64::from(i) + 1.5) + arg(1)).clip(-9.0, 9.0));
        let x: Vec<f32> = (0..1100).map(|i| i as f32 * 0.01 - 5.0).collect();
        let types = [DType::F32, DType::F32];
        for formula in [constant(2.5), arg(1), arg(1) * arg(0) + arg(1), arg(1) * constant(2.0) + arg(0) * arg(0), long] {
            let steps = Steps::compile(&formula, &types, DType::F32).unwrap();
            for lanes in [[Lane::Slice(bytemuck::cast_slice(&x)), Lane::Splat(bytemuck::cast_slice(&[0.7f32]))], {
                [Lane::Splat(bytemuck::cast_slice(&[0.7f32])), Lane::Slice(bytemuck::cast_slice(&x))]
            }] {
                let mut out = vec![0f32; x.len()];
                Program::new(steps.clone()).run(&lanes, bytemuck::cast_slice_mut(&mut out));
                for (x, y) in x.iter().zip(out) {
                    let one = |lane: &Lane| f64::from(if matches!(lane, Lane::Slice(_)) { *x } else { 0.7 });
                    let want = steps.eval(&[one(&lanes[0]), one(&lanes[1])]);
                    assert!((f64::from(y) - want).abs() < 1e-3, "{x}: {y} against {want}");
                }
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
