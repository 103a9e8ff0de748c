//! Making the checkpoint again where it is missing though the directory was closed cleanly.
//!
//! Without its rows a log's newest segment would count as unacknowledged, and what lies behind
//! damage in it be cut off as a torn write. A clean close leaves nothing torn: every byte that is
//! there was promised.

use std::path::Path;

use crate::env::{Fs, OpenMode};
use crate::error::{Error, ErrorKind};
use crate::format::atomic;
use crate::format::checkpoint::{self, Checkpoint, Durable, Row};
use crate::inspect::{end_of, logs_in, read_meta, segments};
use crate::log::Rolls;

use super::checkpointer::FILE as CHECKPOINT;
use crate::format::meta::FILE as META;

/// Writes the checkpoint if there is none. Before `set` says that the directory is open: a kill
/// afterwards must find the rows.
pub(super) fn if_lost(fs: &dyn Fs, dir: &Path) -> Result<(), Error> {
    let path = dir.join(CHECKPOINT);
    match fs.open(&path, OpenMode::Read) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        // Reading it is what comes next.
        _ => return Ok(()),
    }
    tracing::error!(
        file = %path.display(),
        "the checkpoint is missing though the directory was closed cleanly; it is made again from the logs"
    );
    let mut rows = Checkpoint::new();
    for log in logs_in(fs, dir)?.logs {
        add_row(fs, &dir.join(log), &mut rows)?;
    }
    atomic::replace(fs, &path, &checkpoint::encode(&rows))
}

/// Adds the row of one log: all that its newest segment holds.
fn add_row(fs: &dyn Fs, log_dir: &Path, rows: &mut Checkpoint) -> Result<(), Error> {
    let meta = match read_meta(fs, &log_dir.join(META)) {
        Ok(meta) => meta,
        // It cannot be opened either, and says so then.
        Err(error)
            if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NewerFormat | ErrorKind::NotFound) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let mut segments = segments(fs, log_dir)?;
    let rolls = Rolls { fs, dir: log_dir, durable: None, clean: true, gaps_below: meta.gaps_below };
    while let [.., before, last] = segments[..]
        && rolls.was_never_begun(before.base_offset, last.base_offset)?
    {
        segments.pop();
    }
    let Some(newest) = segments.pop() else { return Ok(()) };
    let end = end_of(fs, log_dir, newest)?;
    let durable = Durable { active_base: newest.base_offset, end, position: newest.bytes };
    rows.insert(meta.id, Row { durable, clean: false });
    Ok(())
}
