//! The report of `cargo bench --bench cuda` on made-up numbers.

#[path = "../benches/cuda/report.rs"]
mod report;

use report::{PEER, Row, Sample, against_peer, roofline, roofs, summary, table, tsv};

fn row(peer: &str, dtype: &str, shape: [usize; 3], us: f64) -> Row {
    let [m, n, k] = shape.map(|v| v as f64);
    let sample = Sample { median_us: us, p10_us: us * 0.9, p90_us: us * 1.2 };
    Row { peer: peer.into(), dtype: dtype.into(), shape, bytes: 2.0 * (m * k + n * k + m * n), sample }
}

/// 2 x 1000^3 operations in 10 us are 200 TOP/s.
fn rows() -> Vec<Row> {
    let (cube, thin) = ([1000, 1000, 1000], [1, 1000, 1000]);
    vec![
        row(PEER, "f16", cube, 10.0),
        row("ours-a", "f16", cube, 20.0),
        row("ours-b", "f16", cube, 5.0),
        row(PEER, "f16", thin, 4.0),
        row("ours-a", "f16", thin, 8.0),
        row("ours-a", "s8s8", cube, 10.0),
    ]
}

#[test]
fn medians_and_percentiles_lie_between_neighbours() {
    assert_eq!(Sample::of(&[]), None);
    assert_eq!(Sample::of(&[3.0]), Some(Sample { median_us: 3.0, p10_us: 3.0, p90_us: 3.0 }));
    let eleven: Vec<f64> = (0..=10).rev().map(f64::from).collect();
    assert_eq!(Sample::of(&eleven), Some(Sample { median_us: 5.0, p10_us: 1.0, p90_us: 9.0 }));
    assert_eq!(Sample::of(&[1.0, 2.0]).map(|s| s.median_us), Some(1.5));
}

#[test]
fn rates_shares_and_ratios_follow_from_the_times() {
    let rows = rows();
    assert_eq!(rows[0].tera_per_second(), 200.0);
    assert_eq!(rows[0].gigabytes_per_second(), 600.0);
    assert_eq!(against_peer(&rows[2], &rows), Some(2.0));
    assert_eq!(against_peer(&rows[5], &rows), None, "no peer of this type");
    let roofs = roofs(&rows, 4000.0);
    assert_eq!(roofs.iter().map(|r| r.tera_per_second).collect::<Vec<_>>(), [400.0, 200.0]);
    assert_eq!(roofs[0].least_us(&rows[2]), 5.0, "bound by arithmetic");
    assert!((roofs[0].least_us(&rows[3]) - 2.004 / 4.0).abs() < 1e-3, "bound by memory: {}", roofs[0].least_us(&rows[3]));
    // The best of ours at each shape: 2.0 and 0.5.
    let all = summary(&rows);
    assert_eq!(all.len(), 1);
    assert!(all[0].0 == "f16" && (all[0].1 - 1.0).abs() < 1e-12 && all[0].2 == 0.5, "{all:?}");
}

#[test]
fn the_table_the_tsv_and_the_drawing_hold_every_row() {
    let rows = rows();
    let roofs = roofs(&rows, 4000.0);
    let text = tsv(&rows, &roofs);
    assert_eq!(text.lines().count(), 1 + rows.len());
    assert!(text.contains("f16\t1000\t1000\t1000\tours-b\t5.00\t4.50\t6.00\t400.0\t1200\t1.000\t2.000"), "{text}");
    assert!(table(&rows, &roofs).lines().all(|l| l.len() == table(&rows, &roofs).lines().next().unwrap().len()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roofline.svg");
    roofline(&rows, &roofs, &path).unwrap();
    let svg = std::fs::read_to_string(path).unwrap();
    let (circles, lines) = (svg.matches("<circle").count(), svg.matches("<polyline").count());
    assert!(svg.starts_with("<svg") && circles == 4 && lines >= 2, "{circles} circles, {lines} lines");
}
