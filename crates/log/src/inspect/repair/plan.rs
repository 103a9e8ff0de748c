//! Deciding what has to be done, from what was seen.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use logmill_record::Offset;

use super::super::verify::{DataLook, Look, MergeLook, Seen, counter_behind};
use super::RepairStep;
use crate::env::Env;
use crate::error::{Error, ErrorKind};
use crate::format::checkpoint::{Checkpoint, Durable, Row};
use crate::format::meta::{FILE as META, LogMeta};
use crate::format::replacement::MERGE;
use crate::format::set_file::SetFile;
use crate::log::Replaced;
use crate::segment::{DATA, Epochs, INDEX, STATE, path};
use crate::set::{CHECKPOINT, SET};

/// One piece of work, on one file.
#[derive(Debug)]
pub(super) enum Action {
    /// Write `set`.
    Set(SetFile),
    /// Write a log's `meta`.
    Meta { dir: PathBuf, meta: LogMeta },
    /// Take back or finish a merging of segments that was cut off.
    Merge { dir: PathBuf, look: MergeLook },
    /// Remove the empty file of a segment that was never begun.
    Unbegun { dir: PathBuf, base: Offset },
    /// Begin an empty segment, which seals the one before it.
    Begin { dir: PathBuf, base: Offset },
    /// Write a segment anew without its damage.
    Rewrite { dir: PathBuf, look: Segment, refuted: BTreeSet<u64> },
    /// Make the index of a whole segment again.
    Index { dir: PathBuf, look: Segment },
    /// Make what is known of producers again, where it is missing or of no use.
    States { dir: PathBuf, segments: Vec<Segment> },
    /// Write the checkpoint.
    Checkpoint,
}

impl Action {
    /// The directory of the log that it is done to.
    pub(super) fn dir(&self) -> Option<&Path> {
        match self {
            Self::Meta { dir, .. }
            | Self::Merge { dir, .. }
            | Self::Unbegun { dir, .. }
            | Self::Begin { dir, .. }
            | Self::Rewrite { dir, .. }
            | Self::Index { dir, .. }
            | Self::States { dir, .. } => Some(dir),
            Self::Set(_) | Self::Checkpoint => None,
        }
    }
}

/// A segment as a repair takes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) base: Offset,
    /// The length of its data.
    pub(super) len: u64,
    /// The offset up to which its batches are to reach.
    pub(super) end: Offset,
    /// Whether compaction may have left gaps in it.
    pub(super) gaps: bool,
    /// Leader epochs that may stand in it, where no index tells which do.
    pub(super) epochs: Option<Epochs>,
    /// Nothing in it is the segment's own.
    pub(super) foreign: bool,
}

/// The steps, and the checkpoint that the last of them writes.
pub(super) struct Planned {
    pub(super) steps: Vec<(RepairStep, Action)>,
    pub(super) checkpoint: Checkpoint,
    /// There is none that could be read, so that every byte of every log counts as acknowledged.
    checkpoint_is_new: bool,
    /// Logs that a repair leaves as they are, and why.
    pub(super) not_mended: Vec<(PathBuf, Error)>,
}

