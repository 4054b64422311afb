//! Planted errors: a kernel's text with one place changed must show that it is wrong.

use super::{Fault, Kind};

/// Seeds of schedules; 0 takes warps in turn.
pub const SEEDS: std::ops::Range<u64> = 0..6;

/// A kernel's result under a seed, or what the interpreter says of it; and what it should be.
pub type Try<'a> = &'a dyn Fn(&str, u64) -> Result<bool, Fault>;

pub fn sound(text: &str, run: Try) {
    for seed in SEEDS {
        assert!(run(text, seed).unwrap_or_else(|f| panic!("seed {seed}: {f}")), "seed {seed}: another result");
    }
}

/// Every planted error must show: as one of the kinds, or, where none is given, as another result. The first place of a text is
/// changed; or, as an error in a loop of a template would, each of a text after the word `each`.
pub fn caught(text: &str, run: Try, mutants: &[(&str, &str, &[Kind])]) {
    let mut wrong = Vec::new();
    for (from, to, kinds) in mutants {
        let mutant = match from.strip_prefix("each ") {
            Some(from) => text.replace(from, to),
            None => text.replacen(from, to, 1),
        };
        if *text == mutant {
            wrong.push(format!("{from} does not stand in the kernel"));
            continue;
        }
        match SEEDS.map(|seed| run(&mutant, seed)).find(|r| !matches!(r, Ok(true))) {
            Some(Err(fault)) if kinds.contains(&fault.kind) => {}
            Some(Ok(_)) if kinds.is_empty() => {}
            shown => wrong.push(format!("{from} -> {to}: {:?}", shown.map(|r| r.map_err(|f| f.to_string())))),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
