//! What a terminal shows while something takes time: on standard error, and only when that is a terminal.

use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Models smaller than this are there before a spinner could be seen.
const BIG_BYTES: u64 = 32 << 20;

/// A bar of `length` steps.
pub fn bar(length: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len} {eta}");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message(what)
}

/// Does `work`, with a spinner when the file is big.
pub fn loading<T>(file: &Path, work: impl FnOnce() -> T) -> T {
    let big = std::fs::metadata(file).is_ok_and(|m| m.len() > BIG_BYTES);
    let spinner = if big { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    spinner.set_message(format!("loading {}", file.display()));
    spinner.enable_steady_tick(Duration::from_millis(100));
    let done = work();
    spinner.finish_and_clear();
    done
}
