//! The memory of sessions: accounts, budgets, and what is given back when a device is full.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use halfbyte::base::{Tensor, xorshift::Xorshift};
use halfbyte::device::Device;
use halfbyte::device::api::{Bindings, CommandList, Prepared, Recorded, Region, Ticket, Timing};
use halfbyte::device::cpu::CpuDevice;
use halfbyte::device::null::NullDevice;
use halfbyte::graph::Problem;
use halfbyte::hardware::{self, DeviceInfo};
use halfbyte::kernel::KernelDef;
use halfbyte::memory::{Account, Pool, Rung};
use halfbyte::{Error, Model, Options, Report, Session, TensorView};

/// The account that a session's report begins with.
fn own(report: &Report) -> (&str, u64) {
    (&report.accounts[0].name, report.accounts[0].used_bytes)
}

fn model() -> Model {
    Model::open("models/digits-mlp.onnx").unwrap()
}

/// A device of so much memory (0 for no limit) that computes nothing.
fn null(memory_bytes: u64) -> Arc<NullDevice> {
    Arc::new(NullDevice::new(DeviceInfo { memory_bytes, ..hardware::cpu::info(1) }).unwrap())
}

fn session(device: Arc<dyn Device>, options: Options) -> Session {
    Session::with_device(&model(), options, device).unwrap()
}

/// A run on `n` images.
fn run(session: &Session, n: usize) -> halfbyte::Result<()> {
    let images = vec![0f32; n * 64];
    session.run(&[("x", TensorView::of([n, 64], &images))]).map(drop)
}

/// Bytes that a session holds after a run on `n` images.
fn bytes_of(n: usize) -> u64 {
    let session = session(null(0), Options::default());
    run(&session, n).unwrap();
    own(&session.report()).1
}

/// How often a rung of the device's pool helped.
fn helped(device: &dyn Device, rung: Rung) -> u64 {
    device.pools()[0].stats().rungs.iter().find(|r| r.rung == rung).unwrap().helped
}

#[test]
fn sessions_of_one_device_pay_by_accounts_of_their_own() {
    let device = null(0);
    let first = session(device.clone(), Options::default());
    let second = session(device.clone(), Options::default());
    let named = session(device.clone(), Options { name: Some("ours".into()), ..Options::default() });
    for (session, n) in [(&first, 10), (&second, 100), (&named, 1000)] {
        run(session, n).unwrap();
    }
    let reports = [&first, &second, &named].map(Session::report);
    let accounts: Vec<_> = reports.iter().map(own).collect();
    let names: Vec<_> = accounts.iter().map(|a| a.0).collect();
    assert_eq!(names, ["virtual/digits-mlp", "virtual/digits-mlp#2", "virtual/ours"]);
    for (report, (name, used_bytes)) in reports.iter().zip(&accounts) {
        assert_eq!(*used_bytes, (report.arena_bytes as u64).next_multiple_of(256), "{name}");
        let runs = &report.accounts[1];
        assert_eq!((runs.name.as_str(), runs.used_bytes, runs.limit_bytes), (&*format!("{name}/runs"), *used_bytes, None));
    }
    assert_eq!(device.account().used_bytes(), accounts.iter().map(|a| a.1).sum::<u64>());
    drop(first);
    let left: Vec<_> = device.account().stats().into_iter().map(|a| a.name).filter(|n| !n.ends_with("runs")).collect();
    assert_eq!(left, ["virtual", "virtual/digits-mlp#2", "virtual/ours"]);
    assert_eq!(
        session(device.clone(), Options::default()).report().accounts[0].name,
        "virtual/digits-mlp",
        "the name is free again"
    );
}

