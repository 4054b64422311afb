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
        "redux" | "match" => among(m),
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
        ("rna", Round::Away),
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
        finite: m.take("satfinite"),
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
            let from = m.ty()?;
            if m.take("tf32") {
                let flags = flags(m);
                if from != Ty::F32 || !matches!(flags.round, Round::Away | Round::Nearest | Round::Zero) {
                    return fault(Kind::Syntax, "cvt to tf32 is from f32, with .rna, .rn or .rz");
                }
                return Ok((Op::ConvertTf32 { flags }, 2..=2));
            }
            let (to, flags) = (m.ty()?, flags(m));
            if matches!(to, Ty::F16x2 | Ty::BF16x2) {
                if from != Ty::F32 || !matches!(flags.round, Round::Nearest | Round::Zero) || flags.saturate {
                    return fault(Kind::Syntax, format!("cvt to {to:?} is from f32, with .rn or .rz"));
                }
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
            let space =
                m.one(&[("global", Space::Global), ("shared", Space::Shared), ("param", Space::Param), ("const", Space::Const)])?;
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
            m.skip(&["tensormap", "global", "L1", "L2", "param", "L2::evict_last", "L2::evict_normal"]);
            (Op::Nothing, 1..=1)
        }
        "prefetchu" => {
            m.must("L1")?;
            (Op::Nothing, 1..=1)
        }
        "trap" => (Op::Trap, 0..=0),
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
        ("const", Space::Const),
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
    m.skip(&["L1::evict_normal", "L2::evict_last", "L2::evict_normal", "L2::evict_first"]);
    let order =
        m.choose(&["relaxed", "acquire", "release", "acq_rel", "volatile"].map(|n| (n, n.contains("rel") && n != "relaxed")));
    let (strong, releases) = (order.is_some(), order == Some(true));
    m.skip(&ORDERING);
    m.skip(&["mmio"]);
    let hint = usize::from(m.take("L2::cache_hint"));
    let space = space(m);
    let count = m.choose(&[("v2", 2), ("v4", 4)]).unwrap_or(1);
    let ty = m.ty()?;
    if matches!(m.name, "ld" | "ldu" | "st") {
        if ty.bytes() * count > 16 || ty == Ty::Pred {
            return fault(Kind::Syntax, "an access has at most 16 bytes");
        }
        let op =
            if m.name == "st" { Op::Store { space, ty, count, strong, releases } } else { Op::Load { space, ty, count, strong } };
        return Ok((op, 2 + hint..=2 + hint));
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
    let half = matches!(ty, Ty::F16 | Ty::F16x2 | Ty::BF16 | Ty::BF16x2);
    if half {
        m.must("noftz")?;
    }
    let fits = match what {
        Add => half || matches!(ty, Ty::Unsigned(32 | 64) | Ty::Signed(32) | Ty::F32 | Ty::F64),
        Min | Max => matches!(ty, Ty::Unsigned(32 | 64) | Ty::Signed(32 | 64)),
        And | Or | Xor | Exchange => matches!(ty, Ty::Bits(32 | 64)),
        CompareSwap => matches!(ty, Ty::Bits(16 | 32 | 64)),
        Increment | Decrement => ty == Ty::Unsigned(32),
    };
    let returns = m.name == "atom";
    if !fits || (!returns && matches!(what, Exchange | CompareSwap)) || count > 1 {
        return fault(Kind::Syntax, format!("{}.{what:?} of {ty:?} does not exist", m.name));
    }
    let operands = 2 + usize::from(returns) + usize::from(what == CompareSwap) + hint;
    Ok((Op::Atomic { space, what, ty, returns, releases }, operands..=operands))
}

/// `redux.sync` and `match.sync`.
fn among(m: &mut Modifiers) -> Decoded {
    use Among::*;
    let what = if m.name == "redux" {
        m.one(&[("add", Add), ("min", Min), ("max", Max), ("and", And), ("or", Or), ("xor", Xor)])?
    } else {
        m.one(&[("any", MatchAny), ("all", MatchAll)])?
    };
    m.must("sync")?;
    let ty = m.ty()?;
    let fits = match what {
        Add | Min | Max => matches!(ty, Ty::Unsigned(32) | Ty::Signed(32)),
        And | Or | Xor => ty == Ty::Bits(32),
        MatchAny | MatchAll => matches!(ty, Ty::Bits(32 | 64)),
    };
    if fits { Ok((Op::Among(what, ty), 3..=3)) } else { fault(Kind::Syntax, format!("{} of {ty:?} does not exist", m.name)) }
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
        "membar" => (Op::Fence(m.one(&[("cta", Fence::Memory), ("gl", Fence::Device), ("sys", Fence::Device)])?), 0..=0),
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
        let scope =
            m.choose(&[("cta", Fence::Memory), ("cluster", Fence::Memory), ("gpu", Fence::Device), ("sys", Fence::Device)]);
        m.skip(&["sc", "acq_rel", "acquire", "release"]);
        scope.unwrap_or(Fence::Device)
    };
    Ok((Op::Fence(what), 0..=0))
}

