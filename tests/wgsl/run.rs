//! The formulas on a software adapter of Vulkan, against the f64 oracle's bound.

use halfbyte::DType;
use halfbyte::base::xorshift::Xorshift;
use halfbyte::scalar::bounds::{Arithmetic, Range, enclose_in};
use halfbyte::scalar::{Binary, Steps, Unary, arg, wgsl};
use wgpu::util::DeviceExt;

use crate::formulas::{self, Case, Values, decode, encode};
use crate::{Make, on_words, prelude};

struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
}

/// A software adapter, or `None` where a machine may be without.
fn gpu() -> Option<Gpu> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let all = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    let Some(adapter) = all.into_iter().find(|a| a.get_info().device_type == wgpu::DeviceType::Cpu) else {
        assert!(std::env::var("HALFBYTE_REQUIRE_WGPU").is_err(), "HALFBYTE_REQUIRE_WGPU is set, and there is no software Vulkan");
        println!("SKIP: no software adapter of Vulkan");
        return None;
    };
    let descriptor = wgpu::DeviceDescriptor {
        required_features: wgpu::Features::SHADER_INT64 | wgpu::Features::SHADER_F64,
        required_limits: adapter.limits(),
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
    println!("{}", adapter.get_info().name);
    Some(Gpu { device, queue })
}

impl Gpu {
    /// Runs `main` of a module with the input at binding 0 and the output at binding 1.
    fn run(&self, text: &str, groups: [u32; 2], input: &[u8], output_bytes: u64) -> Vec<u8> {
        use wgpu::BufferUsages as Usage;
        let module = self
            .device
            .create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source: wgpu::ShaderSource::Wgsl(text.into()) });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        });
        let given = wgpu::util::BufferInitDescriptor { label: None, contents: input, usage: Usage::STORAGE };
        let given = self.device.create_buffer_init(&given);
        let buffer = |usage| {
            let descriptor = wgpu::BufferDescriptor { label: None, size: output_bytes, usage, mapped_at_creation: false };
            self.device.create_buffer(&descriptor)
        };
        let (made, read) = (buffer(Usage::STORAGE | Usage::COPY_SRC), buffer(Usage::MAP_READ | Usage::COPY_DST));
        let bindings = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[
                wgpu::BindGroupEntry { binding: 0, resource: given.as_entire_binding() },
                wgpu::BindGroupEntry { binding: 1, resource: made.as_entire_binding() },
            ],
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &bindings, &[]);
            pass.dispatch_workgroups(groups[0], groups[1], 1);
        }
        encoder.copy_buffer_to_buffer(&made, 0, &read, 0, output_bytes);
        self.queue.submit([encoder.finish()]);
        read.map_async(wgpu::MapMode::Read, .., |done| done.unwrap());
        self.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        read.get_mapped_range(..).unwrap().to_vec()
    }
}

/// The word of an element from a pair of u32.
fn word(dtype: DType, pair: &str) -> String {
    match dtype {
        DType::I64 => format!("hb_join({pair})"),
        DType::U64 => format!("u64(hb_join({pair}))"),
        DType::F64 => format!("bitcast<f64>(hb_join({pair}))"),
        _ => format!("{pair}.x"),
    }
}

/// The pair of an element's word.
fn pair(dtype: DType, word: &str) -> String {
    match dtype {
        DType::I64 | DType::U64 => format!("split(u64({word}))"),
        DType::F64 => format!("split(bitcast<u64>({word}))"),
        _ => format!("vec2<u32>({word}, 0u)"),
    }
}

const SPLIT: &str = "fn split(w: u64) -> vec2<u32> {\n  return vec2<u32>(u32(w & 0xfffffffflu), u32(w >> 32u));\n}\n";
const BINDINGS: &str = "@group(0) @binding(0) var<storage, read> given: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> made: array<vec2<u32>>;\n";

/// A formula's arguments, all of one length, as stored.
struct Job {
    name: String,
    steps: Steps,
    args: Vec<Vec<u8>>,
}

/// One dispatch over formulas of the same needs and numbers of elements, a multiple of 64: a row of workgroups for each formula.
/// The first pair given is the zero of `hb_exact`.
fn results(gpu: &Gpu, jobs: &[Job], n: usize) -> Vec<Vec<f64>> {
    results_of(gpu, jobs, n, wgsl::function)
}