#[test]
fn a_session_over_its_budget_gives_up_what_is_idle_and_then_says_which_budget() {
    let limit = bytes_of(1000) * 3 / 2;
    let device = null(0);
    let other = session(device.clone(), Options::default());
    run(&other, 1000).unwrap();
    let tight = session(device.clone(), Options { memory_limit_bytes: Some(limit), ..Options::default() });
    for n in [1000, 999, 1000, 10, 998] {
        run(&tight, n).unwrap();
    }
    let report = tight.report();
    assert_eq!(report.accounts[0].limit_bytes, Some(limit));
    assert!(report.accounts[0].peak_bytes <= limit, "{:?}", report.accounts);
    assert_eq!(own(&other.report()).1, bytes_of(1000), "another's memory would not have helped");
    match run(&tight, 2000) {
        Err(Error::OverBudget { account, limit_bytes, needed_bytes, available_bytes }) => {
            assert_eq!((account.as_str(), limit_bytes), ("virtual/digits-mlp#2", limit));
            assert!(needed_bytes > available_bytes && available_bytes <= limit, "{needed_bytes} of {available_bytes}");
        }
        other => panic!("{other:?}"),
    }
    run(&tight, 1000).unwrap();
}

#[test]
fn a_session_over_the_budget_of_every_device_tries_each() {
    let devices: Vec<Arc<dyn Device>> = vec![null(0), Arc::new(CpuDevice::new(Some(1)).unwrap())];
    let options = Options { memory_limit_bytes: Some(1024), ..Options::default() };
    let tight = Session::with_devices(&model(), options, devices).unwrap();
    assert!(matches!(run(&tight, 500), Err(Error::OverBudget { limit_bytes: 1024, .. })));
    let notes = tight.report().notes;
    assert!(notes.iter().any(|n| n.contains("over the memory budget of virtual/digits-mlp: ")), "{notes:?}");
}

#[test]
fn a_session_gets_the_idle_memory_of_another() {
    let device = null(bytes_of(1000) * 3 / 2);
    let [first, second] = [(); 2].map(|()| session(device.clone(), Options::default()));
    for (i, (running, idle)) in [(&first, &second), (&second, &first), (&first, &second)].into_iter().enumerate() {
        run(running, 1000).unwrap();
        assert_eq!((own(&running.report()).1, own(&idle.report()).1), (bytes_of(1000), 0));
        assert_eq!(helped(&*device, Rung::EvictCaches), i as u64, "asked when there is no room, and only then");
    }
    assert!(matches!(run(&second, 5000), Err(Error::OutOfMemory { .. })));
    drop(first);
    run(&second, 1400).unwrap();
    assert_eq!(device.account().used_bytes(), own(&second.report()).1);
    device.pools()[0].check().unwrap();
}

/// A device on which each run tells that it has begun, and ends when it is told to.
struct Paused {
    inner: Arc<dyn Device>,
    turns: Arc<(Sender<()>, Mutex<Receiver<()>>)>,
}

impl Device for Paused {
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }
    fn pools(&self) -> Vec<&Pool> {
        self.inner.pools()
    }
    fn account(&self) -> &Arc<Account> {
        self.inner.account()
    }
    fn tenant(&self, name: &str, limit_bytes: u64) -> Arc<dyn Device> {
        Arc::new(Paused { inner: self.inner.tenant(name, limit_bytes), turns: self.turns.clone() })
    }
    fn reserve(&self, bytes: usize) -> halfbyte::Result<Region> {
        self.inner.reserve(bytes)
    }
    fn release(&self, region: Region) {
        self.inner.release(region);
    }
    fn upload(&self, region: &mut Region, offset: usize, bytes: &[u8]) -> halfbyte::Result<()> {
        self.inner.upload(region, offset, bytes)
    }
    fn download(&self, region: &Region, offset: usize, bytes: &mut [u8]) -> halfbyte::Result<()> {
        self.inner.download(region, offset, bytes)
    }
    fn prepare(&self, kernel: &'static KernelDef, of: &Problem, constants: &[Option<Tensor>]) -> halfbyte::Result<Prepared> {
        self.inner.prepare(kernel, of, constants)
    }
    fn scratch_bytes(&self, kernel: &'static KernelDef, problem: &Problem) -> halfbyte::Result<usize> {
        self.inner.scratch_bytes(kernel, problem)
    }
    fn record(&self, list: Arc<CommandList>) -> halfbyte::Result<Recorded> {
        self.inner.record(list)
    }
    fn submit(&self, recorded: &Recorded, bindings: Bindings) -> halfbyte::Result<Ticket> {
        self.turns.0.send(()).unwrap();
        self.turns.1.lock().unwrap().recv().unwrap();
        self.inner.submit(recorded, bindings)
    }
    fn wait(&self, ticket: Ticket) -> halfbyte::Result<Vec<Timing>> {
        self.inner.wait(ticket)
    }
    fn forget(&self, recorded: &Recorded) {
        self.inner.forget(recorded);
    }
}

