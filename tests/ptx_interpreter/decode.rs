//! Opcodes to instructions. Every modifier must be known; operands are counted.

use std::ops::RangeInclusive;

use super::modifiers::Modifiers;
use super::number::Ty;
use super::op::*;
use super::{Kind, Result, fault};

pub type Decoded = Result<(Op, RangeInclusive<usize>)>;

/// The instruction, and how many operands it has.
pub fn decode(m: &mut Modifiers) -> Decoded {
    let decoded = match m.name {
        "mov" | "cvt" | "setp" | "selp" | "bra" | "ret" | "exit" | "cvta" | "nanosleep" | "setmaxnreg" | "prefetch"
        | "griddepcontrol" | "trap" | "isspacep" | "applypriority" | "discard" | "pmevent" | "prefetchu" => general(m),
        "ld" | "ldu" | "st" | "atom" | "red" => memory(m),
        "shfl" | "vote" | "elect" | "activemask" | "bar" | "barrier" | "membar" | "fence" | "mbarrier" | "mapa" => together(m),
        "cp" | "ldmatrix" | "stmatrix" | "mma" | "wgmma" => tensor(m),
        _ => super::arithmetic::decode(m),
    }?;
    m.end()?;
    Ok(decoded)
}

fn unknown<T>(m: &Modifiers) -> Result<T> {
    fault(Kind::Syntax, format!("the unknown instruction {}", m.name))
}

fn round(m: &mut Modifiers) -> Round {
    let names = [
        ("rni", Round::IntegerNearest),
        ("rzi", Round::IntegerZero),
        ("rmi", Round::IntegerDown),
        ("rpi", Round::IntegerUp),
        ("rn", Round::Nearest),
        ("rz", Round::Zero),
        ("rm", Round::Down),
        ("rp", Round::Up),
    ];
    m.choose(&names).unwrap_or_default()
}

/// The modifiers that arithmetic may have.
pub fn flags(m: &mut Modifiers) -> Flags {
    Flags {
        round: round(m),
        saturate: m.take("sat"),
        flush: m.take("ftz"),
        approximate: m.take("approx") || m.take("full"),
        nan: m.take("NaN"),
        relu: m.take("relu"),
    }
}

fn general(m: &mut Modifiers) -> Decoded {
    Ok(match m.name {
        "mov" => (Op::Move(m.ty()?), 2..=2),
        "cvt" => {
            if m.take("pack") {
                m.must("sat")?;
                let fills = m.take("b32");
                let (from, to) = (m.ty()?, m.ty()?);
                if from != Ty::Signed(32) || to.bits() > 16 {
                    return fault(Kind::Syntax, "cvt.pack takes .s32");
                }
                return Ok((Op::PackSaturated { to }, if fills { 4..=4 } else { 3..=3 }));
            }
            let (from, to, flags) = (m.ty()?, m.ty()?, flags(m));
            if matches!(to, Ty::F16x2 | Ty::BF16x2) {
                (Op::ConvertPair { to, flags }, 3..=3)
            } else {
                super::convert::check(to, from, flags)?;
                (Op::Convert { to, from, flags }, 2..=2)
            }
        }
        "setp" => compare(m)?,
        "selp" => (Op::Arith(Arith::Select, m.ty()?, Flags::default()), 4..=4),
        "bra" => {
            m.skip(&["uni"]);
            (Op::Branch, 1..=1)
        }
        "ret" | "exit" => {
            m.skip(&["uni"]);
            (Op::Exit, 0..=0)
        }
        "cvta" => {
            let to_generic = !m.take("to");
            let space = m.one(&[("global", Space::Global), ("shared", Space::Shared), ("param", Space::Param)])?;
            m.ty()?;
            (Op::Address { space, to_generic }, 2..=2)
        }
        "nanosleep" => {
            m.ty()?;
            (Op::Nothing, 1..=1)
        }
        "setmaxnreg" => {
            m.one(&[("inc", ()), ("dec", ())])?;
            m.must("sync")?;
            m.must("aligned")?;
            m.ty()?;
            (Op::Nothing, 1..=1)
        }
        "prefetch" => {
            m.skip(&["tensormap", "global", "L1", "L2", "param"]);
            (Op::Nothing, 1..=1)
        }
        "griddepcontrol" => {
            m.one(&[("wait", ()), ("launch_dependents", ())])?;
            (Op::Nothing, 0..=0)
        }
        _ => return unknown(m),
    })
}