fn results_of(gpu: &Gpu, jobs: &[Job], n: usize, make: Make) -> Vec<Vec<f64>> {
    let needs = jobs.iter().map(|j| wgsl::needs(&j.steps)).fold((false, false), |a, b| (a.0 || b.0 || b.1, a.1 || b.1));
    let (mut text, mut input) = (prelude(needs) + BINDINGS, vec![0u8; 8]);
    text += if needs.0 { SPLIT } else { "" };
    let mut cases = String::new();
    for (c, job) in jobs.iter().enumerate() {
        text += &on_words(&format!("case{c}"), &job.steps, make).unwrap();
        let mut words = Vec::new();
        for (&d, bytes) in job.steps.args.iter().zip(&job.args) {
            words.push(word(d, &format!("given[{}u + id.x]", input.len() / 8)));
            for element in bytes.chunks(d.size_bytes()) {
                input.extend_from_slice(element);
                input.resize(input.len().next_multiple_of(8), 0);
            }
        }
        let stored = pair(job.steps.out, &format!("case{c}({})", words.join(", ")));
        cases += &format!("    case {c}u: {{ made[{}u + id.x] = {stored}; }}\n", c * n);
    }
    text += "@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {\n";
    text += &format!("  hb_zero = given[0].x;\n  switch group.y {{\n{cases}    default: {{}}\n  }}\n}}\n");
    let bytes = gpu.run(&text, [(n / 64) as u32, jobs.len() as u32], &input, (jobs.len() * n * 8) as u64);
    let one = |(job, bytes): (&Job, &[u8])| {
        let size = job.steps.out.size_bytes();
        decode(job.steps.out, &bytes.chunks(8).flat_map(|pair| &pair[..size]).copied().collect::<Vec<_>>())
    };
    jobs.iter().zip(bytes.chunks(n * 8)).map(one).collect()
}

/// What leaves its bound, a line for each formula.
fn wrong(gpu: &Gpu, jobs: &[Job], n: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    for (job, got) in jobs.iter().zip(results(gpu, jobs, n)) {
        let values: Vec<Vec<f64>> = job.steps.args.iter().zip(&job.args).map(|(&d, a)| decode(d, a)).collect();
        let bad = got.iter().enumerate().find_map(|(i, &got)| {
            let given: Vec<Range> = values.iter().map(|v| Range::point(v[i])).collect();
            let range = enclose_in(Arithmetic::Wgsl, &job.steps, &given);
            let of: Vec<f64> = values.iter().map(|v| v[i]).collect();
            (!range.holds(got))
                .then(|| format!("{} of {of:?}: {got}, exactly {}, allowed {range:?}", job.name, job.steps.eval(&of)))
        });
        wrong.extend(bad);
    }
    wrong
}

