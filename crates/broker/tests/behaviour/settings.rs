//! What can be set for a topic, and what it does to what is produced and kept.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use logmill_broker::{
    Acks, Appended, Change, Config, CreateTopic, Error, Fetch, FetchFrom, Limits, Payload, Position, Produce,
    ProduceRecord, Reason, SettingChange, SettingSource, Topic, TopicSettings, decode,
};
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_record::{
    Batch, BatchBuilder, BatchOptions, Compression, NewRecord, Offset, TimestampMs, TimestampType,
};

use crate::common::hook_fs::{Call, Gate, gated, hooked, is_segment_of_0};
use crate::common::{
    Node, batch, config, failure, keyed, produce_batch, read_batches, record, records, simulated, with_env,
};

fn create(node: &Node, name: &str, settings: &[(&str, &str)]) -> Result<Topic, Error> {
    let settings = TopicSettings::new(settings.iter().copied())?;
    node.wait(node.broker.create_topic(&node.context, CreateTopic::new(name).settings(settings)))
}

fn alter(node: &Node, name: &str, changes: &[(&str, &str)]) -> Result<Topic, Error> {
    let changes = changes.iter().map(|(name, value)| SettingChange::set(*name, *value)).collect();
    node.wait(node.broker.alter_topic(&node.context, name, changes))
}

fn value<'a>(topic: &'a Topic, name: &str) -> (&'a str, SettingSource) {
    let setting = topic.settings.iter().find(|setting| setting.name == name).unwrap();
    (&setting.value, setting.source)
}

/// A batch of one record with a key, compressed.
fn compressed(codec: Compression, value: &[u8]) -> Batch {
    let mut builder = BatchBuilder::with_options(BatchOptions::new().compression(codec), 0);
    let record =
        NewRecord { timestamp: TimestampMs(1_000), key: Some(b"k"), value: Some(value), headers: &[] };
    builder.push(&record).unwrap();
    builder.build().unwrap()
}

#[test]
fn what_is_set_for_a_topic_is_in_force_and_lives_through_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    let created = create(&node, "t", &[("retention.ms", "86400000"), ("durability", "relaxed")]).unwrap();
    assert_eq!(value(&created, "retention.ms"), ("86400000", SettingSource::Topic));
    assert_eq!(value(&created, "durability"), ("relaxed", SettingSource::Topic));
    assert_eq!(value(&created, "retention.bytes"), ("-1", SettingSource::Default));
    node.broker.close().unwrap();

    let topic_defaults = TopicSettings::new([("retention.bytes", "1000000")]).unwrap();
    let node = Node::open(Config { topic_defaults, ..config(&dir) });
    let described = node.wait(node.broker.describe_topic(&node.context, "t")).unwrap().topic;
    assert_eq!(value(&described, "durability"), ("relaxed", SettingSource::Topic));
    assert_eq!(value(&described, "retention.bytes"), ("1000000", SettingSource::Node));
    node.broker.close().unwrap();
}

#[test]
fn a_setting_that_cannot_be_is_refused_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_batch_bytes: 2_000_000, ..Limits::default() };
    let node = Node::open(Config { limits, ..config(&dir) });
    for (name, bad, reason, says) in [
        ("retention.days", "1", Reason::SettingInvalid, "there is no setting"),
        ("retention.ms", "-2", Reason::SettingInvalid, "at least 0"),
        ("max.message.bytes", "2000001", Reason::LimitExceeded, "max_batch_bytes"),
    ] {
        let error = create(&node, "t", &[(name, bad)]).unwrap_err();
        assert_eq!(error.reason(), reason);
        assert!(error.message().contains(says), "{error}");
        assert!(error.metadata().contains(&("setting", name.to_owned())), "{error:?}");
    }
    create(&node, "t", &[("max.message.bytes", "2000000")]).unwrap();
    let error = alter(&node, "t", &[("retention.ms", "5"), ("max.message.bytes", "2000001")]).unwrap_err();
    assert_eq!(error.reason(), Reason::LimitExceeded);
    let described = node.wait(node.broker.describe_topic(&node.context, "t")).unwrap().topic;
    assert_eq!(value(&described, "retention.ms").0, "-1", "all changes are made, or none");
    node.broker.close().unwrap();
}

