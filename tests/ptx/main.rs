//! The PTX text of every scalar operator, for every element type: assembled when there is a ptxas (`HALFBYTE_PTXAS` names it,
//! scripts/test fetches it), and run by a small evaluator against the f64 oracle's bound and the CPU's bits.

mod evaluate;
#[path = "../formulas/mod.rs"]
mod formulas;
mod semantics;

use evaluate::Block;
use formulas::{Case, Values, decode, encode, run};
use halfbyte::DType;
use halfbyte::base::xorshift::Xorshift;
use halfbyte::scalar::bounds::{Range, enclose};
use halfbyte::scalar::steps::Step;
use halfbyte::scalar::{Binary, Domain, Steps, Unary, ptx};

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

/// The element's bits as its register holds them.
fn register(dtype: DType, bytes: &[u8]) -> u64 {
    let mut all = [0u8; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    let bits = u64::from_le_bytes(all);
    match dtype {
        DType::I8 => bits as u8 as i8 as u64,
        DType::I16 => bits as u16 as i16 as u64,
        DType::I32 => bits as u32 as i32 as u64,
        _ => bits,
    }
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
            let mut outer = INPUTS[..steps.args.len()].to_vec();
            outer.push("%y");
            let block = Block::read(&body(&steps, sm), &outer);
            for i in 0..SAMPLES {
                let element = |a: usize| {
                    let n = steps.args[a].size_bytes();
                    register(steps.args[a], &args[a][i * n..][..n])
                };
                let inputs: Vec<_> = (0..args.len()).map(|a| (INPUTS[a], element(a))).collect();
                let bits = block.run(&inputs, "%y").to_le_bytes();
                let got = decode(steps.out, &bits[..size])[0];
                let given: Vec<f64> = values.iter().map(|v| v[i]).collect();
                let range = enclose(&steps, &given.iter().map(|&x| Range::point(x)).collect::<Vec<_>>());
                let want = decode(steps.out, &cpu[i * size..][..size])[0];
                let as_cpu = bits[..size] == cpu[i * size..][..size] || got == want || (got.is_nan() && want.is_nan());
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
    let text = body(&steps, 70);
    let wrong = text.replacen("0f3F318000", "0f3F318100", 1);
    assert_ne!(text, wrong);
    let x = 5.5f32;
    let run = |text: &str| f32::from_bits(Block::read(text, &["%x0", "%y"]).run(&[("%x0", x.to_bits().into())], "%y") as u32);
    let range = enclose(&steps, &[Range::point(x.into())]);
    assert!(range.holds(run(&text).into()) && !range.holds(run(&wrong).into()));
    assert!(ptx::body(&steps, &[], "%y", 70).is_err() && ptx::body(&steps, &["%x0"], "%y", 61).is_err());
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

#[test]
fn every_formula_is_assembled() {
    let Some(ptxas) = ptxas() else { return };
    for (sm, version) in [(70, "7.0"), (80, "7.0")] {
        let mut text = format!(".version {version}\n.target sm_{sm}\n.address_size 64\n");
        formulas::each(|Case { name, steps }| text += &kernel(&name, &steps, sm));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("formulas.ptx");
        std::fs::write(&file, &text).unwrap();
        let done = std::process::Command::new(&ptxas)
            .args([&format!("-arch=sm_{sm}"), "-O1", "-o", "/dev/null"])
            .arg(&file)
            .output()
            .expect("HALFBYTE_PTXAS names a program");
        let said = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "sm_{sm}: {}", said.lines().take(30).collect::<Vec<_>>().join("\n"));
        println!("sm_{sm}: {} kernels assembled", text.matches(".visible .entry").count());
    }
}
