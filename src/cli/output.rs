//! What every subcommand shares: tables, JSON, exit codes.

use std::io::Write;
use std::process::ExitCode;

use comfy_table::{LineStyle, Table, TableStyle};

use super::args::{Cli, Command};
use crate::error::{Error, Result};

/// Exit code for models that need something unsupported.
pub const UNSUPPORTED: u8 = 77;

/// Runs the command line and gives the exit code.
pub fn main(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Run(a) => super::run::run(&a),
        Command::Suite(a) => super::suite::suite(&a),
        Command::Inspect(a) => super::inspect::inspect(&a),
        Command::Bench(a) => super::bench::bench(&a),
        Command::Convert(a) => super::convert::convert(&a),
        Command::Compare(a) => super::compare::compare(&a),
        Command::Kernels(a) => super::kernels::kernels(&a),
        Command::Tune(a) => super::tune::tune(&a),
        Command::Probe(a) => super::probe::probe(&a),
        Command::Prune(a) => super::prune::run(&a),
        Command::Lora(a) => super::lora::run(&a),
        Command::Optimize(a) => super::optimize::command::run(&a),
        Command::Quantize(a) => super::quantize::run(&a),
        #[cfg(feature = "serve")]
        Command::Serve(a) => super::serve::serve(&a),
        Command::Memory(a) => super::memory::command::memory(&a),
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
    let line = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
    table.load_style(line).set_header(header.to_vec());
    table
}
