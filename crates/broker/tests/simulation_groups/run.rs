//! One seed: rounds of work, each ended by a power cut, a kill or a clean close.

use std::time::Duration;

use crate::chain::{self, Chain};
use crate::client::Client;
use crate::commits::Committer;
use crate::member::Member;
use crate::operator::Operator;
use crate::reading::{Reader, read_all};
use crate::steps::{self, Stepper};
use crate::topics::{self, Change, Plain};
use crate::world::World;

/// Once cut off a few times, once met by what is broken, and then nothing is.
const TRIES_TO_OPEN: usize = 8;

/// The places of the members of a group: two of them have one.
pub(crate) const PLACES: [Option<&str>; 3] = [Some("one"), None, Some("one")];

pub(crate) struct Run {
    pub(crate) world: World,
    pub(crate) clients: Vec<Client>,
    pub(crate) committers: Vec<Committer>,
    pub(crate) steppers: Vec<Stepper>,
    pub(crate) chains: Vec<Chain>,
    pub(crate) readers: Vec<Reader>,
    pub(crate) plain: Vec<Plain>,
    pub(crate) changes: Vec<Change>,
    pub(crate) operator: Operator,
    /// Whether the loop of steps is one of declared units, which do not grow.
    pub(crate) has_units: bool,
}

impl Run {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        topics::create(&mut world);
        let clients = ["a", "a", "b", "c"].iter().enumerate().map(|(number, id)| Client::new(id, number));
        let clients = clients.collect();
        let has_units = world.one_in(2);
        let committers = PLACES.map(|place| Committer::new("plain", false, place)).into_iter();
        let committers = committers.chain(PLACES.map(|place| Committer::new("units", true, place))).collect();
        let steppers = PLACES.map(|place| Stepper::new(has_units, place)).into();
        let chains = (0..2).map(Chain::new).collect();
        let readers = (0..4).map(|_| Reader::new(&world)).collect();
        let (plain, changes, operator) = (Vec::new(), Vec::new(), Operator::default());
        Self { world, clients, committers, steppers, chains, readers, plain, changes, operator, has_units }
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
        self.world.ledger.check(&contents);
        for group in [steps::GROUP, chain::GROUP] {
            self.check_loop(group, &contents);
        }
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
            58..60 => {
                let members = members(&self.committers, &self.steppers, &self.chains);
                self.operator.go_on(world, &members);
            }
            60 if world.one_in(6) => self.changes.extend(Change::grow(world)),
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
    pub(crate) fn collect(&mut self) {
        let world = &mut self.world;
        self.clients.iter_mut().for_each(|client| client.collect(world));
        self.committers.iter_mut().for_each(|member| member.collect(world));
        self.steppers.iter_mut().for_each(|member| member.collect(world));
        self.chains.iter_mut().for_each(|member| member.collect(world));
        self.readers.iter_mut().for_each(|reader| reader.collect(world));
        self.plain.retain_mut(|plain| !plain.collect(world));
        self.changes.retain_mut(|change| !change.collect(world));
        let members = members(&self.committers, &self.steppers, &self.chains);
        self.operator.collect(world, &members);
    }

    pub(crate) fn end_round(&mut self) {
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

    pub(crate) fn end_machine(&mut self) {
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
    pub(crate) fn node_ended(&mut self) {
        let world = &mut self.world;
        self.clients.iter_mut().for_each(Client::node_ended);
        self.committers.iter_mut().for_each(Committer::node_ended);
        self.steppers.iter_mut().for_each(|member| member.node_ended(world));
        self.chains.iter_mut().for_each(Chain::node_ended);
        self.operator.node_ended();
        self.readers.iter_mut().for_each(Reader::cut_off);
        self.plain.clear();
        self.changes.clear();
    }

    /// Also if that is cut off, a few times, or meets what is broken.
    pub(crate) fn open_again(&mut self) {
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
                    self.world.ledger.started();
                    return topics::started(&mut self.world);
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
}

/// Everyone who can be a member.
pub(crate) fn members<'a>(
    committers: &'a [Committer],
    steppers: &'a [Stepper],
    chains: &'a [Chain],
) -> Vec<&'a Member> {
    let committers = committers.iter().map(|committer| &committer.member);
    let steppers = steppers.iter().map(|stepper| &stepper.member);
    committers.chain(steppers).chain(chains.iter().map(|chain| &chain.member)).collect()
}

impl Drop for Run {
    fn drop(&mut self) {
        // The tasks that are left own the broker, and it the scheduler that has them.
        self.world.sim.kill();
    }
}
