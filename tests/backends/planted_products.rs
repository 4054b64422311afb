//! Planted errors in convolutions and matrix products.

use halfbyte::base::xorshift::Xorshift;
use halfbyte::graph::{Attr, Problem, Type};
use halfbyte::{DType, Tensor};

use super::check::tensor;
use super::planted::{Case, EARLY, OUTSIDE, UNSTORED, small};
use super::products::lower_to;
use super::ptx_interpreter::Kind::*;
use super::sparse::thinned;

/// A convolution of `x` by `w`, shapes and types, with a bias, padded by 1.
pub fn conv(kernel: &'static str, op: &str, types: [DType; 2], x: &[usize], w: &[usize], group: usize, out: &[usize]) -> Case {
    let mut r = Xorshift::new(19);
    let mut inputs = vec![small(&mut r, types[0], x), small(&mut r, types[1], w)];
    let integer = op == "ConvInteger";
    match integer {
        // Zero points: one of the image, one of each output channel.
        true => inputs.extend([Some(tensor(types[0], &[], &[5.0])), small(&mut r, types[1], &[w[0]])]),
        false => inputs.push(small(&mut r, types[0], &[out[1]])),
    }
    let pads = vec![1; 2 * (x.len() - 2)];
    let attrs = [("group", Attr::Int(group as i64)), ("pads", Attr::Ints(pads)), ("strides", Attr::Ints(vec![2, 1]))];
    let y = vec![Type::new(if integer { DType::I32 } else { types[0] }, out)];
    Case { constant: &[1, 3], ..Case::new(kernel, lower_to("", op, &attrs, &inputs, &y), inputs, y) }
}

const F32: [DType; 2] = [DType::F32; 2];

#[test]
fn errors_in_tiles_of_f32_convolutions() {
    conv("cuda-sm61-conv-f32-64x64", "Conv", F32, &[2, 4, 12, 7], &[6, 2, 3, 3], 2, &[2, 6, 6, 7]).catches(&[
        ("conv_fma_f32_64x64", "  bar.sync 0;\n", "", EARLY),
        ("conv_fma_f32_64x64", "  bar.sync 0;\n  sub.u32 %tiles, %tiles, 1;", "  sub.u32 %tiles, %tiles, 1;", EARLY),
        ("conv_fma_f32_64x64", "and.pred %q, %p, %pm0;", "mov.pred %q, %p;", OUTSIDE),
        ("conv_fma_f32_64x64", "each setp.lt.u32 %p, %k, %K;", "setp.le.u32 %p, %k, %K;", OUTSIDE),
        ("conv_fma_f32_64x64", "each setp.lt.and.u32 %q, %tx, %width, %q;", "setp.le.and.u32 %q, %tx, %width, %q;", OUTSIDE),
        ("conv_fma_f32_64x64", "selp.u32 %iy, %iy, 0x40000000, %q;", "", OUTSIDE),
        ("conv_fma_f32_64x64", "fma.rn.f32 %s9, %fa1, %fb1, %s9;", "fma.rn.f32 %s9, %fa1, %fb0, %s9;", &[]),
        ("conv_fma_f32_64x64", "@%p add.u32 %channel, %channel, 1;", "", &[]),
        ("conv_fma_f32_64x64", "//@store %s9 %tz %pc1", "", UNSTORED),
    ]);
}

#[test]
fn errors_in_convolutions_by_parts_of_k() {
    conv("cuda-sm61-conv-f32-64x64-split", "Conv", F32, &[1, 8, 10, 5], &[3, 8, 3, 3], 1, &[1, 3, 5, 5]).catches(&[
        ("conv_fma_f32_64x64_split", "setp.eq.and.u32 %q, %part, 0, %q;", "", &[]),
        ("conv_fma_f32_64x64_split", "mul.lo.u32 %t, %t, %part;\n  mad.wide.u32 %sums", "mad.wide.u32 %sums", EARLY),
        ("conv_reduce_f32", "mul.wide.u32 %step, %results, 4;", "mul.wide.u32 %step, %results, 2;", &[Misaligned]),
        ("conv_reduce_f32", "setp.ge.u32 %p, %i, %results;", "setp.gt.u32 %p, %i, %results;", OUTSIDE),
        ("conv_reduce_f32", "sub.u32 %parts, %parts, 1;", "sub.u32 %parts, %parts, 2;", &[]),
    ]);
}

