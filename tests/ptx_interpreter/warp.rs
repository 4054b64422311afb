//! A warp: its lanes' registers and program counters.

use super::entry::{Entry, Preset};
use super::number::Ty;
use super::op::Mma;
use super::operand::{Base, Literal, Mask, Operand, Special, literal_bits};
use super::{Kind, Result, fault};

/// Addresses of spaces seen as generic ones.
pub const GENERIC_SHARED: u64 = 1 << 62;
pub const GENERIC_PARAM: u64 = 1 << 61;
pub const GENERIC_CONST: u64 = 1 << 60;

/// A value for each lane.
pub type Row = [u64; 32];

/// The lanes of a mask.
#[inline]
pub fn lanes(mask: u32) -> Lanes {
    Lanes(mask)
}

/// See [`lanes`].
#[derive(Clone)]
pub struct Lanes(u32);

impl Iterator for Lanes {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let lane = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        (lane < 32).then_some(lane)
    }
}

/// Where a warp is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// Of those that are resident.
    pub cluster: usize,
    /// Of the cluster.
    pub block: usize,
    /// Of the block.
    pub warp: usize,
    /// The warp of the cluster.
    pub index: usize,
    pub blocks_of_cluster: usize,
}

/// What a block's special registers say.
#[derive(Clone, Debug, Default)]
pub struct Extents {
    /// In clusters, and in blocks of the cluster.
    pub cluster_at: [u32; 3],
    pub rank_at: [u32; 3],
    pub cluster: [u32; 3],
    pub threads: [u32; 3],
    pub block_at: [u32; 3],
    pub grid: [u32; 3],
    pub shared_bytes: u64,
}

fn special(place: &Place, e: &Extents, special: Special, lane: usize) -> u64 {
    let t = (place.warp * 32 + lane) as u32;
    let tid = [t % e.threads[0], t / e.threads[0] % e.threads[1], t / e.threads[0] / e.threads[1]];
    match special {
        Special::Tid(a) => tid[a].into(),
        Special::Ntid(a) => e.threads[a].into(),
        Special::Ctaid(a) => e.block_at[a].into(),
        Special::Nctaid(a) => e.grid[a].into(),
        Special::LaneId => lane as u64,
        Special::WarpId => place.warp as u64,
        Special::LaneMask(mask) => match mask {
            Mask::Equal => 1 << lane,
            Mask::Less => (1 << lane) - 1,
            Mask::LessEqual => (2 << lane) - 1,
            Mask::Greater => (!0u32 as u64) & !((2 << lane) - 1),
            Mask::GreaterEqual => (!0u32 as u64) & !((1 << lane) - 1),
        },
        Special::ClusterRank => place.block as u64,
        Special::ClusterSize => place.blocks_of_cluster as u64,
        Special::ClusterId(a) => e.cluster_at[a].into(),
        Special::ClusterCount(a) => (e.grid[a] / e.cluster[a]).into(),
        Special::ClusterBlock(a) => e.rank_at[a].into(),
        Special::ClusterBlocks(a) => e.cluster[a].into(),
        Special::Clock => 0,
        Special::SharedSize => e.shared_bytes,
    }
}

/// An asynchronous product that was issued: its group.
#[derive(Clone, Copy, Debug)]
pub struct Flight {
    pub group: u32,
    pub shape: Mma,
}

/// Asynchronous products of a warp.
#[derive(Clone, Debug, Default)]
pub struct Flights {
    /// Registers written since the last `wgmma.fence`.
    pub touched: Vec<bool>,
    /// Registers that a product uses: as its accumulator, or only read.
    pub of: Vec<Option<Flight>>,
    /// Whether one is under way.
    pub any: bool,
    /// Whether there was a `wgmma.fence`.
    pub fenced: bool,
    /// Number of the last group committed.
    pub committed: u32,
}

/// Asynchronous copies of a lane: those not committed, and the groups not waited for; address and length.
#[derive(Clone, Debug, Default)]
pub struct Copies {
    pub open: Vec<(u64, usize)>,
    pub groups: Vec<Vec<(u64, usize)>>,
}

impl Copies {
    pub fn commit(&mut self) {
        let group = std::mem::take(&mut self.open);
        self.groups.push(group);
    }

    /// The copies of all groups but the last `left`.
    pub fn wait(&mut self, left: usize) -> Vec<(u64, usize)> {
        let done = self.groups.len().saturating_sub(left);
        self.groups.drain(..done).flatten().collect()
    }

    pub fn is_over(&self) -> bool {
        self.open.is_empty() && self.groups.iter().all(Vec::is_empty)
    }
}

