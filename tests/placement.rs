//! The static planner against brute force, and on the instances of Moffitt's MiniMalloc (ASPLOS 2023).

use std::path::Path;

use halfbyte::memory::plan::{Effort, Lifetime, Placement, check, clique::max_live, place};
use proptest::prelude::*;

/// Every test's own limit of nodes, so that none depends on a clock.
const NODES: u64 = 200_000;

fn effort(align: usize) -> Effort {
    Effort { align, nodes: NODES, ..Effort::default() }
}

fn lifetimes(most: usize, steps: usize, bytes: usize) -> impl Strategy<Value = Vec<Lifetime>> {
    let one = (0..steps, 0..steps, 0..=bytes);
    prop::collection::vec(one.prop_map(|(a, b, bytes)| Lifetime { first: a.min(b), last: a.max(b), bytes }), 0..=most)
}

/// The least height over all orders in which buffers take the lowest place that is free: no placement needs less, as one that is
/// pushed down is met in the order of its offsets.
fn least_height(todo: &mut Vec<Lifetime>, done: &mut Vec<(Lifetime, usize)>, height: usize) -> usize {
    let mut least = if todo.is_empty() { height } else { usize::MAX };
    for i in 0..todo.len() {
        let own = todo.swap_remove(i);
        let clear = |at: usize| done.iter().all(|(o, low)| !own.meets(o) || at + own.bytes <= *low || low + o.bytes <= at);
        let tops = done.iter().map(|(o, low)| o.bytes + low).chain([0]);
        let at = tops.filter(|&at| clear(at)).min().expect("invariant: the highest top is free");
        done.push((own, at));
        least = least.min(least_height(todo, done, height.max(at + own.bytes)));
        done.pop();
        todo.push(own);
        let end = todo.len() - 1;
        todo.swap(i, end);
    }
    least
}

fn verified(all: &[Lifetime], effort: &Effort) -> Placement {
    let placement = place(all, effort).unwrap();
    assert_eq!(check(all, &placement.offsets, effort.align, placement.bytes), Ok(()));
    assert!(placement.bound <= placement.bytes, "{placement:?}");
    placement
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn small_ones_are_placed_as_low_as_can_be(mut all in lifetimes(6, 8, 12)) {
        let placement = verified(&all, &effort(1));
        prop_assert_eq!(placement.bytes, least_height(&mut all, &mut Vec::new(), 0));
    }

    #[test]
    fn larger_ones_never_overlap_whatever_the_order_and_alignment(
        all in lifetimes(60, 40, 5000).prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        align in prop::sample::select(vec![1usize, 64, 256]),
    ) {
        let effort = Effort { nodes: 500, ..effort(align) };
        let [a, b] = [&all.0, &all.1].map(|all| verified(all, &effort));
        prop_assert_eq!((a.bytes, a.bound, a.nodes), (b.bytes, b.bound, b.nodes));
        prop_assert_eq!(a.bytes % align, 0);
    }

    #[test]
    fn a_target_within_reach_is_enough(all in lifetimes(30, 20, 100)) {
        let bound = max_live(&all);
        let placement = verified(&all, &Effort { target: 2 * bound, ..effort(1) });
        prop_assert!(placement.bytes <= 2 * bound);
    }
}

#[test]
fn a_height_above_the_most_live_bytes_is_proven() {
    let life = |(first, last, bytes)| Lifetime { first, last, bytes };
    let all = [(0, 0, 1), (4, 6, 3), (5, 6, 3), (2, 3, 2), (0, 2, 3), (1, 1, 3), (3, 4, 2), (2, 4, 1), (0, 6, 2)];
    let mut all = all.map(life).to_vec();
    let placement = verified(&all, &effort(1));
    assert_eq!((max_live(&all), placement.bound, placement.bytes), (8, 9, 9));
    assert_eq!(least_height(&mut all, &mut Vec::new(), 0), 9);
}

#[test]
fn sizes_beyond_every_address_are_an_error() {
    let huge = Lifetime { first: 0, last: 1, bytes: usize::MAX / 2 };
    assert!(place(&[huge; 3], &Effort::default()).is_err());
    assert!(place(&[Lifetime { bytes: usize::MAX, ..huge }], &Effort::default()).is_err());
}

/// Instances (id, lower, upper, size; ends exclusive) of a folder beside the repository.
fn minimalloc() -> Option<Vec<(String, Vec<Lifetime>)>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/minimalloc");
    let mut files: Vec<_> = std::fs::read_dir(&dir).ok()?.map(|e| e.unwrap().path()).collect();
    files.sort();
    let life = |line: &str| {
        let [_, first, end, bytes] = line.split(',').map(|n| n.parse().unwrap()).collect::<Vec<usize>>()[..] else {
            panic!("{line}")
        };
        Lifetime { first, last: end - 1, bytes }
    };
    let read = |p: &Path| std::fs::read_to_string(p).unwrap().lines().skip(1).map(life).collect();
    Some(files.iter().map(|p| (p.file_stem().unwrap().to_string_lossy().into_owned(), read(p))).collect())
}

#[test]
fn every_instance_of_minimalloc_fits_its_capacity() {
    let Some(instances) = minimalloc() else {
        println!("SKIP: no ../shared/minimalloc");
        return;
    };
    for (name, all) in instances {
        let placement = verified(&all, &Effort { align: 1, target: 1 << 20, ..effort(1) });
        assert!(placement.bytes <= 1 << 20, "{name}: {} after {} nodes", placement.bytes, placement.nodes);
    }
}
