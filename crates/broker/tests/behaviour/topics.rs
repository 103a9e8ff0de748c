//! Topics come, are listed and described, and go.

use crate::common::{Node, config, record};
use logmill_broker::{
    Acks, Config, CreateTopic, DEFAULT_SEGMENT_BYTES, ListTopics, Payload, Position, Produce, Reason,
    SettingSource,
};

#[test]
fn a_topic_lives_through_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    let created = node.create("quakes", 4).unwrap();
    node.say("quakes", 2, "one").unwrap();
    node.broker.close().unwrap();

    let node = Node::open(config(&dir));
    let described = node.wait(node.broker.describe_topic(&node.context, "quakes")).unwrap();
    assert_eq!(described.topic, created);
    assert_eq!(described.partitions.len(), 4);
    assert_eq!(described.partitions[2].end_offset.get(), 1);
    assert_eq!(described.partitions[2].leader_epoch, 2);
    assert!(described.partitions.iter().all(|partition| partition.error.is_none()));
    assert_eq!(node.read_all("quakes", 2).unwrap(), ["one"]);
    assert_eq!(node.broker.open_report().topics, 1);
    assert_eq!(node.broker.open_report().partitions, 4);
    node.broker.close().unwrap();
}

#[test]
fn names_and_counts_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    let long = "x".repeat(250);
    for name in ["", "../x", "__mine", &long] {
        assert_eq!(node.create(name, 1).unwrap_err().reason(), Reason::TopicNameInvalid, "{name:?}");
    }
    for count in [0, 10_001, 10_000_000] {
        let error = node.create("t", count).unwrap_err();
        assert_eq!(error.reason(), Reason::PartitionCountInvalid);
        assert!(error.message().contains(&count.to_string()), "{error}");
    }
    let page = node.wait(node.broker.list_topics(&node.context, ListTopics::default())).unwrap();
    assert!(page.topics.is_empty());
    node.broker.close().unwrap();
}

#[test]
fn of_many_who_create_the_same_topic_one_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    let calls: Vec<_> =
        (0..20).map(|_| node.broker.create_topic(&node.context, CreateTopic::new("t"))).collect();
    let outcomes: Vec<_> = calls.into_iter().map(|call| node.wait(call)).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!(error.reason(), Reason::TopicExists);
        assert_eq!(error.metadata(), [("topic", "t".to_owned())]);
    }
    node.broker.close().unwrap();
}

#[test]
fn a_deleted_name_is_free_at_once_and_the_records_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    let first = node.create("t", 2).unwrap();
    node.say("t", 0, "old").unwrap();
    node.delete("t").unwrap();
    assert_eq!(node.say("t", 0, "lost").unwrap_err().reason(), Reason::TopicNotFound);
    assert_eq!(node.delete("t").unwrap_err().reason(), Reason::TopicNotFound);

    let second = node.create("t", 1).unwrap();
    assert_ne!(first.id, second.id);
    assert!(node.read_all("t", 0).unwrap().is_empty());
    node.broker.close().unwrap();

    // Nothing is left of the first, and the second is still there.
    let node = Node::open(config(&dir));
    assert_eq!(node.broker.open_report().topics, 1);
    while std::fs::read_dir(dir.path().join("topics")).unwrap().count() > 1 {
        node.read_all("t", 0).unwrap();
    }
    assert!(dir.path().join("topics").join(second.id.to_string()).join("0").is_dir());
    node.broker.close().unwrap();
}

#[test]
fn lists_come_in_pages_and_hide_what_is_internal() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    for name in ["c", "a", "e", "b", "d"] {
        node.create(name, 1).unwrap();
    }
    let internal = CreateTopic { internal: true, ..CreateTopic::new("bb") };
    node.wait(node.broker.create_topic(&node.context, internal)).unwrap();

    let pages = |include_internal| {
        let mut request = ListTopics { page_size: 2, include_internal, ..ListTopics::default() };
        let mut names = Vec::new();
        loop {
            let page = node.wait(node.broker.list_topics(&node.context, request.clone())).unwrap();
            assert!(page.topics.len() <= 2);
            names.extend(page.topics.into_iter().map(|topic| topic.name));
            if page.next_page_token.is_empty() {
                return names;
            }
            request.page_token = page.next_page_token;
        }
    };
    assert_eq!(pages(false), ["a", "b", "c", "d", "e"]);
    assert_eq!(pages(true), ["a", "b", "bb", "c", "d", "e"]);

    let request = ListTopics { page_token: "from elsewhere".into(), ..ListTopics::default() };
    let error = node.wait(node.broker.list_topics(&node.context, request)).unwrap_err();
    assert_eq!(error.reason(), Reason::RequestInvalid);
    node.broker.close().unwrap();
}

