//! `cargo bench --bench gemm`: matrix products with packed weights through a session.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use halfbyte::cli::bench_gemm::product;
use halfbyte::{DType, Options, Session};

fn gemm(c: &mut Criterion) {
    for (types, name) in [((DType::F32, DType::F32), "f32"), ((DType::I8, DType::I8), "s8s8")] {
        let mut group = c.benchmark_group(name);
        for shape in [[1, 768, 768], [8, 768, 768], [32, 768, 768], [128, 768, 768], [8, 4096, 4096]] {
            let (model, a) = product(types, shape).expect("invariant: the shapes are small");
            let options = Options { threads: Some(1), ..Options::default() };
            let session = Session::new(&model, options).expect("invariant: products are supported");
            group.throughput(Throughput::Elements(2 * shape.iter().product::<usize>() as u64));
            group.bench_function(BenchmarkId::from_parameter(format!("{shape:?}")), |b| {
                b.iter(|| session.run(&[("a", a.view())]))
            });
        }
        group.finish();
    }
}

criterion_group!(benches, gemm);
criterion_main!(benches);
