//! The command line as a user meets it.
#![cfg(feature = "cli")]

use std::process::{Command, Output};

fn halfbyte(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_halfbyte")).args(arguments).output().expect("invariant: the binary was built")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn run_checks_compares_and_reports() {
    let call = "run models/digits-cnn.onnx --inputs models/digits-cnn.in.npz --check-outputs models/digits-cnn.out.npz --compare-precisions";
    let done = halfbyte(&call.split(' ').collect::<Vec<_>>());
    let said = text(&done);
    assert!(done.status.success(), "{said}");
    for word in ["agrees with the reference", "int8", "Conv", "cpu-", "weights"] {
        assert!(said.contains(word), "{word} is missing from {said}");
    }
}

#[test]
fn a_wrong_reference_fails() {
    let done = halfbyte(&["run", "models/digits-mlp.onnx", "--seed", "9", "--check-outputs", "models/digits-mlp.out.npz"]);
    assert_eq!(done.status.code(), Some(1), "{}", text(&done));
}

#[test]
fn files_that_are_no_models_are_clear_errors() {
    for file in ["Cargo.toml", "models/digits-cnn.in.npz", "no-such-file.onnx", "src"] {
        let done = halfbyte(&["run", file]);
        assert_eq!(done.status.code(), Some(1), "{file}: {}", text(&done));
        assert!(text(&done).contains("error: ") && text(&done).contains(file), "{}", text(&done));
    }
}

#[test]
fn inspect_bench_kernels_and_probe_print_json() {
    let calls = [
        "inspect models/digits-cnn.onnx --json",
        "bench models/digits-cnn.onnx --seconds 0.05 --json",
        "bench gemm --shapes 8x64x64 --thread-counts 1 --json",
        "kernels --gemm 8x64x64 --dtype u8s8 --json",
        "probe --json",
    ];
    for call in calls {
        let done = halfbyte(&call.split(' ').collect::<Vec<_>>());
        assert!(done.status.success(), "{call}: {}", text(&done));
        let parsed: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{call}: {e}"));
        assert!(!parsed.is_null());
    }
}

#[test]
fn suite_says_ok_and_error_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (out, list) = (folder.path().join("out.npz"), folder.path().join("list.tsv"));
    let good = format!("good\tmodels/digits-mlp.onnx\tmodels/digits-mlp.in.npz\t{}", out.display());
    std::fs::write(&list, format!("bad\tCargo.toml\tx\ty\n{good}\n")).unwrap();
    let done = halfbyte(&["suite", list.to_str().unwrap()]);
    let said = text(&done);
    assert!(said.contains("ERROR\tbad") && said.contains("OK\tgood"), "{said}");
    assert_eq!(done.status.code(), Some(1));
    assert!(out.exists());
}

#[test]
fn a_device_without_kernels_is_unsupported() {
    let done = halfbyte(&["run", "models/digits-mlp.onnx", "--device", "cuda"]);
    assert_eq!(done.status.code(), Some(77), "{}", text(&done));
    assert!(text(&done).contains("UNSUPPORTED"));
}
