//! Copies by the asynchronous proxy: boxes of tensors of 1 to 5 dimensions that hang over edges, swizzled, to several blocks;
//! plain bulk copies and reductions; copies by threads that arrive at a barrier.

use std::collections::BTreeSet;
use std::sync::Mutex;

use crate::instructions::HEAD;
use crate::ptx_interpreter::{Argument, Fault, Gpu, Kind, Launch, Module, TensorMap};

const BYTES: usize = 4096;

/// A kernel of a thread for each 16 bytes; after `body`, each block's 4096 bytes of shared memory go to its part of Y.
fn kernel(cluster: u32, body: &str) -> String {
    format!(
        "{HEAD}.visible .entry k(.param .align 64 .b8 pM[128], .param .u64 pX, .param .u64 pY)\n.reqnctapercluster {cluster}\n{{\n\
         .reg .b64 %l<8>; .reg .b32 %r<12>; .reg .pred %p<4>; .reg .b16 %h;\n\
         .shared .align 1024 .b8 s[{BYTES}]; .shared .align 8 .b8 bar[8];\n\
         mov.u32 %r0, %tid.x; mov.u32 %r1, s; mov.u32 %r2, bar; mov.u32 %r3, %cluster_ctarank; shl.b32 %r4, %r0, 4; add.u32 %r4, %r4, %r1;\n\
         mov.b64 %l0, pM; cvta.param.u64 %l0, %l0; ld.param.u64 %l1, [pX]; ld.param.u64 %l2, [pY]; mov.u32 %r5, 0; setp.eq.u32 %p0, %r0, 0;\n\
         @%p0 mbarrier.init.shared::cta.b64 [%r2], 1; @%p0 fence.mbarrier_init.release.cluster; bar.sync 0;\n\
         barrier.cluster.arrive; barrier.cluster.wait;\n\
         {body}\n\
         barrier.cluster.arrive; barrier.cluster.wait;\n\
         ld.shared.v4.b32 {{%r8, %r9, %r10, %r11}}, [%r4]; mad.wide.u32 %l2, %r3, {BYTES}, %l2; mad.wide.u32 %l2, %r0, 16, %l2;\n\
         st.global.v4.b32 [%l2], {{%r8, %r9, %r10, %r11}}; ret;\n}}\n"
    )
}

const FILL: &str =
    "st.shared.v4.b32 [%r4], {%r5, %r5, %r5, %r5}; fence.proxy.async; bar.sync 0; barrier.cluster.arrive; barrier.cluster.wait;";
const WAIT: &str = "WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r2], 0; @!%p1 bra WAIT;";

/// Assembles the text, unless another one that differs in numbers alone was.
fn assembles(text: &str) {
    static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let plain = text.replace(|c: char| c.is_ascii_digit() || c == '-' || c == ',', "");
    if let Some(ptxas) = crate::ptxas().filter(|_| SEEN.lock().unwrap().insert(plain)) {
        crate::assemble(&ptxas, "sm_90a", text);
    }
}

/// What the blocks of a cluster end with, and X.
fn run(text: &str, blocks: u32, map: &TensorMap, x: &[u8], seed: u64) -> Result<(Vec<u8>, Vec<u8>), Fault> {
    let module = Module::read(text).unwrap_or_else(|f| panic!("{f}"));
    assembles(text);
    let mut gpu = Gpu::default();
    let from = gpu.global.allocate("x", x);
    let to = gpu.global.reserve("y", BYTES * blocks as usize);
    let map = Argument::Map(TensorMap { address: map.address + from, ..map.clone() });
    let arguments = vec![map, Argument::u64(from), Argument::u64(to)];
    gpu.launch(
        &module.entries[0],
        &Launch { grid: [blocks, 1, 1], block: [BYTES as u32 / 16, 1, 1], shared_bytes: 0, arguments, seed },
    )?;
    Ok((gpu.global.values(to)?, gpu.global.values(from)?))
}

fn map(element_bytes: usize, dims: &[u64], extents: &[usize], swizzle_bytes: usize) -> TensorMap {
    // Rows have 16 bytes more than they need.
    let row = (dims[0] * element_bytes as u64).next_multiple_of(16) + 16;
    let strides = (1..dims.len()).map(|d| row * dims[1..d].iter().product::<u64>()).collect();
    TensorMap { address: 0, element_bytes, dims: dims.to_vec(), strides, extents: extents.to_vec(), swizzle_bytes }
}

