//! How CUDA kernels use memory on full tiles: wavefronts of shared memory beyond the fewest, and sectors of global memory. What a
//! kernel has of either is a bound here, with the reason.

use halfbyte::DType;
use halfbyte::base::xorshift::Xorshift;
use halfbyte::graph::{Attr, Type};

use super::planted::{Case, small};
use super::planted_moves::permuted;
use super::planted_products::{conv, product, sparse};
use super::planted_rows::{attention, rows, spread};

/// Wavefronts beyond the fewest, of each hundred, and the same of sectors, are these.
fn beyond(case: &Case, name: &'static str, shared: u64, global: u64) {
    let s = case.counts(name);
    let percent = |a: u64, least: u64| (100 * a).div_ceil(least.max(1));
    let of_shared = percent(s.shared_loads.excess() + s.shared_stores.excess(), s.shared_loads.least + s.shared_stores.least);
    let of_global = percent(s.global_loads.excess() + s.global_stores.excess(), s.global_loads.least + s.global_stores.least);
    let places = || [s.conflicts(), s.scattered(0)].concat().join("\n");
    assert!((of_shared, of_global) == (shared, global), "{name}: {of_shared} and {of_global} of a hundred\n{}", places());
}

/// Beyond the fewest: of `gemm_simt`, stores of stages, whose two rows of threads meet at a bank; of results that leave as fragments
/// lie, half a sector a row (16-bit results) of f32 convolutions, pairs of pixels in two stores; and each column's bias or record by lanes of one address; of normalisations, factors
/// that are read one element of a pair at a time. All other accesses are at the fewest.
#[test]
fn full_tiles_use_memory_at_its_rate() {
    let half = [DType::F16; 2];
    let f32 = [DType::F32; 2];
    beyond(
        &conv("cuda-sm61-conv-f32-64x64", "Conv", f32, &[1, 8, 16, 16], &[64, 8, 3, 3], 1, &[1, 64, 8, 16]),
        "conv_fma_f32_64x64",
        0,
        34,
    );
    beyond(
        &conv("cuda-sm80-conv-f16-128x64", "Conv", half, &[1, 32, 16, 16], &[64, 32, 3, 3], 1, &[1, 64, 8, 16]),
        "conv_mma_f16_128x64",
        0,
        89,
    );
    let bytes = [DType::U8, DType::I8];
    beyond(
        &conv("cuda-sm80-conv-int8-128x64", "ConvInteger", bytes, &[1, 32, 16, 16], &[64, 32, 3, 3], 1, &[1, 64, 8, 16]),
        "conv_mma_int8_128x64",
        0,
        0,
    );
    beyond(&product("cuda-sm61-float-64x64", "MatMul", [DType::F32; 3], [64, 64, 48]), "gemm_simt_f32_64x64", 3, 40);
    let sums = [DType::U8, DType::I8, DType::I32];
    beyond(&product("cuda-sm61-int8-64x64", "MatMulInteger", sums, [64, 64, 128]), "gemm_simt_u8_s32_64x64", 6, 36);
    beyond(&product("cuda-sm75-f16-64x64", "MatMul", [DType::F16; 3], [64, 64, 96]), "gemm_sm75_f16_64x64", 0, 25);
    beyond(&product("cuda-sm80-half-64x64", "MatMul", [DType::F16; 3], [64, 64, 96]), "gemm_sm80_f16_64x64", 0, 100);
    beyond(&product("cuda-sm80-int8-64x64", "MatMulInteger", sums, [64, 64, 192]), "gemm_sm80_u8_s32_64x64", 0, 12);
    beyond(&sparse("cuda-sm80-sparse-half-64x64", "MatMul", [DType::F16; 3], [64, 64, 192]), "gemm_sparse_f16_64x64", 0, 0);
    beyond(&sparse("cuda-sm80-sparse-int8-64x64", "MatMulInteger", sums, [64, 64, 384]), "gemm_sparse_u8_s32_64x64", 0, 8);
    beyond(&attention(DType::F16, [64, 128, 0, 64, 64]), "flash_f16_64", 0, 100);
    beyond(&permuted(DType::F32, &[64, 64], &[1, 0]), "transpose4", 0, 0);
    beyond(&permuted(DType::F16, &[64, 64], &[1, 0]), "transpose2", 0, 0);
    beyond(&permuted(DType::I64, &[64, 64], &[1, 0]), "transpose8", 0, 0);
    let mut r = Xorshift::new(3);
    let axes = [("axes", Attr::Ints(vec![1]))];
    let x = vec![spread(&mut r, DType::F32, &[4, 1024])];
    beyond(&rows("ReduceMax", &axes, x, Type::new(DType::F32, [4, 1])), "fold_f32", 0, 0);
    let x = vec![small(&mut r, DType::F32, &[40, 64])];
    beyond(&rows("ReduceMean", &[("axes", Attr::Ints(vec![0]))], x, Type::new(DType::F32, [1, 64])), "fold_f32", 0, 0);
    let x = vec![spread(&mut r, DType::F32, &[4, 1024])];
    let y = Type::new(DType::F32, [4, 1024]);
    beyond(&rows("Softmax", &[("axis", Attr::Int(1))], x.clone(), y.clone()), "rows_softmax_f32_cached", 0, 0);
    let inputs = vec![x[0].clone(), spread(&mut r, DType::F32, &[1024]), spread(&mut r, DType::F32, &[1024])];
    beyond(&rows("LayerNormalization", &[], inputs, y), "rows_moments_f32_cached", 0, 50);
}
