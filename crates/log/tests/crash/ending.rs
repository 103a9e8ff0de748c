//! How the program ends, and what the next one finds.

use logmill_log::env::Env;
use logmill_log::inspect::{Report, Severity, verify};
use logmill_log::{Error, ErrorKind, Log, LogSet, LogState};

use crate::machine::{DIR, Run, options};
use crate::model::End;

/// What the owner keeps with each log.
const OWNER: &[u8] = b"the owner's bytes";

impl Run {
    /// The first program: makes the set and its logs, all but one perhaps. False if the machine went off meanwhile.
    pub(crate) fn begin(&mut self, left: Option<usize>) -> bool {
        let begun = self.open_all(self.sim.env(), left);
        if let Err(error) = &begun {
            assert!(self.sim.fs.is_off(), "a new set is made: {error}");
            self.count("ends in creation");
        }
        begun.is_ok()
    }

    /// Closes the set; says how the program has ended by that.
    pub(crate) fn close_set(&mut self) -> End {
        let Some(set) = self.set.clone() else { return End::Kill };
        for slot in &mut self.slots {
            let state = slot.log.as_ref().map(|log| log.stats().state);
            slot.model.is_spoken_for = matches!(state, Some(LogState::Open)) || !slot.model.is_begun;
        }
        match set.close() {
            Ok(()) => {
                self.collect();
                assert!(self.receipts.is_empty(), "what is closed is on disk");
                self.count("clean closes");
                End::Closed
            }
            Err(error) => {
                assert!(self.excuses(&error, self.faults_before), "a set can be closed: {error}");
                self.count(if self.sim.fs.is_off() { "ends in a close" } else { "failed closes" });
                End::Kill
            }
        }
    }

    /// Ends the program, by power, by a kill or after a close, opens everything again, and holds
    /// it against the model.
    pub(crate) fn end(&mut self, how: End, hard: bool) {
        self.collect();
        self.receipts.clear();
        self.writers.iter_mut().for_each(|writer| writer.waiting = None);
        self.sim.fs.clear_rules();
        self.give_space();
        let struck = self.is_struck();
        for slot in &mut self.slots {
            slot.log = None;
            slot.model.failed |= struck;
        }
        self.is_sidecar_lost |= struck;
        let power = how == End::Power || (how == End::Closed && hard && self.below(2) == 0);
        if how != End::Closed {
            let _dead = self.sim.kill();
        }
        let mut how = how;
        if power || self.sim.fs.is_off() {
            let _dead = self.sim.crash();
            // What was closed is on disk.
            how = if how == End::Closed { how } else { End::Power };
            self.note_close(how, End::Power);
        } else {
            self.note_close(how, End::Kill);
        }
        if hard {
            match self.below(12) {
                0..4 => self.damage_a_sidecar(),
                4 | 5 => self.rot_and_repair(),
                6 => self.verify_before_open(),
                _ => {}
            }
            self.fail_in_recovery();
        }
        self.open_again(hard);
        if hard && self.below(8) == 0 {
            self.close_and_verify();
        }
    }

    /// A clean close speaks for the logs that were open then; for others it is what came with it.
    fn note_close(&mut self, how: End, others: End) {
        for slot in &mut self.slots {
            let how = if slot.model.is_spoken_for { how } else { how.max(others) };
            slot.model.ended = slot.model.ended.max(Some(how));
        }
    }

    pub(crate) fn note_end(&mut self, how: End) {
        for slot in &mut self.slots {
            slot.model.ended = slot.model.ended.max(Some(how));
        }
    }