/// The bytes of a box by the definition: element by element, zero outside; `None` beyond the box.
fn box_of(map: &TensorMap, x: &[u8], origin: &[i32]) -> Vec<u8> {
    let mut found = vec![0; BYTES];
    for n in 0..map.extents.iter().product::<usize>() {
        let (mut rest, mut at, mut inside) = (n, 0, true);
        for (d, extent) in map.extents.iter().enumerate() {
            let i = i64::from(origin[d]) + (rest % extent) as i64;
            rest /= extent;
            inside &= (0..map.dims[d] as i64).contains(&i);
            at += i * if d == 0 { map.element_bytes as i64 } else { map.strides[d - 1] as i64 };
        }
        for b in 0..map.element_bytes {
            let to = n * map.element_bytes + b;
            // Source: PTX ISA 5.5.6; bits 4 and up of the address change by bits 7 and up.
            let turned = if map.swizzle_bytes > 0 { to ^ (to / 128 % (map.swizzle_bytes / 16) * 16) } else { to };
            found[turned] = if inside { x[at as usize + b] } else { 0 };
        }
    }
    found
}

fn numbers(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 256 + 1) as u8).collect()
}

/// Tensors of each number of dimensions, boxes that do not fit into them, and origins before, within and past them.
fn cases() -> Vec<(TensorMap, Vec<i32>)> {
    let mut found = Vec::new();
    for (dims, extents, origins) in [
        (&[100u64][..], &[64usize][..], &[&[0][..], &[70], &[-10], &[200]][..]),
        (&[50, 9], &[32, 8], &[&[0, 0], &[30, 5], &[-5, -3], &[16, 20]]),
        (&[24, 5, 4], &[16, 4, 3], &[&[0, 0, 0], &[10, 3, 2], &[-1, -1, -1]]),
        (&[24, 3, 4, 3], &[16, 2, 3, 2], &[&[0, 0, 0, 0], &[10, 2, 2, 2], &[-1, -1, 3, -1]]),
        (&[24, 3, 2, 3, 2], &[16, 2, 2, 2, 2], &[&[0, 0, 0, 0, 0], &[10, 2, 1, 2, 1], &[-1, 2, -1, 0, 0]]),
    ] {
        for (element_bytes, swizzle_bytes) in [(1, 0), (2, 0), (4, 0), (2, 32), (2, 64), (2, 128), (4, 128), (1, 64)] {
            if swizzle_bytes > 0 && extents[0] * element_bytes != swizzle_bytes {
                continue;
            }
            found.extend(origins.iter().map(|o| (map(element_bytes, dims, extents, swizzle_bytes), o.to_vec())));
        }
    }
    found
}

fn coordinates(origin: &[i32]) -> String {
    origin.iter().map(|o| o.to_string()).collect::<Vec<_>>().join(", ")
}

#[test]
fn boxes_come_with_zeros_outside() {
    let x = numbers(16384);
    let all = cases();
    for (map, origin) in &all {
        let bytes = map.extents.iter().product::<usize>() * map.element_bytes;
        let load = format!(
            "{FILL} @!%p0 bra WAIT; mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], {bytes};\n\
             cp.async.bulk.tensor.{}d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%l0, {{{}}}], [%r2]; {WAIT}",
            origin.len(),
            coordinates(origin)
        );
        for seed in 0..2 {
            let got = run(&kernel(1, &load), 1, map, &x, seed).unwrap_or_else(|f| panic!("{f} {map:?}")).0;
            assert!(got == box_of(map, &x, origin), "{map:?} at {origin:?}");
        }
    }
    assert!(all.len() > 40, "{}", all.len());
}

#[test]
fn boxes_go_and_leave_what_is_outside() {
    let x = numbers(16384);
    for (map, origin) in cases() {
        let body = format!(
            "ld.param.u64 %l3, [pX]; mad.wide.u32 %l3, %r0, 16, %l3; ld.global.v4.b32 {{%r8, %r9, %r10, %r11}}, [%l3+8192];\n\
             st.shared.v4.b32 [%r4], {{%r8, %r9, %r10, %r11}}; fence.proxy.async; bar.sync 0; @!%p0 bra DONE;\n\
             cp.async.bulk.tensor.{}d.global.shared::cta.bulk_group [%l0, {{{}}}], [%r1];\n\
             cp.async.bulk.commit_group; cp.async.bulk.wait_group 0; DONE:",
            origin.len(),
            coordinates(&origin)
        );
        // The source is past the tensor.
        let (_, after) = run(&kernel(1, &body), 1, &map, &x, 0).unwrap_or_else(|f| panic!("{f} {map:?}"));
        let outside = box_of(&map, &vec![0; 16384], &origin);
        let inside = box_of(&map, &vec![1; 16384], &origin);
        let written = box_of(&map, &after, &origin);
        let mut changed = 0;
        for i in 0..BYTES {
            if inside[i] != outside[i] {
                assert_eq!(written[i], x[8192 + i], "{map:?} at {origin:?}");
                changed += 1;
            }
        }
        let differ = after.iter().zip(&x).filter(|(a, b)| a != b).count();
        assert!(differ <= changed, "{differ} bytes changed of {changed}: {map:?}");
    }
}

