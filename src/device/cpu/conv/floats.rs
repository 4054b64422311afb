//! Convolutions of f32: weights in panels of rows, `[group][panel][k][row]`, or as [`transposed`] wants them; an image's
//! elements are units as they are.

use bytemuck::Pod;

use super::dense::{Dense, Numbers, Panel, Place};
use super::operands::{self, Operands};
use super::planes::Planes;
use super::transposed;
use super::window::Window2d;
use crate::base::Tensor;
use crate::device::cpu::call::{Call, CpuCode, Packing};
use crate::device::cpu::gemm::blocks::{heights, wide};
use crate::device::cpu::gemm::core::Isa;
use crate::device::cpu::gemm::tile::List;
use crate::error::Result;
use crate::graph::Problem;
use crate::graph::problem::ConvProblem;

/// Weights as panels of rows.
fn panels(isa: &Isa, p: &ConvProblem, w: &[f32]) -> Vec<f32> {
    if p.transposed {
        return transposed::panels(isa, p, w);
    }
    let (mg, k) = (p.m / p.groups, p.c / p.groups * p.window.taps());
    let mut packed = Vec::with_capacity(w.len());
    for g in 0..p.groups {
        for (first, height) in heights(mg, isa.listed.rows()) {
            let rows = g * mg + first..g * mg + first + height;
            (0..k).for_each(|i| packed.extend(rows.clone().map(|m| w[m * k + i])));
        }
    }
    packed
}

/// The kernel on one instruction set.
pub(super) struct On(pub &'static Isa);

impl CpuCode for On {
    fn pack(&self, problem: &Problem, constants: &[Option<Tensor>]) -> Result<Packing> {
        operands::pack(self.0, panels, problem, constants)
    }

    fn run(&self, call: &mut Call) -> Result<()> {
        let o = Operands::new(self.0, panels, call)?;
        let Some(Some(out)) = call.outputs.first_mut() else { return Ok(()) };
        match &o.epilogue {
            _ if o.p.transposed => transposed::run(&o, out.slice()),
            Some(e) if e.size() == 1 => run::<u8>(&o, out.bytes),
            _ => run::<f32>(&o, out.slice()),
        }
        Ok(())
    }
}

/// Into stored elements.
fn run<E: Pod + Send>(o: &Operands, out: &mut [E]) {
    let (p, window) = (o.p, Window2d::new(&o.p.window));
    let numbers = Floats { isa: o.isa, window, channels: p.c / p.groups, x: o.x, weights: &o.weights };
    Dense { p, window, numbers: &numbers }.run(out, &|place: Place, sums: &mut [f32], out: &mut [E]| {
        if let Some(b) = o.bias {
            wide(|| sums.iter_mut().for_each(|v| *v += b[place.channel]));
        }
        o.finish(&place, sums, out);
    });
}

struct Floats<'a> {
    isa: &'a Isa,
    window: Window2d,
    /// Of a group.
    channels: usize,
    x: &'a [f32],
    weights: &'a [f32],
}

impl Numbers for Floats<'_> {
    type Sum = f32;

    fn tile(&self) -> [usize; 2] {
        [self.isa.listed.rows(), self.isa.columns]
    }

    fn units(&self) -> [usize; 2] {
        [self.channels, size_of::<f32>()]
    }

    fn in_place(&self, at: usize) -> Option<&[u8]> {
        Some(bytemuck::cast_slice(&self.x[at..]))
    }

    fn fill(&self, planes: &Planes, at: usize, first: [usize; 2], size: [usize; 2], out: &mut [u8]) {
        let w = &self.window;
        planes.fill(first, size, size_of::<f32>(), out, |channel, iy, start, row| {
            let row: &mut [f32] = bytemuck::cast_slice_mut(row);
            match iy {
                Some(iy) => w.line(&self.x[at + channel * w.plane() + iy * w.input[1]..][..w.input[1]], start, row, 0.0),
                None => row.fill(0.0),
            }
        });
    }

    fn sums(&self, panel: &Panel, sums: &mut [f32]) {
        let (isa, k, pixels) = (self.isa, panel.places.len(), panel.pixels);
        let a = &self.weights[panel.channel * k..][..panel.height * k];
        let b: &[f32] = bytemuck::cast_slice(panel.b);
        assert!(b.len() >= panel.reach() && sums.len() >= panel.height * pixels, "invariant: tiles lie in the block");
        let places = List { rows: panel.places.as_ptr(), panel: isa.columns };
        for (first, tile) in isa.listed.over(panel.height, 0..pixels / isa.columns) {
            let at = first * isa.columns;
            let (b, c) = (b[at..].as_ptr().cast(), sums[at..].as_mut_ptr());
            // SAFETY: A has k x height elements, each row of B and C the tile's columns from `at` on (asserted); the chooser
            // checked the instruction set.
            unsafe { tile(k, a.as_ptr(), b, places, c, pixels, false) };
        }
    }
}
