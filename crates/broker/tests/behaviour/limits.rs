//! What is bounded: over each bound a typed error that names it, nothing half done, and a count of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use logmill_broker::{
    Broker, Config, CreateTopic, Error, Fetch, FetchFrom, Limit, LimitStats, Limits, OpenErrorKind, Position,
    Reason, Subscribe, TopicSettings,
};
use logmill_log::sim::Sim;

use crate::common::hook_fs::{Call, Gate, hooked};
use crate::common::{Node, config, records, small, with_env};

fn limited(dir: &tempfile::TempDir, limits: Limits) -> Node {
    Node::open(Config { limits, ..config(dir) })
}

fn stands(node: &Node, limit: Limit) -> LimitStats {
    node.broker.stats().limits.into_iter().find(|stats| stats.limit == limit).unwrap()
}

/// Used, peak, refused.
fn counts(node: &Node, limit: Limit) -> (usize, usize, u64) {
    let LimitStats { used, peak, refused, .. } = stands(node, limit);
    (used, peak, refused)
}

fn is_over(error: &Error, limit: Limit, value: usize) {
    assert_eq!(error.reason(), Reason::LimitExceeded, "{error}");
    assert!(error.metadata().contains(&("limit", limit.as_str().to_owned())), "{error:?}");
    assert!(error.metadata().contains(&("value", value.to_string())), "{error:?}");
    assert!(error.message().contains(limit.as_str()), "{error}");
}

#[test]
fn the_guide_lists_every_limit_with_its_default() {
    let guide = include_str!("../../../../docs/guide.md");
    for limit in Limit::ALL {
        let line = guide.lines().find(|line| line.starts_with(&format!("| `{limit}` |")));
        let line = line.unwrap_or_else(|| panic!("{limit} is not in docs/guide.md"));
        let default = Limits::default().get(*limit).to_string();
        let plain = line.replace(',', "");
        assert!(plain.contains(&format!("| {default} |")), "{limit} is {default}: {line}");
    }
}

#[test]
fn a_limit_is_found_set_and_read_by_its_name() {
    let mut limits = Limits::default();
    for (value, limit) in (1..).zip(Limit::ALL) {
        assert_eq!(Limit::find(limit.as_str()), Some(*limit));
        limits.set(*limit, value);
    }
    for (value, limit) in (1..).zip(Limit::ALL) {
        assert_eq!(limits.get(*limit), value, "{limit}");
        assert_eq!(*limit as usize + 1, value, "{limit} has its place");
    }
    assert_eq!(Limit::find("max_nonsense"), None);
}

#[test]
fn more_topics_and_partitions_than_there_may_be_are_refused_and_nothing_is_made_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let limits =
        Limits { max_topics: 3, max_partitions: 5, max_partitions_per_topic: 4, ..Limits::default() };
    let node = limited(&dir, limits);
    node.create("a", 2).unwrap();
    let directories = || std::fs::read_dir(dir.path().join("topics")).unwrap().count();
    is_over(&node.create("b", 5).unwrap_err(), Limit::MaxPartitionsPerTopic, 4);
    is_over(&node.create("b", 4).unwrap_err(), Limit::MaxPartitions, 5);
    assert_eq!(directories(), 1);
    let grow = |count| node.wait(node.broker.add_partitions(&node.context, "a", count));
    is_over(&grow(5).unwrap_err(), Limit::MaxPartitionsPerTopic, 4);
    grow(3).unwrap();
    node.create("b", 1).unwrap();
    node.create("c", 1).unwrap();
    is_over(&grow(4).unwrap_err(), Limit::MaxPartitions, 5);
    is_over(&node.create("d", 1).unwrap_err(), Limit::MaxTopics, 3);
    assert_eq!((directories(), counts(&node, Limit::MaxTopics)), (3, (3, 3, 1)));
    assert_eq!(counts(&node, Limit::MaxPartitions), (5, 5, 2));
    node.delete("b").unwrap();
    node.create("d", 1).unwrap();
    node.broker.close().unwrap();
}

#[test]
fn topics_that_there_are_stay_also_where_there_are_more_than_there_may_be_now() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("a", 2).unwrap();
    node.create("b", 2).unwrap();
    node.broker.close().unwrap();
    let node = limited(&dir, Limits { max_topics: 1, max_partitions: 1, ..Limits::default() });
    assert_eq!(counts(&node, Limit::MaxTopics), (2, 2, 0));
    node.say("b", 1, "still").unwrap();
    node.delete("b").unwrap();
    is_over(&node.create("b", 1).unwrap_err(), Limit::MaxTopics, 1);
    node.broker.close().unwrap();
}

