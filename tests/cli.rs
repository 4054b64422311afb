//! The command line as a user meets it.
#![cfg(feature = "cli")]

use std::path::Path;
use std::process::{Command, Output};

/// A program of this package: in the folder that `HALFBYTE_PROGRAMS` names, else where cargo built it.
fn program(built: &str) -> Command {
    let elsewhere = std::env::var_os("HALFBYTE_PROGRAMS").zip(Path::new(built).file_name());
    elsewhere.map_or_else(|| Command::new(built), |(folder, name)| Command::new(Path::new(&folder).join(name)))
}

fn halfbyte(arguments: &[&str]) -> Output {
    program(env!("CARGO_BIN_EXE_halfbyte")).args(arguments).output().expect("invariant: the binary was built")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn run_checks_compares_and_reports() {
    let call = "run models/digits-cnn.onnx --inputs models/digits-cnn.in.npz --check-outputs models/digits-cnn.out.npz --compare-precisions --device cpu";
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

fn json(call: &str) -> serde_json::Value {
    let done = halfbyte(&call.split(' ').collect::<Vec<_>>());
    assert!(done.status.success(), "{call}: {}", text(&done));
    serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{call}: {e}"))
}

#[test]
fn every_command_has_examples_and_json() {
    for command in
        ["run", "suite", "inspect", "bench", "convert", "compare", "prune", "quantize", "lora", "kernels", "probe", "memory"]
    {
        let said = text(&halfbyte(&[command, "--help"]));
        assert!(said.contains("Example") && said.contains("halfbyte ") && said.contains("--json"), "{command}: {said}");
    }
    assert!(text(&halfbyte(&["--help"])).contains("77"));
}

#[test]
fn inspect_tells_operators_parameters_flops_memory_and_predicted_times() {
    let said = json("inspect models/digits-cnn.onnx --json");
    assert!(said["operators"]["Conv"].as_u64() > Some(0));
    assert_eq!(said["unsupported"], serde_json::json!([]));
    for field in ["parameters", "parameter_bytes", "flops", "arena_bytes", "weight_bytes"] {
        assert!(said[field].as_f64() > Some(0.0), "{field}: {said}");
    }
    let nodes = said["report"]["nodes"].as_array().unwrap();
    assert!(nodes.iter().all(|n| n["predicted_us"].as_f64() > Some(0.0) && n["kernel"].is_string()), "{nodes:?}");
    assert!(text(&halfbyte(&["inspect", "models/digits-cnn.onnx"])).contains("predicted us"));
}

#[test]
fn bench_measures_batches_and_compares_with_a_run_before() {
    let folder = tempfile::tempdir().unwrap();
    let (before, trace) = (folder.path().join("before.json"), folder.path().join("trace.json"));
    let call = "bench models/digits-cnn.onnx --seconds 0.05 --warmup 1 --json";
    let one = json(call);
    for field in
        ["mean_us", "p50_us", "p95_us", "p99_us", "runs_per_second", "gflops", "share_of_roof", "roof_f32_gflops", "runs"]
    {
        assert!(one[field].as_f64() > Some(0.0), "{field}: {one}");
    }
    assert!(one["std_us"].as_f64() >= Some(0.0) && one["interrupted"] == false);
    std::fs::write(&before, one.to_string()).unwrap();
    let more = format!("{call} --batch 8 --compare {} --trace {}", before.display(), trace.display());
    let eight = json(&more);
    let ratio = eight["flops"].as_f64().unwrap() / one["flops"].as_f64().unwrap();
    assert!((ratio - 8.0).abs() < 1e-6, "eight images are eight times the work, not {ratio}");
    assert!(eight["items_per_second"].as_f64() > eight["runs_per_second"].as_f64());
    assert!(eight["compared"]["p50"].as_f64() > Some(0.0));
    assert!(eight["compared"]["differences"][0].as_str().unwrap().contains("batch"), "{eight}");
    let events: serde_json::Value = serde_json::from_slice(&std::fs::read(&trace).unwrap()).unwrap();
    assert!(events["traceEvents"].as_array().is_some_and(|e| !e.is_empty()));
    let table = text(&halfbyte(&call.replace(" --json", "").split(' ').collect::<Vec<_>>()));
    for word in ["mean us", "std", "p50", "p95", "p99", "runs/s", "peak memory", "GFLOP/s", "of measured roof"] {
        assert!(table.contains(word), "{word} is missing from {table}");
    }
}

#[test]
fn convert_halves_the_weights_and_compare_shows_what_that_costs() {
    let folder = tempfile::tempdir().unwrap();
    let half = folder.path().join("half.onnx");
    let half = half.to_str().unwrap();
    let said = json(&format!("convert models/digits-cnn.onnx --to f16 -o {half} --inputs models/digits-cnn.in.npz --json"));
    let bytes = |what: &str| said["weights"][what].as_f64().unwrap();
    assert!(bytes("bytes_before") / bytes("bytes_after") > 1.95 && said["weights"]["kept"] == serde_json::json!([]), "{said}");
    assert_eq!(said["file_bytes_after"].as_u64(), std::fs::metadata(half).ok().map(|m| m.len()));

    let call = format!("compare models/digits-cnn.onnx {half} --inputs models/digits-cnn.in.npz");
    let said = json(&format!("{call} --min-sqnr 60 --min-cosine 0.999999 --json"));
    let output = &said["outputs"][0];
    assert!(output["sqnr_db"].as_f64() > Some(60.0) && output["sqnr_db"].as_f64() < Some(120.0), "{said}");
    assert_eq!((&output["top1_agreement"], &said["passed"]), (&1.0.into(), &true.into()));
    for side in ["original", "changed"] {
        assert!(["file_bytes", "constant_bytes", "median_us"].iter().all(|f| said[side][f].as_f64() > Some(0.0)), "{said}");
    }
    let run = |call: &str| halfbyte(&call.split(' ').collect::<Vec<_>>());
    let done = run(&format!("{call} --min-sqnr 150"));
    assert!(done.status.code() == Some(1) && text(&done).contains("TOO FAR"), "{}", text(&done));
    let same = json("compare models/digits-mlp.onnx models/digits-mlp.onnx --samples 3 --batch 2 --json");
    assert_eq!((&same["batches"], &same["outputs"][0]["equal_share"]), (&3.into(), &1.0.into()));
    let table = text(&run(&format!("compare models/digits-cnn.onnx {half} --data models/digits-cnn.in.npz --runs 2")));
    for word in ["SQNR dB", "same top-1", "constants 2.00 x smaller", "1 runs compared"] {
        assert!(table.contains(word), "{word} is missing from {table}");
    }

    let outside = folder.path().join("no-such-folder/m.onnx");
    let refused = run(&format!("convert models/digits-cnn.onnx -o {}", outside.display()));
    assert!(refused.status.code() == Some(1) && text(&refused).contains("no-such-folder"), "{}", text(&refused));
    assert_eq!(run(&format!("convert {half} -o {half}")).status.code(), Some(1), "nothing is left to be done");
    assert!(
        text(&run(&format!("compare {half} {half} --data models/digits-mlp.in.npz --array x=no"))).contains("no array \"no\"")
    );
}

#[test]
fn prune_writes_models_with_zeros_or_smaller_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("pruned.onnx").display().to_string();
    let prune = |what: &str| format!("prune models/digits-mlp.onnx --calibrate models/digits-mlp.in.npz {what} -o {out}");
    let said = json(&(prune("--share 0.5 --json") + " --ends"));
    let layers = said["layers"].as_array().unwrap();
    assert!(layers.len() == 3 && layers.iter().all(|l| l["zeros"] == 0.5 && l["relative_error"].as_f64() < Some(0.5)), "{said}");
    assert_eq!(json(&format!("inspect {out} --json"))["parameters"], said["parameters_before"]);
    let said = json(&prune("--channels 0.25 --json"));
    assert_eq!((&said["channels"][0]["before"], &said["channels"][0]["after"]), (&64.into(), &48.into()));
    assert_eq!(json(&format!("inspect {out} --json"))["parameters"], said["parameters_after"]);
    let run = |what: &str| halfbyte(&prune(what).split(' ').collect::<Vec<_>>());
    for word in ["50.0 %", "left alone", "the first or the last layer", "of which"] {
        let table = text(&run("--pattern 2:4"));
        assert!(table.contains(word), "{word} is missing from {table}");
    }
    assert!(text(&run("--blocks 1")).contains("1 residual blocks asked for, 0 could"));
    for bad in ["--share 1.5", "--pattern 3:4", "--share 0.5 --blocks 1"] {
        assert_eq!(run(bad).status.code(), Some(2), "{bad}");
    }
    assert!(text(&halfbyte(&["prune", "models/digits-mlp.onnx", "--share", "0.5", "-o", &out])).contains("--calibrate"));
}

#[test]
fn lora_merges_adapters_and_shows_what_rounding_costs() {
    let folder = tempfile::tempdir().unwrap();
    let [adapter, out] = ["a.safetensors", "adapted.onnx"].map(|f| folder.path().join(f).display().to_string());
    // For W1, [128 x 64] inputs by outputs: A is 2 x 128, B is 64 x 2.
    let header = r#"{"base.W1.lora_A.weight":{"dtype":"F32","shape":[2,128],"data_offsets":[0,1024]},
        "base.W1.lora_B.weight":{"dtype":"F32","shape":[64,2],"data_offsets":[1024,1536]}}"#;
    let values = (0..384).flat_map(|i| ((i * 37 % 101) as f32 / 101.0 - 0.5).to_le_bytes());
    let length = (header.len() as u64).to_le_bytes();
    std::fs::write(&adapter, length.into_iter().chain(header.bytes()).chain(values).collect::<Vec<u8>>()).unwrap();
    let call = format!("lora models/digits-mlp.onnx --adapter {adapter} -o {out} --json");
    let said = json(&call);
    assert_eq!((&said[0]["rank"], &said[0]["scale"], &said[0]["sqnr_db"]), (&2.into(), &1.0.into(), &serde_json::Value::Null));
    let compare = |other: &str| json(&format!("compare {other} {out} --data models/digits-mlp.in.npz --json"));
    assert!(compare("models/digits-mlp.onnx")["outputs"][0]["equal_share"].as_f64() < Some(0.5), "the answers are other ones");
    let said = json(&format!("{call} --alpha 4 --quantize int8 --asymmetric"));
    assert_eq!((&said[0]["scale"], &said[0]["bytes_f32"]), (&2.0.into(), &1536.into()));
    assert!(said[0]["sqnr_db"].as_f64() > Some(35.0) && said[0]["bytes"].as_u64() < Some(400), "{said}");
    let said = json(&format!("lora models/digits-mlp.onnx --adapter {adapter} --adapter {adapter} --runtime -o {out} --json"));
    assert_eq!((said.as_array().unwrap().len(), &said[1]["adapter"]), (2, &1.into()));
    let inspected = text(&halfbyte(&["inspect", &out]));
    assert!(inspected.contains("adapter") && inspected.contains("i32"), "{inspected}");
    let refused = halfbyte(&["lora", "models/digits-cnn.onnx", "--adapter", &adapter, "-o", &out]);
    assert!(refused.status.code() == Some(1) && text(&refused).contains("base.W1"), "{}", text(&refused));
    let damaged = halfbyte(&["lora", "models/digits-cnn.onnx", "--adapter", "Cargo.toml", "-o", &out]);
    assert!(damaged.status.code() == Some(1) && text(&damaged).contains("safetensors"), "{}", text(&damaged));
}

