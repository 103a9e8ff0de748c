//! Partitions that lose what was read from them, and readers who are told so.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use logmill_broker::{
    Acks, Config, CreateTopic, Error, Fetch, FetchFrom, PartitionData, Position, Reason, Subscribe,
    TopicSettings,
};
use logmill_log::env::Env;
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_record::Offset;

use crate::common::{Node, records, small, text};

const DAY_MS: &str = "86400000";

fn open(env: Env) -> Node {
    Node::open(Config { env, ..small("/data") })
}

/// A node with a topic of which nothing is on disk before somebody asks.
fn relaxed(sim: &Sim) -> Node {
    let node = open(sim.env());
    let settings = TopicSettings::new([("durability", "relaxed"), ("flush.ms", DAY_MS)]).unwrap();
    let create = CreateTopic::new("t").partitions(2).settings(settings);
    node.wait(node.broker.create_topic(&node.context, create)).unwrap();
    node
}

/// Records that are only written.
fn write(node: &Node, values: &[&str]) {
    let produce = logmill_broker::Produce { acks: Acks::Written, ..records("t", Some(0), values) };
    node.produce(produce).unwrap().remove(0).outcome.unwrap();
}

fn at(offset: u64, last_epoch: Option<i32>) -> FetchFrom {
    FetchFrom { last_epoch, ..FetchFrom::new("t", 0, Position::Offset(Offset(offset))) }
}

fn read(node: &Node, from: FetchFrom) -> PartitionData {
    node.fetch(Fetch::new(vec![from])).unwrap().remove(0)
}

