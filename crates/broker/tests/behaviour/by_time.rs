//! Reading from a time on: what it finds, and that a fetch which looks for it comes to an end.

use std::time::Duration;

use bytes::Bytes;
use logmill_broker::{
    Config, CreateTopic, Fetch, FetchFrom, Limits, PartitionData, PartitionOffset, Position, Reason,
    Subscribe, TopicSettings,
};
use logmill_log::sim::Sim;
use logmill_record::{BatchBuilder, NewRecord, Offset, TimestampMs};

use crate::common::hook_fs::{Call, gated, is_segment};
use crate::common::{Node, config, produce_batch, records, simulated, text, with_env};
use crate::stalls::Opens;

fn at(time: i64) -> Position {
    Position::Time(TimestampMs(time))
}

fn from(partition: u32, position: Position) -> FetchFrom {
    FetchFrom::new("t", partition, position)
}

/// A batch of one record of this time.
fn of_time(time: i64, value: &str) -> Bytes {
    let mut builder = BatchBuilder::new();
    let record =
        NewRecord { timestamp: TimestampMs(time), key: None, value: Some(value.as_bytes()), headers: &[] };
    builder.push(&record).unwrap();
    builder.build().unwrap().bytes().clone()
}

fn say_at(node: &Node, time: i64, value: &str) {
    node.produce(produce_batch("t", 0, of_time(time, value))).unwrap().remove(0).outcome.unwrap();
}

fn find(node: &Node, time: i64) -> PartitionOffset {
    node.wait(node.broker.list_offsets(&node.context, "t", vec![(0, at(time))])).unwrap()[0]
}

fn read(node: &Node, time: i64) -> PartitionData {
    node.fetch(Fetch::new(vec![from(0, at(time))])).unwrap().remove(0)
}

#[test]
fn a_fetch_by_time_ends_also_where_another_partition_has_filled_it() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 2).unwrap();
    node.say("t", 0, "a").unwrap();
    node.say("t", 1, "b").unwrap();
    // Either partition is the first of the two each other time.
    for _ in 0..4 {
        let partitions = vec![from(0, Position::Earliest), from(1, at(0))];
        let fetch = Fetch::new(partitions).max_bytes(1).max_wait(Duration::from_millis(10));
        let data = node.fetch(fetch).unwrap();
        assert_eq!(data.iter().flat_map(text).count(), 1, "one batch, and no more");
        assert!(data.iter().all(|data| data.error.is_none()));
        assert_eq!(
            (data[1].from_offset, data[1].end_offset),
            (Offset(0), Offset(1)),
            "it says where it stands"
        );
    }
    node.broker.close().unwrap();
}

#[test]
fn a_fetch_by_time_is_refused_while_replies_take_all_the_room() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_reply_bytes: 1_000, ..Limits::default() };
    let node = Node::open(Config { limits, ..config(&dir) });
    node.create("t", 2).unwrap();
    node.produce(records("t", Some(0), [vec![b'x'; 3_000]])).unwrap();
    let partitions = vec![from(0, Position::Earliest)];
    let subscribe = Subscribe::new(partitions, 1_000_000);
    let mut holder = node.wait(node.broker.subscribe(&node.context, subscribe)).unwrap();
    node.wait(holder.next()).unwrap();
    for partitions in [vec![from(0, at(0))], vec![from(0, at(0)), from(1, at(0))]] {
        for max_wait in [Duration::ZERO, Duration::from_millis(10)] {
            let error = node.fetch(Fetch::new(partitions.clone()).max_wait(max_wait)).unwrap_err();
            assert_eq!(error.reason(), Reason::LimitExceeded, "{error}");
        }
    }
    drop(holder);
    assert_eq!(text(&read(&node, 0))[0].len(), 3_000);
    node.broker.close().unwrap();
}

#[test]
fn a_fetch_by_time_keeps_to_its_limits() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 1).unwrap();
    for i in 0..10 {
        say_at(&node, i * 1_000, &i.to_string());
    }
    let size = of_time(0, "0").len();
    for limit in [1, size, size * 2 - 1] {
        let data = node.fetch(Fetch::new(vec![from(0, at(4_001))]).max_bytes(limit)).unwrap().remove(0);
        assert_eq!((text(&data), data.next_offset), (vec!["5".to_owned()], Offset(6)), "{limit}");
    }
    let own = FetchFrom { max_bytes: Some(size * 3), ..from(0, at(7_000)) };
    assert_eq!(text(&node.fetch(Fetch::new(vec![own])).unwrap()[0]), ["7", "8", "9"]);
    let own = FetchFrom { max_bytes: Some(1), ..from(0, at(7_000)) };
    assert_eq!(text(&node.fetch(Fetch::new(vec![own])).unwrap()[0]), ["7"]);
    node.broker.close().unwrap();
}

#[test]
fn a_time_that_only_lies_in_what_is_not_on_disk_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let (env, gate) = gated(Call::Sync, is_segment);
    let node = Node::open(with_env(&dir, env));
    node.create("t", 1).unwrap();
    say_at(&node, 1_000, "on disk");
    let opens = Opens(&gate);
    gate.arm();
    let accepted = node.broker.produce(&node.context, produce_batch("t", 0, of_time(2_000, "not yet")));
    gate.wait_for_someone();
    assert_eq!(
        (find(&node, 1_000).offset, find(&node, 1_000).timestamp),
        (Offset(0), Some(TimestampMs(1_000)))
    );
    assert_eq!((find(&node, 1_001).offset, find(&node, 1_001).timestamp), (Offset(1), None));
    let data = read(&node, 1_001);
    assert!(data.chunks.is_empty() && data.error.is_none());
    assert_eq!((data.from_offset, data.end_offset), (Offset(1), Offset(1)));
    drop(opens);
    node.wait(accepted).unwrap().remove(0).outcome.unwrap();
    assert_eq!(
        (find(&node, 1_001).offset, find(&node, 1_001).timestamp),
        (Offset(1), Some(TimestampMs(2_000)))
    );
    assert_eq!(text(&read(&node, 1_001)), ["not yet"]);
    node.broker.close().unwrap();
}

#[test]
fn a_search_goes_by_the_time_of_append_where_the_topic_says_so() {
    let sim = Sim::new(6);
    let node = simulated(&sim);
    let settings = TopicSettings::new([("message.timestamp.type", "LogAppendTime")]).unwrap();
    let create = CreateTopic::new("t").settings(settings);
    node.wait(node.broker.create_topic(&node.context, create)).unwrap();
    let mut appended = Vec::new();
    // By their own times they lie in the far future, and in the other order.
    for (own, value) in [(i64::MAX / 2, "a"), (i64::MAX / 4, "b"), (i64::MAX / 8, "c")] {
        let outcome = node.produce(produce_batch("t", 0, of_time(own, value))).unwrap().remove(0).outcome;
        appended.push(outcome.unwrap().appended_at.get());
        sim.clock.jump(3_600_000);
    }
    for (number, time) in appended.iter().enumerate() {
        for wanted in [*time, time - 1] {
            let found = find(&node, wanted);
            assert_eq!((found.offset, found.timestamp), (Offset(number as u64), Some(TimestampMs(*time))));
        }
        assert_eq!(text(&read(&node, *time)), ["a", "b", "c"][number..]);
    }
    let behind = find(&node, appended[2] + 1);
    assert_eq!((behind.offset, behind.timestamp), (Offset(3), None));
    assert!(text(&read(&node, appended[2] + 1)).is_empty());
    node.broker.close().unwrap();
}