#[test]
fn a_batch_is_for_inputs_that_are_made() {
    let done = halfbyte(&["bench", "models/ppocr-cls.onnx", "--batch", "2", "--inputs", "models/ppocr-cls.in.npz"]);
    assert!(!done.status.success() && text(&done).contains("--batch"), "{}", text(&done));
}

#[cfg(target_os = "linux")]
#[test]
fn an_interrupted_bench_reports_what_it_measured() {
    let mut command = program(env!("CARGO_BIN_EXE_halfbyte"));
    command.args(["bench", "models/digits-mlp.onnx", "--seconds", "600", "--json"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    // From when on SIGINT (bit 1 of the mask) is caught, it ends the measurement.
    let catches = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let mask = status.lines().find_map(|l| l.strip_prefix("SigCgt:")).and_then(|m| u64::from_str_radix(m.trim(), 16).ok());
        mask.is_some_and(|m| m & 2 != 0)
    };
    while !catches(child.id()) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it measured");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let done = child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(130));
    let said: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert!(said["interrupted"] == true && said["runs"].as_u64() >= Some(1), "{said}");
}

#[test]
fn bench_gemm_gives_rates_and_shares_of_the_peak() {
    let said = json("bench gemm --shapes 8x64x64 --thread-counts 1 --dtype f32,u8s8 --json");
    let rates = said.as_array().unwrap();
    assert_eq!(rates.len(), 2);
    for rate in rates {
        assert!(rate["gflops"].as_f64() > Some(0.0) && rate["share_of_peak"].as_f64() > Some(0.0), "{rate}");
    }
    assert_eq!(halfbyte(&["bench", "gemm", "--dtype", "f33"]).status.code(), Some(1));
}

#[test]
fn kernels_lists_every_candidate_with_the_pick_and_the_reasons() {
    for call in [
        "--gemm 8x64x64 --dtype u8s8",
        "--conv 1x8x16x16x8x3",
        "--model models/digits-cnn.onnx --batch 2 --node Conv --threads 1",
    ] {
        let rows = json(&format!("kernels {call} --json"));
        let rows = rows.as_array().unwrap();
        let problems: std::collections::BTreeSet<_> = rows.iter().map(|r| r["problem"].as_str().unwrap()).collect();
        for problem in problems {
            let own: Vec<_> = rows.iter().filter(|r| r["problem"] == problem).collect();
            let picked: Vec<_> = own.iter().filter(|r| r["picked"] == true).collect();
            assert_eq!(picked.len(), 1, "{problem}");
            let least = own.iter().filter_map(|r| r["predicted_us"].as_f64()).fold(f64::INFINITY, f64::min);
            assert_eq!(picked[0]["predicted_us"].as_f64(), Some(least), "{problem}");
            assert!(own.iter().all(|r| r["predicted_us"].is_number() != r["why_not"].is_string()), "{problem}: {own:?}");
            // Kernels of floats refuse bytes; every convolution kernel takes these.
            let refused = own.iter().any(|r| r["why_not"].is_string());
            assert!(refused || !call.contains("--gemm"), "{problem}: someone must have said no");
        }
    }
    assert!(json("kernels --json").as_array().unwrap().len() > 20);
    let wrong = halfbyte(&["kernels", "--model", "models/digits-cnn.onnx", "--node", "nobody"]);
    assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong));
}

