//! Samples from files.

use std::path::PathBuf;

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
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub samples: usize,
}

fn pair(text: &str) -> std::result::Result<(String, String), String> {
    let (input, array) = text.split_once('=').ok_or("expected INPUT=ARRAY")?;
    Ok((input.to_string(), array.to_string()))
}

impl SampleArgs {
    /// The samples of a model, if a file is named.
    pub fn read(&self, model: &Model) -> Result<Option<Samples>> {
        let Some(path) = &self.calibrate else { return Ok(None) };
        let samples = Samples::new(model, &npz::read(path)?, &self.arrays)?;
        Ok(Some(samples.first(self.samples)))
    }
}
