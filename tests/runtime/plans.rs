//! Plans of whole models for GPUs that are not there: kernels are chosen, and every launch is made and checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use halfbyte::cli::npz;
use halfbyte::device::null::NullDevice;
use halfbyte::export::onnx;
use halfbyte::hardware::nvidia;
use halfbyte::{DType, Model, Options, Precision, Session, Tensor, TensorView};

use crate::draft::Draft;

const GPUS: [&str; 4] = ["h200", "a100", "t4", "gtx-1060"];
const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::F16, Precision::Int8];

/// Plans the model for every GPU in every precision, prints what it would take, and gives the operators left to the CPU.
fn plan(name: &str, model: &Path, inputs: &Path) -> BTreeMap<String, String> {
    let opened = Model::open(model).unwrap();
    let inputs = npz::read(inputs).unwrap();
    let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    let mut left = BTreeMap::new();
    for gpu in GPUS {
        let mut line = format!("{name:22} {gpu:9}");
        for precision in PRECISIONS {
            let began = Instant::now();
            let device = NullDevice::new(nvidia::model(gpu).unwrap()).unwrap();
            let session = Session::with_device(&opened, Options { precision, ..Options::default() }, Arc::new(device)).unwrap();
            session.run(&named).unwrap_or_else(|e| panic!("{name} on {gpu} in {precision:?}: {e}"));
            let report = session.report();
            let predicted: f64 = report.nodes.iter().map(|n| n.predicted_us).sum();
            let on_cpu = report.nodes.iter().filter(|n| n.fallback.is_some());
            for node in on_cpu {
                let why = node.fallback.clone().unwrap_or_default();
                left.insert(node.op.clone(), format!("{gpu} {precision:?}: {} {why}", node.output));
            }
            line += &format!(
                " | {precision:?}: {} commands, {} CPU segments, {predicted:.0} us ({} ms)",
                report.nodes.len(),
                report.cpu_segments,
                began.elapsed().as_millis()
            );
        }
        println!("{line}");
    }
    left
}

/// Every command has a kernel there. Shape arithmetic and what follows from constants is done while planning, and is no command.
fn nothing_left(left: BTreeMap<String, String>) {
    let left: Vec<String> = left.iter().map(|(op, why)| format!("{op}: {why}")).collect();
    assert!(left.is_empty(), "left to the CPU:\n{}", left.join("\n"));
}

#[test]
fn models_kept_here() {
    let mut left = BTreeMap::new();
    for name in ["digits-mlp", "digits-cnn", "digits-cnn-qdq", "digits-cnn-qop", "ppocr-cls", "basic-pitch"] {
        left.extend(plan(name, format!("models/{name}.onnx").as_ref(), format!("models/{name}.in.npz").as_ref()));
    }
    nothing_left(left);
}

#[test]
fn models_of_the_zoo() {
    let made = std::env::var("HALFBYTE_SUITES").map(|folder| PathBuf::from(folder).join("zoo"));
    let zoo = made.unwrap_or_else(|_| "../shared/zoo".into());
    let Ok(entries) = std::fs::read_dir(&zoo) else {
        println!("SKIP plans of the model zoo: {} is absent", zoo.display());
        return;
    };
    let mut folders: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    folders.sort();
    let mut left = BTreeMap::new();
    for folder in folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let model = folder.join("model.onnx");
        match model.exists() {
            true => left.extend(plan(&name, &model, &folder.join("case0.in.npz"))),
            false => println!("SKIP {name}: its model file is made by the suites' set-up"),
        }
    }
    nothing_left(left);
}

/// What the GPU has a copy of is let go of in the file; nothing is read there.
#[test]
fn constants_on_the_gpu_leave_the_hosts_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let mut d = Draft::default();
    let ids = d.input("ids", DType::I64);
    let [table, w] = [[1000, 64], [64, 4096]].map(|shape| d.constant(Tensor::zeros(DType::F32, shape).unwrap()));
    let rows = d.node("Gather", &[table, ids], &[]);
    let y = d.node("MatMul", &[rows, w], &[]);
    onnx::write(d.model(&[y]).graph(), &[], &path).unwrap();
    let device = Arc::new(NullDevice::new(nvidia::model("h200").unwrap()).unwrap());
    let session = Session::with_device(&Model::open(&path).unwrap(), Options::default(), device).unwrap();
    session.run(&[("ids", TensorView::of([2], &[1i64, 2]))]).unwrap();
    let report = session.report();
    assert!(report.nodes.iter().all(|n| n.fallback.is_none()) && report.mapped_bytes == 0);
    assert!(report.weight_bytes < 64 * 4096 * 4 + 4096, "{}: the table is no copy on the host", report.weight_bytes);
}
