//! The registry of versions without a network: choice, aliases, shares, trials, budgets, warm-up, and the ways of running a session.

#[cfg(all(feature = "cli", feature = "serve", unix))]
#[path = "registry/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::time::Duration;

use halfbyte::serve::registry::{
    Absent, Alias, Bound, Footprint, ModelSettings, Outcome, Registry, Rules, Running, Settings, State, Trial, VersionStatus,
    WhenFull, warm_up,
};
use halfbyte::{Model, Options, Precision, Session};

const NOTHING: Footprint = Footprint { file_bytes: 0, device_bytes: 0 };

fn registry(name: &str, versions: &[u64], model: ModelSettings) -> Registry<u64> {
    let registry = Registry::new(Settings { models: [(name.to_string(), model)].into(), ..Settings::default() }).unwrap();
    versions.iter().for_each(|&version| drop(registry.put(name, version, version, NOTHING).unwrap()));
    registry
}

fn answers(registry: &Registry<u64>, requests: usize) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    (0..requests).for_each(|_| *counts.entry(*registry.choose("m", "", None).unwrap().value).or_default() += 1);
    counts
}

fn of(status: &[VersionStatus], version: u64) -> &VersionStatus {
    status.iter().find(|s| s.version == version).unwrap()
}

fn fine() -> Outcome {
    Outcome { failed: false, latency: Duration::from_millis(1) }
}

#[test]
fn the_highest_version_answers_unless_weights_say_otherwise_while_requests_come() {
    let registry = registry("m", &[2, 10, 3], ModelSettings::default());
    assert_eq!(answers(&registry, 10), [(10, 10)].into());
    let weigh = |weights: &[(u64, f64)]| {
        let mut settings = registry.settings();
        settings.models.get_mut("m").unwrap().weights = weights.iter().copied().collect();
        registry.set(settings)
    };
    weigh(&[(2, 90.0), (3, 10.0)]).unwrap();
    let [two, three] = [2, 3].map(|v| answers(&registry, 1000).get(&v).copied().unwrap());
    assert!(two.abs_diff(900) <= 3 && three.abs_diff(100) <= 3, "{two} {three}");
    let with = |key: &str| *registry.choose("m", "", Some(key)).unwrap().value;
    let before: Vec<u64> = (0..500).map(|i| with(&i.to_string())).collect();
    assert_eq!(before, (0..500).map(|i| with(&i.to_string())).collect::<Vec<_>>(), "equal keys, equal versions");
    weigh(&[(2, 50.0), (3, 50.0)]).unwrap();
    let after: Vec<u64> = (0..500).map(|i| with(&i.to_string())).collect();
    assert!(before.iter().zip(&after).all(|(b, a)| (b, a) != (&3, &2)), "nobody goes back to the old version");
    // A share of a version that is not ready goes to the others.
    weigh(&[(2, 1.0), (7, 99.0)]).unwrap();
    assert_eq!(answers(&registry, 10), [(2, 10)].into());
    weigh(&[(7, 1.0)]).unwrap();
    assert!(matches!(registry.choose("m", "", None), Err(Absent::NotReady(why)) if why.contains("weights")));
    assert!(weigh(&[(7, -1.0)]).is_err() && registry.settings().models["m"].weights == [(7, 1.0)].into(), "nothing changed");
    assert_eq!(*registry.choose("m", "10", None).unwrap().value, 10, "a version that is named answers");
}

#[test]
fn aliases_stand_for_models_and_versions_and_move_while_requests_come() {
    let aliases = [("stable".to_string(), 2), ("next".to_string(), 3)].into();
    let registry = registry("m", &[2, 3], ModelSettings { aliases, ..ModelSettings::default() });
    let alias = |name: &str, version: Option<u64>| {
        let mut settings = registry.settings();
        settings.aliases.insert(name.into(), Alias { model: "m".into(), version });
        registry.set(settings)
    };
    alias("prod", Some(2)).unwrap();
    alias("any", None).unwrap();
    let chosen = |name: &str, version: &str| registry.choose(name, version, None).map(|c| (c.model, *c.value));
    let model = |version| Ok(("m".to_string(), version));
    assert_eq!(
        [chosen("m", "stable"), chosen("m", "next"), chosen("prod", ""), chosen("any", "")],
        [model(2), model(3), model(2), model(3)]
    );
    assert_eq!([chosen("prod", "2"), chosen("prod", "stable"), chosen("any", "2")], [model(2), model(2), model(2)]);
    assert!(matches!(chosen("prod", "3"), Err(Absent::Unknown(_))), "prod is version 2");
    assert!(matches!(chosen("m", "old"), Err(Absent::Unknown(why)) if why.contains("there are 2, 3")));
    assert!(matches!(chosen("n", ""), Err(Absent::Unknown(_))));
    alias("prod", Some(3)).unwrap();
    assert_eq!(chosen("prod", ""), model(3));
    assert!(alias("m", Some(3)).unwrap_err().to_string().contains("registry: aliases."), "a model is no alias");
    let status = registry.status(|_| None);
    assert_eq!(
        (&of(&status, 2).aliases[..], &of(&status, 3).aliases[..]),
        (&["stable".to_string()][..], &["next".into(), "prod".into()][..])
    );
}

