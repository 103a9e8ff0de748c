//! The topics, one of which comes and goes, and one of which grows; and what is written to them beside transactions.

use logmill_broker::{
    Acks, CreateTopic, Error, Payload, Produce, ProduceRecord, ProduceResult, Reason, Topic,
};
use logmill_record::murmur2_partition;

use crate::chain;
use crate::steps;
use crate::world::{Call, IN, MOST_PARTITIONS, OUT, PARTITIONS, SIDE, World, answer};

/// Groups whose units are partitions; that of steps is one of them in every other run.
const GROUPS_OF_TOPICS: [&str; 3] = ["plain", steps::GROUP, chain::GROUP];

/// A change of the topic that comes and goes, or of the one that grows.
pub(crate) enum Change {
    Create(Call<Result<Topic, Error>>),
    Delete(Call<Result<(), Error>>),
    Grow(Call<Result<Topic, Error>>),
}

pub(crate) fn create(world: &mut World) {
    for (name, partitions) in [(IN, PARTITIONS), (OUT, PARTITIONS), (SIDE, 1)] {
        let create = CreateTopic::new(name).partitions(partitions);
        let topic = world.wait(world.broker.create_topic(&world.context, create)).unwrap();
        if name == IN {
            world.in_id = topic.id;
        }
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

    /// The topic that is read gets one more partition, unless it has enough, or is about to.
    pub(crate) fn grow(world: &mut World) -> Option<Self> {
        if world.in_asked != world.in_partitions || world.in_partitions == MOST_PARTITIONS {
            return None;
        }
        world.in_asked += 1;
        Some(Self::Grow(Box::pin(world.broker.add_partitions(&world.context, IN, world.in_asked))))
    }

    /// Whether it has been answered.
    pub(crate) fn collect(&mut self, world: &mut World) -> bool {
        let (what, told) = match self {
            Self::Grow(call) => {
                ("growth of a topic", answer(call).map(|come| come.map(|topic| grown(world, &topic))))
            }
            Self::Create(call) => ("create topic", answer(call).map(|come| come.map(drop))),
            Self::Delete(call) => ("delete topic", answer(call)),
        };
        let Some(told) = told else { return false };
        let told = told.map(|()| String::new()).map_err(|error| error.reason());
        world.told("operator", what, told);
        true
    }
}

/// The topic that is read has so many partitions.
fn grown(world: &mut World, topic: &Topic) {
    assert_eq!((topic.id, topic.partition_count), (world.in_id, world.in_asked));
    world.in_partitions = topic.partition_count;
    GROUPS_OF_TOPICS.iter().for_each(|group| knows_all(world, group));
}

/// Who is there in a group need not come again for it to share the new partitions.
fn knows_all(world: &mut World, group: &str) {
    let described = world.wait(world.broker.describe_group(&world.context, group));
    let Some(described) = described.ok().filter(|it| it.members.iter().any(|it| it.is_connected)) else {
        return;
    };
    let units = || described.members.iter().flat_map(|member| &member.units).chain(&described.unowned);
    if units().any(|unit| unit.unit.starts_with("unit-")) {
        return; // Its members say what its units are.
    }
    for partition in 0..world.in_partitions {
        let name = format!("{IN}/{partition}");
        assert!(units().any(|unit| unit.unit == name), "{group} does not know of {name}: {described:#?}");
    }
    world.count("growths under members");
}

/// A start tells what became of a growth whose answer is not known.
pub(crate) fn started(world: &mut World) {
    let described = world.wait(world.broker.describe_topic(&world.context, IN)).unwrap();
    let count = u32::try_from(described.partitions.len()).unwrap();
    let (least, most) = (world.in_partitions, world.in_asked);
    assert!((least..=most).contains(&count), "{count} partitions, and {least} were there");
    (world.in_partitions, world.in_asked) = (count, count);
}

/// Whether only a start can tell if the topic that comes and goes is there: a sync failed while it was being deleted.
/// A transaction that is being ended there goes on until then.
pub(crate) fn deletion_is_unknown(world: &mut World) -> bool {
    let record =
        ProduceRecord { value: Some(world.ledger.plain(Some((SIDE, 0))).into()), ..ProduceRecord::default() };
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
    by_key: Option<ByKey>,
    call: Call<Result<Vec<ProduceResult>, Error>>,
}

impl Plain {
    pub(crate) fn send(world: &mut World) -> Self {
        let by_key = world.one_in(2).then(|| ByKey::new(world));
        let place = by_key.is_none().then(|| world.in_place());
        let value = world.ledger.plain(place);
        let record = ProduceRecord {
            key: by_key.as_ref().map(|by| by.key.clone().into()),
            value: Some(value.clone().into()),
            ..ProduceRecord::default()
        };
        let (topic, partition, acks) = (IN.to_owned(), place.map(|place| place.1), Acks::Durable);
        let produce =
            Produce { topic, partition, payload: Payload::Records(vec![record]), acks, sent_at: None };
        Self { value, by_key, call: Box::pin(world.broker.produce(&world.context, produce)) }
    }

    /// Whether it has been answered.
    pub(crate) fn collect(&mut self, world: &mut World) -> bool {
        let Some(come) = answer(&mut self.call) else { return false };
        let come = come.and_then(|mut results| {
            let result = results.remove(0);
            if let Some(by_key) = &self.by_key {
                by_key.check(world, result.partition);
            }
            result.outcome
        });
        let told = come.as_ref().map(|at| format!("{} at {}", self.value, at.first_offset));
        world.told("plain", "send", told.map_err(Error::reason));
        if come.is_ok() {
            world.ledger.written(&self.value);
        }
        true
    }
}

/// A record that goes where its key belongs.
struct ByKey {
    key: String,
    /// The least number of partitions that there can be when it comes.
    least: u32,
}

impl ByKey {
    fn new(world: &World) -> Self {
        Self { key: format!("key {}", world.below(40)), least: world.in_partitions }
    }

    fn check(&self, world: &mut World, partition: u32) {
        let mut counts = self.least..=world.in_asked;
        let belongs = counts.any(|count| murmur2_partition(self.key.as_bytes(), count) == partition);
        assert!(belongs, "{:?} went to {partition} of {} partitions", self.key, world.in_asked);
        if partition >= PARTITIONS {
            world.count("records by key in new partitions");
        }
    }
}