#[test]
fn a_durable_acknowledgement_of_a_relaxed_topic_waits_for_the_disk_that_readers_do_not_wait_for() {
    let sim = Sim::new(5);
    let node = simulated(&sim);
    create(&node, "t", &[("durability", "relaxed"), ("flush.ms", "60000")]).unwrap();
    let syncs = sim.fs.calls(Op::SyncData);
    let written = Produce { acks: Acks::Written, ..records("t", Some(0), ["seen"]) };
    node.produce(written).unwrap().remove(0).outcome.unwrap();
    assert_eq!(node.read_all("t", 0).unwrap(), ["seen"]);
    assert_eq!(sim.fs.calls(Op::SyncData), syncs, "nobody asked for a sync");
    node.say("t", 0, "synced").unwrap();
    assert_eq!(sim.fs.calls(Op::SyncData), syncs + 1);

    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*.log"));
    let error = node.say("t", 0, "visible, not durable").unwrap_err();
    assert_eq!(error.reason(), Reason::OutcomeUnknown);
}

#[test]
fn plain_records_are_compressed_by_the_topic_and_batches_of_another_codec_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    create(&node, "t", &[("compression.type", "zstd")]).unwrap();
    node.say("t", 0, &"a".repeat(10_000)).unwrap();
    node.produce(produce_batch("t", 0, compressed(Compression::Zstd, b"b").bytes().clone())).unwrap();
    for other in [Compression::None, Compression::Lz4] {
        let error = failure(&node, produce_batch("t", 0, compressed(other, b"c").bytes().clone()));
        assert_eq!(error.reason(), Reason::RecordRefused);
        assert!(error.metadata().contains(&("setting", "compression.type".to_owned())), "{error:?}");
    }
    let stored = read_batches(&node, "t", 0);
    assert_eq!(stored.len(), 2);
    assert!(stored.iter().all(|batch| batch.header().attributes.compression() == Compression::Zstd));
    assert!(stored[0].bytes().len() < 200);

    alter(&node, "t", &[("compression.type", "uncompressed")]).unwrap();
    node.produce(produce_batch("t", 0, compressed(Compression::None, b"c").bytes().clone())).unwrap();
    let error = failure(&node, produce_batch("t", 0, compressed(Compression::Zstd, b"d").bytes().clone()));
    assert_eq!(error.reason(), Reason::RecordRefused);
    assert_eq!(node.end("t", 0), Offset(3));
    node.broker.close().unwrap();
}

#[test]
fn records_that_do_not_shrink_are_taken_up_to_the_same_size_in_more_batches() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    create(&node, "t", &[("compression.type", "gzip"), ("max.message.bytes", "5000")]).unwrap();
    let mut seed = 1_u64;
    let mut noise = |len: usize| -> Vec<u8> {
        let next = |_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 56) as u8
        };
        (0..len).map(next).collect()
    };
    let sent: Vec<Vec<u8>> = (0..100).map(|_| noise(483)).collect();
    let results = node.produce(records("t", Some(0), &sent)).unwrap();
    let appended = *results[0].outcome.as_ref().unwrap();
    assert_eq!((appended.first_offset, appended.last_offset), (Offset(0), Offset(99)));
    let stored = read_batches(&node, "t", 0);
    assert!(stored.iter().all(|batch| batch.bytes().len() <= 5_000));
    let error = failure(&node, records("t", Some(0), [noise(4_990)]));
    assert_eq!(error.reason(), Reason::MessageTooLarge);
    node.broker.close().unwrap();
}

