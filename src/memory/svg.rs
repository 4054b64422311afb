//! Pools as a picture: what their accounts held over time, under what was reserved, and where blocks lie at the end.

use std::fmt::Write;

use super::history::{Column, History};
use super::map;
use super::snapshot::{Snapshot, Use};
use crate::base::size_text;

/// Pixels.
const WIDTH: f64 = 1180.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 24.0;
const PLOT_HEIGHT: f64 = 300.0;
pub(super) const PLOT_WIDTH: f64 = WIDTH - LEFT - RIGHT;
/// A column of the history is this wide at least.
const COLUMN_WIDTH: f64 = 1.5;
/// Owners that have a colour; the smaller ones share the last.
const COLORS: [&str; 9] = ["#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#76b7b2", "#edc948", "#9c755f", "#ff9da7", "#bab0ac"];
const OTHERS: usize = COLORS.len() - 1;
const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#444}.title{font-size:15px;font-weight:600;fill:#111}.axis{fill:#777;\
                     font-size:11px}.grid{stroke:#e6e6e6}.failure{stroke:#d62728;stroke-width:1.5}";

/// The pools' picture as the text of an SVG file.
pub fn svg(pools: &[Snapshot]) -> String {
    let (mut body, mut y) = (String::new(), 16.0);
    for pool in pools {
        y = panel(&mut body, pool, y);
    }
    let head = format!(r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}">"#);
    let paper = format!(r##"<rect width="{WIDTH}" height="{y}" fill="#fff"/>"##);
    format!("{head}\n<style>{STYLE}</style>\n{paper}\n{PENDING}\n{body}</svg>\n")
}

pub(super) const FREE_FILL: &str = "#eeeeee";
pub(super) const PENDING_FILL: &str = "url(#pending)";
/// Stripes over memory that work may still use.
const PENDING: &str = r##"<defs><pattern id="pending" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="5" height="5" fill="#ddd"/><rect width="2" height="5" fill="#999"/></pattern></defs>"##;

/// All of one pool from `y` down; where it ends.
fn panel(body: &mut String, pool: &Snapshot, y: f64) -> f64 {
    let stats = &pool.stats;
    let [live, reserved, peak] = [stats.live_bytes, stats.reserved_bytes, stats.peak_reserved_bytes].map(size_text);
    let title = format!("{}: {live} live of {reserved} reserved, {peak} at most", pool.device);
    text(body, LEFT, y + 14.0, "title", "start", &title);
    let history = History::new(pool, (PLOT_WIDTH / COLUMN_WIDTH) as usize);
    let dropped = match pool.dropped_events {
        0 => String::new(),
        n => format!("; {n} earlier events were not kept"),
    };
    let note = format!("live bytes by account, the highest of each {}{dropped}", time_text(history.column_us as f64));
    text(body, LEFT, y + 32.0, "axis", "start", &note);
    let plot = Plot::new(&history, y + 46.0);
    plot.draw(body, &history);
    let y = legend(body, pool, &history, y + 46.0 + PLOT_HEIGHT + 40.0);
    let rank = |owner: &str| history.owners.iter().position(|o| o == owner).unwrap_or(OTHERS);
    map::draw(body, pool, [LEFT, y + 8.0], &|owner| color(rank(owner))) + 28.0
}

fn color(rank: usize) -> &'static str {
    COLORS[rank.min(OTHERS)]
}

/// Scales of a plot.
struct Plot {
    top: f64,
    start_us: f64,
    span_us: f64,
    most_bytes: f64,
    step_bytes: f64,
}

impl Plot {
    fn new(history: &History, top: f64) -> Self {
        let most = history.columns.iter().map(|c| c.reserved_bytes.max(c.total_bytes())).max().unwrap_or(0).max(1) as f64;
        // Steps are powers of two, so that they are whole numbers of some unit.
        let step_bytes = 2f64.powf((most / 5.0).log2().ceil()).max(1.0);
        let span_us = history.columns.len() as f64 * history.column_us as f64;
        let start_us = history.columns.first().map_or(0.0, |c| c.time_us as f64);
        Plot { top, start_us, span_us, most_bytes: (most / step_bytes).ceil() * step_bytes, step_bytes }
    }

    fn x(&self, time_us: f64) -> f64 {
        LEFT + (time_us - self.start_us) / self.span_us * PLOT_WIDTH
    }

    fn y(&self, bytes: f64) -> f64 {
        self.top + PLOT_HEIGHT * (1.0 - bytes / self.most_bytes)
    }

    fn draw(&self, body: &mut String, history: &History) {
        self.axes(body);
        let mut floor = vec![0.0; history.columns.len()];
        for rank in 0..history.owners.len().min(COLORS.len()) {
            let last = if rank == OTHERS { history.owners.len() } else { rank + 1 };
            let held = |c: &Column| c.live_bytes[rank..last].iter().map(|bytes| *bytes as f64).sum();
            let held: Vec<f64> = history.columns.iter().map(held).collect();
            let ceiling: Vec<f64> = floor.iter().zip(&held).map(|(f, h)| f + h).collect();
            let peak = size_text(held.iter().copied().fold(0.0, f64::max) as u64);
            let name = if rank == OTHERS { "others" } else { &history.owners[rank] };
            let (up, down) = (self.steps(history, &ceiling, false), self.steps(history, &floor, true));
            let _ = writeln!(
                body,
                r#"<path d="M{up}L{down}Z" fill="{}" fill-opacity="0.85"><title>{}: {peak} at most</title></path>"#,
                color(rank),
                escape(name)
            );
            floor = ceiling;
        }
        let reserved: Vec<f64> = history.columns.iter().map(|c| c.reserved_bytes as f64).collect();
        let line = self.steps(history, &reserved, false);
        let _ = writeln!(body, r##"<path d="M{line}" fill="none" stroke="#222" stroke-width="1.4" stroke-dasharray="5 3"/>"##);
        history.failures.iter().for_each(|failure| {
            let (x, top, bottom) = (self.x(failure.time_us as f64), self.top, self.y(0.0));
            let what = format!("out of memory: {} asked for {}", failure.owner, size_text(failure.bytes));
            let _ = writeln!(
                body,
                r##"<g><title>{}</title><path class="failure" d="M{x:.1} {top}V{bottom}"/><path fill="#d62728" d="M{x:.1} {top}l-6 -10h12z"/></g>"##,
                escape(&what)
            );
        });
    }

    /// A line that holds each value for its column, from left to right or back; points that change nothing are left out.
    fn steps(&self, history: &History, values: &[f64], back: bool) -> String {
        let mut points: Vec<(f64, f64)> = Vec::new();
        for (column, value) in history.columns.iter().zip(values) {
            let (left, y) = (self.x(column.time_us as f64), self.y(*value));
            let right = self.x((column.time_us + history.column_us) as f64);
            match points.last_mut() {
                Some(last) if last.1 == y => last.0 = right,
                _ => points.extend([(left, y), (right, y)]),
            }
        }
        if back {
            points.reverse();
        }
        points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect::<Vec<_>>().join("L")
    }

    fn axes(&self, body: &mut String) {
        let (right, bottom) = (LEFT + PLOT_WIDTH, self.y(0.0));
        for i in 0..=(self.most_bytes / self.step_bytes) as usize {
            let bytes = i as f64 * self.step_bytes;
            let y = self.y(bytes);
            let _ = writeln!(body, r#"<path class="grid" d="M{LEFT} {y:.1}H{right}"/>"#);
            text(body, LEFT - 8.0, y + 4.0, "axis", "end", &whole_size(bytes as u64));
        }
        let step_us = time_step(self.span_us / 8.0);
        for i in 0..=(self.span_us / step_us) as usize {
            let time_us = i as f64 * step_us;
            let label = if step_us < MINUTE_US { time_text(time_us) } else { format!("{} min", time_us / MINUTE_US) };
            text(body, self.x(self.start_us + time_us), bottom + 17.0, "axis", "middle", &label);
        }
    }
}

const MINUTE_US: f64 = 60e6;

/// The next of 1, 2, 5, 10, 20 ... microseconds, or from half a minute on minutes.
fn time_step(least_us: f64) -> f64 {
    let unit = if least_us > MINUTE_US / 2.0 { MINUTE_US } else { 1.0 };
    let least = (least_us / unit).max(1.0);
    let power = 10f64.powf(least.log10().floor());
    unit * [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= least).unwrap_or(power)
}

fn time_text(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{} s", (us / 1e5).round() / 10.0),
        us if us >= 1e3 => format!("{} ms", (us / 1e2).round() / 10.0),
        0.0 => "0".into(),
        us => format!("{us} us"),
    }
}

/// What colours mean, line by line from `y` down; where it ends.
fn legend(body: &mut String, pool: &Snapshot, history: &History, mut y: f64) -> f64 {
    let others = (history.owners.len() > OTHERS).then_some("others");
    let owners = history.owners.iter().take(OTHERS).map(String::as_str).chain(others).enumerate();
    let is_pending = pool.segments.iter().flat_map(|s| &s.blocks).any(|b| b.usage == Use::Pending);
    let pending = is_pending.then_some((PENDING_FILL, "freed, work may still use it"));
    let mut x = LEFT;
    for (fill, name) in owners.map(|(rank, name)| (color(rank), name)).chain([(FREE_FILL, "free")]).chain(pending) {
        let width = 32.0 + 6.8 * name.chars().count() as f64;
        if x + width > LEFT + PLOT_WIDTH && x > LEFT {
            (x, y) = (LEFT, y + 20.0);
        }
        let _ = writeln!(body, r#"<rect x="{x:.1}" y="{:.1}" width="12" height="12" rx="2" fill="{fill}"/>"#, y - 10.0);
        text(body, x + 18.0, y, "", "start", name);
        x += width;
    }
    let _ = writeln!(body, r##"<path d="M{x:.1} {:.1}h18" stroke="#222" stroke-width="1.4" stroke-dasharray="5 3"/>"##, y - 4.0);
    text(body, x + 24.0, y, "", "start", "reserved");
    if !history.failures.is_empty() {
        let _ = writeln!(body, r##"<path fill="#d62728" d="M{:.1} {y}l-6 -10h12z"/>"##, x + 104.0);
        text(body, x + 116.0, y, "", "start", "out of memory");
    }
    y + 16.0
}

/// A size of a power of two's multiple.
pub(super) fn whole_size(bytes: u64) -> String {
    size_text(bytes).replace(".0 ", " ")
}

/// A line of text.
pub(super) fn text(body: &mut String, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
    let text = escape(text);
    let _ = writeln!(body, r#"<text x="{x:.1}" y="{y:.1}" class="{class}" text-anchor="{anchor}">{text}</text>"#);
}

/// Text as XML has it.
pub(super) fn escape(text: &str) -> String {
    let whole: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    whole.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{EventKind, Owner, Segment, SnapshotBlock, Stats, StreamId, TimelineEvent};

    /// A pool of twelve owners, one of an odd name, the first of which was refused memory.
    fn pool() -> Snapshot {
        let name = |i: u64| if i == 0 { "<a&\"b\">".to_string() } else { format!("owner-{i}") };
        let event = |i, kind| {
            let bytes = (20 - i) << 20;
            TimelineEvent { time_us: i * 1000, kind, address: i << 24, bytes, stream: StreamId(0), owner: name(i) }
        };
        let block = |i: u64, usage| {
            let owner = (usage == Use::Live).then(|| name(i));
            SnapshotBlock { address: i << 24, bytes: 1 << 20, requested_bytes: 9, usage, stream: None, owner }
        };
        let uses = [Use::Live, Use::Pending, Use::Free];
        let blocks: Vec<_> = (0..36).map(|i| block(i / 3, uses[i as usize % 3])).collect();
        Snapshot {
            device: "odd & even".into(),
            time_us: 20_000,
            stats: Stats { reserved_bytes: 36 << 20, ..Stats::default() },
            segments: vec![Segment { address: 0, bytes: 36 << 20, blocks }],
            owners: (0..12).map(|i| Owner { account: name(i), live_bytes: (20 - i) << 20, blocks: 1 }).collect(),
            accounts: Vec::new(),
            timeline: (0..12).map(|i| event(i, EventKind::Alloc)).chain([event(0, EventKind::OutOfMemory)]).collect(),
            dropped_events: 7,
        }
    }

    #[test]
    fn pictures_name_owners_failures_and_what_was_not_kept() {
        let picture = svg(&[pool(), pool()]);
        let count = |what: &str| picture.matches(what).count();
        assert_eq!((count("7 earlier events were not kept"), count(">others<"), count(">owner-8<")), (2, 2, 0));
        assert_eq!(count("out of memory: &lt;a&amp;&quot;b&quot;&gt; asked for 20.0 MiB"), 2);
        assert_eq!(count("class=\"failure\""), 2);
        assert!(!picture.contains("<a&") && !picture.contains("NaN") && !picture.contains("inf"));
        let empty = Snapshot { segments: vec![], owners: vec![], timeline: vec![], stats: Stats::default(), ..pool() };
        assert!(!svg(&[empty]).contains("NaN") && svg(&[]).starts_with("<svg "));
    }

    #[test]
    fn times_are_in_steps_of_one_two_and_five() {
        assert_eq!([0.3, 1.0, 3.0, 7.0, 11.0, 2e6, 59e6, 75e6].map(time_step), [1.0, 1.0, 5.0, 10.0, 20.0, 2e6, 60e6, 120e6]);
        assert_eq!([0.0, 20.0, 1500.0, 2e6].map(time_text), ["0", "20 us", "1.5 ms", "2 s"]);
    }
}