#[test]
fn a_run_under_way_keeps_its_memory_and_nobody_waits_for_it() {
    let device = null(bytes_of(1000) * 3 / 2);
    let ((begun, began), (end, ends)) = (mpsc::channel(), mpsc::channel());
    let paused = Arc::new(Paused { inner: device.clone(), turns: Arc::new((begun, Mutex::new(ends))) });
    let busy = session(paused, Options::default());
    let other = session(device.clone(), Options::default());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| run(&busy, 1000));
        began.recv().unwrap();
        assert!(matches!(run(&other, 1000), Err(Error::OutOfMemory { .. })));
        assert_eq!((own(&busy.report()).1, own(&other.report()).1), (bytes_of(1000), 0));
        run(&other, 100).unwrap();
        end.send(()).unwrap();
        running.join().unwrap().unwrap();
    });
    run(&other, 1000).unwrap();
    assert_eq!(own(&busy.report()).1, 0, "its memory was idle then");
}

#[cfg(feature = "cuda")]
#[test]
fn an_idle_models_constants_are_unloaded_and_loaded_anew() {
    let of = |memory_bytes| {
        let info = DeviceInfo { memory_bytes, ..hardware::nvidia::model("h200").unwrap() };
        Arc::new(NullDevice::new(info).unwrap()) as Arc<dyn Device>
    };
    let alone = session(of(0), Options::default());
    run(&alone, 8).unwrap();
    let [all, runs] = [0, 1].map(|i| alone.report().accounts[i].used_bytes);
    let constants = all - runs;
    assert!(constants > runs, "{constants} bytes of constants, {runs} of arenas");
    // Room for one of them, and not quite for the other's constants.
    let device = of(runs + 2 * constants - 4096);
    // Each opened for itself: two sessions of one model share its constants.
    let [first, second] = [(); 2].map(|()| session(device.clone(), Options::default()));
    for _ in 0..3 {
        for (running, idle) in [(&first, &second), (&second, &first)] {
            run(running, 8).unwrap();
            let [running, idle] = [running, idle].map(|s| s.report().accounts);
            assert_eq!((running[0].used_bytes, idle[0].used_bytes), (all, 0));
        }
    }
    assert_eq!((first.report().plans, first.report().nodes.len()), (1, alone.report().nodes.len()), "plans stay");
    assert_eq!(helped(&*device, Rung::UnloadIdle), 5);
    drop((first, second));
    assert_eq!(device.account().used_bytes(), 0);
}

/// Runs of varying batch on a device that two models share: the most bytes reserved in the first half and in the second, and the
/// driver's calls in that.
fn steady(device: &Arc<dyn Device>, batches: usize, runs: usize) -> [u64; 3] {
    let cnn = Session::with_device(&Model::open("models/digits-cnn.onnx").unwrap(), Options::default(), device.clone()).unwrap();
    let mlp = session(device.clone(), Options::default());
    let pool = device.pools()[0];
    let mut random = Xorshift::new(3);
    let (mut most, mut calls) = ([0; 2], 0);
    for i in 0..runs {
        if i == runs / 2 {
            calls = pool.stats().calls.memory();
        }
        let n = 1 + random.below(batches);
        let images = vec![0.5f32; n * 64];
        match random.below(2) {
            0 => cnn.run(&[("x", TensorView::of([n, 1, 8, 8], &images))]).map(drop).unwrap(),
            _ => run(&mlp, n).unwrap(),
        }
        most[i * 2 / runs] = most[i * 2 / runs].max(pool.stats().reserved_bytes);
    }
    [most[0], most[1], pool.stats().calls.memory() - calls]
}

