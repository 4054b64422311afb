//! Races in global memory, between blocks and within one, and what orders accesses.

use crate::instructions::HEAD;
use crate::ptx_interpreter::{Argument, Gpu, Kind, Launch, Module};

/// Runs a body in which `%l0` is a page of zeros, `%r0` the thread, `%r1` the block, `%r2` the number of blocks.
fn run(blocks: u32, threads: u32, body: &str) -> Result<Vec<u32>, Kind> {
    let text = format!(
        "{HEAD}.visible .entry k(.param .u64 pX)\n{{\n.reg .b64 %l<4>; .reg .b32 %r<12>; .reg .pred %p<4>; .shared .b32 s;\n\
         mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %nctaid.x; ld.param.u64 %l0, [pX];\n\
         mad.wide.u32 %l1, %r0, 4, %l0; mad.wide.u32 %l2, %r1, 4, %l0; setp.eq.u32 %p0, %r0, 0; setp.eq.u32 %p1, %r1, 0;\n{body}\nret;\n}}\n"
    );
    let module = Module::read(&text).unwrap_or_else(|f| panic!("{f}"));
    if let Some(ptxas) = crate::ptxas() {
        crate::assemble(&ptxas, "sm_90a", &text);
    }
    let mut found = Ok(Vec::new());
    for seed in 0..4 {
        let mut gpu = Gpu::default();
        let x = gpu.global.allocate("x", &[0u32; 1024]);
        let launch =
            Launch { grid: [blocks, 1, 1], block: [threads, 1, 1], shared_bytes: 0, arguments: vec![Argument::u64(x)], seed };
        found =
            gpu.launch(&module.entries[0], &launch).map_err(|f| f.kind).and_then(|_| gpu.global.values(x).map_err(|f| f.kind));
        if found.is_err() {
            break;
        }
    }
    found
}

#[test]
fn blocks_that_share_words_race() {
    let own = "mad.lo.u32 %r3, %r1, 32, %r0; mad.wide.u32 %l1, %r3, 4, %l0; st.global.u32 [%l1], %r3;";
    assert_eq!(run(4, 32, own).unwrap()[127], 127);
    let race = Err(Kind::Race);
    assert_eq!(run(4, 32, "st.global.u32 [%l1], %r0;"), race);
    assert_eq!(run(2, 32, "@%p1 st.global.u32 [%l1], %r0; @!%p1 ld.global.u32 %r4, [%l1];"), race);
    assert_eq!(run(2, 32, "@!%p1 st.global.u8 [%l1+1], %r0; @%p1 st.global.u8 [%l1], %r0;").map(|v| v[1]), Ok(0x101));
    assert_eq!(run(2, 32, "@!%p1 st.global.u16 [%l1], %r0; @%p1 st.global.u8 [%l1+1], %r0;"), race);
    // Many read what the last block writes.
    let many = "ld.global.u32 %r4, [%l1]; add.u32 %r5, %r1, 1; setp.eq.u32 %p2, %r5, %r2; @%p2 st.global.u32 [%l1], %r4;";
    assert_eq!(run(40, 64, many), race);
    assert!(run(1, 64, many).is_ok());
    assert!(run(40, 64, "red.global.add.u32 [%l1], 1;").unwrap()[..64].iter().all(|x| *x == 40));
    assert_eq!(run(4, 32, "red.global.add.u32 [%l1], 1; @%p1 ld.global.u32 %r4, [%l1];"), race);
}

#[test]
fn threads_of_a_block_race_without_a_barrier() {
    let turned = "st.global.u32 [%l1], %r0; BAR xor.b32 %r3, %r0, 32; mad.wide.u32 %l1, %r3, 4, %l0; ld.global.u32 %r4, [%l1];";
    assert_eq!(run(1, 64, &turned.replace("BAR", "")), Err(Kind::Race));
    assert!(run(1, 64, &turned.replace("BAR", "bar.sync 0;")).is_ok());
    assert_eq!(run(1, 32, "shr.u32 %r3, %r0, 1; mad.wide.u32 %l1, %r3, 4, %l0; st.global.u32 [%l1], %r0;"), Err(Kind::Race));
    let before = "ld.global.u32 %r4, [%l0]; BAR @%p0 st.global.u32 [%l0], 5;";
    assert_eq!(run(1, 64, &before.replace("BAR", "")), Err(Kind::Race));
    assert!(run(1, 64, &before.replace("BAR", "bar.sync 0;")).is_ok());
}

