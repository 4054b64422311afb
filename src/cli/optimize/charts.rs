//! Charts of a report.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::report::Report;
use crate::base::DType;

/// Pixels.
const SIZE: (u32, u32) = (900, 320);
const QUANTISED: RGBColor = RGBColor(40, 110, 190);
const KEPT: RGBColor = RGBColor(200, 60, 50);

/// A picture, its title, and how to read it.
#[derive(serde::Serialize)]
pub struct Chart {
    title: &'static str,
    svg: String,
    reading: &'static str,
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn chart(
    title: &'static str,
    reading: &'static str,
    draw: impl FnOnce(&DrawingArea<SVGBackend, Shift>) -> Drawn,
) -> Option<Chart> {
    let mut svg = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        draw(&area).is_ok() && area.present().is_ok()
    };
    // Text and lines take the page's colour, in dark pages too.
    let svg = svg.replace("\"#000000\"", "\"currentColor\"");
    drawn.then_some(Chart { title, svg, reading })
}

/// What the optimised model takes of what the original does.
pub fn totals(report: &Report) -> Option<Chart> {
    let (b, a) = (&report.before, &report.after);
    let bytes = |n: usize| n as f64;
    let mut rows = vec![
        ("intermediates of a run", bytes(b.arena_bytes), bytes(a.arena_bytes)),
        ("weights while running", bytes(b.weight_bytes), bytes(a.weight_bytes)),
        ("constants of the file", bytes(b.constant_bytes), bytes(a.constant_bytes)),
        ("time of a run", b.median_us, a.median_us),
    ];
    rows.retain(|(_, before, _)| *before > 0.0);
    let shares: Vec<(&str, f64)> = rows.iter().map(|(what, before, after)| (*what, 100.0 * after / before)).collect();
    let widest = shares.iter().map(|s| s.1).fold(100.0, f64::max) * 1.02;
    chart("Before and after", "What the optimised model takes in percent of what the original takes (the line).", |area| {
        let mut on =
            ChartBuilder::on(area).margin(10).x_label_area_size(35).build_cartesian_2d(0.0..widest, 0.0..shares.len() as f64)?;
        on.configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .max_light_lines(0)
            .x_label_formatter(&|share| format!("{share:.0}"))
            .x_desc("% of the original")
            .draw()?;
        for (i, (what, share)) in shares.iter().enumerate() {
            let (low, color) = (i as f64, if *share <= 100.0 { QUANTISED } else { KEPT });
            on.draw_series([Rectangle::new([(0.0, low + 0.1), (*share, low + 0.55)], color.filled())])?;
            on.draw_series([Text::new(format!("{what}: {share:.1} %"), (0.0, low + 0.85), ("sans-serif", 15))])?;
        }
        on.draw_series(LineSeries::new([(100.0, 0.0), (100.0, shares.len() as f64)], &BLACK))?;
        Ok(())
    })
}

/// The drop of each choice of layers with its interval, over the number of layers that stayed in floats; `None` of a single one.
pub fn attempts(report: &Report) -> Option<Chart> {
    let all = &report.attempts;
    if all.len() < 2 {
        return None;
    }
    let points: Vec<(f64, [f64; 3])> = all
        .iter()
        .map(|a| (a.kept.len() as f64, [a.interval95[0], a.drop, a.interval95[1]].map(|v| finite(v, a.drop) * 100.0)))
        .collect();
    let budget = report.budget.drop * 100.0;
    let widest = points.iter().map(|p| p.0).fold(1.0, f64::max) + 0.5;
    let low = points.iter().map(|p| p.1[0]).fold(0.0, f64::min);
    let high = points.iter().map(|p| p.1[2]).fold(budget, f64::max) * 1.05;
    let reading = "Points of the score that are lost, with 95 % intervals, over the number of layers that stayed in floats. The line is the budget; blue \
                   ones are within it, and the filled one was taken.";
    chart("Choices of layers", reading, |area| {
        let mut on = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(35)
            .y_label_area_size(60)
            .build_cartesian_2d(-0.5..widest, low..high)?;
        on.configure_mesh()
            .max_light_lines(0)
            .x_label_formatter(&|layers| format!("{layers:.0}"))
            .x_desc("layers in floats")
            .y_desc("points lost")
            .draw()?;
        on.draw_series(LineSeries::new([(-0.5, budget), (widest, budget)], &BLACK))?;
        for (i, (x, [low, drop, high])) in points.iter().enumerate() {
            let color = if all[i].is_within { QUANTISED } else { KEPT };
            on.draw_series(LineSeries::new([(*x, *low), (*x, *high)], &color))?;
            let filled = i == report.chosen_attempt;
            let style = if filled { color.filled() } else { color.stroke_width(1) };
            on.draw_series([Circle::new((*x, *drop), if filled { 5 } else { 3 }, style)])?;
        }
        Ok(())
    })
}

/// Too few samples have no interval.
fn finite(end: f64, drop: f64) -> f64 {
    if end.is_finite() { end } else { drop }
}

/// Each layer's own error; `None` where it was not measured.
pub fn sensitivities(report: &Report) -> Option<Chart> {
    let mut all: Vec<(f64, bool)> = report
        .layers
        .iter()
        .filter_map(|l| l.sqnr_db.filter(|db| db.is_finite()).map(|db| (db, l.stored == DType::I8)))
        .collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let highest = all.last()?.0 * 1.05;
    let lowest = all.first()?.0.min(0.0);
    let reading = "Signal to noise of the output in dB with one layer quantised, from the most sensitive layer on. Red ones stayed in floats.";
    chart("Layers one by one", reading, |area| {
        let mut on = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(35)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..all.len() as f64, lowest..highest)?;
        on.configure_mesh()
            .disable_x_mesh()
            .max_light_lines(0)
            .x_label_formatter(&|layer| format!("{layer:.0}"))
            .x_desc("layers")
            .y_desc("dB")
            .draw()?;
        on.draw_series(all.iter().enumerate().map(|(i, (db, quantised))| {
            let color = if *quantised { QUANTISED } else { KEPT };
            Rectangle::new([(i as f64 + 0.1, 0.0), (i as f64 + 0.9, *db)], color.filled())
        }))?;
        Ok(())
    })
}