#[derive(Clone, Debug)]
pub struct Warp<'a> {
    pub entry: &'a Entry,
    pub place: Place,
    pub registers: Vec<Row>,
    /// Of registers of one bit, a bit for each lane.
    pub predicates: Vec<u32>,
    /// Lanes that have written the register.
    pub defined: Vec<u32>,
    pub flights: Flights,
    pub pc: [usize; 32],
    pub live: u32,
    /// Lanes that wait at a barrier.
    pub parked: u32,
    /// Of each lane, once there are any: copies by `cp.async`, and bulk ones.
    pub copies: Vec<Copies>,
    pub bulk: Vec<Copies>,
}

impl<'a> Warp<'a> {
    /// Without registers.
    pub fn hollow(entry: &'a Entry) -> Warp<'a> {
        let (registers, predicates, defined, copies, bulk) = Default::default();
        let (place, flights) = Default::default();
        Warp { entry, place, registers, predicates, defined, flights, pc: [0; 32], live: 0, parked: 0, copies, bulk }
    }

    /// A warp at its start, in the memory of one that is over.
    pub fn new(entry: &'a Entry, place: Place, extents: &Extents, live: u32, old: Option<Warp<'a>>) -> Warp<'a> {
        let n = entry.registers.len();
        let own = n - entry.presets.len();
        let fresh = || Warp { registers: vec![[0; 32]; n], predicates: vec![0; n], defined: vec![0; n], ..Warp::hollow(entry) };
        let old = old.unwrap_or_else(fresh);
        let (registers, predicates, defined) = (old.registers, old.predicates, old.defined);
        let mut warp = Warp { place, registers, predicates, defined, live, ..Warp::hollow(entry) };
        warp.defined[..own].fill(0);
        warp.defined[own..].fill(u32::MAX);
        for (row, preset) in warp.registers[own..].iter_mut().zip(&entry.presets) {
            *row = match *preset {
                Preset::Constant(bits) => [bits; 32],
                Preset::Special(s) => std::array::from_fn(|lane| special(&place, extents, s, lane)),
            };
        }
        if entry.asynchronous {
            warp.flights.touched = vec![false; n];
            warp.flights.of = vec![None; n];
        }
        warp
    }

    #[cold]
    fn unusable<T>(&self, r: usize, mask: u32) -> Result<T> {
        let name = &self.entry.register_names[r];
        let missing = mask & !self.defined[r];
        if missing != 0 {
            return fault(Kind::Uninitialised, format!("lane {} reads {name}, which it never wrote", missing.trailing_zeros()));
        }
        fault(Kind::Unfinished, format!("{name} belongs to a product that was not waited for"))
    }

    /// The register must have been written by the lanes, and no product may be under way on it.
    #[inline]
    pub fn readable(&self, r: usize, mask: u32) -> Result<()> {
        if mask & !self.defined[r] != 0 || self.flights.any && self.flights.of[r].is_some() {
            return self.unusable(r, mask);
        }
        Ok(())
    }

    /// The lanes are about to write the register.
    #[inline]
    pub fn written(&mut self, r: usize, mask: u32) -> Result<()> {
        if self.entry.asynchronous {
            if self.flights.any && self.flights.of[r].is_some() {
                return self.unusable(r, 0);
            }
            self.flights.touched[r] = true;
        }
        self.defined[r] |= mask;
        Ok(())
    }

    /// A register's bits.
    #[inline]
    pub fn register(&self, r: usize, lane: usize) -> Result<u64> {
        self.readable(r, 1 << lane)?;
        Ok(if self.entry.registers[r] == 1 { (self.predicates[r] >> lane & 1).into() } else { self.registers[r][lane] })
    }

    /// Writes a value of a type; wider registers get it extended.
    pub fn set_register(&mut self, r: usize, lane: usize, ty: Ty, bits: u64) -> Result<()> {
        self.written(r, 1 << lane)?;
        if self.entry.registers[r] == 1 {
            self.predicates[r] = self.predicates[r] & !(1 << lane) | (bits as u32 & 1) << lane;
        } else {
            self.registers[r][lane] = ty.widened(bits, self.entry.registers[r]);
        }
        Ok(())
    }

    /// Writes values of a type to the lanes.
    pub fn fill(&mut self, operand: &Operand, mask: u32, ty: Ty, values: &Row) -> Result<()> {
        let Operand::Register(r) = *operand else {
            return lanes(mask).try_for_each(|lane| self.set(operand, lane, ty, values[lane]));
        };
        let width = self.entry.registers[r];
        if width == 1 || ty.is_signed() || width < ty.bits() {
            return lanes(mask).try_for_each(|lane| self.set_register(r, lane, ty, values[lane]));
        }
        self.written(r, mask)?;
        let row = &mut self.registers[r];
        if mask == u32::MAX {
            *row = *values;
        } else {
            lanes(mask).for_each(|lane| row[lane] = values[lane]);
        }
        Ok(())
    }

