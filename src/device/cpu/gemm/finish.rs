//! What happens to a finished row segment: scaling, addend, epilogue, store.

use std::borrow::Cow;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use smallvec::SmallVec;

use super::blocks::wide;
use super::parts::Parts;
use super::top::Top;
use crate::base::{DType, Shape, TensorView};
use crate::device::cpu::Call;
use crate::device::cpu::disjoint::Disjoint;
use crate::device::cpu::scalar::broadcast::Rows;
use crate::error::{Error, Result};
use crate::graph::Problem;
use crate::graph::problem::gemm::{GemmProblem, Matrix, Param};
use crate::scalar::cpu::{Lane, Program, math};
use crate::scalar::{arg, constant};

/// The problem of a call to this family.
pub fn problem(problem: &Problem) -> Result<&GemmProblem> {
    match problem {
        Problem::Gemm(p) => Ok(p),
        _ => Err(Error::BadInput("a matrix product's kernel was given another family's problem".into())),
    }
}

/// Element `i` as f64.
pub fn real_at(view: &TensorView, i: usize) -> f64 {
    match view.dtype {
        DType::F32 => view.slice::<f32>()[i].into(),
        DType::F64 => view.slice::<f64>()[i],
        DType::F16 => view.slice::<f16>()[i].to_f64(),
        DType::BF16 => view.slice::<bf16>()[i].to_f64(),
        _ => int_at(view, i) as f64,
    }
}

/// Integer element `i`, wrapped to i64.
pub fn int_at(view: &TensorView, i: usize) -> i64 {
    match view.dtype {
        DType::I8 => view.slice::<i8>()[i].into(),
        DType::U8 | DType::Bool => view.slice::<u8>()[i].into(),
        DType::I16 => view.slice::<i16>()[i].into(),
        DType::U16 => view.slice::<u16>()[i].into(),
        DType::I32 => view.slice::<i32>()[i].into(),
        DType::U32 => view.slice::<u32>()[i].into(),
        DType::I64 => view.slice::<i64>()[i],
        DType::U64 => view.slice::<u64>()[i] as i64,
        _ => real_at(view, i) as i64,
    }
}

/// Epilogues with a loop of their own.
enum Direct {
    None,
    Relu,
    /// Adds operand 0.
    Bias,
    BiasRelu,
}

/// Finishes row segments of one call.
pub struct Finish<'a> {
    p: &'a GemmProblem,
    inputs: &'a [Option<TensorView<'a>>],
    store: Store<'a>,
    c: Option<(&'a Matrix, &'a TensorView<'a>)>,
    program: Option<Program>,
    direct: Direct,
    /// Of the epilogue, and where their elements lie.
    operands: Vec<&'a TensorView<'a>>,
    places: Rows,
}