fn compare(m: &mut Modifiers) -> Decoded {
    let ty = m.ty()?;
    use Comparison::*;
    let plain = [
        ("eq", (Equal, false)),
        ("ne", (NotEqual, false)),
        ("lt", (Less, false)),
        ("le", (LessEqual, false)),
        ("gt", (Greater, false)),
        ("ge", (GreaterEqual, false)),
        ("lo", (Less, false)),
        ("ls", (LessEqual, false)),
        ("hi", (Greater, false)),
        ("hs", (GreaterEqual, false)),
        ("equ", (Equal, true)),
        ("neu", (NotEqual, true)),
        ("ltu", (Less, true)),
        ("leu", (LessEqual, true)),
        ("gtu", (Greater, true)),
        ("geu", (GreaterEqual, true)),
        ("num", (Ordered, false)),
        ("nan", (Unordered, false)),
    ];
    let (how, unordered) = m.one(&plain)?;
    let with = m.choose(&[("and", Logic::And), ("or", Logic::Or), ("xor", Logic::Xor)]);
    let flush = m.take("ftz");
    let float_only = unordered || matches!(how, Ordered | Unordered);
    if float_only && !ty.is_float() || ty == Ty::Pred {
        return fault(Kind::Syntax, format!("setp does not compare {ty:?} so"));
    }
    Ok((Op::Compare { how, unordered, ty, with, flush }, if with.is_some() { 4..=4 } else { 3..=3 }))
}

fn space(m: &mut Modifiers) -> Space {
    let names = [
        ("param", Space::Param),
        ("param::entry", Space::Param),
        ("global", Space::Global),
        ("shared::cluster", Space::Cluster),
        ("shared::cta", Space::Shared),
        ("shared", Space::Shared),
    ];
    m.choose(&names).unwrap_or(Space::Generic)
}

const ORDERING: [&str; 9] = ["relaxed", "acquire", "release", "acq_rel", "cta", "cluster", "gpu", "sys", "volatile"];

fn memory(m: &mut Modifiers) -> Decoded {
    let hints = ["nc", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "weak", "L1::no_allocate", "L1::evict_last", "L1::evict_first"];
    m.skip(&hints);
    m.skip(&["L2::64B", "L2::128B", "L2::256B", "L1::evict_normal", "L1::evict_unchanged"]);
    m.skip(&ORDERING);
    let space = space(m);
    let count = m.choose(&[("v2", 2), ("v4", 4)]).unwrap_or(1);
    let ty = m.ty()?;
    if matches!(m.name, "ld" | "ldu" | "st") {
        if ty.bytes() * count > 16 || ty == Ty::Pred {
            return fault(Kind::Syntax, "an access has at most 16 bytes");
        }
        let op = if m.name == "st" { Op::Store { space, ty, count } } else { Op::Load { space, ty, count } };
        return Ok((op, 2..=2));
    }
    use Atomic::*;
    let names = [
        ("add", Add),
        ("min", Min),
        ("max", Max),
        ("and", And),
        ("or", Or),
        ("xor", Xor),
        ("exch", Exchange),
        ("cas", CompareSwap),
        ("inc", Increment),
        ("dec", Decrement),
    ];
    let what = m.one(&names)?;
    m.skip(&["noftz"]);
    let returns = m.name == "atom";
    let operands = 2 + usize::from(returns) + usize::from(what == CompareSwap);
    Ok((Op::Atomic { space, what, ty, returns }, operands..=operands))
}

fn together(m: &mut Modifiers) -> Decoded {
    Ok(match m.name {
        "shfl" => {
            m.must("sync")?;
            let names = [("idx", Shuffle::Index), ("up", Shuffle::Up), ("down", Shuffle::Down), ("bfly", Shuffle::Butterfly)];
            let how = m.one(&names)?;
            m.must("b32")?;
            (Op::Shuffle(how), 5..=5)
        }
        "vote" => {
            m.must("sync")?;
            let names = [("all", Vote::All), ("any", Vote::Any), ("uni", Vote::Uniform), ("ballot", Vote::Ballot)];
            let how = m.one(&names)?;
            m.ty()?;
            (Op::Vote(how), 3..=3)
        }
        "elect" => {
            m.must("sync")?;
            (Op::Elect, 2..=2)
        }
        "activemask" => {
            m.must("b32")?;
            (Op::ActiveMask, 1..=1)
        }
        "bar" | "barrier" => {
            if m.take("warp") {
                m.must("sync")?;
                return Ok((Op::WarpSync, 1..=1));
            }
            if m.take("cluster") {
                m.skip(&["aligned", "acquire", "release", "relaxed"]);
                return Ok((m.one(&[("arrive", Op::ClusterArrive), ("wait", Op::ClusterWait)])?, 0..=0));
            }
            m.skip(&["cta"]);
            let waits = m.one(&[("sync", true), ("arrive", false)])?;
            let aligned = m.take("aligned") || m.name == "bar";
            (Op::Barrier { waits, aligned }, if waits { 1..=2 } else { 2..=2 })
        }
        "mapa" => {
            m.must("shared::cluster")?;
            m.ty()?;
            (Op::MapShared, 3..=3)
        }
        "membar" => {
            m.one(&[("cta", ()), ("gl", ()), ("sys", ())])?;
            (Op::Fence(Fence::Memory), 0..=0)
        }
        "fence" => fence(m)?,
        _ => mbarrier(m)?,
    })
}

