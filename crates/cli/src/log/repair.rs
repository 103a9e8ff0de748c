//! `logmill log repair`.

use std::path::PathBuf;

use logmill_log::env::Env;
use logmill_log::inspect::{RepairStep, plan_repair};
use serde_json::{Value, json};

use super::verify::finding_json;
use super::{Bar, name_of};
use crate::failure::Failure;
use crate::output::Output;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The data directory
    dir: PathBuf,
    /// Do it; without this the plan is shown and nothing is changed
    #[arg(long)]
    execute: bool,
    /// Print the plan as one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let bar = Bar::new("verifying");
    let plan = plan_repair(&Env::real(), &args.dir, &mut |progress| bar.set(progress))?;
    drop(bar);
    let steps = plan.steps().to_vec();
    let findings: Vec<Value> = plan.report().findings.iter().map(finding_json).collect();
    if args.execute {
        plan.execute()?;
    }
    if args.json {
        return output.json(&json!({
            "dir": args.dir.display().to_string(),
            "executed": args.execute,
            "steps": steps.iter().map(step_json).collect::<Value>(),
            "findings": findings,
        }));
    }
    for step in &steps {
        output.line(step)?;
    }
    let count = steps.len();
    match (count, args.execute) {
        (0, _) => output.line("there is nothing to repair"),
        (_, true) => {
            output.line(format_args!("did these {count} steps; 'logmill log verify' says how it stands"))
        }
        (_, false) => output.line(format_args!(
            "nothing was changed; copy the directory, then do these {count} steps with --execute"
        )),
    }
}

fn step_json(step: &RepairStep) -> Value {
    json!({
        "log": step.log.as_deref().map(name_of),
        "file": step.file.display().to_string(),
        "what": step.what,
        "gone": step.gone.iter().map(|gone| json!({
            "first_offset": gone.start.get(),
            "end_offset": gone.end.get(),
        })).collect::<Value>(),
    })
}
