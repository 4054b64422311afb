//! Planted errors in movements, pooling and the first elements of lines.

use halfbyte::base::layout::Layout;
use halfbyte::base::xorshift::Xorshift;
use halfbyte::graph::problem::SelectProblem;
use halfbyte::graph::problem::movement::{Movement, Piece, Reduction};
use halfbyte::graph::problem::select::Selection;
use halfbyte::graph::{Attr, Problem, Type};
use halfbyte::{DType, Shape, Tensor};

use super::check::{random, tensor};
use super::moves::moved;
use super::planted::{Case, EARLY, OUTSIDE, UNSTORED, small};
use super::products::lower_to;
use super::ptx_interpreter::Kind::*;

const F32: DType = DType::F32;

fn case(movement: Movement, inputs: Vec<Option<Tensor>>, out: Type) -> Case {
    let out = vec![out];
    Case::new("cuda-any-move", moved(movement, &inputs, &out), inputs, out)
}

/// All of an input of this type and shape, its axes in this order.
pub fn permuted(dtype: DType, shape: &[usize], order: &[usize]) -> Case {
    let whole = Layout::contiguous(Shape::from(shape));
    let shape: Shape = order.iter().map(|&a| whole.shape[a]).collect();
    let from = Layout { shape: shape.clone(), strides: order.iter().map(|&a| whole.strides[a]).collect(), offset: 0 };
    let pieces = vec![Piece { input: 0, from, output: 0, to: Layout::contiguous(shape.clone()) }];
    let x = random(&mut Xorshift::new(2), dtype, &whole.shape);
    case(Movement::Copy { pieces, fill: None }, vec![Some(x)], Type::new(dtype, shape))
}

#[test]
fn errors_in_copies_and_transposes() {
    permuted(F32, &[5, 7, 3], &[1, 0, 2]).catches(&[
        ("copy4", "setp.lt.u32 %in0, %i, %n;", "setp.le.u32 %in0, %i, %n;", OUTSIDE),
        ("copy4", "sub.u32 %walk_c, %walk_n, %walk_c;\n  mov.b32 %walk_n, %walk_q;", "mov.b32 %walk_n, %walk_q;", OUTSIDE),
        (
            "copy4",
            "mul.hi.u32 %walk_q, %walk_n, %walk_k;\n  add.u32 %walk_q, %walk_q, %walk_n;",
            "mul.hi.u32 %walk_q, %walk_n, %walk_k;",
            OUTSIDE,
        ),
    ]);
    permuted(F32, &[2, 35, 41], &[0, 2, 1]).catches(&[
        ("transpose4", "  bar.sync 0;\n", "", EARLY),
        ("transpose4", "mad.lo.u32 %s, %column, 33, %row;", "mad.lo.u32 %s, %column, 32, %row;", OUTSIDE),
        ("transpose4", "setp.lt.u32 %inside, %s, %n;", "setp.le.u32 %inside, %s, %n;", OUTSIDE),
        ("transpose4", "each setp.lt.and.u32 %in, %t, %n, %inside;", "setp.le.and.u32 %in, %t, %n, %inside;", OUTSIDE),
        ("transpose4", "mad.lo.u32 %g, %row, %step, %g;", "add.u32 %g, %row, %g;", OUTSIDE),
        ("transpose4", "[%s+1056], %v1", "[%s+1024], %v1", OUTSIDE),
    ]);
}

