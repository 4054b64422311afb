//! The allocators that are compared.

use super::bfc::Bfc;
use super::cubecl::Cubecl;
use super::expandable::Expandable;
use super::own::Own;
use super::policy::Policy;
use super::rmm::Rmm;
use super::torch::Torch;
use crate::memory::Options;

/// An allocator that can be made for a device of any size.
pub struct PolicyDef {
    /// On the command line and in tables.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Makes one over a virtual device of so many bytes.
    pub make: fn(u64) -> Box<dyn Policy>,
}

/// This crate's own.
pub const OWN: PolicyDef =
    PolicyDef { name: "halfbyte", about: "this crate's pool", make: |n| Box::new(Own::new(n, Options::default())) };

/// This crate's own and every peer.
pub fn all() -> impl Iterator<Item = &'static PolicyDef> {
    std::iter::once(&OWN).chain(peers())
}

/// Every peer, re-implemented from its description.
pub fn peers() -> &'static [PolicyDef] {
    const {
        &[
            PolicyDef { name: "torch", about: "PyTorch, default options", make: |n| Box::new(Torch::new(n)) },
            PolicyDef { name: "torch-exp", about: "PyTorch, expandable segments", make: |n| Box::new(Expandable::new(n)) },
            PolicyDef { name: "rmm", about: "RAPIDS RMM pool", make: |n| Box::new(Rmm::new(n)) },
            PolicyDef { name: "tf-bfc", about: "TensorFlow BFC, allow_growth", make: |n| Box::new(Bfc::tensorflow(n)) },
            PolicyDef { name: "ort", about: "ONNX Runtime arena, kNextPowerOfTwo", make: |n| Box::new(Bfc::ort_doubling(n)) },
            PolicyDef {
                name: "ort-same",
                about: "ONNX Runtime arena, kSameAsRequested",
                make: |n| Box::new(Bfc::ort_requested(n)),
            },
            PolicyDef { name: "cubecl", about: "cubecl sub-slices", make: |n| Box::new(Cubecl::new(n)) },
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::base::xorshift::Xorshift;
    use crate::memory::replay::{Event, Trace, csv};

    const MIB: u64 = 1 << 20;

    fn by_name(name: &str) -> &'static PolicyDef {
        peers().iter().find(|p| p.name == name).unwrap()
    }

    /// Peak reserved bytes of a replay on a device that is never full.
    fn reserved(def: &PolicyDef, trace: &Trace) -> u64 {
        let (mut policy, mut blocks) = ((def.make)(80 << 30), vec![0; trace.buffers()]);
        for event in trace.events() {
            match *event {
                Event::Alloc { buffer, bytes } => blocks[buffer as usize] = policy.alloc(bytes).unwrap(),
                Event::Free { buffer } => policy.free(blocks[buffer as usize]),
            }
        }
        policy.usage().peak_reserved_bytes
    }

    /// What PyTorch itself reserved on the GPU on which each trace was recorded.
    #[test]
    fn torch_reserves_what_was_recorded_on_gpus_byte_for_byte() {
        for (name, mib) in [("forward_a", 3924), ("forward_b", 5630), ("forward_mixed", 9996), ("fullstep_128", 45154)] {
            let path = Path::new("../shared/traces/memory").join(name).with_extension("csv");
            if !path.exists() {
                println!("{} is not here: {name} skipped", path.display());
                continue;
            }
            assert_eq!(reserved(by_name("torch"), &csv::read(&path).unwrap()), mib * MIB, "{name}");
        }
    }

    /// Reserved MiB of each policy after `requests` (sizes in KiB), by hand.
    #[test]
    fn first_steps_are_those_of_the_description() {
        let after = |name: &str, requests_kib: &[u64]| {
            let mut policy = (by_name(name).make)(80 << 30);
            requests_kib.iter().for_each(|kib| assert!(policy.alloc(kib << 10).is_some()));
            policy.usage().reserved_bytes as f64 / MIB as f64
        };
        assert_eq!(after("torch", &[1024, 1024, 1]), 4.0);
        assert_eq!(after("torch", &[1025, 9 * 1024]), 20.0);
        assert_eq!(after("torch", &[11 * 1024 + 1]), 12.0);
        assert_eq!(after("torch-exp", &[1, 1025, 30 * 1024]), 2.0 + 40.0);
        assert_eq!(after("rmm", &[1024, 1024, 512]), 4.0, "doubled twice");
        assert_eq!(after("tf-bfc", &[1, 2048]), 2.0 + 4.0);
        assert_eq!(after("ort", &[1, 2048]), 1.0 + 2.0);
        assert_eq!(after("ort-same", &[3, 5]), 8.0 / 1024.0);
        assert_eq!(after("cubecl", &[1]), 20.0, "80 GiB / 4^6");
    }

    /// A full device: what each ladder gives back.
    #[test]
    fn ladders_return_what_they_say_before_they_give_up() {
        // Two buffers of 30 MiB are freed, then one of 60 MiB wanted from 64 MiB.
        let outcomes = all().map(|def| {
            let mut policy = (def.make)(64 * MIB);
            let blocks = [0; 2].map(|_| policy.alloc(30 * MIB));
            blocks.iter().flatten().for_each(|&b| policy.free(b));
            (def.name, blocks.iter().flatten().count(), policy.alloc(60 * MIB).is_some())
        });
        let expected = [
            ("halfbyte", 2, true),
            ("torch", 2, true),
            ("torch-exp", 2, true),
            ("rmm", 2, false),
            ("tf-bfc", 2, true),
            ("ort", 2, false),
            ("ort-same", 2, false),
            ("cubecl", 0, false),
        ];
        assert_eq!(outcomes.collect::<Vec<_>>(), expected);
    }

    /// Blocks never overlap, reserved bytes cover the live ones and stay within the device, and free space is what is left.
    #[test]
    fn random_requests_keep_every_policy_sound() {
        for def in all() {
            let capacity = 512 * MIB;
            let (mut policy, mut random) = ((def.make)(capacity), Xorshift::new(9));
            let (mut live, mut refused) = (BTreeMap::new(), 0);
            for _ in 0..20_000 {
                if random.below(5) < 2 && !live.is_empty() {
                    let at = *live.keys().nth(random.below(live.len())).unwrap();
                    live.remove(&at);
                    policy.free(at);
                } else {
                    let largest = 1 << (5 + random.below(20));
                    let bytes = 1 + random.below(largest) as u64;
                    let Some(block) = policy.alloc(bytes) else {
                        refused += 1;
                        let dropped: Vec<u64> = live.keys().copied().step_by(2).collect();
                        dropped.iter().for_each(|b| {
                            live.remove(b);
                            policy.free(*b);
                        });
                        continue;
                    };
                    let before = live.range(..=block).next_back().is_none_or(|(a, n)| a + n <= block);
                    let after = live.range(block..).next().is_none_or(|(a, _)| block + bytes <= *a);
                    assert!(before && after, "{}: {bytes} bytes at {block} overlap", def.name);
                    live.insert(block, bytes);
                }
                let (used, usage) = (live.values().sum::<u64>(), policy.usage());
                let free = policy.free_space();
                assert!(used + free.total_bytes <= usage.reserved_bytes && usage.reserved_bytes <= capacity, "{}", def.name);
                assert!(free.largest_bytes <= free.total_bytes);
            }
            assert!(refused > 3, "{} was never short of memory", def.name);
            live.keys().for_each(|b| policy.free(*b));
            assert_eq!(policy.free_space().total_bytes, policy.usage().reserved_bytes, "{}: all is free at the end", def.name);
        }
    }
}
