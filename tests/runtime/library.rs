//! The binary with libraries in libcuda's place: empty, too old, stubs, and one that fails at every call in turn. It never panics,
//! and the CPU gives the answer.
#![cfg(target_os = "linux")]

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use halfbyte::hardware::libcuda::SYMBOLS;
use tempfile::TempDir;

/// A folder with a libcuda.so made from C; `None` without a C compiler.
fn library(code: &str) -> Option<TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("fake.c");
    std::fs::write(&source, code).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-w", "-o"]).arg(folder.path().join("libcuda.so")).arg(&source);
    match compiler.status() {
        Ok(status) => assert!(status.success(), "the fake library compiles"),
        Err(_) => {
            println!("SKIP libraries in libcuda's place: there is no C compiler");
            return None;
        }
    }
    Some(folder)
}

fn fake() -> Option<&'static Path> {
    static FAKE: OnceLock<Option<TempDir>> = OnceLock::new();
    FAKE.get_or_init(|| library(include_str!("fake_libcuda.c"))).as_ref().map(|f| f.path())
}

fn halfbyte(folder: &Path, arguments: &str, variables: &[(&str, &str)]) -> Output {
    // As in tests/cli.rs: where cargo built it, or elsewhere.
    let programs = std::env::var_os("HALFBYTE_PROGRAMS").map(|folder| Path::new(&folder).join("halfbyte"));
    let mut command = Command::new(programs.unwrap_or_else(|| env!("CARGO_BIN_EXE_halfbyte").into()));
    command.args(arguments.split(' ')).env("LD_LIBRARY_PATH", folder).envs(variables.iter().copied());
    command.output().expect("invariant: the binary was built")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

const RUN: &str = "run models/digits-cnn-qdq.onnx --inputs models/digits-cnn-qdq.in.npz --check-outputs models/digits-cnn-qdq.out.npz --cos 0.999";

/// The run succeeds with right outputs, and says this.
fn answers_on_the_cpu(folder: &Path, variables: &[(&str, &str)], says: &str) {
    let done = halfbyte(folder, RUN, variables);
    let said = text(&done);
    let right = done.status.success() && said.contains("agrees with the reference") && !said.contains("panicked");
    assert!(right && said.contains(says), "{variables:?}, {says:?}: {said}");
}

#[test]
fn libraries_that_are_no_driver_are_passed_over_with_the_reason() {
    let Some(empty) = library("int nothing;") else { return };
    answers_on_the_cpu(empty.path(), &[], "has no cuInit");
    let all = |names: &[&str], code: u32| names.iter().map(|n| format!("int {n}() {{ return {code}; }}\n")).collect::<String>();
    let without = |gone: &str| SYMBOLS.iter().copied().filter(|s| *s != gone).collect::<Vec<_>>();
    let old = library(&all(&without("cuTensorMapEncodeTiled"), 0)).unwrap();
    answers_on_the_cpu(old.path(), &[], "has no cuTensorMapEncodeTiled: a driver for CUDA 12.0");
    let stub = library(&all(SYMBOLS, 34)).unwrap();
    answers_on_the_cpu(stub.path(), &[], "is a stub without a driver");
    let probed = text(&halfbyte(stub.path(), "probe", &[]));
    assert!(probed.contains("stub") && !probed.contains("panicked"), "{probed}");
    let refused = halfbyte(stub.path(), &format!("{RUN} --device cuda"), &[]);
    assert_eq!(refused.status.code(), Some(77), "{}", text(&refused));
}

#[test]
fn a_gpu_that_kernels_do_not_run_on_is_passed_over() {
    let Some(fake) = fake() else { return };
    answers_on_the_cpu(fake, &[("FAKE_CUDA_SM", "52")], "compute capability 5.2");
}

#[test]
fn whatever_call_fails_the_cpu_answers() {
    let Some(fake) = fake() else { return };
    // Launches compute nothing here, so that the last of all things to fail is always a launch.
    for (i, symbol) in SYMBOLS.iter().enumerate() {
        // Sticky and not, alternating; early and late.
        let (code, from) = ([700, 1, 2, 999][i % 4], 1 + i % 3);
        let rules = format!("{symbol}:{from}:{code},cuLaunchKernelEx:2:719");
        answers_on_the_cpu(fake, &[("FAKE_CUDA_FAIL", &rules)], "note: ");
    }
}

#[test]
fn errors_carry_the_assemblers_words_and_the_free_memory() {
    let Some(fake) = fake() else { return };
    answers_on_the_cpu(fake, &[("FAKE_CUDA_FAIL", "cuModuleLoadDataEx:1:218")], "ptxas fatal: the fake says no");
    answers_on_the_cpu(fake, &[("FAKE_CUDA_FAIL", "cuMemAlloc_v2:1:2")], "12345 available");
}

#[test]
fn every_text_is_loaded_and_the_assemblers_words_are_shown() {
    let Some(fake) = fake() else { return };
    let done = halfbyte(fake, "kernels --load --json", &[]);
    let loaded: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&done)));
    assert_eq!(loaded.as_array().unwrap().len(), halfbyte::device::gpu::variants().len(), "an H200 runs all of them");
    assert!(done.status.success() && loaded.as_array().unwrap().iter().all(|l| l["error"].is_null()), "{loaded}");
    let refused = halfbyte(fake, "kernels --load", &[("FAKE_CUDA_FAIL", "cuModuleLoadDataEx:2:218")]);
    assert!(!refused.status.success() || halfbyte::device::gpu::variants().len() < 2, "{}", text(&refused));
}

#[test]
fn what_is_taken_is_given_back() {
    let Some(fake) = fake() else { return };
    let log = fake.join("log");
    let variables = [("FAKE_CUDA_LOG", log.to_str().unwrap())];
    for (call, graphs) in [("run models/digits-cnn-qdq.onnx", false), ("bench models/digits-cnn-qdq.onnx --seconds 0.05", true)] {
        let done = halfbyte(fake, call, &variables);
        assert!(done.status.success(), "{}", text(&done));
        let lines = std::fs::read_to_string(&log).unwrap();
        let counts: HashMap<&str, i64> =
            lines.lines().filter_map(|l| l.split_once(' ')).map(|(n, c)| (n, c.parse().unwrap())).collect();
        let count = |name: &str| counts.get(name).copied().unwrap_or(0);
        for (taken, given) in [
            ("cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2"),
            ("cuStreamCreate", "cuStreamDestroy_v2"),
            ("cuMemAlloc_v2", "cuMemFree_v2"),
            ("cuMemHostAlloc", "cuMemFreeHost"),
            ("cuModuleLoadDataEx", "cuModuleUnload"),
            ("cuEventCreate", "cuEventDestroy_v2"),
            ("cuStreamEndCapture", "cuGraphDestroy"),
            ("cuGraphInstantiateWithFlags", "cuGraphExecDestroy"),
        ] {
            assert_eq!(count(taken), count(given), "{call}: {taken} and {given} of {counts:?}");
        }
        assert!(count("cuLaunchKernelEx") > 0 && count("cuMemAlloc_v2") > 0, "{counts:?}");
        println!("{call}: {} launches, {} graph launches", count("cuLaunchKernelEx"), count("cuGraphLaunch"));
        // Without host steps the second run and all later ones are graphs.
        assert!(count("cuGraphLaunch") == 0 || graphs, "{counts:?}");
    }
}
