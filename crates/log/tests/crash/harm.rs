//! What happens to the files while no program has them open, and to the program that opens them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use logmill_log::inspect::{LogListing, SegmentListing, list, plan_repair, verify};
use logmill_log::sim::{Fault, Op, Rule};
use logmill_record::{BatchHeader, HEADER_LEN, LEADER_EPOCH, Offset};

use crate::machine::{DIR, Run};
use crate::model::{End, Kind};

const BASE_OFFSET_LEN: u64 = 8;

impl Run {
    /// What is rebuilt from the data may be missing or wrong.
    pub(crate) fn damage_a_sidecar(&mut self) {
        let is_sidecar = |path: &PathBuf| path.extension().is_some_and(|e| e == "index" || e == "state");
        let sidecars: Vec<PathBuf> = self.sim.fs.files().into_iter().filter(is_sidecar).collect();
        if sidecars.is_empty() {
            return;
        }
        self.is_sidecar_lost = true;
        let path = &sidecars[self.index(sidecars.len())];
        let len = self.sim.fs.read_file(path).unwrap().len() as u64;
        match self.below(3) {
            0 => {
                // Refused if this is where the power goes.
                let _ = self.sim.env().fs.remove_file(path);
                self.count("sidecars deleted");
            }
            1 => {
                self.sim.fs.truncate(path, self.below(len.max(1))).unwrap();
                self.count("sidecars cut");
            }
            _ => {
                let (at, bit) = (self.below(len.max(1)), u8::try_from(self.below(8)).unwrap());
                if len > 0 {
                    self.sim.fs.flip(path, at, bit).unwrap();
                }
                self.count("sidecars flipped");
            }
        }
    }

    /// Recovery may meet the end of the power again, a full disk, or a broken one.
    pub(crate) fn fail_in_recovery(&mut self) {
        let nth = 1 + self.below(40);
        match self.below(11) {
            0 | 1 => self.sim.fs.power_off_at(nth),
            2 => self.sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Write).on(Op::Create).nth(nth).times(2)),
            3 => self.sim.fs.inject(Rule::new(Fault::Io).on(Op::Read).on(Op::Status).nth(nth)),
            4 => self.sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).on(Op::SyncDir).nth(nth)),
            5 => self.sim.fs.inject(Rule::new(Fault::Io).on(Op::Write).on(Op::SetLen).nth(nth)),
            6 => self.sim.fs.inject(Rule::new(Fault::Io).on(Op::Rename).on(Op::RemoveFile).nth(1 + nth / 8)),
            7 => self.fill_disk(),
            _ => {}
        }
    }

    /// A bit of what was promised turns over, and the directory is repaired, at last.
    pub(crate) fn rot_and_repair(&mut self) {
        let Some(rot) = self.rot() else { return };
        self.count("data flipped");
        for attempt in 0..4 {
            if attempt < 3 && self.below(2) == 0 {
                self.sim.fs.power_off_at(1 + self.below(12));
            }
            let mut named = Vec::new();
            let repaired = plan_repair(&self.sim.env(), DIR, &mut |_| ()).and_then(|plan| {
                assert!(plan.report().is_damaged(), "byte {} of {}", rot.position, rot.path.display());
                named.extend(plan.steps().iter().filter(|step| !step.gone.is_empty()).cloned());
                plan.execute()
            });
            let slot = &mut self.slots[rot.which];
            for step in &named {
                assert_eq!(step.log.as_deref(), Some(Path::new(&slot.name)), "{step}");
                for gone in &step.gone {
                    let is_within = gone.start >= rot.within.start && gone.end <= rot.within.end;
                    assert!(is_within, "{step}: what is gone is the damaged batch, {:?}", rot.within);
                    slot.model.gone.extend(gone.start.get()..gone.end.get());
                }
            }
            let is_done = repaired.is_ok();
            if !is_done {
                let error = repaired.unwrap_err();
                assert!(self.sim.fs.is_off(), "a repair fails: {error}");
                self.count("ends in a repair");
            }
            // What has no power any more has lost what was not synced.
            let _dead = self.sim.crash();
            self.note_end(End::Power);
            if is_done {
                self.count(if named.is_empty() { "repaired without a loss" } else { "repaired" });
                return;
            }
            // What was done until then may be all there was to do.
            if !self.is_damaged() {
                return self.count("repaired by what was done before the power went");
            }
        }
        unreachable!("nothing cuts the last attempt off");
    }

    fn is_damaged(&self) -> bool {
        verify(&self.sim.env(), DIR, &mut |_| ()).unwrap().is_damaged()
    }

    /// Turns over a bit of some log, where the checkpoint says that it is on disk.
    fn rot(&mut self) -> Option<Rot> {
        let listing = list(&self.sim.env(), DIR).ok()?;
        let which = self.index(self.slots.len());
        let slot = &self.slots[which];
        // What a repair makes of producers is another test's.
        let may_rot = slot.model.is_created && slot.model.kind != Kind::Transactional;
        let log = listing.logs.iter().filter(|_| may_rot).find(|log| log.path == Path::new(&slot.name))?;
        let segments: Vec<_> = promised(log).into_iter().filter(|(_, len)| *len > 0).collect();
        let (base, len) = *segments.get(self.index(segments.len().max(1)))?;
        let path = Path::new(DIR).join(&slot.name).join(format!("{base:020}.log"));
        let mut position = self.below(len);
        let gaps = self.slots[which].model.kind == Kind::Compacted;
        let (at, mut within) = batch_at(&self.sim.fs.read_file(&path).unwrap(), position, Offset(base), gaps);
        // What follows was never promised, may be torn, and can be taken out with it.
        if log.checkpoint.is_some_and(|row| within.end == row.end_offset) {
            within.end = Offset::MAX;
        }
        // A batch's epoch lies before its checksum: a repair may have to take it as it is.
        if LEADER_EPOCH.contains(&usize::try_from(position - at).unwrap()) {
            position = at + LEADER_EPOCH.end as u64;
        }
        self.sim.fs.flip(&path, position, u8::try_from(self.below(8)).unwrap()).unwrap();
        Some(Rot { which, path, position, within })
    }
}

