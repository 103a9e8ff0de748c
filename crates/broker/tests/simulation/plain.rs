//! Producers without an id, which send each record once: by single calls, or on a stream.

use std::collections::BTreeSet;
use std::sync::Arc;

use logmill_broker::{Acks, Appended, Error, Payload, Produce, ProduceResult, ProduceStream, Reason};

use crate::batch::Like;
use crate::history::{Ack, Id, Place, Sending, To};
use crate::world::{Call, World, answer};

pub(crate) struct Plain {
    number: u32,
    on_stream: bool,
    stream: Option<ProduceStream>,
    /// What goes on its stream next is sent by someone who knows of a failure.
    has_failed: bool,
    under_way: Vec<UnderWay>,
}

struct UnderWay {
    topic: Arc<str>,
    to: To,
    ids: Vec<Id>,
    acks: Acks,
    answer: Call<Result<Vec<ProduceResult>, Error>>,
}

impl Plain {
    pub(crate) fn new(world: &World) -> Self {
        let (number, on_stream) = (world.history.producer(Sending::Once), world.one_in(2));
        Self { number, on_stream, stream: None, has_failed: false, under_way: Vec::new() }
    }

    pub(crate) fn send(&mut self, world: &World) {
        let place = world.place();
        let are_plain = world.one_in(2);
        // Batches go whole into the partition that they name.
        let by_key = are_plain && world.one_in(3);
        let to = if by_key { To::Topic(Arc::clone(&place.topic)) } else { To::from(&place) };
        let ids: Vec<_> = (0..=world.below(3)).map(|_| world.history.sent(&to, self.number)).collect();
        let like = Like::any(world, &place.topic);
        let acks = [Acks::Durable, Acks::Durable, Acks::Written, Acks::None][world.index(4)];
        let payload = if are_plain {
            Payload::Records(like.records(&ids))
        } else {
            Payload::Batch(like.batch(&ids).bytes().clone())
        };
        let (topic, partition) = (place.topic.to_string(), (!by_key).then_some(place.partition));
        let request = Produce { topic, partition, payload, acks, sent_at: None };
        let answer: Call<_> = if self.on_stream {
            let stream = self.stream.get_or_insert_with(|| world.broker.produce_stream());
            if std::mem::take(&mut self.has_failed) {
                Box::pin(stream.send_after_failure(&world.context, request))
            } else {
                Box::pin(stream.send(&world.context, request))
            }
        } else {
            Box::pin(world.broker.produce(&world.context, request))
        };
        self.under_way.push(UnderWay { topic: place.topic, to, ids, acks, answer });
    }

    pub(crate) fn collect(&mut self, world: &World) {
        for mut it in std::mem::take(&mut self.under_way) {
            match answer(&mut it.answer) {
                None => self.under_way.push(it),
                Some(answer) => self.has_failed |= !it.end(world, answer),
            }
        }
    }

    /// Nobody hears what becomes of what is under way.
    pub(crate) fn cut_off(&mut self, world: &World) {
        self.stream = None;
        for it in self.under_way.drain(..) {
            it.ids.iter().for_each(|id| world.history.unknown(&it.to, *id));
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }
}

impl UnderWay {
    /// Tells of the answer; whether all was taken.
    fn end(self, world: &World, answer: Result<Vec<ProduceResult>, Error>) -> bool {
        let results = match answer {
            Ok(results) => results,
            Err(error) => {
                self.fail(world, &self.ids, &error);
                return false;
            }
        };
        let mut untold: BTreeSet<Id> = self.ids.iter().copied().collect();
        let mut all = true;
        for result in results {
            let ids: Vec<Id> = match &*result.record_indexes {
                [] => self.ids.clone(),
                indexes => indexes.iter().map(|index| self.ids[*index as usize]).collect(),
            };
            ids.iter().for_each(|id| assert!(untold.remove(id), "each record is answered once"));
            match result.outcome {
                Ok(appended) => self.acknowledge(world, result.partition, &ids, appended),
                Err(error) => {
                    self.fail(world, &ids, &error);
                    all = false;
                }
            }
        }
        // Answered when they were accepted.
        assert!(untold.is_empty() || self.acks == Acks::None, "each record is answered");
        untold.iter().for_each(|id| world.history.unknown(&self.to, *id));
        all
    }

    fn acknowledge(&self, world: &World, partition: u32, ids: &[Id], appended: Appended) {
        let place = Place::new(&self.topic, partition);
        let records = appended.last_offset.get() + 1 - appended.first_offset.get();
        assert_eq!(records, ids.len() as u64, "an answer speaks of all records of a partition");
        let ack = if self.acks == Acks::Durable { Ack::Durable } else { Ack::Written };
        for (id, n) in ids.iter().zip(0..) {
            world.history.acknowledged(&place, *id, appended.first_offset.saturating_add(n), ack);
        }
    }

    fn fail(&self, world: &World, ids: &[Id], error: &Error) {
        world.note(error);
        let is_unknown = matches!(error.reason(), Reason::OutcomeUnknown | Reason::InternalFault);
        for id in ids {
            if is_unknown {
                world.history.unknown(&self.to, *id);
            } else {
                world.history.refused(&self.to, *id);
            }
        }
    }
}
