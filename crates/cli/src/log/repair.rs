//! `logmill log repair`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use logmill_broker::{Misplaced, TopicList};
use logmill_log::env::Env;
use logmill_log::inspect::{Finding, FindingKind, Plan, RepairStep, plan_repair};
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
    let outcome = Outcome::of(&plan, &topics, args);
    if args.execute {
        plan.execute()?;
    }
    if args.json {
        output.json(&outcome.json())?;
    } else {
        outcome.print(output)?;
    }
    output.flush()?;
    outcome.ended()
}

/// What a repair does, or would do.
struct Outcome<'a> {
    dir: &'a Path,
    executed: bool,
    steps: Vec<RepairStep>,
    findings: Vec<Finding>,
    misplaced: Vec<Misplaced>,
    /// Topics that the node's list will be without though there are records of them, if it loses anything.
    unlisted: Option<BTreeSet<String>>,
    /// The logs that stay as they are.
    not_mended: Vec<String>,
}

impl<'a> Outcome<'a> {
    fn of(plan: &Plan, topics: &TopicList, args: &'a Args) -> Self {
        let report = plan.report();
        let unread = report.findings.iter().filter(|found| found.kind == FindingKind::Unread);
        let beyond = plan.not_mended().iter().map(|(_, error)| error.to_string());
        Self {
            dir: &args.dir,
            executed: args.execute,
            steps: plan.steps().to_vec(),
            findings: report.findings.clone(),
            misplaced: topics.check(report),
            unlisted: loses_topics(plan.steps()).then(|| topics.unlisted(&report.logs)),
            not_mended: unread.map(ToString::to_string).chain(beyond).collect(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "dir": self.dir.display().to_string(),
            "executed": self.executed,
            "steps": self.steps.iter().map(step_json).collect::<Value>(),
            "findings": self.findings.iter().map(finding_json).collect::<Value>(),
            "misplaced": self.misplaced.iter().map(misplaced_json).collect::<Value>(),
            "topics_not_listed": self.unlisted.clone().unwrap_or_default(),
            "not_mended": self.not_mended,
        })
    }

    fn print(&self, output: &mut Output) -> Result<(), Failure> {
        self.steps.iter().try_for_each(|step| output.line(step))?;
        if let Some(unlisted) = &self.unlisted {
            output.line(topics_text(self.dir, unlisted))?;
        }
        let misplaced = self.misplaced.iter().map(|misplaced| misplaced_text(self.dir, misplaced));
        for what in misplaced.chain(self.not_mended.iter().cloned()) {
            output.line(format_args!("not mended: {what}"))?;
        }
        let count = counted(self.steps.len() as u64, "step", "steps");
        match (self.steps.len(), self.executed) {
            (0, _) if self.not_mended.is_empty() && self.misplaced.is_empty() => {
                output.line("there is nothing to repair")
            }
            (0, _) => output.line("there is nothing that can be repaired"),
            (_, true) => output.line(format_args!("did {count}; 'logmill log verify' says how it stands")),
            (_, false) => output.line(format_args!(
                "nothing was changed; copy the directory, then do {count} with --execute"
            )),
        }
    }

    /// A failure if logs stay as they are.
    fn ended(&self) -> Result<(), Failure> {
        if self.not_mended.is_empty() {
            return Ok(());
        }
        let logs = counted(self.not_mended.len() as u64, "log", "logs");
        Err(Failure::new(Exit::Failed, format!("{} holds {logs} that this cannot mend", self.dir.display())))
    }
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
