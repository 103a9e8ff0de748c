//! What else is done with open logs: reading, rolling, removing, compacting, closing one of them.

use std::time::Duration;

use logmill_log::{ErrorKind, LogSet, LogState, ReserveState};
use logmill_record::Offset;

use crate::machine::{DIR, RETAINED_BYTES, Run, options};
use crate::model::{End, Kind};

impl Run {
    fn of_kind(&self, kind: Kind) -> usize {
        self.slots.iter().position(|slot| slot.model.kind == kind).unwrap()
    }

    /// A reader looks at everything there is.
    pub(crate) fn look(&mut self, which: usize) {
        let Some(log) = self.log(which) else { return };
        let before = self.sim.fs.faults();
        if let Err(error) = self.slots[which].model.look(&log) {
            let dead = !matches!(log.stats().state, LogState::Open);
            assert!(dead || self.excuses(&error, before), "a healthy log reads: {error}");
        }
        self.count("looks");
    }

    pub(crate) fn roll(&mut self, which: usize) {
        let Some(log) = self.log(which) else { return };
        if log.roll().is_ok() {
            self.count("rolls");
        }
    }

    /// Moves the start of the first log to somewhere in the half that readers have seen.
    pub(crate) fn trim(&mut self) {
        let which = self.of_kind(Kind::Plain);
        let Some(log) = self.log(which) else { return };
        let to = log.start_offset().get().midpoint(log.end_offset().get());
        let (before, reserve) = (self.sim.fs.faults(), self.reserve());
        let model = &mut self.slots[which].model;
        model.most_start = model.most_start.max(to);
        match log.set_start_offset(Offset(to)) {
            Ok(start) => {
                model.start = model.start.max(start.get());
                self.count("trims");
                if reserve == ReserveState::Held && self.reserve() == ReserveState::Spent {
                    self.count("reserves spent");
                }
            }
            Err(error) if error.kind() == ErrorKind::Full => {
                let held = reserve == ReserveState::Held;
                assert!(!held || self.sim.fs.faults() > before, "there was a reserve for this: {error}");
            }
            Err(_) => {}
        }
    }

    /// Applies retention to the log that has some.
    pub(crate) fn retain(&mut self) {
        let which = self.of_kind(Kind::Retained);
        let Some(log) = self.log(which) else { return };
        let before = log.stats().stored_bytes;
        if let Ok(start) = log.apply_retention() {
            let model = &mut self.slots[which].model;
            model.start = model.start.max(start.get());
            let kept = log.stats().stored_bytes;
            assert!(kept == before || kept >= RETAINED_BYTES, "{kept} of {before} bytes are kept");
            self.count("retentions");
        }
    }

    pub(crate) fn compact(&mut self) {
        let Some(log) = self.log(self.of_kind(Kind::Compacted)) else { return };
        match log.compact() {
            Ok(done) if done.segments + done.merged == 0 => self.count("nothing to compact"),
            Ok(done) => {
                for (what, segments) in [("compactions", done.segments), ("merges", done.merged)] {
                    if segments > 0 {
                        self.count(what);
                    }
                }
            }
            Err(error) => {
                // After some faults it fails until the log is opened again.
                let dead = !matches!(log.stats().state, LogState::Open);
                assert!(dead || self.excuses(&error, self.faults_before), "compaction fails: {error}");
            }
        }
    }

    /// So long that logs write their indexes and let go of them.
    pub(crate) fn idle(&mut self) {
        self.sim.scheduler.run_for(Duration::from_secs(70));
        self.count("idle minutes");
    }

    /// Who opens what is open gets the same log, and nobody else the directory.
    pub(crate) fn open_twice(&mut self, which: usize) {
        let (before, options) = (self.sim.fs.faults(), options(self.slots[which].model.kind));
        let locked = LogSet::open(DIR, self.budgets.options(self.sim.env())).map(drop).unwrap_err();
        assert!(locked.kind() == ErrorKind::Locked || self.excuses(&locked, before), "{locked}");
        let (Some(log), Some(set)) = (self.log(which), &self.set) else { return self.open_late(which) };
        if let Ok(second) = set.open_log(&self.slots[which].name, options)
            && matches!(log.stats().state, LogState::Open)
        {
            assert_eq!(second.written_end(), log.written_end(), "one log, two handles");
        }
        self.count("second opens");
    }

    /// Opens a log that was left alone so far, or makes it.
    pub(crate) fn open_late(&mut self, which: usize) {
        let Some(set) = self.set.clone().filter(|_| !self.sim.fs.is_off()) else { return };
        let (before, is_created) = (self.sim.fs.faults(), self.slots[which].model.is_created);
        if is_created {
            self.reopen(which);
        } else {
            match self.open_or_create(&set, which) {
                Ok(_) if self.sim.fs.is_off() => {}
                Ok(log) => {
                    self.sim.fs.clear_rules();
                    let slot = &mut self.slots[which];
                    slot.model.recovered(&log, &slot.name, End::Reopen);
                    slot.log = Some(log);
                }
                Err(error) => assert!(self.excuses(&error, before), "a log is made: {error}"),
            }
        }
        if self.slots[which].log.is_some() {
            self.count(if is_created { "opened late" } else { "created late" });
        }
    }

    pub(crate) fn close_one(&mut self, which: usize) {
        let Some(log) = self.log(which) else { return };
        let _ = log.close();
        self.count("closes");
        self.reopen(which);
    }

    /// Opens a log that was closed or poisoned again, in the same process.
    pub(crate) fn reopen(&mut self, which: usize) {
        let Some(set) = self.set.clone().filter(|_| !self.sim.fs.is_off()) else { return };
        self.collect();
        let (before, slot) = (self.sim.fs.faults(), &self.slots[which]);
        match set.open_log(&slot.name, options(slot.model.kind)) {
            Ok(_) if self.sim.fs.is_off() => {}
            Ok(log) if matches!(log.stats().state, LogState::ReadOnly(_)) => {
                // A fault kept a torn tail from being saved: tried again later.
                assert!(self.sim.fs.faults() > before || self.is_tight(), "{:?}", log.stats().state);
                let _ = log.close();
                self.count("read-only, then opened again");
            }
            Ok(log) => {
                // What follows is looked at, and no fault is to come between.
                self.sim.fs.clear_rules();
                self.writers_of_reopened(which, End::Reopen);
                let slot = &mut self.slots[which];
                slot.model.recovered(&log, &slot.name, End::Reopen);
                slot.log = Some(log);
                self.count("reopened");
            }
            Err(error) => {
                assert!(self.excuses(&error, before), "only a fault keeps a log shut: {error}");
            }
        }
    }
}