#[test]
fn the_probe_tells_of_every_section_or_why_it_is_absent() {
    let said = json("probe --json");
    let cpu = &said["cpu"];
    assert!(cpu["topology"]["usable_cores"].as_u64() > Some(0) && cpu["topology"]["untold"].is_array(), "{cpu}");
    for measured in cpu["measured"].as_array().unwrap() {
        for rate in ["f32_gflops", "int8_gops", "read_gbps"] {
            assert!(measured["peaks"][rate].as_f64() > Some(0.0), "{measured}");
        }
    }
    for section in ["cuda", "nvml", "wgpu"] {
        let absent = said[section]["absent"].as_str();
        assert!(said[section]["found"].is_array() || absent.is_some_and(|why| why.len() > 10), "{section}: {said}");
    }
    let chosen = said["kernels"].as_array().unwrap();
    let own = chosen[0]["picks"].as_array().unwrap();
    let problems: Vec<&str> = own.iter().map(|p| p["problem"].as_str().unwrap()).collect();
    for word in ["f32 1024x1024x1024", "f16 1x4096x4096", "u8s8 1024x1024x1024", "conv"] {
        assert!(problems.iter().any(|p| p.contains(word)), "{word}: {problems:?}");
    }
    assert!(own.iter().all(|p| p["kernel"].as_str().is_some_and(|k| k.starts_with("cpu-"))), "{own:?}");
    // The chooser is asked about the machine as a session sees it.
    let row = json("kernels --gemm 1x4096x4096 --dtype u8s8 --json");
    let pick = row.as_array().unwrap().iter().find(|r| r["picked"] == true).unwrap();
    assert!(own.iter().any(|p| p["problem"] == "gemm u8s8 1x4096x4096" && p["kernel"] == pick["kernel"]), "{own:?}");
    let table = text(&program(env!("CARGO_BIN_EXE_halfbyte-probe")).output().unwrap());
    for word in ["CPU", "measured", "cores", "CUDA", "NVML", "WGPU", "gemm f32 1024x1024x1024"] {
        assert!(table.contains(word), "{word} is missing from {table}");
    }
}

