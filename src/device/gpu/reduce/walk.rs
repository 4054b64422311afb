//! How the kernels of rows walk through a tensor: what kernels/lib/rows.j2 takes.

use crate::base::DType;
use crate::device::gpu::divide::magic;
use crate::device::gpu::launch::{Arg, Pointer};
use crate::graph::problem::reduce::{Groups, Rows};

/// Axes of one mark at most.
pub const AXES: usize = 4;
/// Threads of a block.
pub const THREADS: u32 = 256;

/// What numbers a kernel computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// Of elements of f32, f16 and bf16.
    F32,
    /// Of elements of any type.
    F64,
    /// Of integers, modulo 2^64.
    S64,
}

impl Number {
    /// The one that floats of this type are computed in, and integers as floats.
    pub fn of_floats(dtype: DType) -> Number {
        if matches!(dtype, DType::F32 | DType::F16 | DType::BF16) { Number::F32 } else { Number::F64 }
    }

    /// End of the variants' names.
    pub fn name(self) -> &'static str {
        match self {
            Number::F32 => "f32",
            Number::F64 => "f64",
            Number::S64 => "s64",
        }
    }

    /// Type of the value that the kernels store.
    pub fn dtype(self) -> DType {
        match self {
            Number::F32 => DType::F32,
            Number::F64 => DType::F64,
            Number::S64 => DType::I64,
        }
    }

    /// An argument.
    pub fn argument(self, v: f64) -> Arg {
        match self {
            Number::F32 => Arg::F32(v as f32),
            Number::F64 => Arg::U64(v.to_bits()),
            Number::S64 => Arg::U64(v as i64 as u64),
        }
    }

    /// The argument of these bits, of which f32 takes the upper half.
    pub fn bits(self, bits: u64) -> Arg {
        if self == Number::F32 { Arg::U32((bits >> 32) as u32) } else { Arg::U64(bits) }
    }
}

/// The number by which kernels know an element type.
pub fn code(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::BF16 => 2,
        DType::F64 => 3,
        DType::I8 => 4,
        DType::U8 | DType::Bool => 5,
        DType::I16 => 6,
        DType::U16 => 7,
        DType::I32 => 8,
        DType::U32 => 9,
        DType::I64 => 10,
        DType::U64 => 11,
    }
}

/// Groups of elements, and how many threads share one.
#[derive(Debug, Clone, PartialEq)]
pub struct Walk {
    /// How many groups.
    pub count: usize,
    /// Elements of one.
    pub len: usize,
    /// Elements of a group lie side by side.
    pub contiguous: bool,
    /// Threads take pairs of neighbours.
    pub pairs: bool,
    /// Neighbouring threads belong to neighbouring groups.
    pub across: bool,
    /// Logarithm of the threads of a group: it depends on how a group lies, not on how many there are.
    pub slices: u32,
    kept: Vec<(usize, usize)>,
    reduced: Vec<(usize, usize)>,
}

/// Sizes and strides of the axes of one mark, innermost first.
fn axes(groups: &Groups, mark: bool) -> Vec<(usize, usize)> {
    let mut stride = 1;
    let mut all = Vec::new();
    for &(size, flag) in groups.0.iter().rev() {
        if flag == mark && size != 1 {
            all.push((size, stride));
        }
        stride *= size;
    }
    all
}

/// Rows as groups.
pub fn grouped(rows: Rows) -> Groups {
    Groups(vec![(rows.outer, false), (rows.len, true), (rows.inner, false)])
}

impl Walk {
    /// Through groups of at most [`AXES`] runs of axes of each mark. In pairs where elements lie so and `pairs` asks for it; `each`: units that a thread of
    /// a group takes at least, as long as there are threads.
    pub fn new(groups: &Groups, pairs: bool, each: usize) -> Walk {
        let (kept, reduced) = (axes(groups, false), axes(groups, true));
        let product = |mark| groups.0.iter().filter(|g| g.1 == mark).map(|g| g.0).product();
        let (count, len): (usize, usize) = (product(false), product(true));
        let contiguous = reduced.is_empty() || (reduced.len() == 1 && reduced[0].1 == 1);
        let across = !contiguous && kept.first().is_some_and(|k| k.0 >= 8 && k.1 == 1);
        let pairs = pairs && contiguous && len.is_multiple_of(2) && len > 0;
        let units = if pairs { len / 2 } else { len };
        let wanted = units.div_ceil(each).max(1).next_power_of_two().min(THREADS as usize).trailing_zeros();
        let slices = if across { 3 } else { wanted };
        Walk { count, len, contiguous, pairs, across, slices, kept, reduced }
    }

    /// Units of a group.
    pub fn units(&self) -> usize {
        if self.pairs { self.len / 2 } else { self.len }
    }

    /// Blocks that all groups take.
    pub fn blocks(&self) -> u32 {
        self.count.div_ceil((THREADS >> self.slices) as usize) as u32
    }

    /// The arguments that all kernels of rows begin with, for elements of type `dtype` at `x`.
    pub fn arguments(&self, x: Pointer, dtype: DType) -> Vec<Arg> {
        let mut all = vec![Arg::Pointer(x), Arg::U32(code(dtype)), Arg::U32(self.count as u32), Arg::U32(self.units() as u32)];
        all.extend([Arg::U32(self.slices), Arg::U32(self.across.into())]);
        all.extend([&self.kept, &self.reduced].map(|axes| block(axes)));
        all
    }
}

fn block(axes: &[(usize, usize)]) -> Arg {
    let mut parts = vec![Arg::U32(axes.len() as u32)];
    for i in 0..AXES {
        // Without axes there is one element at the beginning.
        let (size, stride) = axes.get(i).copied().unwrap_or((1, 0));
        let (magic, shift) = magic(size as u32);
        parts.extend([size as u32, magic, shift, stride as u32].map(Arg::U32));
    }
    Arg::Block(parts)
}
