//! A loop of client's transactions: reads, makes something of it, and adds how far it has read.

use std::collections::BTreeMap;

use logmill_broker::{AddOffsets, Error, Outcome};
use logmill_record::Offset;

use crate::client::{Client, Ended};
use crate::member::{Input, Member, ask_input, take_input, to_commit};
use crate::passes::made_of;
use crate::world::{Call, World, answer};

pub(crate) const GROUP: &str = "chain";

pub(crate) struct Chain {
    pub(crate) member: Member,
    client: Client,
    /// How far it is with each unit, in which epoch and pass.
    at: BTreeMap<String, (i32, usize, Offset)>,
    stage: Stage,
}

enum Stage {
    /// A producer first: what it left is over then, and what is said with an assignment is true.
    Producer,
    Member,
    Ready,
    Reading(String, Input),
    Sending(Work),
    Adding(Work, Call<Result<(), Error>>),
    Committing(Work),
}

/// What a transaction is about.
struct Work {
    unit: String,
    epoch: i32,
    spot: (logmill_broker::Uuid, u32),
    next: Offset,
    said: String,
}

impl Chain {
    pub(crate) fn new(number: usize) -> Self {
        let client = Client::new(&format!("chain-{number}"), 0);
        let instance = (number == 0).then_some("chain-0");
        Self {
            member: Member::new(GROUP, false, instance),
            client,
            at: BTreeMap::new(),
            stage: Stage::Producer,
        }
    }

    /// Begins again, and hears then what it owns.
    fn start_over(&mut self) {
        self.stage = Stage::Producer;
        self.at.clear();
        self.member.lost();
    }

    pub(crate) fn go_on(&mut self, world: &mut World, calm: bool) {
        if !calm {
            match world.below(100) {
                0 => {
                    self.member.leave(world);
                    return self.start_over();
                }
                1 => return self.start_over(),
                2 => {
                    self.member.reborn();
                    return self.start_over();
                }
                // Goes on with a transaction whose unit will be taken from it.
                3 => self.member.lost(),
                _ => {}
            }
        }
        if world.is_stopped(GROUP) && self.stop(world) {
            return;
        }
        match std::mem::replace(&mut self.stage, Stage::Ready) {
            Stage::Producer => {
                self.stage = Stage::Member;
                self.client.init(world);
            }
            Stage::Member => {
                if self.client.is_out() {
                    self.stage = Stage::Producer;
                } else if self.client.is_ready() {
                    self.member.join(world);
                    self.stage = if self.member.is_in() { Stage::Ready } else { Stage::Member };
                } else {
                    self.stage = Stage::Member;
                }
            }
            Stage::Ready => self.read(world, calm),
            Stage::Reading(unit, mut input) => match answer(&mut input) {
                Some(come) => {
                    let most = 1 + world.index(4);
                    if let Some((taken, next)) = take_input(world, come, most) {
                        self.send(world, unit, &taken, next);
                    }
                }
                None => self.stage = Stage::Reading(unit, input),
            },
            Stage::Sending(work) => self.add(world, work),
            Stage::Adding(work, mut call) => match answer(&mut call) {
                Some(come) => self.added(world, work, &come),
                None => self.stage = Stage::Adding(work, call),
            },
            Stage::Committing(work) => self.commit(world, work),
        }
    }

    /// Whether nothing of it is under way; what is goes on, although it is no member any more.
    fn stop(&mut self, world: &mut World) -> bool {
        self.member.stop(world);
        let is_idle = !matches!(self.stage, Stage::Sending(_) | Stage::Adding(..) | Stage::Committing(_));
        if is_idle {
            self.start_over();
        }
        is_idle
    }

    fn read(&mut self, world: &mut World, calm: bool) {
        if !self.member.is_in() || !self.client.is_ready() {
            return self.start_over();
        }
        let units: Vec<String> = self.at.keys().cloned().collect();
        if units.is_empty() {
            return;
        }
        let unit = units[world.index(units.len())].clone();
        if self.member.units.get(&unit).is_some_and(|owned| owned.revoked) && (calm || world.one_in(4)) {
            self.at.remove(&unit);
            return self.member.confirm(world, &unit);
        }
        let Some(owned) = self.member.units.get(&unit) else {
            self.at.remove(&unit);
            return;
        };
        let input = ask_input(world, owned.partition, self.at[&unit].2);
        self.stage = Stage::Reading(unit, input);
    }

