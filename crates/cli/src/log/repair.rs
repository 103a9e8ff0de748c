//! `logmill log repair`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use logmill_broker::TopicList;
use logmill_log::env::Env;
use logmill_log::inspect::{FindingKind, Plan, RepairStep, plan_repair};
use serde_json::{Value, json};

use super::verify::{finding_json, misplaced_json, misplaced_text};
use super::{Bar, name_of};
use crate::failure::{Exit, Failure};
use crate::output::{Output, counted};

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
    let env = Env::real();
    // Before the plan, which holds the directory.
    let topics = TopicList::read(&env, &args.dir)?;
    let bar = Bar::new("verifying");
    let plan = plan_repair(&env, &args.dir, &mut |progress| bar.set(progress))?;
    drop(bar);
    let plan = plan.with_owners(|log| topics.owner_of(log))?;
    let steps = plan.steps().to_vec();
    let report = plan.report();
    let misplaced = topics.check(report);
    let unlisted = if loses_topics(&steps) { topics.unlisted(&report.logs) } else { BTreeSet::new() };
    let not_mended = not_mended(&plan);
    let findings: Vec<Value> = report.findings.iter().map(finding_json).collect();
    if args.execute {
        plan.execute()?;
    }
    if args.json {
        output.json(&json!({
            "dir": args.dir.display().to_string(),
            "executed": args.execute,
            "steps": steps.iter().map(step_json).collect::<Value>(),
            "findings": findings,
            "misplaced": misplaced.iter().map(misplaced_json).collect::<Value>(),
            "topics_not_listed": unlisted,
            "not_mended": not_mended,
        }))?;
        return outcome(&args.dir, &not_mended);
    }
    for step in &steps {
        output.line(step)?;
    }
    if loses_topics(&steps) {
        output.line(topics_text(&args.dir, &unlisted))?;
    }
    for misplaced in &misplaced {
        output.line(format_args!("not mended: {}", misplaced_text(&args.dir, misplaced)))?;
    }
    for what in &not_mended {
        output.line(format_args!("not mended: {what}"))?;
    }
    let count = counted(steps.len() as u64, "step", "steps");
    match (steps.len(), args.execute) {
        (0, _) if not_mended.is_empty() => output.line("there is nothing to repair"),
        (0, _) => output.line("there is nothing that can be repaired"),
        (_, true) => output.line(format_args!("did {count}; 'logmill log verify' says how it stands")),
        (_, false) => output
            .line(format_args!("nothing was changed; copy the directory, then do {count} with --execute")),
    }?;
    output.flush()?;
    outcome(&args.dir, &not_mended)
}

/// The logs that a repair leaves as they are.
fn not_mended(plan: &Plan) -> Vec<String> {
    let unread = plan.report().findings.iter().filter(|found| found.kind == FindingKind::Unread);
    let beyond = plan.not_mended().iter().map(|(_, error)| error.to_string());
    unread.map(ToString::to_string).chain(beyond).collect()
}

fn outcome(dir: &Path, not_mended: &[String]) -> Result<(), Failure> {
    if not_mended.is_empty() {
        return Ok(());
    }
    let logs = counted(not_mended.len() as u64, "log", "logs");
    Err(Failure::new(Exit::Failed, format!("{} holds {logs} that this cannot mend", dir.display())))
}

/// Whether the node's list of topics loses what some record said.
fn loses_topics(steps: &[RepairStep]) -> bool {
    let of_list = |step: &RepairStep| step.log.as_deref().is_some_and(TopicList::is_at);
    steps.iter().any(|step| of_list(step) && !step.gone.is_empty())
}

fn topics_text(dir: &Path, unlisted: &BTreeSet<String>) -> String {
    let lost = if unlisted.is_empty() {
        "what its lost records said of topics, or of their settings".to_owned()
    } else {
        let names: Vec<&str> = unlisted.iter().map(String::as_str).collect();
        format!("these topics, whose records are there: {}", names.join(", "))
    };
    format!(
        "the node's list of topics will be without {lost}; 'logmill log rebuild-topics {}' makes it anew from the \
         topics' directories, with the settings that it still has: do that before the node is started",
        dir.display()
    )
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
