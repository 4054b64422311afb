//! What happens to sums before they are the output: bias, epilogue, quantisation.

use smallvec::SmallVec;

use super::dense::Place;
use crate::base::{DType, TensorView};
use crate::device::cpu::Call;
use crate::device::cpu::gemm::blocks::wide;
use crate::error::{Error, Result};
use crate::graph::problem::ConvProblem;
use crate::scalar::cpu::{Lane, Program, math};
use crate::scalar::{arg, constant};

/// An error of this family.
pub(super) fn error(why: impl Into<String>) -> Error {
    Error::Device { device: "cpu".into(), why: why.into() }
}

/// An input of the call.
pub(super) fn input<'a>(inputs: &'a [Option<TensorView<'a>>], i: usize) -> Result<&'a TensorView<'a>> {
    inputs.get(i).and_then(|v| v.as_ref()).ok_or_else(|| error(format!("input {i} is missing")))
}

/// An epilogue with its operands, for rows of pixels of one channel.
pub(super) struct Epilogue<'a> {
    program: Program,
    relu: bool,
    /// Bytes of a stored element.
    size: usize,
    operands: Vec<Operand<'a>>,
}

struct Operand<'a> {
    bytes: &'a [u8],
    size: usize,
    image: usize,
    channel: usize,
    splat: bool,
}

impl<'a> Epilogue<'a> {
    /// The problem's, if it has one.
    pub fn new(p: &ConvProblem, inputs: &'a [Option<TensorView<'a>>]) -> Result<Option<Self>> {
        let Some(spec) = &p.epilogue else { return Ok(None) };
        let program = Program::new(spec.steps()?);
        let shape = p.out_shape();
        let operand = |(i, t): (usize, &crate::graph::Type)| {
            let view = input(inputs, p.own_inputs + i)?;
            let strides = t.shape.broadcast_strides(&shape).ok_or_else(|| error("an epilogue's operand does not broadcast"))?;
            let splat = strides[2..].iter().all(|&s| s == 0);
            Ok(Operand { bytes: view.bytes, size: t.dtype.size_bytes(), image: strides[0], channel: strides[1], splat })
        };
        let operands = spec.operands.iter().enumerate().map(operand).collect::<Result<_>>()?;
        let relu = spec.formula == arg(0).max(constant(0.0)) && spec.out == DType::F32;
        Ok(Some(Epilogue { program, relu, size: spec.out.size_bytes(), operands }))
    }

    /// Finishes `sums` to as many stored elements of `out`.
    pub fn row(&self, place: &Place, sums: &[f32], out: &mut [u8]) {
        if self.relu {
            let out: &mut [f32] = bytemuck::cast_slice_mut(out);
            return wide(|| out.iter_mut().zip(sums).for_each(|(o, v)| *o = if *v < 0.0 { 0.0 } else { *v }));
        }
        self.run(place, Lane::Slice(bytemuck::cast_slice(sums)), out);
    }

    /// Bytes of a stored element.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Finishes integer sums with `add` on top: as f32 they go into the formula, whose results are stored to `out`.
    pub fn integers(&self, place: &Place, sums: &[i32], add: i32, out: &mut [u8]) {
        self.run(place, Lane::Sums(sums, add), out);
    }

    /// Inlined, so that `sums` is written where it is read: a copy would wait until all stores before it, those of the sums, are done.
    #[inline(always)]
    fn run(&self, place: &Place, sums: Lane, out: &mut [u8]) {
        let pixels = out.len() / self.size;
        let lane = |o: &Operand<'a>| {
            let start = place.image * o.image + place.channel * o.channel + if o.splat { 0 } else { place.pixel };
            let len = if o.splat { 1 } else { pixels };
            let bytes = &o.bytes[start * o.size..(start + len) * o.size];
            if o.splat { Lane::Splat(bytes) } else { Lane::Slice(bytes) }
        };
        let mut lanes: SmallVec<[Lane; 9]> = SmallVec::new();
        lanes.push(sums);
        lanes.extend(self.operands.iter().map(lane));
        self.program.run(&lanes, out);
    }
}

