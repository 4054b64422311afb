//! A warp: its lanes' registers and program counters.

use super::entry::Entry;
use super::number::Ty;
use super::op::Mma;
use super::operand::{Base, Literal, Mask, Operand, Special, literal_bits};
use super::{Kind, Result, fault};

/// Addresses of spaces seen as generic ones.
pub const GENERIC_SHARED: u64 = 1 << 62;
pub const GENERIC_PARAM: u64 = 1 << 61;

/// The lanes of a mask.
pub fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |lane| mask >> lane & 1 == 1)
}

/// A warp's place, and what its special registers say.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub cluster: usize,
    /// Of the cluster.
    pub block: usize,
    /// Of the block.
    pub warp: usize,
    pub blocks_of_cluster: usize,
    pub cluster_number: usize,
    pub threads: [u32; 3],
    pub block_at: [u32; 3],
    pub grid: [u32; 3],
    pub shared_bytes: u64,
}

impl Place {
    /// The lane's number in the cluster.
    pub fn thread(&self, lane: usize) -> usize {
        self.block * self.threads.iter().product::<u32>() as usize + self.warp * 32 + lane
    }

    fn special(&self, special: Special, lane: usize) -> u64 {
        let t = (self.warp * 32 + lane) as u32;
        let tid = [t % self.threads[0], t / self.threads[0] % self.threads[1], t / self.threads[0] / self.threads[1]];
        let clusters = self.grid.iter().product::<u32>() as usize / self.blocks_of_cluster;
        match special {
            Special::Tid(a) => tid[a].into(),
            Special::Ntid(a) => self.threads[a].into(),
            Special::Ctaid(a) => self.block_at[a].into(),
            Special::Nctaid(a) => self.grid[a].into(),
            Special::LaneId => lane as u64,
            Special::WarpId => self.warp as u64,
            Special::LaneMask(mask) => match mask {
                Mask::Equal => 1 << lane,
                Mask::Less => (1 << lane) - 1,
                Mask::LessEqual => (2 << lane) - 1,
                Mask::Greater => (!0u32 as u64) & !((2 << lane) - 1),
                Mask::GreaterEqual => (!0u32 as u64) & !((1 << lane) - 1),
            },
            Special::ClusterRank => self.block as u64,
            Special::ClusterSize => self.blocks_of_cluster as u64,
            Special::ClusterId => self.cluster_number as u64,
            Special::ClusterCount => clusters as u64,
            Special::Clock => 0,
            Special::SharedSize => self.shared_bytes,
        }
    }
}

/// An asynchronous product that was issued: its group.
#[derive(Clone, Copy, Debug)]
pub struct Flight {
    pub group: u32,
    pub shape: Mma,
}

#[derive(Clone, Debug, Default)]
pub struct Warp {
    pub place: Place,
    pub registers: Vec<[u64; 32]>,
    /// Lanes that have written the register.
    pub defined: Vec<u32>,
    /// Registers written since the last `wgmma.fence`.
    pub touched: Vec<bool>,
    /// Registers that an asynchronous product uses: as its accumulator, and whether it is only read.
    pub flight: Vec<Option<Flight>>,
    pub flying: bool,
    /// Whether there was a `wgmma.fence`.
    pub fenced: bool,
    pub widths: Vec<u32>,
    pub names: Vec<String>,
    pub pc: [usize; 32],
    pub live: u32,
    /// Lanes that wait at a barrier.
    pub parked: u32,
    /// Number of the last group of products committed.
    pub committed: u32,
    /// Of each lane: the copies not committed, and the groups not waited for.
    pub copies: Vec<Vec<(u64, usize)>>,
    pub copy_groups: Vec<Vec<Vec<(u64, usize)>>>,
    /// Of each lane: the bulk stores not committed, and the groups not waited for.
    pub bulk: Vec<Vec<(u64, usize)>>,
    pub bulk_groups: Vec<Vec<Vec<(u64, usize)>>>,
}

impl Warp {
    pub fn new(entry: &Entry, place: Place, live: u32) -> Warp {
        let n = entry.registers.len();
        Warp {
            place,
            registers: vec![[0; 32]; n],
            defined: vec![0; n],
            touched: vec![false; n],
            flight: vec![None; n],
            widths: entry.registers.clone(),
            names: entry.register_names.clone(),
            live,
            copies: vec![Vec::new(); 32],
            copy_groups: vec![Vec::new(); 32],
            bulk: vec![Vec::new(); 32],
            bulk_groups: vec![Vec::new(); 32],
            ..Warp::default()
        }
    }

    /// A register's bits; they must have been written, and no product may be under way on it.
    pub fn register(&self, r: usize, lane: usize) -> Result<u64> {
        if self.defined[r] >> lane & 1 == 0 {
            return fault(Kind::Uninitialised, format!("lane {lane} reads {}, which it never wrote", self.names[r]));
        }
        self.idle(r)?;
        Ok(self.registers[r][lane])
    }

    fn idle(&self, r: usize) -> Result<()> {
        if self.flying && self.flight[r].is_some() {
            return fault(Kind::Unfinished, format!("{} belongs to a product that was not waited for", self.names[r]));
        }
        Ok(())
    }

    /// Writes a value of a type; wider registers get it extended.
    pub fn set_register(&mut self, r: usize, lane: usize, ty: Ty, bits: u64) -> Result<()> {
        self.idle(r)?;
        self.registers[r][lane] = ty.widened(bits, self.widths[r]);
        self.defined[r] |= 1 << lane;
        self.touched[r] = true;
        Ok(())
    }

    pub fn value(&self, operand: &Operand, lane: usize, ty: Ty) -> Result<u64> {
        match operand {
            Operand::Register(r) => Ok(ty.low(self.register(*r, lane)?)),
            Operand::Negated(r) => Ok(self.register(*r, lane)? ^ 1),
            Operand::Literal(literal) => literal_bits(*literal, ty),
            Operand::Special(special) => Ok(self.place.special(*special, lane)),
            Operand::Symbol(base, offset) => match base {
                Base::Shared(at) | Base::Param(at) => Ok(at.wrapping_add_signed(*offset)),
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
        match operand {
            Operand::Address { base, offset } | Operand::Tensor { base, offset, .. } => {
                let base = match base {
                    Base::Register(r) => self.register(*r, lane)?,
                    Base::Shared(at) | Base::Param(at) => *at,
                    Base::Absolute => 0,
                };
                Ok(base.wrapping_add_signed(*offset))
            }
            other => fault(Kind::Syntax, format!("{other:?} is no address")),
        }
    }

    /// A literal integer, or the same integer in every lane.
    pub fn uniform(&self, operand: &Operand, mask: u32, ty: Ty) -> Result<u64> {
        if let Operand::Literal(Literal::Integer(n)) = operand {
            return Ok(ty.low(*n as u64));
        }
        let mut values = lanes(mask).map(|lane| self.value(operand, lane, ty));
        let first = values.next().unwrap_or(Ok(0))?;
        for value in values {
            if value? != first {
                return fault(Kind::Misuse, "lanes differ where they must agree");
            }
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
}
