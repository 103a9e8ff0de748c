//! Partitions that are not where the list of topics has them, seen without a node.

#![expect(clippy::disallowed_methods, reason = "the operator's hands")]

use std::fs;
use std::path::{Path, PathBuf};

use logmill_broker::{Broker, Misplaced, OpenErrorKind, Topic, TopicList};
use logmill_log::env::Env;
use logmill_log::inspect::{Report, list, plan_repair, verify};
use logmill_log::{Log, LogOptions, SetOptions};

use crate::common::{Node, config};

/// A closed node: topic `t` of three partitions with a record in each, topic `u` of one without.
fn ran(dir: &tempfile::TempDir) -> (Topic, Topic) {
    let node = Node::open(config(dir));
    let topics = (node.create("t", 3).unwrap(), node.create("u", 1).unwrap());
    node.create("gone", 2).unwrap();
    node.delete("gone").unwrap();
    for partition in 0..3 {
        node.say("t", partition, &format!("in {partition}")).unwrap();
    }
    node.broker.close().unwrap();
    topics
}

fn at(topic: &Topic, partition: &str) -> PathBuf {
    Path::new("topics").join(topic.id.to_string()).join(partition)
}

fn look(dir: &tempfile::TempDir) -> (Report, Vec<Misplaced>) {
    let report = verify(&Env::real(), dir.path(), &mut |_| ()).unwrap();
    let misplaced = TopicList::read(&Env::real(), dir.path()).unwrap().check(&report);
    (report, misplaced)
}

/// Where something is wrong, and what.
fn wrong(dir: &tempfile::TempDir) -> Vec<(PathBuf, String)> {
    look(dir).1.into_iter().map(|it| (it.path, it.what)).collect()
}

#[test]
fn a_directory_as_a_node_left_it_has_everything_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    ran(&dir);
    let (report, misplaced) = look(&dir);
    assert!(!report.is_damaged() && misplaced.is_empty(), "{misplaced:?}");
    let single = tempfile::tempdir().unwrap();
    Log::open(single.path(), SetOptions::default(), LogOptions::default()).unwrap().close().unwrap();
    assert!(look(&single).1.is_empty(), "an embedding program has no topics");
}

#[test]
fn a_partition_that_is_gone_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (t, u) = ran(&dir);
    fs::remove_dir_all(dir.path().join(at(&t, "1"))).unwrap();
    fs::remove_dir_all(dir.path().join(at(&u, "0"))).unwrap();
    let mut expected = [
        (at(&t, "1"), "partition 1 of topic \"t\" is not there".to_owned()),
        (at(&u, "0"), "partition 0 of topic \"u\" is not there".to_owned()),
    ];
    expected.sort();
    let mut found = wrong(&dir);
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn directories_that_changed_places_are_named_with_the_right_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (t, _) = ran(&dir);
    let [zero, one, aside] = ["0", "1", "x"].map(|name| dir.path().join(at(&t, name)));
    fs::rename(&zero, &aside).unwrap();
    fs::rename(&one, &zero).unwrap();
    fs::rename(&aside, &one).unwrap();
    let belongs = |number: &str| {
        format!("it is partition {number} of topic \"t\", and belongs in {}", at(&t, number).display())
    };
    assert_eq!(wrong(&dir), [(at(&t, "0"), belongs("1")), (at(&t, "1"), belongs("0"))]);
}

#[test]
fn records_that_no_topic_owns_are_named() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (t, _) = ran(&dir);
    let (foreign, empty) = ran(&other);
    for topic in [&foreign, &empty] {
        let path = Path::new("topics").join(topic.id.to_string());
        fs::rename(other.path().join(&path), dir.path().join(path)).unwrap();
    }
    fs::rename(dir.path().join(at(&t, "2")), dir.path().join(at(&t, "7"))).unwrap();
    let found = wrong(&dir);
    let has = |path: PathBuf, word: &str| found.iter().any(|it| it.0 == path && it.1.contains(word));
    for number in ["0", "1", "2"] {
        assert!(has(at(&foreign, number), "no topic of this identity"), "{found:?}");
    }
    assert!(look(&dir).1.iter().any(|it| it.advice.contains("logmill log rebuild-topics")));
    assert!(has(at(&t, "7"), "has 3 partitions") && has(at(&t, "2"), "is not there"), "{found:?}");
    assert_eq!(found.len(), 5, "what holds no records the next start takes away: {found:?}");
    let report = look(&dir).0;
    let unlisted = TopicList::read(&Env::real(), dir.path()).unwrap().unlisted(&report.logs);
    assert_eq!(unlisted.into_iter().collect::<Vec<_>>(), ["t"]);
}

