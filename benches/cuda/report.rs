//! What a bench measured: medians with their spread, a table, a TSV, and a roofline.

use std::fmt::Write;
use std::path::Path;

use plotters::prelude::*;

/// Times of one contestant at one shape, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub median_us: f64,
    pub p10_us: f64,
    pub p90_us: f64,
}

impl Sample {
    /// `None` without times.
    pub fn of(times_us: &[f64]) -> Option<Sample> {
        let mut sorted = times_us.to_vec();
        sorted.sort_by(f64::total_cmp);
        // Between neighbours in proportion.
        let at = |share: f64| {
            let place = share * (sorted.len().checked_sub(1)?) as f64;
            let (low, part) = (place.floor() as usize, place.fract());
            let high = (low + 1).min(sorted.len() - 1);
            Some(sorted[low] * (1.0 - part) + sorted[high] * part)
        };
        Some(Sample { median_us: at(0.5)?, p10_us: at(0.1)?, p90_us: at(0.9)? })
    }
}

/// One contestant at one shape.
#[derive(Debug, Clone)]
pub struct Row {
    /// `cublasLt`, or a kernel's name.
    pub peer: String,
    /// Types of the operands.
    pub dtype: String,
    /// M, N, K.
    pub shape: [usize; 3],
    /// Of the operands and the result, each once.
    pub bytes: f64,
    pub sample: Sample,
}

/// The peer that ours are measured against.
pub const PEER: &str = "cublasLt";

impl Row {
    fn operations(&self) -> f64 {
        2.0 * self.shape.iter().map(|&n| n as f64).product::<f64>()
    }

    /// Of multiplications and additions.
    pub fn tera_per_second(&self) -> f64 {
        self.operations() / self.sample.median_us / 1e6
    }

    /// Of bytes that must be moved at least.
    pub fn gigabytes_per_second(&self) -> f64 {
        self.bytes / self.sample.median_us / 1e3
    }

    /// Operations for each byte.
    pub fn intensity(&self) -> f64 {
        self.operations() / self.bytes
    }
}

/// What bounds products of one type: measured in the same run.
#[derive(Debug, Clone)]
pub struct Roof {
    pub dtype: String,
    pub tera_per_second: f64,
    pub gigabytes_per_second: f64,
}

impl Roof {
    /// The least microseconds that a row could take.
    pub fn least_us(&self, row: &Row) -> f64 {
        (row.operations() / self.tera_per_second / 1e6).max(row.bytes / self.gigabytes_per_second / 1e3)
    }
}

/// The fastest rate of each type as its peak, beside the copy bandwidth.
pub fn roofs(rows: &[Row], gigabytes_per_second: f64) -> Vec<Roof> {
    let mut all: Vec<Roof> = Vec::new();
    for row in rows {
        let rate = row.tera_per_second();
        match all.iter_mut().find(|r| r.dtype == row.dtype) {
            Some(roof) => roof.tera_per_second = roof.tera_per_second.max(rate),
            None => all.push(Roof { dtype: row.dtype.clone(), tera_per_second: rate, gigabytes_per_second }),
        }
    }
    all
}

fn share(row: &Row, roofs: &[Roof]) -> f64 {
    roofs.iter().find(|r| r.dtype == row.dtype).map_or(0.0, |roof| roof.least_us(row) / row.sample.median_us)
}

/// The row's rate over the peer's at the same shape and type.
pub fn against_peer(row: &Row, rows: &[Row]) -> Option<f64> {
    let peer = rows.iter().find(|p| p.peer == PEER && p.dtype == row.dtype && p.shape == row.shape)?;
    Some(peer.sample.median_us / row.sample.median_us)
}

