//! Topics that get more partitions, and partitions whose oldest records are deleted.

#![expect(clippy::disallowed_methods, reason = "the operator's hands")]

use logmill_broker::{
    Config, DeleteRecords, DeletedRecords, Error, Fetch, FetchFrom, Limits, Position, Reason, SettingChange,
    Topic,
};
use logmill_record::Offset;

use crate::common::hook_fs::{Call, gated, is_segment_of_0};
use crate::common::{Node, config, failure, records, with_env};

fn grow(node: &Node, name: &str, count: u32) -> Result<Topic, Error> {
    node.wait(node.broker.add_partitions(&node.context, name, count))
}

fn delete_before(
    node: &Node,
    name: &str,
    partitions: Vec<(u32, Option<Offset>)>,
) -> Result<Vec<DeletedRecords>, Error> {
    let request = DeleteRecords { topic: name.into(), partitions };
    node.wait(node.broker.delete_records(&node.context, request))
}

#[test]
fn a_topic_gets_more_partitions_beside_those_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    let before = node.create("t", 2).unwrap();
    node.say("t", 1, "old").unwrap();
    assert_eq!(node.say("t", 2, "early").unwrap_err().reason(), Reason::PartitionNotFound);
    let waits = Fetch::new(vec![FetchFrom::new("t", 0, Position::Offset(Offset(0)))])
        .max_wait(std::time::Duration::from_secs(20));
    let waits = node.broker.fetch(&node.context, waits);

    let grown = grow(&node, "t", 5).unwrap();
    assert_eq!((grown.id, grown.partition_count), (before.id, 5));
    node.say("t", 4, "new").unwrap();
    node.say("t", 1, "old and new").unwrap();
    node.say("t", 0, "for who waited before").unwrap();
    assert_eq!(crate::common::text(&node.wait(waits).unwrap()[0]), ["for who waited before"]);
    node.wait(node.broker.alter_topic(
        &node.context,
        "t",
        vec![SettingChange::set("max.message.bytes", "1000")],
    ))
    .unwrap();
    for partition in 0..5 {
        let error = failure(&node, records("t", Some(partition), [vec![b'x'; 2_000]]));
        assert_eq!(error.reason(), Reason::MessageTooLarge, "old partitions and new ones");
    }
    node.broker.close().unwrap();

    let node = Node::open(config(&dir));
    assert!(node.broker.open_report().failed.is_empty(), "{:?}", node.broker.open_report());
    assert_eq!(node.read_all("t", 1).unwrap(), ["old", "old and new"]);
    assert_eq!(node.read_all("t", 4).unwrap(), ["new"]);
    assert_eq!(grow(&node, "t", 6).unwrap().partition_count, 6);
    node.delete("t").unwrap();
    node.broker.close().unwrap();
}

#[test]
fn a_topic_never_gets_fewer_partitions_or_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 3).unwrap();
    for count in [0, 2, 3, 10_001, u32::MAX] {
        let error = grow(&node, "t", count).unwrap_err();
        assert_eq!(error.reason(), Reason::PartitionCountInvalid, "{count}");
        assert!(error.message().contains(&count.to_string()), "{error}");
    }
    assert_eq!(grow(&node, "u", 5).unwrap_err().reason(), Reason::TopicNotFound);
    node.broker.close().unwrap();
}

#[test]
fn a_directory_with_records_in_it_is_never_grown_over() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    let topic = node.create("t", 2).unwrap();
    node.say("t", 1, "a copy of this").unwrap();
    node.broker.close().unwrap();
    let path = |n: u32| dir.path().join("topics").join(topic.id.to_string()).join(n.to_string());
    std::fs::create_dir(path(2)).unwrap();
    for file in std::fs::read_dir(path(1)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), path(2).join(file.file_name())).unwrap();
    }
    // Nothing is in this one.
    std::fs::create_dir(path(3)).unwrap();
    std::fs::write(path(3).join("00000000000000000000.log"), b"").unwrap();

    let node = Node::open(config(&dir));
    assert_eq!(node.broker.open_report().unknown[0].path, path(2));
    assert!(!path(3).exists());
    let error = grow(&node, "t", 3).unwrap_err();
    assert_eq!(error.reason(), Reason::IoFailed);
    assert!(error.message().contains("is in the way"), "{error}");
    assert!(path(2).join("00000000000000000000.log").metadata().unwrap().len() > 0);
    std::fs::rename(path(2), dir.path().join("saved")).unwrap();
    grow(&node, "t", 3).unwrap();
    assert!(node.read_all("t", 2).unwrap().is_empty());
    node.broker.close().unwrap();
}

