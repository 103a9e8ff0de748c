//! One seed: rounds of work, each ended by a power cut, a kill or a clean close.

use std::collections::BTreeMap;
use std::time::Duration;

use logmill_broker::ListTransactions;
use logmill_record::Offset;

use crate::chain::{self, Chain};
use crate::client::Client;
use crate::commits::Committer;
use crate::ledger::Contents;
use crate::reading::{Reader, read_all};
use crate::steps::{self, Stepper};
use crate::topics::{self, Change, Plain};
use crate::world::{IN, SIDE, World};

/// So many steps are enough for everything that waits, when nothing fails any more.
const STEPS_TO_END: usize = 20_000;

/// By then every session, every revocation and every transaction is over.
const EVERYTHING_ENDS: Duration = Duration::from_secs(90);

/// Once cut off a few times, once met by what is broken, and then nothing is.
const TRIES_TO_OPEN: usize = 8;

pub(crate) struct Run {
    pub(crate) world: World,
    clients: Vec<Client>,
    committers: Vec<Committer>,
    steppers: Vec<Stepper>,
    chains: Vec<Chain>,
    readers: Vec<Reader>,
    plain: Vec<Plain>,
    changes: Vec<Change>,
}

impl Run {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        topics::create(&mut world);
        let clients = ["a", "a", "b", "c"].iter().enumerate().map(|(number, id)| Client::new(id, number));
        let clients = clients.collect();
        let has_units = world.one_in(2);
        let committers =
            [("plain", false), ("plain", false), ("plain", false), ("units", true), ("units", true)];
        let committers = committers.map(|(group, units)| Committer::new(group, units)).into();
        let steppers = (0..3).map(|_| Stepper::new(has_units)).collect();
        let chains = (0..2).map(Chain::new).collect();
        let readers = (0..4).map(|_| Reader::new(&world)).collect();
        let (plain, changes) = (Vec::new(), Vec::new());
        Self { world, clients, committers, steppers, chains, readers, plain, changes }
    }

    pub(crate) fn work(&mut self) {
        for _ in 0..1 + self.world.below(3) {
            self.round();
            self.end_round();
        }
        self.round();
        if self.world.sim.fs.is_off() || self.world.one_in(2) {
            self.end_round();
        } else {
            self.world.calm();
        }
        self.finish();
        let contents = read_all(&mut self.world);
        self.world.ledger.check(&contents, &[steps::GROUP, chain::GROUP]);
        self.check_after_a_start(&contents);
    }

    fn round(&mut self) {
        let within = 1 + self.world.below(300);
        match self.world.below(4) {
            0 => self.world.sim.fs.power_off_at(within),
            1 => self.world.sim.fs.die_at(within),
            _ => {}
        }
        // Answers may be long under way, while more is sent.
        let delay = 1 + self.world.below(6);
        for _ in 0..150 + self.world.below(500) {
            self.step();
            if self.world.sim.fs.is_off() {
                return;
            }
            if self.world.one_in(delay) {
                self.collect();
            }
        }
    }

    /// One thing that somebody does.
    fn step(&mut self) {
        let world = &mut self.world;
        match world.below(100) {
            0..14 => {
                let who = world.index(self.clients.len());
                self.clients[who].go_on(world);
            }
            14..22 => {
                let who = world.index(self.committers.len());
                self.committers[who].go_on(world);
            }
            22..32 => {
                let who = world.index(self.steppers.len());
                self.steppers[who].go_on(world, false);
            }
            32..44 => {
                let who = world.index(self.chains.len());
                self.chains[who].go_on(world, false);
            }
            44..48 => self.plain.push(Plain::send(world)),
            48..53 => {
                let who = world.index(self.readers.len());
                self.readers[who].go_on(world);
            }
            53 => world.trouble(),
            54 if world.one_in(3) => self.changes.push(Change::begin(world)),
            55 => self.lose_answers(),
            56 if world.one_in(2) => world.pass(Duration::from_millis(800)),
            57 if world.one_in(12) => world.pass(Duration::from_secs(7)),
            _ => world.step(),
        }
    }

    /// The connection of somebody breaks.
    fn lose_answers(&mut self) {
        let world = &mut self.world;
        world.count("answers lost");
        match world.below(4) {
            0 => {
                let who = world.index(self.clients.len());
                self.clients[who].cut_off(world);
            }
            1 => {
                let who = world.index(self.committers.len());
                self.committers[who].cut_off();
            }
            2 => {
                let who = world.index(self.steppers.len());
                self.steppers[who].cut_off();
            }
            _ => {
                let who = world.index(self.chains.len());
                self.chains[who].cut_off(world);
            }
        }
    }

    /// Everyone takes what has come.
    fn collect(&mut self) {
        let world = &mut self.world;
        self.clients.iter_mut().for_each(|client| client.collect(world));
        self.committers.iter_mut().for_each(|member| member.collect(world));
        self.steppers.iter_mut().for_each(|member| member.collect(world));
        self.chains.iter_mut().for_each(|member| member.collect(world));
        self.readers.iter_mut().for_each(|reader| reader.collect(world));
        self.plain.retain_mut(|plain| !plain.collect(world));
        self.changes.retain_mut(|change| !change.collect(world));
    }

    fn end_round(&mut self) {
        let off = self.world.sim.fs.is_off();
        if !off && self.world.one_in(3) {
            self.close();
        }
        self.node_ended();
        // A machine that a kill has ended may also lose its power.
        self.end_machine();
        if self.world.one_in(3) {
            self.world.calm();
        }
        self.open_again();
    }

    fn end_machine(&mut self) {
        let power = self.world.one_in(2);
        let what = if power { "power cut" } else { "kill" };
        self.world.count(format!("fault: {what}"));
        self.world.line(format!("-- {what}"));
        self.world.env = if power { self.world.sim.crash() } else { self.world.sim.kill() };
        if self.world.sim.fs.is_off() {
            // It had none before, and gets it back.
            self.world.env = self.world.sim.crash();
        }
    }

    fn close(&mut self) {
        let closed = self.world.broker.close().is_ok();
        if !self.world.sim.fs.is_off() {
            self.collect();
            self.world.count(if closed { "clean closes" } else { "closes that failed" });
        }
    }

    /// Nobody hears of what is under way.
    fn node_ended(&mut self) {
        let world = &mut self.world;
        self.clients.iter_mut().for_each(Client::node_ended);
        self.committers.iter_mut().for_each(Committer::node_ended);
        self.steppers.iter_mut().for_each(|member| member.node_ended(world));
        self.chains.iter_mut().for_each(Chain::node_ended);
        self.readers.iter_mut().for_each(Reader::cut_off);
        self.plain.clear();
        self.changes.clear();
    }

    /// Also if that is cut off, a few times, or meets what is broken.
    fn open_again(&mut self) {
        let cuts = if self.world.one_in(3) { 1 + self.world.below(4) } else { 0 };
        for attempt in 0..TRIES_TO_OPEN as u64 {
            if attempt < cuts {
                self.world.sim.fs.power_off_at(1 + self.world.below(60));
            } else if attempt > cuts {
                self.world.calm();
            }
            let before = self.world.sim.fs.faults();
            let opened = self.world.open(before);
            let off = self.world.sim.fs.is_off();
            match opened {
                Some(broker) if !off => {
                    self.world.broker = broker;
                    self.world.line("-- started".to_owned());
                    self.world.calm();
                    return self.world.ledger.started();
                }
                _ => {
                    drop(opened);
                    self.world.count("starts cut off");
                    self.end_machine();
                }
            }
        }
        panic!("nothing fails any more, and still the broker does not open");
    }

    /// Everyone but the loops goes, and what they have left ends by itself. Then the loops come to their ends.
    fn finish(&mut self) {
        self.world.calm();
        for _ in 0..200 {
            self.world.step();
            self.collect();
        }
        if topics::deletion_is_unknown(&mut self.world) {
            self.node_ended();
            self.end_machine();
            self.world.calm();
            self.open_again();
        }
        self.lose_everyone();
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

    /// Whether a group has committed all that there is.
    fn is_at(&self, group: &str, ends: &BTreeMap<u32, Offset>) -> bool {
        let described = self.world.broker.describe_group(&self.world.context, group);
        let offsets = self.world.wait(described).map(|group| group.offsets).unwrap_or_default();
        let committed = offsets.iter().map(|of| (of.partition, of.offset));
        let committed: BTreeMap<_, _> = committed.collect();
        ends.iter().all(|(partition, end)| end.get() == 0 || committed.get(partition) == Some(end))
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
    fn check_after_a_start(&mut self, before: &Contents) {
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
        assert!(before == after, "a start changes nothing: {before:?} was there, and {after:?} is");
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // The tasks that are left own the broker, and it the scheduler that has them.
        self.world.sim.kill();
    }
}