#[test]
fn errors_in_convolutions_on_tensor_cores() {
    let types = [DType::F16; 2];
    conv("cuda-sm80-conv-f16-64x32", "Conv", types, &[1, 20, 9, 6], &[9, 20, 3, 3], 1, &[1, 9, 5, 6]).catches(&[
        ("conv_nhwc_b16", "setp.ge.u32 %p, %piece, %k;", "setp.gt.u32 %p, %piece, %k;", OUTSIDE),
        ("conv_nhwc_b16", "setp.lt.and.u32 %inside, %o2, %d, %inside;", "setp.le.and.u32 %inside, %o2, %d, %inside;", OUTSIDE),
        ("conv_mma_f16_64x32", "cp.async.wait_group 2;", "cp.async.wait_group 3;", EARLY),
        ("conv_mma_f16_64x32", "cp.async.wait_group 2;\n  bar.sync 0;", "cp.async.wait_group 2;", EARLY),
        ("conv_mma_f16_64x32", "  bar.sync 0;\n", "", EARLY),
        ("conv_mma_f16_64x32", "  cp.async.commit_group;\n", "", EARLY),
        ("conv_mma_f16_64x32", "selp.u32 %w_size0, 16, 0, %p;", "mov.u32 %w_size0, 16;", OUTSIDE),
        ("conv_mma_f16_64x32", "each setp.ge.u32 %p, %piece, %own;", "setp.gt.u32 %p, %piece, %own;", OUTSIDE),
        ("conv_mma_f16_64x32", "add.u32 %tap, %tap, %step_tap;", "", &[]),
        ("conv_mma_f16_64x32", "xor.b32 %t, %t, %k;", "", EARLY),
        ("conv_mma_f16_64x32", ", {%fa0, %fa1, %fa2, %fa3}, {%fb0", ", {%fa0, %fa2, %fa1, %fa3}, {%fb0", &[]),
        ("conv_mma_f16_64x32", "mad.lo.u32 %m0, %t, 2, %m0;", "add.u32 %m0, %m0, %t;", OUTSIDE),
    ]);
}

#[test]
fn errors_in_integer_convolutions() {
    let types = [DType::U8, DType::I8];
    conv("cuda-sm80-conv-int8-64x32", "ConvInteger", types, &[1, 20, 9, 6], &[9, 20, 3, 3], 1, &[1, 9, 5, 6]).catches(&[
        ("conv_nhwc_b8", "xor.b32 %v, %v, %flip;", "", &[]),
        ("conv_mma_int8_64x32", "cvt.s32.s8 %zx, %zx;", "", &[]),
        ("conv_mma_int8_64x32", "setp.ne.u32 %p, %zw, 0;", "setp.eq.u32 %p, %zw, %zw;\n  not.pred %p, %p;", &[]),
        ("conv_mma_int8_64x32", "min.u32 %t, %t, %n;", "", OUTSIDE),
        ("conv_mma_int8_64x32", "sub.s32 %add, %add, %n;", "add.s32 %add, %add, %n;", &[]),
        ("conv_mma_int8_64x32", "mul.lo.s32 %n, %zw, %xs2;", "mul.lo.s32 %n, %zw, %xs0;", &[]),
        ("conv_mma_int8_64x32", "cp.async.wait_group 2;", "cp.async.wait_group 3;", EARLY),
    ]);
}

