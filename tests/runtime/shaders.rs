//! The wgpu device where something goes wrong: errors with reasons, no panic, and a device that still works or says that it is lost.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use halfbyte::cli::npz;
use halfbyte::device::Device;
use halfbyte::device::cpu::CpuDevice;
use halfbyte::device::gpu::{Driver, Module, Variant};
use halfbyte::device::wgpu::{Texts, Wgpu};
use halfbyte::hardware::DeviceKind;
use halfbyte::{Error, Model, Options, Session, TensorView};

/// A device whose shaders' texts are `texts`; `None` where there is none.
fn open(texts: Texts) -> Option<(Wgpu, Arc<dyn Device>)> {
    let (driver, device) = super::texts::open(texts)?;
    Some((driver, Arc::new(device)))
}

fn plain() -> Module {
    Module::plain(Variant::named("scalar")).unwrap()
}

#[test]
fn memory_beyond_the_adapter_is_an_error_and_the_device_lives_on() {
    let Some((driver, _)) = open(|s| s.text) else { return };
    for bytes in [usize::MAX >> 2, 1 << 50] {
        match driver.allocate(bytes) {
            Err(Error::OutOfMemory { needed_bytes, .. }) => assert!(needed_bytes >= bytes as u64),
            other => panic!("{other:?}"),
        }
    }
    let address = driver.allocate(5).unwrap();
    driver.write(address, &[1, 2, 3, 4, 5]).unwrap();
    let mut back = [0; 5];
    driver.read(address, &mut back).unwrap();
    assert_eq!(back, [1, 2, 3, 4, 5]);
    driver.free(address);
    assert!(driver.read(address, &mut back).is_err(), "an address that was given back");
}

#[test]
fn memory_is_steady_when_shapes_vary_and_comes_back() {
    let Some((_, device)) = open(|s| s.text) else { return };
    let model = Model::open("models/digits-mlp.onnx").unwrap();
    let session = Session::with_device(&model, Options::default(), device.clone()).unwrap();
    let images = vec![0.25f32; 64 * 64];
    let figures = || device.pools().into_iter().map(|pool| pool.stats()).collect::<Vec<_>>();
    let round = || {
        for n in [1, 64, 7, 33, 2, 50, 13] {
            session.run(&[("x", TensorView::of([n, 64], &images[..n * 64]))]).unwrap();
        }
        figures()
    };
    let first = round();
    let again = (0..3).map(|_| round()).next_back().unwrap();
    assert!(first.len() == 2 && first.iter().all(|s| s.live_bytes > 0), "constants, and what runs write: {first:?}");
    for (first, again) in first.iter().zip(&again) {
        assert_eq!((first.reserved_bytes, first.calls.memory()), (again.reserved_bytes, again.calls.memory()));
        assert!(first.calls.allocate < 4, "{first:?}");
    }
    drop(session);
    assert!(figures()[0].live_bytes == 0, "what runs write came back: {:?}", figures()[0]);
}

#[test]
fn a_shader_that_does_not_compile_says_why_and_the_device_lives_on() {
    let Some((driver, _)) = open(|_| "//@entry n: u32, finish\nfn kernel() { let x: u32 = 1.5; }\n") else { return };
    let error = driver.load(&plain()).map(drop).unwrap_err().to_string();
    assert!(error.contains("scalar") && error.contains("u32"), "{error}");
    let Some((driver, _)) = open(|_| "//@entry n: unheard\nfn kernel() {}\n") else { return };
    let error = driver.load(&plain()).map(drop).unwrap_err().to_string();
    assert!(error.contains("n: unheard"), "{error}");
    let address = driver.allocate(4).unwrap();
    driver.write(address, &[7; 4]).unwrap();
}

#[test]
fn a_lost_device_is_an_error_and_the_session_steps_down() {
    let Some((driver, device)) = open(|s| s.text) else { return };
    let model = Model::open("models/digits-mlp.onnx").unwrap();
    let inputs = npz::read("models/digits-mlp.in.npz".as_ref()).unwrap();
    let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    let devices: Vec<Arc<dyn Device>> = vec![device, Arc::new(CpuDevice::new(Some(1)).unwrap())];
    let session = Session::with_devices(&model, Options { threads: Some(1), ..Options::default() }, devices).unwrap();
    let first = session.run(&named).unwrap();
    assert_eq!(session.report().device, DeviceKind::Wgpu, "{:?}", session.report().notes);
    driver.handle().destroy();
    let second = session.run(&named).unwrap();
    let report = session.report();
    assert!(report.device == DeviceKind::Cpu && report.notes.iter().any(|n| n.contains("lost")), "{:?}", report.notes);
    for ((name, a), (_, b)) in first.iter().zip(second.iter()) {
        assert!(halfbyte::cli::run::compare(&a.to_f64(), &b.to_f64()).1 > 0.999, "{name}");
    }
    assert!(driver.allocate(16).is_err());
}

