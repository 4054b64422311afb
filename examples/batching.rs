//! Embeds a model that many threads share in batches.

use std::time::Duration;

use halfbyte::{Batching, Engine, Model, Options, Session, Tensor};

fn main() -> halfbyte::Result<()> {
    let session = Session::new(&Model::open("models/digits-cnn.onnx")?, Options::default())?;
    let engine = Engine::new(session, Batching { target_p99: Duration::from_millis(200), ..Batching::default() })?;
    std::thread::scope(|scope| {
        for caller in 0..4 {
            let engine = &engine;
            scope.spawn(move || -> halfbyte::Result<()> {
                for image in 0..100 {
                    let pixels: Vec<f32> = (0..64).map(|p| ((p * (image + caller)) % 16) as f32).collect();
                    let reply = engine.submit(&[("x", Tensor::new([1, 1, 8, 8], &pixels)?)])?.wait()?;
                    assert_eq!(reply.outputs.values::<f32>("prob")?.len(), 10);
                }
                Ok(())
            });
        }
    });
    let model = &engine.statistics().models[0];
    println!(
        "{} answers in batches of {:?}; {:.0} us at the median",
        model.answered, model.batch_sizes, model.stages.total.p50_us
    );
    Ok(())
}