fn mbarrier(m: &mut Modifiers) -> Decoded {
    let names = [("init", 0), ("inval", 1), ("arrive", 2), ("expect_tx", 3), ("try_wait", 4), ("test_wait", 5)];
    let drops = m.take("arrive_drop");
    let what = if drops || m.take("arrive") { 2 } else { m.one(&names)? };
    let expects = m.take("expect_tx");
    let parity = m.take("parity");
    m.skip(&ORDERING);
    let space = space(m);
    m.must("b64")?;
    Ok(match what {
        0 => (Op::MbarrierInit, 2..=2),
        1 => (Op::MbarrierInvalidate, 1..=1),
        2 => (Op::MbarrierArrive { expects, drops, space }, if expects { 3..=3 } else { 2..=3 }),
        3 => (Op::MbarrierExpect { space }, 2..=2),
        _ => (Op::MbarrierWait { parity }, 3..=4),
    })
}

const ELEMENTS: [(&str, Element); 5] =
    [("f16", Element::F16), ("bf16", Element::BF16), ("tf32", Element::TF32), ("s8", Element::S8), ("u8", Element::U8)];

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
            let sparse = m.choose(&[("sp", ()), ("sp::ordered_metadata", ())]).is_some();
            let shapes = [
                ("m16n8k64", (16, 8, 64)),
                ("m16n8k8", (16, 8, 8)),
                ("m16n8k16", (16, 8, 16)),
                ("m16n8k32", (16, 8, 32)),
                ("m8n8k16", (8, 8, 16)),
                ("m16n8k4", (16, 8, 4)),
            ];
            let (rows, n, k) = m.one(&shapes)?;
            let saturate = m.take("satfinite");
            let (sum, a, b) = factors(m)?;
            m.must(sum)?;
            let fits = match (rows, k) {
                (16, 16 | 32) if sparse && !a.is_integer() => a != Element::TF32,
                (16, 32 | 64) if sparse => a.is_integer(),
                (_, 64) => false,
                _ if sparse => false,
                (16, 4) => a == Element::TF32,
                (16, 8) => !a.is_integer(),
                (16, 16) => a != Element::TF32,
                _ => a.is_integer(),
            } && (!saturate || a.is_integer());
            if !fits || a.is_integer() != b.is_integer() || (!a.is_integer() && a != b) {
                return fault(Kind::Syntax, "mma has no such shape of such elements");
            }
            Ok((Op::Mma(Mma { m: rows, n, k, a, b, half: sum == "f16", saturate, sparse }), if sparse { 6..=6 } else { 4..=4 }))
        }
        _ => wgmma(m),
    }
}

/// The accumulator's type, and those of the factors, the first that stand.
fn factors(m: &mut Modifiers) -> Result<(&'static str, Element, Element)> {
    let sum = m.one(&[("f32", "f32"), ("s32", "s32"), ("f16", "f16")])?;
    let (a, b) = (m.one(&ELEMENTS)?, m.one(&ELEMENTS)?);
    let fits = match sum {
        "s32" => a.is_integer() && b.is_integer(),
        "f16" => a == Element::F16 && b == a,
        _ => !a.is_integer() && b == a,
    };
    if fits { Ok((sum, a, b)) } else { fault(Kind::Syntax, "no such accumulator of such elements") }
}

fn wgmma(m: &mut Modifiers) -> Decoded {
    let what = m.one(&[("fence", 0), ("commit_group", 1), ("wait_group", 2), ("mma_async", 3)])?;
    let sparse = what == 3 && m.take("sp");
    m.must("sync")?;
    m.must("aligned")?;
    if what < 3 {
        return Ok([(Op::WgmmaFence, 0..=0), (Op::WgmmaCommit, 0..=0), (Op::WgmmaWait, 1..=1)][what].clone());
    }
    let widths: Vec<(String, usize)> = (1..=32).map(|i| (format!("m64n{}k", i * 8), i * 8)).collect();
    let shapes: Vec<(String, (usize, usize))> =
        widths.iter().flat_map(|(s, n)| [8, 16, 32, 64].map(|k| (format!("{s}{k}"), (*n, k)))).collect();
    let shapes: Vec<(&str, (usize, usize))> = shapes.iter().map(|(s, v)| (s.as_str(), *v)).collect();
    let (n, k) = m.one(&shapes)?;
    let saturate = m.take("satfinite");
    let (sum, a, b) = factors(m)?;
    let steps = !a.is_integer() || n <= 24 || n.is_multiple_of(16);
    // The left factor has 32 bytes of each row. Of tf32 there would be one in every two.
    let deep = k * a.bytes() == if sparse { 64 } else { 32 } && !(sparse && a == Element::TF32);
    if !deep || !steps || (saturate && !a.is_integer()) {
        return fault(Kind::Syntax, "wgmma has no such shape of such elements");
    }
    let shape = Mma { m: 64, n, k, a, b, half: sum == "f16", saturate, sparse };
    // Signs of the factors, and of 16 bits whether they are transposed, the left one only in shared memory; metadata and their selector.
    let more = if sparse { 2 } else { 0 };
    let (least, most) = match a.bytes() {
        1 => (4, 4),
        2 => (7, 8),
        _ => (6, 6),
    };
    Ok((Op::Wgmma(shape), least + more..=most + more))
}
