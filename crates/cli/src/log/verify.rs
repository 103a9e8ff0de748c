//! `logmill log verify`.

use std::path::{Path, PathBuf};

use logmill_broker::{Misplaced, TopicList};
use logmill_log::env::Env;
use logmill_log::inspect::{Finding, Report, Severity, verify};
use serde_json::{Value, json};

use super::{Bar, name_of, partition_of, partition_text};
use crate::failure::{Exit, Failure};
use crate::output::{Output, bytes_text, counted, thousands, to_f64};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The data directory
    dir: PathBuf,
    /// Print the report as one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let bar = Bar::new("verifying");
    let report = verify(&Env::real(), &args.dir, &mut |progress| bar.set(progress))?;
    drop(bar);
    let misplaced = TopicList::read(&Env::real(), &args.dir)?.check(&report);
    if args.json {
        output.json(&report_json(&report, &misplaced))?;
    } else {
        print(&report, &misplaced, output)?;
    }
    output.flush()?;
    if report.is_damaged() || !misplaced.is_empty() {
        return Err(Failure::new(Exit::Damaged, sentence(&report, &misplaced)));
    }
    Ok(())
}

fn print(report: &Report, misplaced: &[Misplaced], output: &mut Output) -> Result<(), Failure> {
    for finding in &report.findings {
        output.line(format_args!(
            "{:<9}{finding}{}",
            finding.severity.to_string(),
            belongs(report, finding)
        ))?;
    }
    for misplaced in misplaced {
        let severity = Severity::Data.to_string();
        output.line(format_args!("{severity:<9}{}", misplaced_text(&report.dir, misplaced)))?;
    }
    let sum = |of: fn(&logmill_log::inspect::LogReport) -> u64| report.logs.iter().map(of).sum::<u64>();
    output.line(format_args!(
        "read {} in {}: {}, {}",
        bytes_text(to_f64(sum(|log| log.bytes))),
        counted(report.logs.len() as u64, "log", "logs"),
        counted(sum(|log| log.batches), "batch", "batches"),
        counted(sum(|log| log.records), "record", "records"),
    ))?;
    if report.is_damaged() || !misplaced.is_empty() {
        return Ok(());
    }
    output.line("nothing is damaged")
}

/// A partition that is not where it belongs, like a finding.
pub(super) fn misplaced_text(dir: &Path, misplaced: &Misplaced) -> String {
    let Misplaced { path, what, advice, .. } = misplaced;
    format!("{}: {what}; {advice}", dir.join(path).display())
}

/// Whose the log of a finding is, in a broker's directory.
fn belongs(report: &Report, finding: &Finding) -> String {
    let log = finding.log.as_ref().and_then(|path| report.logs.iter().find(|log| log.path == *path));
    let owner = log.and_then(|log| partition_of(log.owner.as_deref()));
    owner.map_or_else(String::new, |owner| format!(" (partition {})", partition_text(&owner)))
}

fn sentence(report: &Report, misplaced: &[Misplaced]) -> String {
    let counts = [
        (report.count(Severity::Data), "of data"),
        (report.count(Severity::Sidecar), "of files that can be made again"),
        (misplaced.len(), "of partitions that are not where they belong"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<_> = counts.map(|(count, what)| format!("{} {what}", thousands(*count as u64))).collect();
    format!("{} is damaged, {}; keep a copy of it", report.dir.display(), parts.join(" and "))
}

fn report_json(report: &Report, misplaced: &[Misplaced]) -> Value {
    let logs = report.logs.iter().map(|log| {
        let partition = partition_of(log.owner.as_deref());
        json!({
            "log": name_of(&log.path),
            "id": log.id.map(|id| id.to_string()),
            "topic": partition.as_ref().map(|partition| &partition.topic),
            "partition": partition.as_ref().map(|partition| partition.partition),
            "start_offset": log.start_offset.get(),
            "end_offset": log.end_offset.get(),
            "segments": log.segments,
            "bytes": log.bytes,
            "batches": log.batches,
            "records": log.records,
        })
    });
    json!({
        "dir": report.dir.display().to_string(),
        "id": report.id.map(|id| id.to_string()),
        "clean": report.clean,
        "damaged": report.is_damaged() || !misplaced.is_empty(),
        "logs": logs.collect::<Value>(),
        "findings": report.findings.iter().map(finding_json).collect::<Value>(),
        "misplaced": misplaced.iter().map(misplaced_json).collect::<Value>(),
    })
}

pub(super) fn misplaced_json(misplaced: &Misplaced) -> Value {
    json!({ "path": name_of(&misplaced.path), "what": misplaced.what, "advice": misplaced.advice })
}

pub(super) fn finding_json(finding: &Finding) -> Value {
    json!({
        "severity": finding.severity.to_string(),
        "kind": finding.kind.to_string(),
        "log": finding.log.as_deref().map(name_of),
        "file": finding.file.display().to_string(),
        "position": finding.position,
        "first_offset": finding.offsets.as_ref().map(|offsets| offsets.start.get()),
        "end_offset": finding.offsets.as_ref().map(|offsets| offsets.end.get()),
        "what": finding.what,
        "advice": finding.advice,
    })
}
