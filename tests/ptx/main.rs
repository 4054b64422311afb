//! PTX: the text of every scalar operator, for every element type, assembled when there is a ptxas (`HALFBYTE_PTXAS` names it,
//! scripts/test fetches it), and run by the interpreter against the f64 oracle's bound and the CPU's bits; and the interpreter's
//! own tests.

#[cfg(feature = "cuda")]
mod assemble;
mod boxes;
mod conflicts;
mod counts;
#[cfg(feature = "cuda")]
#[path = "../cuda/mod.rs"]
mod cuda;
#[path = "../formulas/mod.rs"]
mod formulas;
mod hopper;
#[cfg(feature = "cuda")]
mod hopper_gemm;
#[cfg(feature = "cuda")]
mod hopper_skinny;
mod instructions;
mod kernels;
#[path = "../ptx_interpreter/mod.rs"]
mod ptx_interpreter;
mod speed;
mod table;
mod tensors;

use formulas::{Case, Values, decode, encode, run};
use halfbyte::DType;
use halfbyte::base::xorshift::Xorshift;
use halfbyte::scalar::bounds::{Range, enclose};
use halfbyte::scalar::steps::Step;
use halfbyte::scalar::{Binary, Domain, Steps, Unary, ptx};
use ptx_interpreter::{Argument, Gpu, Launch, Module};

const INPUTS: [&str; 3] = ["%x0", "%x1", "%x2"];

fn body(steps: &Steps, sm: u32) -> String {
    ptx::body(steps, &INPUTS[..steps.args.len()], "%y", sm).unwrap()
}

/// A kernel that applies the formula to one element for each thread, twice, to see that the text can be pasted anywhere.
fn kernel(name: &str, steps: &Steps, sm: u32) -> String {
    let mut text = format!(".visible .entry {name}(.param .u64 p");
    let pointers = steps.args.len();
    (0..pointers).for_each(|i| text += &format!(", .param .u64 p{i}"));
    text += ")\n{\n.reg .u64 %at, %i;\n.reg .u32 %t;\nmov.u32 %t, %tid.x;\n";
    for (i, &d) in steps.args.iter().enumerate() {
        let (register, memory, bytes) = (ptx::register_type(d), ptx::memory_type(d), d.size_bytes());
        text += &format!(".reg .{register} %x{i};\nld.param.u64 %at, [p{i}];\nmad.wide.u32 %i, %t, {bytes}, %at;\n");
        text += &format!("ld.global.{memory} %x{i}, [%i];\n");
    }
    let (register, memory, bytes) = (ptx::register_type(steps.out), ptx::memory_type(steps.out), steps.out.size_bytes());
    let body = body(steps, sm);
    text += &format!(".reg .{register} %y;\n{body}{body}ld.param.u64 %at, [p];\nmad.wide.u32 %i, %t, {bytes}, %at;\n");
    text + &format!("st.global.{memory} [%i], %y;\nret;\n}}\n")
}

fn module(sm: u32) -> String {
    format!(".version 7.0\n.target sm_{sm}\n.address_size 64\n")
}

/// What the kernel gives for `n` elements, one for each thread.
fn interpret(text: &str, steps: &Steps, args: &[Vec<u8>], n: usize) -> Vec<u8> {
    let read = Module::read(text).unwrap_or_else(|f| panic!("{f}\n{text}"));
    let mut gpu = Gpu::default();
    let out = gpu.global.reserve("out", n * steps.out.size_bytes());
    let addresses = args.iter().map(|a| gpu.global.allocate("argument", a));
    let arguments = std::iter::once(out).chain(addresses).map(Argument::u64).collect();
    let launch = Launch { grid: [1; 3], block: [n as u32, 1, 1], arguments, ..Launch::default() };
    gpu.launch(&read.entries[0], &launch).unwrap_or_else(|f| panic!("{f}"));
    gpu.global.values(out).unwrap_or_else(|f| panic!("{f}"))
}

/// Whether every step gives the same bits on every backend: IEEE arithmetic, and functions by the same polynomials.
fn same_bits(steps: &Steps) -> bool {
    use Unary::*;
    let integers = steps.domain == Domain::I64;
    let same = |s: &Step| match s {
        Step::Unary(Exp | Log | Tanh | Erf, _) => steps.domain == Domain::F32,
        Step::Unary(Sin | Cos | Tan | Asin | Acos | Atan | Sinh | Cosh | Asinh | Acosh | Atanh, _) => false,
        Step::Binary(Binary::Pow, ..) => integers,
        _ => true,
    };
    steps.steps.iter().all(same)
}

