//! The `halfbyte` command line.

use clap::Parser;

fn main() -> std::process::ExitCode {
    halfbyte::cli::output::main(halfbyte::cli::args::Cli::parse())
}
