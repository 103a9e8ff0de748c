//! What can be seen of a directory as a whole: logs that are there twice or not at all, and files of nobody.

use std::collections::BTreeMap;
use std::path::Path;

use uuid::Uuid;

use super::super::directory::Directory;
use super::super::finding::{Finding, FindingKind, Severity};
use super::{DataLook, Frame, Look, of_frame};
use crate::format::atomic::TEMPORARY;
use crate::format::meta::FILE as META;
use crate::format::set_file::SetFile;
use crate::set::{CHECKPOINT, SET};

/// Logs that have the identity of another one: their rows of the checkpoint would be one.
pub(super) fn note_copies(looks: &[Look], dir: &Path, findings: &mut Vec<Finding>) {
    let mut known: BTreeMap<Uuid, &Path> = BTreeMap::new();
    for look in looks {
        let (Some(id), path) = (look.report.id, look.report.path.as_path()) else { continue };
        let Some(first) = known.get(&id) else {
            known.insert(id, path);
            continue;
        };
        let what =
            format!("it says that it is the log that {} is: one is a copy of the other", first.display());
        let advice = "move the one that was not in use last out of the data directory";
        let file = dir.join(path).join(META);
        let finding = of_frame(Severity::Data, FindingKind::Copy, file, what, advice);
        findings.push(Finding { log: Some(path.to_owned()), ..finding });
    }
}

/// A copy of `set` is not older than by so many openings: an epoch further above its counter is none.
const MOST_OPENINGS_LOST: u32 = 1 << 16;

/// The epochs that batches can have been stamped with, also where `set` is an older copy.
pub(super) fn most_epoch(set: SetFile) -> i32 {
    i32::try_from(set.open_counter.saturating_add(MOST_OPENINGS_LOST)).unwrap_or(i32::MAX)
}

/// What the counter of `set` has to be, given one leader epoch of each segment; `None` if it is that.
pub(in crate::inspect) fn counter_behind(
    set: SetFile,
    looks: &[Look],
    epoch_of: impl Fn(&DataLook) -> i32,
) -> Option<u32> {
    let epochs = looks.iter().flat_map(|look| &look.segments).map(epoch_of);
    let largest = epochs.filter(|epoch| *epoch <= most_epoch(set)).max().unwrap_or(0).max(0);
    Some(largest.unsigned_abs()).filter(|largest| *largest > set.open_counter)
}

/// Whether `set` is of a time before some of the batches: the next opening would have the epoch of another one.
pub(super) fn older_set(dir: &Path, frame: &Frame, looks: &[Look]) -> Option<Finding> {
    let set = frame.set?;
    let epoch = counter_behind(set, looks, |segment| segment.proved_epoch)?;
    let what = format!(
        "an older copy: it was opened {} times, and there are batches of opening {epoch}",
        set.open_counter
    );
    let advice = "a repair moves its counter on";
    Some(of_frame(Severity::Sidecar, FindingKind::SetFile, dir.join(SET), what, advice))
}

/// What lies outside of the logs' directories, and what was not looked into.
pub(super) fn note_strays(directory: &Directory, findings: &mut Vec<Finding>) {
    let found = &directory.found;
    let mut note = |path: &Path, what: &str, advice: &str| {
        let file = directory.path.join(path);
        findings.push(of_frame(Severity::Note, FindingKind::Stray, file, what.to_owned(), advice));
    };
    for path in &found.strays {
        if path.to_string_lossy().ends_with(TEMPORARY) {
            note(path, "a file that was being written when the process ended", "it can be removed");
        } else {
            note(path, "no log knows this file", "it is left alone");
        }
    }
    for path in &found.left_alone {
        let what = "by its name, its owner is removing it or has replaced it; it was not looked into";
        note(path, what, "it is left alone");
    }
    for path in &found.foreign {
        let what = "it is a data directory of its own, or leads into one, and was not looked into";
        note(path, what, "look at that one by itself");
    }
}

/// Rows of the checkpoint whose logs are not there.
pub(super) fn note_lost_logs(dir: &Path, frame: &Frame, looks: &[Look], findings: &mut Vec<Finding>) {
    let known = |id: &Uuid| looks.iter().any(|look| look.report.id == Some(*id));
    for (id, row) in frame.checkpoint.iter().flatten().filter(|(id, _)| !known(id)) {
        let what = format!(
            "it speaks of a log {id} that is not here, and would go on at offset {}",
            row.durable.end
        );
        let advice = "all is well if that log was deleted; else restore its directory from a backup";
        let path = dir.join(CHECKPOINT);
        findings.push(of_frame(Severity::Note, FindingKind::Checkpoint, path, what, advice));
    }
}
