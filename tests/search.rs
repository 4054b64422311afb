//! Exact search: the answers of plain arithmetic, in every storage and metric, whatever the parts and the batch.

use halfbyte::base::xorshift::Xorshift;
use halfbyte::hardware::DeviceKind;
use halfbyte::search::{Found, Index, IndexOptions, Metric, Storage};
use halfbyte::{Options, TensorView};

const DIM: usize = 37;

fn random(rows: usize, seed: u64) -> Vec<f32> {
    let mut random = Xorshift::new(seed);
    (0..rows * DIM).map(|_| random.below(2001) as f32 / 1000.0 - 1.0).collect()
}

fn options(metric: Metric, storage: Storage) -> IndexOptions {
    let session = Options { device: Some(DeviceKind::Cpu), threads: Some(2), ..Options::default() };
    IndexOptions { metric, storage, rescore: 0, session }
}

fn index(vectors: &[f32], options: IndexOptions, at_once: usize) -> Index {
    let mut index = Index::new(DIM, options).unwrap();
    for rows in vectors.chunks(at_once * DIM) {
        index.add(TensorView::of([rows.len() / DIM, DIM], rows)).unwrap();
    }
    index
}

fn search(index: &Index, queries: &[f32], k: usize) -> Found {
    index.search(TensorView::of([queries.len() / DIM, DIM], queries), k).unwrap()
}

/// Scores in f64, best first.
fn plain(metric: Metric, vectors: &[f32], query: &[f32]) -> Vec<(f64, u64)> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let score = |v: &[f32]| match metric {
        Metric::InnerProduct => dot(query, v),
        Metric::Cosine => dot(query, v) / (dot(query, query) * dot(v, v)).sqrt(),
        Metric::SquaredDistance => query.iter().zip(v).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum(),
    };
    let mut all: Vec<(f64, u64)> = vectors.chunks_exact(DIM).map(score).zip(0..).collect();
    let sign = if metric == Metric::SquaredDistance { -1.0 } else { 1.0 };
    all.sort_by(|a, b| (sign * b.0).total_cmp(&(sign * a.0)));
    all
}

#[test]
fn the_nearest_are_those_of_plain_arithmetic() {
    let (vectors, queries) = (random(1003, 1), random(9, 2));
    for metric in [Metric::InnerProduct, Metric::Cosine, Metric::SquaredDistance] {
        for (storage, tolerance) in [(Storage::F32, 1e-4), (Storage::F16, 2e-2), (Storage::Int8, 0.3)] {
            let found = search(&index(&vectors, options(metric, storage), 1003), &queries, 10);
            assert_eq!((found.k, found.ids.len(), found.scores.len()), (10, 90, 90));
            for (q, query) in queries.chunks_exact(DIM).enumerate() {
                let want = plain(metric, &vectors, query);
                for (rank, (&id, &score)) in found.ids[q * 10..][..10].iter().zip(&found.scores[q * 10..]).enumerate() {
                    // The one at this rank scores as well as the right one does, and as it says.
                    let own = want.iter().find(|w| w.1 == id).unwrap().0;
                    assert!((own - want[rank].0).abs() < tolerance, "{metric:?} {storage:?}: {own}, {:?}", want[rank]);
                    assert!((own - f64::from(score)).abs() < tolerance, "{metric:?} {storage:?}: {own} {score}");
                    assert!(storage != Storage::F32 || id == want[rank].1, "{metric:?}: {id}, {:?}", want[rank]);
                }
            }
        }
    }
}

#[test]
fn answers_depend_neither_on_the_batch_nor_on_how_vectors_were_added() {
    let (vectors, queries) = (random(700, 3), random(33, 4));
    for storage in [Storage::F32, Storage::F16, Storage::Int8] {
        let whole = index(&vectors, options(Metric::InnerProduct, storage), 700);
        let found = search(&whole, &queries, 7);
        for at_once in [1, 64, 300] {
            assert_eq!(
                search(&index(&vectors, options(Metric::InnerProduct, storage), at_once), &queries, 7),
                found,
                "{storage:?} {at_once}"
            );
        }
        if storage == Storage::Int8 {
            let alone: Vec<Found> = queries.chunks_exact(DIM).map(|q| search(&whole, q, 7)).collect();
            assert_eq!(alone.iter().flat_map(|f| f.ids.clone()).collect::<Vec<_>>(), found.ids);
            assert_eq!(alone.iter().flat_map(|f| f.scores.clone()).collect::<Vec<_>>(), found.scores);
        }
    }
}

