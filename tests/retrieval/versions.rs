//! Answers while the collection changes.

use std::sync::Mutex;

use halfbyte::base::xorshift::Xorshift;

use super::*;

/// The vector of text `n` of four.
fn axis(n: usize, length: f32) -> Vec<f32> {
    (0..DIM).map(|at| if at % 4 == n { length } else { 0.0 }).collect()
}

/// A writer adds ever longer vectors, or takes the longest away: what is best tells which version was searched. Readers ask four texts again and again,
/// mostly out of the cache.
#[test]
fn an_answer_belongs_to_a_version_between_question_and_answer() {
    let embed = |text: &str, _: &Submit| Ok(axis(text.parse().unwrap(), 1.0));
    let collection = collection();
    // Vectors of all four directions, so that all are asked for one history of what is best: its numbers.
    let add = |length: usize| {
        let four: Vec<f32> = (0..4).flat_map(|n| axis(n, length as f32)).collect();
        collection.add(TensorView::of([4, DIM], &four)).unwrap()
    };
    let history = Mutex::new(vec![(add(1), 0u64)]);
    let (begun, ended) = (AtomicUsize::new(1), AtomicUsize::new(1));
    let retriever = Retriever::new(embed, engine(), collection.clone(), RetrieverOptions::default()).unwrap();
    let changes = 300;
    let observed = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|seed| {
                let (retriever, begun, ended) = (&retriever, &begun, &ended);
                scope.spawn(move || {
                    let (mut random, mut seen) = (Xorshift::new(seed), Vec::new());
                    while ended.load(SeqCst) < changes {
                        let (n, before) = (random.below(4), ended.load(SeqCst));
                        let found = retriever.retrieve(&Query { k: 1, ..query(&n.to_string()) }).unwrap();
                        seen.push((n as u64, before, begun.load(SeqCst), found));
                    }
                    seen
                })
            })
            .collect();
        let mut random = Xorshift::new(9);
        let (mut stack, mut next, mut length) = (vec![0u64], 4, 1);
        while ended.load(SeqCst) < changes {
            begun.fetch_add(1, SeqCst);
            let version = if stack.len() > 1 && random.below(3) == 0 {
                let first = stack.pop().unwrap();
                collection.remove(&[first, first + 1, first + 2, first + 3]).unwrap()
            } else {
                length += 1;
                stack.push(next);
                next += 4;
                add(length)
            };
            history.lock().unwrap().push((version, *stack.last().unwrap()));
            ended.fetch_add(1, SeqCst);
            // Until somebody has asked the same twice: else nothing would come out of the cache.
            let hits = retriever.cache_stats().first_hits;
            while ended.load(SeqCst) < changes && retriever.cache_stats().first_hits < hits + 8 {
                std::thread::yield_now();
            }
        }
        readers.into_iter().flat_map(|r| r.join().unwrap()).collect::<Vec<_>>()
    });
    let history = history.into_inner().unwrap();
    let mut origins = [0, 0];
    for (n, before, after, found) in &observed {
        let existed = &history[before - 1..*after];
        let right = existed.iter().any(|(version, best)| *version == found.version && found.ids == [best + n]);
        assert!(right, "{found:?} is none of {existed:?}");
        origins[usize::from(found.origin == Origin::Cached)] += 1;
    }
    println!("{} answers over {changes} versions: {} computed, {} out of the cache", observed.len(), origins[0], origins[1]);
    assert!(origins.iter().all(|&n| n > changes / 2));
}
