//! What goes wrong while the broker runs.

use std::time::Duration;

use logmill_log::sim::{Fault, Op, Rule};

use crate::world::World;

/// Whose files fail: any partition's, or the node's own.
const FILES: &[&str] =
    &["*/topics/*", "*/topics/*", "*/internal/offsets/*", "*/internal/transactions/*", "*/internal/*", "*"];

impl World {
    pub(crate) fn trouble(&mut self) {
        let files = FILES[self.index(FILES.len())];
        let broken = |op| Rule::new(Fault::Io).on(op).path(files).nth(1 + self.below(3));
        let (what, rule) = match self.below(16) {
            0..3 => ("failing sync", broken(Op::SyncData)),
            3 => ("syncs that go on failing", broken(Op::SyncData).times(1 + self.below(6))),
            4 => ("failing write", broken(Op::Write)),
            5 => ("no space", Rule::new(Fault::NoSpace).on(Op::Write).on(Op::Create).path(files)),
            6 => ("no space for long", Rule::new(Fault::NoSpace).on(Op::Write).path(files).times(20)),
            7 => ("short write", Rule::new(Fault::Short(60)).on(Op::Write).path(files)),
            8 => ("failing read", broken(Op::Read).on(Op::Map)),
            9 => ("failing roll", broken(Op::Create).on(Op::SyncDir).on(Op::Rename)),
            10 | 11 => {
                let time = Duration::from_millis(self.below(3_000));
                let stall = Rule::new(Fault::Stall(time)).on(Op::SyncData).on(Op::Write).on(Op::Read);
                ("stall", stall.path(files).times(1 + self.below(5)))
            }
            12 => {
                self.take_space();
                return self.count("fault: little space");
            }
            13 => {
                let by = self.below(7_200_000).cast_signed() - 3_600_000;
                self.sim.clock.jump(by);
                return self.count("fault: clock set");
            }
            _ => return self.sim.fs.clear_rules(),
        };
        self.count(format!("fault: {what}"));
        self.line(format!("fault: {what} of {files}"));
        self.sim.fs.inject(rule);
    }
}