#[test]
fn subscriptions_have_a_bound_and_one_that_ends_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let node = limited(&dir, Limits { max_subscriptions: 2, ..Limits::default() });
    node.create("t", 1).unwrap();
    let subscribe = || {
        let partitions = vec![FetchFrom::new("t", 0, Position::Earliest)];
        node.wait(node.broker.subscribe(&node.context, Subscribe::new(partitions, 1_000)))
    };
    let first = subscribe().unwrap();
    let _second = subscribe().unwrap();
    is_over(&subscribe().unwrap_err(), Limit::MaxSubscriptions, 2);
    drop(first);
    drop(subscribe().unwrap());
    assert_eq!(counts(&node, Limit::MaxSubscriptions), (1, 2, 1));
    node.broker.close().unwrap();
}

#[test]
fn places_in_a_search_for_offsets_have_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let node = limited(&dir, Limits { max_positions: 2, ..Limits::default() });
    node.create("t", 1).unwrap();
    let search = |count| {
        let positions = vec![(0, Position::Latest); count];
        node.wait(node.broker.list_offsets(&node.context, "t", positions))
    };
    assert_eq!(search(2).unwrap().len(), 2);
    is_over(&search(3).unwrap_err(), Limit::MaxPositions, 2);
    assert_eq!(counts(&node, Limit::MaxPositions), (0, 2, 1));
    node.broker.close().unwrap();
}

#[test]
fn while_replies_take_all_the_room_a_fetch_is_refused_and_a_subscription_waits() {
    let dir = tempfile::tempdir().unwrap();
    let node = limited(&dir, Limits { max_reply_bytes: 5_000, ..Limits::default() });
    node.create("t", 1).unwrap();
    for _ in 0..4 {
        node.produce(records("t", Some(0), [vec![b'x'; 3_000]])).unwrap().remove(0).outcome.unwrap();
    }
    let subscribe = || {
        let partitions = vec![FetchFrom::new("t", 0, Position::Earliest)];
        node.wait(node.broker.subscribe(&node.context, Subscribe::new(partitions, 1_000_000))).unwrap()
    };
    let fetch = || node.fetch(Fetch::new(vec![FetchFrom::new("t", 0, Position::Earliest)]));
    let mut holder = subscribe();
    let held = node.wait(holder.next()).unwrap().size_bytes();
    let mut other = subscribe();
    let more = node.wait(other.next()).unwrap().size_bytes();
    assert!(held + more > 5_000, "the first batch is whole");
    is_over(&fetch().unwrap_err(), Limit::MaxReplyBytes, 5_000);
    assert_eq!(counts(&node, Limit::MaxReplyBytes).0, held + more);

    let mut waits = subscribe();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| node.wait(waits.next()).unwrap().size_bytes());
        while counts(&node, Limit::MaxReplyBytes).2 < 2 {
            std::thread::yield_now();
        }
        drop((holder, other));
        assert!(waiting.join().unwrap() > 0);
    });
    drop(waits);
    assert!(!fetch().unwrap().remove(0).chunks.is_empty());
    assert_eq!(counts(&node, Limit::MaxReplyBytes).0, 0);
    node.broker.close().unwrap();
}

