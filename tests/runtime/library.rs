//! The binary with libraries in libcuda's place: empty, too old, stubs, and one that fails at every call in turn. It never panics,
//! and the CPU gives the answer.
#![cfg(target_os = "linux")]

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use halfbyte::hardware::libcuda::{SYMBOLS, VIRTUAL_MEMORY};
use tempfile::TempDir;

use crate::compiled;

fn library(code: &str) -> Option<TempDir> {
    compiled::library(code, &[])
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
    for (i, symbol) in SYMBOLS.iter().chain(VIRTUAL_MEMORY).enumerate() {
        // Sticky and not, alternating; early and late.
        let (code, from) = ([700, 1, 2, 999][i % 4], 1 + i % 3);
        let rules = format!("{symbol}:{from}:{code},cuLaunchKernelEx:2:719");
        for memory in ["slabs", "vmm"] {
            answers_on_the_cpu(fake, &[("FAKE_CUDA_FAIL", &rules), ("HALFBYTE_CUDA_MEMORY", memory)], "note: ");
        }
    }
}

/// A run on the device under `library`, whose last launch fails; how often each function was called.
fn calls(library: &Path, variables: &[(&str, &str)]) -> HashMap<String, i64> {
    let log = library.join("log");
    let always = [("FAKE_CUDA_LOG", log.to_str().unwrap()), ("FAKE_CUDA_FAIL", "cuLaunchKernelEx:2:719")];
    answers_on_the_cpu(library, &[&always, variables].concat(), "note: ");
    counts(&log)
}

fn counts(log: &Path) -> HashMap<String, i64> {
    let lines = std::fs::read_to_string(log).unwrap();
    lines.lines().filter_map(|l| l.split_once(' ')).map(|(n, c)| (n.into(), c.parse().unwrap())).collect()
}

#[test]
fn without_virtual_memory_management_memory_comes_in_slabs() {
    let Some(fake) = fake() else { return };
    let vmm = ("HALFBYTE_CUDA_MEMORY", "vmm");
    let says = |library: &Path, variables: &[(&str, &str)], words: &str| {
        let probed = text(&halfbyte(library, "probe", variables));
        assert!(probed.contains(words), "{words}: {probed}");
    };
    let slabs = |calls: &HashMap<String, i64>| calls.contains_key("cuMemAlloc_v2") && !calls.contains_key("cuMemCreate");
    for gone in VIRTUAL_MEMORY {
        let old = compiled::library(include_str!("fake_libcuda.c"), &[&format!("-D{gone}=gone_{gone}")]).unwrap();
        assert!(slabs(&calls(old.path(), &[vmm])), "{gone}");
        says(old.path(), &[], &format!("no virtual memory management: the NVIDIA driver's library has no {gone}"));
    }
    let unsupported = ("FAKE_CUDA_VMM", "0");
    assert!(slabs(&calls(fake, &[vmm, unsupported])));
    says(fake, &[unsupported], "no virtual memory management: the device does not support it");
    says(fake, &[], "virtual memory management in steps of 2.0 MiB");
    let refused = ("FAKE_CUDA_FAIL", "cuMemGetAllocationGranularity:1:801");
    says(fake, &[refused], "not supported (CUDA error 801)");
    // Slabs unless the other is asked for.
    assert!(slabs(&calls(fake, &[])) && slabs(&calls(fake, &[("HALFBYTE_CUDA_MEMORY", "slabs")])));
    let mapped = calls(fake, &[vmm]);
    assert!(mapped.contains_key("cuMemSetAccess") && !mapped.contains_key("cuMemAlloc_v2"), "{mapped:?}");
    let wrong = halfbyte(fake, RUN, &[("HALFBYTE_CUDA_MEMORY", "pages")]);
    assert!(!wrong.status.success() && text(&wrong).contains("slabs and vmm are allowed"), "{}", text(&wrong));
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
    let run = ("run models/digits-cnn-qdq.onnx", false);
    let bench = ("bench models/digits-cnn-qdq.onnx --seconds 0.05", true);
    for (memory, (call, graphs)) in [("slabs", run), ("slabs", bench), ("vmm", run), ("vmm", bench)] {
        let variables = [("FAKE_CUDA_LOG", log.to_str().unwrap()), ("FAKE_CUDA_LATE", "1"), ("HALFBYTE_CUDA_MEMORY", memory)];
        let done = halfbyte(fake, call, &variables);
        assert!(done.status.success(), "{}", text(&done));
        let counts = counts(&log);
        let count = |name: &str| counts.get(name).copied().unwrap_or(0);
        for (taken, given) in [
            ("cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2"),
            ("cuStreamCreate", "cuStreamDestroy_v2"),
            ("cuMemAlloc_v2", "cuMemFree_v2"),
            ("cuMemAddressReserve", "cuMemAddressFree"),
            ("cuMemCreate", "cuMemRelease"),
            ("cuMemHostAlloc", "cuMemFreeHost"),
            ("cuModuleLoadDataEx", "cuModuleUnload"),
            ("cuEventCreate", "cuEventDestroy_v2"),
            ("cuStreamEndCapture", "cuGraphDestroy"),
            ("cuGraphInstantiateWithFlags", "cuGraphExecDestroy"),
        ] {
            assert_eq!(count(taken), count(given), "{call}: {taken} and {given} of {counts:?}");
        }
        assert!(count("cuLaunchKernelEx") > 0 && count("cuMemAlloc_v2") + count("cuMemMap") > 0, "{counts:?}");
        assert!((count("cuMemAlloc_v2") == 0) == (memory == "vmm"), "{counts:?}");
        println!("{call}: {} launches, {} graph launches", count("cuLaunchKernelEx"), count("cuGraphLaunch"));
        // Without host steps the second run and all later ones are graphs.
        assert!(count("cuGraphLaunch") == 0 || graphs, "{counts:?}");
    }
}
