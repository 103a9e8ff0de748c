//! A producer under a transactional id: some are taken over by others, and do not know.

use std::collections::BTreeMap;
use std::time::Duration;

use logmill_broker::{
    Acks, Error, InitTransactions, Outcome, Payload, Produce, ProduceRecord, ProduceResult, ProducerEpoch,
    ProducerSequence, Reason,
};

use crate::world::{Call, Place, World, answer};

pub(crate) struct Client {
    pub(crate) id: String,
    who: String,
    producer: Option<ProducerEpoch>,
    /// The takeover that is under way, and when it was asked for.
    init: Option<(u64, Call<Result<ProducerEpoch, Error>>)>,
    open: Option<Open>,
    /// How its last transaction ended, for who waits for it.
    pub(crate) ended: Option<Ended>,
}

/// How a transaction ended, as its producer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Committed,
    Aborted,
    /// Another writes under the id, or it has to begin again: whether it was committed is not known.
    Lost,
}

/// A transaction.
struct Open {
    txn: usize,
    sequences: BTreeMap<Place, i32>,
    sends: Vec<Send>,
    /// Something of it was refused, so it is to be aborted.
    failed: bool,
    end: Option<End>,
}

struct Send {
    place: Place,
    value: String,
    sequence: i32,
    acks: Acks,
    fenced: bool,
    call: Call<Result<Vec<ProduceResult>, Error>>,
}

struct End {
    outcome: Outcome,
    /// It was asked before, and the answer was lost.
    again: bool,
    fenced: bool,
    call: Option<Call<Result<ProducerEpoch, Error>>>,
}

impl Client {
    pub(crate) fn new(id: &str, number: usize) -> Self {
        let who = format!("producer {number} of {id}");
        Self { id: id.to_owned(), who, producer: None, init: None, open: None, ended: None }
    }

    /// Becomes the one who writes under its id.
    pub(crate) fn init(&mut self, world: &mut World) {
        let timeout = Duration::from_millis(500 + world.below(8_000));
        let request = InitTransactions { transactional_id: self.id.clone(), timeout };
        (self.producer, self.open) = (None, None);
        let asked = world.ledger.asks_to_take_over();
        self.init = Some((asked, Box::pin(world.broker.init_transactions(&world.context, request))));
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.producer.is_some() && self.open.is_none()
    }

    /// It has to begin again.
    pub(crate) fn is_out(&self) -> bool {
        self.producer.is_none() && self.init.is_none()
    }

    pub(crate) fn producer(&self) -> Option<ProducerEpoch> {
        self.producer
    }

    /// The transaction that is going on, if nothing of it is under way: its number, and whether it is good.
    pub(crate) fn settled(&self) -> Option<(usize, bool)> {
        let open = self.open.as_ref().filter(|open| open.sends.is_empty() && open.end.is_none())?;
        Some((open.txn, !open.failed))
    }

    pub(crate) fn begin(&mut self, world: &mut World) {
        let txn = world.ledger.begin();
        self.ended = None;
        let (sequences, sends) = (BTreeMap::new(), Vec::new());
        self.open = Some(Open { txn, sequences, sends, failed: false, end: None });
        let who = &self.who;
        let producer = self.producer;
        world.line(format!("{who}: begins transaction {txn} as {producer:?}"));
    }

    /// What anybody does with its next transaction.
    pub(crate) fn go_on(&mut self, world: &mut World) {
        if self.producer.is_none() || world.one_in(60) {
            if self.init.is_none() {
                self.init(world);
            }
            return;
        }
        let Some(open) = &self.open else { return self.begin(world) };
        if open.end.is_some() {
            return self.ask_again(world);
        }
        match world.below(10) {
            0..6 => {
                let place = world.place();
                self.send(world, place, "");
            }
            // As if nobody minded what is under way.
            6 if open.sends.is_empty() || world.one_in(4) => self.end(world, Outcome::Commit),
            7 if open.sends.is_empty() && !open.failed => self.end(world, Outcome::Commit),
            8 if world.one_in(3) || open.failed => self.end(world, Outcome::Abort),
            _ => {}
        }
    }

    pub(crate) fn send(&mut self, world: &mut World, place: Place, what: &str) {
        let Some(open) = &mut self.open else { return };
        let value = world.ledger.record(open.txn, place, what);
        let sequence = open.sequences.entry(place).or_insert(0);
        let acks = if world.one_in(2) { Acks::Written } else { Acks::Durable };
        let sent = *sequence;
        *sequence += 1;
        self.send_value(world, place, value, sent, acks);
    }

    fn send_value(&mut self, world: &mut World, place: Place, value: String, sequence: i32, acks: Acks) {
        let (Some(producer), Some(open)) = (self.producer, &mut self.open) else { return };
        let ProducerEpoch { id, epoch } = producer;
        let whose = ProducerSequence { id, epoch, base_sequence: sequence };
        let record = ProduceRecord { value: Some(value.clone().into()), ..ProduceRecord::default() };
        let payload = Payload::InTransaction(whose, vec![record]);
        let (topic, partition) = (place.0.to_owned(), Some(place.1));
        let produce = Produce { topic, partition, payload, acks, sent_at: None };
        let fenced = world.ledger.is_fenced(&self.id, producer);
        if fenced {
            world.count("sends of a fenced producer");
        }
        let call = Box::pin(world.broker.produce(&world.context, produce));
        open.sends.push(Send { place, value, sequence, acks, fenced, call });
    }

