//! Planted errors in reductions, normalisations, attention, recurrent layers and quantisation by range.

use halfbyte::DType;
use halfbyte::base::xorshift::Xorshift;
use halfbyte::graph::problem::attend::{Attention, HeadLayout, Scores};
use halfbyte::graph::problem::reduce::{ReduceKind, Rows};
use halfbyte::graph::problem::{AttendProblem, ReduceProblem};
use halfbyte::graph::{Attr, Problem, Type};
use halfbyte::{Shape, Tensor};

use super::check::tensor;
use super::planted::{Case, EARLY, OUTSIDE, UNSTORED, small};
use super::products::lower_to;
use super::ptx_interpreter::Kind::*;

const F32: DType = DType::F32;

/// Different numbers between -4 and 4.
pub fn spread(r: &mut Xorshift, dtype: DType, shape: &[usize]) -> Option<Tensor> {
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| r.unit() * 8.0 - 4.0).collect();
    Some(tensor(dtype, shape, &values))
}

/// An operator of rows.
pub fn rows(op: &str, attrs: &[(&str, Attr)], inputs: Vec<Option<Tensor>>, out: Type) -> Case {
    let out = vec![out];
    Case { tolerance: 1e-5, ..Case::new("cuda-sm61-rows", lower_to("", op, attrs, &inputs, &out), inputs, out) }
}

#[test]
fn errors_in_folds() {
    let mut r = Xorshift::new(3);
    let axes = |axis| [("axes", Attr::Ints(vec![axis]))];
    let x = vec![spread(&mut r, F32, &[9, 1000])];
    rows("ReduceMax", &axes(1), x, Type::new(F32, [9, 1])).catches(&[
        ("fold_f32", "shfl.sync.bfly.b32 %a_o, %acc0, 8, 31", "shfl.sync.bfly.b32 %a_o, %acc0, 4, 31", &[]),
        ("fold_f32", "@%writes st.shared.f32 [%slot], %acc0;\n    bar.sync 0;", "@%writes st.shared.f32 [%slot], %acc0;", EARLY),
        ("fold_f32", "setp.lt.u32 %p3, %op, %end;", "setp.le.u32 %p3, %op, %end;", OUTSIDE),
        ("fold_f32", "ld.param.f32 %acc, [start];", "mov.f32 %acc, 0f42000000;", &[]),
    ]);
    let x = vec![small(&mut r, F32, &[3, 40, 9])];
    rows("ReduceMean", &axes(1), x, Type::new(F32, [3, 1, 9])).catches(&[
        ("fold_f32", "and.pred %in, %in, %live;", "", OUTSIDE),
        ("fold_f32", "div.rn.f32 %acc0, %acc0, %divisor;", "", &[]),
        ("fold_f32", "add.rn.f32 %acc0, %acc0, %a_o;\n\n    bra $a_more;", "bra $a_more;", &[]),
    ]);
}