#[test]
fn memory_is_steady_over_runs_of_random_shapes() {
    let cpu = || Arc::new(CpuDevice::new(Some(1)).unwrap()) as Arc<dyn Device>;
    let cases: [(_, Arc<dyn Device>, _, u64); 4] =
        [("cpu", cpu(), 30, 0), ("cpu", cpu(), 200, 0), ("null", null(0), 30, 0), ("full null", null(64 << 20), 200, 64 << 20)];
    for (name, device, batches, full) in cases {
        let runs = 600;
        let [first, second, calls] = steady(&device, batches, runs);
        let per_1000 = calls as f64 * 2e3 / runs as f64;
        println!("{name}, batches to {batches}: {first} and {second} bytes reserved, {per_1000} driver calls per 1000 runs");
        assert!(second <= first.max(full), "{name}, batches to {batches}: {second} bytes after {first}");
        device.pools()[0].check().unwrap();
    }
}

#[test]
fn a_batch_that_has_no_room_is_split_where_that_is_allowed() {
    let x: Vec<f32> = (0..1001 * 64).map(|i| (i % 251) as f32 / 16.0).collect();
    let x = [("x", TensorView::of([1001, 64], &x))];
    let cpu = || Arc::new(CpuDevice::new(Some(1)).unwrap());
    let want = session(cpu(), Options::default()).run(&x).unwrap();
    let tight = |split_batch, memory_limit_bytes: u64| {
        let options = Options { split_batch, memory_limit_bytes: Some(memory_limit_bytes), ..Options::default() };
        session(cpu(), options)
    };
    let of_cpu = session(cpu(), Options::default());
    run(&of_cpu, 1).unwrap();
    let [weights, runs] = [0, 1].map(|i| of_cpu.report().accounts[i].peak_bytes);
    let third = weights - runs + bytes_of(1001) / 3;
    assert!(matches!(tight(false, third).run(&x), Err(Error::OverBudget { .. })));
    let parts = tight(true, third);
    let got = parts.run(&x).unwrap();
    for ((name, want), (_, got)) in want.iter().zip(got.iter()) {
        assert_eq!((want.shape(), want.bytes()), (got.shape(), got.bytes()), "{name}");
    }
    let report = parts.report();
    assert!(report.steps.iter().any(|s| s.rung == Rung::SplitBatch && s.tried == 3 && s.helped == 3), "{:?}", report.steps);
    assert!(report.accounts[0].peak_bytes <= third);
    assert!(matches!(tight(true, 256).run(&x), Err(Error::OverBudget { .. })), "one item has no room");
}

#[test]
fn what_has_no_room_on_a_device_runs_on_the_next_and_is_counted() {
    let devices: Vec<Arc<dyn Device>> = vec![null(1 << 10), Arc::new(CpuDevice::new(Some(1)).unwrap())];
    let options = Options { precision: halfbyte::Precision::F16, ..Options::default() };
    let session = Session::with_devices(&model(), options, devices).unwrap();
    run(&session, 500).unwrap();
    let report = session.report();
    assert_eq!(report.steps.iter().map(|s| (s.rung, s.tried, s.helped)).collect::<Vec<_>>(), [(Rung::Cpu, 1, 1)]);
    assert_eq!(report.notes.iter().filter(|n| n.starts_with("stepped down")).count(), 1, "not to f32 there: {:?}", report.notes);
}

#[test]
fn packed_weights_of_the_cpu_are_paid_for() {
    let device: Arc<dyn Device> = Arc::new(CpuDevice::new(Some(1)).unwrap());
    let first = session(device.clone(), Options::default());
    run(&first, 400).unwrap();
    let report = first.report();
    let packed = own(&report).1;
    assert!(packed > 0 && packed <= report.weight_bytes as u64, "{packed} of {}", report.weight_bytes);
    assert_eq!(report.accounts[1].used_bytes, 0, "arenas are free between runs");
    drop(first);
    assert_eq!(device.account().used_bytes(), 0);
    let tight = session(device, Options { memory_limit_bytes: Some(packed - 1), ..Options::default() });
    assert!(matches!(run(&tight, 400), Err(Error::OverBudget { .. })));
}