#[test]
fn errors_in_depthwise_and_direct_convolutions() {
    conv("cuda-sm61-conv-depthwise", "Conv", F32, &[2, 5, 13, 6], &[10, 1, 3, 3], 5, &[2, 10, 7, 6]).catches(&[
        ("conv_depthwise_f32", "setp.lt.u32 %p, %column, %width;", "setp.le.u32 %p, %column, %width;", OUTSIDE),
        ("conv_depthwise_f32", "setp.ge.u32 %p, %n, %d;", "setp.gt.u32 %p, %n, %d;", OUTSIDE),
        ("conv_depthwise_f32", "each setp.lt.u32 %p, %oy, %d;", "setp.le.u32 %p, %oy, %d;", OUTSIDE),
        ("conv_depthwise_f32", "add.u32 %iy, %iy, %dilation_y;", "", &[]),
    ]);
    let types = [DType::I8, DType::U8];
    conv("cuda-sm61-conv-depthwise", "ConvInteger", types, &[1, 3, 5, 6], &[3, 1, 3, 3], 3, &[1, 3, 3, 6]).catches(&[
        ("conv_depthwise_int", "mov.u32 %vx, %zx;", "mov.u32 %vx, 0;", &[]),
        ("conv_depthwise_int", "xor.b32 %vw, %vw, %fw;\n  sub.s32 %vw, %vw, %zw;", "xor.b32 %vw, %vw, %fw;", &[]),
        ("conv_depthwise_int", "@%q0 xor.b32 %vx, %vx, %fx;", "", &[]),
    ]);
    conv("cuda-sm61-conv-direct", "ConvTranspose", F32, &[1, 2, 4, 5], &[2, 3, 3, 3], 1, &[1, 3, 7, 5]).catches(&[
        ("conv_direct_f32", "setp.ne.or.u32 %skip, %d, %at1, %skip;", "", &[]),
        ("conv_direct_f32", "setp.ge.or.u32 %skip, %d, %in2, %skip;", "setp.gt.or.u32 %skip, %d, %in2, %skip;", OUTSIDE),
        ("conv_direct_f32", "setp.ge.u32 %p, %i, %q;", "setp.gt.u32 %p, %i, %q;", OUTSIDE),
    ]);
}

/// `[m, k]` by `[k, n]`.
pub fn product(kernel: &'static str, op: &str, types: [DType; 3], [m, n, k]: [usize; 3]) -> Case {
    let mut r = Xorshift::new(23);
    let mut inputs = vec![small(&mut r, types[0], &[m, k]), small(&mut r, types[1], &[k, n])];
    if op == "MatMulInteger" {
        inputs.extend([small(&mut r, types[0], &[]), small(&mut r, types[1], &[n])]);
    }
    let y = vec![Type::new(types[2], [m, n])];
    Case { constant: &[1], ..Case::new(kernel, lower_to("", op, &[], &inputs, &y), inputs, y) }
}

/// The same with weights of which two in every four are zero.
pub fn sparse(kernel: &'static str, op: &str, types: [DType; 3], shape: [usize; 3]) -> Case {
    let mut case = product(kernel, op, types, shape);
    case.inputs[1] = case.inputs[1].take().map(|full| thinned(&mut Xorshift::new(29), &full, 0, 0.0));
    if let Problem::Gemm(p) = &mut case.problem {
        p.two_of_four = true;
    }
    case
}