#[test]
fn who_waits_for_room_among_replies_keeps_no_turn_to_read() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, armed) = (Arc::new(Gate::default()), Arc::new(AtomicBool::new(false)));
    let stall = {
        let (gate, armed) = (Arc::clone(&gate), Arc::clone(&armed));
        move |call, path: &Path| {
            let is_0 = path.parent().and_then(Path::file_name) == Some("0".as_ref());
            if call == Call::Read && is_0 && armed.load(Ordering::SeqCst) {
                gate.pass();
            }
            Ok(())
        }
    };
    let limits = Limits { max_reply_bytes: 5_000, max_partition_reads: 1, ..Limits::default() };
    let node = Node::open(Config { limits, ..with_env(&dir, hooked(stall)) });
    node.create("t", 2).unwrap();
    for partition in [0, 1] {
        node.produce(records("t", Some(partition), [vec![b'x'; 6_000]])).unwrap().remove(0).outcome.unwrap();
    }
    let subscribe = |partition| {
        let partitions = vec![FetchFrom::new("t", partition, Position::Earliest)];
        let subscribe = Subscribe::new(partitions, 1_000_000);
        node.wait(node.broker.subscribe(&node.context, subscribe)).unwrap()
    };
    let (mut holder, mut waits) = (subscribe(1), subscribe(0));
    armed.store(true, Ordering::SeqCst);
    let search = || {
        let by_time = vec![(0, Position::Time(logmill_record::TimestampMs(0)))];
        node.wait(node.broker.list_offsets(&node.context, "t", by_time)).unwrap()
    };
    std::thread::scope(|scope| {
        // It has the turn, and the subscription is next in line.
        let first = scope.spawn(search);
        gate.wait_for_someone();
        let waiting = scope.spawn(|| node.wait(waits.next()).unwrap().size_bytes());
        while counts(&node, Limit::MaxPartitionReads).2 == 0 {
            std::thread::yield_now();
        }
        assert!(node.wait(holder.next()).unwrap().size_bytes() > 5_000);
        gate.open();
        first.join().unwrap();
        while counts(&node, Limit::MaxReplyBytes).2 == 0 {
            std::thread::yield_now();
        }
        search();
        drop(holder);
        assert!(waiting.join().unwrap() > 0);
    });
    drop(waits);
    node.broker.close().unwrap();
}

#[test]
fn a_fetch_that_finds_nothing_takes_no_room_and_one_that_has_some_answers_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let node = limited(&dir, Limits { max_reply_bytes: 1, ..Limits::default() });
    node.create("t", 2).unwrap();
    let from = |partition| FetchFrom::new("t", partition, Position::Earliest);
    assert!(node.fetch(Fetch::new(vec![from(0), from(1)])).unwrap()[0].chunks.is_empty());
    node.say("t", 0, "a").unwrap();
    node.say("t", 1, "b").unwrap();
    let read = node.fetch(Fetch::new(vec![from(0), from(1)])).unwrap();
    assert_eq!(read.iter().filter(|data| !data.chunks.is_empty()).count(), 1, "one batch, and no more");
    node.broker.close().unwrap();
}

#[test]
fn what_waits_to_be_written_is_counted_until_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let stall = {
        let gate = Arc::clone(&gate);
        move |call, path: &Path| {
            if call == Call::Write && path.extension() == Some("log".as_ref()) && in_topic(path) {
                gate.pass();
            }
            Ok(())
        }
    };
    let limits = Limits { max_queued_bytes: 10_000, ..Limits::default() };
    let node = Node::open(Config { limits, ..with_env(&dir, hooked(stall)) });
    node.create("t", 2).unwrap();
    let big = |partition| records("t", Some(partition), [vec![b'x'; 3_000]]);
    let accepted = [0, 1].map(|partition| node.broker.produce(&node.context, big(partition)));
    gate.wait_for_someone();
    let refused = node.wait(node.broker.produce(&node.context, records("t", Some(0), [vec![b'x'; 8_000]])));
    is_over(&refused.unwrap().remove(0).outcome.unwrap_err(), Limit::MaxQueuedBytes, 10_000);
    let (used, peak, refused) = counts(&node, Limit::MaxQueuedBytes);
    assert!((6_000..10_000).contains(&used) && peak == used && refused == 1, "{used} {peak} {refused}");
    let one = counts(&node, Limit::MaxPartitionQueuedBytes);
    assert!(one.0 == used && one.1 == used / 2, "together, and in any single one: {one:?}");
    gate.open();
    for call in accepted {
        node.wait(call).unwrap().remove(0).outcome.unwrap();
    }
    assert_eq!(node.end("t", 0).get(), 1, "nothing of what was refused was written");
    assert_eq!(counts(&node, Limit::MaxQueuedBytes).0, 0);
    node.broker.close().unwrap();
}

fn in_topic(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "topics")
}

#[test]
fn changes_of_topics_that_wait_have_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, armed) = (Arc::new(Gate::default()), Arc::new(AtomicBool::new(false)));
    let stall = {
        let (gate, armed) = (Arc::clone(&gate), Arc::clone(&armed));
        move |call, _: &Path| {
            if call == Call::Sync && armed.load(Ordering::SeqCst) {
                gate.pass();
            }
            Ok(())
        }
    };
    let limits = Limits { max_queued_topic_changes: 2, ..Limits::default() };
    let node = Node::open(Config { limits, ..with_env(&dir, hooked(stall)) });
    armed.store(true, Ordering::SeqCst);
    let create = |name: &str| node.broker.create_topic(&node.context, CreateTopic::new(name));
    let waiting = [create("a"), create("b")];
    gate.wait_for_someone();
    is_over(&node.wait(create("c")).unwrap_err(), Limit::MaxQueuedTopicChanges, 2);
    assert_eq!(counts(&node, Limit::MaxQueuedTopicChanges), (2, 2, 1));
    gate.open();
    for call in waiting {
        node.wait(call).unwrap();
    }
    node.create("c", 1).unwrap();
    node.broker.close().unwrap();
}

