//! What changes about topics while they are used.

use logmill_broker::{
    CreateTopic, DeleteRecords, DeletedRecords, Error, SettingChange, Topic, TopicSettings,
};
use logmill_record::Offset;

use crate::history::{Place, Visible};
use crate::world::{self, Call, MOST_PARTITIONS, World, answer};

/// A change that is under way.
pub(crate) enum Change {
    Setting(Call<Result<Topic, Error>>),
    Growth(&'static str, Call<Result<Topic, Error>>),
    Removal(Call<Result<Vec<DeletedRecords>, Error>>),
    /// Of a topic that nobody uses.
    Other(Call<()>),
}

/// The topics that are used: one shows what is durable, one what is written, and one is compacted.
pub(crate) fn create(world: &mut World) {
    let compact = [("cleanup.policy", "compact"), ("segment.ms", "1000")];
    for (name, settings) in
        [("sure", &[][..]), ("quick", &[("durability", "relaxed")][..]), ("keyed", &compact[..])]
    {
        let partitions = 1 + u32::try_from(world.below(3)).unwrap();
        let compacted = settings.contains(&compact[0]);
        if compacted {
            world.history.compacted(name);
        }
        if settings.contains(&("durability", "relaxed")) {
            world.history.visible(name, Visible::Written);
        }
        let settings = TopicSettings::new(settings.iter().copied()).unwrap();
        let topic = CreateTopic::new(name).partitions(partitions).settings(settings);
        let topic = world.wait(world.broker.create_topic(&world.context, topic)).unwrap();
        world.topics.push(world::Topic { name, id: topic.id, partitions, compacted });
    }
}

/// Some of which are refused.
const SETTINGS: &[(&str, &str)] = &[
    ("max.message.bytes", "400"),
    ("max.message.bytes", "1048588"),
    ("message.timestamp.type", "LogAppendTime"),
    ("message.timestamp.type", "CreateTime"),
    ("compression.type", "uncompressed"),
    ("compression.type", "gzip"),
    ("compression.type", "zstd"),
    ("compression.type", "producer"),
    ("retention.bytes", "9000"),
    ("retention.bytes", "-1"),
    ("retention.ms", "60000"),
    ("retention.ms", "-1"),
    ("flush.ms", "100"),
    ("flush.ms", "5000"),
    ("segment.bytes", "65536"),
    ("segment.ms", "1000"),
    ("durability", "durable"),
    ("durability", "relaxed"),
];

impl Change {
    pub(crate) fn begin(world: &World) -> Self {
        match world.below(8) {
            0..4 => Self::setting(world),
            4 => Self::growth(world),
            5 | 6 => Self::removal(world),
            _ => Self::other(world),
        }
    }

    fn setting(world: &World) -> Self {
        let name = world.topics[world.index(world.topics.len())].name;
        let (setting, value) = SETTINGS[world.index(SETTINGS.len())];
        if setting.starts_with("retention") {
            // Also of those that are added later.
            let places = (0..MOST_PARTITIONS).map(|partition| Place::new(name, partition));
            places.for_each(|place| world.history.may_remove(&place, Offset(u64::MAX)));
        }
        if value == "relaxed" {
            world.history.visible(name, Visible::Written);
        }
        let change = SettingChange::set(setting, value);
        Self::Setting(Box::pin(world.broker.alter_topic(&world.context, name, vec![change])))
    }

    fn growth(world: &World) -> Self {
        let topic = &world.topics[world.index(world.topics.len())];
        let count = (topic.partitions + 1).min(MOST_PARTITIONS);
        Self::Growth(topic.name, Box::pin(world.broker.add_partitions(&world.context, topic.name, count)))
    }

    fn removal(world: &World) -> Self {
        let place = world.place();
        // Often behind the end, which is refused.
        let below = Offset(world.below(30));
        world.history.may_remove(&place, below);
        let partitions = vec![(place.partition, Some(below))];
        let request = DeleteRecords { topic: place.topic.to_string(), partitions };
        Self::Removal(Box::pin(world.broker.delete_records(&world.context, request)))
    }

    /// Comes and goes beside the others.
    fn other(world: &World) -> Self {
        if world.one_in(2) {
            let create = world.broker.create_topic(&world.context, CreateTopic::new("other").partitions(2));
            Self::Other(Box::pin(async move { drop(create.await) }))
        } else {
            let delete = world.broker.delete_topic(&world.context, "other");
            Self::Other(Box::pin(async move { drop(delete.await) }))
        }
    }

    /// Whether it has been answered.
    pub(crate) fn collect(&mut self, world: &mut World) -> bool {
        match self {
            Self::Setting(call) => answer(call).is_some(),
            Self::Growth(name, call) => {
                let Some(answer) = answer(call) else { return false };
                if let Ok(grown) = answer {
                    let topic = world.topics.iter_mut().find(|topic| topic.name == *name);
                    topic.expect("it is used").partitions = grown.partition_count;
                }
                true
            }
            Self::Removal(call) => answer(call).is_some(),
            Self::Other(call) => answer(call).is_some(),
        }
    }
}

/// What the broker that was opened has: a change that was cut off may have been made.
pub(crate) fn look_again(world: &mut World) {
    let mut topics = std::mem::take(&mut world.topics);
    for topic in &mut topics {
        let there = world.wait(world.broker.describe_topic(&world.context, topic.name));
        let there = there.unwrap_or_else(|error| panic!("topic {} is gone: {error}", topic.name)).topic;
        assert_eq!(there.id, topic.id);
        assert!(there.partition_count >= topic.partitions, "partitions of {} are gone", topic.name);
        topic.partitions = there.partition_count;
        let is_set = |name, value| {
            there.settings.iter().any(|setting| (setting.name, setting.value.as_str()) == (name, value))
        };
        // Not as soon as that was answered: until its log hears of it, a reader may be shown what is written.
        if is_set("durability", "durable") {
            world.history.visible(topic.name, Visible::Durable);
        }
    }
    world.topics = topics;
}
