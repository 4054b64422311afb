//! The engine with runners that answer, fail, panic and dawdle, and with real models.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use halfbyte::base::xorshift::Xorshift;
use halfbyte::graph::{Dim, Graph, Port};
use halfbyte::serve::engine::{Axis, BatchAxis, Engine, Joining, Padding, Runner, Serving, Submit, Ticket};
use halfbyte::serve::schedule::{Batching, Policy, Rejection};
use halfbyte::{DType, Error, Model, Options, Outputs, Precision, Result, Session, Tensor, TensorView};

type Run = dyn Fn(&[(&str, TensorView)]) -> Result<Outputs> + Send + Sync;

/// A model of the test's own: declared inputs and outputs, and what it answers.
struct Fake {
    graph: Graph,
    run: Box<Run>,
}

impl Runner for Fake {
    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn run(&self, inputs: &[(&str, TensorView)]) -> Result<Outputs> {
        (self.run)(inputs)
    }
}

/// Dimensions in a word: `"n,4,?"`.
fn dims(text: &str) -> Vec<Dim> {
    let dim = |word: &str| match word.parse() {
        Ok(known) => Dim::Known(known),
        Err(_) if word == "?" => Dim::Any,
        Err(_) => Dim::Named(word.into()),
    };
    text.split(',').filter(|w| !w.is_empty()).map(dim).collect()
}

/// A model of f32 inputs and outputs.
fn fake(
    inputs: &[(&str, &str)],
    outputs: &[(&str, &str)],
    run: impl Fn(&[(&str, TensorView)]) -> Result<Outputs> + Send + Sync + 'static,
) -> Fake {
    let mut graph = Graph::default();
    let mut port = |&(name, shape): &(&str, &str)| {
        let value = graph.add_value(name, None);
        Port { value, dtype: Some(DType::F32), dims: Some(dims(shape)) }
    };
    let (inputs, outputs) = (inputs.iter().map(&mut port).collect(), outputs.iter().map(&mut port).collect());
    (graph.inputs, graph.outputs) = (inputs, outputs);
    Fake { graph, run: Box::new(run) }
}

fn outputs(tensor: Tensor) -> Outputs {
    [("y".to_string(), tensor)].into_iter().collect()
}

/// `y = x + 1`, of `[n, 4]`.
fn plus_one(x: &TensorView) -> Result<Outputs> {
    let values: Vec<f32> = x.slice::<f32>().iter().map(|v| v + 1.0).collect();
    Ok(outputs(Tensor::new(x.shape.clone(), &values)?))
}

fn adder(before: impl Fn(&[f32]) -> Result<()> + Send + Sync + 'static) -> Fake {
    fake(&[("x", "n,4")], &[("y", "n,4")], move |inputs| {
        before(inputs[0].1.slice())?;
        plus_one(&inputs[0].1)
    })
}