/// Fails a sync of partition 0, and waits until it is open again.
fn fail_a_sync(sim: &Sim, node: &Node) {
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/0/*.log"));
    assert_eq!(node.say("t", 0, "never on disk").unwrap_err().reason(), Reason::OutcomeUnknown);
    sim.scheduler.run_for(Duration::from_millis(200));
}

fn diverging(error: &Error) -> u64 {
    assert_eq!(error.reason(), Reason::LogTruncated, "{error}");
    let value = |wanted| error.metadata().iter().find(|(name, _)| *name == wanted).unwrap().1.clone();
    assert!(error.message().contains(&format!("go on at {}", value("diverging_offset"))), "{error}");
    value("diverging_offset").parse().unwrap()
}

#[test]
fn a_reader_of_records_that_a_failed_sync_took_is_told_where_they_end() {
    let sim = Sim::new(1);
    let node = relaxed(&sim);
    node.say("t", 0, "kept").unwrap();
    write(&node, &["lost", "lost too"]);
    let seen = read(&node, at(0, None));
    assert_eq!((text(&seen).len(), seen.next_offset), (3, Offset(3)));
    assert!(seen.last_epoch.is_some());

    fail_a_sync(&sim, &node);
    // Before others have the offsets, and when they have.
    let answer = read(&node, at(3, seen.last_epoch));
    assert_eq!(diverging(&answer.error.unwrap()), 1);
    node.say("t", 0, "b").unwrap();
    node.say("t", 0, "c").unwrap();
    node.say("t", 0, "d").unwrap();
    let answer = read(&node, at(3, seen.last_epoch));
    assert!(answer.chunks.is_empty());
    assert_eq!(diverging(&answer.error.unwrap()), 1);
    let again = read(&node, at(1, None));
    assert_eq!(text(&again), ["b", "c", "d"]);
    assert!(again.last_epoch > seen.last_epoch);
    assert!(read(&node, at(4, again.last_epoch)).error.is_none());
    node.broker.close().unwrap();
}

#[test]
fn a_reader_of_records_that_a_power_cut_took_is_told_after_the_restart() {
    let mut lost = 0;
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        let node = relaxed(&sim);
        node.say("t", 0, "kept").unwrap();
        let kept = read(&node, at(0, None));
        for _ in 0..30 {
            write(&node, &["lost"]);
        }
        let seen = read(&node, at(0, None));
        let node = open(sim.crash());
        let end = node.end("t", 0).get();
        if end < 31 {
            lost += 1;
            let answer = read(&node, at(31, seen.last_epoch));
            assert_eq!(diverging(&answer.error.unwrap()), end, "seed {seed}");
        }
        for _ in end..40 {
            node.say("t", 0, "another").unwrap();
        }
        let answer = read(&node, at(31, seen.last_epoch));
        assert_eq!(answer.error.map(|error| diverging(&error)), (end < 31).then_some(end), "seed {seed}");
        assert!(read(&node, at(1, kept.last_epoch)).error.is_none(), "what it has is there");
        node.broker.close().unwrap();
    }
    assert!(lost > 5, "{lost} of 20 power cuts took something");
}

#[test]
fn a_reader_that_has_lost_nothing_reads_on_over_restarts_and_deletions() {
    let sim = Sim::new(3);
    let mut node = relaxed(&sim);
    let mut last_epoch = None;
    for round in 0..5_u64 {
        node.say("t", 0, "x").unwrap();
        let data = read(&node, at(round, last_epoch));
        assert_eq!((data.error.map(|error| error.to_string()), data.next_offset), (None, Offset(round + 1)));
        assert!(data.last_epoch > last_epoch, "each start has its epoch");
        assert_eq!(data.last_stable_offset, data.end_offset);
        last_epoch = data.last_epoch;
        let at_end = read(&node, at(round + 1, last_epoch));
        assert!(at_end.error.is_none() && at_end.last_epoch == last_epoch);
        node.broker.close().unwrap();
        node = open(sim.env());
    }
    // Nothing is left before the start that could tell.
    let delete = logmill_broker::DeleteRecords { topic: "t".into(), partitions: vec![(0, Some(Offset(3)))] };
    node.wait(node.broker.delete_records(&node.context, delete)).unwrap();
    assert_eq!(text(&read(&node, at(3, Some(1)))), ["x", "x"]);
    let earliest = FetchFrom { last_epoch: Some(1), ..FetchFrom::new("t", 0, Position::Earliest) };
    assert_eq!(text(&read(&node, earliest)), ["x", "x"], "an epoch goes with an offset");
    assert_eq!(read(&node, at(2, Some(1))).error.unwrap().reason(), Reason::OffsetOutOfRange);
    node.broker.close().unwrap();
}

/// What waits or follows in the process that lost the records is told as well, though nobody told it an epoch.
#[test]
fn those_who_read_on_while_a_partition_is_opened_again_are_told() {
    let sim = Sim::new(4);
    let node = relaxed(&sim);
    node.say("t", 0, "kept").unwrap();
    write(&node, &["lost", "lost too"]);
    let subscribe = |partitions| {
        let request = Subscribe::new(partitions, 1 << 20);
        node.wait(node.broker.subscribe(&node.context, request)).unwrap()
    };
    let both = || vec![FetchFrom::new("t", 0, Position::Earliest), FetchFrom::new("t", 1, Position::Latest)];
    let mut follower = subscribe(both());
    assert_eq!(text(&node.wait(follower.next()).unwrap()).len(), 3);
    let mut idle = subscribe(vec![FetchFrom::new("t", 0, Position::Latest)]);
    let started = idle.started()[0].clone();
    assert!(started.last_epoch.is_some(), "though nothing has come of it yet");
    let poll = Fetch::new(vec![at(3, None)]).max_wait(Duration::from_secs(30));
    let mut poll = pin!(node.broker.fetch(&node.context, poll));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        assert!(poll.as_mut().poll(&mut context).is_pending());
        sim.scheduler.run_until_idle();
    }

    fail_a_sync(&sim, &node);
    for _ in 0..9 {
        node.say("t", 0, "another").unwrap();
    }
    let told = node.wait(poll).unwrap().remove(0);
    assert_eq!(diverging(&told.error.unwrap()), 1);
    let told = node.wait(follower.next()).unwrap();
    assert_eq!((diverging(&told.error.unwrap()), told.partition), (1, 0));
    let told = node.wait(idle.next()).unwrap();
    assert_eq!(diverging(&told.error.unwrap()), 1);
    node.say("t", 1, "goes on").unwrap();
    assert_eq!(text(&node.wait(follower.next()).unwrap()), ["goes on"]);

    // And one that comes back with the place that it was told.
    let answer = read(&node, at(3, started.last_epoch));
    assert_eq!(diverging(&answer.error.unwrap()), 1);
    let mut again = subscribe(vec![at(3, started.last_epoch)]);
    assert_eq!(diverging(again.started()[0].error.as_ref().unwrap()), 1);
    assert_eq!(node.wait(again.next()).unwrap_err().reason(), Reason::LogTruncated);
    node.broker.close().unwrap();
}

#[test]
fn a_poll_of_a_partition_that_cannot_be_opened_again_waits_and_says_why_it_brings_nothing() {
    let sim = Sim::new(5);
    let node = relaxed(&sim);
    node.say("t", 0, "kept").unwrap();
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/0/*.log").always());
    assert_eq!(node.say("t", 0, "x").unwrap_err().reason(), Reason::OutcomeUnknown);
    sim.scheduler.run_for(Duration::from_millis(150));
    // The log that was is closed, and none has taken its place.
    let clock = &node.broker.config().env.clock;
    let (begun, wait) = (clock.monotonic(), Duration::from_secs(5));
    let data = node.fetch(Fetch::new(vec![at(0, Some(1))]).max_wait(wait)).unwrap().remove(0);
    assert_eq!(clock.monotonic() - begun, wait);
    assert_eq!(data.error.unwrap().reason(), Reason::PartitionReopening);
    sim.fs.clear_rules();
    sim.scheduler.run_for(Duration::from_secs(31));
    assert_eq!(text(&read(&node, at(0, Some(1)))), ["kept"]);
    node.broker.close().unwrap();
}
