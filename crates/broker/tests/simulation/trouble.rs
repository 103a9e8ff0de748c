//! What goes wrong while the broker runs: calls that fail, a disk that is full or hangs, a clock that is set.

use std::time::Duration;

use logmill_log::sim::{Fault, Op, Rule};

use crate::world::World;

impl World {
    pub(crate) fn trouble(&mut self) {
        let place = self.place();
        let dir = self.dir(&place);
        let data = format!("{dir}/*.log");
        let broken = |op| Rule::new(Fault::Io).on(op).nth(1 + self.below(3));
        let (what, rule) = match self.below(20) {
            0..3 => ("failing sync", broken(Op::SyncData).path(data)),
            3 => ("syncs that go on failing", Rule::new(Fault::Io).on(Op::SyncData).path(data).always()),
            4 => ("failing write", broken(Op::Write).path(data)),
            5 => {
                self.sim.fs.inject(Rule::new(Fault::Io).on(Op::SetLen).path(data.clone()));
                ("failing undo", Rule::new(Fault::NoSpace).on(Op::Write).path(data))
            }
            6 => {
                ("full disk", Rule::new(Fault::NoSpace).on(Op::Write).on(Op::Create).path(format!("{dir}/*")))
            }
            7 => ("full disk for long", Rule::new(Fault::NoSpace).on(Op::Write).path(data).times(20)),
            8 => {
                self.sim.fs.inject(Rule::new(Fault::Short(100)).on(Op::Write).path(data.clone()));
                ("short write", Rule::new(Fault::NoSpace).on(Op::Write).path(data))
            }
            9 => ("failing read", broken(Op::Read).on(Op::Map).on(Op::Populate).path(format!("{dir}/*"))),
            10 => ("failing roll", broken(Op::Create).on(Op::SyncDir).on(Op::Rename).path(format!("{dir}*"))),
            11 => ("failing open", broken(Op::Open).on(Op::Status).on(Op::List).path(format!("{dir}*"))),
            12 => ("failing checkpoint", broken(Op::Write).on(Op::Rename).path("/data/checkpoint*")),
            13 => ("failing metadata", broken(Op::SyncData).on(Op::Write).path("/data/internal/*")),
            14 => {
                let time = Duration::from_millis(self.below(3_000));
                let stall = Rule::new(Fault::Stall(time)).on(Op::SyncData).on(Op::Write).on(Op::Read);
                self.sim.fs.inject(stall.path(format!("{dir}/*")).times(1 + self.below(5)));
                return self.history.fault("stall");
            }
            15 => {
                self.sim.fs.drop_caches();
                return self.history.fault("dropped caches");
            }
            16 => {
                let by = self.below(7_200_000).cast_signed() - 3_600_000;
                self.sim.clock.jump(by);
                return self.history.fault("clock set");
            }
            17 => return self.take_space(),
            _ => {
                self.give_space_back();
                return self.sim.fs.clear_rules();
            }
        };
        self.history.fault(what);
        self.suspects.insert(place);
        self.sim.fs.inject(rule);
    }

    /// Nothing fails any more, and the power stays on.
    pub(crate) fn calm(&mut self) {
        self.sim.fs.power_off_at(u64::MAX);
        self.sim.fs.clear_rules();
        self.give_space_back();
        self.tell_of_faults();
    }
}