#[test]
fn topics_without_their_list_are_one_finding() {
    let dir = tempfile::tempdir().unwrap();
    ran(&dir);
    fs::remove_dir_all(dir.path().join("internal")).unwrap();
    let found = look(&dir).1;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].advice.contains("rebuild-topics"), "{found:?}");
}

#[test]
fn a_directory_that_has_lost_every_log_is_one_finding() {
    let dir = tempfile::tempdir().unwrap();
    ran(&dir);
    for name in ["internal", "topics"] {
        fs::remove_dir_all(dir.path().join(name)).unwrap();
    }
    let found = look(&dir).1;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].what.contains("its checkpoint speaks of 7 logs, and none is there"), "{found:?}");
    assert!(found[0].advice.contains("mount or restore internal/ and topics/"), "{found:?}");
    fs::remove_file(dir.path().join("checkpoint")).unwrap();
    assert!(look(&dir).1.is_empty(), "nothing says that there were logs");
}

#[test]
fn a_list_that_is_damaged_calls_nothing_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (t, _) = ran(&dir);
    let log = dir.path().join("internal/metadata/00000000000000000000.log");
    let mut bytes = fs::read(&log).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&log, bytes).unwrap();
    fs::remove_dir_all(dir.path().join(at(&t, "1"))).unwrap();
    let (report, misplaced) = look(&dir);
    assert!(report.is_damaged() && misplaced.is_empty(), "the topic may have been deleted: {misplaced:?}");
}

#[test]
fn a_partition_whose_meta_was_lost_is_served_after_a_repair() {
    let dir = tempfile::tempdir().unwrap();
    let (t, u) = ran(&dir);
    fs::remove_file(dir.path().join(at(&t, "1")).join("meta")).unwrap();
    for damaged in [at(&t, "2"), at(&u, "0")] {
        fs::write(dir.path().join(damaged).join("meta"), "damaged").unwrap();
    }
    assert!(look(&dir).1.is_empty(), "the logs themselves say so");

    let topics = TopicList::read(&Env::real(), dir.path()).unwrap();
    let plan = plan_repair(&Env::real(), dir.path(), &mut |_| ()).unwrap();
    plan.with_owners(|log| topics.owner_of(log)).unwrap().execute().unwrap();
    let (report, misplaced) = look(&dir);
    assert!(!report.is_damaged() && misplaced.is_empty(), "{misplaced:?} {:?}", report.findings);
    let node = Node::open(config(&dir));
    assert!(node.broker.open_report().failed.is_empty(), "{:?}", node.broker.open_report());
    for partition in 0..3 {
        assert_eq!(node.read_all("t", partition).unwrap(), [format!("in {partition}")]);
    }
    node.broker.close().unwrap();
}

#[test]
fn a_meta_that_does_not_say_whose_it_is_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (t, _) = ran(&dir);
    fs::remove_file(dir.path().join(at(&t, "1")).join("meta")).unwrap();
    plan_repair(&Env::real(), dir.path(), &mut |_| ()).unwrap().execute().unwrap();
    let found = wrong(&dir);
    assert!(found.len() == 1 && found[0].0 == at(&t, "1"), "{found:?}");
    assert!(found[0].1.contains("does not say which topic"), "{found:?}");
}

#[test]
fn a_start_that_is_refused_leaves_a_clean_directory_clean() {
    let dir = tempfile::tempdir().unwrap();
    ran(&dir);
    fs::remove_dir_all(dir.path().join("internal")).unwrap();
    Broker::open(config(&dir)).expect_err("the metadata is missing");
    let listing = list(&Env::real(), dir.path()).unwrap();
    assert!(listing.clean, "nothing was written that could be torn");
    assert_eq!(listing.open_counter, Some(2), "it was open all the same");
}

#[test]
fn the_directory_of_a_single_log_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    Log::open(dir.path(), SetOptions::default(), LogOptions::default()).unwrap().close().unwrap();
    let files = || {
        let mut files: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = files();
    let error = Broker::open(config(&dir)).expect_err("it is not a node's");
    assert_eq!(error.kind(), OpenErrorKind::NotADataDirectory, "{error}");
    assert!(error.to_string().contains("a single log of a program that embeds"), "{error}");
    let error = logmill_broker::plan_rebuild(&Env::real(), dir.path()).map(drop).unwrap_err();
    assert_eq!(error.kind(), OpenErrorKind::NotADataDirectory, "{error}");
    assert_eq!(files(), before);
}