#[cfg(feature = "cuda")]
#[test]
fn a_gpu_that_is_not_here_is_planned_for_and_not_run_on() {
    let said = json("inspect models/digits-cnn-qdq.onnx --device cuda:h200 --json");
    assert!(said["report"]["device"] == "cuda" && said["report"]["device_name"] == "h200", "{said}");
    let nodes = said["report"]["nodes"].as_array().unwrap();
    assert!(nodes.iter().any(|n| n["kernel"].as_str().is_some_and(|k| k.starts_with("cuda-"))), "{nodes:?}");
    assert!(nodes.iter().all(|n| n["fallback"].is_string() == (n["device"] == "cpu")), "{nodes:?}");
    let run = halfbyte(&["run", "models/digits-mlp.onnx", "--device", "cuda:h200"]);
    assert!(run.status.code() == Some(1) && text(&run).contains("inspect"), "{}", text(&run));
    let unknown = text(&halfbyte(&["inspect", "models/digits-mlp.onnx", "--device", "cuda:h900"]));
    assert!(unknown.contains("h900") && unknown.contains("gtx-1060"), "{unknown}");
    let kernels = text(&halfbyte(&["kernels", "--device", "h200", "--gemm", "64x64x64", "--json"]));
    assert!(!kernels.contains("cpu-"), "{kernels}");
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
    let done = halfbyte(&["suite", list.to_str().unwrap(), "--json"]);
    let outcomes: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let verdicts: Vec<_> = outcomes.as_array().unwrap().iter().map(|o| (&o["name"], &o["verdict"])).collect();
    assert_eq!(serde_json::json!(verdicts), serde_json::json!([["bad", "ERROR"], ["good", "OK"]]));
    std::fs::write(&list, format!("{good}\n")).unwrap();
    let calls = [(vec![], 0), (vec!["--device", "wgpu:99"], 77)];
    for (more, code) in calls {
        let done = halfbyte(&[vec!["suite", list.to_str().unwrap()], more].concat());
        assert_eq!(done.status.code(), Some(code), "{}", text(&done));
    }
}

