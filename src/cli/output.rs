//! What every subcommand shares: inputs, tables, JSON, exit codes.

use std::io::Write;
use std::process::ExitCode;

use comfy_table::{Table, presets};

use super::args::{Cli, Command, Inputs};
use super::npz;
use crate::base::{DType, Shape, Tensor};
use crate::error::{Error, Result};
use crate::graph::Dim;
use crate::session::Model;

/// Exit code for models that need something unsupported.
pub const UNSUPPORTED: u8 = 77;

/// Runs the command line and gives the exit code.
pub fn main(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Run(a) => super::run::run(&a),
        Command::Suite(a) => super::suite::suite(&a),
        Command::Inspect(a) => super::inspect::inspect(&a),
        Command::Bench(a) => super::bench::bench(&a),
        Command::Kernels(a) => super::kernels::kernels(&a),
        Command::Probe(a) => super::probe::probe(&a),
    };
    match done {
        Ok(code) => code,
        Err(e) if e.is_unsupported() => {
            eprintln!("UNSUPPORTED {e}");
            ExitCode::from(UNSUPPORTED)
        }
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Prints text; a reader that went away is no error.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Prints as JSON.
pub fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::BadInput(e.to_string()))?;
    print(&text);
    Ok(())
}

/// A table with a header, columns aligned by content.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(header.to_vec());
    table
}

/// The inputs of a run: from the file, or random.
pub fn inputs(model: &Model, args: &Inputs) -> Result<Vec<(String, Tensor)>> {
    match &args.inputs {
        Some(path) => {
            let wanted: Vec<String> = model.inputs().map(|(n, _)| n.to_string()).collect();
            let optional = |n: &str| model.graph().optional_inputs.iter().any(|p| model.graph().values[p.value.0].name == n);
            Ok(npz::read(path)?.into_iter().filter(|(n, _)| wanted.contains(n) || optional(n)).collect())
        }
        None => random(model, args),
    }
}

fn random(model: &Model, args: &Inputs) -> Result<Vec<(String, Tensor)>> {
    let mut state = args.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 40
    };
    let mut all = Vec::new();
    for (name, port) in model.inputs() {
        let dims = port.dims.as_deref().unwrap_or(&[]);
        let size = |(i, d): (usize, &Dim)| {
            let given = |key: &str| args.dims.iter().find(|(n, _)| n == key).map(|(_, v)| *v);
            match d {
                Dim::Known(n) => *n,
                Dim::Named(n) => given(n).or(given(&i.to_string())).unwrap_or(1),
                Dim::Any => given(&format!("{name}.{i}")).or(given(&i.to_string())).unwrap_or(1),
            }
        };
        let shape: Shape = dims.iter().enumerate().map(size).collect();
        let numel = shape.checked_numel().unwrap_or(0);
        let tensor = match port.dtype.unwrap_or(DType::F32) {
            DType::F32 => Tensor::new(shape, &(0..numel).map(|_| next() as f32 / (1 << 23) as f32 - 1.0).collect::<Vec<_>>())?,
            // Masks and indices: small and mostly within any table.
            DType::I64 => Tensor::new(shape, &(0..numel).map(|_| (next() % 2) as i64).collect::<Vec<_>>())?,
            DType::I32 => Tensor::new(shape, &(0..numel).map(|_| (next() % 2) as i32).collect::<Vec<_>>())?,
            DType::U8 => Tensor::new(shape, &(0..numel).map(|_| next() as u8).collect::<Vec<_>>())?,
            other => Tensor::zeros(other, shape)?,
        };
        all.push((name.to_string(), tensor));
    }
    Ok(all)
}