#[test]
fn errors_in_products_without_tensor_cores() {
    product("cuda-sm61-float-64x64", "MatMul", [DType::F32; 3], [5, 69, 37]).catches(&[
        ("gemm_simt_f32_64x64", "  bar.sync 0;\n", "", EARLY),
        ("gemm_simt_f32_64x64", "xor.b32 %fill, %fill, 8704;", "", EARLY),
        ("gemm_simt_f32_64x64", "xor.b32 %slot, %slot, 8704;", "", EARLY),
        ("gemm_simt_f32_64x64", "setp.lt.u32 %inside, %q, %m;", "setp.le.u32 %inside, %q, %m;", OUTSIDE),
        (
            "gemm_simt_f32_64x64",
            "each setp.lt.and.u32 %inside, %k, %to, %inside;",
            "setp.le.and.u32 %inside, %k, %to, %inside;",
            OUTSIDE,
        ),
        ("gemm_simt_f32_64x64", "fma.rn.f32 %d1, %xa0, %xb1, %d1;", "fma.rn.f32 %d1, %xa0, %xb0, %d1;", &[]),
        ("gemm_simt_f32_64x64", "setp.lt.u32 %in_col1, %col1, %n;", "setp.le.u32 %in_col1, %col1, %n;", OUTSIDE),
    ]);
    product("cuda-sm61-int8-64x64", "MatMulInteger", [DType::U8, DType::I8, DType::I32], [5, 70, 150]).catches(&[
        ("gemm_simt_u8_s32_64x64", "each dp4a.u32.s32 %d0, %xa0, %xb0, %d0;", "dp4a.s32.s32 %d0, %xa0, %xb0, %d0;", &[]),
        (
            "gemm_simt_u8_s32_64x64",
            "mul.lo.s32 %index0, %czero, %rsum0;\n  sub.s32",
            "mul.lo.s32 %index0, %czero, %rsum0;\n  add.s32",
            &[],
        ),
    ]);
    product("cuda-sm61-float-gemv", "MatMul", [DType::F32; 3], [3, 6, 600]).catches(&[
        ("gemv_f32_f32_4", "  bar.sync 0;\n", "", EARLY),
        ("gemv_f32_f32_4", "shfl.sync.bfly.b32 %s, %d0, 8, 31, -1;", "shfl.sync.bfly.b32 %s, %d0, 4, 31, -1;", &[]),
        ("gemv_f32_f32_4", "min.u32 %q, %x0, 3;", "mov.u32 %q, 3;", OUTSIDE),
        ("gemv_f32_f32_4", "setp.lt.u32 %more, %c, %to;", "setp.le.u32 %more, %c, %to;", OUTSIDE),
        ("gemv_f32_f32_4", "setp.ge.or.u32 %out, %col0, %n, %out;", "", OUTSIDE),
        ("gemv_f32_f32_4", "ld.shared.b32 %s, [%x0+64];", "ld.shared.b32 %s, [%x0];", &[]),
    ]);
    product("cuda-sm61-float-64x64", "MatMul", [DType::F32; 3], [2, 3, 256]).catches(&[
        ("gemm_reduce_f32", "setp.lt.u32 %more, %part, %parts;", "setp.le.u32 %more, %part, %parts;", OUTSIDE),
        ("gemm_reduce_f32", "mov.b32 %part, 1;", "mov.b32 %part, 2;", &[]),
        ("gemm_reduce_f32", "setp.ge.u32 %out, %i, %size;", "setp.gt.u32 %out, %i, %size;", OUTSIDE),
    ]);
}

#[test]
fn errors_in_products_on_tensor_cores_of_sm75() {
    product("cuda-sm75-f16-64x64", "MatMul", [DType::F16; 3], [9, 70, 100]).catches(&[
        ("gemm_sm75_f16_64x64", "  bar.sync 0;\n\n  @!%more bra LAST;", "  @!%more bra LAST;", EARLY),
        ("gemm_sm75_f16_64x64", "setp.eq.u32 %wrap, %fill, 16384;", "setp.eq.u32 %wrap, %fill, 24576;", OUTSIDE),
        ("gemm_sm75_f16_64x64", "each setp.lt.u32 %inside, %k, %to;", "setp.le.u32 %inside, %k, %to;", OUTSIDE),
        ("gemm_sm75_f16_64x64", "setp.lt.u32 %inside, %x0, %n;", "setp.le.u32 %inside, %x0, %n;", OUTSIDE),
        ("gemm_sm75_f16_64x64", "{%fa0, %fa1}, {%fb0}", "{%fa1, %fa0}, {%fb0}", &[]),
        ("gemm_sm75_f16_64x64", "xor.b32 %x0, %x0, 32;", "add.u32 %x0, %x0, 32;", &[]),
        ("gemm_sm75_f16_64x64", "xor.b32 %q, %q, %key;", "", &[]),
        ("gemm_sm75_f16_64x64", "//@store2 %d2 %d3 %index0 %in0 %in1", "", UNSTORED),
    ]);
    product("cuda-sm75-int8-64x64", "MatMulInteger", [DType::U8, DType::I8, DType::I32], [9, 20, 100]).catches(&[
        ("gemm_sm75_u8_s32_64x64", "m8n8k16.row.col.s32.u8.s8", "m8n8k16.row.col.s32.s8.s8", &[]),
        ("gemm_sm75_u8_s32_64x64", "mul.lo.s32 %index0, %rzero0, %csum;", "mul.lo.s32 %index0, %rzero0, %czero;", &[]),
    ]);
}

