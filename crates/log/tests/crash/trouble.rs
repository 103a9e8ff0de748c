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
        match self.below(22) {
            5 => {
                self.sim.fs.drop_caches();
                self.count("dropped caches");
            }
            18 => self.set_the_clock(),
            19 => self.fill_disk(),
            20 | 21 => self.free_disk(),
            nth => {
                let (what, rules) = self.calls_that_fail(nth, which);
                rules.into_iter().for_each(|rule| self.sim.fs.inject(rule));
                self.count(what);
            }
        }
    }

    /// The `nth` way in which calls fail from now on; one of them is of the log `which` alone.
    fn calls_that_fail(&self, nth: u64, which: usize) -> (&'static str, Vec<Rule>) {
        let broken = |op| Rule::new(Fault::Io).on(op).nth(1 + self.below(3));
        let small = |path: &str| {
            let op = [Op::Write, Op::Create, Op::SyncData, Op::Rename][self.index(4)];
            vec![Rule::new(Fault::Io).on(op).path(path)]
        };
        let io = |op| Rule::new(Fault::Io).on(op);
        let full = || Rule::new(Fault::NoSpace).on(Op::Write);
        let short = |len| Rule::new(Fault::Short(len)).on(Op::Write).path("*.log");
        match nth {
            0 => ("failed syncs", vec![io(Op::SyncData).path("*.log")]),
            1 => ("failed directory syncs", vec![io(Op::SyncDir).path(format!("*log-{which}"))]),
            2 => ("full disks", vec![full().on(Op::Create).path("*/log-*")]),
            3 => ("short writes", vec![short(100)]),
            4 => ("writes cut off by a full disk", vec![short(150), full().path("*.log")]),
            6 => ("broken writes", vec![broken(Op::Write).path("*.log")]),
            7 => ("broken reads", vec![broken(Op::Read).on(Op::Map).on(Op::Populate).path("*/log-*")]),
            8 => ("broken renames", vec![broken(Op::Rename)]),
            9 => ("broken removals", vec![broken(Op::RemoveFile)]),
            10 => ("broken undos", vec![io(Op::SetLen).path("*.log"), full().path("*.log")]),
            11 => ("broken opens", vec![broken(Op::Open).on(Op::Create).on(Op::Status)]),
            12 => ("broken checkpoints", small("*/checkpoint*")),
            13 => ("broken metas", small("*/meta*")),
            14 => ("broken sets", small("/data/set*")),
            15 => ("broken indexes", small("*.index*")),
            16 => ("broken states", small("*.state*")),
            _ => {
                let stall = Fault::Stall(Duration::from_millis(self.below(20_000)));
                ("stalls", vec![Rule::new(stall).on(Op::SyncData).on(Op::Write).on(Op::SyncDir)])
            }
        }
    }

    /// The wall clock jumps by up to two hours.
    fn set_the_clock(&mut self) {
        let by = self.below(7_200_000).cast_signed();
        let (by, what) = if self.below(2) == 0 { (by, "jumps forward") } else { (-by, "jumps back") };
        self.sim.clock.jump(by);
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
