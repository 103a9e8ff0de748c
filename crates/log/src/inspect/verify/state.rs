//! What a `.state` says of producers, against the index of its segment.

use super::super::finding::{FindingKind, Severity};
use super::log::View;
use super::{Finding, Target, damage};
use crate::error::Error;
use crate::format::atomic;
use crate::format::index::Footer;
use crate::format::state::StateFile;
use crate::segment::{STATE, path};

/// Reports a file that is damaged, or missing where one has to be. One that was left by an earlier
/// close, before more was appended, is as it should be. Says whether it reported one.
pub(super) fn check_state(
    view: &View<'_>,
    target: Target,
    footer: Option<&Footer>,
    findings: &mut Vec<Finding>,
) -> Result<bool, Error> {
    let file = path(&view.log_dir(), target.listing.base_offset, STATE);
    // Without an index that fits the data there is nothing to hold it against.
    let footer = footer.filter(|footer| footer.data_len == target.listing.bytes);
    let what = match (atomic::read(view.fs, &file), footer) {
        (Err(error), _) => damage(error)?,
        (Ok(None), Some(footer)) if footer.producers => "it is missing".to_owned(),
        (Ok(None), _) => return Ok(false),
        (Ok(Some(bytes)), footer) => match StateFile::decode_any(&file, &bytes) {
            Ok((of, _)) if footer.is_none_or(|footer| of.is(footer)) => return Ok(false),
            Ok(_) if target.listing.base_offset < view.gaps_below => {
                let what = "it was written for what its segment held before compaction";
                let advice = "what it says is made again from the data when it is needed";
                findings.push(view.finding(Severity::Note, FindingKind::State, file, what, advice));
                return Ok(false);
            }
            Ok(_) => "it was written for other contents of its segment".to_owned(),
            Err(error) => damage(error)?,
        },
    };
    let advice = "what it says is made again from the data when it is needed, and for good by a repair";
    findings.push(view.finding(Severity::Sidecar, FindingKind::State, file, what, advice));
    Ok(true)
}
