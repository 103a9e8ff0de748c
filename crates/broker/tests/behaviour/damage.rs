//! Damage and strange things in the data directory: nothing is guessed, nothing is lost in silence.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use logmill_broker::{
    Acks, Broker, Fetch, FetchFrom, InitTransactions, JoinGroup, OffsetToCommit, OpenErrorKind, Outcome,
    Payload, Position, Produce, ProduceRecord, ProducerSequence, Reason, StepHeader, Topic,
};
use logmill_record::Offset;

use crate::common::members::assigned;
use crate::common::{Node, batch, config, text};

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

/// A closed node with three batches in one partition, and the path of their segment without its suffix.
fn three_batches(dir: &tempfile::TempDir) -> PathBuf {
    let node = Node::open(config(dir));
    let topic = node.create("t", 1).unwrap();
    for value in ["first", &"x".repeat(40_000), "last"] {
        node.say("t", 0, value).unwrap();
    }
    node.broker.close().unwrap();
    topic_dir(dir, &topic).join("0/00000000000000000000")
}

fn overwrite(path: &Path, position: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, position).unwrap();
}

#[test]
fn a_damaged_batch_is_named_and_what_is_around_it_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    overwrite(&three_batches(&dir).with_extension("log"), 1_000, b"y");

    let node = Node::open(config(&dir));
    let read = |offset| {
        let from = FetchFrom::new("t", 0, Position::Offset(Offset(offset)));
        node.fetch(Fetch::new(vec![from]).max_bytes(1)).unwrap().remove(0)
    };
    assert_eq!(text(&read(0)), ["first"]);
    let error = read(1).error.unwrap();
    assert_eq!(error.reason(), Reason::DataCorrupt, "{error}");
    assert_eq!(text(&read(2)), ["last"]);
    assert_eq!(node.read_all("t", 0).unwrap_err().reason(), Reason::DataCorrupt);
    node.broker.close().unwrap();
}

/// As [`three_batches`], and the last one is damaged so that the partition can only be read from now on.
fn damaged_end(dir: &tempfile::TempDir) {
    let segment = three_batches(dir);
    let log = segment.with_extension("log");
    let last = fs::metadata(&log).unwrap().len() - batch(["last"]).bytes().len() as u64;
    // The byte says which format the batch has.
    overwrite(&log, last + 16, b"?");
    // Without its index the segment is walked at the start, and the damage found then.
    move_dir(&segment.with_extension("index"), &dir.path().join("aside"));
}

#[test]
fn a_transaction_or_step_that_a_damaged_partition_refuses_ends_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    damaged_end(&dir);
    let node = Node::open(config(&dir));
    node.create("u", 1).unwrap();
    node.say("u", 0, "read").unwrap();

    let init =
        || node.wait(node.broker.init_transactions(&node.context, InitTransactions::new("x"))).unwrap();
    let producer = init();
    let send = |topic: &str| {
        let sequence = ProducerSequence { id: producer.id, epoch: producer.epoch, base_sequence: 0 };
        let record = ProduceRecord { value: Some("written".into()), ..ProduceRecord::default() };
        let payload = Payload::InTransaction(sequence, vec![record]);
        let (topic, partition) = (topic.to_owned(), Some(0));
        let produce = Produce { topic, partition, payload, acks: Acks::Durable, sent_at: None };
        node.produce(produce).unwrap().remove(0).outcome
    };
    send("u").unwrap();
    assert_eq!(send("t").unwrap_err().reason(), Reason::PartitionFailed);
    node.wait(node.broker.end_transaction(&node.context, "x", producer, Outcome::Abort)).unwrap();
    init();

    let join = JoinGroup::topics("g", ["u"]);
    let mut member = node.broker.join_group(&node.context, join).unwrap();
    let mine = assigned(&node, &mut member);
    let step = |topics: &[&str]| {
        let header = StepHeader {
            group: "g".into(),
            unit: mine.unit.clone(),
            unit_epoch: mine.epoch,
            sequence: 0,
            offsets: vec![OffsetToCommit::new("u", 0, Offset(1))],
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            total_bytes: topics.len() as u64,
        };
        let mut step = node.broker.begin_step(&node.context, header).unwrap();
        for topic in topics {
            let record = ProduceRecord { value: Some("s".into()), ..ProduceRecord::default() };
            step.append(topic, Some(0), Payload::Records(vec![record])).unwrap();
        }
        node.wait(step.commit())
    };
    assert_eq!(step(&["t", "u"]).unwrap_err().reason(), Reason::PartitionFailed);
    step(&["u"]).unwrap();
    assert_eq!(node.read_all("u", 0).unwrap(), ["read", "s"]);
    // Nothing holds the unit.
    member.handle().leave().unwrap();
    while node.wait(node.broker.delete_group(&node.context, "g")).is_err() {
        std::thread::yield_now();
    }
    node.broker.close().unwrap();
}

#[test]
fn a_reader_never_takes_damage_for_the_end() {
    let dir = tempfile::tempdir().unwrap();
    damaged_end(&dir);
    let node = Node::open(config(&dir));
    assert_eq!(node.broker.open_report().failed.len(), 1);
    assert_eq!(node.say("t", 0, "behind it").unwrap_err().reason(), Reason::PartitionFailed);
    // What lies before it can be read; whoever asks for more hears why there is none.
    assert_eq!(node.read_all("t", 0).unwrap().len(), 2);
    let at_end = FetchFrom::new("t", 0, Position::Latest);
    let data = node.fetch(Fetch::new(vec![at_end])).unwrap().remove(0);
    assert_eq!(data.error.unwrap().reason(), Reason::DataCorrupt);
    node.broker.close().unwrap();
}