#[test]
fn errors_in_softmax() {
    let mut r = Xorshift::new(4);
    let x = vec![spread(&mut r, F32, &[3, 1000])];
    let all = "%a_p, %S, 32;\n    @%a_p bra $a_done;\n  $a_exchange:\n";
    let add = format!("add.rn.f32 %acc, %acc, %a_o;\n\n  $a_1:\n    setp.le.u32 {all}");
    let (from, to) = (format!("{add}    bar.sync 0;\n").leak(), add.leak());
    rows("Softmax", &[("axis", Attr::Int(1))], x, Type::new(F32, [3, 1000])).catches(&[
        // The second exchange begins before the first one was read.
        ("rows_softmax_f32_cached", from, to, EARLY),
        (
            "rows_softmax_f32_cached",
            "@%writes st.shared.f32 [%slot], %acc;\n    bar.sync 0;",
            "@%writes st.shared.f32 [%slot], %acc;",
            EARLY,
        ),
        ("rows_softmax_f32_cached", "sub.rn.f32 %y, %v0, %a;", "mov.f32 %y, %v0;", &[]),
        ("rows_softmax_f32_cached", "@%p7 add.rn.f32 %acc, %acc, %y;", "add.rn.f32 %acc, %acc, %y;", &[]),
        ("rows_softmax_f32_cached", "max.s32 %e_i, %e_i, -126;\n    add.s32 %e_i, %e_i, 127;", "add.s32 %e_i, %e_i, 126;", &[]),
        ("rows_softmax_f32_cached", "//@store2 %z %y %e1 %p1 %p1", "", UNSTORED),
    ]);
    let x = vec![spread(&mut r, F32, &[2, 60, 9])];
    rows("LogSoftmax", &[("axis", Attr::Int(1))], x, Type::new(F32, [2, 60, 9])).catches(&[
        ("rows_softmax_f32", "each add.u32 %a_at, %a_at, %hop;", "add.u32 %a_at, %a_at, 4;", &[]),
        ("rows_softmax_f32", "selp.u32 %end, %units, 0, %live;", "mov.u32 %end, %units;", &[Race]),
        ("rows_softmax_f32", "each setp.lt.u32 %p3, %next, %end;", "setp.le.u32 %p3, %next, %end;", OUTSIDE),
    ]);
}

#[test]
fn errors_in_normalisations() {
    let mut r = Xorshift::new(5);
    let inputs = vec![spread(&mut r, F32, &[3, 600]), spread(&mut r, F32, &[600]), spread(&mut r, F32, &[600])];
    rows("LayerNormalization", &[("epsilon", Attr::Float(0.5))], inputs, Type::new(F32, [3, 600])).catches(&[
        ("rows_moments_f32_cached", "add.rn.f32 %b, %acc, %epsilon;", "mov.f32 %b, %acc;", &[]),
        ("rows_moments_f32_cached", "div.rn.f32 %a, %acc, %n;", "mov.f32 %a, %acc;", &[]),
        ("rows_moments_f32_cached", "@!%linear sqrt.rn.f32 %b, %b;", "", &[]),
        ("rows_moments_f32_cached", "mad.lo.u32 %next, %S, 1, %slice;", "mad.lo.u32 %next, %S, 0, %slice;", UNSTORED),
    ]);
}

#[test]
fn errors_in_places_and_running_sums() {
    let mut r = Xorshift::new(6);
    let attrs = [("axis", Attr::Int(1)), ("select_last_index", Attr::Int(0))];
    rows("ArgMax", &attrs, vec![small(&mut r, F32, &[5, 300])], Type::new(DType::I64, [5, 1])).catches(&[
        ("arg_f32", "setp.lt.u32 %r, %oi, %i;", "setp.gt.u32 %r, %oi, %i;", &[]),
        ("arg_f32", "  bar.sync 0;\n", "", EARLY),
        ("arg_f32", "shfl.sync.bfly.b32 %oi, %i, 8, 31", "shfl.sync.bfly.b32 %oi, %i, 4, 31", &[]),
        ("arg_f32", "@%writes st.shared.b32 [%islot], %i;", "", UNSTORED),
    ]);
    let shape = Shape::from([2, 600]);
    for (reverse, exclusive) in [(true, false), (false, true)] {
        let kind = ReduceKind::CumSum { rows: Rows::along(&shape, 1), exclusive, reverse };
        let problem = Problem::Reduce(ReduceProblem { x: Type::new(F32, shape.clone()), out: vec![F32], kind });
        let case = Case::new("cuda-sm61-rows", problem, vec![small(&mut r, F32, &shape)], vec![Type::new(F32, shape.clone())]);
        match reverse {
            true => case.catches(&[
                ("scan_f64", "selp.u32 %u, %to, %u, %reverse;", "", &[]),
                ("scan_f64", "xor.b32 %to, %to, 2048;", "", &[Race]),
                ("scan_f64", "$steps:\n  bar.sync 0;", "$steps:", EARLY),
                ("scan_f64", "setp.lt.u32 %p, %slice, %step;", "setp.le.u32 %p, %slice, %step;", &[]),
                ("scan_f64", "add.f64 %carry, %carry, %o;", "", &[]),
            ]),
            false => case.catches(&[
                (
                    "scan_f64",
                    "  bar.sync 0;\n  st.shared.f64 [%at], %v;\n$steps:",
                    "  st.shared.f64 [%at], %v;\n$steps:",
                    &[Race],
                ),
                ("scan_f64", "sub.u32 %to, %at, %hopped;", "mov.u32 %to, %at;", &[]),
            ]),
        }
    }
}