#[test]
fn errors_in_the_lists_of_largest_results() {
    let mut r = Xorshift::new(23);
    let top = |r: &mut Xorshift, n: usize, k: usize| {
        let inputs = vec![small(r, F32[0], &[2, 5]), small(r, F32[0], &[5, n]), None, None, Some(Tensor::vector(&[k as i64]))];
        let outputs = vec![Type::new(F32[0], [2, k]), Type::new(DType::I64, [2, k])];
        let problem = lower_to("halfbyte", "MatMulTopK", &[], &inputs, &outputs);
        Case::new("cuda-sm61-float-64x64", problem, inputs, outputs)
    };
    top(&mut r, 1100, 40).catches(&[
        ("top_list", "bra $cleared;\n", "bra $cleared;\n  add.u32 %i, %i, 1;\n", OUTSIDE),
        ("top_list", "[news], %t;\n  bar.sync 0;", "[news], %t;", EARLY),
        ("top_list", "red.shared.or.b32 [news], 1;", "st.shared.b32 [news], 1;", &[Race]),
        ("top_list", "@!%q add.u32 %u, %u, %first;", "", &[]),
        ("top_list", "add.u32 %total, %total, %kept;", "", &[]),
        ("top_list", "and.b32 %t, %t, 0x7FFFFFFF;", "", &[]),
        ("top_list", "shl.b32 %t, %k, 1;\n  @%p st.global", "mov.b32 %t, %k;\n  @%p st.global", &[]),
    ]);
    // More than a block keeps at once.
    top(&mut r, 1500, 1100).catches(&[
        ("top_list", "add.u64 %floor, %floor, 1;", "", &[]),
        ("top_list", "min.u32 %width, %width, %half;\n  bar.sync 0;", "min.u32 %width, %width, %half;", EARLY),
        ("top_list", "@%p mov.b64 %key, -1;", "", &[]),
    ]);
}