#[test]
fn a_device_that_is_not_here_is_unsupported() {
    let done = halfbyte(&["run", "models/digits-mlp.onnx", "--device", "wgpu:99"]);
    assert_eq!(done.status.code(), Some(77), "{}", text(&done));
    assert!(text(&done).contains("UNSUPPORTED"));
}

#[test]
fn bench_memory_replays_traces_from_files_and_graphs() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("mine.csv");
    std::fs::write(&trace, "op,id,size\na,1,31457280\na,2,31457280\nf,1,0\nf,2,0\na,3,62914560\nf,3,0\n").unwrap();
    let traces = folder.path().to_str().unwrap();
    let rows = json(&format!("bench memory --traces {traces} --only mine --policy torch,rmm --json"));
    let rows: Vec<_> = rows.as_array().unwrap().iter().map(|r| (r["policy"].as_str().unwrap(), &r["live_bytes"])).collect();
    assert_eq!(rows, [("torch", &(60 << 20).into()), ("rmm", &(60 << 20).into())]);
    let graphs = json("bench memory --graphs models --only graph-digits,graphs-together --policy torch-exp --json");
    assert_eq!(graphs.as_array().unwrap().len(), 1, "the digits are small: part of the trace of all");
    assert!(
        graphs[0]["smallest_ratio"].as_f64().unwrap() >= 1.0 && graphs[0]["allocations"].as_u64().unwrap() > 1000,
        "{graphs}"
    );
    let refused = |call: &str| text(&halfbyte(&call.split(' ').collect::<Vec<_>>()));
    assert!(refused("bench memory --policy jemalloc").contains("torch-exp (PyTorch, expandable segments)"));
    assert!(refused("bench memory --only nothing-like-this").contains("bert-var"));
    std::fs::write(&trace, "op,id,size\na,1,4\nf,2,0\n").unwrap();
    let said = refused(&format!("bench memory --traces {traces}"));
    assert!(said.contains("trace mine, line 3: 2 is freed but not allocated"), "{said}");
}

