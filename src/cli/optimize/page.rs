//! The report of `halfbyte optimize` as a page.

use std::io::Write;
use std::path::Path;

use minijinja::{Environment, context};

use super::charts::{attempts, sensitivities, totals};
use super::report::{Report, interval};
use crate::base::{NewFile, size_text};
use crate::error::{Error, Result};

/// Before the work: errors where a folder is missing, or where one of the three files would be written over another.
pub fn check_paths(output: &Path, report: Option<&Path>) -> Result<()> {
    let page = report.map(|r| r.with_extension("html"));
    let all: Vec<&Path> = [Some(output), report, page.as_deref()].into_iter().flatten().collect();
    for (i, path) in all.iter().enumerate() {
        let fail = |why: &str| Err(Error::File { path: path.display().to_string(), why: why.into() });
        if path.parent().is_some_and(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
            return fail("there is no such folder");
        }
        if all[..i].contains(path) {
            return fail("the model, the report and its page (the report's name with .html) need names of their own");
        }
    }
    Ok(())
}

/// Writes the report as JSON, and as a page with charts beside it.
pub fn write(report: &Report, path: &Path) -> Result<()> {
    let fail = |path: &Path, why: String| Error::File { path: path.display().to_string(), why };
    let json = serde_json::to_string_pretty(report).map_err(|e| fail(path, e.to_string()))?;
    whole(path, &json).map_err(|e| fail(path, e.to_string()))?;
    let page = path.with_extension("html");
    let text = render(report).map_err(|e| fail(&page, e.to_string()))?;
    whole(&page, &text).map_err(|e| fail(&page, e.to_string()))
}

/// Writes a file that appears in one step.
fn whole(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = NewFile::create(path)?;
    file.write_all(text.as_bytes())?;
    file.put()
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
