//! The cache of similar queries by itself.

use std::time::Duration;

use halfbyte::base::xorshift::Xorshift;
use halfbyte::retrieval::{SemanticCache, SemanticOptions};

fn cache(options: SemanticOptions) -> SemanticCache<u32> {
    SemanticCache::new(3, options).unwrap()
}

#[test]
fn the_nearest_is_given_if_it_is_near_enough_and_says_what_it_is() {
    let cache = cache(SemanticOptions { threshold: 0.9, ..Default::default() });
    cache.keep("a", &[1.0, 0.0, 0.0], "x", 1).unwrap();
    cache.keep("a", &[10.0, 4.0, 0.0], "xy", 2).unwrap();
    let found = cache.find("a", &[2.0, 1.0, 0.0]).unwrap().unwrap();
    assert_eq!((found.answer, &*found.query), (2, "xy"));
    let cosine = (2.0 * 10.0 + 4.0) / (5f32 * 116.0).sqrt();
    assert!((found.cosine - cosine).abs() < 1e-6);
    assert_eq!(cache.find("a", &[0.0, 1.0, 0.0]).unwrap(), None, "not near enough");
    assert_eq!(cache.find("a", &[0.0; 3]).unwrap(), None, "zeros have no direction");
    assert_eq!(cache.find("b", &[1.0, 0.0, 0.0]).unwrap(), None, "another's");
    assert_eq!(cache.hits_and_misses(), (1, 3));
}

#[test]
fn the_oldest_go_and_so_do_those_whose_time_is_over() {
    let wide = |n: u32| [(n as f32).cos(), (n as f32).sin(), 0.0];
    let small = cache(SemanticOptions { threshold: 0.999_999, capacity: 3, ..Default::default() });
    (0..5).for_each(|n| small.keep("a", &wide(n), &n.to_string(), n).unwrap());
    let found: Vec<Option<u32>> = (0..5).map(|n| small.find("a", &wide(n)).unwrap().map(|s| s.answer)).collect();
    assert_eq!(found, [None, None, Some(2), Some(3), Some(4)]);
    let brief = cache(SemanticOptions { ttl: Duration::from_millis(30), ..Default::default() });
    brief.keep("a", &wide(1), "1", 1).unwrap();
    std::thread::sleep(Duration::from_millis(40));
    assert_eq!(brief.find("a", &wide(1)).unwrap(), None);
}

#[test]
fn all_are_compared() {
    let (mut random, dim) = (Xorshift::new(5), 19);
    let cache = SemanticCache::new(dim, SemanticOptions { threshold: 1e-6, ..Default::default() }).unwrap();
    let all: Vec<Vec<f32>> = (0..300).map(|_| random.reals(dim, 3.0)).collect();
    all.iter().enumerate().for_each(|(n, v)| cache.keep("a", v, "", n).unwrap());
    for query in (0..50).map(|_| random.reals(dim, 1.0)) {
        let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let cosine = |v: &[f32]| product(v, &query) / (product(v, v) * product(&query, &query)).sqrt();
        let best = all.iter().map(|v| cosine(v)).fold(f64::MIN, f64::max);
        let found = cache.find("a", &query).unwrap().unwrap();
        assert!((cosine(&all[found.answer]) - best).abs() < 1e-6 && (f64::from(found.cosine) - best).abs() < 1e-6);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for threshold in [0.0, -0.5, 1.01, f32::NAN] {
        assert!(SemanticCache::<()>::new(3, SemanticOptions { threshold, ..Default::default() }).is_err());
    }
    let cache = cache(SemanticOptions::default());
    let error = cache.find("a", &[1.0; 4]).unwrap_err().to_string();
    assert!(error.contains("4 numbers, not of 3"), "{error}");
    assert!(cache.keep("a", &[1.0, f32::NAN, 0.0], "", 1).is_err());
}
