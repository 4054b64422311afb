//! What a launch counts: wavefronts of shared memory, sectors of global memory, instructions.

use crate::instructions::kernel;
use crate::ptx_interpreter::{Argument, Class, Gpu, Launch, Module, Statistics};

/// Statistics of a warp that runs `body`.
fn counted(body: &str) -> Statistics {
    let module = Module::read(&kernel("b32", body)).unwrap_or_else(|f| panic!("{f}"));
    let mut gpu = Gpu::default();
    let (x, y) = (gpu.global.allocate("x", &[1u64; 1024]), gpu.global.allocate("y", &[0u64; 32]));
    let launch =
        Launch { grid: [1; 3], block: [32, 1, 1], arguments: vec![Argument::u64(x), Argument::u64(y)], ..Launch::default() };
    gpu.launch(&module.entries[0], &launch).unwrap_or_else(|f| panic!("{f}"))
}

#[test]
fn bank_conflicts() {
    // Bytes between lanes, bytes of a lane, wavefronts and the least.
    for (stride, bytes, units, least) in [
        (4, 4, 1, 1),
        (8, 4, 2, 1),
        (64, 4, 16, 1),
        (60, 4, 1, 1),
        (8, 8, 2, 2),
        (16, 8, 4, 2),
        (16, 16, 4, 4),
        (32, 16, 8, 4),
        (48, 16, 4, 4),
    ] {
        let (shape, vector) = match bytes {
            4 => ("b32", "%r0"),
            8 => ("v2.b32", "{%r0, %r0}"),
            _ => ("v4.b32", "{%r0, %r0, %r0, %r0}"),
        };
        let at = format!("mov.u32 %r1, s; mad.lo.u32 %r1, %r0, {stride}, %r1; mov.u32 %y, 0;");
        let s = counted(&format!("{at} st.shared.{shape} [%r1], {vector}; ld.shared.b32 %y, [%r1]; ld.shared.b32 %y, [%r1];"));
        assert_eq!(
            (s.shared_stores.requests, s.shared_stores.units, s.shared_stores.least),
            (1, units, least),
            "{stride} {bytes}"
        );
        assert_eq!(s.conflicts().iter().filter(|c| c.contains("st.shared")).count(), usize::from(units > least));
        assert_eq!(s.shared_loads.requests, 2);
    }
    let same = counted("mov.u32 %y, 0; setp.eq.u32 %p0, %r0, 0; @%p0 st.shared.b32 [s], %y; bar.sync 0; ld.shared.b32 %y, [s];");
    assert_eq!((same.shared_loads.units, same.conflicts().len()), (1, 0));
}

#[test]
fn sectors_and_classes() {
    let load = |at: &str| format!("ld.param.u64 %l2, [pX]; mov.u32 %r3, 1; {at} ld.global.b32 %r2, [%l2]; mov.u32 %y, %r2;");
    let line = |s: &Statistics| s.lines.iter().find(|l| l.text.contains("%r2, [%l2]")).unwrap().global;
    let row = line(&counted(&load("mad.wide.u32 %l2, %r0, 4, %l2;")));
    assert_eq!((row.requests, row.units, row.least), (1, 4, 4));
    let late = counted(&load("mad.wide.u32 %l2, %r0, 4, %l2; add.u64 %l2, %l2, 16;"));
    let scattered = |s: &Statistics| s.scattered(1).iter().filter(|l| l.contains("%r2, [%l2]")).count();
    assert_eq!((line(&late).units, line(&late).least, scattered(&late)), (5, 4, 0));
    let column = counted(&load("mad.wide.u32 %l2, %r0, 128, %l2;"));
    assert_eq!((line(&column).units, line(&column).least, scattered(&column)), (32, 4, 1));
    assert_eq!(line(&counted(&load(""))).units, 1);
    let s = counted("add.u32 %r1, %r0, 1; mul.f32 %y, 0f3F800000, 0f3F800000; bar.sync 0;");
    // The address of the lane's input and output, and what is added; a jump back, and the end.
    assert_eq!([s.executed(Class::Integer), s.executed(Class::Float), s.executed(Class::Control)], [3, 1, 2]);
    assert_eq!((s.lane_instructions, s.multiply_adds), (s.warp_instructions * 32, 0));
}