/// Whether tags are closed in order, attributes quoted and text escaped: what any reader of XML asks for.
fn well_formed(xml: &str) -> Result<usize, String> {
    let (mut open, mut count) = (Vec::new(), 0);
    for (i, part) in xml.split('<').enumerate() {
        let (tag, after) = if i == 0 { ("", part) } else { part.split_once('>').ok_or(format!("no end: {part}"))? };
        let entity = |rest: &str| ["amp;", "lt;", "gt;", "quot;"].iter().any(|e| rest.starts_with(e));
        if !after.split('&').skip(1).all(entity) || after.contains('>') || tag.matches('"').count() % 2 == 1 {
            return Err(format!("not escaped: {part}"));
        }
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or("");
        match tag {
            "" => {}
            _ if tag.starts_with('/') && open.pop() != Some(name) => return Err(format!("{name} is closed, not open")),
            _ if tag.starts_with('/') => {}
            _ if tag.ends_with('/') => count += 1,
            _ => {
                open.push(name);
                count += 1;
            }
        }
    }
    if open.is_empty() { Ok(count) } else { Err(format!("{open:?} stay open")) }
}

/// Samples of a text in Prometheus' format by name; each family has its type and its help.
fn metrics(text: &str) -> std::collections::BTreeMap<String, f64> {
    let mut found = std::collections::BTreeMap::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        let name = sample.split('{').next().unwrap();
        assert!(text.contains(&format!("# TYPE {name} ")) && text.contains(&format!("# HELP {name} ")), "{name}");
        assert!(!sample.contains('{') || sample.ends_with("\"}"), "{line}");
        assert!(found.insert(sample.to_string(), value.parse().unwrap()).is_none(), "{sample} comes twice");
    }
    found
}

#[test]
fn memory_shows_the_machine() {
    let said = json("memory --json");
    assert!(said["host"]["memory"]["resident_bytes"].as_u64() > Some(1 << 20) || cfg!(not(target_os = "linux")), "{said}");
    assert!(said["gpus"].as_array().is_some_and(|g| !g.is_empty()) || said["no_gpus"].is_string(), "{said}");
    let table = text(&halfbyte(&["memory"]));
    assert!(table.contains("memory pressure") && table.contains("GPU"), "{table}");
    let scraped = metrics(&text(&halfbyte(&["memory", "--prometheus"])));
    assert!(scraped.get("node_memory_MemTotal_bytes").is_some_and(|b| *b > 1e6) || cfg!(not(target_os = "linux")), "{scraped:?}");
    for wrong in ["memory --svg x.svg", "memory --watch x", "memory --json --prometheus", "memory --open no-such.json"] {
        assert!(!halfbyte(&wrong.split(' ').collect::<Vec<_>>()).status.success(), "{wrong}");
    }
}

