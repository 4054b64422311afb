//! Samples from files.

use std::path::{Path, PathBuf};

use clap::Args;

use super::npz;
use crate::error::Result;
use crate::optimize::Samples;
use crate::session::Model;

/// Where samples are.
#[derive(Args, Clone)]
pub struct SampleArgs {
    /// Samples as an .npz: for each input the array of its name, with the samples along its first axis, or one array a sample with a number
    /// behind the name (x0, x1 ...), of any sizes.
    #[arg(long, value_name = "FILE")]
    pub calibrate: Option<PathBuf>,
    /// The array that holds the samples of an input, where it has another name.
    #[arg(long = "array", value_name = "INPUT=ARRAY", value_parser = pair)]
    pub arrays: Vec<(String, String)>,
    /// At most so many samples.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub samples: usize,
}

/// The two sides of INPUT=ARRAY.
pub fn pair(text: &str) -> std::result::Result<(String, String), String> {
    let (input, array) = text.split_once('=').ok_or("expected INPUT=ARRAY")?;
    Ok((input.to_string(), array.to_string()))
}

impl SampleArgs {
    /// The samples of a model, if a file is named.
    pub fn read(&self, model: &Model) -> Result<Option<Samples>> {
        let Some(path) = &self.calibrate else { return Ok(None) };
        Ok(Some(read(model, path, &self.arrays)?.first(self.samples)))
    }
}

/// The samples of a model in a file; `renamed` as in [`Samples::new`]. Arrays of no input may be of any type.
pub fn read(model: &Model, path: &Path, renamed: &[(String, String)]) -> Result<Samples> {
    let array = |input: &'_ str| renamed.iter().find(|(i, _)| i == input).map_or(input.to_string(), |(_, a)| a.clone());
    let arrays: Vec<String> = model.inputs().map(|(name, _)| array(name)).collect();
    let digits = |rest: &str| rest.trim_start_matches(['.', '/']).bytes().all(|b| b.is_ascii_digit());
    let wanted = |name: &str| arrays.iter().any(|a| name.strip_prefix(a.as_str()).is_some_and(digits));
    let found = npz::read_if(path, wanted)?;
    // An error shows what the file holds, as far as it can be read.
    let shown = if found.is_empty() { npz::read(path)? } else { found };
    Samples::new(model, &shown, renamed)
}
