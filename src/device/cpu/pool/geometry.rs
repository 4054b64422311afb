//! Which elements of a plane the windows cover.

use smallvec::SmallVec;

use crate::graph::problem::PoolProblem;

/// The taps of a window along one axis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// Input position of the first tap inside.
    pub start: usize,
    /// Number of taps inside.
    pub count: usize,
    /// Number of taps where padding counts.
    pub padded: usize,
}

/// For each axis and output position: the taps inside the image.
pub(super) struct Geometry<'a> {
    pub p: &'a PoolProblem,
    spans: Vec<Vec<Span>>,
}

impl<'a> Geometry<'a> {
    pub fn new(p: &'a PoolProblem) -> Self {
        let w = &p.window;
        let axis = |a: usize| {
            let span = |o: usize| {
                let at = |t: usize| w.at(a, o, t);
                let inside = |t: &usize| (0..w.input[a] as i64).contains(&at(*t));
                let taps: Vec<usize> = (0..w.kernel[a]).filter(inside).collect();
                // Padding counts up to the pads given; a window that ceil_mode lets stick out further counts no more.
                let end = w.input[a] as i64 + w.pads_end[a];
                let padded = (0..w.kernel[a]).filter(|&t| at(t) < end).count();
                Span { start: taps.first().map_or(0, |&t| at(t) as usize), count: taps.len(), padded }
            };
            (0..w.output[a]).map(span).collect()
        };
        Geometry { p, spans: (0..w.rank()).map(axis).collect() }
    }

    /// Elements of an input and of an output plane.
    pub fn sizes(&self) -> [usize; 2] {
        [self.p.window.plane(), self.p.window.pixels()]
    }

    /// Whether the only window is the plane itself.
    pub fn whole(&self) -> bool {
        let w = &self.p.window;
        w.kernel == w.input && w.pixels() == 1 && w.pads.iter().all(|&v| v == 0) && w.dilations.iter().all(|&d| d == 1)
    }

    /// The spans along the last axis.
    pub fn columns(&self) -> &[Span] {
        self.spans.last().map_or(&[], |s| s)
    }

    /// The spans of output number `i` over the first `axes` axes, outermost axis first.
    pub fn window(&self, axes: usize, mut i: usize) -> SmallVec<[Span; 3]> {
        let mut spans: SmallVec<[Span; 3]> = SmallVec::new();
        for (axis, &n) in self.spans.iter().zip(&self.p.window.output).take(axes).rev() {
            spans.insert(0, axis[i % n]);
            i /= n;
        }
        spans
    }

    /// Calls `each` with the position, over the axes that `spans` are of, of every tap inside the image.
    pub fn taps(&self, spans: &[Span], each: &mut impl FnMut(usize)) {
        self.taps_from(spans, 0, 0, each);
    }

    fn taps_from(&self, spans: &[Span], axis: usize, base: usize, each: &mut impl FnMut(usize)) {
        let Some(span) = spans.get(axis) else { return each(base) };
        let w = &self.p.window;
        for t in 0..span.count {
            self.taps_from(spans, axis + 1, base * w.input[axis] + span.start + t * w.dilations[axis], each);
        }
    }
}

/// Taps that an average is taken over; 1 where there are none.
pub(super) fn counted(spans: &[Span], include_pad: bool) -> usize {
    spans.iter().map(|s| if include_pad { s.padded } else { s.count }).product::<usize>().max(1)
}