#[test]
fn boxes_for_several_blocks() {
    let x = numbers(16384);
    let map = map(2, &[64, 16], &[64, 8], 128);
    // Block 1 copies to blocks 0 and 2, at their own addresses.
    let body = format!(
        "{FILL} @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 1024; barrier.cluster.arrive; barrier.cluster.wait;\n\
         mov.b16 %h, 0x5; setp.eq.and.u32 %p2, %r3, 1, %p0; and.b32 %r6, %r3, 1; setp.ne.u32 %p3, %r6, 0;\n\
         @%p2 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster\n\
         [%r1], [%l0, {{0, 4}}], [%r2], %h; @%p3 bra END; {WAIT} END:"
    );
    let expect = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 1024;";
    for seed in 0..4 {
        let (got, _) = run(&kernel(4, &body), 4, &map, &x, seed).unwrap_or_else(|f| panic!("{f}"));
        let want = box_of(&map, &x, &[0, 4]);
        for rank in [0, 2] {
            assert!(got[rank * BYTES..][..BYTES] == want, "block {rank}");
        }
        assert!(got[BYTES..][..BYTES].iter().all(|b| *b == 0));
        if seed == 0 {
            // A block that expects less never waits for what comes.
            let early = run(&kernel(4, &body.replace(expect, &expect.replace("1024", "512"))), 4, &map, &x, seed).unwrap_err();
            assert!(matches!(early.kind, Kind::Unfinished | Kind::Deadlock | Kind::Misuse), "{early}");
        }
    }
}

#[test]
fn maps_that_the_driver_refuses() {
    let x = numbers(16384);
    let good = map(2, &[64, 16], &[64, 8], 128);
    let body = format!(
        "{FILL} @!%p0 bra WAIT; mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 1024;\n\
         cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%l0, {{0, 4}}], [%r2]; {WAIT}"
    );
    let text = kernel(1, &body);
    assert!(run(&text, 1, &good, &x, 0).is_ok());
    for (bad, word) in [
        (TensorMap { address: 8, ..good.clone() }, "address"),
        (TensorMap { strides: vec![136], ..good.clone() }, "stride"),
        (TensorMap { strides: vec![1 << 40], ..good.clone() }, "stride"),
        (TensorMap { extents: vec![128, 8], ..good.clone() }, "swizzle"),
        (TensorMap { extents: vec![60, 8], ..good.clone() }, "16"),
        (TensorMap { extents: vec![64, 257], ..good.clone() }, "256"),
        (TensorMap { extents: vec![64, 0], ..good.clone() }, "256"),
        (TensorMap { dims: vec![64, 1 << 33], ..good.clone() }, "dimension"),
        (TensorMap { dims: vec![64, 0], ..good.clone() }, "dimension"),
        (TensorMap { swizzle_bytes: 96, ..good.clone() }, "swizzle"),
        (TensorMap { dims: vec![64], strides: vec![], extents: vec![64], ..good.clone() }, "dimensions"),
    ] {
        let fault = run(&text, 1, &bad, &x, 0).unwrap_err();
        assert!(fault.kind == Kind::Misuse && fault.what.contains(word), "{bad:?}: {fault}");
    }
    let low = run(&text.replace("[%r1], [%l0", "[%r1+16], [%l0"), 1, &good, &x, 0).unwrap_err();
    assert_eq!(low.kind, Kind::Misaligned);
}