pub(super) fn plan(env: &Env, dir: &Path, seen: &Seen) -> Planned {
    let checkpoint = seen.frame.checkpoint.clone().unwrap_or_default();
    let checkpoint_is_new = seen.frame.checkpoint.is_none();
    let (steps, not_mended) = (Vec::new(), Vec::new());
    let mut planned = Planned { steps, checkpoint, checkpoint_is_new, not_mended };
    if let Some(set) = seen.frame.set {
        // Also that of a header that is going to be taken as it is.
        if let Some(open_counter) = counter_behind(set, &seen.looks, |segment| segment.last_epoch) {
            let what =
                format!("its counter moved on to {open_counter}, the opening that the last batches are of");
            let set = SetFile { open_counter, ..set };
            planned.push(None, dir.join(SET), what, Vec::new(), Action::Set(set));
        }
    } else {
        let epoch = seen.looks.iter().flat_map(|look| &look.segments).map(|look| look.largest_epoch).max();
        let open_counter = epoch.unwrap_or(0).max(0).unsigned_abs();
        let set = SetFile { id: env.new_uuid(), open_counter, clean: false };
        let what = format!("made again, with a new identity; epochs go on after {open_counter}");
        planned.push(None, dir.join(SET), what, Vec::new(), Action::Set(set));
    }
    let mut lost_row = checkpoint_is_new;
    for look in &seen.looks {
        lost_row |= planned.plan_log(env, dir, look);
    }
    // Made anew without the row of a log, the checkpoint would let an open cut off what was acknowledged in it.
    let all_planned = seen.all_read && planned.not_mended.is_empty();
    if lost_row && (all_planned || !checkpoint_is_new) {
        let what = "written anew, as the logs now are".to_owned();
        planned.push(None, dir.join(CHECKPOINT), what, Vec::new(), Action::Checkpoint);
    }
    planned
}

impl Planned {
    fn push(
        &mut self,
        log: Option<&Path>,
        file: PathBuf,
        what: String,
        gone: Vec<Range<Offset>>,
        action: Action,
    ) {
        let gone = gone.into_iter().filter(|gone| !gone.is_empty()).collect();
        self.steps.push((RepairStep { log: log.map(Path::to_owned), file, what, gone }, action));
    }

    /// Plans one log; says whether its row of the checkpoint changes.
    fn plan_log(&mut self, env: &Env, dir: &Path, look: &Look) -> bool {
        if look.unborn {
            return false;
        }
        let first_step = self.steps.len();
        let row = look.meta.as_ref().and_then(|meta| self.checkpoint.get(&meta.id).copied());
        match self.plan_whole_log(env, dir, look, first_step) {
            Ok(changes) => changes,
            Err(error) => {
                self.steps.truncate(first_step);
                self.not_mended.push((look.report.path.clone(), error));
                let Some(meta) = &look.meta else { return false };
                match row {
                    Some(row) => self.checkpoint.insert(meta.id, row),
                    None => self.checkpoint.remove(&meta.id),
                };
                false
            }
        }
    }

    fn plan_whole_log(
        &mut self,
        env: &Env,
        dir: &Path,
        look: &Look,
        first_step: usize,
    ) -> Result<bool, Error> {
        let below = look.report.path.as_path();
        let log_dir = dir.join(below);
        for base in &look.unbegun {
            let what = "removed: the empty file of a segment that was never begun".to_owned();
            let action = Action::Unbegun { dir: log_dir.clone(), base: *base };
            self.push(Some(below), path(&log_dir, *base, DATA), what, Vec::new(), action);
        }
        self.plan_meta(env, below, &log_dir, look);
        let begun = self.plan_begin(below, &log_dir, look);
        let segments = self.plan_segments(below, &log_dir, look, begun)?;
        self.plan_states(below, &log_dir, look, segments);
        self.plan_merges(below, &log_dir, look, first_step);
        let newest = look.segments.last().map(|last| last.listing.base_offset);
        Ok(begun.is_some() || (look.meta.is_some() && self.rewritten_newest(newest, &log_dir)))
    }

