//! `halfbyte suite`: many models in one process.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::args::Running;
use super::npz;
use super::output::print;
use crate::error::{Error, Result};
use crate::session::{Model, Session};

/// Arguments of `suite`.
#[derive(Args)]
pub struct SuiteArgs {
    /// TSV: name, model, in.npz, out.npz.
    pub list: PathBuf,
    #[command(flatten)]
    running: Running,
}

/// Runs each line; prints `OK`, `UNSUPPORTED`, `ERROR` or `CRASH`, a tab, the name, and the reason. Fails when any line did.
pub fn suite(args: &SuiteArgs) -> Result<ExitCode> {
    let fail = |e: std::io::Error| Error::File { path: args.list.display().to_string(), why: e.to_string() };
    let list = std::fs::read_to_string(&args.list).map_err(fail)?;
    let mut worst = ExitCode::SUCCESS;
    let mut last: Option<(PathBuf, Session)> = None;
    for line in list.lines().filter(|l| !l.trim().is_empty()) {
        let fields: Vec<&str> = line.split('\t').collect();
        let &[name, model, input, output] = &fields[..] else {
            return Err(Error::BadInput(format!("{line:?} is not name, model, in.npz, out.npz")));
        };
        // A panic is a bug in this crate; the suite still goes on and names the model.
        let one = || one(Path::new(model), Path::new(input), Path::new(output), args, &mut last);
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(one));
        let (word, why) = match &done {
            Ok(Ok(())) => ("OK", String::new()),
            Ok(Err(e)) if e.is_unsupported() => ("UNSUPPORTED", e.to_string()),
            Ok(Err(e)) => ("ERROR", e.to_string()),
            Err(_) => ("CRASH", "a panic, see above".to_string()),
        };
        if !matches!(word, "OK" | "UNSUPPORTED") {
            worst = ExitCode::FAILURE;
        }
        print(format!("{word}\t{name}\t{}", why.replace(['\n', '\t'], " ")).trim_end());
    }
    Ok(worst)
}

/// Runs one line; lines of the same model that follow each other share its session.
fn one(model: &Path, input: &Path, output: &Path, args: &SuiteArgs, last: &mut Option<(PathBuf, Session)>) -> Result<()> {
    if last.as_ref().is_none_or(|(path, _)| path != model) {
        *last = None;
        *last = Some((model.to_path_buf(), Session::new(&Model::open(model)?, args.running.options(false))?));
    }
    let Some((_, session)) = last else { return Ok(()) };
    let inputs = npz::read(input)?;
    let named: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    npz::write(output, session.run(&named)?.iter())
}
