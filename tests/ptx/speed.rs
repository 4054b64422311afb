//! How fast the interpreter is: `cargo test --test ptx -- --ignored --nocapture speed`.

use crate::instructions::HEAD;
use crate::kernels::{TILED, mma_kernel};
use crate::ptx_interpreter::{Argument, Gpu, Launch, Module, TensorMap};

/// Seconds that this thread has run, where the system tells.
fn seconds() -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    told.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(f64::NAN) * 1e-9
}

fn report(name: &str, text: &str, gpu: &mut Gpu, launch: &Launch) {
    let module = Module::read(text).unwrap();
    let start = seconds();
    let done = gpu.launch(&module.entries[0], launch).unwrap();
    let seconds = seconds() - start;
    println!(
        "{name}: {:.1} million thread instructions a second ({:.2} s)",
        done.lane_instructions as f64 / seconds / 1e6,
        seconds
    );
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    let n = 128usize;
    let mut gpu = Gpu::default();
    let a = gpu.global.allocate("a", &vec![1f32; n * n]);
    let c = gpu.global.reserve("c", n * n * 4);
    let mut arguments = [a, a, c].map(Argument::u64).to_vec();
    arguments.extend([n; 3].map(|x| Argument::u32(x as u32)));
    let tiles = (n / 16) as u32;
    report("f32 tiles", TILED, &mut gpu, &Launch { grid: [tiles, tiles, 1], block: [16, 16, 1], arguments, ..Launch::default() });

    let (m, n, bytes) = (256usize, 256usize, 1024usize);
    let mut gpu = Gpu::default();
    let a = gpu.global.allocate("a", &vec![0x3c00u16; m * bytes / 2]);
    let c = gpu.global.reserve("c", m * n * 4);
    let mut arguments = [a, a, c].map(Argument::u64).to_vec();
    arguments.extend([bytes, n].map(|x| Argument::u32(x as u32)));
    let grid = [n as u32 / 16, m as u32 / 16, 1];
    report("mma.sync", &mma_kernel("f16", 80), &mut gpu, &Launch { grid, block: [64, 1, 1], arguments, ..Launch::default() });

    let (m, n, k) = (512usize, 128usize, 1024usize);
    let mut gpu = Gpu::default();
    let a = gpu.global.allocate("a", &vec![0x3c00u16; m * k]);
    let c = gpu.global.reserve("c", m * n * 2);
    let map = |address, rows: usize, columns: usize, extents: [usize; 2], swizzle_bytes| {
        let (strides, dims) = (vec![columns as u64 * 2], vec![columns as u64, rows as u64]);
        Argument::Map(TensorMap { address, element_bytes: 2, dims, strides, extents: extents.to_vec(), swizzle_bytes })
    };
    let tiles = Argument::u32((k / 64) as u32);
    let arguments = vec![map(a, m, k, [64, 64], 128), map(a, n, k, [64, 16], 128), map(c, m, n, [16, 64], 0), tiles];
    let grid = [n as u32 / 16, m as u32 / 64, 1];
    let launch = Launch { grid, block: [256, 1, 1], shared_bytes: 22560, arguments, ..Launch::default() };
    report("wgmma", &crate::hopper::kernel("f16"), &mut gpu, &launch);

    let n = 1 << 18;
    let mut gpu = Gpu::default();
    let a = gpu.global.allocate("a", &vec![1f32; n]);
    let c = gpu.global.reserve("c", n * 4);
    let arguments = [a, c].map(Argument::u64).to_vec();
    let text = format!(
        "{HEAD}.visible .entry add(.param .u64 pA, .param .u64 pC)\n{{\n.reg .b32 %r<4>; .reg .b64 %l<4>; .reg .f32 %f<2>; .reg .pred %p;\n\
         mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mad.lo.u32 %r0, %r1, %r2, %r0; setp.lt.u32 %p, %r0, {n};\n\
         ld.param.u64 %l0, [pA]; ld.param.u64 %l1, [pC]; mad.wide.u32 %l2, %r0, 4, %l0; mad.wide.u32 %l3, %r0, 4, %l1;\n\
         @%p ld.global.nc.f32 %f0, [%l2]; add.f32 %f1, %f0, 0f3F800000; @%p st.global.f32 [%l3], %f1; ret;\n}}\n"
    );
    report(
        "elementwise",
        &text,
        &mut gpu,
        &Launch { grid: [n as u32 / 256, 1, 1], block: [256, 1, 1], arguments, ..Launch::default() },
    );
}
