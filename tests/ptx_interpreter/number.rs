//! Types of numbers, and their bits in 64-bit registers.

/// A fundamental type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ty {
    Pred,
    Bits(u32),
    Unsigned(u32),
    Signed(u32),
    F16,
    F16x2,
    BF16,
    BF16x2,
    F32,
    F64,
}

impl Ty {
    /// Of the name without its point.
    pub fn named(name: &str) -> Option<Ty> {
        let sized = |rest: &str| rest.parse().ok().filter(|n| matches!(n, 8 | 16 | 32 | 64));
        Some(match name {
            "pred" => Ty::Pred,
            "f16" => Ty::F16,
            "f16x2" => Ty::F16x2,
            "bf16" => Ty::BF16,
            "bf16x2" => Ty::BF16x2,
            "f32" => Ty::F32,
            "f64" => Ty::F64,
            _ => match name.split_at_checked(1)? {
                ("b", n) => Ty::Bits(sized(n)?),
                ("u", n) => Ty::Unsigned(sized(n)?),
                ("s", n) => Ty::Signed(sized(n)?),
                _ => return None,
            },
        })
    }

    pub fn bits(self) -> u32 {
        match self {
            Ty::Pred => 1,
            Ty::Bits(n) | Ty::Unsigned(n) | Ty::Signed(n) => n,
            Ty::F16 | Ty::BF16 => 16,
            Ty::F16x2 | Ty::BF16x2 | Ty::F32 => 32,
            Ty::F64 => 64,
        }
    }

    pub fn bytes(self) -> usize {
        (self.bits() as usize).div_ceil(8)
    }

    pub fn is_signed(self) -> bool {
        matches!(self, Ty::Signed(_))
    }

    pub fn is_integer(self) -> bool {
        matches!(self, Ty::Bits(_) | Ty::Unsigned(_) | Ty::Signed(_))
    }

    pub fn is_float(self) -> bool {
        !self.is_integer() && self != Ty::Pred
    }

    /// Smallest and largest value of an integer type.
    pub fn limits(self) -> Option<(i128, i128)> {
        match self {
            Ty::Signed(n) => Some((-(1 << (n - 1)), (1 << (n - 1)) - 1)),
            Ty::Unsigned(n) | Ty::Bits(n) => Some((0, (1 << n) - 1)),
            _ => None,
        }
    }

    /// The low bits that the type has.
    pub fn low(self, bits: u64) -> u64 {
        low(bits, self.bits())
    }

    /// The bits as an integer of the type.
    pub fn integer(self, bits: u64) -> i128 {
        if self.is_signed() { i128::from(sign_extend(bits, self.bits())) } else { i128::from(self.low(bits)) }
    }

    /// The bits that a register of `width` bits holds of a value of this type: signed ones are extended.
    pub fn widened(self, bits: u64, width: u32) -> u64 {
        let value = if self.is_signed() { sign_extend(bits, self.bits()) as u64 } else { self.low(bits) };
        low(value, width)
    }
}

pub fn low(bits: u64, width: u32) -> u64 {
    if width >= 64 { bits } else { bits & ((1 << width) - 1) }
}

pub fn sign_extend(bits: u64, width: u32) -> i64 {
    ((bits << (64 - width)) as i64) >> (64 - width)
}
