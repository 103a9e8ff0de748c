//! `logmill log`: looking into data directories that no node has open.
//!
//! The work is done by `logmill_log::inspect`; here it is printed.

mod dump;
mod ls;
mod rebuild_topics;
mod repair;
mod verify;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use logmill_broker::PartitionOwner;
use logmill_log::inspect::Progress;
use logmill_log::{Error, ErrorKind};

use crate::failure::{Exit, Failure};
use crate::output::Output;

/// List, dump, verify and repair the logs of a data directory that is not in use
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  logmill log ls ./data
  logmill log verify ./data
  logmill log repair ./data
  logmill log dump ./data --log internal/metadata --records

They work on any data directory, a node's or an embedding program's, and on copies. Nobody may have it open.")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the logs, with their offsets and what the checkpoint says of them
    #[command(visible_alias = "list", after_help = "Example:\n  logmill log ls ./data")]
    Ls(ls::Args),
    /// Print the batches, and with --records the records in them
    #[command(after_help = "\
Examples:
  logmill log dump ./data --log topics/785531d3-3a03-40c0-a8fc-735da534e7c8/0 --from 1000 --limit 10
  logmill log dump ./copy/00000000000000000000.log --records --json

A file alone is read as it is, also while a node writes it.")]
    Dump(dump::Args),
    /// Read every byte and report what is damaged; exits with 7 if anything is
    #[command(after_help = "\
Example:
  logmill log verify ./data

It changes nothing. 'data' means that something stored cannot be read, or is not where it belongs; \
a 'sidecar' can be made again from the data; a 'note' needs nothing. Exit codes: 0 not damaged, 7 damaged.")]
    Verify(verify::Args),
    /// Show how damage would be mended, and with --execute mend it
    #[command(after_help = "\
Examples:
  logmill log repair ./data
  logmill log repair ./data --execute

Without --execute it changes nothing. Keep a copy of the directory first. What is taken out of a segment is saved \
beside it; the offsets of records that are gone are named, and are not given out again.")]
    Repair(repair::Args),
    /// Show the topics that the directories of a node hold, and with --execute make the node's list of them anew
    #[command(after_help = "\
Examples:
  logmill log rebuild-topics ./data
  logmill log rebuild-topics ./data --execute

For a node that does not start because internal/metadata is lost or damaged. Without --execute it changes nothing. \
Keep a copy of the directory first. Names, partitions and records are what they were; settings are taken from what \
can be read of the old list, and else become the defaults. A topic that was being deleted when the node ended may be there again.")]
    RebuildTopics(rebuild_topics::Args),
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let mut output = Output::stdout();
    match args.action {
        Action::Ls(args) => ls::run(&args, &mut output)?,
        Action::Dump(args) => dump::run(&args, &mut output)?,
        Action::Verify(args) => verify::run(&args, &mut output)?,
        Action::Repair(args) => repair::run(&args, &mut output)?,
        Action::RebuildTopics(args) => rebuild_topics::run(&args, &mut output)?,
    }
    output.flush()
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::Invalid => Exit::Usage,
            ErrorKind::Denied => Exit::Denied,
            ErrorKind::NotFound | ErrorKind::OutOfRange => Exit::NotFound,
            ErrorKind::Locked | ErrorKind::Exists => Exit::Conflict,
            _ => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

/// A log's path below its data directory, as it can be typed again.
fn name_of(log: &Path) -> String {
    if log.as_os_str().is_empty() { ".".to_owned() } else { log.display().to_string() }
}

/// The path that a user typed for a log, as the library has it.
fn typed_name(name: &Path) -> PathBuf {
    name.components().filter(|part| !matches!(part, std::path::Component::CurDir)).collect()
}

/// The topic and partition that a log belongs to, if a broker wrote it.
fn partition_of(owner: Option<&[u8]>) -> Option<PartitionOwner> {
    PartitionOwner::decode(owner?)
}

fn partition_text(owner: &PartitionOwner) -> String {
    format!("{}/{}", owner.topic, owner.partition)
}

/// A bar on standard error, if that is a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new(what: &'static str) -> Self {
        let style = ProgressStyle::with_template("{msg} {bar:30} {bytes} of {total_bytes}, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(ProgressBar::no_length().with_style(style).with_message(what))
    }

    fn set(&self, progress: Progress) {
        self.0.set_length(progress.total_bytes);
        self.0.set_position(progress.done_bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
