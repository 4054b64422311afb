//! Where blocks lie: all reserved addresses in rows, as a part of a picture.

use std::fmt::Write;

use super::snapshot::{Snapshot, SnapshotBlock, Use};
use super::svg::{FREE_FILL, PENDING_FILL, PLOT_WIDTH, escape, text, whole_size};
use crate::base::size_text;

/// Pixels.
const ROW_HEIGHT: f64 = 13.0;
const ROW_PITCH: f64 = 16.0;
/// Narrower blocks cannot be seen.
const LEAST_WIDTH: f64 = 0.02;
/// Rows at most.
const ROWS: u64 = 20;
/// Bytes of a row at least.
const ROW_BYTES: u64 = 1 << 20;

/// Neighbouring blocks that look the same.
struct Run<'a> {
    start: u64,
    bytes: u64,
    blocks: u64,
    like: &'a SnapshotBlock,
}

/// Draws the map with its top left corner at a point, in the owners' colours; where it ends.
pub(super) fn draw(body: &mut String, pool: &Snapshot, [left, top]: [f64; 2], color: &dyn Fn(&str) -> &'static str) -> f64 {
    let all: u64 = pool.segments.iter().map(|s| s.bytes).sum();
    let row_bytes = all.div_ceil(ROWS).next_power_of_two().max(ROW_BYTES);
    let (segments, fragmented) = (pool.segments.len(), pool.stats.fragmentation() * 100.0);
    let [all_text, row_text] = [size_text(all), whole_size(row_bytes)];
    let title = format!("blocks at the end, {row_text} a row: {all_text} in {segments} segments, {fragmented:.0} % fragmented");
    text(body, left, top + 14.0, "", "start", &title);
    let scale = PLOT_WIDTH / row_bytes as f64;
    let top = top + 24.0;
    let at = |byte: u64| (left + (byte % row_bytes) as f64 * scale, top + (byte / row_bytes) as f64 * ROW_PITCH);
    for run in runs(pool) {
        let (fill, what) = look(&run, color);
        for (byte, bytes) in split(run.start, run.bytes, row_bytes) {
            let ((x, y), width) = (at(byte), bytes as f64 * scale);
            if width < LEAST_WIDTH {
                continue;
            }
            let _ = writeln!(
                body,
                r#"<rect x="{x:.2}" y="{y:.1}" width="{width:.2}" height="{ROW_HEIGHT}" fill="{fill}"><title>{what}</title></rect>"#
            );
        }
    }
    let starts = pool.segments.iter().scan(0, |start, s| Some(std::mem::replace(start, *start + s.bytes)));
    for (x, y) in starts.map(at) {
        let _ = writeln!(body, r##"<path d="M{x:.2} {:.1}v{}" stroke="#222" stroke-width="1.2"/>"##, y - 1.0, ROW_HEIGHT + 2.0);
    }
    let rows = all.div_ceil(row_bytes);
    (0..rows).for_each(|row| {
        let y = top + row as f64 * ROW_PITCH + 10.0;
        text(body, left - 8.0, y, "axis", "end", &whole_size(row * row_bytes));
    });
    top + rows as f64 * ROW_PITCH
}

/// The fill of blocks, and what they are in words.
fn look(run: &Run, color: &dyn Fn(&str) -> &'static str) -> (&'static str, String) {
    let size = size_text(run.bytes);
    match (run.like.usage, &run.like.owner) {
        (Use::Live, Some(owner)) => (color(owner), escape(&format!("{owner}: {size} in {} blocks", run.blocks))),
        (Use::Free, _) => (FREE_FILL, format!("free: {size}")),
        _ => (PENDING_FILL, format!("freed, work may still use it: {size}")),
    }
}

/// All blocks, end to end over all segments.
fn runs(pool: &Snapshot) -> Vec<Run<'_>> {
    let (mut runs, mut start): (Vec<Run>, u64) = Default::default();
    for segment in &pool.segments {
        let first = runs.len();
        for block in &segment.blocks {
            match runs[first..].last_mut() {
                Some(run) if (run.like.usage, &run.like.owner) == (block.usage, &block.owner) => {
                    run.bytes += block.bytes;
                    run.blocks += 1;
                }
                _ => runs.push(Run { start, bytes: block.bytes, blocks: 1, like: block }),
            }
            start += block.bytes;
        }
    }
    runs
}

/// A range, cut where rows end.
fn split(start: u64, bytes: u64, row_bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = start + bytes;
    let cut = move |at: &u64| (at / row_bytes + 1) * row_bytes;
    let firsts = std::iter::successors(Some(start), move |at| Some(cut(at)).filter(|next| *next < end));
    firsts.map(move |at| (at, cut(&at).min(end) - at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_where_rows_end() {
        assert_eq!(split(5, 20, 10).collect::<Vec<_>>(), [(5, 5), (10, 10), (20, 5)]);
        assert_eq!(split(10, 10, 10).collect::<Vec<_>>(), [(10, 10)]);
        assert_eq!(split(3, 4, 10).collect::<Vec<_>>(), [(3, 4)]);
    }
}