    fn send(&mut self, world: &mut World, unit: String, taken: &[Offset], next: Offset) {
        let Some((owned, (epoch, pass, at))) =
            self.member.units.get(&unit).cloned().zip(self.at.get(&unit).copied())
        else {
            return;
        };
        if next <= at || owned.epoch != epoch {
            return;
        }
        self.client.begin(world);
        for offset in taken {
            let place = world.out_place();
            self.client.send(world, place, &made_of(GROUP, pass, owned.partition, *offset));
        }
        let said = world.ledger.standings.commit(&format!("chain {unit} {epoch}"), pass, next);
        let spot = (owned.topic_id, owned.partition);
        self.stage = Stage::Sending(Work { unit, epoch, spot, next, said });
    }

    fn add(&mut self, world: &mut World, work: Work) {
        let Some((_, good)) = self.client.settled() else {
            if self.client.is_out() || self.client.is_ready() {
                return self.start_over();
            }
            self.stage = Stage::Sending(work);
            return;
        };
        let (Some(producer), true) = (self.client.producer(), good) else { return self.start_over() };
        let request = AddOffsets {
            transactional_id: self.client.id.clone(),
            producer,
            group: GROUP.to_owned(),
            unit: work.unit.clone(),
            unit_epoch: work.epoch,
            offsets: vec![to_commit(&work.said, work.spot.1, work.next)],
        };
        let is_over = world.ledger.owners.is_over(GROUP, &work.unit, work.epoch);
        let call = world.broker.add_offsets(&world.context, request);
        self.stage = Stage::Adding(
            work,
            Box::pin(async move {
                let added = call.await;
                assert!(!(is_over && added.is_ok()), "offsets of a unit were added that another owns");
                added
            }),
        );
    }

    fn added(&mut self, world: &mut World, work: Work, come: &Result<(), Error>) {
        let told = come.as_ref().map(|()| work.said.clone()).map_err(Error::reason);
        world.told(GROUP, "add offsets", told);
        if come.is_err() || world.one_in(30) {
            // The transaction is left as it is; the next producer ends it.
            return self.start_over();
        }
        let outcome = if world.one_in(12) { Outcome::Abort } else { Outcome::Commit };
        self.client.end(world, outcome);
        self.stage = Stage::Committing(work);
    }

    fn commit(&mut self, world: &mut World, work: Work) {
        match self.client.ended.take() {
            Some(Ended::Committed) => {
                world.ledger.standings.acknowledged(GROUP, work.spot, &work.said);
                if let Some(at) = self.at.get_mut(&work.unit).filter(|at| at.0 == work.epoch) {
                    at.2 = work.next;
                }
            }
            Some(Ended::Aborted) => {
                world.ledger.standings.refused(&work.said);
                self.start_over();
            }
            Some(Ended::Lost) => self.start_over(),
            None => {
                self.client.ask_again(world);
                self.stage = Stage::Committing(work);
            }
        }
    }

    pub(crate) fn collect(&mut self, world: &mut World) {
        self.client.collect(world);
        self.member.listen(world);
        for (unit, owned) in &self.member.units {
            let at = self.at.entry(unit.clone()).or_insert((owned.epoch, owned.pass, owned.committed));
            if (at.0, at.1) != (owned.epoch, owned.pass) {
                *at = (owned.epoch, owned.pass, owned.committed);
            }
        }
    }

    pub(crate) fn cut_off(&mut self, world: &mut World) {
        self.client.cut_off(world);
        if matches!(self.stage, Stage::Reading(..) | Stage::Adding(..)) {
            self.start_over();
        }
    }

    pub(crate) fn node_ended(&mut self) {
        self.client.node_ended();
        self.member.node_ended();
        if !matches!(self.stage, Stage::Committing(_)) {
            self.start_over();
        }
    }
}
