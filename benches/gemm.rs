//! `cargo bench --bench gemm`: matrix products with packed weights through a session, on one thread.

mod measure;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use halfbyte::cli::bench_gemm::product;
use halfbyte::hardware::DeviceKind;
use halfbyte::{DType, Options, Session};

fn gemm(c: &mut Criterion) {
    let peaks = measure::peaks(1);
    for (types, name) in [
        ((DType::F32, DType::F32), "f32"),
        ((DType::F16, DType::F16), "f16"),
        ((DType::U8, DType::I8), "u8s8"),
        ((DType::I8, DType::I8), "s8s8"),
    ] {
        let mut group = c.benchmark_group(name);
        for [m, n, k] in [[1, 768, 768], [8, 768, 768], [32, 768, 768], [128, 768, 768], [8, 4096, 4096]] {
            let (model, a) = product(types, [m, n, k], false).expect("invariant: the shapes are small");
            let options = Options { device: Some(DeviceKind::Cpu), threads: Some(1), ..Options::default() };
            let session = Session::new(&model, options).expect("invariant: products are supported");
            group.throughput(Throughput::Elements(2 * (m * n * k) as u64));
            measure::runs(&mut group, &format!("{m}x{n}x{k}"), &session, &[("a", a.view())], &peaks);
        }
        group.finish();
    }
}

criterion_group! { name = benches; config = measure::brief(); targets = gemm }
criterion_main!(benches);
