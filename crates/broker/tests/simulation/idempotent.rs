//! Idempotent producers: many batches under way on a stream, sent again as `logmill-client` does it
//! (`producer/accumulator/refusal.rs` there).

use std::collections::BTreeMap;

use logmill_broker::{
    Acks, Appended, Code, Error, Payload, Produce, ProduceResult, ProduceStream, ProducerSequence, Reason,
};

use crate::batch::Like;
use crate::history::{Ack, Id, Place, Sending};
use crate::numbering::Numbering;
use crate::world::{Call, World, answer};

/// So many are sent at once at most: of as many a log knows the last ones again.
const MOST_IN_FLIGHT: usize = logmill_broker::MAX_IN_FLIGHT_BATCHES;

pub(crate) struct Producer {
    /// In the history.
    number: u32,
    id: i64,
    acks: Acks,
    stream: Option<ProduceStream>,
    queues: BTreeMap<Place, Queue>,
    next_ticket: u64,
}

struct Queue {
    numbering: Numbering,
    begun: u64,
    /// By their place among all batches of the queue.
    waiting: BTreeMap<u64, Batch>,
    /// In the order sent.
    in_flight: BTreeMap<u64, InFlight>,
}

struct Batch {
    ids: Vec<Id>,
    like: Like,
    /// Of one that may be stored: the sequence that it was sent under.
    sequence: Option<i32>,
}

struct InFlight {
    order: u64,
    batch: Batch,
    sequence: i32,
    after_failure: bool,
    /// One before it was refused, so this one is as well.
    doomed: bool,
    answer: Call<Result<Vec<ProduceResult>, Error>>,
}

/// What an error says of a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    ForGood,
    Full,
    NotNow,
    ForOneBefore,
    ForItsNumber,
    Unknown,
    Lost,
}

impl Refused {
    fn by(error: &Error) -> Self {
        match (error.reason(), error.reason().code()) {
            (Reason::PrecedingFailed, _) => Self::ForOneBefore,
            (Reason::OutOfSequence | Reason::ProducerFenced, _) => Self::ForItsNumber,
            (Reason::OutcomeUnknown | Reason::InternalFault, _) => Self::Unknown,
            (Reason::SequenceForgotten, _) => Self::Lost,
            (_, Code::Unavailable) => Self::NotNow,
            (_, Code::ResourceExhausted) => Self::Full,
            _ => Self::ForGood,
        }
    }
}

impl Producer {
    pub(crate) fn new(world: &World) -> Self {
        let id = world.wait(world.broker.init_producer_id(&world.context)).unwrap();
        Self {
            number: world.history.producer(Sending::Once),
            id,
            acks: if world.one_in(4) { Acks::Written } else { Acks::Durable },
            stream: None,
            queues: BTreeMap::new(),
            next_ticket: 0,
        }
    }

    /// A batch more waits to be sent.
    pub(crate) fn begin(&mut self, world: &World) {
        // Two partitions most of the time, so that many batches follow on each other.
        let known = self.queues.keys().nth(world.index(2)).cloned();
        let place = known.filter(|_| !world.one_in(20)).unwrap_or_else(|| world.place());
        let start = if world.one_in(3) { i32::MAX - i32::try_from(world.below(40)).unwrap() } else { 0 };
        let queue = self.queues.entry(place.clone()).or_insert_with(|| Queue {
            numbering: Numbering::starting_at(start),
            begun: 0,
            waiting: BTreeMap::new(),
            in_flight: BTreeMap::new(),
        });
        let ids = (0..=world.below(3)).map(|_| world.history.sent(&place, self.number)).collect();
        let like = Like::any(world, &place.topic);
        queue.waiting.insert(queue.begun, Batch { ids, like, sequence: None });
        queue.begun += 1;
    }

    /// Sends what may be sent, of each partition at most so many batches.
    pub(crate) fn send(&mut self, world: &World, most: usize) {
        let stream = self.stream.get_or_insert_with(|| world.broker.produce_stream());
        for (place, queue) in &mut self.queues {
            for _ in 0..most {
                let Some(first) = queue.waiting.first_entry() else { break };
                let in_flight = queue.in_flight.len();
                let may_be_stored = first.get().sequence;
                if in_flight >= MOST_IN_FLIGHT
                    || !queue.numbering.may_send(may_be_stored.is_some(), in_flight)
                {
                    break;
                }
                let (order, batch) = first.remove_entry();
                let sequence = queue.numbering.number(may_be_stored, batch.ids.len());
                let after_failure = queue.numbering.take_after_failure();
                let whose =
                    ProducerSequence { id: self.id, epoch: queue.numbering.epoch, base_sequence: sequence };
                let request = request(world, place, self.acks, whose, &batch);
                let answer: Call<_> = if after_failure {
                    Box::pin(stream.send_after_failure(&world.context, request))
                } else {
                    Box::pin(stream.send(&world.context, request))
                };
                let sent = InFlight { order, batch, sequence, after_failure, doomed: false, answer };
                queue.in_flight.insert(self.next_ticket, sent);
                self.next_ticket += 1;
            }
        }
    }

