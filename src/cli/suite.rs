//! `halfbyte suite`: many models in one process.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use super::args::Running;
use super::output::{UNSUPPORTED, print, print_json};
use super::{npz, progress};
use crate::error::{Error, Result};
use crate::session::{Model, Session};

/// Arguments of `suite`.
#[derive(Args)]
pub struct SuiteArgs {
    /// TSV: name, model, in.npz, out.npz.
    pub list: PathBuf,
    #[command(flatten)]
    running: Running,
    /// Print JSON when all are done, instead of a line for each.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Verdict {
    Ok,
    Unsupported,
    Error,
    Crash,
}

/// How one line went.
#[derive(serde::Serialize)]
struct Outcome {
    verdict: Verdict,
    name: String,
    model: String,
    why: String,
    /// Loading, planning, running and writing.
    seconds: f64,
}

/// Runs each line; prints `OK`, `UNSUPPORTED`, `ERROR` or `CRASH`, a tab, the name, and the reason. Fails when any line did,
/// and says unsupported when nothing worse happened.
pub fn suite(args: &SuiteArgs) -> Result<ExitCode> {
    args.running.runs()?;
    let fail = |e: std::io::Error| Error::File { path: args.list.display().to_string(), why: e.to_string() };
    let list = std::fs::read_to_string(&args.list).map_err(fail)?;
    let lines: Vec<&str> = list.lines().filter(|l| !l.trim().is_empty()).collect();
    let bar = progress::bar(lines.len() as u64, "models");
    let mut last: Option<(PathBuf, Session)> = None;
    let mut outcomes = Vec::with_capacity(lines.len());
    for line in lines {
        let fields: Vec<&str> = line.split('\t').collect();
        let &[name, model, input, output] = &fields[..] else {
            return Err(Error::BadInput(format!("{line:?} is not name, model, in.npz, out.npz")));
        };
        let start = Instant::now();
        // A panic is a bug in this crate; the suite still goes on and names the model.
        let one = || one(Path::new(model), Path::new(input), Path::new(output), args, &mut last);
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(one));
        let outcome = outcome(done.ok(), name, model, start.elapsed().as_secs_f64());
        if !args.json {
            bar.suspend(|| print(&text(&outcome)));
        }
        outcomes.push(outcome);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if args.json {
        print_json(&outcomes)?;
    }
    let any = |v: Verdict| outcomes.iter().any(|o| o.verdict == v);
    Ok(if any(Verdict::Error) || any(Verdict::Crash) {
        ExitCode::FAILURE
    } else if any(Verdict::Unsupported) {
        ExitCode::from(UNSUPPORTED)
    } else {
        ExitCode::SUCCESS
    })
}

/// `done` is `None` after a panic.
fn outcome(done: Option<Result<()>>, name: &str, model: &str, seconds: f64) -> Outcome {
    let (verdict, why) = match done {
        Some(Ok(())) => (Verdict::Ok, String::new()),
        Some(Err(e)) if e.is_unsupported() => (Verdict::Unsupported, e.to_string()),
        Some(Err(e)) => (Verdict::Error, e.to_string()),
        None => (Verdict::Crash, "a panic, see above".to_string()),
    };
    Outcome { verdict, name: name.into(), model: model.into(), why, seconds }
}

fn text(outcome: &Outcome) -> String {
    let word = match outcome.verdict {
        Verdict::Ok => "OK",
        Verdict::Unsupported => "UNSUPPORTED",
        Verdict::Error => "ERROR",
        Verdict::Crash => "CRASH",
    };
    format!("{word}\t{}\t{}", outcome.name, outcome.why.replace(['\n', '\t'], " ")).trim_end().to_string()
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
