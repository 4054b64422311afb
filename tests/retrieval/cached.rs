//! What is computed once, and what is not kept.

use std::sync::{Barrier, Mutex};

use halfbyte::serve::schedule::{Policy, Rejection};
use halfbyte::{Error, Tensor};

use super::redis::{Server, eventually};
use super::*;

const TEXTS: [&str; 3] = ["how do i reset my password", "delivery to islands", "opening hours on sundays"];

#[test]
fn spellings_of_one_text_are_one_query() {
    let asked = Arc::new(AtomicUsize::new(0));
    let retriever = Retriever::new(counted(&asked), engine(), of_texts(&TEXTS), RetrieverOptions::default()).unwrap();
    let first = retriever.retrieve(&query("Opening hours on Sundays")).unwrap();
    assert_eq!((first.ids[0], first.ids.len(), &first.origin), (2, 2, &Origin::Computed));
    assert_eq!(first.version, retriever.collection().version());
    for text in ["opening hours on sundays", "  OPENING\thours on Sundays ", "ｏｐｅｎｉｎｇ hours on\u{a0}sundays"] {
        let again = retriever.retrieve(&query(text)).unwrap();
        assert_eq!((again.ids, again.scores, again.origin), (first.ids.clone(), first.scores.clone(), Origin::Cached));
    }
    assert_eq!(asked.load(SeqCst), 1);
    // Another k is another search of the same embedding; another partition learns nothing.
    let more = retriever.retrieve(&Query { k: 3, ..query(TEXTS[2]) }).unwrap();
    assert_eq!((more.ids.len(), more.origin, asked.load(SeqCst)), (3, Origin::Computed, 1));
    let other = retriever.retrieve(&Query { partition: "other", ..query(TEXTS[2]) }).unwrap();
    assert_eq!((other.ids, other.origin, asked.load(SeqCst)), (first.ids, Origin::Computed, 2));
}

#[test]
fn what_waits_is_searched_in_one_batch_and_equal_queries_once() {
    let patient = Duration::from_secs(600);
    let batching = Batching { policy: Policy::Fixed { size: 8 }, target_p99: patient, max_wait: patient, ..Batching::default() };
    let engine = Arc::new(Engine::with_models(vec![], batching).unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let retriever = Retriever::new(counted(&asked), engine.clone(), of_texts(&TEXTS), RetrieverOptions::default()).unwrap();
    let barrier = Barrier::new(24);
    std::thread::scope(|scope| {
        for caller in 0..24 {
            let (retriever, barrier) = (&retriever, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let found = retriever.retrieve(&query(&format!("opening hours on sundays {}", caller % 8))).unwrap();
                assert_eq!(found.ids[0], 2);
            });
        }
    });
    let search = &engine.statistics().models[0];
    assert_eq!((search.answered, search.batch_sizes.clone(), asked.load(SeqCst)), (8, [(8, 1)].into(), 8));
}

/// An error of one's own time says nothing about others; an error of the embedding does, and is not kept; nor is a wrong vector.
#[test]
fn errors_are_not_kept() {
    let answers: Mutex<Vec<Result<Vec<f32>>>> = Mutex::default();
    let answers = Arc::new(answers);
    let given = answers.clone();
    let embed = move |text: &str, _: &Submit| given.lock().unwrap().pop().unwrap_or_else(|| Ok(hashed(text)));
    let retriever = Retriever::new(embed, engine(), of_texts(&TEXTS), RetrieverOptions::default()).unwrap();
    let late = Rejection::TooLate { needed: Duration::from_secs(2), left: Duration::from_secs(1) };
    for (answer, words) in [
        (Err(Error::BadInput("no words".into())), "no words"),
        (Err(late.into()), "due in 1s"),
        (Ok(vec![1.0; 3]), "has 3 numbers, not 32"),
        (Ok(vec![f32::NAN; DIM]), "finite"),
    ] {
        answers.lock().unwrap().push(answer);
        let error = retriever.retrieve(&query(TEXTS[0])).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(retriever.retrieve(&query(TEXTS[0])).unwrap().ids[0], 0);
    assert_eq!(retriever.cache_stats().under_way, 0);
    let gone = retriever.retrieve(&Query { deadline: Some(Duration::ZERO), ..query("another") }).unwrap_err();
    assert!(matches!(gone, Error::Rejected(Rejection::TooLate { .. })), "{gone}");
}

/// Processes whose collections went through the same changes share answers; others do not.
#[test]
fn processes_share_answers_of_equal_collections() {
    let Some(server) = Server::start() else { return };
    let asked = Arc::new(AtomicUsize::new(0));
    let process = |texts: &[&str], embedding: &str| {
        let options = RetrieverOptions { embedding: embedding.into(), cache: server.options(), ..RetrieverOptions::default() };
        let retriever = Retriever::new(counted(&asked), engine(), of_texts(texts), options).unwrap();
        eventually("the cache is connected", || retriever.cache_stats().second.unwrap().reachable);
        retriever
    };
    let first = process(&TEXTS, "pairs 1");
    let computed = first.retrieve(&query(TEXTS[1])).unwrap();
    eventually("it is stored", || first.cache_stats().second.unwrap().stored >= 2);
    let second = process(&TEXTS, "pairs 1");
    let shared = second.retrieve(&query("DELIVERY to islands")).unwrap();
    assert_eq!((&shared.ids, shared.origin, asked.load(SeqCst)), (&computed.ids, Origin::Cached, 1));
    let other = process(&[TEXTS[1], TEXTS[0]], "pairs 1").retrieve(&query(TEXTS[1])).unwrap();
    assert_eq!((other.ids[0], other.origin, asked.load(SeqCst)), (0, Origin::Computed, 1), "the embedding is shared alone");
    let other = process(&TEXTS, "pairs 2").retrieve(&query(TEXTS[1])).unwrap();
    assert_eq!((other.origin, asked.load(SeqCst)), (Origin::Computed, 2));
}

#[test]
fn a_collection_is_a_model_of_any_engine() {
    let (engine, collection) = (engine(), of_texts(&TEXTS));
    let id = engine.add(halfbyte::serve::engine::Serving::new("search", collection.clone())).unwrap();
    let queries = Tensor::new([2, DIM], &[hashed(TEXTS[2]), hashed(TEXTS[0])].concat()).unwrap();
    let inputs = [("queries", queries), ("k", Tensor::vector(&[1i64]))];
    let reply = engine.submit_with(&inputs, &Submit { model: id, ..Submit::default() }).unwrap().wait().unwrap();
    assert_eq!(*reply.outputs.values::<u64>("ids").unwrap(), [2, 0]);
    assert_eq!(*reply.outputs.values::<u8>("version").unwrap(), collection.version().0.repeat(2));
    // A change that fails changes nothing.
    let before = collection.version();
    assert!(collection.add(TensorView::of([1, 2], &[0f32; 2])).is_err());
    assert_eq!((collection.version(), collection.index().len()), (before, 3));
}