    pub(crate) fn end(&mut self, world: &mut World, outcome: Outcome) {
        let (Some(producer), Some(open)) = (self.producer, &mut self.open) else { return };
        let fenced = world.ledger.is_fenced(&self.id, producer);
        if outcome == Outcome::Commit && !fenced {
            world.ledger.asked(open.txn);
        }
        if fenced {
            world.count("ends of a fenced producer");
        }
        let call = Some(Self::ask(world, &self.id, producer, outcome));
        open.end = Some(End { outcome, again: false, fenced, call });
    }

    fn ask(
        world: &World,
        id: &str,
        producer: ProducerEpoch,
        outcome: Outcome,
    ) -> Call<Result<ProducerEpoch, Error>> {
        Box::pin(world.broker.end_transaction(&world.context, id, producer, outcome))
    }

    /// The answer of the end was lost: the same is asked again.
    pub(crate) fn ask_again(&mut self, world: &mut World) {
        let (Some(producer), Some(open)) = (self.producer, &mut self.open) else { return };
        if let Some(end) = open.end.as_mut().filter(|end| end.call.is_none()) {
            end.again = true;
            end.fenced = world.ledger.is_fenced(&self.id, producer);
            end.call = Some(Self::ask(world, &self.id, producer, end.outcome));
        }
    }

    /// Takes the answers that have come.
    pub(crate) fn collect(&mut self, world: &mut World) {
        let come = self.init.as_mut().and_then(|(asked, call)| Some((*asked, answer(call)?)));
        if let Some((asked, come)) = come {
            self.init = None;
            let told = come.as_ref().map(|producer| format!("{producer:?}")).map_err(Error::reason);
            world.told(&self.who, "init", told);
            if let Ok(producer) = come {
                world.ledger.took_over(&self.id, producer, asked);
                (self.producer, self.open) = (Some(producer), None);
            }
        }
        self.collect_sends(world);
        self.collect_end(world);
    }

    fn collect_sends(&mut self, world: &mut World) {
        let Some(open) = &mut self.open else { return };
        let mut waiting = Vec::new();
        for mut send in std::mem::take(&mut open.sends) {
            let Some(come) = answer(&mut send.call) else {
                waiting.push(send);
                continue;
            };
            let come = come.and_then(|mut results| results.remove(0).outcome);
            let told = come.as_ref().map(|at| format!("{} at {}", send.value, at.first_offset));
            world.told(&self.who, "send in a transaction", told.map_err(Error::reason));
            match come {
                Ok(_) => {
                    assert!(
                        !send.fenced,
                        "{}: {} was taken, and another had taken over",
                        self.who, send.value
                    );
                    world.ledger.written(&send.value);
                }
                Err(_) => open.failed = true,
            }
        }
        open.sends.extend(waiting);
    }

    fn collect_end(&mut self, world: &mut World) {
        let Some(open) = &mut self.open else { return };
        let txn = open.txn;
        let Some(end) = &mut open.end else { return };
        let Some(come) = end.call.as_mut().and_then(answer) else { return };
        end.call = None;
        let what = match end.outcome {
            Outcome::Commit => "commit",
            Outcome::Abort => "abort",
        };
        let told = come.as_ref().map(|producer| format!("{txn}: {producer:?}")).map_err(Error::reason);
        world.told(&self.who, what, told);
        let (outcome, again) = (end.outcome, end.again);
        match come {
            Ok(producer) => {
                assert!(
                    !end.fenced,
                    "{}: a {what} of {txn} was answered, and another had taken over",
                    self.who
                );
                if outcome == Outcome::Commit {
                    world.ledger.committed(txn);
                }
                self.is_over(if outcome == Outcome::Commit { Ended::Committed } else { Ended::Aborted });
                self.producer = Some(producer);
            }
            Err(error) => match error.reason() {
                Reason::TransactionAborted => {
                    world.ledger.refused(txn);
                    self.is_over(Ended::Aborted);
                    self.producer = None;
                }
                Reason::ProducerFenced => {
                    // Another may have aborted it, or it was committed when it was asked before.
                    if !again {
                        world.ledger.refused(txn);
                    }
                    self.is_over(Ended::Lost);
                    self.producer = None;
                }
                Reason::TransactionNotFound => panic!("{}: its id is gone: {error}", self.who),
                _ => {}
            },
        }
    }

    fn is_over(&mut self, how: Ended) {
        self.open = None;
        self.ended = Some(how);
    }

    /// Answers are lost on their way: what was sent is sent again, or given up.
    pub(crate) fn cut_off(&mut self, world: &mut World) {
        self.init = None;
        let Some(open) = &mut self.open else { return };
        let sends = std::mem::take(&mut open.sends);
        if let Some(end) = &mut open.end {
            end.call = None;
        }
        if world.one_in(2) {
            open.failed |= !sends.is_empty();
        } else {
            for Send { place, value, sequence, acks, .. } in sends {
                self.send_value(world, place, value, sequence, acks);
            }
        }
    }

    /// The node has ended.
    pub(crate) fn node_ended(&mut self) {
        self.init = None;
        if let Some(open) = &mut self.open {
            open.failed |= !open.sends.is_empty();
            open.sends.clear();
            if let Some(end) = &mut open.end {
                end.call = None;
            }
        }
    }
}
