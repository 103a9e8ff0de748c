//! Damage and strange things in the data directory: nothing is guessed, nothing is lost in silence.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use logmill_broker::{Broker, OpenErrorKind, Reason, Topic};

use crate::common::{Node, config, record};

fn topic_dir(dir: &tempfile::TempDir, topic: &Topic) -> PathBuf {
    dir.path().join("topics").join(topic.id.to_string())
}

#[expect(clippy::disallowed_methods, reason = "the operator's hands")]
fn move_dir(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap();
}

/// A node that has run: topic `t` with three partitions, a record in each.
fn ran(dir: &tempfile::TempDir) -> Topic {
    let node = Node::open(config(dir));
    let topic = node.create("t", 3).unwrap();
    for partition in 0..3 {
        node.say("t", partition, &format!("in {partition}")).unwrap();
    }
    node.broker.close().unwrap();
    topic
}

#[test]
fn a_partition_without_its_directory_is_named_and_never_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let topic = ran(&dir);
    let path = topic_dir(&dir, &topic).join("1");
    let aside = dir.path().join("aside");
    move_dir(&path, &aside);

    let node = Node::open(config(&dir));
    let failed = &node.broker.open_report().failed;
    assert_eq!(failed.len(), 1);
    assert_eq!((failed[0].topic.as_str(), failed[0].partition), ("t", 1));
    assert!(failed[0].error.message().contains(&path.display().to_string()), "{}", failed[0].error);

    let error = node.say("t", 1, "into nothing").unwrap_err();
    assert_eq!(error.reason(), Reason::PartitionFailed);
    assert_eq!(node.read_all("t", 1).unwrap_err().reason(), Reason::PartitionFailed);
    assert_eq!(node.create("t", 3).unwrap_err().reason(), Reason::TopicExists);
    // The others work, and records without a key go to them.
    assert_eq!(node.read_all("t", 2).unwrap(), ["in 2"]);
    for _ in 0..6 {
        let produce = crate::common::records("t", None, ["free"]);
        assert!(node.produce(produce).unwrap()[0].outcome.is_ok());
    }
    let described = node.wait(node.broker.describe_topic(&node.context, "t")).unwrap();
    assert_eq!(described.partitions[1].error.as_ref().unwrap().reason(), Reason::PartitionFailed);
    node.broker.close().unwrap();
    assert!(!path.exists());

    move_dir(&aside, &path);
    let node = Node::open(config(&dir));
    assert_eq!(node.read_all("t", 1).unwrap(), ["in 1"]);
    node.broker.close().unwrap();
}

#[test]
fn the_directory_of_another_partition_is_not_taken_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let topic = ran(&dir);
    let path = topic_dir(&dir, &topic);
    move_dir(&path.join("0"), &path.join("x"));
    move_dir(&path.join("1"), &path.join("0"));
    move_dir(&path.join("x"), &path.join("1"));
    let node = Node::open(config(&dir));
    for partition in [0, 1] {
        let error = node.read_all("t", partition).unwrap_err();
        assert_eq!(error.reason(), Reason::PartitionFailed);
        assert!(error.message().contains("belongs to another partition"), "{error}");
    }
    assert_eq!(node.read_all("t", 2).unwrap(), ["in 2"]);
    node.broker.close().unwrap();
}

#[test]
fn a_topic_with_missing_partitions_can_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let topic = ran(&dir);
    move_dir(&topic_dir(&dir, &topic), &dir.path().join("aside"));
    let node = Node::open(config(&dir));
    assert_eq!(node.broker.open_report().failed.len(), 3);
    node.delete("t").unwrap();
    node.create("t", 1).unwrap();
    node.say("t", 0, "new").unwrap();
    node.broker.close().unwrap();
}

#[test]
fn a_directory_that_nobody_knows_is_kept_if_it_holds_records_and_else_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    ran(&dir);
    let foreign = ran(&other);
    let node = Node::open(config(&other));
    let empty = node.create("empty", 2).unwrap();
    node.broker.close().unwrap();

    for topic in [&foreign, &empty] {
        move_dir(&topic_dir(&other, topic), &topic_dir(&dir, topic));
    }
    fs::File::create_new(dir.path().join("topics/notes.txt")).unwrap();

    let node = Node::open(config(&dir));
    let report = node.broker.open_report();
    assert_eq!((report.topics, report.removing), (1, 1));
    let mut unknown: Vec<_> =
        report.unknown.iter().map(|unknown| (unknown.path.clone(), unknown.topic.clone())).collect();
    unknown.sort();
    let mut expected =
        vec![(topic_dir(&dir, &foreign), Some("t".to_owned())), (dir.path().join("topics/notes.txt"), None)];
    expected.sort();
    assert_eq!(unknown, expected);
    while topic_dir(&dir, &empty).exists() {
        node.read_all("t", 0).unwrap();
    }
    assert!(topic_dir(&dir, &foreign).join("2").is_dir());
    node.broker.close().unwrap();
}

#[test]
fn a_renamed_directory_of_a_live_topic_is_not_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let topic = ran(&dir);
    let renamed = dir.path().join("topics").join(format!("{}.deleted", topic.id));
    move_dir(&topic_dir(&dir, &topic), &renamed);
    let node = Node::open(config(&dir));
    assert_eq!(node.broker.open_report().failed.len(), 3);
    assert_eq!(node.broker.open_report().unknown.len(), 1);
    node.broker.close().unwrap();
    move_dir(&renamed, &topic_dir(&dir, &topic));
    let node = Node::open(config(&dir));
    assert_eq!(node.read_all("t", 0).unwrap(), ["in 0"]);
    node.broker.close().unwrap();
}

#[test]
fn damaged_metadata_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    ran(&dir);
    let log = dir.path().join("internal/metadata/00000000000000000000.log");
    let file = fs::OpenOptions::new().read(true).write(true).open(&log).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 90).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 90).unwrap();
    let error = Broker::open(config(&dir)).expect_err("the metadata is damaged");
    assert_eq!(error.kind(), OpenErrorKind::Damaged, "{error}");
    assert!(error.to_string().contains("does not know its topics"), "{error}");
    assert!(error.to_string().contains("internal/metadata"), "{error}");

    file.write_all_at(&byte, 90).unwrap();
    Node::open(config(&dir)).broker.close().unwrap();
}

#[test]
fn topics_without_metadata_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    ran(&dir);
    move_dir(&dir.path().join("internal"), &dir.path().join("aside"));
    let error = Broker::open(config(&dir)).expect_err("the metadata is missing");
    assert_eq!(error.kind(), OpenErrorKind::Damaged, "{error}");
    assert!(!dir.path().join("internal").exists(), "and none is made in its place");
}

#[test]
fn a_damaged_batch_is_named_and_the_rest_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    let topic = node.create("t", 1).unwrap();
    let big = "x".repeat(40_000);
    for value in ["first", &big, "last"] {
        let produce = crate::common::records("t", Some(0), [value]);
        node.produce(produce).unwrap().remove(0).outcome.unwrap();
    }
    node.broker.close().unwrap();
    let log = topic_dir(&dir, &topic).join("0/00000000000000000000.log");
    let file = fs::OpenOptions::new().read(true).write(true).open(&log).unwrap();
    file.write_all_at(b"y", 1_000).unwrap();

    let node = Node::open(config(&dir));
    let error = node.read_all("t", 0).map(|_| record("")).unwrap_err();
    assert_eq!(error.reason(), Reason::DataCorrupt, "{error}");
    node.broker.close().unwrap();
}