    /// Begins a segment behind one that is damaged or does not reach where the log is to go on, and
    /// says where that is. The checkpoint speaks of the segment that is then the newest.
    ///
    /// Sealing the damaged segment first keeps every crash in between harmless: the checkpoint does
    /// not reach into the new one, and what is sealed is never cut.
    fn plan_begin(&mut self, below: &Path, log_dir: &Path, look: &Look) -> Option<Offset> {
        let (end, last) = (log_end(look), look.segments.last());
        // Nothing but the checkpoint, which is of another identity now, says that what is compacted was sealed.
        let unsealed = |last: &DataLook| last.gaps_allowed && look.meta.is_none();
        let begins = last.is_none_or(|last| {
            let is_due = last.damaged || end > last.end_offset || unsealed(last);
            is_due && end > last.listing.base_offset
        });
        let row = if begins {
            let what = "begun: the log goes on here".to_owned();
            let action = Action::Begin { dir: log_dir.to_owned(), base: end };
            self.push(Some(below), path(log_dir, end, DATA), what, Vec::new(), action);
            Some(Row { durable: Durable { active_base: end, end, position: 0 }, clean: look.clean })
        } else {
            last.filter(|_| self.checkpoint_is_new).map(|last| {
                let (active_base, position) = (last.listing.base_offset, last.listing.bytes);
                Row { durable: Durable { active_base, end: last.end_offset, position }, clean: false }
            })
        };
        if let (Some(meta), Some(row)) = (&look.meta, row) {
            self.checkpoint.insert(meta.id, row);
        }
        begins.then_some(end)
    }

    /// Has damaged segments written anew, and bad indexes made again; says how each segment is then to be
    /// taken. `begun` is where a new one begins.
    fn plan_segments(
        &mut self,
        below: &Path,
        log_dir: &Path,
        look: &Look,
        begun: Option<Offset>,
    ) -> Result<Vec<Segment>, Error> {
        let mut targets = Vec::with_capacity(look.segments.len());
        for (index, segment) in look.segments.iter().enumerate() {
            let next = look.segments.get(index + 1).map(|next| next.listing.base_offset);
            let target = Segment {
                base: segment.listing.base_offset,
                len: segment.listing.bytes,
                end: next.or(begun).unwrap_or(segment.end_offset),
                gaps: segment.gaps_allowed,
                epochs: segment.epochs,
                foreign: segment.foreign,
            };
            if segment.damaged || (next.is_none() && begun.is_some_and(|begun| begun > segment.end_offset)) {
                self.plan_rewrite(below, log_dir, segment, target)?;
            } else if segment.index_bad {
                let what = "made again from the data; times of append become those of the file".to_owned();
                let file = path(log_dir, target.base, INDEX);
                let action = Action::Index { dir: log_dir.to_owned(), look: target };
                self.push(Some(below), file, what, Vec::new(), action);
            }
            targets.push(target);
        }
        Ok(targets)
    }

    /// Before anything else is mended, it has to be settled which segments there are. Where nothing
    /// else is, the next open does it.
    fn plan_merges(&mut self, below: &Path, log_dir: &Path, look: &Look, first_step: usize) {
        let mended = self.steps.len() > first_step;
        for merge in look.merges.iter().filter(|merge| mended || merge.damaged) {
            let done = match &merge.replaced {
                Replaced { bases, .. } if bases.is_empty() => "taken back: the old segments stay",
                Replaced { whole: true, .. } => {
                    "finished: the old segments, which lie in the new one, are removed"
                }
                Replaced { .. } => {
                    "finished: the new segment is damaged, so the old ones are moved aside, as .log.replaced, \
                     and may hold what is gone from it"
                }
            };
            let what =
                if merge.damaged { format!("{done}; the record is moved aside") } else { done.to_owned() };
            let file = path(log_dir, merge.base, MERGE);
            let step = RepairStep { log: Some(below.to_owned()), file, what, gone: Vec::new() };
            let action = Action::Merge { dir: log_dir.to_owned(), look: merge.clone() };
            self.steps.insert(first_step, (step, action));
        }
    }

    /// What is known of producers follows from all that is in front of it, so it comes last.
    fn plan_states(&mut self, below: &Path, log_dir: &Path, look: &Look, segments: Vec<Segment>) {
        let touched = |segment: &&DataLook| segment.damaged || segment.index_bad;
        let wrong = |segment: &&DataLook| segment.state_bad || (segment.producers && touched(segment));
        let Some(first) = look.segments.iter().find(wrong) else { return };
        let what = "what is known of producers made again from the data, also of later segments".to_owned();
        let file = path(log_dir, first.listing.base_offset, STATE);
        let action = Action::States { dir: log_dir.to_owned(), segments };
        self.push(Some(below), file, what, Vec::new(), action);
    }

