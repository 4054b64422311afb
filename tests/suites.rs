//! The ONNX backend node tests and the model zoo through the command line, when they lie beside the checkout
//! (`HALFBYTE_SUITES` names the folder that their set-up made; scripts/test sets it).
#![cfg(feature = "cli")]

use std::process::Command;

fn suite(script: &str, device: &str, arguments: &[&str]) -> Option<String> {
    let Ok(folder) = std::env::var("HALFBYTE_SUITES") else {
        println!("SKIP {script}: HALFBYTE_SUITES is not set, see scripts/test");
        return None;
    };
    let batch = format!("{} suite {{list}} --device {device}", env!("CARGO_BIN_EXE_halfbyte"));
    let mut command = Command::new(format!("{folder}/venv/bin/python"));
    command.arg(format!("../shared/tools/{script}")).args(["--batch-cmd", &batch]);
    command.args(arguments.iter().map(|a| a.replace("DIR", &folder)));
    let done = command.output().expect("invariant: the suite's Python runs");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    print!("{text}");
    Some(text)
}

/// N of the last line's "N passed", and whether it says "0 failed".
fn verdict(text: &str) -> (usize, bool) {
    let line = text.lines().rev().find(|l| l.contains(" passed, ")).unwrap_or("0 passed");
    (line.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0), line.contains(" 0 failed"))
}

#[test]
fn onnx_node_tests() {
    let Some(text) = suite("node_suite.py", "cpu", &["--data", "DIR/node", "--core", "-v"]) else { return };
    let (passed, _) = verdict(&text);
    assert!(passed >= 1108, "{passed} of the 1108 that passed before");
}

#[test]
fn onnx_node_tests_on_shaders() {
    #[cfg(feature = "wgpu")]
    if halfbyte::hardware::wgpu::adapters().is_ok() {
        let Some(text) = suite("node_suite.py", "wgpu", &["--data", "DIR/node", "--core", "-v"]) else { return };
        let (passed, _) = verdict(&text);
        assert!(passed >= 1108, "{passed} of the 1108 that passed before");
        return;
    }
    assert!(std::env::var_os("HALFBYTE_REQUIRE_WGPU").is_none(), "no adapter");
    println!("SKIP the ONNX node tests on shaders: no adapter");
}

#[test]
fn float_models_of_the_zoo() {
    let float = "attacut|basic|captcha|cls|det$|rec$|fp32|silero|digits-cnn$|digits-mlp$";
    let Some(text) = suite("zoo_suite.py", "cpu", &["--zoo", "DIR/zoo", "--only", float]) else { return };
    let (passed, all) = verdict(&text);
    assert!(passed >= 24 && all, "every float model passes at 1e-3");
}

#[test]
fn quantised_models_of_the_zoo() {
    // One case differs from the stored output by more than 0.001 of cosine: docs/results says why.
    let Some(text) = suite("zoo_suite.py", "cpu", &["--zoo", "DIR/zoo", "--only", "qdq|qop|int8", "--cos", "0.995"]) else {
        return;
    };
    let (passed, all) = verdict(&text);
    assert!(passed >= 12 && all, "every quantised model keeps its cosine");
}