#[test]
fn a_node_that_could_do_nothing_or_has_a_wrong_default_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |config: Config, says: &[&str]| {
        let error = Broker::open(config).unwrap_err();
        assert_eq!(error.kind(), OpenErrorKind::Configuration, "{error}");
        assert!(says.iter().all(|says| error.to_string().contains(says)), "{error}");
    };
    let limits = Limits { max_topics: 0, ..Limits::default() };
    refused(Config { limits, ..config(&dir) }, &["max_topics", "at least 1"]);
    let topic_defaults = TopicSettings::new([("max.message.bytes", "9000000")]).unwrap();
    refused(Config { topic_defaults, ..config(&dir) }, &["max.message.bytes", "max_batch_bytes", "9000000"]);
    let limits = Limits { max_batch_bytes: 1_000_000, ..Limits::default() };
    refused(Config { limits, ..config(&dir) }, &["max.message.bytes", "1048588"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn a_producer_that_is_silent_for_as_long_as_the_node_says_is_forgotten() {
    use logmill_broker::{Acks, Payload, Produce, ProducerSequence};
    let sim = Sim::new(11);
    let expiration = Duration::from_mins(10);
    let node = Node::open(Config { env: sim.env(), producer_id_expiration: expiration, ..small("/data") });
    node.create("t", 1).unwrap();
    let sequence = ProducerSequence { id: 7, epoch: 0, base_sequence: 0 };
    let again = || {
        let produce = Produce {
            topic: "t".into(),
            partition: Some(0),
            payload: Payload::Numbered(sequence, vec![crate::common::record("x")]),
            acks: Acks::Durable,
            sent_at: None,
        };
        node.produce(produce).unwrap().remove(0).outcome.unwrap().duplicate
    };
    assert!(!again() && again());
    sim.scheduler.run_for(expiration / 2);
    assert!(again());
    sim.scheduler.run_for(expiration + Duration::from_mins(1));
    assert!(!again(), "it is taken for a new one");
    node.broker.close().unwrap();
}

/// A node with a topic whose segment file cannot be synced until the gate opens.
fn unsynced(dir: &tempfile::TempDir) -> (Node, Arc<Gate>) {
    let (gate, armed) = (Arc::new(Gate::default()), Arc::new(AtomicBool::new(false)));
    let stall = {
        let (gate, armed) = (Arc::clone(&gate), Arc::clone(&armed));
        move |call, path: &Path| {
            let data = in_topic(path) && path.extension() == Some("log".as_ref());
            if call == Call::Sync && data && armed.load(Ordering::SeqCst) {
                gate.pass();
            }
            Ok(())
        }
    };
    let node = Node::open(with_env(dir, hooked(stall)));
    node.create("hangs", 1).unwrap();
    armed.store(true, Ordering::SeqCst);
    (node, gate)
}

#[test]
fn a_stop_does_not_wait_for_ever_for_a_sync_that_hangs_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let (node, gate) = unsynced(&dir);
    let waits = node.broker.produce(&node.context, records("hangs", Some(0), ["x"]));
    gate.wait_for_someone();
    let error = node.broker.close_within(Duration::from_millis(200)).unwrap_err();
    assert_eq!(error.reason(), Reason::IoFailed);
    assert!(error.message().contains("partition 0 of topic \"hangs\""), "{error}");
    assert!(!gate.is_open());
    gate.open();
    // The close goes on by itself, and the answer is the truth.
    node.wait(waits).unwrap().remove(0).outcome.unwrap();
    let node = loop {
        match Broker::open(config(&dir)) {
            Ok(broker) => break Node::of(broker),
            Err(error) => assert_eq!(error.kind(), OpenErrorKind::InUse, "{error}"),
        }
    };
    assert_eq!(node.read_all("hangs", 0).unwrap(), ["x"]);
    node.broker.close_within(Duration::from_secs(60)).unwrap();
}