#[test]
fn errors_in_choices_by_index() {
    let mut r = Xorshift::new(12);
    let x = || Some(random(&mut Xorshift::new(1), F32, &[6, 5]));
    let at = || Some(Tensor::vector(&[3i32, -1, 0, -6]));
    case(Movement::Gather { axis: 0 }, vec![x(), at()], Type::new(F32, [4, 5])).catches(&[
        ("gather4", "ld.global.nc.s32 %place_i, [%place_a];", "ld.global.nc.u32 %place_i, [%place_a];", &[]),
        ("gather4", "@%place_p add.s64 %place_i, %place_i, %place_d;", "", &[]),
        ("gather4", "setp.ge.u32 %in, %i, %n;", "setp.gt.u32 %in, %i, %n;", OUTSIDE),
        ("gather4", "selp.b32 %place_k, 8, 4, %wide;", "mov.b32 %place_k, 8;", OUTSIDE),
    ]);
    let maps = vec![None, Some(vec![4, 0, 0, 2])];
    case(Movement::Axes(maps), vec![x()], Type::new(F32, [6, 4])).catches(&[
        ("mapped4", "sub.u32 %walk_c, %walk_c, 1;", "", OUTSIDE),
        ("mapped4", "each setp.lt.u32 %in0, %i, %n;", "setp.le.u32 %in0, %i, %n;", OUTSIDE),
    ]);
    let lengths = Tensor::vector(&[3i64, 0, 5, 2, 4, 1]);
    let reverse = Movement::ReverseSequence { batch_axis: 0, time_axis: 1 };
    case(reverse, vec![x(), Some(lengths)], Type::new(F32, [6, 5])).catches(&[
        ("reverse4", "sub.u32 %t, %t, 1;", "", &[]),
        ("reverse4", "setp.lt.u32 %p, %time, %t;", "setp.le.u32 %p, %time, %t;", OUTSIDE),
    ]);
    // Many updates of all places but the last, by several warps.
    let count = 200;
    let at: Vec<i64> = (0..count).map(|_| r.below(5) as i64 - 6 * r.below(2) as i64).collect();
    let at = Some(Tensor::new(Shape::from([count, 1]), &at).unwrap());
    let updates: Vec<f64> = (0..count * 5).map(|_| f64::from(0.5 + r.unit() as f32)).collect();
    let scatter = |reduction| {
        let inputs = vec![x(), at.clone(), Some(tensor(F32, &[count, 5], &updates))];
        case(Movement::ScatterNd { reduction }, inputs, Type::new(F32, [6, 5]))
    };
    scatter(Reduction::None).catches(&[
        ("scatter_latest", "red.global.max.s32 [%heads], %i;", "st.global.u32 [%heads], %i;", &[Race]),
        ("scatter_latest", "red.global.max.s32", "red.global.min.u32", &[]),
        ("scatter_last4", "setp.lt.s32 %p, %head, 0;", "setp.lt.u32 %p, %head, 0;", OUTSIDE),
        ("scatter_last4", "sub.u32 %t, %i, %t;", "mov.u32 %t, 0;", &[]),
    ]);
    let exchange = "atom.global.exch.b32 %old, [%heads], %i;";
    scatter(Reduction::Mul).catches(&[
        ("scatter_link", exchange, "ld.global.b32 %old, [%heads];\n  st.global.b32 [%heads], %i;", &[Race]),
        ("scatter_link", "mad.wide.u32 %next, %i, 4, %next;", "", &[Race]),
        ("scatter_fold_f32", "@%p min.s32 %best, %best, %walk;", "@%p mov.b32 %best, %walk;", &[]),
        ("scatter_fold_f32", "mul.rn.f32 %old, %old, %new;", "mul.rz.f32 %old, %old, %new;", &[]),
    ]);
    let bytes = Some(small(&mut r, DType::I8, &[3])).flatten();
    let at = Some(Tensor::vector(&[2i64, 0, 2]));
    let scatter = Movement::ScatterElements { axis: 0, reduction: Reduction::Min };
    let updates = Some(tensor(DType::I8, &[3], &[-5.0, -2.0, -7.0]));
    case(scatter, vec![bytes, at, updates], Type::new(DType::I8, [3])).catches(&[(
        "scatter_fold_s8",
        "ld.global.nc.s8 %new, [%a];",
        "ld.global.nc.u8 %new, [%a];",
        &[],
    )]);
}

