//! The end of a run: nothing fails any more, loops come to their ends, and what is there is what everyone was told.

use std::collections::BTreeMap;
use std::time::Duration;

use logmill_broker::ListTransactions;
use logmill_record::Offset;

use crate::chain;
use crate::ledger::Contents;
use crate::passes::check_loop;
use crate::reading::{Reader, read_all};
use crate::run::{PLACES, Run, members};
use crate::steps;
use crate::topics;
use crate::world::{IN, PARTITIONS, SIDE};

/// So many steps are enough for everything that waits, when nothing fails any more.
const STEPS_TO_END: usize = 20_000;

/// By then every session, every revocation and every transaction is over.
const EVERYTHING_ENDS: Duration = Duration::from_secs(90);

impl Run {
    /// Everyone but the loops goes, and what they have left ends by itself. Then the loops come to their ends.
    pub(crate) fn finish(&mut self) {
        self.world.calm();
        for _ in 0..200 {
            self.world.step();
            self.collect();
        }
        if topics::deletion_is_unknown(&mut self.world) {
            self.end_round();
            self.world.calm();
        }
        let members = members(&self.committers, &self.steppers, &self.chains);
        self.operator.finish(&mut self.world, &members);
        self.wait_for_growth();
        self.lose_everyone();
        // Two of one instance would go on succeeding each other.
        self.steppers.truncate(PLACES.len() - 1);
        self.world.pass(EVERYTHING_ENDS);
        self.check_nothing_is_open();
        let ends = self.ends();
        for n in 0..STEPS_TO_END {
            self.steppers.iter_mut().for_each(|member| member.go_on(&mut self.world, true));
            self.chains.iter_mut().for_each(|member| member.go_on(&mut self.world, true));
            // Time passes by itself only when nobody asks for anything.
            self.world.pass(Duration::from_millis(3));
            self.steppers.iter_mut().for_each(|member| member.collect(&mut self.world));
            self.chains.iter_mut().for_each(|member| member.collect(&mut self.world));
            if n % 16 == 0 && [steps::GROUP, chain::GROUP].iter().all(|group| self.is_at(group, &ends)) {
                return;
            }
        }
        let describe = |group| self.world.wait(self.world.broker.describe_group(&self.world.context, group));
        let groups = [describe(steps::GROUP), describe(chain::GROUP)];
        panic!("nothing fails any more, and still a loop does not come to its end, {ends:?}: {groups:#?}");
    }

    /// The partitions that a group reads.
    fn partitions(&self, group: &str) -> u32 {
        if group == steps::GROUP && self.has_units { PARTITIONS } else { self.world.in_partitions }
    }

    /// Whether a group has committed all that there is.
    fn is_at(&self, group: &str, ends: &BTreeMap<u32, Offset>) -> bool {
        let described = self.world.broker.describe_group(&self.world.context, group);
        let offsets = self.world.wait(described).map(|group| group.offsets).unwrap_or_default();
        let committed = offsets.iter().map(|of| (of.partition, of.offset));
        let committed: BTreeMap<_, _> = committed.collect();
        let read = self.partitions(group);
        ends.range(..read).all(|(partition, end)| end.get() == 0 || committed.get(partition) == Some(end))
    }

    /// What a loop has made of all that there is.
    pub(crate) fn check_loop(&mut self, group: &str, contents: &Contents) {
        let (count, world) = (self.partitions(group), &mut self.world);
        let described = world.wait(world.broker.describe_group(&world.context, group));
        let offsets = described.map(|described| described.offsets).unwrap_or_default();
        let of = |partition| {
            let committed = offsets.iter().find(|of| of.partition == partition);
            let committed = committed.map(|of| (of.offset, &*of.metadata));
            (partition, world.ledger.standings.observed(group, (world.in_id, partition), committed))
        };
        let passes: BTreeMap<u32, usize> = (0..count).map(of).collect();
        check_loop(contents, group, &passes, &world.ledger.standings);
    }

    /// Nothing fails any more, and what was asked for is answered.
    fn wait_for_growth(&mut self) {
        while self.world.in_asked != self.world.in_partitions && !self.changes.is_empty() {
            self.world.pass(Duration::from_millis(100));
            self.changes.retain_mut(|change| !change.collect(&mut self.world));
        }
    }

    fn lose_everyone(&mut self) {
        let world = &mut self.world;
        for client in &mut self.clients {
            client.node_ended();
        }
        for committer in &mut self.committers {
            committer.cut_off();
            committer.member.reborn();
        }
        for stepper in &mut self.steppers {
            stepper.cut_off();
            stepper.member.lost();
        }
        for chain in &mut self.chains {
            chain.cut_off(world);
            chain.member.lost();
        }
        self.readers.iter_mut().for_each(Reader::cut_off);
        self.plain.clear();
        self.changes.clear();
    }

    fn check_nothing_is_open(&mut self) {
        let list = ListTransactions { ongoing_only: true, ..ListTransactions::default() };
        let open = self.world.wait(self.world.broker.list_transactions(&self.world.context, list)).unwrap();
        assert_eq!(open.transactions, [], "all that were left have timed out");
    }

    /// Where the input ends.
    fn ends(&mut self) -> BTreeMap<u32, Offset> {
        let world = &mut self.world;
        let described = world.wait(world.broker.describe_topic(&world.context, IN)).unwrap();
        described.partitions.iter().map(|partition| (partition.partition, partition.end_offset)).collect()
    }

    /// What was there is there, and nothing else.
    pub(crate) fn check_after_a_start(&mut self, before: &Contents) {
        self.node_ended();
        self.end_machine();
        self.world.calm();
        self.open_again();
        let mut after = read_all(&mut self.world);
        let mut before = before.clone();
        // A change of this topic may have been answered with "unknown", and the start tells.
        let side = |place: &(&str, u32)| place.0 == SIDE;
        if before.keys().any(side) != after.keys().any(side) {
            before.retain(|place, _| !side(place));
            after.retain(|place, _| !side(place));
        }
        // And of a growth: the new partition is empty.
        after
            .retain(|place, (_, records)| before.contains_key(place) || place.0 != IN || !records.is_empty());
        assert!(before == after, "a start changes nothing: {before:?} was there, and {after:?} is");
    }
}
