//! Producers without an id, which send each record once: by single calls, or on a stream.

use logmill_broker::{Acks, Error, Payload, Produce, ProduceResult, ProduceStream, Reason};

use crate::batch::{built, records};
use crate::history::{Ack, Id, Place, Sending};
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
    place: Place,
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
        let ids: Vec<_> = (0..=world.below(3)).map(|_| world.history.sent(&place, self.number)).collect();
        let filler = world.index(if world.one_in(4) { 900 } else { 60 });
        let acks = [Acks::Durable, Acks::Durable, Acks::Written, Acks::None][world.index(4)];
        let payload = if world.one_in(2) {
            Payload::Records(records(&ids, filler))
        } else {
            Payload::Batch(built(&ids, filler).bytes().clone())
        };
        let (topic, partition) = (place.topic.to_string(), Some(place.partition));
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
        self.under_way.push(UnderWay { place, ids, acks, answer });
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
            it.ids.iter().for_each(|id| world.history.unknown(&it.place, *id));
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }
}

impl UnderWay {
    /// Tells of the answer; whether it was taken.
    fn end(self, world: &World, answer: Result<Vec<ProduceResult>, Error>) -> bool {
        let history = &world.history;
        let outcome = answer.map(|mut results| results.pop()).and_then(|result| match result {
            Some(result) => result.outcome.map(Some),
            None => Ok(None),
        });
        match outcome {
            Ok(Some(appended)) => {
                let ack = if self.acks == Acks::Durable { Ack::Durable } else { Ack::Written };
                for (id, n) in self.ids.iter().zip(0..) {
                    history.acknowledged(&self.place, *id, appended.first_offset.saturating_add(n), ack);
                }
                return true;
            }
            // Answered when it was accepted.
            Ok(None) => {
                self.ids.iter().for_each(|id| history.unknown(&self.place, *id));
                return true;
            }
            Err(error) if matches!(error.reason(), Reason::OutcomeUnknown | Reason::InternalFault) => {
                self.ids.iter().for_each(|id| history.unknown(&self.place, *id));
            }
            Err(_) => self.ids.iter().for_each(|id| history.refused(&self.place, *id)),
        }
        false
    }
}