#[test]
fn plain_bulk_copies_and_reductions() {
    let x: Vec<u8> = numbers(16384);
    let any = map(2, &[64, 16], &[64, 8], 128);
    let load = format!(
        "{FILL} @!%p0 bra WAIT; mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 4000;\n\
         cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1+16], [%l1+32], 4000, [%r2]; {WAIT}"
    );
    let got = run(&kernel(1, &load), 1, &any, &x, 3).unwrap().0;
    assert!(got[16..4016] == x[32..4032] && got[..16] == [0; 16] && got[4016..] == [0; 80]);
    // To the next block of the cluster.
    let forward = format!(
        "mov.u32 %r6, 5; add.u32 %r6, %r6, %r3; st.shared.v4.b32 [%r4], {{%r6, %r6, %r6, %r6}}; fence.proxy.async; bar.sync 0;\n\
         @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 1024; barrier.cluster.arrive; barrier.cluster.wait; @!%p0 bra WAIT;\n\
         xor.b32 %r7, %r3, 1; mapa.shared::cluster.u32 %r8, %r1, %r7; mapa.shared::cluster.u32 %r9, %r2, %r7;\n\
         cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%r8], [%r1+2048], 1024, [%r9]; {WAIT}"
    );
    for seed in 0..3 {
        let got = run(&kernel(2, &forward), 2, &any, &x, seed).unwrap_or_else(|f| panic!("{f}")).0;
        assert_eq!([got[0], got[1020], got[1024], got[BYTES], got[BYTES + 1024]], [6, 6, 5, 5, 6]);
    }
    let add = "mov.u32 %r6, 3; st.shared.v4.b32 [%r4], {%r6, %r6, %r6, %r6}; fence.proxy.async; bar.sync 0; @!%p0 bra DONE;
        cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%l1+16], [%r1], 64;
        cp.async.bulk.global.shared::cta.bulk_group [%l1+96], [%r1], 16; cp.async.bulk.commit_group; cp.async.bulk.wait_group.read 0; DONE:";
    let after = run(&kernel(1, add), 1, &any, &x, 0).unwrap().1;
    let word = |b: &[u8], i: usize| u32::from_le_bytes(b[i * 4..][..4].try_into().unwrap());
    for i in 0..32 {
        let want = if (4..20).contains(&i) {
            word(&x, i).wrapping_add(3)
        } else if (24..28).contains(&i) {
            3
        } else {
            word(&x, i)
        };
        assert_eq!(word(&after, i), want, "{i}");
    }
    let early = run(&kernel(1, &add.replace("cp.async.bulk.wait_group.read 0;", "")), 1, &any, &x, 0).unwrap_err();
    assert_eq!(early.kind, Kind::Unfinished);
}

#[test]
fn copies_of_threads_that_arrive() {
    let x = numbers(16384);
    let any = map(2, &[64, 16], &[64, 8], 128);
    // All threads copy, and those of the barrier's count arrive when their copies are done.
    let body = format!(
        "@%p0 mbarrier.inval.shared::cta.b64 [%r2]; @%p0 mbarrier.init.shared::cta.b64 [%r2], 256; bar.sync 0;\n\
         mad.wide.u32 %l3, %r0, 16, %l1; cp.async.cg.shared.global [%r4], [%l3], 16;\n\
         cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%r2]; {WAIT} sub.u32 %r6, 4080, %r4; add.u32 %r6, %r6, %r1; add.u32 %r6, %r6, %r1;\n\
         ld.shared.b32 %r7, [%r6];"
    );
    for seed in 0..3 {
        assert!(run(&kernel(1, &body), 1, &any, &x, seed).unwrap_or_else(|f| panic!("{f}")).0 == x[..BYTES]);
    }
    let alone = body
        .replace("arrive.noinc", "arrive")
        .replace("WAIT: mbarrier", "mbarrier.arrive.shared::cta.b64 _, [%r2]; WAIT: mbarrier");
    assert!(run(&kernel(1, &alone), 1, &any, &x, 1).unwrap_or_else(|f| panic!("{f}")).0 == x[..BYTES]);
    let never = body.replace("arrive.noinc", "arrive");
    assert_eq!(run(&kernel(1, &never), 1, &any, &x, 1).unwrap_err().kind, Kind::Deadlock);
    let early = body.replace("@!%p1 bra WAIT;", "");
    assert!(matches!(
        run(&kernel(1, &early), 1, &any, &x, 1).unwrap_err().kind,
        Kind::Unfinished | Kind::Race | Kind::Uninitialised
    ));
}