#[test]
fn errors_in_products_of_sparse_weights() {
    let half = sparse("cuda-sm80-sparse-half-64x64", "MatMul", [DType::F16; 3], [9, 70, 192]);
    let bytes = sparse("cuda-sm80-sparse-int8-16x128", "MatMulInteger", [DType::U8, DType::I8, DType::I32], [9, 20, 2100]);
    half.catches(&[
        // Places: of another instruction, of other columns, of other rows, none.
        ("gemm_sparse_f16_64x64", "ld.shared.b32 %fe0, [%x0+8704];", "ld.shared.b32 %fe0, [%x0+9280];", &[]),
        ("gemm_sparse_f16_64x64", "%d5}, %fe0, 0;", "%d5}, %fe1, 0;", &[]),
        ("gemm_sparse_f16_64x64", "and.b32 %q, %q, 14;", "and.b32 %q, %q, 6;", &[]),
        ("gemm_sparse_f16_64x64", "and.b32 %key, %lane, 1;", "mov.b32 %key, 0;", &[]),
        ("gemm_sparse_f16_64x64", "%d5}, %fe0, 0;", "%d5}, %fe0, 2;", &[Misuse]),
        ("gemm_sparse_f16_64x64", "ld.shared.b32 %fe0, [%x0+8704];", "mov.b32 %fe0, 0;", &[Misuse]),
        // Values, rows of A, results.
        ("gemm_sparse_f16_64x64", "xor.b32 %x0, %x0, 64;", "", &[]),
        ("gemm_sparse_f16_64x64", "and.b32 %q, %line, 7;", "and.b32 %q, %line, 3;", &[]),
        ("gemm_sparse_f16_64x64", "{%fb0, %fb1, %fb2, %fb3}, {%fa0", "{%fb0, %fb2, %fb1, %fb3}, {%fa0", &[]),
        ("gemm_sparse_f16_64x64", "{%d0, %d4, %d1, %d5}, {%fb0", "{%d0, %d1, %d4, %d5}, {%fb0", &[]),
        ("gemm_sparse_f16_64x64", "//@store2 %d2 %d3 %index0 %in0 %in1", "", UNSTORED),
        // The ring.
        ("gemm_sparse_f16_64x64", "cp.async.wait_group 1;", "cp.async.wait_group 2;", EARLY),
        ("gemm_sparse_f16_64x64", "cp.async.wait_group 1;\n  bar.sync 0;", "cp.async.wait_group 1;", EARLY),
        ("gemm_sparse_f16_64x64", "  bar.sync 0;\n", "", EARLY),
        ("gemm_sparse_f16_64x64", "  add.u64 %src_b, %src_b, %step_b;\n", "", &[]),
        ("gemm_sparse_f16_64x64", "selp.b32 %bytes, %size_a0, 0, %inside;", "mov.b32 %bytes, 16;", OUTSIDE),
        ("gemm_sparse_f16_64x64", "each setp.lt.u32 %inside, %bytes, %to;", "setp.le.u32 %inside, %bytes, %to;", OUTSIDE),
    ]);
    bytes.catches(&[
        ("gemm_sparse_u8_s32_16x128", "m16n8k64.row.col.s32.s8.u8.s32", "m16n8k64.row.col.s32.s8.s8.s32", &[]),
        (
            "gemm_sparse_u8_s32_16x128",
            "mad.lo.u32 %read_e, %lane, 4, %read_e;",
            "mad.lo.u32 %read_e, %lane, 2, %read_e;",
            &[Misaligned],
        ),
        ("gemm_sparse_u8_s32_16x128", "shr.u32 %x0, %from, 3;", "shr.u32 %x0, %from, 2;", OUTSIDE),
    ]);
}

/// Ten slots go through a ring of eight.
#[test]
fn errors_in_asynchronous_products_of_sparse_weights() {
    const HALF: &str = "gemm_sm90_sparse_f16_128x128";
    sparse("cuda-sm90-sparse-half-128x128", "MatMul", [DType::F16; 3], [9, 70, 600]).catches(&[
        // Places: of the other instruction, of other columns, none; elements: of other columns, of other rows, with other rows of A.
        (HALF, "%fe0, 0, %keep", "%fe1, 0, %keep", &[]),
        (HALF, "and.b32 %at, %lane, 1;", "mov.b32 %at, 0;", &[]),
        (HALF, "%fe0, 0, %keep", "%fe0, 2, %keep", &[Misuse]),
        (HALF, "mov.b32 %fe0, %ne0;", "mov.b32 %fe0, 0;", &[Misuse]),
        (HALF, "{%fa0, %fa1, %fa2, %fa3}", "{%fa0, %fa2, %fa1, %fa3}", &[]),
        (HALF, "add.u64 %x, %x, 4;", "", &[]),
        // The order of products, loads and moves.
        (HALF, "wgmma.wait_group.sync.aligned 0;\n  setp.ne.u32 %keep", "setp.ne.u32 %keep", &[Unfinished, Race]),
        (HALF, "wgmma.fence.sync.aligned;", "", &[Misuse]),
        (HALF, "%fe0, 0, %keep", "%fe0, 0, %true", &[Uninitialised]),
        // The ring.
        (HALF, "[%ready], 25600;", "[%ready], 16384;", &[Unfinished, Race, Deadlock, Uninitialised, Misuse]),
        (HALF, "  bar.warp.sync -1;\n  @%more mbarrier", "  @%more mbarrier", &[Race]),
        (HALF, "@%more mbarrier.arrive.release.cta.shared::cta.b64 _, [%done];", "", &[Deadlock]),
        (HALF, "mad.wide.u32 %from_b, %pitch, 1, %from_b;", "", &[]),
        (HALF, "fence.mbarrier_init.release.cluster;", "", &[Proxy]),
        // Results.
        (HALF, "//@store2 %d4 %d6 %at %p0 %p1", "", UNSTORED),
        (HALF, "//@store2 %d4 %d6 %at %p0 %p1", "//@store2 %d4 %d5 %at %p0 %p1", &[]),
    ]);
    const BYTES: &str = "gemm_sm90_sparse_u8_s32_128x128";
    let types = [DType::U8, DType::I8, DType::I32];
    sparse("cuda-sm90-sparse-int8-128x128", "MatMulInteger", types, [9, 70, 200]).catches(&[
        (BYTES, "each s32.s8.u8", "s32.s8.s8", &[]),
        (BYTES, "mad.lo.u32 %places, %lane, 4, %elements;", "mad.lo.u32 %places, %lane, 2, %elements;", &[Misaligned]),
        (BYTES, "mad.lo.s32 %d4, %r_zero, %c_sum0, %d4;", "", &[]),
        (BYTES, "mad.lo.s32 %d4, %r_sum, %c_zero0, %d4;", "", &[]),
    ]);
}