#[test]
fn candidates_that_are_compared_again_are_nearly_those_of_floats() {
    let (vectors, queries) = (random(2000, 9), random(50, 10));
    let mut gained = 0;
    for metric in [Metric::InnerProduct, Metric::Cosine, Metric::SquaredDistance] {
        let exact = search(&index(&vectors, options(metric, Storage::F32), 2000), &queries, 10);
        let common = |rescore| {
            let options = IndexOptions { rescore, ..options(metric, Storage::Int8) };
            let found = search(&index(&vectors, options, 700), &queries, 10);
            let lists = exact.ids.chunks(10).zip(found.ids.chunks(10));
            lists.map(|(a, b)| a.iter().filter(|id| b.contains(id)).count()).sum::<usize>()
        };
        let (once, again) = (common(0), common(3));
        assert!(again >= 499, "{metric:?}: {once}, {again} of 500");
        gained += again - once;
    }
    assert!(gained > 0);
}

#[test]
fn equal_vectors_come_in_the_order_in_which_they_were_added() {
    let one = random(1, 5);
    let vectors: Vec<f32> = (0..600).flat_map(|_| one.clone()).collect();
    for at_once in [1, 600] {
        let found = search(&index(&vectors, options(Metric::InnerProduct, Storage::F32), at_once), &one, 20);
        assert_eq!(found.ids, (0..20).collect::<Vec<u64>>());
    }
}

#[test]
fn more_than_there_are_and_nothing_at_all() {
    let vectors = random(5, 6);
    let five = index(&vectors, options(Metric::InnerProduct, Storage::F32), 5);
    let found = search(&five, &vectors[..DIM], 100);
    let mut ids = found.ids.clone();
    ids.sort_unstable();
    assert_eq!((found.k, ids), (5, (0..5).collect::<Vec<u64>>()));
    assert!(search(&five, &vectors[..DIM], 0).ids.is_empty());
    assert!(search(&five, &[], 3).ids.is_empty());
    assert_eq!(search(&Index::new(DIM, IndexOptions::default()).unwrap(), &vectors, 3).k, 0);
}

#[test]
fn bad_vectors_are_refused_and_say_why() {
    let mut some = index(&random(4, 7), options(Metric::Cosine, Storage::F16), 4);
    let error = |r: halfbyte::Result<()>| r.unwrap_err().to_string();
    assert!(error(some.add(TensorView::of([2, 3], &[0f32; 6]))).contains("not f32 [n, 37]"));
    assert!(error(some.add(TensorView::of([1, DIM], &[0f64; DIM]))).contains("f64"));
    let mut bad = random(2, 8);
    bad[DIM + 1] = f32::NAN;
    assert!(error(some.add(TensorView::of([2, DIM], &bad))).contains("NaN among the vectors, in row 1"));
    assert_eq!(some.len(), 4);
    let mut wide = index(&random(4, 7), options(Metric::InnerProduct, Storage::F16), 4);
    assert!(error(wide.add(TensorView::of([1, DIM], &[1e6f32; DIM]))).contains("store the vectors as f32"));
    assert!(Index::new(0, IndexOptions::default()).is_err());
}

#[test]
fn removed_vectors_are_found_no_more_and_the_others_keep_their_numbers() {
    for (metric, storage, rescore) in
        [(Metric::InnerProduct, Storage::F32, 0), (Metric::SquaredDistance, Storage::F16, 0), (Metric::Cosine, Storage::Int8, 3)]
    {
        let mut random_number = Xorshift::new(11);
        let (vectors, queries) = (random(900, 12), random(5, 13));
        let options = || IndexOptions { rescore, ..options(metric, storage) };
        let mut changed = index(&vectors, options(), 300);
        let mut left: Vec<u64> = (0..900).collect();
        for round in 0..40 {
            let gone: Vec<u64> = (0..21).map(|_| left[random_number.below(left.len())]).collect();
            let before = changed.clone();
            let was = search(&before, &queries, 9);
            let distinct = gone.iter().collect::<std::collections::HashSet<_>>().len();
            assert_eq!(changed.remove(&gone).unwrap(), distinct);
            assert_eq!(changed.remove(&gone).unwrap(), 0, "they are gone");
            left.retain(|id| !gone.contains(id));
            assert_eq!((changed.len(), search(&before, &queries, 9)), (left.len(), was), "a clone keeps what it had");
            // The same as if only what is left had ever been added.
            let rows: Vec<f32> = left.iter().flat_map(|&id| vectors[id as usize * DIM..][..DIM].to_vec()).collect();
            let (found, fresh) = (search(&changed, &queries, 9), search(&index(&rows, options(), left.len()), &queries, 9));
            let named: Vec<u64> = fresh.ids.iter().map(|&id| left[id as usize]).collect();
            assert_eq!((found.ids, found.scores), (named, fresh.scores), "{metric:?} {storage:?} {round}");
            if left.len() < 100 {
                break;
            }
        }
        let last = *left.last().unwrap();
        changed.add(TensorView::of([1, DIM], &vectors[..DIM])).unwrap();
        let mut all = search(&changed, &queries[..DIM], 1000).ids;
        all.sort_unstable();
        left.push(900);
        assert_eq!((all, last < 900), (left, true), "a number is not given again");
        let everything: Vec<u64> = (0..901).collect();
        changed.remove(&everything).unwrap();
        assert!(changed.is_empty() && search(&changed, &queries, 3).ids.is_empty());
    }
}