#[test]
fn clusters_of_two_dimensions() {
    let text = format!(
        "{HEAD}.visible .entry k(.param .u64 pY)\n.reqnctapercluster 2, 3, 1\n{{\n.reg .b64 %l; .reg .b32 %r<8>;\n\
         mov.u32 %r0, %ctaid.x; mov.u32 %r1, %ctaid.y; mov.u32 %r2, %nctaid.x; mad.lo.u32 %r2, %r1, %r2, %r0; ld.param.u64 %l, [pY];\n\
         mad.wide.u32 %l, %r2, 32, %l; mov.u32 %r3, %clusterid.x; mov.u32 %r4, %clusterid.y; st.global.v4.u32 [%l], {{%r0, %r1, %r3, %r4}};\n\
         mov.u32 %r3, %cluster_ctaid.x; mov.u32 %r4, %cluster_ctaid.y; mov.u32 %r5, %cluster_ctarank; mov.u32 %r6, %cluster_nctaid.y;\n\
         st.global.v4.u32 [%l+16], {{%r3, %r4, %r5, %r6}}; ret;\n}}\n"
    );
    let module = Module::read(&text).unwrap_or_else(|f| panic!("{f}"));
    let mut gpu = Gpu::default();
    let to = gpu.global.reserve("y", 24 * 32);
    let launch = |grid| Launch { grid, block: [1, 1, 1], arguments: vec![Argument::u64(to)], ..Launch::default() };
    gpu.launch(&module.entries[0], &launch([4, 6, 1])).unwrap_or_else(|f| panic!("{f}"));
    for (i, got) in gpu.global.values::<u32>(to).unwrap().chunks(8).enumerate() {
        let (x, y) = (i as u32 % 4, i as u32 / 4);
        assert_eq!(got, [x, y, x / 2, y / 3, x % 2, y % 3, y % 3 * 2 + x % 2, 3]);
    }
    assert_eq!(gpu.launch(&module.entries[0], &launch([6, 4, 1])).unwrap_err().kind, Kind::Misuse);
}

/// Half of the threads leave the barrier in its first phase; the second one wants only the others.
#[test]
fn arrivals_that_are_dropped() {
    let x = numbers(16384);
    let any = map(2, &[64, 16], &[64, 8], 128);
    let body = "@%p0 mbarrier.inval.shared::cta.b64 [%r2]; @%p0 mbarrier.init.shared::cta.b64 [%r2], 256; bar.sync 0;
        st.shared.v4.b32 [%r4], {%r0, %r0, %r0, %r0}; setp.lt.u32 %p2, %r0, 128; @%p2 bra STAYS;
        mbarrier.arrive_drop.shared::cta.b64 _, [%r2]; bra END;
        STAYS: mbarrier.arrive.shared::cta.b64 _, [%r2]; FIRST: mbarrier.test_wait.parity.shared::cta.b64 %p1, [%r2], 0; @!%p1 bra FIRST;
        ld.shared.b32 %r6, [%r4+2048]; st.shared.b32 [%r4], %r6; mbarrier.arrive.shared::cta.b64 _, [%r2];
        SECOND: mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r2], 1; @!%p1 bra SECOND; END:";
    for seed in 0..3 {
        let got = run(&kernel(1, body), 1, &any, &x, seed).unwrap_or_else(|f| panic!("{f}")).0;
        assert_eq!((got[16], got[20]), (129, 1));
    }
    let keeps = body.replace("arrive_drop", "arrive");
    assert_eq!(run(&kernel(1, &keeps), 1, &any, &x, 0).unwrap_err().kind, Kind::Deadlock);
}

/// Whatever the schedule: what nothing orders before a block's exit may come after it.
#[test]
fn a_block_that_others_reach_does_not_leave_before_they_have() {
    let x = numbers(4096);
    let map = map(2, &[64, 16], &[64, 8], 128);
    let both = "barrier.cluster.arrive; barrier.cluster.wait;";
    let own = "xor.b32 %r6, %r3, 1; mapa.shared::cluster.u32 %r7, %r4, %r6; mapa.shared::cluster.u32 %r6, %r2, %r6; st.shared.v4.b32 [%r4], {%r5, %r5, %r5, %r5};";
    for reach in [
        "@%p0 mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r6];",
        "ld.shared::cluster.b32 %r5, [%r7];",
        "st.shared::cluster.b32 [%r7], %r5;",
    ] {
        let text = kernel(2, &format!("{own} {both} {reach}"));
        // After the cluster's last barrier.
        let leaving = kernel(2, &format!("{own} {both}")).replacen("ret;", &format!("{reach} ret;"), 1);
        for seed in 0..4 {
            run(&text, 2, &map, &x, seed).unwrap_or_else(|f| panic!("{reach}: {f}"));
            let fault = run(&leaving, 2, &map, &x, seed).expect_err(reach);
            assert_eq!(fault.kind, Kind::Race, "{reach}: {fault}");
        }
    }
    // Block 1 copies to block 0, which does not wait.
    let copy = format!(
        "{FILL} @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 1024; {both} mov.b16 %h, 1; setp.eq.and.u32 %p2, %r3, 1, %p0;\n\
         @%p2 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%r1], [%l0, {{0, 4}}], [%r2], %h; ret;"
    );
    let fault = (0..4).map(|seed| run(&kernel(2, &copy), 2, &map, &x, seed).unwrap_err());
    assert!(fault.into_iter().all(|f| matches!(f.kind, Kind::Race | Kind::Unfinished)));
}