#[test]
fn the_oldest_records_go_and_stay_away() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 3).unwrap();
    for partition in 0..3 {
        node.produce(records("t", Some(partition), ["a", "b", "c"])).unwrap();
    }
    let deleted =
        delete_before(&node, "t", vec![(2, Some(Offset(4))), (0, Some(Offset(2))), (1, None)]).unwrap();
    let starts: Vec<_> = deleted.iter().map(|it| (it.partition, it.outcome.as_ref().ok().copied())).collect();
    assert_eq!(starts, [(0, Some(Offset(2))), (1, Some(Offset(3))), (2, None)]);
    let error = deleted[2].outcome.as_ref().unwrap_err();
    assert_eq!(error.reason(), Reason::OffsetOutOfRange);
    assert!(error.message().contains("from 0 to 3"), "{error}");
    let again = delete_before(&node, "t", vec![(0, Some(Offset(1)))]).unwrap();
    assert_eq!(*again[0].outcome.as_ref().unwrap(), Offset(2), "the start never goes back");
    node.broker.close().unwrap();

    let node = Node::open(config(&dir));
    assert_eq!(node.read_all("t", 0).unwrap(), ["c"]);
    assert!(node.read_all("t", 1).unwrap().is_empty());
    assert_eq!(node.say("t", 1, "d").unwrap().first_offset, Offset(3));
    assert_eq!(node.read_all("t", 2).unwrap(), ["a", "b", "c"]);
    node.broker.close().unwrap();
}

#[test]
fn a_wrong_deletion_of_records_deletes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 2).unwrap();
    node.say("t", 0, "kept").unwrap();
    let twice = delete_before(&node, "t", vec![(0, None), (0, None)]).unwrap_err();
    assert_eq!(twice.reason(), Reason::RequestInvalid);
    let missing = delete_before(&node, "t", vec![(0, None), (2, None)]).unwrap_err();
    assert_eq!(missing.reason(), Reason::PartitionNotFound);
    assert_eq!(delete_before(&node, "u", vec![]).unwrap_err().reason(), Reason::TopicNotFound);
    assert!(delete_before(&node, "t", vec![]).unwrap().is_empty());
    assert_eq!(node.read_all("t", 0).unwrap(), ["kept"]);
    node.broker.close().unwrap();
    assert_eq!(delete_before(&node, "t", vec![]).unwrap_err().reason(), Reason::NodeClosing);
}

#[test]
fn a_deletion_of_records_that_hangs_holds_up_its_own_partition_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (env, gate) = gated(Call::Write, is_segment_of_0);
    let limits = Limits { max_queued_topic_changes: 1, max_partition_deletions: 3, ..Limits::default() };
    let node = Node::open(Config { limits, ..with_env(&dir, env) });
    node.create("t", 2).unwrap();
    gate.arm();
    let hangs = node.broker.produce(&node.context, records("t", Some(0), ["hangs"]));
    gate.wait_for_someone();
    let delete = || {
        let request = DeleteRecords { topic: "t".into(), partitions: vec![(0, None)] };
        node.broker.delete_records(&node.context, request)
    };
    let waiting = [delete(), delete()];
    // One that nobody waits for any more keeps its place.
    drop(delete());
    let refused = [delete(), delete()];
    node.say("t", 1, "past it").unwrap();
    let deleted = delete_before(&node, "t", vec![(1, None)]).unwrap();
    assert_eq!(*deleted[0].outcome.as_ref().unwrap(), Offset(1));
    node.create("u", 1).unwrap();
    gate.open();
    node.wait(hangs).unwrap().remove(0).outcome.unwrap();
    for deletion in waiting {
        node.wait(deletion).unwrap().remove(0).outcome.unwrap();
    }
    for deletion in refused {
        let error = node.wait(deletion).unwrap_err();
        assert_eq!(error.reason(), Reason::LimitExceeded);
        assert!(error.metadata().contains(&("limit", "max_partition_deletions".to_owned())), "{error:?}");
        assert!(error.metadata().contains(&("partition", "0".to_owned())), "{error:?}");
    }
    node.wait(delete()).unwrap().remove(0).outcome.unwrap();
    node.broker.close().unwrap();
}