#[test]
fn numbers_that_are_none_are_refused_before_any_work() {
    for wrong in ["bench models/digits-mlp.onnx --seconds nan", "quantize models/digits-mlp.onnx -o /nowhere/x.onnx --samples 0"]
    {
        let ran = halfbyte(&wrong.split(' ').collect::<Vec<_>>());
        assert!(ran.status.code() == Some(2) && ran.stdout.is_empty(), "{wrong}: {ran:?}");
    }
    for (more, why) in [("--report x.html", "names of their own"), ("--report /nowhere/x.json", "no such folder")] {
        let call = format!("optimize models/digits-mlp.onnx --select models/digits-mlp.in.npz -o x.onnx {more}");
        let ran = halfbyte(&call.split(' ').collect::<Vec<_>>());
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.code() == Some(1) && ran.stdout.is_empty() && said.contains(why), "{said}");
    }
}

#[test]
fn quantize_writes_a_smaller_model_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("small.onnx").display().to_string();
    let said = json(&format!("quantize models/digits-mlp.onnx -o {out} --json"));
    let layers = said["layers"].as_array().unwrap();
    assert!(layers.len() == 3 && layers.iter().all(|l| l["scheme"] == "rows_asymmetric"), "{said}");
    assert!(
        said["weight_bytes"]["ratio"].as_f64().unwrap() > 3.0 && said["file_bytes"]["ratio"].as_f64().unwrap() > 1.5,
        "{said}"
    );
    let ran = json(&format!("run {out} --inputs models/digits-mlp.in.npz --device cpu --json"));
    assert!(ran.to_string().contains("halfbyte:LinearInt8"), "{ran}");
    let twice = halfbyte(&["quantize", &out, "-o", &out, "--json"]);
    let why = String::from_utf8_lossy(&twice.stderr).into_owned();
    assert!(twice.status.code() == Some(1) && twice.stdout.is_empty() && why.contains("no layer to quantise"), "{why}");
    // Products alone: convolutions need samples.
    let table = text(&halfbyte(&["quantize", "models/digits-cnn.onnx", "-o", &out]));
    assert!(table.contains("ranges need samples") && table.contains("times smaller"), "{table}");
    let refused = program(env!("CARGO_BIN_EXE_halfbyte"))
        .args(["quantize", "models/digits-cnn.onnx", "-o", &out, "--calibrate", "models/digits-mlp.in.npz"])
        .output()
        .unwrap();
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(1) && why.contains("say which it is") || why.contains("does not hold samples"),
        "{why}"
    );
}

