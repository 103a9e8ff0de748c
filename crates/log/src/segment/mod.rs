//! Segments: one file of bare record batches each, and the index that finds them.
//!
//! Only the last segment of a log, the active one, is written. A sealed segment never changes;
//! readers hold it by an `Arc` and go on reading after its files were unlinked or, by compaction,
//! replaced. Offsets are contiguous, but for gaps where compaction took batches out; the last
//! batch of a segment always stays, so that the next offset follows from the data.

mod batches;
mod builder;
mod epoch_search;
mod epochs;
mod gaps;
mod maps;
mod rows;
mod salvage;
mod scan;
mod sealed;
mod sealed_epochs;
mod sealed_read;
mod survey;
mod times;
mod txns;
mod walk;

use std::path::{Path, PathBuf};

use logmill_record::Offset;

pub(crate) use batches::Batches;
pub(crate) use builder::{IndexBuilder, Placed};
pub(crate) use epoch_search::{RowEpochs, epoch_before, first_above};
pub(crate) use epochs::Epochs;
pub(crate) use gaps::Gaps;
pub(crate) use maps::Maps;
pub(crate) use rows::{RowCheck, RowRange};
pub(crate) use salvage::{Hole, Salvaged, Wreck, salvage};
pub(crate) use scan::{Scan, rebuild, scan};
pub(crate) use sealed::Sealed;
pub(crate) use survey::{Gap, Piece, Survey, Whole};
pub(crate) use times::AppendTimes;
pub(crate) use txns::Txns;
pub(crate) use walk::{Damage, HEAD_LEN, Placement, Walk, crc32c_extend, find_record, take, walk};

/// The ending of data files.
pub(crate) const DATA: &str = "log";
/// The ending of index files.
pub(crate) const INDEX: &str = "index";
/// The ending of files of producers.
pub(crate) const STATE: &str = "state";
/// The endings of all files of a segment, the data first.
pub(crate) const ENDINGS: [&str; 3] = [DATA, INDEX, STATE];

/// The path of a segment's file with the given ending.
pub(crate) fn path(dir: &Path, base: Offset, ending: &str) -> PathBuf {
    dir.join(format!("{:020}.{ending}", base.get()))
}

/// The base offset in the name of a data file; `None` for any other file.
pub(crate) fn base_of(name: &str) -> Option<Offset> {
    base_with(name, DATA)
}

/// The base offset in the name of a segment's file with the given ending.
pub(crate) fn base_with(name: &str, ending: &str) -> Option<Offset> {
    let digits = name.strip_suffix(ending)?.strip_suffix('.')?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Offset::new(digits.parse().ok()?)
}
