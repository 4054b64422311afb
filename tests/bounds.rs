//! The CPU's vector code stays within the bound of every scalar operator, and the bound says something.

mod formulas;

use formulas::{Case, Values, decode, encode, run};
use halfbyte::DType;
use halfbyte::base::xorshift::Xorshift;
use halfbyte::scalar::bounds::{Range, bound, enclose};
use halfbyte::scalar::{Steps, arg};

#[test]
fn vector_code_keeps_the_bound_of_every_formula() {
    const SAMPLES: usize = 400;
    let mut random = Xorshift::new(97);
    let (mut checked, mut wrong) = (0, Vec::new());
    formulas::each(|Case { name, steps }| {
        let args: Vec<Vec<u8>> =
            steps.args.iter().map(|&d| encode(d, &(0..SAMPLES).map(|_| random.value(d)).collect::<Vec<_>>())).collect();
        let values: Vec<Vec<f64>> = steps.args.iter().zip(&args).map(|(&d, a)| decode(d, a)).collect();
        for (i, got) in decode(steps.out, &run(&steps, &args, SAMPLES)).into_iter().enumerate() {
            let given: Vec<f64> = values.iter().map(|v| v[i]).collect();
            let range = enclose(&steps, &given.iter().map(|&x| Range::point(x)).collect::<Vec<_>>());
            checked += 1;
            if !range.holds(got) {
                wrong.push(format!("{name} of {given:?}: {got}, exactly {}, allowed {range:?}", steps.eval(&given)));
            }
        }
    });
    println!("{checked} results, {} wrong", wrong.len());
    // One for each formula.
    wrong.dedup_by_key(|w: &mut String| w.split(' ').next().map(String::from));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 400_000);
}

/// Floats of every exponent and both signs, subnormal ones, infinities and NaN included.
#[test]
fn polynomials_keep_their_bounds_over_all_floats() {
    let all: Vec<f32> = (0..u32::MAX).step_by(9973).map(f32::from_bits).collect();
    let bytes = bytemuck::cast_slice::<f32, u8>(&all).to_vec();
    for f in [arg(0).exp(), arg(0).log(), arg(0).tanh(), arg(0).erf()] {
        let steps = Steps::compile(&f, &[DType::F32], DType::F32).unwrap();
        for (&x, got) in all.iter().zip(decode(DType::F32, &run(&steps, std::slice::from_ref(&bytes), all.len()))) {
            let range = enclose(&steps, &[Range::point(x.into())]);
            assert!(range.holds(got), "{f:?} of {x}: {got}, exactly {}, allowed {range:?}", steps.eval(&[x.into()]));
        }
    }
}

#[test]
fn bounds_on_benign_arguments_are_narrow_and_catch_planted_errors() {
    let mut random = Xorshift::new(3);
    let (mut widest, mut cases) = ((0.0, String::new()), 0);
    formulas::each(|Case { name, steps }| {
        if steps.out != DType::F32 || steps.args.iter().any(|&d| d != DType::F32) {
            return;
        }
        cases += 1;
        for _ in 0..200 {
            let mut draw = |lo: f64, hi: f64| -> Vec<f64> {
                steps.args.iter().map(|_| f64::from((lo + (hi - lo) * random.unit()) as f32)).collect()
            };
            // Where the function is not flat and nothing cancels; acosh begins at 1.
            let args = if name.starts_with("Acosh") { draw(1.25, 2.0) } else { draw(0.25, 0.75) };
            let exact = steps.eval(&args);
            let ulp = f64::from(f32::EPSILON) * 2f64.powi(exact.abs().max(1e-30).log2().floor() as i32);
            let off = bound(&steps, &args) / ulp;
            if off > widest.0 {
                widest = (off, name.clone());
            }
            assert!(off <= 64.0, "{name} of {args:?}: the bound is {off} units in the last place");
            let range = enclose(&steps, &args.iter().map(|&x| Range::point(x)).collect::<Vec<_>>());
            for planted in [-1.0, 1.0] {
                let wrong = exact + planted * (off + 3.0) * ulp;
                assert!(!range.holds(wrong), "{name} of {args:?}: {wrong} for {exact} goes unnoticed");
            }
        }
    });
    println!("{cases} formulas, the widest bound is {:.1} units in the last place: {}", widest.0, widest.1);
    assert!(cases > 60);
}
