//! Every scalar operator of the table as a formula, for every element type, and values to try it on.
#![allow(dead_code)]

use halfbyte::DType;
use halfbyte::base::xorshift::Xorshift;
use halfbyte::graph::{Attr, Lower, Node, OpDef, Operand, Site, Type, ops};
use halfbyte::scalar::cpu::{Lane, Program};
use halfbyte::scalar::{Formula, Steps, arg};

/// A formula for given types.
pub struct Case {
    pub name: String,
    pub steps: Steps,
}

/// Attributes that give an operator another formula.
const VARIANTS: [(&str, &str, &str); 4] = [
    ("BitShift", "direction", "RIGHT"),
    ("Mod", "fmod", "1"),
    ("Gelu", "approximate", "tanh"),
    ("IsInf", "detect_negative", "0"),
];

/// The operator's formula on as many inputs as it takes (at most three) of one type, and the output's type.
fn formula(def: &OpDef, dtype: DType, attr: Option<(&str, &str)>) -> Option<(Formula, Vec<DType>, DType)> {
    let Lower::Scalar(formula) = def.lower else { return None };
    (1..=3).rev().find_map(|n| {
        let mut node = Node::new(def.domain, def.name, 20, vec![None; n], vec![None]);
        if let Some((name, value)) = attr {
            let value = value.parse().map_or_else(|_| Attr::Str(value.into()), Attr::Int);
            node.attrs.insert(name.into(), value);
        }
        let mut types = vec![dtype; n];
        if def.name == "Where" {
            types[0] = DType::Bool;
        }
        let inputs: Vec<_> = types.iter().map(|&t| Some(Operand { ty: Type::new(t, [2]), value: None })).collect();
        let site = Site { node: &node, inputs: &inputs };
        let formula = formula(&site).ok().filter(|f| f.arity() == n)?;
        let out = (def.infer)(&site).ok()?[0].dtype;
        Some((formula, types, out))
    })
}

/// Calls `f` for every operator (all but the casts), variant and element type, and for every cast.
pub fn each(mut f: impl FnMut(Case)) {
    for def in ops::all().filter(|d| matches!(d.lower, Lower::Scalar(_)) && d.domain != "halfbyte" && !d.name.starts_with("Cast"))
    {
        let variants = VARIANTS.iter().filter(|v| v.0 == def.name).map(|v| Some((v.1, v.2)));
        for (attr, dtype) in std::iter::once(None).chain(variants).flat_map(|a| DType::ALL.map(|d| (a, d))) {
            let (formula, types, out) = formula(def, dtype, attr).unwrap_or_else(|| panic!("{def:?} has no formula"));
            let steps = Steps::compile(&formula, &types, out).unwrap();
            let name = format!("{}_{}_{dtype}", def.name, attr.map_or("", |a| a.1));
            f(Case { name: if def.domain.is_empty() { name } else { format!("Ms{name}") }, steps });
        }
    }
    for (from, to) in DType::ALL.into_iter().flat_map(|a| DType::ALL.map(|b| (a, b))) {
        let steps = Steps::compile(&arg(0), &[from], to).unwrap();
        f(Case { name: format!("Store_{from}_{to}"), steps });
        let steps = Steps::compile(&arg(0).cast(to), &[from], to).unwrap();
        f(Case { name: format!("Cast_{from}_{to}"), steps });
    }
}

/// Values that find faults.
pub trait Values {
    /// A value to try: a usual one, one of any magnitude, or an extreme one.
    fn value(&mut self, dtype: DType) -> f64;
}

impl Values for Xorshift {
    fn value(&mut self, dtype: DType) -> f64 {
        const EXTREME: [f64; 24] = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            -0.5,
            1.5,
            2.5,
            3.0,
            -2.5,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            88.7,
            -104.0,
            1e30,
            -1e30,
            65504.0,
            1e-40,
            -1e-40,
            3.4e38,
            127.5,
            -128.5,
            1e-7,
        ];
        let sign = if self.below(2) == 0 { 1.0 } else { -1.0 };
        match (self.below(4), dtype.int_range()) {
            (_, None) if dtype == DType::Bool => self.below(2) as f64,
            (0, None) => EXTREME[self.below(EXTREME.len())],
            (1, None) => sign * 2f64.powf(self.unit() * 60.0 - 30.0),
            (_, None) => sign * self.unit() * 4.0,
            (0, Some((lo, hi))) => [lo as f64, hi as f64, 0.0, 1.0, hi as f64 - 1.0][self.below(5)],
            (1, Some((lo, hi))) => (sign * 2f64.powf(self.unit() * 52.0)).trunc().clamp(lo as f64, hi as f64),
            (_, Some((lo, hi))) => (sign * self.unit() * 10.0).trunc().clamp(lo as f64, hi as f64),
        }
    }
}

/// The elements stored as `dtype`.
pub fn encode(dtype: DType, values: &[f64]) -> Vec<u8> {
    run(&Steps::compile(&arg(0), &[DType::F64], dtype).unwrap(), &[bytemuck::cast_slice(values).to_vec()], values.len())
}

/// The elements stored as `dtype`, as f64.
pub fn decode(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let out = run(&Steps::compile(&arg(0), &[dtype], DType::F64).unwrap(), &[bytes.to_vec()], bytes.len() / dtype.size_bytes());
    bytemuck::pod_collect_to_vec(&out)
}

/// The formula over arrays by the CPU's vector code.
pub fn run(steps: &Steps, args: &[Vec<u8>], n: usize) -> Vec<u8> {
    // Registers of 8 bytes are aligned for every element type.
    let aligned: Vec<Vec<u64>> =
        args.iter().map(|a| bytemuck::pod_collect_to_vec(&[&a[..], &[0; 7]].concat()[..a.len().next_multiple_of(8)])).collect();
    let lanes: Vec<Lane> =
        aligned.iter().zip(args).map(|(a, bytes)| Lane::Slice(&bytemuck::cast_slice(a)[..bytes.len()])).collect();
    let mut out = vec![0u64; (n * steps.out.size_bytes()).div_ceil(8)];
    let bytes = n * steps.out.size_bytes();
    Program::new(steps.clone()).run(&lanes, &mut bytemuck::cast_slice_mut(&mut out)[..bytes]);
    bytemuck::cast_slice(&out)[..bytes].to_vec()
}