    /// The next program opens what there is, though that may take some attempts.
    fn open_again(&mut self, hard: bool) {
        let left = (hard && self.below(4) == 0).then(|| self.index(self.slots.len()));
        for attempt in 0.. {
            let before = self.sim.fs.faults();
            let opened = self.open_all(self.sim.env(), left);
            assert!(attempt < 3, "recovery goes on failing: {opened:?}");
            // What recovery can do without does not fail it, not even without power.
            if self.sim.fs.is_off() {
                self.count("ends in recovery");
                let _dead = self.sim.crash();
                self.note_end(End::Power);
            } else {
                let Err(error) = opened else { break };
                assert!(self.excuses(&error, before), "recovery failed: {error}");
                self.count("faults in recovery");
                self.sim.fs.clear_rules();
                self.give_space();
                let _dead = self.sim.kill();
                self.note_end(End::Kill);
            }
        }
        self.sim.fs.clear_rules();
        self.give_space();
        self.faults_before = self.sim.fs.faults();
        for slot in &mut self.slots {
            if let Some(log) = &slot.log {
                slot.model.recovered(log, &slot.name, End::Closed);
            }
        }
        if self.slots.iter().any(|slot| slot.log.is_none()) {
            self.count("logs left alone");
        }
    }

    /// Opens all but one. A log that a fault has made read-only is opened once more in the same
    /// process.
    fn open_all(&mut self, env: Env, left: Option<usize>) -> Result<(), Error> {
        let set = LogSet::open(DIR, self.budgets.options(env))?;
        self.set = Some(set.clone());
        for which in 0..self.slots.len() {
            self.slots[which].log = None;
            if left == Some(which) {
                continue;
            }
            let mut log = self.open_or_create(&set, which)?;
            if let LogState::ReadOnly(error) = log.stats().state {
                assert_eq!(error.kind(), ErrorKind::ReadOnly, "only a fault makes it so: {error}");
                self.sim.fs.clear_rules();
                self.give_space();
                let _ = log.close();
                log = self.open_or_create(&set, which)?;
                self.count("read-only, then opened again");
            }
            self.slots[which].log = Some(log);
        }
        Ok(())
    }

    pub(crate) fn open_or_create(&mut self, set: &LogSet, which: usize) -> Result<Log, Error> {
        let slot = &mut self.slots[which];
        let options = options(slot.model.kind);
        if set.holds_log(&slot.name)? {
            assert_eq!(set.read_meta(&slot.name)?.owner, OWNER, "{}", slot.name);
            let log = set.open_log(&slot.name, options)?;
            slot.model.is_created = true;
            return Ok(log);
        }
        assert!(!slot.model.is_created, "{} was created and is gone", slot.name);
        slot.model.is_begun = true;
        let log = set.create(&slot.name, OWNER, options)?;
        slot.model.is_created = true;
        Ok(log)
    }

    /// What recovery has left is whole, and so is what a close leaves.
    fn close_and_verify(&mut self) {
        let how = self.close_set();
        if how == End::Closed
            && let Some(report) = self.verified()
        {
            // Rows and what is known of producers are made again when they are needed.
            let most = if self.is_sidecar_lost { Severity::Sidecar } else { Severity::Note };
            let wrong = report.findings.iter().find(|finding| finding.severity > most);
            assert!(report.clean && wrong.is_none(), "{wrong:?}");
            self.count("verified after a close");
        }
        self.end(how, false);
    }

    /// A crash takes no data that was promised. The name of an index can go while that of the next
    /// segment stays: both are synced together.
    fn verify_before_open(&mut self) {
        if self.slots.iter().any(|slot| !slot.model.is_created) {
            return;
        }
        let Some(report) = self.verified() else { return };
        let worse: Vec<_> =
            report.findings.iter().filter(|finding| finding.severity > Severity::Sidecar).collect();
        assert!(worse.is_empty(), "{worse:?}");
        self.count("verified after a crash");
    }

    /// What an inspection reports, if there is power for it.
    fn verified(&self) -> Option<Report> {
        let report = verify(&self.sim.env(), DIR, &mut |_| ());
        assert!(report.is_ok() || self.sim.fs.is_off(), "{report:?}");
        report.ok()
    }
}
