//! Queries fetched before they are asked.

use std::sync::{Condvar, Mutex};

use halfbyte::retrieval::{Prefetcher, Prefetching, Progress};

use super::redis::eventually;
use super::*;

const TEXTS: [&str; 2] = ["how do i reset my password", "opening hours on sundays"];

/// Ended, with these counts.
fn ended(list: &Prefetching, computed: usize, known: usize, failed: usize) {
    let whole = Progress { queries: computed + known + failed, computed, known, failed };
    eventually("the list is done", || list.progress().done() == whole.queries);
    assert_eq!(list.progress(), whole);
}

#[test]
fn what_was_fetched_is_there_when_it_is_asked() {
    let asked = Arc::new(AtomicUsize::new(0));
    let retriever = Retriever::new(counted(&asked), engine(), of_texts(&TEXTS), RetrieverOptions::default()).unwrap();
    let retriever = Arc::new(retriever);
    retriever.retrieve(&query("known")).unwrap();
    let prefetcher = Prefetcher::start(retriever.clone()).unwrap();
    ended(&prefetcher.fetch(["One", "two", "KNOWN", " one"], &query("")).unwrap(), 2, 2, 0);
    for text in ["one", "Two", "known"] {
        assert_eq!(retriever.retrieve(&query(text)).unwrap().origin, Origin::Cached);
    }
    assert_eq!(asked.load(SeqCst), 3);
    // For this k and partition alone; and a change of the collection leaves the embedding.
    assert_eq!(retriever.retrieve(&Query { k: 1, ..query("one") }).unwrap().origin, Origin::Computed);
    retriever.collection().remove(&[0]).unwrap();
    assert_eq!(retriever.retrieve(&query("one")).unwrap().ids, [1]);
    assert_eq!(asked.load(SeqCst), 3);
}

/// Lets one text through at a time, and notes the classes.
#[derive(Default)]
struct Gate {
    seen: Mutex<(Vec<(String, u8)>, usize)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self, text: &str, submit: &Submit) {
        let mut seen = self.seen.lock().unwrap();
        seen.0.push((text.into(), submit.priority));
        let own = seen.0.len();
        while seen.1 < own {
            seen = self.changed.wait(seen).unwrap();
        }
    }

    fn open(&self, more: usize) {
        self.seen.lock().unwrap().1 += more;
        self.changed.notify_all();
    }

    fn seen(&self) -> Vec<(String, u8)> {
        self.seen.lock().unwrap().0.clone()
    }
}

#[test]
fn one_at_a_time_in_the_lowest_class_the_last_list_first_and_no_query_waits_for_one() {
    let gate = Arc::new(Gate::default());
    let own = gate.clone();
    let embed = move |text: &str, submit: &Submit| {
        if submit.priority == u8::MAX {
            own.pass(text, submit);
        }
        assert_ne!(text, "bad", "as planned");
        Ok(hashed(text))
    };
    let retriever = Arc::new(Retriever::new(embed, engine(), of_texts(&TEXTS), RetrieverOptions::default()).unwrap());
    let prefetcher = Prefetcher::start(retriever.clone()).unwrap();
    let yesterday = prefetcher.fetch(["a", "b", "c"], &query("")).unwrap();
    eventually("it has begun", || gate.seen().len() == 1);
    // The same text is asked while it is being fetched: it does not wait for the lowest class.
    assert_eq!(retriever.retrieve(&query("a")).unwrap().origin, Origin::Computed);
    let follow_ups = prefetcher.fetch(["next", "bad"], &query("")).unwrap();
    gate.open(3);
    ended(&follow_ups, 1, 0, 1);
    eventually("the rest goes on", || gate.seen().len() == 4);
    let order: Vec<(String, u8)> = ["a", "next", "bad", "b"].map(|text| (text.to_string(), u8::MAX)).into();
    assert_eq!(gate.seen(), order);
    yesterday.cancel();
    gate.open(10);
    eventually("the begun one ends", || yesterday.progress().done() == 2);
    ended(&prefetcher.fetch(["d"], &query("")).unwrap(), 1, 0, 0);
    assert_eq!((gate.seen().len(), yesterday.progress().done()), (5, 2), "what is cancelled does not begin");
    drop(prefetcher);
    assert_eq!(retriever.retrieve(&query("b")).unwrap().origin, Origin::Cached);
}
