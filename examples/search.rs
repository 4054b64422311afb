//! Exact nearest neighbours: adds vectors, searches, removes some, and keeps them in a quarter of the memory.

use halfbyte::TensorView;
use halfbyte::base::xorshift::Xorshift;
use halfbyte::search::{Index, IndexOptions, Metric, Storage};

fn main() -> halfbyte::Result<()> {
    let (rows, dim) = (20_000, 256);
    let vectors = Xorshift::new(1).reals(rows * dim, 1.0);
    // Queries that lie near vectors 10, 11, 12, 13.
    let noise = Xorshift::new(2).reals(4 * dim, 0.3);
    let queries: Vec<f32> = vectors[10 * dim..14 * dim].iter().zip(noise).map(|(v, noise)| v + noise).collect();
    let queries = TensorView::of([4, dim], &queries);

    for (storage, rescore) in [(Storage::F32, 0), (Storage::Int8, 0), (Storage::Int8, 2)] {
        let mut index = Index::new(dim, IndexOptions { metric: Metric::Cosine, storage, rescore, ..Default::default() })?;
        index.add(TensorView::of([rows, dim], &vectors))?;
        let found = index.search(queries.clone(), 3)?;
        println!("{storage:?}, {rescore} candidates a neighbour compared again, {} MB:", index.bytes() / 1_000_000);
        for (ids, scores) in found.ids.chunks(found.k).zip(found.scores.chunks(found.k)) {
            println!("  {ids:?} {scores:.4?}");
        }
        index.remove(&[10, 11])?;
        assert_ne!(index.search(queries.clone(), 1)?.ids[0], 10);
    }
    Ok(())
}