fn trial(rules: Rules) -> Registry<u64> {
    let canary = Some(Trial { version: 2, rules });
    registry("m", &[1, 2], ModelSettings { canary, ..ModelSettings::default() })
}

#[test]
fn a_version_on_trial_that_fails_loses_its_share_and_the_reason_is_told() {
    let registry = trial(Rules { steps: vec![0.2], ..Rules::default() });
    let status = registry.status(|_| None);
    assert_eq!((of(&status, 1).share, of(&status, 2).share), (0.8, 0.2));
    let mut ended = Vec::new();
    for request in 0..1000 {
        let chosen = registry.choose("m", "", None).unwrap();
        let failed = chosen.version == 2;
        if registry.record(&chosen, Outcome { failed, ..fine() }) {
            ended.push(request);
        }
    }
    assert!(ended.len() == 1 && ended[0] < 110, "20 of a fifth of the requests: {ended:?}");
    assert_eq!(answers(&registry, 100), [(1, 100)].into());
    let status = registry.status(|_| None);
    let last = of(&status, 2).last_canary.clone().unwrap();
    assert_eq!(last.reason, "error rate 100.0 % (20 of 20 requests), at most 1.0 % are allowed");
    assert!(!last.promoted && of(&status, 2).share == 0.0 && of(&status, 2).state == State::Ready);
    assert_eq!((of(&status, 2).errors, of(&status, 2).requests), (20, 20));
    // What it becomes is in the settings: after a restart the highest version still gets nothing.
    let settings = registry.settings().models["m"].clone();
    assert_eq!((settings.weights, settings.canary), ([(1, 1.0)].into(), None));
}

#[test]
fn a_version_on_trial_that_is_slow_is_measured_against_the_others() {
    let registry = trial(Rules { steps: vec![0.5], p99_ms: Bound { absolute: 0.0, relative: 2.0 }, ..Rules::default() });
    for _ in 0..200 {
        let chosen = registry.choose("m", "", None).unwrap();
        let latency = Duration::from_millis(if chosen.version == 2 { 5 } else { 2 });
        registry.record(&chosen, Outcome { failed: false, latency });
    }
    let reason = registry.settings().models["m"].last_canary.clone().unwrap().reason;
    assert!(reason.starts_with("p99 5.0 ms, at most 4.0 ms are allowed"), "{reason}");
}

#[test]
fn a_version_on_trial_that_holds_is_promoted_and_requests_by_number_do_not_count() {
    let registry = trial(Rules { steps: vec![0.25, 0.5], hold_s: 0.0, step_requests: 30, ..Rules::default() });
    for _ in 0..100 {
        let named = registry.choose("m", "2", None).unwrap();
        assert!(!registry.record(&named, Outcome { failed: true, ..fine() }), "somebody tries it out");
    }
    let mut shares = Vec::new();
    for _ in 0..400 {
        let chosen = registry.choose("m", "", None).unwrap();
        registry.record(&chosen, fine());
        shares.push(of(&registry.status(|_| None), 2).share);
    }
    shares.dedup();
    assert_eq!(shares, [0.25, 0.5, 1.0]);
    let settings = registry.settings().models["m"].clone();
    assert!(settings.last_canary.unwrap().promoted && settings.weights == [(2, 1.0)].into() && settings.canary.is_none());
}

#[test]
fn a_trial_without_another_version_goes_on_rather_than_leave_nobody_to_answer() {
    let canary = Some(Trial { version: 2, rules: Rules::default() });
    let registry = registry("m", &[2], ModelSettings { canary, ..ModelSettings::default() });
    for _ in 0..200 {
        let chosen = registry.choose("m", "", None).unwrap();
        assert!(!registry.record(&chosen, Outcome { failed: true, ..fine() }));
    }
    registry.put("m", 1, 1, NOTHING).unwrap();
    let mut requests = 0;
    while registry.settings().models["m"].last_canary.is_none() && requests < 1000 {
        registry.record(&registry.choose("m", "", None).unwrap(), Outcome { failed: true, ..fine() });
        requests += 1;
    }
    assert_eq!(answers(&registry, 10), [(1, 10)].into());
}

