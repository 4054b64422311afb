//! Retrieval for questions: a model embeds them, an index finds what is near, and questions that were asked before, in other spellings or
//! nearly in the same words, are answered out of caches. `cargo run --features serve --example semantic_cache`

use std::sync::Arc;

use halfbyte::base::xorshift::Xorshift;
use halfbyte::graph::{Dim, Graph, Node, Port};
use halfbyte::retrieval::{Collection, Prefetcher, Query, Retriever, RetrieverOptions, SemanticOptions};
use halfbyte::search::{IndexOptions, Metric};
use halfbyte::serve::engine::Submit;
use halfbyte::{Batching, DType, Engine, Model, Options, Result, Session, Tensor, TensorView};

const DOCUMENTS: [&str; 4] = [
    "To reset your password, open the settings and choose Reset password.",
    "We are open on Sundays from 10 to 16 h.",
    "Parcels to the islands take three days longer.",
    "Where are my invoices? Open Orders and choose Invoices.",
];
const TRIGRAMS: usize = 1024;
const DIM: usize = 128;

/// What stands in for a tokenizer (the crate `tokenizers` makes a model's own): a text's trigrams, counted.
fn tokenize(text: &str) -> Result<Tensor> {
    let mut counts = vec![0f32; TRIGRAMS];
    let hash = |trigram: &[u8]| trigram.iter().fold(0usize, |hash, &byte| hash * 263 + usize::from(byte)) % TRIGRAMS;
    text.to_lowercase().as_bytes().windows(3).for_each(|trigram| counts[hash(trigram)] += 1.0);
    Tensor::new([1, TRIGRAMS], &counts)
}

/// What stands in for a model of sentences (`Model::open("minilm.onnx")`): random projections, which keep cosines.
fn model() -> Result<Model> {
    let mut graph = Graph::default();
    let [counts, vector] = ["counts", "vector"].map(|name| graph.add_value(name, None));
    let projection =
        graph.add_value("projection", Some(Tensor::new([TRIGRAMS, DIM], &Xorshift::new(1).reals(TRIGRAMS * DIM, 1.0))?));
    graph.nodes.push(Node::new("", "MatMul", 13, vec![Some(counts), Some(projection)], vec![Some(vector)]));
    let port =
        |value, width| Port { value, dtype: Some(DType::F32), dims: Some(vec![Dim::Named("batch".into()), Dim::Known(width)]) };
    (graph.inputs, graph.outputs) = (vec![port(counts, TRIGRAMS)], vec![port(vector, DIM)]);
    Ok(Model::from_graph(graph))
}

fn main() -> Result<()> {
    let engine = Arc::new(Engine::new(Session::new(&model()?, Options::default())?, Batching::default())?);
    let own = engine.clone();
    let embed = move |text: &str, submit: &Submit| {
        let reply = own.submit_with(&[("counts", tokenize(text)?)], submit)?.wait()?;
        Ok(reply.outputs.values("vector")?.into_owned())
    };
    let collection = Arc::new(Collection::new(DIM, IndexOptions { metric: Metric::Cosine, ..Default::default() })?);
    for document in DOCUMENTS {
        collection.add(TensorView::of([1, DIM], &embed(document, &Submit::default())?))?;
    }
    let semantic = Some(SemanticOptions { threshold: 0.8, ..Default::default() });
    let options = RetrieverOptions { embedding: "trigrams 1".into(), semantic, ..Default::default() };
    let retriever = Arc::new(Retriever::new(embed, engine, collection, options)?);

    let prefetcher = Prefetcher::start(retriever.clone())?;
    let warm = prefetcher.fetch(["Where do I find my invoices?"], &Query { k: 1, ..Default::default() })?;
    while warm.progress().done() < 1 {
        std::thread::yield_now();
    }
    for text in [
        "How do I reset my password?",
        "  how do I RESET my password?",
        "How can I reset my password?",
        "When are you open on Sundays?",
        "where do I find my invoices?",
    ] {
        let found = retriever.retrieve(&Query { text, k: 1, ..Default::default() })?;
        println!("{text:32} {:?}\n    {:.2} {}", found.origin, found.scores[0], DOCUMENTS[found.ids[0] as usize]);
    }
    Ok(())
}
