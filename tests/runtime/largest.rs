//! What `search::Index` runs, on GPUs: the largest results of products, kept while these run, in every storage.

use std::sync::Arc;

use halfbyte::base::xorshift::Xorshift;
use halfbyte::device::Device;
use halfbyte::graph::{Attr, Dim, Graph, Node, Port, ValueId};
use halfbyte::hardware::DeviceKind;
use halfbyte::{DType, Model, Options, Session, Tensor, TensorView};

const ROWS: usize = 1100;
const DIM: usize = 12;

/// Small integers: sums are exact on every device, and many are equal.
fn numbers(r: &mut Xorshift, count: usize) -> Vec<f32> {
    (0..count).map(|_| r.below(7) as f32 - 3.0).collect()
}

fn node(g: &mut Graph, op: (&str, &str), inputs: Vec<Option<ValueId>>, outputs: usize, attrs: &[(&str, Attr)]) -> Vec<ValueId> {
    let made: Vec<ValueId> = (0..outputs).map(|i| g.add_value(format!("{}{i}", op.1), None)).collect();
    let mut node = Node::new(op.0, op.1, 13, inputs, made.iter().copied().map(Some).collect());
    node.attrs = attrs.iter().map(|(n, a)| (n.to_string(), a.clone())).collect();
    g.nodes.push(node);
    made
}

/// As `search/part.rs` makes it: `TopK(queries x vectors + mask, k)`.
fn search(storage: DType) -> Model {
    let mut g = Graph::default();
    let mut r = Xorshift::new(3);
    let input = |g: &mut Graph, name: &str, dtype: DType, dims: Vec<Dim>| {
        let value = g.add_value(name, None);
        g.inputs.push(Port { value, dtype: Some(dtype), dims: Some(dims) });
        Some(value)
    };
    let queries = input(&mut g, "queries", DType::F32, vec![Dim::Any, Dim::Known(DIM)]);
    let k = input(&mut g, "k", DType::I64, vec![Dim::Known(1)]);
    let mask = input(&mut g, "mask", DType::F32, vec![Dim::Known(ROWS)]);
    let vectors = numbers(&mut r, ROWS * DIM);
    let stored = match storage {
        DType::F32 => Tensor::new([ROWS, DIM], &vectors),
        DType::I8 => Tensor::new([ROWS, DIM], &vectors.iter().map(|&v| v as i8).collect::<Vec<_>>()),
        _ => Tensor::new([ROWS, DIM], &vectors.iter().map(|&v| half::f16::from_f32(v)).collect::<Vec<_>>()),
    };
    let vectors = Some(g.add_value("vectors", Some(stored.unwrap())));
    let transposed = [("transB", Attr::Int(1))];
    let products = match storage {
        DType::I8 => {
            let scales = Some(g.add_value("scales", Some(Tensor::vector(&[0.25f32; ROWS]))));
            node(&mut g, ("halfbyte", "LinearInt8"), vec![queries, vectors, scales, mask], 1, &transposed)
        }
        DType::F16 => {
            let wide = node(&mut g, ("", "Cast"), vec![vectors], 1, &[("to", Attr::Int(1))])[0];
            node(&mut g, ("", "Gemm"), vec![queries, Some(wide), mask], 1, &transposed)
        }
        _ => node(&mut g, ("", "Gemm"), vec![queries, vectors, mask], 1, &transposed),
    };
    let found = node(&mut g, ("", "TopK"), vec![Some(products[0]), k], 2, &[]);
    g.outputs.extend(found.into_iter().map(|value| Port { value, dtype: None, dims: None }));
    Model::from_graph(g)
}

/// Numbers and columns of a session's answer.
fn answer(session: &Session, queries: &[f32], mask: &[f32], k: usize) -> Vec<Vec<f64>> {
    let (wanted, rows) = ([k as i64], queries.len() / DIM);
    let inputs = [
        ("queries", TensorView::of([rows, DIM], queries)),
        ("k", TensorView::of([1], &wanted)),
        ("mask", TensorView::of([ROWS], mask)),
    ];
    session.run(&inputs).unwrap().iter().map(|(_, t)| t.to_f64()).collect()
}

fn devices() -> Vec<Arc<dyn Device>> {
    let all = ["gtx-1060", "h200"].into_iter().map(|gpu| Arc::new(super::cuda::device(gpu, 5)) as Arc<dyn Device>);
    #[cfg(feature = "wgpu")]
    let all = all.chain(super::texts::open(|s| s.text).map(|(_, device)| Arc::new(device) as Arc<dyn Device>));
    all.collect()
}

#[test]
fn searches_on_gpus_keep_the_largest_products_and_store_no_others() {
    let mut r = Xorshift::new(4);
    let mask: Vec<f32> = (0..ROWS).map(|_| if r.below(4) == 0 { f32::NEG_INFINITY } else { 0.0 }).collect();
    for storage in [DType::F32, DType::F16, DType::I8] {
        let model = search(storage);
        let cpu = Session::new(&model, Options { device: Some(DeviceKind::Cpu), ..Options::default() }).unwrap();
        for device in devices() {
            let name = device.info().name.clone();
            let gpu = Session::with_device(&model, Options { strict: true, ..Options::default() }, device).unwrap();
            // More than 1024 are selected in rounds.
            let most = if storage == DType::F32 { 1050 } else { 100 };
            for (rows, k) in [(1, 10), (2, most)] {
                let queries = numbers(&mut r, rows * DIM);
                let [got, want] = [&gpu, &cpu].map(|session| answer(session, &queries, &mask, k));
                assert!(got == want, "{name} {storage} {rows} {k}: {got:?}, {want:?}");
            }
            let report = gpu.report();
            assert!(report.passes.contains(&("largest results of products".into(), 1)), "{:?}", report.passes);
            let ops: Vec<&str> = report.nodes.iter().map(|n| n.op.as_str()).collect();
            assert_eq!(ops, ["halfbyte:MatMulTopK"], "{name} {storage}");
        }
    }
}