#[test]
fn a_compacted_topic_takes_no_record_without_a_key_and_keeps_the_last_of_each() {
    let sim = Sim::new(5);
    let node = simulated(&sim);
    let settings = [("cleanup.policy", "compact"), ("segment.bytes", "65536"), ("segment.ms", "1000")];
    create(&node, "t", &settings).unwrap();
    let keyed = |values: Vec<(&str, &str)>| Produce {
        topic: "t".into(),
        partition: Some(0),
        payload: Payload::Records(values.into_iter().map(|(key, value)| keyed(key, value)).collect()),
        acks: Acks::Durable,
        sent_at: None,
    };
    node.produce(keyed(vec![("a", "1"), ("b", "1"), ("", "empty is a key")])).unwrap();
    let mixed = Produce {
        payload: Payload::Records(vec![crate::common::keyed("a", "2"), record("keyless")]),
        ..keyed(vec![])
    };
    for produce in [mixed, produce_batch("t", 0, batch(["keyless"]).bytes().clone())] {
        let error = failure(&node, produce);
        assert_eq!(error.reason(), Reason::RecordRefused);
        assert!(error.message().contains("has no key"), "{error}");
        assert!(error.metadata().contains(&("setting", "cleanup.policy".to_owned())), "{error:?}");
    }
    assert_eq!(node.end("t", 0), Offset(3), "all of a request, or nothing");
    node.produce(keyed(vec![("a", "2"), ("b", "2")])).unwrap();
    sim.scheduler.run_for(Duration::from_secs(60));
    assert_eq!(node.read_all("t", 0).unwrap(), ["empty is a key", "2", "2"]);

    let delete = SettingChange { name: "cleanup.policy".into(), change: Change::Set("delete".into()) };
    node.wait(node.broker.alter_topic(&node.context, "t", vec![delete])).unwrap();
    node.say("t", 0, "keyless").unwrap();
    node.broker.close().unwrap();
}

