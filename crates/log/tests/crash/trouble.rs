//! What goes wrong while a program runs: calls that fail, a disk that is full or hangs, a clock that
//! is set.

use std::path::Path;
use std::time::Duration;

use logmill_log::env::{Fs as _, Space};
use logmill_log::sim::{Fault, Op, Rule};
use logmill_log::{LogState, ReserveState};

use crate::machine::Run;

/// Everything is refused: the disk has no room.
const LEAST_ROOM: u64 = 20_000;

impl Run {
    pub(crate) fn trouble(&mut self, which: usize) {
        let broken = |op| Rule::new(Fault::Io).on(op).nth(1 + self.below(3));
        let small = |path: &str| {
            let op = [Op::Write, Op::Create, Op::SyncData, Op::Rename][self.index(4)];
            Rule::new(Fault::Io).on(op).path(path)
        };
        let (what, rule) = match self.below(22) {
            0 => ("failed syncs", Rule::new(Fault::Io).on(Op::SyncData).path("*.log")),
            1 => {
                ("failed directory syncs", Rule::new(Fault::Io).on(Op::SyncDir).path(format!("*log-{which}")))
            }
            2 => ("full disks", Rule::new(Fault::NoSpace).on(Op::Write).on(Op::Create).path("*/log-*")),
            3 => ("short writes", Rule::new(Fault::Short(100)).on(Op::Write).path("*.log")),
            4 => {
                self.sim.fs.inject(Rule::new(Fault::Short(150)).on(Op::Write).path("*.log"));
                ("writes cut off by a full disk", Rule::new(Fault::NoSpace).on(Op::Write).path("*.log"))
            }
            5 => {
                self.sim.fs.drop_caches();
                return self.count("dropped caches");
            }
            6 => ("broken writes", broken(Op::Write).path("*.log")),
            7 => ("broken reads", broken(Op::Read).on(Op::Map).on(Op::Populate).path("*/log-*")),
            8 => ("broken renames", broken(Op::Rename)),
            9 => ("broken removals", broken(Op::RemoveFile)),
            10 => {
                self.sim.fs.inject(Rule::new(Fault::Io).on(Op::SetLen).path("*.log"));
                ("broken undos", Rule::new(Fault::NoSpace).on(Op::Write).path("*.log"))
            }
            11 => ("broken opens", broken(Op::Open).on(Op::Create).on(Op::Status)),
            12 => ("broken checkpoints", small("*/checkpoint*")),
            13 => ("broken metas", small("*/meta*")),
            14 => ("broken sets", small("/data/set*")),
            15 => ("broken indexes", small("*.index*")),
            16 => ("broken states", small("*.state*")),
            17 => {
                let time = Duration::from_millis(self.below(20_000));
                ("stalls", Rule::new(Fault::Stall(time)).on(Op::SyncData).on(Op::Write).on(Op::SyncDir))
            }
            18 => {
                // Up to two hours.
                let by = self.below(7_200_000).cast_signed();
                let (by, what) = if self.below(2) == 0 { (by, "jumps forward") } else { (-by, "jumps back") };
                self.sim.clock.jump(by);
                return self.count(what);
            }
            19 => return self.fill_disk(),
            _ => return self.free_disk(),
        };
        self.sim.fs.inject(rule);
        self.count(what);
    }

    fn space(&self) -> Space {
        // Asked of the disk, and not of the machine, which may be off.
        self.sim.fs.space(Path::new("/")).unwrap_or(Space { available_bytes: 0, total_bytes: 0 })
    }

    /// Whether the disk is full, or soon will be.
    pub(crate) fn is_tight(&self) -> bool {
        self.space().available_bytes < LEAST_ROOM
    }

    pub(crate) fn reserve(&self) -> ReserveState {
        self.set.as_ref().map_or(ReserveState::Off, |set| set.stats().reserve)
    }

    /// Others take the space of the disk, all but a little.
    pub(crate) fn fill_disk(&mut self) {
        let Space { available_bytes, total_bytes } = self.space();
        let left = self.below(6_000).min(available_bytes);
        self.sim.fs.set_capacity_bytes(total_bytes - available_bytes + left);
        self.count("disks filled");
    }

    /// They give it back, and within seconds everything goes on.
    fn free_disk(&mut self) {
        if !self.is_tight() || self.sim.fs.is_off() {
            return;
        }
        let before = self.sim.fs.faults();
        self.give_space();
        self.sim.scheduler.run_for(Duration::from_secs(3));
        let Some(set) = self.set.clone() else { return };
        let is_open = |log: &logmill_log::Log| matches!(log.stats().state, LogState::Open);
        let is_looked_after = self.slots.iter().filter_map(|slot| slot.log.as_ref()).any(is_open);
        if is_looked_after && self.sim.fs.faults() == before && !self.sim.fs.is_off() {
            let stats = set.stats();
            assert!(!stats.is_low_on_space, "there is space again");
            assert!(matches!(stats.reserve, ReserveState::Off | ReserveState::Held), "{:?}", stats.reserve);
        }
        self.count("disks freed");
    }

    pub(crate) fn give_space(&self) {
        self.sim.fs.set_capacity_bytes(1 << 40);
    }
}
