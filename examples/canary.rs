//! A new version of a model on trial beside the old one: it gets a tenth of the requests, fails, and is rolled back.

use std::time::Instant;

use halfbyte::graph::{Dim, Graph, Node, Port};
use halfbyte::serve::engine::{Serving, Submit};
use halfbyte::serve::registry::{Footprint, ModelSettings, Outcome, Registry, Rules, Settings, Trial};
use halfbyte::{Batching, DType, Engine, Model, Options, Session, Tensor};

/// `y = OP(x)`, of `[n, 4]`; a model of yours is `Model::open("model.onnx")`.
fn tiny(op: &str) -> Model {
    let mut graph = Graph::default();
    let [x, y] = ["x", "y"].map(|name| graph.add_value(name, None));
    let port = |value| Port { value, dtype: Some(DType::F32), dims: Some(vec![Dim::Named("n".into()), Dim::Known(4)]) };
    (graph.inputs, graph.outputs) = (vec![port(x)], vec![port(y)]);
    graph.nodes.push(Node::new("", op, 17, vec![Some(x)], vec![Some(y)]));
    Model::from_graph(graph)
}

fn main() -> halfbyte::Result<()> {
    let engine = Engine::with_models(Vec::new(), Batching::default())?;
    let trial = Trial { version: 2, rules: Rules { steps: vec![0.1, 0.5], ..Rules::default() } };
    let model = ModelSettings { canary: Some(trial), ..ModelSettings::default() };
    let registry = Registry::new(Settings { models: [("tiny".to_string(), model)].into(), ..Settings::default() })?;
    // Version 1 takes roots, version 2 logarithms: of the 0 that comes with every request there is none.
    for (version, op) in [(1, "Sqrt"), (2, "Log")] {
        let session = Session::new(&tiny(op), Options { check_finite: true, ..Options::default() })?;
        let memory = Footprint::of(&session);
        registry.put("tiny", version, engine.add(Serving::new(format!("tiny:{version}"), session))?, memory)?;
    }
    for request in 0..1000 {
        let chosen = registry.choose("tiny", "", None)?;
        let input = Tensor::new([1, 4], &[0f32, 1.0, 2.0, 3.0])?;
        let began = Instant::now();
        let reply = engine.submit_with(&[("x", input)], &Submit { model: *chosen.value, ..Submit::default() })?.wait();
        if registry.record(&chosen, Outcome { failed: reply.is_err(), latency: began.elapsed() }) {
            let ended = registry.settings().models["tiny"].last_canary.clone();
            println!("after {} requests: {ended:?}", request + 1);
        }
    }
    for version in registry.status(|_| None) {
        let (share, of) = (version.share * 100.0, version.requests);
        println!("version {}: {share:.0} % of the traffic; {} of {of} requests failed", version.version, version.errors);
    }
    Ok(())
}