/// The first of the two products of adapters: small integers, of items that take the last matrix of three, none, and the first.
fn stack(rows: usize, k: usize, rank: usize) -> Case {
    let mut r = Xorshift::new(31);
    let mut given = |shape: &[usize]| small(&mut r, DType::F32, shape).unwrap();
    let (x, y, a, b) = (given(&[3, rows, k]), given(&[3, rows, 4]), given(&[3, k, rank]), given(&[3, rank, 4]));
    let numbers = Tensor::vector(&[2, -1, 0i32]);
    let [down, _] = super::picked::lower(&[x.clone(), y, numbers.clone(), a.clone(), b]);
    let outputs = vec![Type::new(DType::F32, [3, rows, rank])];
    Case::new("cuda-sm61-float-picked", down, vec![Some(x), Some(a), Some(numbers)], outputs)
}

#[test]
fn errors_in_products_of_stacks() {
    stack(3, 100, 20).catches(&[
        ("gemm_picked_f32_f32_8", "mad.lo.u32 %q, %number, %q, %lane;", "mov.b32 %q, %lane;", &[]),
        ("gemm_picked_f32_f32_8", "selp.b32 %to, %to, 0, %taken;", "", &[]),
        ("gemm_picked_f32_f32_8", "setp.eq.or.u32 %none, %number, -1, %taken;", "mov.pred %none, %taken;", &[]),
        ("gemm_picked_f32_f32_8", "setp.lt.u32 %in_column, %column, %n;", "setp.le.u32 %in_column, %column, %n;", OUTSIDE),
        ("gemm_picked_f32_f32_8", "setp.lt.and.u32 %in4, %k, %to,", "setp.le.and.u32 %in4, %k, %to,", OUTSIDE),
        ("gemm_picked_f32_f32_8", "each min.u32 %q, %q, %k;", "", OUTSIDE),
        ("gemm_picked_f32_f32_8", "each setp.lt.u32 %more, %row0, %m;", "setp.le.u32 %more, %row0, %m;", OUTSIDE),
        ("gemm_picked_f32_f32_8", "  bar.sync 0;\n", "", EARLY),
        ("gemm_picked_f32_f32_8", "shl.b32 %q, %lanes, %shift;", "mov.b32 %q, %lanes;", &[Race]),
        ("gemm_picked_f32_f32_8", "//@store %d2 %index %more", "", UNSTORED),
    ]);
}
