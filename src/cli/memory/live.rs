//! A text that changes in place on a terminal, and is printed again and again elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::output::print;

/// Where a text is shown.
pub struct Screen(Option<ProgressBar>);

impl Screen {
    /// Standard output; in place when it is a terminal and `in_place`.
    pub fn new(in_place: bool) -> Self {
        let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout()).with_style(style);
        Screen((in_place && !bar.is_hidden()).then_some(bar))
    }

    /// Whether texts replace each other.
    pub fn is_in_place(&self) -> bool {
        self.0.is_some()
    }

    /// Shows the text in place of the one before, or behind it.
    pub fn show(&self, text: &str) {
        match &self.0 {
            Some(bar) => bar.set_message(text.to_string()),
            None => print(text),
        }
    }

    /// The last text stays.
    pub fn end(&self) {
        self.0.iter().for_each(ProgressBar::abandon);
    }

    /// The last text goes.
    pub fn clear(&self) {
        self.0.iter().for_each(ProgressBar::finish_and_clear);
    }
}
