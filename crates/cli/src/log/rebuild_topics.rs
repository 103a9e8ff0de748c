//! `logmill log rebuild-topics`.

use std::path::{Path, PathBuf};

use logmill_broker::{RebuildPlan, RebuiltTopic, plan_rebuild};
use logmill_log::env::Env;
use serde_json::{Value, json};

use crate::failure::{Exit, Failure};
use crate::node::open_failure;
use crate::output::{Output, counted};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The data directory of a node
    dir: PathBuf,
    /// Do it; without this the topics are shown and nothing is changed
    #[arg(long)]
    execute: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let plan = plan_rebuild(&Env::real(), &args.dir).map_err(|error| open_failure(&error))?;
    let document = plan_json(&plan);
    if !args.json {
        print(&plan, output)?;
    }
    let needed = plan.is_needed();
    if needed && plan.topics().is_empty() {
        output.flush()?;
        return Err(Failure::new(Exit::NotFound, nothing_text(&args.dir)));
    }
    let count = counted(plan.topics().len() as u64, "topic", "topics");
    let executed = args.execute && needed;
    let replaced = if executed { plan.execute().map_err(|error| open_failure(&error))? } else { None };
    let replaced = replaced.map(|path| path.display().to_string());
    if args.json {
        let mut document = document;
        document["dir"] = args.dir.display().to_string().into();
        document["executed"] = executed.into();
        document["replaced"] = replaced.into();
        return output.json(&document);
    }
    if !needed {
        return output.line("the list is whole, and these are its topics; nothing to do");
    }
    if !args.execute {
        return output.line(format_args!(
            "nothing was changed; copy the directory, then make the list of {count} anew with --execute"
        ));
    }
    output.line(format_args!("made the list of {count} anew"))?;
    match replaced {
        Some(path) => output.line(format_args!("the old one is in {path}; the node does not need it")),
        None => Ok(()),
    }
}

fn print(plan: &RebuildPlan, output: &mut Output) -> Result<(), Failure> {
    for topic in plan.topics() {
        output.line(topic_text(topic))?;
    }
    for skipped in plan.skipped() {
        output.line(format_args!("not used: {}: {}", skipped.path.display(), skipped.why))?;
    }
    Ok(())
}

/// No topic is there: a list of none would take away what a repair, or a backup, could still say.
fn nothing_text(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "{dir} holds no topic of which a list could be made: put topics/ back, or see what 'logmill log repair {dir}' \
         can do"
    )
}

fn topic_text(topic: &RebuiltTopic) -> String {
    let mut text = format!("topic {} ({}), partitions: {}", topic.name, topic.id, topic.partition_count);
    if !topic.missing.is_empty() {
        let missing: Vec<String> = topic.missing.iter().map(ToString::to_string).collect();
        text.push_str(&format!("; not there: {}", missing.join(", ")));
    }
    text.push_str(if topic.has_settings {
        "; settings from the old list"
    } else {
        "; its settings cannot be read: defaults"
    });
    text
}

fn plan_json(plan: &RebuildPlan) -> Value {
    let topics = plan.topics().iter().map(|topic| {
        json!({
            "name": topic.name,
            "topic_id": topic.id.to_string(),
            "partition_count": topic.partition_count,
            "missing_partitions": topic.missing,
            "settings": if topic.has_settings { "old-list" } else { "defaults" },
        })
    });
    let skipped =
        plan.skipped().iter().map(|it| json!({ "path": it.path.display().to_string(), "why": it.why }));
    json!({ "topics": topics.collect::<Value>(), "not_used": skipped.collect::<Value>(), "needed": plan.is_needed() })
}