/// What was turned over.
struct Rot {
    which: usize,
    path: PathBuf,
    position: u64,
    /// From the batch before it to the one behind: its offsets, and those that compaction took.
    within: Range<Offset>,
}

/// Of each segment that the log still needs its base, and how much of it was promised.
fn promised(log: &LogListing) -> Vec<(u64, u64)> {
    let start = log.meta.as_ref().map_or(Offset::ZERO, |meta| meta.start_offset);
    let gone = log.segments.iter().skip(1).filter(|next| next.base_offset <= start).count();
    let of_segment = |segment: &SegmentListing| {
        let base = segment.base_offset;
        let len = match log.checkpoint {
            Some(row) if row.active_base > base => segment.bytes,
            Some(row) if row.active_base == base => row.position.min(segment.bytes),
            _ => 0,
        };
        (base.get(), len)
    };
    log.segments[gone..].iter().map(of_segment).collect()
}

/// Where the batch begins that a position lies in, and the offsets between the one before it and
/// the one behind. Where there are gaps, a base offset that is wrong costs a neighbour too: nothing
/// tells which of the two is right.
fn batch_at(bytes: &[u8], position: u64, base: Offset, gaps: bool) -> (u64, Range<Offset>) {
    let mut batches = Vec::new();
    let mut at = 0;
    // Of a torn write that may follow nothing is right.
    while let Some(header) = bytes.get(at..at + HEADER_LEN).and_then(|head| BatchHeader::parse(head).ok()) {
        batches.push((at as u64, header.base_offset, header.next_offset()));
        at += header.total_len;
    }
    let hit = batches.partition_point(|(at, ..)| *at <= position) - 1;
    let at = batches[hit].0;
    let reach = usize::from(gaps && position - at < BASE_OFFSET_LEN);
    let (first, last) = (hit.saturating_sub(reach), (hit + reach).min(batches.len() - 1));
    let from = first.checked_sub(1).map_or(base, |before| batches[before].2);
    let to = batches.get(last + 1).map_or(Offset(0), |behind| behind.1).max(batches[last].2);
    (at, from..to)
}