#[test]
fn the_time_of_append_takes_the_place_of_the_records_own_and_never_goes_back() {
    let sim = Sim::new(5);
    let node = simulated(&sim);
    create(&node, "t", &[("message.timestamp.type", "LogAppendTime")]).unwrap();
    let first = node.say("t", 0, "plain").unwrap();
    sim.clock.jump(-3_600_000);
    let sent = batch(["ready", "made"]);
    let second =
        node.produce(produce_batch("t", 0, sent.bytes().clone())).unwrap().remove(0).outcome.unwrap();
    assert_eq!(second.appended_at, first.appended_at, "the clock went back, and the time did not");
    sim.clock.jump(7_200_000);
    let third = node.say("t", 0, "later").unwrap();
    assert!(third.appended_at > second.appended_at);

    let stored = read_batches(&node, "t", 0);
    let stamps = [first, second, third].map(|appended| appended.appended_at);
    for (batch, stamp) in stored.iter().zip(stamps) {
        assert_eq!(batch.header().attributes.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(batch.header().max_timestamp, stamp);
        // Whole, with a CRC of its own.
        batch.check_records().unwrap();
    }
    let told = decode(stored[1].bytes().clone(), Offset(0)).map(|record| record.unwrap().timestamp);
    assert_eq!(told.collect::<Vec<_>>(), [second.appended_at; 2]);
    node.broker.close().unwrap();
}

/// Also of batches whose producers had other times in them, long ago or far away.
#[test]
fn records_with_the_time_of_append_are_found_by_it() {
    let sim = Sim::new(5);
    let node = simulated(&sim);
    create(&node, "t", &[("message.timestamp.type", "LogAppendTime")]).unwrap();
    let first = node.produce(produce_batch("t", 0, batch(["a", "b"]).bytes().clone())).unwrap().remove(0);
    sim.clock.jump(60_000);
    let far = TimestampMs(i64::MAX / 2);
    let payload = Payload::Records(vec![ProduceRecord { timestamp: Some(far), ..record("c") }]);
    let second = Produce { payload, ..records::<&str>("t", Some(0), []) };
    let second = node.produce(second).unwrap().remove(0);
    let [first, second] = [first, second].map(|result| result.outcome.unwrap().appended_at);
    assert!(first < second);

    let later = |at: TimestampMs| TimestampMs(at.get() + 1);
    let check = || {
        for (at, offset, found) in [
            (first, 0, Some(first)),
            (later(first), 2, Some(second)),
            (second, 2, Some(second)),
            (later(second), 3, None),
        ] {
            let places = vec![(0, Position::Time(at))];
            let told = node.wait(node.broker.list_offsets(&node.context, "t", places)).unwrap().remove(0);
            assert_eq!((told.offset, told.timestamp), (Offset(offset), found), "{at:?}");
            let from = FetchFrom::new("t", 0, Position::Time(at));
            let data = node.fetch(Fetch::new(vec![from])).unwrap().remove(0);
            assert_eq!(data.from_offset, Offset(offset), "{at:?}");
        }
    };
    check();
    // The same from the index of a sealed segment.
    alter(&node, "t", &[("segment.ms", "1000")]).unwrap();
    sim.scheduler.run_for(Duration::from_secs(60));
    check();
    node.broker.close().unwrap();
}

#[test]
fn the_time_of_append_of_a_duplicate_is_that_of_the_first_also_where_the_write_took_long() {
    let sim = Sim::new(5);
    let node = simulated(&sim);
    create(&node, "t", &[("message.timestamp.type", "LogAppendTime")]).unwrap();
    let long = Duration::from_secs(5);
    sim.fs.inject(Rule::new(Fault::Stall(long)).on(Op::Write).path("*/0/*.log"));
    let sent = batch(["x"]).with_producer(7, 0, 0);
    let send = || node.produce(produce_batch("t", 0, sent.bytes().clone())).unwrap().remove(0).outcome;
    let first = send().unwrap();
    sim.clock.advance(Duration::from_secs(60));
    assert_eq!(send().unwrap(), Appended { duplicate: true, ..first });
    let from = FetchFrom::new("t", 0, Position::Earliest);
    let told = node.fetch(Fetch::new(vec![from])).unwrap().remove(0).chunks[0].appended_at;
    assert_eq!(told, first.appended_at);
    let stamp = read_batches(&node, "t", 0)[0].header().max_timestamp;
    assert_eq!(told.get() - stamp.get(), 5_000, "it was stamped before the write");
    node.broker.close().unwrap();
}

#[test]
fn an_alteration_holds_for_what_is_produced_after_it_and_lives_through_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    let before = node.create("t", 1).unwrap();
    node.say("t", 0, &"x".repeat(2_000)).unwrap();
    let altered = alter(&node, "t", &[("max.message.bytes", "1000")]).unwrap();
    assert_eq!((altered.id, altered.created_at), (before.id, before.created_at));
    assert_eq!(value(&altered, "max.message.bytes"), ("1000", SettingSource::Topic));
    assert_eq!(node.say("t", 0, &"x".repeat(2_000)).unwrap_err().reason(), Reason::MessageTooLarge);
    let huge = produce_batch("t", 0, Bytes::from(vec![0; 1_001]));
    assert_eq!(failure(&node, huge).reason(), Reason::MessageTooLarge);
    node.broker.close().unwrap();

    let node = Node::open(config(&dir));
    assert_eq!(node.say("t", 0, &"x".repeat(2_000)).unwrap_err().reason(), Reason::MessageTooLarge);
    let reset = vec![SettingChange::reset("max.message.bytes")];
    let topic = node.wait(node.broker.alter_topic(&node.context, "t", reset)).unwrap();
    assert_eq!(value(&topic, "max.message.bytes"), ("1048588", SettingSource::Default));
    node.say("t", 0, &"x".repeat(2_000)).unwrap();
    assert_eq!(alter(&node, "u", &[]).unwrap_err().reason(), Reason::TopicNotFound);
    node.broker.close().unwrap();
}

#[test]
fn retention_that_is_set_later_reaches_what_is_there() {
    let sim = Sim::new(5);
    let node = simulated(&sim);
    create(&node, "t", &[("segment.bytes", "65536")]).unwrap();
    for n in 0..8 {
        node.say("t", 0, &format!("{n}{}", "x".repeat(30_000))).unwrap();
    }
    sim.scheduler.run_for(Duration::from_secs(3_600));
    assert_eq!(node.read_all("t", 0).unwrap().len(), 8, "without a limit everything stays");
    alter(&node, "t", &[("retention.ms", "60000")]).unwrap();
    sim.scheduler.run_for(Duration::from_secs(60));
    assert!(node.read_all("t", 0).unwrap().len() < 8);

    alter(&node, "t", &[("retention.ms", "-1"), ("retention.bytes", "70000")]).unwrap();
    for n in 0..8 {
        node.say("t", 0, &format!("{n}{}", "x".repeat(30_000))).unwrap();
    }
    sim.scheduler.run_for(Duration::from_secs(60));
    let kept = node.read_all("t", 0).unwrap().len();
    assert!((3..=5).contains(&kept), "{kept} records of 30 kB in segments of 64 KiB");
    node.broker.close().unwrap();
}

