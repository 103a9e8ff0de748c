//! The topics, one of which comes and goes; and what is written to them beside transactions.

use logmill_broker::{
    Acks, CreateTopic, Error, Payload, Produce, ProduceRecord, ProduceResult, Reason, Topic,
};

use crate::world::{Call, IN, OUT, PARTITIONS, SIDE, World, answer};

/// A change of the topic that comes and goes.
pub(crate) enum Change {
    Create(Call<Result<Topic, Error>>),
    Delete(Call<Result<(), Error>>),
}

pub(crate) fn create(world: &mut World) {
    for (name, partitions) in [(IN, PARTITIONS), (OUT, PARTITIONS), (SIDE, 1)] {
        let create = CreateTopic::new(name).partitions(partitions);
        world.wait(world.broker.create_topic(&world.context, create)).unwrap();
    }
}

impl Change {
    pub(crate) fn begin(world: &World) -> Self {
        if world.one_in(2) {
            let create = CreateTopic::new(SIDE).partitions(1);
            Self::Create(Box::pin(world.broker.create_topic(&world.context, create)))
        } else {
            Self::Delete(Box::pin(world.broker.delete_topic(&world.context, SIDE)))
        }
    }

    /// Whether it has been answered.
    pub(crate) fn collect(&mut self, world: &mut World) -> bool {
        let (what, told) = match self {
            Self::Create(call) => ("create topic", answer(call).map(|come| come.map(drop))),
            Self::Delete(call) => ("delete topic", answer(call)),
        };
        let Some(told) = told else { return false };
        world.told("operator", what, told.map(|()| String::new()).map_err(|error| error.reason()));
        true
    }
}

/// Whether only a start can tell if the topic that comes and goes is there: a sync failed while it was being deleted.
/// A transaction that is being ended there goes on until then.
pub(crate) fn deletion_is_unknown(world: &mut World) -> bool {
    let record =
        ProduceRecord { value: Some(world.ledger.plain((SIDE, 0)).into()), ..ProduceRecord::default() };
    let payload = Payload::Records(vec![record]);
    let produce =
        Produce { topic: SIDE.to_owned(), partition: Some(0), payload, acks: Acks::Durable, sent_at: None };
    let results = world.wait(world.broker.produce(&world.context, produce));
    let outcome = results.and_then(|mut results| results.remove(0).outcome);
    outcome.is_err_and(|error| error.reason() == Reason::MetadataFailed)
}

/// A record in no transaction that is under way.
pub(crate) struct Plain {
    value: String,
    call: Call<Result<Vec<ProduceResult>, Error>>,
}

impl Plain {
    pub(crate) fn send(world: &mut World) -> Self {
        let place = (IN, u32::try_from(world.below(PARTITIONS.into())).unwrap());
        let value = world.ledger.plain(place);
        let record = ProduceRecord { value: Some(value.clone().into()), ..ProduceRecord::default() };
        let (topic, partition, acks) = (place.0.to_owned(), Some(place.1), Acks::Durable);
        let produce =
            Produce { topic, partition, payload: Payload::Records(vec![record]), acks, sent_at: None };
        Self { value, call: Box::pin(world.broker.produce(&world.context, produce)) }
    }

    /// Whether it has been answered.
    pub(crate) fn collect(&mut self, world: &mut World) -> bool {
        let Some(come) = answer(&mut self.call) else { return false };
        let come = come.and_then(|mut results| results.remove(0).outcome);
        let told = come.as_ref().map(|at| format!("{} at {}", self.value, at.first_offset));
        world.told("plain", "send", told.map_err(Error::reason));
        if come.is_ok() {
            world.ledger.written(&self.value);
        }
        true
    }
}
