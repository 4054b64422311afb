//! The largest results of each row of a product, without the others being stored.
//!
//! The product runs in stripes of columns. Its kernel's slot, where it would store a result, compares it with the row's bar and appends it to the
//! row's list where it reaches it ([`crate::device::gpu::Finish::listed`]). After each stripe a launch of `top_list` keeps the best of each list,
//! sorted, and sets the bar: the first value that a later column can have and still be among them. A list has room for all results
//! of a stripe, so that it cannot overflow, whatever the data. Stripes grow, so that of results in random order few reach the bar: about
//! k ln(n / k) of n.

use super::super::call::Call;
use super::super::launch::{Arg, Launch, Pointer};
use super::super::variant::Variant;
use super::epilogue::Epilogue;
use super::operand::Preparation;
use super::tile::value;
use crate::error::Result;
use crate::graph::problem::gemm::{GemmProblem, STRIPE};

/// What the columns before a stripe are multiplied by to be those before the next.
const GROWTH: usize = 8;
/// Columns of a stripe at most.
const WIDEST: usize = 1 << 16;
/// Results of a stripe at most, as far as stripes can be made for it: lists take 8 bytes for each.
const RESULTS: usize = 1 << 22;
/// Words of a list before its pairs: the bar, how many pairs follow, and others, so that what blocks read is in no sector of memory (32 bytes)
/// that others write.
const HEAD: usize = 8;

/// Columns of a product that are computed together: all, or a stripe.
pub struct Columns<'a> {
    /// The product of these columns alone.
    pub p: &'a GemmProblem,
    /// The first of them.
    pub first: usize,
    /// What follows the product.
    pub epilogue: Epilogue,
}

/// The launches of a product, of all columns at once or, with [`GemmProblem::top`], stripe by stripe.
pub fn each(mut to: Preparation, call: &Call, product: impl Fn(&mut Preparation, &Columns) -> Result<()>) -> Result<Vec<Launch>> {
    let p = to.p;
    let Some(k) = p.top else {
        product(&mut to, &Columns { p, first: 0, epilogue: Epilogue::new(call, p, value(p))? })?;
        return Ok(to.launches);
    };
    if k == 0 {
        return Ok(Vec::new());
    }
    let stripes = stripes(p, k);
    let lists = Lists::new(&mut to, &stripes, k);
    to.launches.push(lists.select(call, 0, 0, 0));
    let mut first = 0;
    for (number, &n) in (1..).zip(&stripes) {
        let part = GemmProblem { n, ..p.clone() };
        let epilogue = Epilogue::listed(&part, first, lists.at, lists.words())?;
        product(&mut to, &Columns { p: &part, first, epilogue })?;
        to.launches.push(lists.select(call, number, first, stripes.len()));
        first += n;
    }
    Ok(to.launches)
}

/// Scratch of a kernel that took as much in `to`, with the lists that [`each`] takes after.
pub fn scratch_bytes(mut to: Preparation) -> usize {
    let p = to.p;
    if let Some(k) = p.top.filter(|&k| k > 0) {
        Lists::new(&mut to, &stripes(p, k), k);
    }
    to.scratch_bytes()
}

/// Numbers of columns. The first stripe has k at least, so that there is a bar after it; all but the last are multiples of [`STRIPE`].
fn stripes(p: &GemmProblem, k: usize) -> Vec<usize> {
    let first = k.next_multiple_of(STRIPE);
    let widest = (RESULTS / p.m.max(1)).clamp(STRIPE, WIDEST).next_multiple_of(STRIPE);
    let (mut stripes, mut done) = (Vec::new(), 0);
    while done < p.n {
        let next = if done == 0 { first } else { (done * (GROWTH - 1)).min(widest) };
        stripes.push(next.min(p.n - done));
        done += next;
    }
    stripes
}

/// A list for each row: the bar, how many results follow, two places for the k best, by turns, and results of a stripe. All results are pairs of
/// words: the column, counted from the stripe's first, and a key that is the smaller the larger the result.
struct Lists {
    at: Pointer,
    rows: usize,
    k: usize,
    /// Results of a list at most.
    room: usize,
}

impl Lists {
    fn new(to: &mut Preparation, stripes: &[usize], k: usize) -> Lists {
        let (rows, room) = (to.p.m, (2 * k + stripes.iter().max().copied().unwrap_or(0)).next_multiple_of(HEAD / 2));
        Lists { at: to.take(rows * (HEAD + 2 * room) * 4), rows, k, room }
    }

    fn words(&self) -> usize {
        HEAD + 2 * self.room
    }

    /// Empties the lists (`stripe` 0), or keeps the best of each after stripe number `stripe`, which begins at column `first`; after the `last` they
    /// are the outputs.
    fn select(&self, call: &Call, stripe: usize, first: usize, last: usize) -> Launch {
        let variant = Variant::named("top_list");
        let output = |i: usize| if call.output(i).is_ok() { Pointer::Output(i, 0) } else { Pointer::Null };
        let pointers = [self.at, output(0), output(1)].map(Arg::Pointer);
        // The first list is a whole stripe, later ones mostly have the k best and a few times as many.
        let keys = if stripe == 1 { STRIPE } else { 4 * self.k };
        let half = keys.next_power_of_two().clamp(64, variant.number("most") as usize);
        let kept = if stripe > 1 { self.k } else { 0 };
        let (old_at, new_at) = if stripe.is_multiple_of(2) { (0, self.k) } else { (self.k, 0) };
        let stage = if stripe == 0 { 0 } else { 1 + usize::from(stripe == last) };
        let numbers = [self.words(), self.k, half, first, old_at, new_at, kept, stage].map(|n| Arg::U32(n as u32));
        Launch::new(variant, [self.rows as u32, 1, 1], pointers.into_iter().chain(numbers).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{DType, Shape};
    use crate::graph::problem::gemm::Matrix;

    #[test]
    fn stripes_grow_and_hold_k_results_at_first() {
        let matrix = Matrix { input: 0, dtype: DType::F32, row: 1, col: 1, batch: Default::default() };
        let of = |m: usize, n: usize, k: usize| {
            let p = GemmProblem {
                batch: Shape::scalar(),
                m,
                n,
                k: 1,
                a: matrix.clone(),
                b: matrix.clone(),
                b_as: DType::F32,
                pick: None,
                two_of_four: false,
                b_scale: None,
                c: None,
                alpha: 1.0,
                beta: 1.0,
                quant: None,
                top: Some(k),
                contraction: None,
                out: DType::F32,
                shape: Shape::from([m, n]),
                widths: Vec::new(),
                inputs: 2,
                epilogue: None,
            };
            stripes(&p, k)
        };
        assert_eq!(of(1, 1 << 18, 10), [1024, 7168, 57344, 65536, 65536, 65536]);
        assert_eq!(of(1 << 12, 5000, 10), [1024, 1024, 1024, 1024, 904]);
        assert_eq!(of(3, 2500, 1500), [2048, 452]);
        assert_eq!(of(3, 700, 700), [700]);
        for (m, n, k) in [(1, 99_999, 1), (64, 1 << 20, 1025), (1 << 20, 2047, 2047)] {
            assert_eq!(of(m, n, k).iter().sum::<usize>(), n);
        }
    }
}