fn rows(values: &[f32]) -> [(&'static str, Tensor); 1] {
    let all: Vec<f32> = values.iter().flat_map(|&v| [v, 0.0, 1.0, 2.0]).collect();
    [("x", Tensor::new([values.len(), 4], &all).unwrap())]
}

/// The first element of each row.
fn firsts(outputs: &Outputs) -> Vec<f32> {
    outputs.values::<f32>("y").unwrap().chunks(4).map(|row| row[0]).collect()
}

/// Nothing comes too late.
fn patient() -> Batching {
    Batching { target_p99: Duration::from_secs(600), ..Batching::default() }
}

/// A runner that waits for a word before each run, who says it, and what ran.
fn gated() -> (Fake, Sender<()>, Arc<Mutex<Vec<f32>>>) {
    let (open, gate): (Sender<()>, Receiver<()>) = channel();
    let (gate, seen) = (Mutex::new(gate), Arc::new(Mutex::new(Vec::new())));
    let ran = seen.clone();
    let before = move |x: &[f32]| {
        ran.lock().unwrap().extend(x.chunks(4).map(|row| row[0]));
        gate.lock().unwrap().recv().map_err(|_| Error::BadInput("the gate is gone".into()))
    };
    (adder(before), open, seen)
}

/// Waits until the runner has begun with something.
fn until_running(seen: &Mutex<Vec<f32>>) {
    while seen.lock().unwrap().is_empty() {
        thread::yield_now();
    }
}

fn rejection(result: Result<Ticket>) -> Rejection {
    match result.map(drop) {
        Err(Error::Rejected(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn everybody_gets_the_own_rows_whoever_else_asks() {
    let engine = Engine::new(adder(|_| Ok(())), patient()).unwrap();
    thread::scope(|scope| {
        for t in 0..8u64 {
            let engine = &engine;
            scope.spawn(move || {
                let mut random = Xorshift::new(t + 1);
                let mut open = Vec::new();
                for i in 0..2000 {
                    let own: Vec<f32> = (0..1 + random.below(3)).map(|r| (t as usize * 10_000 + i * 4 + r) as f32).collect();
                    open.push((engine.submit(&rows(&own)).unwrap(), own));
                    if open.len() == 50 || i == 1999 {
                        for (ticket, own) in open.drain(..) {
                            let reply = ticket.wait().unwrap();
                            let wanted: Vec<f32> = own.iter().map(|v| v + 1.0).collect();
                            assert_eq!(firsts(&reply.outputs), wanted);
                            let t = reply.trace;
                            assert!(
                                t.submitted <= t.batched
                                    && t.batched <= t.started
                                    && t.started <= t.finished
                                    && t.finished <= t.replied
                            );
                            assert!(t.requests >= 1 && t.rows >= own.len() && t.filled_rows >= t.rows);
                        }
                    }
                }
            });
        }
    });
    let statistics = engine.statistics();
    let model = &statistics.models[0];
    assert_eq!((statistics.requests.admitted, model.answered, model.failed), (16_000, 16_000, 0));
    assert_eq!(model.batch_sizes.iter().map(|(size, count)| *size as u64 * count).sum::<u64>(), 16_000);
    assert_eq!(model.stages.total.count, 16_000);
    assert_eq!((model.padding_share, model.filler_rows), (0.0, 0));
}

#[test]
fn requests_that_wait_are_run_together() {
    let (runner, open, seen) = gated();
    let joining = Joining { row_steps: Some(vec![3, 6]), ..Joining::default() };
    let models = vec![Serving { joining, ..Serving::new("m", runner) }];
    let engine = Engine::with_models(models, Batching { policy: Policy::Greedy, ..patient() }).unwrap();
    let first = engine.submit(&rows(&[0.0])).unwrap();
    until_running(&seen);
    let others: Vec<Ticket> = (1..=5).map(|i| engine.submit(&rows(&[i as f32])).unwrap()).collect();
    (0..2).for_each(|_| open.send(()).unwrap());
    assert_eq!(first.wait().unwrap().trace.requests, 1);
    for (i, ticket) in others.into_iter().enumerate() {
        let reply = ticket.wait().unwrap();
        assert_eq!(firsts(&reply.outputs), [i as f32 + 2.0]);
        // Five rows are filled up to six, which nobody sees.
        assert_eq!((reply.trace.requests, reply.trace.rows, reply.trace.filled_rows), (5, 5, 6));
    }
}

/// A device that fails says nothing of the requests: they run once more together, and fail together.
#[test]
fn a_failing_device_is_tried_once_more_with_the_whole_batch() {
    for (failures, fails) in [(1, false), (2, true)] {
        let (gate, runs) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (opened, seen) = (gate.clone(), runs.clone());
        let runner = adder(move |x| {
            while opened.load(Ordering::Acquire) == 0 {
                thread::yield_now();
            }
            let rows = x.len() / 4;
            seen.lock().unwrap().push(rows);
            let lost = seen.lock().unwrap().iter().filter(|&&n| n > 1).count() <= failures && rows > 1;
            if lost { Err(Error::Device { device: "gone".into(), why: "unplugged".into() }) } else { Ok(()) }
        });
        let engine = Engine::new(runner, Batching { policy: Policy::Greedy, ..patient() }).unwrap();
        let first = engine.submit(&rows(&[0.0])).unwrap();
        while engine.statistics().running == 0 {
            thread::yield_now();
        }
        let others: Vec<Ticket> = (1..=4).map(|i| engine.submit(&rows(&[i as f32])).unwrap()).collect();
        gate.store(1, Ordering::Release);
        first.wait().unwrap();
        for (i, ticket) in others.into_iter().enumerate() {
            match ticket.wait() {
                Ok(reply) => assert!(!fails && firsts(&reply.outputs) == [i as f32 + 2.0]),
                Err(error) => assert!(fails && matches!(error, Error::Device { .. }), "{error}"),
            }
        }
        assert_eq!(*runs.lock().unwrap(), [1, 4, 4]);
        let model = engine.statistics().models.remove(0);
        assert_eq!((model.retried, model.bisected, model.failed), (1, 0, if fails { 4 } else { 0 }));
    }
}

/// With errors, panics, slow batches, dropped tickets and a drain in the middle: one reply for each ticket, and errors only for the guilty.
#[test]
fn no_reply_is_lost_or_given_to_another_under_faults() {
    const ERROR: f32 = -1.0;
    const PANIC: f32 = -2.0;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let engine = Engine::new(
        adder(move |x| {
            if counted.fetch_add(1, Ordering::Relaxed).is_multiple_of(64) {
                thread::sleep(Duration::from_millis(1));
            }
            let firsts: Vec<f32> = x.chunks(4).map(|row| row[0]).collect();
            assert!(!firsts.contains(&PANIC), "poisoned");
            if firsts.contains(&ERROR) { Err(Error::BadInput("poisoned".into())) } else { Ok(()) }
        }),
        patient(),
    )
    .unwrap();
    std::panic::set_hook(Box::new(|info| {
        if thread::current().name() != Some("halfbyte-engine") {
            eprintln!("{info}");
        }
    }));
    let (engine, refused) = (&engine, &AtomicUsize::new(0));
    let counts: Vec<[usize; 4]> = thread::scope(|scope| {
        let client = |t: u64| {
            let mut random = Xorshift::new(t * 77 + 5);
            let (mut open, mut counts) = (Vec::new(), [0; 4]);
            let settle = |(ticket, value): (Ticket, f32), counts: &mut [usize; 4]| match (ticket.wait(), value) {
                (Ok(reply), value) if value >= 0.0 => {
                    assert_eq!(firsts(&reply.outputs), [value + 1.0]);
                    counts[0] += 1;
                }
                (Err(Error::BadInput(why)), ERROR) if why == "poisoned" => counts[1] += 1,
                (Err(Error::Panicked { why }), PANIC) if why == "poisoned" => counts[2] += 1,
                (other, value) => panic!("{:?} for {value}", other.map(|r| firsts(&r.outputs))),
            };
            for i in 0..1500 {
                let value = match random.below(40) {
                    0 => ERROR,
                    1 => PANIC,
                    _ => (t * 100_000 + i) as f32,
                };
                match engine.submit(&rows(&[value])) {
                    Ok(ticket) if random.below(10) == 0 => {
                        counts[3] += 1;
                        drop(ticket);
                    }
                    Ok(ticket) => open.push((ticket, value)),
                    Err(Error::Rejected(Rejection::Draining)) => {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(other) => panic!("{other}"),
                }
                if open.len() > random.below(40) {
                    let at = random.below(open.len());
                    settle(open.swap_remove(at), &mut counts);
                }
                if t == 0 && i == 1200 {
                    engine.drain();
                    let statistics = engine.statistics();
                    assert_eq!((statistics.queued, statistics.running), (0, 0));
                }
            }
            open.into_iter().for_each(|ticket| settle(ticket, &mut counts));
            counts
        };
        let clients: Vec<_> = (0..6).map(|t| scope.spawn(move || client(t))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let sum = |i: usize| counts.iter().map(|c| c[i]).sum::<usize>();
    let total = sum(0) + sum(1) + sum(2) + sum(3) + refused.load(Ordering::Relaxed);
    assert_eq!(total, 9000);
    assert!(sum(0) > 0 && sum(1) > 0 && sum(2) > 0 && refused.load(Ordering::Relaxed) >= 299);
    let statistics = engine.statistics();
    let (requests, model) = (statistics.requests, &statistics.models[0]);
    assert_eq!(requests.admitted, requests.cancelled + model.answered + model.failed);
    assert!(model.failed >= (sum(1) + sum(2)) as u64 && model.bisected > 0 && model.panics > 0);
}

#[test]
fn what_does_not_fit_is_refused_at_once_with_cause_and_cure() {
    let run = |_: &[(&str, TensorView)]| Err(Error::BadInput("nothing may run".into()));
    let engine =
        Engine::new(fake(&[("x", "n,4"), ("w", "n,2")], &[("y", "n")], run), Batching { max_batch: 8, ..patient() }).unwrap();
    let x = |n: usize, m: usize| ("x", Tensor::zeros(DType::F32, [n, m]).unwrap());
    let w = |n: usize| ("w", Tensor::zeros(DType::F32, [n, 2]).unwrap());
    let refused = |inputs: &[(&str, Tensor)], words: &str| {
        let why = engine.submit(inputs).map(drop).unwrap_err().to_string();
        assert!(why.contains(words), "{why:?} does not say {words:?}");
    };
    refused(&[x(1, 4)], "input \"w\" is missing");
    refused(&[x(1, 4), w(1), ("z", Tensor::scalar(1f32))], "no input \"z\"; it takes x, w");
    refused(&[x(1, 4), ("W", Tensor::scalar(1f32))], "no input \"W\"; it takes x, w");
    refused(&[x(1, 4), w(1), w(1)], "given twice");
    refused(&[x(1, 5), w(1)], "the model takes shape [n, 4], not 1x5");
    refused(&[("x", Tensor::zeros(DType::I64, [1, 4]).unwrap()), w(1)], "not i64");
    refused(&[x(2, 4), w(3)], "input \"x\" has 2, input \"w\" has 3; give all the same");
    refused(&[x(0, 4), w(0)], "no rows");
    refused(&[x(9, 4), w(9)], "larger than a batch of at most 8");
    let missing = engine.submit_with(&[x(1, 4), w(1)], &Submit { model: 3, ..Submit::default() });
    assert!(missing.map(drop).unwrap_err().to_string().contains("no model 3"));
    assert_eq!(engine.statistics().requests.admitted, 0);
}

#[test]
fn a_full_queue_and_a_deadline_that_cannot_be_met_are_said_at_once() {
    let (runner, open, seen) = gated();
    let engine = Engine::new(runner, Batching { queue_limit: 2, ..patient() }).unwrap();
    let running = engine.submit(&rows(&[0.0])).unwrap();
    until_running(&seen);
    let queued: Vec<Ticket> = (1..3).map(|i| engine.submit(&rows(&[i as f32])).unwrap()).collect();
    assert_eq!(rejection(engine.submit(&rows(&[3.0]))), Rejection::QueueFull { limit: 2 });
    (0..3).for_each(|_| open.send(()).unwrap());
    assert!(running.wait().is_ok() && queued.into_iter().all(|ticket| ticket.wait().is_ok()));
    // Whether at once or from the queue: it is not run, and the reason is the time.
    let hurried = Submit { deadline: Some(Duration::ZERO), ..Submit::default() };
    let why = engine.submit_with(&rows(&[4.0]), &hurried).and_then(Ticket::wait).map(drop).unwrap_err();
    assert!(matches!(why, Error::Rejected(Rejection::TooLate { .. })), "{why}");
    let requests = engine.statistics().requests;
    assert_eq!((requests.queue_full, requests.too_late), (1, 1));
    assert!(!seen.lock().unwrap().contains(&4.0));
}

#[test]
fn a_dropped_ticket_is_not_computed_and_another_is_waited_for_in_any_way() {
    let (runner, open, seen) = gated();
    let engine = Engine::new(runner, patient()).unwrap();
    let running = engine.submit(&rows(&[0.0])).unwrap();
    until_running(&seen);
    let cancelled = engine.submit(&rows(&[1.0])).unwrap();
    let kept = engine.submit(&rows(&[2.0])).unwrap();
    drop(cancelled);
    let Err(running) = running.try_take() else { panic!("not there yet") };
    let Err(running) = running.wait_timeout(Duration::from_millis(5)) else { panic!("not there yet") };
    (0..2).for_each(|_| open.send(()).unwrap());
    assert_eq!(firsts(&running.wait().unwrap().outputs), [1.0]);
    let Ok(reply) = kept.wait_timeout(Duration::from_secs(60)) else { panic!("there by now") };
    assert_eq!(firsts(&reply.unwrap().outputs), [3.0]);
    assert_eq!(*seen.lock().unwrap(), [0.0, 2.0]);
    assert_eq!(engine.statistics().requests.cancelled, 1);
}

#[test]
fn draining_finishes_what_is_queued_and_takes_no_more() {
    let engine = Engine::new(
        adder(|_| {
            thread::sleep(Duration::from_millis(1));
            Ok(())
        }),
        Batching { max_batch: 4, ..patient() },
    )
    .unwrap();
    let tickets: Vec<Ticket> = (0..50).map(|i| engine.submit(&rows(&[i as f32])).unwrap()).collect();
    engine.drain();
    for (i, ticket) in tickets.into_iter().enumerate() {
        let Ok(reply) = ticket.try_take() else { panic!("drained, but {i} has no reply") };
        assert_eq!(firsts(&reply.unwrap().outputs), [i as f32 + 1.0]);
    }
    assert_eq!(rejection(engine.submit(&rows(&[0.0]))), Rejection::Draining);
}

#[test]
fn a_dropped_engine_answers_everybody() {
    let (runner, open, seen) = gated();
    let engine = Engine::new(runner, patient()).unwrap();
    let running = engine.submit(&rows(&[0.0])).unwrap();
    until_running(&seen);
    let queued: Vec<Ticket> = (1..9).map(|i| engine.submit(&rows(&[i as f32])).unwrap()).collect();
    let waiter = thread::spawn(move || queued.into_iter().map(|t| t.wait().map(drop)).collect::<Vec<_>>());
    let dropper = thread::spawn(move || drop(engine));
    for result in waiter.join().unwrap() {
        assert!(matches!(result, Err(Error::Rejected(Rejection::Draining))), "{result:?}");
    }
    open.send(()).unwrap();
    assert_eq!(firsts(&running.wait().unwrap().outputs), [1.0]);
    dropper.join().unwrap();
    assert_eq!(*seen.lock().unwrap(), [0.0]);
}

/// A runner that tells which thread it runs on.
fn telling(then: impl Fn() + Send + Sync + 'static) -> (Fake, Receiver<thread::ThreadId>) {
    let (tell, threads) = channel();
    let before = move |_: &[f32]| {
        // Nobody may listen any more.
        tell.send(thread::current().id()).ok();
        then();
        Ok(())
    };
    (adder(before), threads)
}

#[test]
fn short_runs_are_made_by_who_waits_and_long_ones_by_the_engines_thread() {
    let ask = |engine: &Engine| firsts(&engine.submit(&rows(&[1.0])).unwrap().wait().unwrap().outputs);
    let (runner, threads) = telling(|| ());
    let engine = Engine::new(runner, patient()).unwrap();
    // The engine's thread may be the faster one, but not always.
    let own = (0..100_000).any(|_| ask(&engine) == [2.0] && threads.recv().unwrap() == thread::current().id());
    assert!(own, "no run was this thread's own");

    let (runner, threads) = telling(|| thread::sleep(Duration::from_millis(1)));
    let engine = Engine::new(runner, patient()).unwrap();
    assert!((0..50).all(|_| ask(&engine) == [2.0] && threads.recv().unwrap() != thread::current().id()));
    // Waiting for some time may take no longer: it leaves even short runs to the engine's thread.
    let (runner, threads) = telling(|| ());
    let engine = Engine::new(runner, patient()).unwrap();
    for _ in 0..50 {
        let reply = engine.submit(&rows(&[1.0])).unwrap().wait_timeout(Duration::from_secs(600)).ok().unwrap();
        assert!(reply.is_ok() && threads.recv().unwrap() != thread::current().id());
    }
}

#[test]
fn who_does_not_wait_is_answered_while_others_serve_themselves() {
    let engine = Engine::new(adder(|_| Ok(())), patient()).unwrap();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let others = || {
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(firsts(&engine.submit(&rows(&[1.0])).unwrap().wait().unwrap().outputs), [2.0]);
                thread::sleep(Duration::from_micros(50));
            }
        };
        for _ in 0..2 {
            scope.spawn(others);
        }
        for i in 0..500 {
            let mut ticket = engine.submit(&rows(&[i as f32])).unwrap();
            let reply = loop {
                match ticket.try_take() {
                    Ok(reply) => break reply.unwrap(),
                    Err(back) => ticket = back,
                }
                thread::yield_now();
            };
            assert_eq!(firsts(&reply.outputs), [i as f32 + 1.0]);
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

/// Its callers run batches, and the engine goes meanwhile: it waits for them, whoever lets it go.
#[test]
fn an_engine_that_goes_waits_for_the_run_of_a_caller() {
    let (held, gate) = channel::<()>();
    let (began, begins) = channel();
    let (gate, is_armed) = (Mutex::new(gate), Arc::new(AtomicUsize::new(0)));
    let armed = is_armed.clone();
    let before = move |_: &[f32]| {
        if thread::current().name() == Some("caller") && armed.load(Ordering::Relaxed) == 1 {
            began.send(()).unwrap();
            gate.lock().unwrap().recv().unwrap();
        }
        Ok(())
    };
    let engine = Engine::new(adder(before), patient()).unwrap();
    let (give, tickets) = channel::<Ticket>();
    let wait = move || tickets.into_iter().map(|ticket| firsts(&ticket.wait().unwrap().outputs)[0]).sum::<f32>();
    let caller = thread::Builder::new().name("caller".into()).spawn(wait).unwrap();
    is_armed.store(1, Ordering::Relaxed);
    let mut sent = 0;
    while begins.recv_timeout(Duration::from_millis(1)).is_err() {
        give.send(engine.submit(&rows(&[1.0])).unwrap()).unwrap();
        sent += 1;
    }
    drop(give);
    let dropper = thread::spawn(move || drop(engine));
    thread::sleep(Duration::from_millis(20));
    assert!(!dropper.is_finished(), "the engine went while a caller ran a batch of it");
    held.send(()).unwrap();
    dropper.join().unwrap();
    assert_eq!(caller.join().unwrap(), 2.0 * sent as f32);
}

/// `y = x`, which also keeps the shapes it saw.
fn echo(x: &str, y: &str) -> (Fake, Arc<Mutex<Vec<Vec<usize>>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let shapes = seen.clone();
    let run = move |inputs: &[(&str, TensorView)]| {
        shapes.lock().unwrap().push(inputs[0].1.shape.to_vec());
        Ok(outputs(inputs[0].1.to_tensor()?))
    };
    (fake(&[("x", x)], &[("y", y)], run), seen)
}

/// Runs requests of these shapes while they wait for each other, each filled with its own number; the shapes that ran.
fn together(model: Serving, shapes: &[&[usize]]) -> Vec<Ticket> {
    let batching = Batching { policy: Policy::Fixed { size: shapes.len() }, max_wait: Duration::from_millis(50), ..patient() };
    let engine = Engine::with_models(vec![model], batching).unwrap();
    let tickets = shapes.iter().enumerate().map(|(i, &shape)| {
        let values = vec![i as f32 + 1.0; shape.iter().product()];
        engine.submit(&[("x", Tensor::new(shape, &values).unwrap())]).unwrap()
    });
    let tickets: Vec<Ticket> = tickets.collect();
    engine.drain();
    for (i, ticket) in tickets.into_iter().enumerate() {
        let reply = ticket.wait().unwrap();
        let y = reply.outputs.tensor("y").unwrap();
        assert_eq!(&y.shape()[..], shapes[i]);
        assert!(y.to_f64().iter().all(|&v| v == i as f64 + 1.0), "{:?}", y.to_f64());
    }
    Vec::new()
}

#[test]
fn rows_of_other_shapes_are_not_mixed() {
    let (model, seen) = echo("n,w,h", "n,w,h");
    together(Serving::new("m", model), &[&[1, 2, 3], &[1, 3, 2], &[2, 2, 3], &[1, 3, 2]]);
    assert!(seen.lock().unwrap().iter().all(|s| s[1..] == [2, 3] || s[1..] == [3, 2]), "{seen:?}");
}

#[test]
fn rows_of_unequal_length_are_padded_where_the_caller_says_so_and_cut_back() {
    let axis = Axis::Named("length".into());
    let padding = Padding { axis, values: vec![("x".into(), -7.0)], multiple: 4 };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let inputs = seen.clone();
    let run = move |given: &[(&str, TensorView)]| {
        inputs.lock().unwrap().push((given[0].1.shape.to_vec(), given[0].1.slice::<f32>().to_vec()));
        Ok(outputs(given[0].1.to_tensor()?))
    };
    let model = fake(&[("x", "n,length,2")], &[("y", "n,length,2")], run);
    let joining = Joining { padding: Some(padding), ..Joining::default() };
    together(Serving { joining, ..Serving::new("m", model) }, &[&[1, 5, 2], &[1, 6, 2], &[2, 5, 2]]);
    for (shape, values) in seen.lock().unwrap().iter() {
        assert_eq!(shape[1..], [8, 2]);
        assert!(
            values.chunks(16).all(|row| row[..10].iter().all(|&v| v > 0.0) && row[12..].iter().all(|&v| v == -7.0)),
            "{values:?}"
        );
    }
    let without = Joining {
        padding: Some(Padding { axis: Axis::Named("n".into()), values: Vec::new(), multiple: 1 }),
        ..Joining::default()
    };
    let (model, _) = echo("n,2", "n,2");
    let why =
        Engine::with_models(vec![Serving { joining: without, ..Serving::new("m", model) }], patient()).map(drop).unwrap_err();
    assert!(why.to_string().contains("no value to be padded with"), "{why}");
}

#[test]
fn the_batch_may_be_any_axis_that_is_named_or_given() {
    // State that has its batch in the middle, as recurrent models do.
    let run = |given: &[(&str, TensorView)]| {
        let state = given.iter().find(|(name, _)| *name == "state").unwrap().1.to_tensor()?;
        Ok([("y".to_string(), given[0].1.to_tensor()?), ("next".to_string(), state)].into_iter().collect())
    };
    for batch in [
        BatchAxis::Found,
        BatchAxis::Given(Axis::At(
            ["x", "y"].map(|n| (n.into(), 0)).into_iter().chain(["state", "next"].map(|n| (n.into(), 1))).collect(),
        )),
    ] {
        let name = if batch == BatchAxis::Found { "n" } else { "?" };
        let (flat, middle) = (format!("{name},4"), format!("2,{name},3"));
        let model = fake(&[("x", &flat), ("state", &middle)], &[("y", &flat), ("next", &middle)], run);
        let joining = Joining { batch, ..Joining::default() };
        let batching = Batching { policy: Policy::Fixed { size: 3 }, max_wait: Duration::from_millis(50), ..patient() };
        let engine = Engine::with_models(vec![Serving { joining, ..Serving::new("m", model) }], batching).unwrap();
        let state = |i: usize| Tensor::new([2, 1, 3], &[i as f32, 1.0, 2.0, 3.0, 4.0, i as f32]).unwrap();
        let submit = |i: usize| engine.submit(&[rows(&[i as f32])[0].clone(), ("state", state(i))]).unwrap();
        let tickets: Vec<Ticket> = (0..3).map(submit).collect();
        for (i, ticket) in tickets.into_iter().enumerate() {
            let reply = ticket.wait().unwrap();
            assert_eq!((firsts(&reply.outputs), reply.outputs.tensor("next").unwrap()), (vec![i as f32], &state(i)));
            assert_eq!(reply.trace.requests, 3);
        }
    }
}

#[test]
fn an_input_without_the_batch_is_shared_by_those_that_give_the_same() {
    let run = |given: &[(&str, TensorView)]| {
        let rate = given[1].1.slice::<f32>()[0];
        let values: Vec<f32> = given[0].1.slice::<f32>().iter().map(|v| v * rate).collect();
        Ok(outputs(Tensor::new(given[0].1.shape.clone(), &values)?))
    };
    let engine = Engine::new(fake(&[("x", "n,4"), ("rate", "")], &[("y", "n,4")], run), patient()).unwrap();
    let submit = |i: usize| engine.submit(&[rows(&[i as f32])[0].clone(), ("rate", Tensor::scalar((i % 3) as f32))]).unwrap();
    let tickets: Vec<Ticket> = (0..60).map(submit).collect();
    for (i, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(firsts(&ticket.wait().unwrap().outputs), [(i * (i % 3)) as f32]);
    }
}

#[test]
fn a_model_whose_outputs_do_not_have_the_rows_runs_alone() {
    // Declares rows, and gives one sum for all.
    let run = |given: &[(&str, TensorView)]| Ok(outputs(Tensor::new([1], &[given[0].1.slice::<f32>().iter().sum::<f32>()])?));
    let engine = Engine::new(fake(&[("x", "n,4")], &[("y", "n")], run), patient()).unwrap();
    let tickets: Vec<Ticket> = (0..40).map(|i| engine.submit(&rows(&[i as f32])).unwrap()).collect();
    let alone = Engine::new(fake(&[("x", "1,4")], &[("y", "1")], run), patient()).unwrap();
    for (i, ticket) in tickets.into_iter().enumerate() {
        let y = ticket.wait().unwrap().outputs.tensor("y").unwrap().clone();
        assert_eq!(y.to_f64(), [i as f64 + 3.0]);
        let reply = alone.submit(&rows(&[i as f32])).unwrap().wait().unwrap();
        assert_eq!((reply.outputs.tensor("y").unwrap(), reply.trace.requests), (&y, 1));
    }
}

#[test]
fn models_share_an_engine_and_come_and_go() {
    let models = vec![Serving::new("one", adder(|_| Ok(()))), Serving::new("two", echo("n,4", "n,4").0)];
    let engine = Engine::with_models(models, patient()).unwrap();
    let third = engine.add(Serving::new("three", adder(|_| Ok(())))).unwrap();
    let submit = |i: usize| {
        let submit = Submit { model: (i % 3) as u32, tenant: (i % 2) as u32, priority: (i % 2) as u8, ..Submit::default() };
        engine.submit_with(&rows(&[i as f32]), &submit).unwrap()
    };
    let tickets: Vec<Ticket> = (0..300).map(submit).collect();
    assert!(engine.remove(third) && !engine.remove(third));
    assert!(engine.submit_with(&rows(&[0.0]), &Submit { model: third, ..Submit::default() }).is_err());
    for (i, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(firsts(&ticket.wait().unwrap().outputs), [i as f32 + if i % 3 == 1 { 0.0 } else { 1.0 }]);
    }
    let names: HashSet<String> = engine.statistics().models.into_iter().map(|m| m.name).collect();
    assert_eq!(names, HashSet::from(["one".to_string(), "two".to_string()]));
}

#[cfg(feature = "async")]
#[test]
fn a_waker_may_panic_or_drop_the_engine() {
    use std::task::{Context, Wake, Waker};
    struct Wild(Mutex<Option<Engine>>);
    impl Wake for Wild {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
            panic!("a waker's");
        }
    }
    let (runner, open, seen) = gated();
    let engine = Engine::new(runner, Batching { policy: Policy::Greedy, ..patient() }).unwrap();
    let first = engine.submit(&rows(&[0.0])).unwrap();
    until_running(&seen);
    let [mut wild, other] = [1.0, 2.0].map(|v| engine.submit(&rows(&[v])).unwrap());
    let wakes = Arc::new(Wild(Mutex::new(Some(engine))));
    let waker = Waker::from(wakes.clone());
    assert!(std::pin::Pin::new(&mut wild).poll(&mut Context::from_waker(&waker)).is_pending());
    (0..2).for_each(|_| open.send(()).unwrap());
    while wakes.0.lock().is_ok_and(|engine| engine.is_some()) {
        thread::yield_now();
    }
    for (ticket, wanted) in [(first, 1.0), (wild, 2.0), (other, 3.0)] {
        assert_eq!(firsts(&ticket.wait().unwrap().outputs), [wanted]);
    }
}

#[cfg(feature = "async")]
#[test]
fn a_ticket_is_a_future_of_any_executor() {
    use std::task::{Context, Poll, Wake, Waker};
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let engine = Engine::new(
        adder(|_| {
            thread::sleep(Duration::from_millis(3));
            Ok(())
        }),
        patient(),
    )
    .unwrap();
    let mut answer = std::pin::pin!(async { engine.submit(&rows(&[1.0]))?.await });
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let reply = loop {
        match answer.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(reply) => break reply,
            Poll::Pending => thread::park(),
        }
    };
    assert_eq!(firsts(&reply.unwrap().outputs), [2.0]);
}

/// Answers of the engine against those of the session, alone: to the bit, also in f32.
#[test]
fn answers_of_real_models_are_those_of_running_alone() {
    let cases = [
        ("digits-mlp", "x", 64, vec![64]),
        ("digits-cnn", "x", 64, vec![1, 8, 8]),
        ("digits-cnn-qdq", "x", 64, vec![1, 8, 8]),
        ("digits-cnn-qop", "x", 64, vec![1, 8, 8]),
    ];
    for (name, input, size, row) in cases {
        for precision in [Precision::F32, Precision::Int8] {
            let model = Model::open(format!("models/{name}.onnx")).unwrap();
            let input = model.inputs().next().map_or(input.to_string(), |(n, _)| n.to_string());
            let session = Arc::new(Session::new(&model, Options { precision, ..Options::default() }).unwrap());
            let engine = Engine::new(session.clone(), Batching { policy: Policy::Greedy, ..patient() }).unwrap();
            let mut random = Xorshift::new(9);
            let of = |n: usize| [vec![n], row.clone()].concat();
            let given: Vec<Tensor> = (0..60)
                .map(|i| {
                    let n = 1 + i % 3;
                    Tensor::new(&of(n)[..], &random.reals(n * size, 4.0)).unwrap()
                })
                .collect();
            let tickets: Vec<Ticket> = given.iter().map(|x| engine.submit(&[(&input, x.clone())]).unwrap()).collect();
            let mut together = 0;
            for (x, ticket) in given.iter().zip(tickets) {
                let reply = ticket.wait().unwrap();
                together += usize::from(reply.trace.requests > 1);
                let alone = session.run(&[(&input, x.view())]).unwrap();
                for ((_, a), (output, b)) in alone.iter().zip(reply.outputs.iter()) {
                    assert!(a == b, "{name} {precision:?} {output} differs");
                }
            }
            assert!(together > 30, "{name}: {together} of 60 ran with others");
        }
    }
}
