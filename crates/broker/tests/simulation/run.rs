//! One seed: rounds of work, each ended by a power cut, a kill or a clean close.

use std::time::Duration;

use crate::history::{Cut, Report};
use crate::idempotent::Producer;
use crate::plain::Plain;
use crate::reading::{Reader, read_all};
use crate::topics::{self, Change};
use crate::world::World;

/// So many steps are enough for everything that waits, when nothing fails any more.
const STEPS_TO_END: usize = 20_000;

/// By then all logs have been looked after once.
const MAINTENANCE: Duration = Duration::from_secs(11);

/// Once cut off, once met by what is broken, and then nothing is.
const TRIES_TO_OPEN: usize = 5;

pub(crate) struct Run {
    pub(crate) world: World,
    producers: Vec<Producer>,
    plain: Vec<Plain>,
    readers: Vec<Reader>,
    changes: Vec<Change>,
}

impl Run {
    pub(crate) fn new(seed: u64, prepare: impl Fn(&World)) -> Self {
        let mut world = World::new(seed);
        topics::create(&mut world);
        prepare(&world);
        let producers = (0..3).map(|_| Producer::new(&world)).collect();
        let plain = (0..2).map(|_| Plain::new(&world)).collect();
        let readers = (0..3).map(|_| Reader::new(&world)).collect();
        Self { world, producers, plain, readers, changes: Vec::new() }
    }

    /// All of it, and what the checker says.
    pub(crate) fn work(&mut self) -> Report {
        for _ in 0..2 {
            self.round();
            self.end_round();
        }
        self.round();
        if self.world.sim.fs.is_off() || self.world.one_in(2) {
            self.end_round();
        } else {
            // On the same streams: none may be left that takes nothing any more.
            self.world.calm();
        }
        self.finish();
        // A clean close makes all that was written last. The metadata may have failed, which only a start mends.
        let closed = self.close();
        self.cut_off();
        self.world.forget_what_failed();
        self.world.env = if closed { self.world.sim.crash() } else { self.world.sim.kill() };
        self.world.broker = self.world.open().expect("nothing fails any more");
        for place in self.world.places() {
            let (start, records) =
                read_all(&self.world, &place).unwrap_or_else(|error| panic!("{place}: {error}"));
            for reader in &mut self.readers {
                reader.compare(&self.world, &place, start, &records);
            }
            self.world.history.contents(&place, start, records);
        }
        self.world.history.check()
    }

    fn round(&mut self) {
        let within = 1 + self.world.below(200);
        match self.world.below(4) {
            0 => self.world.sim.fs.power_off_at(within),
            1 => self.world.sim.fs.die_at(within),
            _ => {}
        }
        // Answers may be long under way, while more is sent.
        let delay = 1 + self.world.below(12);
        for _ in 0..40 + self.world.below(200) {
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
            0..22 => world.any(&mut self.producers).begin(world),
            22..34 => {
                let most = 1 + world.index(6);
                world.any(&mut self.producers).send(world, most);
            }
            34..42 => world.any(&mut self.plain).send(world),
            42..54 => world.any(&mut self.readers).go_on(world),
            54..57 => self.changes.push(Change::begin(world)),
            57..61 => world.trouble(),
            61 => world.any(&mut self.producers).cut_off(),
            62 if world.one_in(4) => world.any(&mut self.producers).time_out(world),
            63 => world.any(&mut self.readers).cut_off(),
            64 => world.pass(Duration::from_millis(150)),
            // The logs are looked after, also compacted, and the space that is left.
            65 if world.one_in(3) => world.pass(MAINTENANCE),
            _ => drop(world.step()),
        }
    }

    /// Everyone takes what has come.
    fn collect(&mut self) {
        self.producers.iter_mut().for_each(|producer| producer.collect(&self.world));
        self.plain.iter_mut().for_each(|plain| plain.collect(&self.world));
        self.readers.iter_mut().for_each(|reader| reader.collect(&self.world));
        self.changes.retain_mut(|change| !change.collect(&mut self.world));
    }

    fn end_round(&mut self) {
        let off = self.world.sim.fs.is_off();
        let closed = !off && self.world.one_in(3) && self.close();
        self.cut_off();
        // A machine that a kill has ended may also lose its power.
        let power = self.world.one_in(2) || off && self.world.one_in(2);
        self.world.env = if power { self.world.sim.crash() } else { self.world.sim.kill() };
        self.world.forget_what_failed();
        // What was closed is on disk.
        let loses = power && !closed;
        self.world.history.cut(if loses { &Cut::Power } else { &Cut::Kill });
        if self.world.one_in(3) {
            self.world.calm();
        }
        self.open_again();
    }

    fn close(&mut self) -> bool {
        let closed = self.world.broker.close().is_ok();
        self.world.tell_of_faults();
        if self.world.sim.fs.is_off() {
            return false;
        }
        self.collect();
        if closed {
            self.world.history.fault("clean close");
        }
        closed
    }

    /// Nobody hears of what is under way.
    fn cut_off(&mut self) {
        self.producers.iter_mut().for_each(Producer::cut_off);
        self.plain.iter_mut().for_each(|plain| plain.cut_off(&self.world));
        self.readers.iter_mut().for_each(Reader::cut_off);
        self.changes.clear();
    }

    /// Also if that is cut off, or meets what is broken.
    fn open_again(&mut self) {
        if self.world.one_in(4) {
            self.world.sim.fs.power_off_at(1 + self.world.below(40));
        }
        for _ in 0..TRIES_TO_OPEN {
            let opened = self.world.open();
            let off = self.world.sim.fs.is_off();
            match opened {
                Some(broker) if !off => {
                    self.world.broker = broker;
                    // What was to cut off or fail the start is none of the work's.
                    self.world.calm();
                    self.world.suspects.clear();
                    return topics::look_again(&mut self.world);
                }
                _ if off => {
                    self.world.history.cut(&Cut::Power);
                    self.world.env = self.world.sim.crash();
                }
                _ => {
                    self.world.calm();
                    self.world.history.cut(&Cut::Kill);
                    self.world.env = self.world.sim.kill();
                }
            }
        }
        panic!("nothing fails any more, and still the broker does not open");
    }

    /// Nothing fails any more: everything is answered.
    fn finish(&mut self) {
        self.world.pass(MAINTENANCE);
        for _ in 0..STEPS_TO_END {
            self.producers.iter_mut().for_each(|producer| producer.send(&self.world, 3));
            self.readers.iter_mut().for_each(|reader| reader.go_on(&self.world));
            self.world.step();
            // Time passes by itself only when nobody asks for anything.
            self.world.pass(Duration::from_millis(1));
            self.collect();
            if self.producers.iter().all(Producer::is_idle) && self.plain.iter().all(Plain::is_idle) {
                return;
            }
        }
        let waits = self.producers.iter().map(Producer::waits).collect::<String>();
        panic!("nothing fails any more, and still somebody waits: {waits}");
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // The tasks that are left own the broker, and it the scheduler that has them.
        self.world.sim.kill();
    }
}