#[test]
fn settings_say_where_they_come_from() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(Config { max_message_bytes: 5_000, ..config(&dir) });
    let topic = node.create("t", 1).unwrap();
    let setting = |name| topic.settings.iter().find(|setting| setting.name == name).unwrap();
    assert_eq!(setting("max.message.bytes").value, "5000");
    assert_eq!(setting("max.message.bytes").source, SettingSource::Node);
    assert_eq!(setting("segment.bytes").value, DEFAULT_SEGMENT_BYTES.to_string());
    assert_eq!(setting("segment.bytes").source, SettingSource::Default);
    for (name, value) in [
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("cleanup.policy", "delete"),
        ("message.timestamp.type", "CreateTime"),
        ("durability", "durable"),
    ] {
        assert_eq!(setting(name).value, value, "{name}");
    }
    node.broker.close().unwrap();
}

#[test]
fn a_topic_of_very_many_partitions_opens_again() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("wide", 300).unwrap();
    node.say("wide", 299, "last").unwrap();
    node.broker.close().unwrap();
    let node = Node::open(config(&dir));
    assert!(node.broker.open_report().failed.is_empty());
    assert_eq!(node.read_all("wide", 299).unwrap(), ["last"]);
    node.broker.close().unwrap();
}

#[test]
fn the_node_describes_itself() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 3).unwrap();
    node.say("t", 0, "some bytes").unwrap();
    let described = node.wait(node.broker.describe_node(&node.context)).unwrap();
    assert_eq!((described.topic_count, described.partition_count, described.leader_epoch), (1, 3, 1));
    assert!(described.stored_bytes > 60 && described.stored_bytes < 200);
    assert!(described.available_bytes > 0 && described.available_bytes <= described.capacity_bytes);
    let id = described.node_id;
    node.broker.close().unwrap();

    let node = Node::open(config(&dir));
    let described = node.wait(node.broker.describe_node(&node.context)).unwrap();
    assert_eq!((described.node_id, described.leader_epoch), (id, 2));
    node.broker.close().unwrap();
}

#[test]
fn offsets_are_found_by_place() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 2).unwrap();
    let at = |value: &str, ms| logmill_broker::ProduceRecord {
        timestamp: Some(logmill_record::TimestampMs(ms)),
        ..record(value)
    };
    let payload = Payload::Records(vec![at("a", 100), at("b", 300), at("c", 200)]);
    let produce =
        Produce { topic: "t".into(), partition: Some(1), payload, acks: Acks::Durable, sent_at: None };
    node.produce(produce).unwrap();

    let ask =
        |positions: Vec<(u32, Position)>| node.wait(node.broker.list_offsets(&node.context, "t", positions));
    let time = |ms| Position::Time(logmill_record::TimestampMs(ms));
    let found = ask(vec![
        (1, Position::Latest),
        (1, Position::Earliest),
        (1, time(150)),
        (1, time(301)),
        (0, time(i64::MIN)),
        (1, Position::Offset(logmill_record::Offset(2))),
    ])
    .unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|found| (found.offset.get(), found.timestamp.map(logmill_record::TimestampMs::get)))
        .collect();
    assert_eq!(found, [(3, None), (0, None), (1, Some(300)), (3, None), (0, None), (2, None)]);

    let error = ask(vec![(1, Position::Offset(logmill_record::Offset(4)))]).unwrap_err();
    assert_eq!(error.reason(), Reason::OffsetOutOfRange);
    assert!(error.message().contains("from 0 to 3"), "{error}");
    assert_eq!(ask(vec![(2, Position::Latest)]).unwrap_err().reason(), Reason::PartitionNotFound);
    node.broker.close().unwrap();
}

#[test]
fn a_closed_broker_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 1).unwrap();
    node.broker.close().unwrap();
    node.broker.close().unwrap();
    assert_eq!(node.create("u", 1).unwrap_err().reason(), Reason::NodeClosing);
    assert_eq!(node.say("t", 0, "x").unwrap_err().reason(), Reason::NodeClosing);
    assert_eq!(node.read_all("t", 0).unwrap_err().reason(), Reason::NodeClosing);
}