#[test]
fn budgets_are_kept_by_refusal_or_by_unloading_what_was_not_asked_for() {
    let bytes = |device_bytes| Footprint { file_bytes: 10, device_bytes };
    let own = ModelSettings { memory_limit_bytes: Some(50), ..ModelSettings::default() };
    let registry = registry("m", &[], own);
    let refused = registry.put("m", 1, 1, bytes(41)).unwrap_err().to_string();
    assert!(
        refused.contains("it takes 51 B (10 B of constants, 41 B on the device)")
            && refused.contains("models.m.memory_limit_bytes allows 50 B"),
        "{refused}"
    );
    assert!(registry.choose("m", "", None).is_err(), "it takes no request");
    let set = |change: fn(&mut Settings)| {
        let mut settings = registry.settings();
        change(&mut settings);
        registry.set(settings).unwrap();
    };
    set(|s| s.memory_limit_bytes = Some(100));
    registry.put("m", 1, 1, bytes(30)).unwrap();
    registry.put("n", 1, 10, bytes(30)).unwrap();
    let refused = registry.put("o", 1, 20, bytes(30)).unwrap_err().to_string();
    assert!(refused.contains("it takes 40 B, 80 B are taken and memory_limit_bytes is 100 B"), "{refused}");
    registry.put("m", 1, 2, bytes(40)).unwrap();
    // Used after n: n goes.
    registry.choose("m", "", None).unwrap();
    set(|s| s.when_full = WhenFull::UnloadIdle);
    let gone = registry.put("o", 1, 20, bytes(30)).unwrap();
    assert_eq!(gone.iter().map(|v| **v).collect::<Vec<_>>(), [10]);
    assert!(
        matches!(registry.choose("n", "", None), Err(Absent::NotReady(why)) if why.contains("make room for version 1 of \"o\""))
    );
    set(|s| s.models.values_mut().for_each(|m| m.pinned = true));
    registry.put("n", 1, 10, bytes(30)).unwrap();
    assert!(registry.choose("m", "", None).is_ok() && registry.choose("o", "", None).is_err(), "m is pinned");
}

#[test]
fn a_version_that_is_replaced_goes_on_for_those_who_have_it() {
    let registry = registry("m", &[1], ModelSettings::default());
    let before = registry.choose("m", "", None).unwrap();
    registry.loading("m", 1);
    registry.unavailable("m", 1, "its successor is broken");
    assert!(registry.choose("m", "", None).is_ok(), "a version that is ready stays so until another is");
    registry.put("m", 1, 100, NOTHING).unwrap();
    assert!(!registry.record(&before, Outcome { failed: true, ..fine() }));
    let status = registry.status(|_| None);
    assert_eq!((*before.value, of(&status, 1).errors), (1, 0), "its successor has figures of its own");
}

#[test]
fn warm_up_knows_what_a_session_takes_before_the_first_request() {
    let session = Session::new(&Model::open("models/digits-cnn.onnx").unwrap(), Options::default()).unwrap();
    let cold = Footprint::of(&session);
    let shapes = [1, 4].map(|n| BTreeMap::from([("batch".to_string(), n)]));
    let warm = warm_up(&session, &shapes).unwrap();
    let taken = Footprint::of(&session);
    assert!(
        warm.len() == 2 && taken.device_bytes > cold.device_bytes && taken.file_bytes == cold.file_bytes,
        "{cold:?} {taken:?}"
    );
    let plans = session.report().plans;
    let x = vec![0f32; 4 * 64];
    session.run(&[("x", halfbyte::TensorView::of([4, 1, 8, 8], &x))]).unwrap();
    assert_eq!((session.report().plans, Footprint::of(&session)), (plans, taken), "nothing is left to do");
    assert!(
        warm_up(&session, &[BTreeMap::from([("batch".to_string(), usize::MAX)])]).is_err(),
        "a shape that cannot be run is told"
    );
}

#[test]
fn every_way_of_running_is_told_in_order() {
    let model = Model::open("models/digits-mlp.onnx").unwrap();
    let device = Some(halfbyte::hardware::DeviceKind::Cpu);
    let session = |precision| Session::new(&model, Options { precision, device, ..Options::default() }).unwrap();
    let ways = |session: &Session| Running::of(session, &[]).ways;
    let told: Vec<_> =
        ways(&session(Precision::Int8)).iter().map(|way| (way.precision, way.is_used, way.failed.clone())).collect();
    assert_eq!(told, [(Precision::Int8, true, None), (Precision::F16, false, None), (Precision::F32, false, None)]);
    // What is not finite in fewer bits is run in more: here in none.
    let (session, x) = (session(Precision::F16), [f32::NAN; 64]);
    session.run(&[("x", halfbyte::TensorView::of([1, 64], &x))]).unwrap();
    let ways = ways(&session);
    assert!(ways.len() == 2 && ways[1].is_used && !ways[0].is_used, "{ways:?}");
    assert!(ways[0].failed.as_ref().is_some_and(|why| why.contains("not finite")), "{ways:?}");
}