#[test]
fn flags_order_blocks() {
    // Each block leaves its part; the one that comes last adds them up.
    let last = "@!%p0 bra DONE; add.u32 %r3, %r1, 1; st.global.u32 [%l2+64], %r3; membar.gl;
        atom.global.add.u32 %r4, [%l0], 1; add.u32 %r4, %r4, 1; setp.ne.u32 %p2, %r4, %r2; @%p2 bra DONE; membar.gl;
        mov.u32 %r5, 0; mov.u32 %r6, 0;
        SUM: mad.wide.u32 %l3, %r6, 4, %l0; ld.global.u32 %r7, [%l3+64]; add.u32 %r5, %r5, %r7; add.u32 %r6, %r6, 1;
        setp.lt.u32 %p3, %r6, %r2; @%p3 bra SUM; st.global.u32 [%l0+4], %r5; DONE:";
    assert_eq!(run(20, 32, last).unwrap()[1], 210);
    assert_eq!(run(20, 32, &last.replace("@%p2 bra DONE;", "")), Err(Kind::Race));
    assert_eq!(run(20, 32, &last.replacen("membar.gl;", "", 1)), Err(Kind::Race));
    assert_eq!(run(20, 32, &last.replacen("membar.gl;", "fence.acq_rel.cta;", 1)), Err(Kind::Race));
    let releasing = last.replacen("membar.gl;", "", 1).replace("atom.global.add", "atom.acq_rel.gpu.global.add");
    assert_eq!(run(20, 32, &releasing).unwrap()[1], 210);
    // All threads leave parts; the fence stands before or after the block's barrier.
    let all = "mad.lo.u32 %r3, %r1, 32, %r0; mad.wide.u32 %l3, %r3, 4, %l0; st.global.u32 [%l3+64], 1; BAR @!%p0 bra DONE; FENCE
        atom.global.add.u32 %r4, [%l0], 1; add.u32 %r4, %r4, 1; setp.ne.u32 %p2, %r4, %r2; @%p2 bra DONE; membar.gl;
        mov.u32 %r5, 0; mov.u32 %r6, 0; shl.b32 %r8, %r2, 5;
        SUM: mad.wide.u32 %l3, %r6, 4, %l0; ld.global.u32 %r7, [%l3+64]; add.u32 %r5, %r5, %r7; add.u32 %r6, %r6, 1;
        setp.lt.u32 %p3, %r6, %r8; @%p3 bra SUM; st.global.u32 [%l0+4], %r5; DONE:";
    for (bar, fence, sound) in [
        ("bar.sync 0;", "membar.gl;", true),
        ("membar.gl; bar.sync 0;", "", true),
        ("bar.sync 0;", "", false),
        ("", "membar.gl;", false),
    ] {
        let got = run(8, 32, &all.replace("BAR", bar).replace("FENCE", fence));
        assert_eq!(got.map(|x| x[1]), if sound { Ok(256) } else { Err(Kind::Race) }, "{bar} {fence}");
    }
    let relay = "@!%p0 bra DONE; @!%p1 bra SECOND; st.global.u32 [%l0+64], 7; st.release.gpu.global.u32 [%l0], 1; bra DONE;
        SECOND: ld.acquire.gpu.global.u32 %r4, [%l0]; setp.eq.u32 %p2, %r4, 0; @%p2 bra SECOND;
        ld.global.u32 %r5, [%l0+64]; st.global.u32 [%l0+128], %r5; DONE:";
    assert_eq!(run(2, 32, relay).unwrap()[32], 7);
    assert_eq!(run(2, 32, &relay.replace("@%p2 bra SECOND;", "")), Err(Kind::Race));
    assert_eq!(run(2, 32, &relay.replace(".release.gpu", "").replace(".acquire.gpu", "")), Err(Kind::Race));
}