#[test]
fn every_formula_runs_within_its_bound() {
    const SAMPLES: usize = 256;
    let Some(gpu) = gpu() else { return };
    let mut random = Xorshift::new(41);
    let mut groups = std::collections::BTreeMap::<_, Vec<Vec<Job>>>::new();
    let mut cases = 0;
    formulas::each(|Case { name, steps }| {
        if wgsl::function("f", &steps).is_err() {
            return;
        }
        cases += 1;
        let args = steps.args.iter().map(|&d| encode(d, &(0..SAMPLES).map(|_| random.value(d)).collect::<Vec<_>>())).collect();
        let group = groups.entry(wgsl::needs(&steps)).or_default();
        if group.last().is_none_or(|g| g.len() == 32) {
            group.push(Vec::new());
        }
        group.last_mut().unwrap().push(Job { name, steps, args });
    });
    let wrong: Vec<String> = groups.values().flatten().flat_map(|jobs| wrong(&gpu, jobs, SAMPLES)).collect();
    println!("{cases} formulas in {} dispatches, {} wrong", groups.values().map(Vec::len).sum::<usize>(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases > 1000, "only {cases} formulas");
}

/// Floats of every exponent and both signs, subnormal ones, infinities and NaN included; powers of any and of near numbers.
#[test]
fn functions_keep_their_bounds_over_all_floats() {
    use Unary::*;
    let Some(gpu) = gpu() else { return };
    let job = |name: String, f: &halfbyte::scalar::Formula, args: &[&[f32]], out| {
        let steps = Steps::compile(f, &vec![DType::F32; args.len()], out).unwrap();
        Job { name, steps, args: args.iter().map(|a| bytemuck::cast_slice(a).to_vec()).collect() }
    };
    let n = 1 << 14;
    let all: Vec<f32> = (0..n as u32).map(|i| f32::from_bits(i.wrapping_mul(262_139))).collect();
    let mut random = Xorshift::new(5);
    let bases: Vec<f32> = (0..n).map(|i| if i % 2 == 0 { all[i].abs() } else { 1.0 + random.real() * 1e-3 }).collect();
    // So that the power is in range.
    let exponents: Vec<f32> = bases.iter().map(|x| random.real() * 90.0 / x.ln()).collect();
    let mut jobs: Vec<Job> = [Exp, Log, Sqrt, Erf, Tanh, Sin, Cos, Tan, Asin, Acos, Atan, Sinh, Cosh, Asinh, Acosh, Atanh]
        .into_iter()
        .map(|op| job(format!("{op:?}"), &arg(0).unary(op), &[&all], DType::F32))
        .collect();
    jobs.push(job("Pow".into(), &arg(0).pow(arg(1)), &[&bases, &exponents], DType::F32));
    jobs.push(job("Rem".into(), &arg(0).binary(Binary::Rem, arg(1)), &[&all, &bases], DType::F32));
    jobs.push(job("Div".into(), &(arg(0) / arg(1)), &[&all, &bases], DType::F32));
    jobs.extend(DType::ALL.into_iter().filter(|&d| d != DType::F64).map(|d| job(format!("Store_{d}"), &arg(0), &[&all], d)));
    let (narrow, wide): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|j| wgsl::needs(&j.steps) == (false, false));
    for (job, got) in narrow.iter().zip(results(&gpu, &narrow, n)).filter(|(j, _)| j.steps.out == DType::F32) {
        let values: Vec<&[f32]> = job.args.iter().map(|a| bytemuck::cast_slice(a)).collect();
        let off = got.iter().enumerate().map(|(i, got)| {
            let exact = job.steps.eval(&values.iter().map(|v| v[i].into()).collect::<Vec<_>>());
            if exact.abs() < 1.2e-38 || exact.abs() > 3.4e38 {
                (0.0, i)
            } else {
                ((got - exact).abs() / exact.abs() * 2f64.powi(23), i)
            }
        });
        let (most, i) = off.fold((0.0, 0), |a, b| if b.0 > a.0 { b } else { a });
        println!("{}: {most:.2} units at {:?}", job.name, values.iter().map(|v| v[i]).collect::<Vec<_>>());
    }
    let wrong = [wrong(&gpu, &narrow, n), wrong(&gpu, &wide, n)].concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What integers are made of is the CPU's to the bit: a product that goes into a sum is not fused with it.
#[test]
fn requantised_values_have_the_bits_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let n = 1 << 12;
    let mut random = Xorshift::new(8);
    let scaled = arg(0) * arg(1) + arg(2);
    let formulas = [(scaled.clone(), DType::F32), ((scaled - arg(0) * 0.1).round().cast(DType::I8), DType::I8)];
    let args: Vec<Vec<u8>> = (0..3).map(|_| bytemuck::cast_slice(&random.reals(n, 100.0)).to_vec()).collect();
    let jobs = formulas.map(|(f, out)| {
        let steps = Steps::compile(&f, &[DType::F32; 3], out).unwrap();
        Job { name: format!("{out}"), steps, args: args.clone() }
    });
    for (job, got) in jobs.iter().zip(results(&gpu, &jobs, n)) {
        assert!(wgsl::function("f", &job.steps).unwrap().contains("hb_exact"));
        assert_eq!(got, decode(job.steps.out, &formulas::run(&job.steps, &job.args, n)), "{}", job.name);
    }
}

/// Functions that ask for the CPU's bits have them, for floats of every exponent and densely where models are. Subnormal results may be 0.
#[test]
fn exact_functions_have_the_bits_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let n = 1 << 16;
    let mut random = Xorshift::new(29);
    let any = |i: usize| {
        if i.is_multiple_of(2) { f32::from_bits((i as u32).wrapping_mul(65_521)) } else { (random.unit() as f32 - 0.5) * 32.0 }
    };
    let values: Vec<f32> = (0..n).map(any).collect();
    let formulas = [
        ("exp", arg(0).exp()),
        ("log", arg(0).log()),
        ("tanh", arg(0).tanh()),
        ("erf", arg(0).erf()),
        ("sigmoid", arg(0).sigmoid()),
        ("softplus", (arg(0).exp() + 1.0).log()),
        ("softsign", arg(0) / (arg(0).abs() + 1.0)),
        ("polynomial", arg(0) * arg(0) * 0.3 * arg(0) + arg(0) * 0.7 - 0.1),
    ];
    let job = |(name, f): (&str, halfbyte::scalar::Formula)| {
        let steps = Steps::compile(&f, &[DType::F32], DType::F32).unwrap();
        Job { name: name.into(), steps, args: vec![bytemuck::cast_slice(&values).to_vec()] }
    };
    let jobs = formulas.map(job);
    for (job, got) in jobs.iter().zip(results_of(&gpu, &jobs, n, wgsl::exact_function)) {
        let want = decode(DType::F32, &formulas::run(&job.steps, &job.args, n));
        for ((got, want), x) in got.into_iter().zip(want).zip(&values) {
            let bits = |v: f64| if v.abs() < f32::MIN_POSITIVE.into() { 0 } else { canonical((v as f32).to_bits()) };
            assert_eq!(bits(got), bits(want), "{} of {x:e}: {got:e}, not {want:e}", job.name);
        }
    }
    for refused in [arg(0).sqrt(), arg(0).pow(arg(0))] {
        assert!(wgsl::exact_function("f", &Steps::compile(&refused, &[DType::F32], DType::F32).unwrap()).is_err());
    }
}