#[test]
fn memory_runs_models_and_finds_steady_memory_and_no_leaks() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (snapshot, torch, svg) = (file("s.json"), file("s.pickle"), file("s.svg"));
    let models = "memory models/digits-cnn.onnx models/digits-mlp.onnx --device cpu";
    let said = json(&format!("{models} --runs 30 --vary --batch 4 --json --snapshot {snapshot} --torch {torch} --svg {svg}"));
    assert_eq!((&said["runs"], &said["leaks"], &said["failure"]), (&60.into(), &serde_json::json!([]), &serde_json::Value::Null));
    let runs: Vec<_> = said["models"].as_array().unwrap().iter().map(|m| m["runs"].as_u64().unwrap()).collect();
    assert_eq!(runs, [30, 30]);
    let pool = &said["pools"][0];
    let bytes = |field: &str| pool["stats"][field].as_u64().unwrap();
    let [live, peak, reserved] = ["live_bytes", "peak_live_bytes", "reserved_bytes"].map(bytes);
    assert!(live == 0 && peak > 0 && reserved >= peak, "between runs nothing is held: {pool}");
    let accounts: Vec<_> = pool["accounts"].as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap()).collect();
    assert!(accounts.iter().any(|a| a.ends_with("/digits-cnn")) && accounts.iter().any(|a| a.ends_with("/digits-mlp")), "{pool}");
    let held: u64 = pool["owners"].as_array().unwrap().iter().map(|o| o["live_bytes"].as_u64().unwrap()).sum();
    assert_eq!(held, live, "each byte has an owner");
    assert_eq!(said["reserved"][0]["second_bytes"].as_u64(), Some(reserved), "{said}");

    let picture = std::fs::read_to_string(&svg).unwrap();
    assert!(picture.starts_with("<svg ") && well_formed(&picture).unwrap() > 20, "{:?}", well_formed(&picture));
    assert!(well_formed("<a b=\"<\"/>").is_err() && well_formed("<a><b></a></b>").is_err() && well_formed("a & b").is_err());
    let code = "import itertools, pickle, sys; s = pickle.load(open(sys.argv[1], 'rb')); e = s['device_traces'][0]; \
                print(sum(b['size'] for g in s['segments'] for b in g['blocks'] if b['state'] == 'active_allocated')); \
                held = list(itertools.accumulate({'alloc': t['size'], 'free_completed': -t['size']}.get(t['action'], 0) for t in e)); \
                print(max(held), held[-1])";
    match Command::new("python3").args(["-c", code, &torch]).output() {
        Ok(done) => assert_eq!(text(&done), format!("{live}\n{peak} {live}\n"), "live blocks, and what events add up to"),
        Err(_) => println!("SKIP: no python3 here"),
    }
    let again = json(&format!("memory --open {snapshot} --json --svg {svg}"));
    assert_eq!((&again[0]["stats"], &again[0]["owners"]), (&pool["stats"], &pool["owners"]));
    assert_eq!(std::fs::read_to_string(&svg).unwrap(), picture);
    let scraped = metrics(&text(&halfbyte(&["memory", "--open", &snapshot, "--prometheus"])));
    assert_eq!(scraped.iter().find(|m| m.0.starts_with("halfbyte_mem_live_bytes")).map(|m| *m.1), Some(held as f64));

    let table = text(&halfbyte(&format!("{models} --runs 4").split(' ').collect::<Vec<_>>()));
    for words in ["digits-cnn", "largest free", "rung", "in the second: steady", "no leaks", "8 runs in"] {
        assert!(table.contains(words), "{words} is missing from {table}");
    }
}

#[test]
fn memory_that_does_not_suffice_leaves_a_picture_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("full.svg");
    let mut command = program(env!("CARGO_BIN_EXE_halfbyte"));
    command
        .args(["memory", "models/digits-cnn.onnx", "--device", "cpu", "--batch", "8", "--limit", "64KiB", "--json", "--svg"])
        .arg(&svg);
    let done = command.env("HALFBYTE_MEMORY_SNAPSHOT", folder.path().join("failed")).output().unwrap();
    assert_eq!(done.status.code(), Some(1), "{}", text(&done));
    let said: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert!(said["failure"].as_str().is_some_and(|why| why.contains("memory")), "{said}");
    assert!(std::fs::read_to_string(&svg).unwrap().contains("out of memory: "), "the moment is marked");
    let written: Vec<_> = std::fs::read_dir(folder.path().join("failed")).unwrap().map(|e| e.unwrap().path()).collect();
    let ending = |e: &str| written.iter().find(|p| p.extension().is_some_and(|x| x == e)).unwrap();
    assert!(["pickle", "svg"].iter().all(|e| std::fs::metadata(ending(e)).unwrap().len() > 100));
    let table = text(&halfbyte(&["memory", "--open", ending("json").to_str().unwrap()]));
    assert!(table.contains("reserved"), "{table}");
}

#[test]
fn snapshots_that_are_none_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.json");
    for wrong in ["", "[{}]", "nonsense"] {
        std::fs::write(&file, wrong).unwrap();
        let done = halfbyte(&["memory", "--open", file.to_str().unwrap()]);
        assert!(done.status.code() == Some(1) && text(&done).contains("s.json"), "{}", text(&done));
    }
}
