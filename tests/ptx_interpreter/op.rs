//! Instructions: what the opcodes of the subset stand for.

use super::number::Ty;

/// Arithmetic of one destination from up to four operands, lane by lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arith {
    Add,
    Sub,
    MulLow,
    MulHigh,
    MulWide,
    MadLow,
    MadHigh,
    MadWide,
    Div,
    Rem,
    Min,
    Max,
    Abs,
    Neg,
    And,
    Or,
    Xor,
    Not,
    /// A boolean function of three inputs by its table; the last operand.
    Lop3,
    ShiftLeft,
    ShiftRight,
    /// Of the 64 bits `b:a` by the wrapped or clamped amount.
    FunnelLeft {
        wrap: bool,
    },
    FunnelRight {
        wrap: bool,
    },
    Population,
    LeadingZeros,
    /// The position of the highest bit that differs from the sign, or its distance from the top; all ones without any.
    HighestBit {
        distance: bool,
    },
    /// From as many bits as the second operand says.
    Extend {
        wrap: bool,
    },
    /// Products of the low 24 bits: bits 0 to 31, or 16 to 47.
    Mul24 {
        high: bool,
    },
    Mad24 {
        high: bool,
    },
    /// The third operand and the distance of the others.
    Distance,
    /// The first operand where the third, an f32 or not, is at least 0, the second elsewhere.
    SelectBySign {
        real: bool,
    },
    /// Whether a float is of a class.
    Test(Class),
    ReverseBits,
    FieldExtract,
    FieldInsert,
    Permute,
    Mul,
    Fma,
    Reciprocal,
    SquareRoot,
    ReciprocalRoot,
    Exp2,
    Log2,
    Sin,
    Cos,
    Tanh,
    CopySign,
    Select,
    /// Signedness of the first and second factor.
    Dp4a(bool, bool),
    Dp2a {
        signed: (bool, bool),
        high: bool,
    },
}

/// Floats that `testp` finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Round {
    #[default]
    None,
    Nearest,
    Zero,
    Down,
    Up,
    /// To the nearest, ties away from 0.
    Away,
    IntegerNearest,
    IntegerZero,
    IntegerDown,
    IntegerUp,
}

/// Modifiers of arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    pub round: Round,
    pub saturate: bool,
    /// Denormals count as zero, in and out.
    pub flush: bool,
    pub approximate: bool,
    /// NaN operands give NaN.
    pub nan: bool,
    pub relu: bool,
    /// Beyond the range is the largest finite value.
    pub finite: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    /// Neither is NaN.
    Ordered,
    Unordered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logic {
    And,
    Or,
    Xor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Param,
    Const,
    Global,
    Shared,
    /// Shared memory of any block of the cluster.
    Cluster,
    Generic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Atomic {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareSwap,
    Increment,
    Decrement,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    Index,
    Up,
    Down,
    Butterfly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Of memory accesses within a cluster; the scheduler is sequentially consistent, so that it does nothing.
    Memory,
    /// Of the device: relaxed accesses that follow pass on what stands before.
    Device,
    /// Makes what the thread has seen visible to asynchronous accesses, of shared memory, global memory or both.
    Proxy,
    /// Makes the initialisation of barriers visible to the cluster and to asynchronous accesses.
    BarrierInit,
}

/// What `redux.sync` and `match.sync` give of all lanes' values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Among {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    /// The lanes that have the same.
    MatchAny,
    /// All lanes where all have the same, or none.
    MatchAll,
}

/// Elements of a product of matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F16,
    BF16,
    TF32,
    S8,
    U8,
}

impl Element {
    pub fn bytes(self) -> usize {
        match self {
            Element::TF32 => 4,
            Element::F16 | Element::BF16 => 2,
            Element::S8 | Element::U8 => 1,
        }
    }

    pub fn is_integer(self) -> bool {
        self.bytes() == 1
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mma {
    pub n: usize,
    pub k: usize,
    pub a: Element,
    pub b: Element,
    pub m: usize,
    /// Sums are f16, two in a register.
    pub half: bool,
    /// Integer sums stay in range.
    pub saturate: bool,
    /// Of every four neighbours in a row of the left factor two are given, metadata say which (`mma.sp`).
    pub sparse: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Arith(Arith, Ty, Flags),
    Move(Ty),
    Convert {
        to: Ty,
        from: Ty,
        flags: Flags,
    },
    /// Two f32 to one register of two halves, the first operand's above.
    ConvertPair {
        to: Ty,
        flags: Flags,
    },
    ConvertTf32 {
        flags: Flags,
    },
    /// Two integers saturated to the two low halves of a register that the third operand fills up from above.
    PackSaturated {
        to: Ty,
    },
    Compare {
        how: Comparison,
        unordered: bool,
        ty: Ty,
        with: Option<Logic>,
        flush: bool,
    },
    Branch,
    Exit,
    Nothing,
    /// To a space's generic address, or back.
    Address {
        space: Space,
        to_generic: bool,
    },
    Load {
        space: Space,
        ty: Ty,
        count: usize,
        /// Orders threads, as atomics do.
        strong: bool,
    },
    Store {
        space: Space,
        ty: Ty,
        count: usize,
        strong: bool,
        releases: bool,
    },
    Atomic {
        space: Space,
        what: Atomic,
        ty: Ty,
        returns: bool,
        releases: bool,
    },
    Shuffle(Shuffle),
    Vote(Vote),
    Elect,
    Among(Among, Ty),
    ActiveMask,
    WarpSync,
    Barrier {
        waits: bool,
        aligned: bool,
    },
    ClusterArrive,
    ClusterWait,
    MapShared,
    Fence(Fence),
    MbarrierInit,
    MbarrierInvalidate,
    MbarrierArrive {
        expects: bool,
        /// Later phases want an arrival less.
        drops: bool,
        space: Space,
    },
    MbarrierExpect {
        space: Space,
    },
    MbarrierWait {
        parity: bool,
    },
    CopyAsync {
        /// Past the first cache.
        through: bool,
    },
    /// An arrival once the thread's copies are done, which is one of those counted or not.
    CopyArrive {
        counted: bool,
    },
    CopyCommit,
    CopyWait {
        all: bool,
    },
    TensorLoad {
        dims: usize,
        multicast: bool,
    },
    TensorStore {
        dims: usize,
    },
    BulkLoad {
        multicast: bool,
    },
    BulkStore,
    /// From this block's shared memory to that of one of the cluster.
    BulkForward,
    BulkReduce(Atomic, Ty),
    Trap,
    BulkCommit,
    BulkWait {
        read: bool,
    },
    LoadMatrix {
        count: usize,
        transposed: bool,
    },
    StoreMatrix {
        count: usize,
        transposed: bool,
    },
    Mma(Mma),
    WgmmaFence,
    WgmmaCommit,
    WgmmaWait,
    Wgmma(Mma),
}

impl Op {
    /// Whether the lanes of a warp execute it together: those that come first wait for the others.
    pub fn is_collective(self) -> bool {
        matches!(
            self,
            Op::Shuffle(_)
                | Op::Vote(_)
                | Op::Elect
                | Op::Among(..)
                | Op::WarpSync
                | Op::LoadMatrix { .. }
                | Op::StoreMatrix { .. }
                | Op::Mma(_)
                | Op::WgmmaFence
                | Op::WgmmaCommit
                | Op::WgmmaWait
                | Op::Wgmma(_)
                | Op::Barrier { aligned: true, .. }
        )
    }
}