/// `hb_div` rounds as the CPU does, whatever the adapter's own division: for floats of every exponent, and quotients next to halves.
#[test]
fn exact_quotients_have_the_bits_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let n = 1 << 16;
    let mut random = Xorshift::new(17);
    let mut any = || f32::from_bits((random.unit() * 4_294_967_296.0) as u32);
    let mut pairs: Vec<[f32; 2]> = (0..n).map(|_| [any(), any()]).collect();
    let special = [0.0, -0.0, 1.0, f32::MIN_POSITIVE, f32::from_bits(1), f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    pairs.iter_mut().zip(special.iter().flat_map(|&a| special.map(|b| [a, b]))).for_each(|(p, s)| *p = s);
    for (i, p) in pairs.iter_mut().enumerate().filter(|(i, _)| i % 4 == 1) {
        *p = [p[1] * ((i % 511) as f32 - 255.5), p[1]];
    }
    let input: Vec<u8> = std::iter::once([0.0; 2]).chain(pairs.iter().copied()).flatten().flat_map(f32::to_le_bytes).collect();
    let text = prelude((false, false))
        + BINDINGS
        + "@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {\n  hb_zero = given[0].x;\n  \
           let p = bitcast<vec2<f32>>(given[1u + id.x]);\n  made[id.x] = bitcast<vec2<u32>>(vec2<f32>(hb_div(p.x, p.y), hb_rounded_quotient(p.x, p.y)));\n}\n";
    let bytes = gpu.run(&text, [(n / 64) as u32, 1], &input, 8 * n as u64);
    for ([a, b], got) in pairs.into_iter().zip(bytes.chunks(8)) {
        let got = [0, 4].map(|i| f32::from_le_bytes(got[i..i + 4].try_into().unwrap()));
        let want = [a / b, (a / b).round_ties_even()];
        assert_eq!(
            got.map(f32::to_bits).map(canonical),
            want.map(f32::to_bits).map(canonical),
            "{a:e} / {b:e}: {got:?}, not {want:?}"
        );
    }
}

/// The bits of one NaN for all.
fn canonical(bits: u32) -> u32 {
    if f32::from_bits(bits).is_nan() { f32::NAN.to_bits() } else { bits }
}

/// f64 next to what lies halfway between two narrower floats: rounding by way of f32 would end on the wrong side.
#[test]
fn doubles_are_rounded_once() {
    let Some(gpu) = gpu() else { return };
    let n = 1 << 12;
    let mut random = Xorshift::new(23);
    for (out, bits) in [(DType::F16, 11), (DType::BF16, 8), (DType::F32, 24)] {
        let halfway = |i: usize| {
            let whole = ((1u64 << bits) + (random.unit() * f64::from(1u32 << bits)) as u64) | 1;
            let off = [0.0, 1.0, -1.0][i % 3] * 2f64.powi(-(i as i32 / 3 % 30));
            (whole as f64 + off) * 2f64.powi(i as i32 % 7 - bits) * [1.0, -1.0][i % 2]
        };
        let values: Vec<f64> = (0..n).map(halfway).collect();
        let steps = Steps::compile(&arg(0), &[DType::F64], out).unwrap();
        let args = vec![bytemuck::cast_slice(&values).to_vec()];
        let want = decode(out, &formulas::run(&steps, &args, n));
        let got = results(&gpu, &[Job { name: format!("{out}"), steps, args }], n).remove(0);
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            assert_eq!(g, w, "{:?} as {out}", values[i]);
        }
    }
}
