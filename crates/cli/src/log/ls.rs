//! `logmill log ls`.

use std::path::PathBuf;

use logmill_log::env::Env;
use logmill_log::inspect::{Listing, LogListing, list};
use logmill_log::{Error, ErrorKind};
use serde_json::{Value, json};

use super::{name_of, partition_of, partition_text};
use crate::failure::Failure;
use crate::output::{Output, bytes_text, counted, plain_table, to_f64};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The data directory
    dir: PathBuf,
    /// Print JSON, a log on each line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let listing = list(&Env::real(), &args.dir)?;
    if args.json {
        return listing.logs.iter().try_for_each(|log| output.json(&log_json(log)));
    }
    print(&listing, output)
}

fn print(listing: &Listing, output: &mut Output) -> Result<(), Failure> {
    let id =
        listing.id.map_or_else(|| "not known: its file 'set' cannot be read".to_owned(), |id| id.to_string());
    output.line(format_args!("directory   {}", listing.dir.display()))?;
    output.line(format_args!("id          {id}"))?;
    if let Some(counter) = listing.open_counter {
        let closed = if listing.clean { "closed cleanly" } else { "not closed cleanly" };
        output.line(format_args!("opened      {}, {closed}", counted(counter.into(), "time", "times")))?;
    }
    output.line(format_args!("logs        {}", listing.logs.len()))?;
    if listing.logs.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let header = ["LOG", "PARTITION", "FIRST", "END", "SEGMENTS", "STORED", "CHECKPOINT", "STATE"];
    let mut table = plain_table(header, &[2, 3, 4, 5, 6]);
    for log in &listing.logs {
        let partition = partition_of(log.owner().map(|owner| &owner[..]));
        table.add_row([
            name_of(&log.path),
            partition.map_or_else(|| "-".to_owned(), |partition| partition_text(&partition)),
            log.first_offset.to_string(),
            log.end_offset.to_string(),
            log.segments.len().to_string(),
            bytes_text(to_f64(log.bytes())),
            log.checkpoint.map_or_else(|| "-".to_owned(), |row| row.end_offset.to_string()),
            log.meta.as_ref().map_or_else(state_of, |_| "ok".to_owned()),
        ]);
    }
    output.line(table.trim_fmt())
}

/// What fits a column; `verify` says the rest.
fn state_of(error: &Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "meta is missing".to_owned(),
        ErrorKind::Corrupt => "meta is damaged".to_owned(),
        _ => error.to_string(),
    }
}

fn log_json(log: &LogListing) -> Value {
    let partition = partition_of(log.owner().map(|owner| &owner[..]));
    json!({
        "log": name_of(&log.path),
        "id": log.meta.as_ref().ok().map(|meta| meta.id.to_string()),
        "topic": partition.as_ref().map(|partition| &partition.topic),
        "topic_id": partition.as_ref().map(|partition| partition.topic_id.to_string()),
        "partition": partition.as_ref().map(|partition| partition.partition),
        "start_offset": log.meta.as_ref().ok().map(|meta| meta.start_offset.get()),
        "first_offset": log.first_offset.get(),
        "end_offset": log.end_offset.get(),
        "bytes": log.bytes(),
        "segments": log.segments.iter().map(|segment| json!({
            "base_offset": segment.base_offset.get(),
            "bytes": segment.bytes,
        })).collect::<Value>(),
        "checkpoint": log.checkpoint.map(|row| json!({
            "active_base": row.active_base.get(),
            "end_offset": row.end_offset.get(),
            "position": row.position,
        })),
        "error": log.meta.as_ref().err().map(ToString::to_string),
    })
}
