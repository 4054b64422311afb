//! `cargo bench --bench gemm`: matrix products with packed weights through a session, beside the plain definition.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use halfbyte::graph::{Graph, Node, Port};
use halfbyte::{DType, Model, Options, Session, Tensor};

fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 17) as f32 / 8.0 - 1.0).collect()
}

/// A product with constant weights, and its left operand.
fn product(int8: bool, [m, n, k]: [usize; 3]) -> (Model, Tensor) {
    let bytes = |v: Vec<f32>| v.iter().map(|x| (x * 127.0) as i8).collect::<Vec<_>>();
    let tensor = |shape: [usize; 2]| {
        let v = values(shape[0] * shape[1]);
        if int8 { Tensor::new(shape, &bytes(v)) } else { Tensor::new(shape, &v) }.expect("invariant: as many values as the shape")
    };
    let (a, b) = (tensor([m, k]), tensor([k, n]));
    let mut graph = Graph::default();
    let (left, right, out) = (graph.add_value("a", None), graph.add_value("b", Some(b)), graph.add_value("c", None));
    let op = if int8 { "MatMulInteger" } else { "MatMul" };
    graph.nodes.push(Node::new("", op, 13, vec![Some(left), Some(right)], vec![Some(out)]));
    graph.inputs.push(Port { value: left, dtype: Some(if int8 { DType::I8 } else { DType::F32 }), dims: None });
    graph.outputs.push(Port { value: out, dtype: None, dims: None });
    (Model::from_graph(graph), a)
}

fn gemm(c: &mut Criterion) {
    for (int8, name) in [(false, "f32"), (true, "s8s8")] {
        let mut group = c.benchmark_group(name);
        for shape in [[1, 768, 768], [8, 768, 768], [32, 768, 768], [128, 768, 768], [8, 4096, 4096]] {
            let (model, a) = product(int8, shape);
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
