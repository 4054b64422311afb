//! The report of `halfbyte optimize` as a page.

use std::path::Path;

use minijinja::{Environment, context};

use super::charts::{attempts, sensitivities, totals};
use super::report::{Report, interval};
use crate::base::size_text;
use crate::error::{Error, Result};

/// Writes the report as JSON, and as a page with charts beside it.
pub fn write(report: &Report, path: &Path) -> Result<()> {
    let fail = |path: &Path, why: String| Error::File { path: path.display().to_string(), why };
    let json = serde_json::to_string_pretty(report).map_err(|e| fail(path, e.to_string()))?;
    std::fs::write(path, json).map_err(|e| fail(path, e.to_string()))?;
    let page = path.with_extension("html");
    let text = render(report).map_err(|e| fail(&page, e.to_string()))?;
    std::fs::write(&page, text).map_err(|e| fail(&page, e.to_string()))
}

fn render(report: &Report) -> std::result::Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.add_filter("size", |bytes: u64| size_text(bytes));
    environment.add_filter("percent", |share: f64| format!("{:.2} %", share * 100.0));
    environment.add_filter("ms", |us: f64| format!("{:.3} ms", us / 1e3));
    environment.add_filter("fixed", |value: Option<f64>, digits: usize| value.map_or(String::new(), |v| format!("{v:.digits$}")));
    environment.add_template("page.html", include_str!("page.html"))?;
    let charts = [totals(report), attempts(report), sensitivities(report)].into_iter().flatten().collect::<Vec<_>>();
    environment.get_template("page.html")?.render(context! { report, charts, interval => interval(report.test.interval95) })
}
