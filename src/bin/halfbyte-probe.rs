//! The capability probe by itself: `halfbyte probe` under a name of its own.

use clap::Parser;

/// Shows what the machine has and what it reaches, in under five seconds.
#[derive(Parser)]
#[command(name = "halfbyte-probe", version, about, after_help = "Example:\n  halfbyte-probe --json")]
struct Arguments {
    #[command(flatten)]
    probe: halfbyte::cli::probe::ProbeArgs,
}

fn main() -> std::process::ExitCode {
    match halfbyte::cli::probe::probe(&Arguments::parse().probe) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e}");
            std::process::ExitCode::FAILURE
        }
    }
}