fn fence(m: &mut Modifiers) -> Decoded {
    let what = if m.take("mbarrier_init") {
        m.must("release")?;
        m.must("cluster")?;
        Fence::BarrierInit
    } else if m.take("proxy") {
        m.must("async")?;
        m.skip(&["global", "shared::cta", "shared::cluster"]);
        Fence::Proxy
    } else {
        m.skip(&ORDERING);
        m.skip(&["sc"]);
        Fence::Memory
    };
    Ok((Op::Fence(what), 0..=0))
}

fn mbarrier(m: &mut Modifiers) -> Decoded {
    let names = [("init", 0), ("inval", 1), ("arrive", 2), ("expect_tx", 3), ("try_wait", 4), ("test_wait", 5)];
    let what = if m.take("arrive") { 2 } else { m.one(&names)? };
    let expects = m.take("expect_tx");
    let parity = m.take("parity");
    m.skip(&ORDERING);
    let space = space(m);
    m.must("b64")?;
    Ok(match what {
        0 => (Op::MbarrierInit, 2..=2),
        1 => (Op::MbarrierInvalidate, 1..=1),
        2 => (Op::MbarrierArrive { expects, space }, if expects { 3..=3 } else { 2..=3 }),
        3 => (Op::MbarrierExpect { space }, 2..=2),
        _ => (Op::MbarrierWait { parity }, 3..=4),
    })
}

const ELEMENTS: [(&str, Element); 4] = [("f16", Element::F16), ("bf16", Element::BF16), ("s8", Element::S8), ("u8", Element::U8)];

fn tensor(m: &mut Modifiers) -> Decoded {
    match m.name {
        "cp" => super::copies::decode(m),
        "ldmatrix" | "stmatrix" => {
            for word in ["sync", "aligned", "m8n8"] {
                m.must(word)?;
            }
            let count = m.one(&[("x1", 1), ("x2", 2), ("x4", 4)])?;
            let transposed = m.take("trans");
            m.skip(&["shared", "shared::cta"]);
            m.must("b16")?;
            let load = m.name == "ldmatrix";
            Ok((if load { Op::LoadMatrix { count, transposed } } else { Op::StoreMatrix { count, transposed } }, 2..=2))
        }
        "mma" => {
            for word in ["sync", "aligned", "row", "col"] {
                m.must(word)?;
            }
            let shapes = [("m16n8k8", (16, 8, 8)), ("m16n8k16", (16, 8, 16)), ("m16n8k32", (16, 8, 32)), ("m8n8k16", (8, 8, 16))];
            let (rows, n, k) = m.one(&shapes)?;
            let (sum, a) = accumulator(m)?;
            let b = m.one(&ELEMENTS)?;
            m.must(sum)?;
            let fits = match (rows, k) {
                (16, 8) => a == Element::F16 || a == Element::BF16,
                (16, 16) => true,
                _ => a.is_integer(),
            };
            if !fits || a.is_integer() != b.is_integer() || (!a.is_integer() && a != b) {
                return fault(Kind::Syntax, "mma has no such shape of such elements");
            }
            Ok((Op::Mma(Mma { m: rows, n, k, a, b }), 4..=4))
        }
        _ => wgmma(m),
    }
}

/// The accumulator's type, and the left factor's.
fn accumulator(m: &mut Modifiers) -> Result<(&'static str, Element)> {
    let sum = m.one(&[("f32", "f32"), ("s32", "s32")])?;
    let a = m.one(&ELEMENTS)?;
    if a.is_integer() == (sum == "s32") { Ok((sum, a)) } else { fault(Kind::Syntax, "no such accumulator") }
}

fn wgmma(m: &mut Modifiers) -> Decoded {
    let what = m.one(&[("fence", 0), ("commit_group", 1), ("wait_group", 2), ("mma_async", 3)])?;
    m.must("sync")?;
    m.must("aligned")?;
    if what < 3 {
        return Ok([(Op::WgmmaFence, 0..=0), (Op::WgmmaCommit, 0..=0), (Op::WgmmaWait, 1..=1)][what].clone());
    }
    let widths: Vec<(String, usize)> = (1..=32).map(|i| (format!("m64n{}k", i * 8), i * 8)).collect();
    let shapes: Vec<(String, (usize, usize))> =
        widths.iter().flat_map(|(s, n)| [(format!("{s}16"), (*n, 16)), (format!("{s}32"), (*n, 32))]).collect();
    let shapes: Vec<(&str, (usize, usize))> = shapes.iter().map(|(s, v)| (s.as_str(), *v)).collect();
    let (n, k) = m.one(&shapes)?;
    let (_, a) = accumulator(m)?;
    let b = m.one(&ELEMENTS)?;
    let steps = !a.is_integer() || n <= 24 || n.is_multiple_of(16);
    if k * a.bytes() != 32 || a.is_integer() != b.is_integer() || (!a.is_integer() && a != b) || !steps {
        return fault(Kind::Syntax, "wgmma has no such shape of such elements");
    }
    Ok((Op::Wgmma(Mma { m: 64, n, k, a, b }), if a.is_integer() { 4..=4 } else { 7..=8 }))
}