/// Where results go.
enum Store<'a> {
    /// All to one output, as they lie.
    Whole(Disjoint<'a, u8>),
    /// Columns to outputs of their own.
    Parts(Parts<'a>),
    /// The largest of each row alone are wanted.
    Top(Top<'a>),
}

/// Input `i` of a call.
pub fn input<'a>(inputs: &'a [Option<TensorView<'a>>], i: usize) -> Result<&'a TensorView<'a>> {
    inputs.get(i).and_then(|v| v.as_ref()).ok_or_else(|| Error::BadInput(format!("a matrix product lacks its input {i}")))
}

impl<'a> Finish<'a> {
    /// Finishes into the outputs of the call.
    pub fn new<'c>(call: &'c mut Call<'a>) -> Result<Finish<'c>>
    where
        'a: 'c,
    {
        let p = problem(call.problem)?;
        let store = match (p.top, &mut *call.outputs) {
            (Some(k), outputs) => Store::Top(Top::new(p.batch.numel() * p.m, k, outputs)),
            (None, outputs) if !p.widths.is_empty() => Store::Parts(Parts::new(&p.widths, outputs)),
            (None, [Some(out), ..]) => Store::Whole(Disjoint::new(&mut *out.bytes)),
            _ => return Err(Error::BadInput("a matrix product lacks its output".into())),
        };
        let inputs = call.inputs;
        let c = p.c.as_ref().map(|c| Ok::<_, Error>((c, input(inputs, c.input)?))).transpose()?;
        let types = p.epilogue.iter().flat_map(|e| &e.operands);
        let shapes: Vec<&Shape> = types.map(|ty| &ty.shape).collect();
        let places = Rows::new(&p.shape, &shapes);
        let places = places.ok_or_else(|| Error::BadInput(format!("operands {shapes:?} do not broadcast to {}", p.shape)))?;
        let operands = (0..shapes.len()).map(|i| input(inputs, p.inputs + i)).collect::<Result<_>>()?;
        let mut finish = Finish { p, inputs, store, c, program: None, direct: Direct::None, operands, places };
        let Some(e) = &p.epilogue else { return Ok(finish) };
        let sum = || arg(0) + arg(1);
        finish.direct = match &e.formula {
            _ if e.out != DType::F32 => Direct::None,
            f if *f == arg(0).max(constant(0.0)) => Direct::Relu,
            f if *f == sum() && e.operands[0].dtype == DType::F32 => Direct::Bias,
            f if *f == sum().max(constant(0.0)) && e.operands[0].dtype == DType::F32 => Direct::BiasRelu,
            _ => Direct::None,
        };
        finish.program = Some(Program::new(e.steps()?));
        Ok(finish)
    }

    /// First output element of a row segment.
    fn flat(&self, batch: usize, row: usize, col: usize) -> usize {
        (batch * self.p.m + row) * self.p.n + col
    }

    /// Where `len` elements from `flat` on are stored.
    #[allow(clippy::mut_from_ref)]
    fn write(&self, flat: usize, len: usize, dtype: DType) -> &mut [u8] {
        let size = dtype.size_bytes();
        let Store::Whole(out) = &self.store else { unreachable!("invariant: only f32 goes elsewhere") };
        // SAFETY: each segment is written by one thread once.
        unsafe { out.part(flat * size, len * size) }
    }

    /// Takes `x = A x B` of a row segment through alpha, addend, epilogue and store.
    pub fn row(&self, batch: usize, row: usize, col: usize, x: &mut [f32]) {
        if self.p.alpha != 1.0 {
            x.iter_mut().for_each(|v| *v *= self.p.alpha);
        }
        self.scaled_row(batch, row, col, x);
    }

    /// The same after alpha.
    fn scaled_row(&self, batch: usize, row: usize, col: usize, x: &mut [f32]) {
        if let Some((c, view)) = self.c.filter(|(c, _)| c.dtype != DType::I32) {
            self.add(c, view, self.p.offset(&c.batch, batch) + row * c.row + col * c.col, x);
        }
        let flat = self.flat(batch, row, col);
        self.epilogue(flat, x);
    }

    fn add(&self, c: &Matrix, view: &TensorView, at: usize, x: &mut [f32]) {
        let beta = self.p.beta;
        match (c.dtype, c.col) {
            (DType::F32, 1) if beta == 1.0 => {
                let add = &view.slice::<f32>()[at..at + x.len()];
                wide(|| x.iter_mut().zip(add).for_each(|(v, &a)| *v += a));
            }
            _ => x.iter_mut().enumerate().for_each(|(j, v)| *v += beta * real_at(view, at + j * c.col) as f32),
        }
    }

    fn epilogue(&self, flat: usize, x: &mut [f32]) {
        let place = || (flat / self.p.n, flat % self.p.n);
        match &self.store {
            Store::Whole(_) => {}
            Store::Parts(parts) => return parts.store(place(), x),
            Store::Top(top) => return top.see(place(), x),
        }
        match self.direct {
            Direct::Relu => wide(|| x.iter_mut().for_each(|v| *v = relu(*v))),
            Direct::Bias => self.bias(flat, x, |v| v),
            Direct::BiasRelu => self.bias(flat, x, relu),
            Direct::None => {
                if let Some(program) = &self.program {
                    return self.run(program, flat, x);
                }
            }
        }
        let out = self.write(flat, x.len(), self.p.stored());
        match self.p.stored() {
            DType::F16 => bytemuck::cast_slice_mut::<u8, f16>(out).convert_from_f32_slice(x),
            DType::BF16 => bytemuck::cast_slice_mut::<u8, bf16>(out).convert_from_f32_slice(x),
            DType::F64 => bytemuck::cast_slice_mut::<u8, f64>(out).iter_mut().zip(x).for_each(|(o, v)| *o = f64::from(*v)),
            _ => bytemuck::cast_slice_mut::<u8, f32>(out).copy_from_slice(x),
        }
    }

    /// The `len` elements of operand `i` along a row segment from `flat` on; one where it is the same for all.
    fn operand(&self, i: usize, flat: usize, len: usize) -> &[u8] {
        let (view, row) = (self.operands[i], self.places.len);
        let (within, len) = if self.places.splat[i] { (0, 1) } else { (flat % row, len) };
        let size = view.dtype.size_bytes();
        &view.bytes[(self.places.start(i, flat / row) + within) * size..][..len * size]
    }

    fn bias(&self, flat: usize, x: &mut [f32], then: impl Fn(f32) -> f32) {
        let bias: &[f32] = bytemuck::cast_slice(self.operand(0, flat, x.len()));
        if let [one] = *bias {
            x.iter_mut().for_each(|v| *v = then(*v + one));
        } else {
            wide(|| x.iter_mut().zip(bias).for_each(|(v, &b)| *v = then(*v + b)));
        }
    }

    fn run(&self, program: &Program, flat: usize, x: &[f32]) {
        let mut lanes: SmallVec<[Lane; 9]> = SmallVec::new();
        lanes.push(Lane::Slice(bytemuck::cast_slice(x)));
        for (i, &splat) in self.places.splat.iter().enumerate() {
            let elements = self.operand(i, flat, x.len());
            lanes.push(if splat { Lane::Splat(elements) } else { Lane::Slice(elements) });
        }
        program.run(&lanes, self.write(flat, x.len(), self.p.stored()));
    }

    /// The scales of B's columns: one for all, or one for each. `rounded` are those of B rounded while packing.
    pub fn column_scales<'s>(&'s self, batch: usize, rounded: Option<&'s [f32]>) -> Cow<'s, [f32]> {
        let scale = self.p.quant.as_ref().and_then(|q| q.b_scale.as_ref());
        let place = self.param(scale, batch, 0);
        match (rounded, scale, place) {
            (Some(scales), ..) => Cow::Borrowed(scales),
            (None, Some(Param { dtype: DType::F32, step: 1, .. }), Some((view, at))) => {
                Cow::Borrowed(&view.slice::<f32>()[at..at + self.p.n])
            }
            (None, Some(param), _) if param.step != 0 => (0..self.p.n).map(|j| self.scale(scale, batch, j)).collect(),
            _ => Cow::Owned(vec![self.scale(scale, batch, 0)]),
        }
    }

    /// Takes exact integer sums of a row segment to the output, with B's scales from [`Finish::column_scales`].
    pub fn int_row(&self, batch: usize, row: usize, col: usize, sums: &mut [i32], a_scale: f32, b_scales: &[f32]) {
        if let Some((c, view)) = self.c.filter(|(c, _)| c.dtype == DType::I32) {
            let at = self.p.offset(&c.batch, batch) + row * c.row + col * c.col;
            let c_step = c.col;
            let add = view.slice::<i32>();
            sums.iter_mut().enumerate().for_each(|(j, s)| *s = s.wrapping_add(add[at + j * c_step]));
        }
        let Some(q) = self.p.quant.as_ref().filter(|_| self.p.out != DType::I32) else {
            return self.store_sums(batch, row, col, sums);
        };
        let a_scale = a_scale * self.scale(q.a_scale.as_ref(), batch, row) * self.p.alpha;
        let out_scale = self.scale(q.out_scale.as_ref(), batch, 0);
        match *b_scales {
            [one] => times(sums, std::iter::repeat(a_scale * one / out_scale)),
            _ => times(sums, b_scales[col..].iter().map(move |b| a_scale * b / out_scale)),
        }
        match self.p.out.int_range() {
            None => self.scaled_row(batch, row, col, bytemuck::cast_slice_mut(sums)),
            Some((lo, hi)) => {
                let round = rounding(1.0, (self.zero(&q.out_zero, batch, 0), lo as i32, hi as i32));
                wide(|| sums.iter_mut().for_each(|s| *s = round(f32::from_bits(*s as u32))));
                self.store_sums(batch, row, col, sums);
            }
        }
    }

    fn store_sums(&self, batch: usize, row: usize, col: usize, sums: &[i32]) {
        let flat = self.flat(batch, row, col);
        if self.p.epilogue.is_some() {
            let x: Vec<f32> = sums.iter().map(|&s| s as f32).collect();
            return self.epilogue(flat, &mut { x });
        }
        let out = self.write(flat, sums.len(), self.p.out);
        match self.p.out {
            DType::I32 => bytemuck::cast_slice_mut::<u8, i32>(out).copy_from_slice(sums),
            _ => wide(|| out.iter_mut().zip(sums).for_each(|(o, &s)| *o = s as u8)),
        }
    }

    /// A scale, 1 when left out.
    fn scale(&self, param: Option<&Param>, batch: usize, i: usize) -> f32 {
        self.param(param, batch, i).map_or(1.0, |(view, at)| real_at(view, at) as f32)
    }

    /// A zero point, 0 when left out.
    pub fn zero(&self, param: &Option<Param>, batch: usize, i: usize) -> i32 {
        self.param(param.as_ref(), batch, i).map_or(0, |(view, at)| int_at(view, at) as i32)
    }

    fn param(&self, param: Option<&Param>, batch: usize, i: usize) -> Option<(&TensorView<'a>, usize)> {
        let p = param?;
        let view = self.inputs.get(p.input)?.as_ref()?;
        Some((view, self.p.offset(&p.batch, batch) + i * p.step))
    }

    /// The stored bytes of a row segment, for results that are not f32.
    #[allow(clippy::mut_from_ref)]
    pub fn raw(&self, flat: usize, len: usize) -> &mut [u8] {
        self.write(flat, len, self.p.out)
    }

    /// Input `i` of the call.
    pub fn view(&self, i: usize) -> Option<&'a TensorView<'a>> {
        self.inputs.get(i).and_then(|v| v.as_ref())
    }

    /// Stores what is stored last, when all rows are finished.
    pub fn end(self) {
        if let Store::Top(top) = self.store {
            top.store();
        }
    }

    /// Takes finished elements through the epilogue, from output element `flat` on.
    pub fn floats(&self, flat: usize, x: &mut [f32]) {
        self.epilogue(flat, x);
    }
}

/// [`crate::base::quant::quantize`] of each element, in a form that vectorises: the same values, clamped before the addition.
pub fn round_to<T>(x: &[f32], scale: f32, range: (i32, i32, i32), out: &mut [T], to: impl Fn(i32) -> T) {
    let round = rounding(scale, range);
    wide(move || out.iter_mut().zip(x).for_each(|(o, &x)| *o = to(round(x))));
}

/// The same of one element.
fn rounding(scale: f32, (zero, lo, hi): (i32, i32, i32)) -> impl Fn(f32) -> i32 + Copy {
    let (low, high) = ((lo - zero) as f32, (hi - zero) as f32);
    move |x| math::to_i32((x / scale).round_ties_even().clamp(low, high)) + zero
}

/// Each sum times its factor, as the bits of an f32.
fn times(sums: &mut [i32], factors: impl Iterator<Item = f32>) {
    wide(move || sums.iter_mut().zip(factors).for_each(|(s, factor)| *s = (*s as f32 * factor).to_bits() as i32));
}

fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::quant::quantize;

    /// Halves, what is out of range, no numbers, and scales that are.
    #[test]
    fn rounding_is_that_of_quantisation() {
        let numbers = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 0.0, -0.0, 1e-45];
        for scale in [1e-30f32, 3e-9, 0.017, 0.5, 1.0, 7.7e5, 1e30, f32::INFINITY] {
            for range in [(0, -127, 127), (131, 0, 255), (0, 0, 255), (255, 0, 255)] {
                let (zero, lo, hi) = range;
                let x: Vec<f32> = (-600..600).map(|i| i as f32 * 0.5 * scale).chain(numbers).collect();
                let mut out = vec![0; x.len()];
                round_to(&x, scale, range, &mut out, |q| q);
                let want: Vec<i32> = x.iter().map(|&x| quantize(x, scale, zero, lo, hi)).collect();
                assert_eq!(out, want, "{scale:e} {range:?}");
            }
        }
    }
}