/// For each type the geometric mean and the least, over all shapes, of our fastest kernel's rate over the peer's.
pub fn summary(rows: &[Row]) -> Vec<(String, f64, f64)> {
    let mut all: Vec<(String, f64, f64)> = Vec::new();
    let mut types: Vec<&str> = rows.iter().map(|r| r.dtype.as_str()).collect();
    types.dedup();
    for dtype in types {
        let peers = rows.iter().filter(|r| r.peer == PEER && r.dtype == dtype);
        let best = |peer: &Row| {
            let ours = rows.iter().filter(|r| r.peer != PEER && r.dtype == dtype && r.shape == peer.shape);
            ours.filter_map(|r| against_peer(r, rows)).max_by(f64::total_cmp)
        };
        let ratios: Vec<f64> = peers.filter_map(best).collect();
        if !ratios.is_empty() && !all.iter().any(|a| a.0 == dtype) {
            let mean = (ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp();
            all.push((dtype.to_string(), mean, ratios.iter().copied().fold(f64::INFINITY, f64::min)));
        }
    }
    all
}

/// A header and a line for each row.
pub fn tsv(rows: &[Row], roofs: &[Roof]) -> String {
    let mut text = String::from("dtype\tM\tN\tK\tpeer\tmedian_us\tp10_us\tp90_us\tTOP/s\tGB/s\tshare_of_roof\tover_cublasLt\n");
    for r in rows {
        let ([m, n, k], s) = (r.shape, r.sample);
        let ratio = against_peer(r, rows).map_or(String::new(), |v| format!("{v:.3}"));
        let _ = writeln!(
            text,
            "{}\t{m}\t{n}\t{k}\t{}\t{:.2}\t{:.2}\t{:.2}\t{:.1}\t{:.0}\t{:.3}\t{ratio}",
            r.dtype,
            r.peer,
            s.median_us,
            s.p10_us,
            s.p90_us,
            r.tera_per_second(),
            r.gigabytes_per_second(),
            share(r, roofs)
        );
    }
    text
}

/// The TSV with its columns padded, for people.
pub fn table(rows: &[Row], roofs: &[Roof]) -> String {
    let text = tsv(rows, roofs);
    let cells: Vec<Vec<&str>> = text.lines().map(|l| l.split('\t').collect()).collect();
    let width = |c: usize| cells.iter().filter_map(|l| l.get(c)).map(|s| s.len()).max().unwrap_or(0);
    let line = |l: &Vec<&str>| l.iter().enumerate().map(|(c, s)| format!("{s:>0$}", width(c))).collect::<Vec<_>>().join("  ");
    cells.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Rates over intensity with the roof of each type, as SVG.
pub fn roofline(rows: &[Row], roofs: &[Roof], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, (1000, 640)).into_drawing_area();
    area.fill(&WHITE)?;
    let x = rows.iter().map(Row::intensity).fold((1.0f64, 1000.0f64), |(lo, hi), v| (lo.min(v / 2.0), hi.max(v * 2.0)));
    let top = roofs.iter().map(|r| r.tera_per_second).fold(1.0, f64::max) * 2.0;
    let low = rows.iter().map(Row::tera_per_second).fold(top, f64::min) / 2.0;
    let mut chart = ChartBuilder::on(&area)
        .caption("products: rate over operations for each byte", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((x.0..x.1).log_scale(), (low..top).log_scale())?;
    chart.configure_mesh().x_desc("operations / byte").y_desc("10^12 operations / s").draw()?;
    for (i, roof) in roofs.iter().enumerate() {
        let colour = Palette99::pick(i).mix(0.9);
        let at = |v: f64| (v, (v * roof.gigabytes_per_second / 1e3).min(roof.tera_per_second));
        let steps = (0..=100).map(|s| at(x.0 * (x.1 / x.0).powf(f64::from(s) / 100.0)));
        let line = chart.draw_series(LineSeries::new(steps, colour.stroke_width(2)))?;
        line.label(roof.dtype.clone()).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        let place = |r: &Row| (r.intensity(), r.tera_per_second());
        let own = |ours: bool| rows.iter().filter(move |r| r.dtype == roof.dtype && (r.peer != PEER) == ours);
        chart.draw_series(own(true).map(|r| Circle::new(place(r), 4, colour.filled())))?;
        chart.draw_series(own(false).map(|r| Cross::new(place(r), 4, colour)))?;
    }
    chart.configure_series_labels().border_style(BLACK).draw()?;
    area.present()?;
    Ok(())
}
