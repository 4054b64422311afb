//! Answers of similar queries.

use halfbyte::retrieval::SemanticOptions;

use super::*;

const TEXTS: [&str; 2] = ["how do i reset my password", "opening hours on sundays"];

#[test]
fn a_query_that_is_nearly_an_earlier_one_gets_its_answer_and_is_told() {
    let asked = Arc::new(AtomicUsize::new(0));
    let semantic = Some(SemanticOptions { threshold: 0.9, ..SemanticOptions::default() });
    let options = RetrieverOptions { semantic, ..RetrieverOptions::default() };
    let collection = of_texts(&TEXTS);
    let retriever = Retriever::new(counted(&asked), engine(), collection.clone(), options).unwrap();
    let first = retriever.retrieve(&query("How do I reset my password?")).unwrap();
    assert_eq!(first.origin, Origin::Computed);
    let near = retriever.retrieve(&query("how do i reset my passwords")).unwrap();
    let Origin::Similar { query: earlier, cosine } = &near.origin else { panic!("{near:?}") };
    let (a, b) = (hashed("how do i reset my password?"), hashed("how do i reset my passwords"));
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    assert!((cosine - product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt()).abs() < 1e-5);
    assert_eq!((&**earlier, &near.ids), ("how do i reset my password?", &first.ids));
    // It is not kept as the query's own: asked again it is still told to be another's.
    assert_eq!(retriever.retrieve(&query("how do i reset my passwords")).unwrap().origin, near.origin);
    assert_eq!(asked.load(SeqCst), 2, "embeddings are the query's own");
    assert_eq!(retriever.similar_and_not(), (2, 1));
    // Nothing is shared with another partition, another k, another meaning, or another version of the collection.
    let computed = |query: &Query| assert_eq!(retriever.retrieve(query).unwrap().origin, Origin::Computed);
    computed(&Query { partition: "other", ..query("how do i reset my passwords") });
    computed(&Query { k: 1, ..query("how do i reset my passwords") });
    computed(&query("opening hours on sunday"));
    collection.remove(&[0]).unwrap();
    let after = retriever.retrieve(&query("how do i reset my passwords")).unwrap();
    assert_eq!((after.ids, after.origin), (vec![1], Origin::Computed));
}

#[test]
fn it_is_off_unless_asked_for() {
    let asked = Arc::new(AtomicUsize::new(0));
    let retriever = Retriever::new(counted(&asked), engine(), of_texts(&TEXTS), RetrieverOptions::default()).unwrap();
    for text in ["how do i reset my password", "how do i reset my passwords"] {
        assert_eq!(retriever.retrieve(&query(text)).unwrap().origin, Origin::Computed);
    }
    assert_eq!(retriever.similar_and_not(), (0, 0));
}
