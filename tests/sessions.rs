//! The memory of sessions: accounts, budgets, and what is given back when a device is full.

use std::sync::Arc;

use halfbyte::device::Device;
use halfbyte::device::cpu::CpuDevice;
use halfbyte::device::null::NullDevice;
use halfbyte::hardware::{self, DeviceInfo};
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
    let bytes_of = |n| {
        let session = session(null(0), Options::default());
        run(&session, n).unwrap();
        own(&session.report()).1
    };
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
