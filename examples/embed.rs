//! Opens a model, runs it from several threads at once, and prints what was done.

use halfbyte::{Model, Options, Session, TensorView};

fn main() -> halfbyte::Result<()> {
    let model = Model::open("models/digits-cnn.onnx")?;
    let session = Session::new(&model, Options::default())?;
    let images: Vec<Vec<f32>> = (0..4).map(|i| (0..64).map(|p| ((p * (i + 3)) % 16) as f32).collect()).collect();
    std::thread::scope(|scope| {
        for image in &images {
            let session = &session;
            scope.spawn(move || match session.run(&[("x", TensorView::of([1, 1, 8, 8], image))]) {
                Ok(outputs) => println!("{:?}", outputs.values::<f32>("prob").map(|p| p.into_owned())),
                Err(e) => eprintln!("{e}"),
            });
        }
    });
    let report = session.report();
    println!("{} runs on {} with {} kernels each", report.runs, report.device_name, report.nodes.len());
    Ok(())
}