#[test]
fn an_alteration_waits_for_no_partition() {
    let dir = tempfile::tempdir().unwrap();
    let (env, gate) = gated(Call::Write, is_segment_of_0);
    let node = Node::open(with_env(&dir, env));
    node.create("t", 2).unwrap();
    gate.arm();
    let hangs = node.broker.produce(&node.context, records("t", Some(0), ["hangs"]));
    gate.wait_for_someone();
    alter(&node, "t", &[("max.message.bytes", "200")]).unwrap();
    node.create("u", 1).unwrap();
    assert_eq!(node.say("t", 1, &"x".repeat(300)).unwrap_err().reason(), Reason::MessageTooLarge);
    gate.open();
    node.wait(hangs).unwrap().remove(0).outcome.unwrap();
    assert_eq!(node.say("t", 0, &"x".repeat(300)).unwrap_err().reason(), Reason::MessageTooLarge);
    node.broker.close().unwrap();
}

/// Kafka's rule: only the policy `delete` looks at age and size.
#[test]
fn retention_takes_nothing_of_a_topic_that_is_only_compacted() {
    let sim = Sim::new(5);
    let node = simulated(&sim);
    let settings = [("cleanup.policy", "compact"), ("retention.ms", "1000"), ("segment.bytes", "65536")];
    create(&node, "t", &settings).unwrap();
    let say = |n: u32| {
        let payload = Payload::Records(vec![keyed(&n.to_string(), &"x".repeat(30_000))]);
        node.produce(Produce { payload, ..records::<&str>("t", Some(0), []) }).unwrap();
    };
    (0..8).for_each(say);
    sim.scheduler.run_for(Duration::from_secs(3_600));
    assert_eq!(node.read_all("t", 0).unwrap().len(), 8);
    let append = SettingChange { name: "cleanup.policy".into(), change: Change::Append("delete".into()) };
    node.wait(node.broker.alter_topic(&node.context, "t", vec![append])).unwrap();
    sim.scheduler.run_for(Duration::from_secs(60));
    assert!(node.read_all("t", 0).unwrap().len() < 3);
    node.broker.close().unwrap();
}

/// A partition that is busy when a topic is altered works by the new settings as soon as it is not, also if
/// nothing is produced then: what a relaxed topic had not synced is synced when it becomes durable.
#[test]
fn an_alteration_reaches_a_busy_partition_without_a_further_record() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, synced) = (Arc::new(Gate::default()), Arc::new(AtomicBool::new(false)));
    let hook = {
        let (gate, synced) = (Arc::clone(&gate), Arc::clone(&synced));
        move |call, path: &Path| {
            if path.ends_with("0/00000000000000000000.log") {
                match call {
                    Call::Write => gate.pass(),
                    Call::Sync => synced.store(true, Ordering::SeqCst),
                    Call::Lock | Call::Read | Call::Space => {}
                }
            }
            Ok(())
        }
    };
    let node = Node::open(with_env(&dir, hooked(hook)));
    create(&node, "t", &[("durability", "relaxed"), ("flush.ms", "86400000")]).unwrap();
    synced.store(false, Ordering::SeqCst);
    let written = Produce { acks: Acks::Written, ..records("t", Some(0), ["busy"]) };
    let written = node.broker.produce(&node.context, written);
    gate.wait_for_someone();
    alter(&node, "t", &[("durability", "durable")]).unwrap();
    assert!(!synced.load(Ordering::SeqCst));
    gate.open();
    node.wait(written).unwrap().remove(0).outcome.unwrap();
    for _ in 0..20_000 {
        if synced.load(Ordering::SeqCst) {
            break;
        }
        node.end("t", 0);
    }
    assert!(synced.load(Ordering::SeqCst));
    node.broker.close().unwrap();
}