    /// Whether the newest segment was planned to be written anew in its place.
    fn rewritten_newest(&mut self, newest: Option<Offset>, log_dir: &Path) -> bool {
        let of_newest = |action: &Action| match action {
            Action::Rewrite { dir, look, .. } => dir == log_dir && Some(look.base) == newest,
            _ => false,
        };
        self.steps.iter().any(|(_, action)| of_newest(action))
    }

    fn plan_meta(&mut self, env: &Env, below: &Path, log_dir: &Path, look: &Look) {
        let first = look.segments.first().map(|first| first.listing.base_offset);
        let (mut meta, what) = match &look.meta {
            Some(meta) => (meta.clone(), "its start moved to where its records begin"),
            None => {
                let mut meta = LogMeta::new(env.new_uuid(), Bytes::new());
                meta.start_offset = first.unwrap_or_default();
                meta.gaps_below = look.segments.last().map_or(Offset::ZERO, |last| {
                    if last.gaps_allowed { last.end_offset } else { last.listing.base_offset }
                });
                let what = "made again, with a new identity; what the owner kept with the log is lost, and \
                            records below its start may be back";
                (meta, what)
            }
        };
        let start = meta.start_offset;
        let begins = first.unwrap_or_else(|| log_end(look)).max(start);
        if look.meta.is_some() && begins == start {
            return;
        }
        meta.start_offset = begins;
        let action = Action::Meta { dir: log_dir.to_owned(), meta };
        self.push(Some(below), log_dir.join(META), what.to_owned(), vec![start..begins], action);
    }

    fn plan_rewrite(
        &mut self,
        below: &Path,
        log_dir: &Path,
        segment: &DataLook,
        target: Segment,
    ) -> Result<(), Error> {
        let file = path(log_dir, target.base, DATA);
        if target.end.get() - target.base.get() > u64::from(u32::MAX) {
            let message = format!(
                "{} cannot be repaired: more than 4,294,967,295 offsets are gone; restore it from a backup",
                file.display()
            );
            return Err(Error::new(ErrorKind::Invalid, message).at_path(&file));
        }
        let mut gone: Vec<_> = segment.gaps.iter().map(|gap| gap.gone(target.end)).collect();
        gone.retain(|gone| !gone.is_empty());
        let reached = segment.gaps.last().map_or(segment.end_offset, |gap| {
            if gap.to.is_none() { gap.gone(target.end).end } else { segment.end_offset }
        });
        gone.push(reached.max(segment.end_offset)..target.end.max(segment.end_offset));
        let restored = segment.gaps.iter().filter(|gap| gap.restored.is_some()).count();
        let what =
            rewriting(restored, segment.gaps.len() - restored, gone.iter().any(|gone| !gone.is_empty()));
        let (dir, refuted) = (log_dir.to_owned(), segment.refuted.clone());
        let action = Action::Rewrite { dir, look: target, refuted };
        self.push(Some(below), file, what, gone, action);
        Ok(())
    }
}

/// What is done to a segment that is written anew.
fn rewriting(restored: usize, taken_out: usize, any_gone: bool) -> String {
    let mut what = "written anew".to_owned();
    if restored > 0 {
        what += &format!(", headers put right: {restored}");
    }
    if taken_out > 0 {
        what += &format!(", damaged places taken out: {taken_out}");
    }
    if restored + taken_out > 0 {
        what += " (what was there is saved beside it as .damaged-POSITION-CHECKSUM)";
    }
    if any_gone {
        what += "; empty batches take the offsets of what is gone";
    }
    what
}

/// Where the log is to go on: behind every offset that was ever promised.
fn log_end(look: &Look) -> Offset {
    let promised = look.durable.map_or(Offset::ZERO, |durable| durable.end);
    look.report.end_offset.max(promised).max(look.report.start_offset)
}
