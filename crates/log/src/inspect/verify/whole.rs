//! What can be seen of a directory as a whole: logs that are there twice or not at all, and files of nobody.

use std::collections::BTreeMap;
use std::path::Path;

use uuid::Uuid;

use super::super::directory::Directory;
use super::super::finding::{Finding, FindingKind, Severity};
use super::{Frame, Look, of_frame};
use crate::format::atomic::TEMPORARY;
use crate::format::meta::FILE as META;
use crate::set::CHECKPOINT;

/// Logs that have the identity of another one: their rows of the checkpoint would be one.
pub(super) fn note_copies(looks: &[Look], dir: &Path, findings: &mut Vec<Finding>) {
    let mut known: BTreeMap<Uuid, &Path> = BTreeMap::new();
    for look in looks {
        let (Some(id), path) = (look.report.id, look.report.path.as_path()) else { continue };
        let Some(first) = known.get(&id) else {
            known.insert(id, path);
            continue;
        };
        let what = format!(
            "it says that it is the log that {} is: one is a copy of the other, or a link to it",
            first.display()
        );
        let advice = "remove the link, or move the one that was not in use last out of the data directory";
        let file = dir.join(path).join(META);
        let finding = of_frame(Severity::Data, FindingKind::Copy, file, what, advice);
        findings.push(Finding { log: Some(path.to_owned()), ..finding });
    }
}

/// Files outside of the logs' directories.
pub(super) fn note_strays(directory: &Directory, findings: &mut Vec<Finding>) {
    for path in &directory.found.strays {
        let (what, advice) = if path.to_string_lossy().ends_with(TEMPORARY) {
            ("a file that was being written when the process ended", "it can be removed")
        } else {
            ("no log knows this file", "it is left alone")
        };
        let file = directory.path.join(path);
        findings.push(of_frame(Severity::Note, FindingKind::Stray, file, what.to_owned(), advice));
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