pub fn attention(dtype: DType, [q_len, kv_len, past_len, head_size, v_head_size]: [usize; 5]) -> Case {
    let mut r = Xorshift::new(8);
    let (batch, q_heads, kv_heads) = (1, 2, 1);
    let p = Attention {
        dtype,
        layout: HeadLayout::HeadsFirst,
        batch,
        q_heads,
        kv_heads,
        q_len,
        kv_len,
        past_len,
        head_size,
        v_head_size,
        k_transposed: false,
        scale: 0.1,
        softcap: 0.0,
        causal: true,
        mask: None,
        mask_keys: past_len + kv_len,
        valid: false,
        scores: Scores::Raw,
    };
    let mut of = |n: usize| (n > 0).then(|| spread(&mut r, dtype, &[n])).flatten();
    let mut inputs = [q_heads * q_len * head_size, kv_len * head_size, kv_len * v_head_size].map(&mut of).to_vec();
    // Keys that count for more the later they come, so that the largest score so far changes.
    let past =
        of(past_len * head_size).map(|t| tensor(dtype, t.shape(), &t.to_f64().iter().map(|v| v * 0.5).collect::<Vec<_>>()));
    inputs.extend([None, past, of(past_len * v_head_size), None]);
    let y = Type::new(dtype, [q_heads * q_len * v_head_size]);
    let (kernel, tolerance) = if dtype == F32 { ("cuda-sm61-heads", 1e-5) } else { ("cuda-sm80-flash", 4e-3) };
    Case { tolerance, ..Case::new(kernel, Problem::Attend(AttendProblem::Attention(p)), inputs, vec![y]) }
}

#[test]
fn errors_in_attention_by_heads() {
    attention(F32, [18, 18, 120, 40, 36]).catches(&[
        ("attend", "@%p0 bra $scored;\n  bar.sync 0;", "@%p0 bra $scored;", EARLY),
        ("attend", "@%p0 bra $keys;\n  bar.sync 0;", "@%p0 bra $keys;", EARLY),
        ("attend", "  bar.sync 0;\n  // Each query's maximum", "  // Each query's maximum", EARLY),
        ("attend", "  bar.sync 0;\n  // Results of this thread's element", "  // Results of this thread's element", EARLY),
        ("attend", "each setp.lt.u32 %sc_seen, %sc_j, %sc_limit;", "setp.le.u32 %sc_seen, %sc_j, %sc_limit;", &[]),
        ("attend", "shfl.sync.bfly.b32 %o, %x, 2, 31", "shfl.sync.bfly.b32 %o, %x, 1, 31", &[]),
        ("attend", "shfl.sync.bfly.b32 %x, %o, 2, 31", "shfl.sync.bfly.b32 %x, %o, 1, 31", &[]),
        ("attend", "fma.rn.f32 %l, %l, %qb, %o;", "add.rn.f32 %l, %l, %o;", &[]),
        ("attend", "mul.rn.f32 %acc3, %acc3, %c3;", "", &[]),
        ("attend", "setp.lt.and.u32 %ok, %n, %rows, %p1;", "mov.pred %ok, %p1;", OUTSIDE),
        ("attend", "sub.u32 %i, %i, %past;", "", &[]),
    ]);
}