    /// The lanes' values of an operand.
    pub fn values(&self, operand: &Operand, mask: u32, ty: Ty) -> Result<Row> {
        if let Operand::Register(r) = *operand
            && (2..=ty.bits()).contains(&self.entry.registers[r])
        {
            self.readable(r, mask)?;
            return Ok(self.registers[r]);
        }
        let mut row = [0; 32];
        lanes(mask).try_for_each(|lane| self.value(operand, lane, ty).map(|v| row[lane] = v))?;
        Ok(row)
    }

    pub fn value(&self, operand: &Operand, lane: usize, ty: Ty) -> Result<u64> {
        match operand {
            Operand::Register(r) => Ok(ty.low(self.register(*r, lane)?)),
            Operand::Negated(r) => Ok(self.register(*r, lane)? ^ 1),
            Operand::Literal(literal) => literal_bits(*literal, ty),
            Operand::Symbol(base, offset) => match base {
                Base::Shared(at) | Base::Param(at) | Base::Const(at) => Ok(at.wrapping_add_signed(*offset)),
                _ => fault(Kind::Syntax, "no variable"),
            },
            Operand::Vector(parts) => {
                let width = ty.bits() / parts.len() as u32;
                parts.iter().rev().try_fold(0, |all: u64, part| {
                    Ok(all << width | super::number::low(self.value(part, lane, Ty::Bits(width))?, width))
                })
            }
            other => fault(Kind::Syntax, format!("{other:?} has no value")),
        }
    }

    pub fn set(&mut self, operand: &Operand, lane: usize, ty: Ty, bits: u64) -> Result<()> {
        match operand {
            Operand::Register(r) => self.set_register(*r, lane, ty, bits),
            Operand::Sink => Ok(()),
            Operand::Vector(parts) => {
                let width = ty.bits() / parts.len() as u32;
                for (i, part) in parts.iter().enumerate() {
                    self.set(part, lane, Ty::Bits(width), bits >> (width * i as u32))?;
                }
                Ok(())
            }
            other => fault(Kind::Syntax, format!("{other:?} cannot be written")),
        }
    }

    /// The address that an operand in brackets stands for. Those of parameters are offsets.
    pub fn address(&self, operand: &Operand, lane: usize) -> Result<u64> {
        Ok(self.addresses(operand, 1 << lane)?[lane])
    }

    /// As [`Warp::address`], of each lane of the mask.
    #[inline]
    pub fn addresses(&self, operand: &Operand, mask: u32) -> Result<Row> {
        let (Operand::Address { base, offset } | Operand::Tensor { base, offset, .. }) = operand else {
            return fault(Kind::Syntax, format!("{operand:?} is no address"));
        };
        match *base {
            Base::Register(r) => {
                self.readable(r, mask)?;
                let row = &self.registers[r];
                Ok(if *offset == 0 { *row } else { row.map(|base| base.wrapping_add_signed(*offset)) })
            }
            Base::Shared(at) | Base::Param(at) | Base::Const(at) => Ok([at.wrapping_add_signed(*offset); 32]),
            Base::Absolute => Ok([*offset as u64; 32]),
        }
    }

    /// A literal integer, or the same integer in every lane.
    pub fn uniform(&self, operand: &Operand, mask: u32, ty: Ty) -> Result<u64> {
        if let Operand::Literal(Literal::Integer(n)) = operand {
            return Ok(ty.low(*n as u64));
        }
        let values = self.values(operand, mask, ty)?;
        let first = values[(mask.trailing_zeros() & 31) as usize];
        if lanes(mask).any(|lane| values[lane] != first) {
            return fault(Kind::Misuse, "lanes differ where they must agree");
        }
        Ok(first)
    }

    /// The registers of a vector, or the one.
    pub fn registers_of(operand: &Operand) -> Result<Vec<usize>> {
        let one = |o: &Operand| match o {
            Operand::Register(r) => Ok(*r),
            other => fault(Kind::Syntax, format!("{other:?} is no register")),
        };
        match operand {
            Operand::Vector(parts) => parts.iter().map(one).collect(),
            other => Ok(vec![one(other)?]),
        }
    }

    /// The copies of a lane.
    pub fn copies(&mut self, bulk: bool, lane: usize) -> &mut Copies {
        let all = if bulk { &mut self.bulk } else { &mut self.copies };
        if all.is_empty() {
            *all = vec![Copies::default(); 32];
        }
        &mut all[lane]
    }
}

/// The lanes of the mask in groups for which the key is the same.
pub fn groups<K: PartialEq>(mask: u32, key: impl Fn(usize) -> K) -> impl Iterator<Item = (usize, u32)> {
    let mut left = mask;
    std::iter::from_fn(move || {
        let first = lanes(left).next()?;
        let wanted = key(first);
        let group = lanes(left).filter(|l| key(*l) == wanted).fold(0, |m, l| m | 1 << l);
        left &= !group;
        Some((first, group))
    })
}