#[test]
fn a_lost_device_is_opened_again_and_the_run_repeated_but_not_for_ever() {
    if open(|s| s.text).is_none() {
        return;
    }
    let drivers = Arc::new(Mutex::new(Vec::new()));
    let kept = drivers.clone();
    let opener = move || {
        let (driver, device) = open(|s| s.text).ok_or_else(|| Error::BadInput("no adapter".into()))?;
        kept.lock().unwrap().push(driver);
        Ok(device)
    };
    let cpu = || Ok(Arc::new(CpuDevice::new(Some(1))?) as Arc<dyn Device>);
    let model = Model::open("models/digits-mlp.onnx").unwrap();
    let inputs = npz::read("models/digits-mlp.in.npz".as_ref()).unwrap();
    let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    let session = Session::with_openers(&model, Options::default(), vec![Box::new(opener), Box::new(cpu)]).unwrap();
    let lose = || drivers.lock().unwrap().last().unwrap().handle().destroy();
    let answer = || session.run(&named).unwrap().iter().map(|(_, t)| t.bytes().to_vec()).collect::<Vec<_>>();
    let first = answer();
    lose();
    assert!(answer() == first && session.report().device == DeviceKind::Wgpu, "the same bits, from the device opened again");
    let notes = session.report().notes;
    assert!(notes.iter().any(|n| n.contains("again") && n.contains("lost")), "{notes:?}");
    assert_eq!(drivers.lock().unwrap().len(), 2);
    lose();
    session.run(&named).unwrap();
    assert_eq!(session.report().device, DeviceKind::Cpu, "lost again so soon: {:?}", session.report().notes);
    assert_eq!(drivers.lock().unwrap().len(), 2);
}

#[test]
fn compiled_shaders_are_kept_and_damaged_ones_are_not_used() {
    if open(|s| s.text).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = Model::open("models/digits-mlp.onnx").unwrap();
    let inputs = npz::read("models/digits-mlp.in.npz".as_ref()).unwrap();
    let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    let cache_dir = Some(folder.path().to_path_buf());
    let options = Options { device: Some(DeviceKind::Wgpu), cache_dir, ..Options::default() };
    let files = || std::fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().path()).collect::<Vec<_>>();
    // What a process leaves that is killed after its first run.
    let run = || {
        let session = Session::new(&model, options.clone()).unwrap();
        let outputs = session.run(&named).unwrap().iter().map(|(_, t)| t.bytes().to_vec()).collect::<Vec<_>>();
        (outputs, files())
    };
    let (first, left) = run();
    let [kept] = &left[..] else {
        assert!(left.is_empty() && files().is_empty(), "{left:?} after a run, {:?} when the device had closed", files());
        println!("SKIP kept shaders: the driver gives none away");
        return;
    };
    assert!(kept.file_name().unwrap().to_string_lossy().starts_with("pipelines-"), "{kept:?}");
    let whole = std::fs::read(kept).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [flipped, whole[..whole.len() / 2].to_vec(), vec![7; 5], Vec::new(), whole] {
        std::fs::write(kept, damaged).unwrap();
        assert_eq!(run().0, first);
    }
}

#[test]
fn tuning_finds_right_kernels_keeps_them_and_sessions_use_them() {
    if open(|s| s.text).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = Model::open("models/digits-cnn.onnx").unwrap();
    let inputs = npz::read("models/digits-cnn.in.npz".as_ref()).unwrap();
    let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    let cache_dir = Some(folder.path().to_path_buf());
    let options = Options { device: Some(DeviceKind::Wgpu), cache_dir: cache_dir.clone(), ..Options::default() };
    let none = halfbyte::session::tune(&model, &options, &named, std::time::Duration::MAX, &mut |_, _| false).unwrap();
    assert!(none.findings.is_empty() && none.left > 0, "{none:?}");
    let found = halfbyte::session::tune(&model, &options, &named, std::time::Duration::from_secs(60), &mut |_, _| true).unwrap();
    assert!(!found.findings.is_empty() && found.file.as_ref().is_some_and(|f| f.is_file()), "{found:?}");
    for f in &found.findings {
        assert!(f.median_us <= f.before_us && f.refused.is_empty(), "{f:?}");
    }
    let session = Session::new(&model, options).unwrap();
    session.run(&named).unwrap();
    let used: Vec<String> = session.report().nodes.iter().map(|n| n.kernel.clone()).collect();
    for f in &found.findings {
        assert!(used.iter().any(|k| k == f.kernel), "{f:?} among {used:?}");
    }
    let cpu = Options { device: Some(DeviceKind::Cpu), cache_dir, ..Options::default() };
    assert!(halfbyte::session::tune(&model, &cpu, &named, std::time::Duration::MAX, &mut |_, _| true).is_err());
}

/// Every model of models/ and, where they lie beside the checkout, of the zoo: all of it on shaders, f32 and as stored.
#[test]
fn whole_models_agree_with_the_reference() {
    let stored = |name: &str| ["onnx", "in.npz", "out.npz"].map(|kind| PathBuf::from(format!("models/{name}.{kind}")));
    let small = ["digits-mlp", "digits-cnn", "digits-cnn-qdq", "digits-cnn-qop", "ppocr-cls"];
    let mut models: Vec<(String, [PathBuf; 3])> = small.into_iter().map(|n| (n.to_string(), stored(n))).collect();
    match std::env::var("HALFBYTE_SUITES") {
        Ok(suites) => {
            for folder in std::fs::read_dir(PathBuf::from(suites).join("zoo")).unwrap().flatten() {
                let files = ["model.onnx", "case0.in.npz", "case0.out.npz"].map(|f| folder.path().join(f));
                models.extend(files[0].exists().then(|| (folder.file_name().to_string_lossy().into_owned(), files)));
            }
        }
        Err(_) => println!("SKIP the zoo on shaders: HALFBYTE_SUITES is not set"),
    }
    models.sort();
    models.dedup_by(|a, b| a.0 == b.0);
    let mut wrong = Vec::new();
    for (name, files) in models {
        let Some((_, device)) = open(|s| s.text) else { return };
        let (left, error, cosine) = super::models::on_device(&name, files, device, Options::default());
        println!("{name}: error {error:.1e}, cosine {cosine:.6}");
        let quantised = ["qdq", "qop", "int8"].iter().any(|q| name.contains(q));
        let close = if quantised { cosine >= 0.995 } else { error <= 1e-3 };
        if left > 0 || !close {
            wrong.push(format!("{name}: {left} commands on the CPU, error {error:.1e}, cosine {cosine:.6}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