#[test]
fn errors_in_attention_on_tensor_cores() {
    attention(DType::F16, [70, 70, 150, 40, 32]).catches(&[
        ("flash_f16_64", "cp.async.wait_group 1;", "cp.async.wait_group 2;", EARLY),
        ("flash_f16_64", "$last:\n  cp.async.wait_group 0;", "$last:", EARLY),
        ("flash_f16_64", "$here:\n  bar.sync 0;", "$here:", EARLY),
        ("flash_f16_64", "every warp is through.\n  bar.sync 0;", "every warp is through.", EARLY),
        ("flash_f16_64", "  bar.sync 0;\n  // Where this lane's rows", "  // Where this lane's rows", EARLY),
        ("flash_f16_64", "x4.trans.shared", "x4.shared", &[]),
        ("flash_f16_64", "xor.b32 %kx, %u, %w;", "mov.b32 %kx, %u;", &[]),
        ("flash_f16_64", "mul.rn.f32 %l0, %l0, %c0;", "", &[]),
        ("flash_f16_64", "each setp.lt.u32 %seen, %u, %limit0;", "setp.le.u32 %seen, %u, %limit0;", &[]),
        ("flash_f16_64", "shfl.sync.bfly.b32 %y, %l0, 2, 31", "shfl.sync.bfly.b32 %y, %l0, 1, 31", &[]),
        ("flash_f16_64", "each setp.lt.and.u32 %y_p, %y_c, %d, %y_p;", "", OUTSIDE),
        ("flash_f16_64", "cvt.rn.f16x2.f32 %pf0, %s1, %s0;", "cvt.rn.f16x2.f32 %pf0, %s0, %s1;", &[]),
        ("flash_f16_64", "setp.lt.u32 %row_in0, %u, %rows;", "setp.le.u32 %row_in0, %u, %rows;", OUTSIDE),
    ]);
}

/// `[3 steps, 5 sequences, 20]`, of lengths of their own where `lengths`, into 9 hidden units.
fn recurrent(op: &str, gates: usize, attrs: &[(&str, Attr)], states: usize) -> Case {
    let mut r = Xorshift::new(9);
    let (steps, batch, input, hidden) = (3, 5, 20, 9);
    let mut of = |shape: &[usize]| {
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| r.unit() - 0.5).collect();
        Some(tensor(F32, shape, &values))
    };
    let mut inputs = vec![of(&[steps, batch, input]), of(&[1, gates * hidden, input]), of(&[1, gates * hidden, hidden])];
    inputs.extend([of(&[1, 2 * gates * hidden]), Some(Tensor::vector(&[3i32, 1, 2, 3, 3])), of(&[1, batch, hidden])]);
    let attrs: Vec<_> = attrs.iter().cloned().chain([("hidden_size", Attr::Int(hidden as i64))]).collect();
    let state = batch * hidden;
    let outputs: Vec<Type> = [steps * state].into_iter().chain(vec![state; states]).map(|n| Type::new(F32, [n])).collect();
    let problem = lower_to("", op, &attrs, &inputs, &outputs);
    inputs.resize(12, None);
    Case { constant: &[1, 2], tolerance: 1e-5, ..Case::new("cuda-sm61-recurrent", problem, inputs, outputs) }
}