    /// Takes the answers that have come.
    pub(crate) fn collect(&mut self, world: &World) {
        for (place, queue) in &mut self.queues {
            let come: Vec<_> = queue
                .in_flight
                .iter_mut()
                .filter_map(|(ticket, it)| Some((*ticket, answer(&mut it.answer)?)))
                .collect();
            for (ticket, answer) in come {
                let it = queue.in_flight.remove(&ticket).unwrap();
                match answer.and_then(|mut results| results.remove(0).outcome) {
                    Ok(appended) => it.batch.acknowledge(world, place, self.acks, appended),
                    Err(error) => queue.refuse(world, place, ticket, it, &error),
                }
            }
        }
    }

    /// The time of the oldest batch that waits has run out.
    pub(crate) fn time_out(&mut self, world: &World) {
        for (place, queue) in &mut self.queues {
            if let Some((_, batch)) = queue.waiting.pop_first() {
                if batch.sequence.is_some() {
                    queue.numbering.give_up();
                }
                batch.end(world, place);
            }
        }
    }

    /// The stream has broken: what is under way is sent again.
    pub(crate) fn cut_off(&mut self) {
        self.stream = None;
        for queue in self.queues.values_mut() {
            for (_, it) in std::mem::take(&mut queue.in_flight).into_iter().rev() {
                let sent = !it.doomed;
                queue.put_back(it, sent);
            }
        }
    }

    /// Of how many batches nobody knows yet what becomes of them, by partition.
    pub(crate) fn waits(&self) -> String {
        let waits =
            self.queues.iter().filter(|(_, queue)| !queue.waiting.is_empty() || !queue.in_flight.is_empty());
        let one = |(place, queue): (&Place, &Queue)| {
            format!(
                "[{}: {place} {} to send, {} sent]",
                self.number,
                queue.waiting.len(),
                queue.in_flight.len()
            )
        };
        waits.map(one).collect()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queues.values().all(|queue| queue.waiting.is_empty() && queue.in_flight.is_empty())
    }
}

fn request(world: &World, place: &Place, acks: Acks, whose: ProducerSequence, batch: &Batch) -> Produce {
    let payload = if world.one_in(3) {
        Payload::Numbered(whose, batch.like.records(&batch.ids))
    } else {
        let ProducerSequence { id, epoch, base_sequence } = whose;
        let built = batch.like.batch(&batch.ids).with_producer(id, epoch, base_sequence);
        Payload::Batch(built.bytes().clone())
    };
    Produce { topic: place.topic.to_string(), partition: Some(place.partition), payload, acks, sent_at: None }
}

impl Batch {
    fn acknowledge(&self, world: &World, place: &Place, acks: Acks, appended: Appended) {
        let records = appended.last_offset.get() + 1 - appended.first_offset.get();
        assert_eq!(records, self.ids.len() as u64, "an answer speaks of the whole batch");
        let is_durable = acks == Acks::Durable || appended.duplicate;
        let ack = if is_durable { Ack::Durable } else { Ack::Written };
        for (id, n) in self.ids.iter().zip(0..) {
            world.history.acknowledged(place, *id, appended.first_offset.saturating_add(n), ack);
        }
    }

    /// It is not sent any more.
    fn end(&self, world: &World, place: &Place) {
        for id in &self.ids {
            match self.sequence {
                Some(_) => world.history.unknown(place, *id),
                None => world.history.refused(place, *id),
            }
        }
    }
}

impl Queue {
    fn refuse(&mut self, world: &World, place: &Place, ticket: u64, it: InFlight, error: &Error) {
        let refused = Refused::by(error);
        world.note(error);
        if !matches!(refused, Refused::Unknown | Refused::Lost) {
            self.in_flight.range_mut(ticket..).for_each(|(_, behind)| behind.doomed = true);
        }
        self.numbering.recover();
        let may_be_stored = it.batch.sequence.is_some();
        match refused {
            Refused::ForOneBefore if may_be_stored && self.numbering.has_given_up() => {
                it.batch.end(world, place);
            }
            Refused::ForOneBefore => {
                let first_failed = error.metadata().iter().find(|(name, _)| *name == "first_failed_sequence");
                // What failed was acknowledged as written, and is lost: there is nothing to send again.
                if it.after_failure
                    && first_failed.is_some_and(|(_, first)| *first != it.sequence.to_string())
                {
                    self.numbering.give_up();
                }
                self.put_back(it, false);
            }
            Refused::NotNow => self.put_back(it, false),
            Refused::Unknown => self.put_back(it, true),
            Refused::Full if may_be_stored => self.put_back(it, false),
            Refused::ForItsNumber if !may_be_stored => {
                self.numbering.give_up();
                self.put_back(it, false);
            }
            Refused::ForItsNumber | Refused::ForGood if may_be_stored => {
                self.numbering.give_up();
                it.batch.end(world, place);
            }
            Refused::Lost => {
                self.numbering.give_up();
                it.batch.ids.iter().for_each(|id| world.history.unknown(place, *id));
            }
            Refused::ForItsNumber | Refused::ForGood | Refused::Full => {
                self.numbering.rewind(it.sequence);
                it.batch.end(world, place);
            }
        }
    }

    fn put_back(&mut self, it: InFlight, may_be_stored: bool) {
        let InFlight { order, mut batch, sequence, .. } = it;
        if may_be_stored {
            batch.sequence = Some(sequence);
        } else if batch.sequence.is_none() {
            self.numbering.rewind(sequence);
        }
        self.waiting.insert(order, batch);
    }
}