#[test]
fn every_formula_runs_within_its_bound() {
    const SAMPLES: usize = 256;
    let mut random = Xorshift::new(41);
    let (mut cases, mut equal, mut wrong) = (0, 0, Vec::new());
    formulas::each(|Case { name, steps }| {
        let args: Vec<Vec<u8>> =
            steps.args.iter().map(|&d| encode(d, &(0..SAMPLES).map(|_| random.value(d)).collect::<Vec<_>>())).collect();
        let values: Vec<Vec<f64>> = steps.args.iter().zip(&args).map(|(&d, a)| decode(d, a)).collect();
        let cpu = run(&steps, &args, SAMPLES);
        let size = steps.out.size_bytes();
        for sm in [70, 80] {
            let all = interpret(&(module(sm) + &kernel("formula", &steps, sm)), &steps, &args, SAMPLES);
            for (i, bits) in all.chunks(size).enumerate() {
                let got = decode(steps.out, bits)[0];
                let given: Vec<f64> = values.iter().map(|v| v[i]).collect();
                let range = enclose(&steps, &given.iter().map(|&x| Range::point(x)).collect::<Vec<_>>());
                let want = decode(steps.out, &cpu[i * size..][..size])[0];
                let as_cpu = bits == &cpu[i * size..][..size] || got == want || (got.is_nan() && want.is_nan());
                if !range.holds(got) || (same_bits(&steps) && !as_cpu) {
                    wrong.push(format!("{name} sm_{sm} of {given:?}: {got}, the CPU gives {want}, allowed {range:?}"));
                }
                equal += usize::from(same_bits(&steps));
            }
        }
        cases += 1;
    });
    println!("{cases} formulas, {equal} results compared bit for bit, {} wrong", wrong.len());
    // One for each formula.
    wrong.dedup_by_key(|w: &mut String| w.split(' ').next().map(String::from));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases > 1200, "only {cases} formulas");
}

#[test]
fn a_planted_error_is_caught() {
    let steps = Steps::compile(&halfbyte::scalar::arg(0).exp(), &[DType::F32], DType::F32).unwrap();
    let text = module(70) + &kernel("exp", &steps, 70);
    let wrong = text.replace("0f3F318000", "0f3F318100");
    assert_ne!(text, wrong);
    let x = 5.5f32;
    let run = |text: &str| decode(DType::F32, &interpret(text, &steps, &[x.to_le_bytes().to_vec()], 1))[0];
    let range = enclose(&steps, &[Range::point(x.into())]);
    assert!(range.holds(run(&text)) && !range.holds(run(&wrong)));
    assert!(ptx::body(&steps, &[], "%y", 70).is_err() && ptx::body(&steps, &["%x0"], "%y", 52).is_err());
}

/// The assembler, or `None` where a machine may be without.
fn ptxas() -> Option<String> {
    let named = std::env::var("HALFBYTE_PTXAS").ok();
    if named.is_none() {
        assert!(std::env::var("CI").is_err(), "continuous integration needs HALFBYTE_PTXAS, see scripts/test");
        println!("SKIP ptxas: HALFBYTE_PTXAS is not set, see scripts/test");
    }
    named
}

/// Assembles a module for a target.
fn assemble(ptxas: &str, target: &str, text: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("module.ptx");
    std::fs::write(&file, text).unwrap();
    let done = std::process::Command::new(ptxas)
        .args([&format!("-arch={target}"), "-O1", "-o", "/dev/null"])
        .arg(&file)
        .output()
        .expect("HALFBYTE_PTXAS names a program");
    let said = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{target}: {}", said.lines().take(30).collect::<Vec<_>>().join("\n"));
    println!("{target}: {} kernels assembled", text.matches(".visible .entry").count());
}

#[test]
fn every_formula_is_assembled() {
    let Some(ptxas) = ptxas() else { return };
    for sm in [61, 70, 80] {
        let mut text = module(sm);
        formulas::each(|Case { name, steps }| text += &kernel(&name, &steps, sm));
        assemble(&ptxas, &format!("sm_{sm}"), &text);
    }
}

#[test]
fn every_kernel_for_the_interpreter_is_assembled() {
    let Some(ptxas) = ptxas() else { return };
    assemble(&ptxas, "sm_70", kernels::TILED);
    for element in ["f16", "bf16", "s8"] {
        assemble(&ptxas, "sm_80", &kernels::mma_kernel(element, 80));
        assemble(&ptxas, "sm_90a", &hopper::kernel(element));
    }
}