impl Epilogue<'_> {
    /// Finishes all `pixels` of all channels of image `n`.
    pub fn image(&self, n: usize, pixels: usize, sums: &[f32], out: &mut [u8]) {
        // One element a channel is repeated for its pixels, unless it is the only one of all.
        let repeated = |o: &Operand| -> Vec<u8> {
            let channels = if o.splat && o.channel > 0 { sums.len() / pixels } else { 0 };
            let element = |m: usize| &o.bytes[(n * o.image + m * o.channel) * o.size..][..o.size];
            (0..channels).flat_map(|m| element(m).repeat(pixels)).collect()
        };
        let repeated: Vec<Vec<u8>> = self.operands.iter().map(repeated).collect();
        let mut lanes: SmallVec<[Lane; 9]> = SmallVec::new();
        lanes.push(Lane::Slice(bytemuck::cast_slice(sums)));
        for (o, repeated) in self.operands.iter().zip(&repeated) {
            let own = &o.bytes[n * o.image * o.size..];
            lanes.push(match (o.splat, o.channel) {
                (true, 0) => Lane::Splat(&own[..o.size]),
                (true, _) => Lane::Slice(repeated),
                _ => Lane::Slice(&own[..sums.len() * o.size]),
            });
        }
        self.program.run(&lanes, out);
    }
}

/// The zero points and scales of an integer convolution.
pub(super) struct Quant {
    /// Of the image.
    pub x_zero: i32,
    /// One, or one for each output channel.
    pub w_zero: Vec<i32>,
    /// `x_scale * w_scale / y_scale`, one or one for each output channel, and the output's zero point.
    pub requantize: Option<(Vec<f32>, i32)>,
}

impl Quant {
    /// Read from the problem's inputs.
    pub fn new(p: &ConvProblem, call: &Call) -> Result<Option<Quant>> {
        let Some(q) = &p.quant else { return Ok(None) };
        let view = |i: usize| input(call.inputs, i);
        let ints = |i: Option<usize>| -> Result<Vec<i32>> {
            let Some(i) = i else { return Ok(vec![0]) };
            let all = view(i)?.to_tensor()?.to_i64().ok_or_else(|| error("a zero point must be an integer"))?;
            Ok(if all.is_empty() { vec![0] } else { all.into_iter().map(|v| v as i32).collect() })
        };
        let floats =
            |i: usize| -> Result<Vec<f32>> { Ok(view(i)?.to_tensor()?.to_f64().into_iter().map(|v| v as f32).collect()) };
        let requantize = match &q.requantize {
            None => None,
            Some(r) => {
                let (x, w, y) = (floats(r.x_scale)?, floats(r.w_scale)?, floats(r.y_scale)?);
                let (Some(&x), Some(&y)) = (x.first(), y.first()) else { return Err(error("a scale is empty")) };
                Some((w.iter().map(|w| x * w / y).collect(), ints(r.y_zero)?[0]))
            }
        };
        Ok(Some(Quant { x_zero: ints(q.x_zero)?[0], w_zero: ints(q.w_zero)?, requantize }))
    }

    /// Of output channel `m`.
    pub fn w_zero_of(&self, m: usize) -> i32 {
        self.w_zero[if self.w_zero.len() == 1 { 0 } else { m }]
    }

    /// The output element of an exact sum (bias included) of channel `m`.
    pub fn value(&self, m: usize, sum: i32, y: DType) -> i32 {
        self.rounding(m, y).map_or(sum, |r| r.apply(sum))
    }

    /// The output bytes of a row of channel `m`: `sums` with `add` on top.
    pub fn bytes(&self, m: usize, sums: &[i32], add: i32, y: DType, out: &mut [u8]) {
        let each = out.iter_mut().zip(sums);
        match self.rounding(m, y) {
            Some(r) => wide(|| each.for_each(|(o, s)| *o = r.apply(s.wrapping_add(add)) as u8)),
            None => each.for_each(|(o, s)| *o = s.wrapping_add(add) as u8),
        }
    }

    fn rounding(&self, m: usize, y: DType) -> Option<Rounding> {
        let (scales, zero) = self.requantize.as_ref()?;
        let (lo, hi) = if y == DType::I8 { (-128, 127) } else { (0, 255) };
        let scale = scales[if scales.len() == 1 { 0 } else { m }];
        Some(Rounding { scale, zero: *zero, low: (lo - zero) as f32, high: (hi - zero) as f32 })
    }
}

/// From sums to the output's integers.
#[derive(Clone, Copy)]
struct Rounding {
    scale: f32,
    zero: i32,
    /// The output's range less its zero point.
    low: f32,
    high: f32,
}

impl Rounding {
    #[inline(always)]
    fn apply(self, sum: i32) -> i32 {
        math::to_i32((sum as f32 * self.scale).round_ties_even().clamp(self.low, self.high)) + self.zero
    }
}