#[test]
fn errors_in_recurrent_layers() {
    recurrent("LSTM", 4, &[("direction", Attr::Str("reverse".into()))], 2).catches(&[
        ("recurrent_input", "  bar.sync 0;\n", "", EARLY),
        ("recurrent_input", "st.shared.f32 [%at7], %v;\n  bar.sync 0;", "st.shared.f32 [%at7], %v;", EARLY),
        ("recurrent_input", "setp.lt.u32 %in, %u, %depth;", "setp.le.u32 %in, %u, %depth;", OUTSIDE),
        ("recurrent_input", "each setp.lt.and.u32 %ok, %u, %columns, %in;", "setp.le.and.u32 %ok, %u, %columns, %in;", OUTSIDE),
        ("recurrent_lstm", "shfl.sync.bfly.b32 %x, %acc0, 4, 31", "shfl.sync.bfly.b32 %x, %acc0, 2, 31", &[]),
        ("recurrent_lstm", "setp.lt.u32 %bin1, %u, %batch;", "setp.le.u32 %bin1, %u, %batch;", OUTSIDE),
        ("recurrent_lstm", "setp.lt.u32 %cell, %lane, 4;", "setp.le.u32 %cell, %lane, 4;", OUTSIDE),
        ("recurrent_lstm", "selp.f32 %x, %v, %old, %active;", "mov.f32 %x, %v;", &[]),
        ("recurrent_lstm", "@%p mov.b32 %time, %e;", "", &[]),
        ("recurrent_lstm", "mul.rn.f32 %mem, %s2, %mem;", "mul.rn.f32 %mem, %s1, %mem;", &[]),
    ]);
    recurrent("GRU", 3, &[], 1).catches(&[
        ("recurrent_gru_gates", "mul.rn.f32 %v, %s1, %old;", "mul.rn.f32 %v, %s0, %old;", &[]),
        ("recurrent_gru_hidden", "fma.rn.f32 %v, %f, %old, %x;", "fma.rn.f32 %v, %s0, %old, %x;", &[]),
        ("recurrent_gru_hidden", "mad.wide.u32 %a64, %u, 4, %met;", "mad.wide.u32 %a64, %u, 4, %next;", OUTSIDE),
    ]);
}

#[test]
fn errors_in_quantisation_by_range() {
    let mut r = Xorshift::new(10);
    let n = 4103;
    let x = Type::new(F32, [n]);
    let problem = ReduceProblem { x: x.clone(), out: vec![DType::U8, F32, DType::U8], kind: ReduceKind::DynamicQuantize };
    let outputs = vec![Type::new(DType::U8, [n]), Type::new(F32, []), Type::new(DType::U8, [])];
    // The largest element is the last one.
    let mut values = spread(&mut r, F32, &[n]).unwrap().to_f64();
    values[n - 1] = 9.3;
    let inputs = vec![Some(tensor(F32, &[n], &values))];
    Case::new("cuda-sm61-dynamic-quantize", Problem::Reduce(problem), inputs, outputs).catches(&[
        ("dynamic_range", "  bar.sync 0;\n", "", EARLY),
        ("dynamic_range", "setp.ge.u32 %p, %i, %n;", "setp.ge.u32 %p, %i, 0;", &[]),
        ("dynamic_range", "shfl.sync.bfly.b32 %o, %hi, 1, 31", "shfl.sync.bfly.b32 %o, %hi, 2, 31", &[]),
        ("dynamic_quantize", "  bar.sync 0;\n", "", EARLY),
        ("dynamic_quantize", "cvt.rni.s32.f32 %q1, %v1;", "cvt.rzi.s32.f32 %q1, %v1;", &[]),
        ("dynamic_quantize", "cvt.rni.s32.f32 %zero, %o;", "cvt.rzi.s32.f32 %zero, %o;", &[]),
        ("dynamic_quantize", "prmt.b32 %q0, %q0, %q1, 0x0040;", "prmt.b32 %q0, %q0, %q1, 0x0004;", &[]),
        ("dynamic_quantize", "setp.gt.u32 %p, %k, %n;", "setp.gt.u32 %p, %i, %n;", OUTSIDE),
        ("dynamic_quantize", "setp.ge.u32 %p, %i, %n;", "setp.gt.u32 %p, %i, %n;", OUTSIDE),
        ("dynamic_quantize", "setp.eq.u32 %first, %k, 0;", "setp.eq.u32 %first, %t, 0;", &[Race]),
    ]);
}