#[test]
fn errors_in_pooling() {
    let mut r = Xorshift::new(13);
    let negative: Vec<f64> = (0..3 * 7 * 8).map(|_| -1.0 - r.below(7) as f64).collect();
    let x = vec![Some(tensor(F32, &[1, 3, 7, 8], &negative))];
    let window = |pad: i64| {
        let two = |v: i64| Attr::Ints(vec![v, v]);
        vec![("kernel_shape", two(3)), ("strides", two(2)), ("pads", Attr::Ints(vec![pad, 1, pad, 1]))]
    };
    let out = vec![Type::new(F32, [1, 3, 4, 4])];
    let pool = |kernel, op: &str, attrs: &[(&str, Attr)]| Case {
        tolerance: 1e-6,
        ..Case::new(kernel, lower_to("", op, attrs, &x, &out), x.clone(), out.clone())
    };
    pool("cuda-f32-pool", "MaxPool", &window(1)).catches(&[
        ("pool_maximum", "setp.ge.u32 %p, %at1, %size;", "setp.gt.u32 %p, %at1, %size;", OUTSIDE),
        ("pool_maximum", "mov.f32 %y, 0fFF800000;", "mov.f32 %y, 0f00000000;", &[]),
        ("pool_maximum", "setp.ge.u32 %p, %i, %n;", "setp.gt.u32 %p, %i, %n;", OUTSIDE),
    ]);
    let counting = [&window(1)[..], &[("count_include_pad", Attr::Int(1))]].concat();
    pool("cuda-f32-pool", "AveragePool", &counting).catches(&[
        ("pool_average", "setp.eq.u32 %p, %option, 0;", "setp.ne.u32 %p, %option, 0;", &[]),
        ("pool_average", "mad.lo.u32 %offset2, %offset1, %size, %at2;", "mad.lo.u32 %offset2, %offset1, %taps, %at2;", &[]),
    ]);
    let plane = vec![small(&mut r, F32, &[1, 5, 9, 15])];
    let out = vec![Type::new(F32, [1, 5, 1, 1])];
    let whole = |op: &str| Case::new("cuda-whole-pool", lower_to("", op, &[], &plane, &out), plane.clone(), out.clone());
    Case { tolerance: 1e-5, ..whole("GlobalAveragePool") }.catches(&[
        ("pool_average_whole", "shfl.sync.bfly.b32 %v0, %y, 4, 31", "shfl.sync.bfly.b32 %v0, %y, 2, 31", &[]),
        ("pool_average_whole", "setp.lt.u32 %in0, %at, %end;", "setp.le.u32 %in0, %at, %end;", OUTSIDE),
        ("pool_average_whole", "//@store %y %i %p", "", UNSTORED),
        ("pool_average_whole", "each add.u32 %at, %at, 32;", "add.u32 %at, %at, 31;", &[]),
    ]);
}

/// The first 40 elements along the axis in the middle.
fn first(shape: [usize; 3], values: &[f64], largest: bool) -> Case {
    let k = 40;
    let types = |dtype| Type::new(dtype, [shape[0], k, shape[2]]);
    let outputs = vec![types(F32), types(DType::I64)];
    let selection = Selection::TopK { axis: 1, k, largest };
    let problem = SelectProblem { selection, x: Type::new(F32, shape), outputs: outputs.clone() };
    let inputs = vec![Some(tensor(F32, &shape, values)), Some(Tensor::vector(&[k as i64]))];
    Case::new("cuda-any-top-k", Problem::Select(problem), inputs, outputs)
}

#[test]
fn errors_in_the_first_elements_of_lines() {
    let mixed = random(&mut Xorshift::new(14), F32, &[1200]).to_f64();
    first([2, 300, 2], &mixed, true).catches(&[
        ("top_k", "$paired:\n  bar.sync 0;", "$paired:", EARLY),
        ("top_k", "[news], %t;\n  bar.sync 0;", "[news], %t;", EARLY),
        ("top_k", "red.shared.or.b32 [news], 1;", "st.shared.b32 [news], 1;", &[Race]),
        ("top_k", "setp.ge.u32 %p, %j, %dim;", "setp.gt.u32 %p, %j, %dim;", OUTSIDE),
        ("top_k", "@%p not.b32 %raw, %raw;", "", &[]),
        ("top_k", "mad.lo.u32 %u, %i, %inner, %line;", "add.u32 %u, %i, %line;", &[Race]),
        ("top_k", "setp.lt.u64 %p, %key, %other;", "setp.gt.u64 %p, %key, %other;", OUTSIDE),
    ]);
    // In order already: after the first 1024 nothing is new.
    let ordered: Vec<f64> = (0..2100).map(|i| f64::from(i) - 2200.0).collect();
    first([1, 2100, 1], &ordered, false).catches(&[
        ("top_k", "ld.shared.u32 %any, [news];\n  bar.sync 0;", "ld.shared.u32 %any, [news];", EARLY),
        ("top_k", "shr.s32 %t, %raw, 31;", "shr.u32 %t, %raw, 31;", &[]),
    ]);
}
