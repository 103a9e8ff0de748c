//! Records into partitions: which, in what order, and what is refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use logmill_broker::{
    Acks, Config, Error, Fetch, FetchFrom, Limits, Payload, Position, Produce, ProduceRecord, Reason, decode,
};
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_record::{Batch, TimestampMs, murmur2_partition};

use crate::common::hook_fs::{Call, Gate, hooked};
use crate::common::{Node, batch, config, keyed, produce_batch, record, records, with_env};

fn payload(topic: &str, partition: Option<u32>, records: Vec<ProduceRecord>) -> Produce {
    Produce {
        topic: topic.into(),
        partition,
        payload: Payload::Records(records),
        acks: Acks::Durable,
        sent_at: None,
    }
}

/// The failure of the only partition of a request, or of the request.
fn failure(node: &Node, produce: Produce) -> Error {
    match node.produce(produce) {
        Ok(mut results) => results.remove(0).outcome.unwrap_err(),
        Err(error) => error,
    }
}

#[test]
fn records_go_where_their_key_says_and_report_where_they_went() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 4).unwrap();
    let keys: Vec<String> = (0..40).map(|i| format!("key-{}", i % 9)).collect();
    let sent = keys.iter().enumerate().map(|(i, key)| keyed(key, &i.to_string())).collect();
    let results = node.produce(payload("t", None, sent)).unwrap();
    let mut seen = vec![0; keys.len()];
    for result in &results {
        let appended = result.outcome.as_ref().unwrap();
        let count = appended.last_offset.get() - appended.first_offset.get() + 1;
        assert_eq!(count, result.record_indexes.len() as u64);
        for index in &result.record_indexes {
            seen[*index as usize] += 1;
            let key = keys[*index as usize].as_bytes();
            assert_eq!(murmur2_partition(key, 4), result.partition);
        }
        let expected: Vec<String> = result.record_indexes.iter().map(ToString::to_string).collect();
        assert_eq!(node.read_all("t", result.partition).unwrap(), expected);
    }
    assert!(seen.iter().all(|count| *count == 1));
    node.broker.close().unwrap();
}

#[test]
fn records_without_a_key_take_turns_by_request() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 3).unwrap();
    let mut turns = Vec::new();
    for _ in 0..6 {
        let results = node.produce(records("t", None, ["a", "b", "c"])).unwrap();
        assert_eq!(results.len(), 1, "one partition per request");
        assert!(results[0].record_indexes.is_empty());
        turns.push(results[0].partition);
    }
    turns.sort_unstable();
    assert_eq!(turns, [0, 0, 1, 1, 2, 2]);
    node.broker.close().unwrap();
}

#[test]
fn everything_of_a_record_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 1).unwrap();
    let headers = vec![
        ("h".to_owned(), Some(Bytes::from_static(b"1"))),
        ("h".to_owned(), None),
        (String::new(), Some(Bytes::new())),
    ];
    let sent = vec![
        ProduceRecord {
            key: Some(Bytes::new()),
            value: None,
            timestamp: Some(TimestampMs(-5)),
            headers: headers.clone(),
        },
        ProduceRecord { value: Some(Bytes::new()), timestamp: Some(TimestampMs(i64::MAX)), ..record("") },
        record("now"),
    ];
    let before = node.broker.config().env.clock.now();
    let appended = node.produce(payload("t", Some(0), sent)).unwrap().remove(0).outcome.unwrap();
    assert_eq!((appended.first_offset.get(), appended.last_offset.get()), (0, 2));
    assert!(appended.appended_at >= before);

    let data = node.fetch(Fetch::new(vec![FetchFrom::new("t", 0, Position::Earliest)])).unwrap().remove(0);
    let read: Vec<_> = data
        .chunks
        .iter()
        .flat_map(|chunk| decode(chunk.batches.clone(), data.from_offset))
        .map(Result::unwrap)
        .collect();
    assert_eq!((read[0].key.as_deref(), read[0].value.as_deref()), (Some(&b""[..]), None));
    assert_eq!((read[0].timestamp, &read[0].headers), (TimestampMs(-5), &headers));
    assert_eq!((read[1].key.as_deref(), read[1].value.as_deref()), (None, Some(&b""[..])));
    assert_eq!(read[1].timestamp, TimestampMs(i64::MAX));
    assert!(read[2].timestamp >= before && read[2].timestamp <= appended.appended_at);
    node.broker.close().unwrap();
}

#[test]
fn calls_made_in_order_are_appended_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(Config { segment_bytes: 20_000, ..config(&dir) });
    node.create("t", 2).unwrap();
    let all: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let writer = |name: u64| {
            let node = node.clone();
            move || {
                let calls: Vec<_> = (0..200)
                    .map(|i| {
                        let values = [format!("{name} {}", 2 * i), format!("{name} {}", 2 * i + 1)];
                        let produce = if i % 3 == 0 {
                            produce_batch("t", 1, batch(values).bytes().clone())
                        } else {
                            records("t", Some(1), values)
                        };
                        node.broker.produce(&node.context, produce)
                    })
                    .collect();
                calls
                    .into_iter()
                    .map(|call| node.wait(call).unwrap().remove(0).outcome.unwrap().first_offset.get())
                    .collect()
            }
        };
        let threads: Vec<_> = (0..4).map(|name| scope.spawn(writer(name))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut offsets: Vec<u64> = all.concat();
    assert!(all.iter().all(|offsets| offsets.is_sorted()), "each in its order");
    offsets.sort_unstable();
    assert!(offsets.into_iter().eq((0..800).map(|i| i * 2)), "each once, without a gap");

    let read = node.read_all("t", 1).unwrap();
    let mut next = BTreeMap::new();
    for value in &read {
        let (name, number) = value.split_once(' ').unwrap();
        let expected = next.entry(name).or_insert(0);
        assert_eq!(number.parse(), Ok(*expected));
        *expected += 1;
    }
    assert_eq!(read.len(), 1_600);
    node.broker.close().unwrap();
}

#[test]
fn what_was_appended_survives_without_a_clean_close_and_a_bad_batch_harms_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 1).unwrap();
    let bad = Bytes::from_static(b"nonsense");
    let calls: Vec<_> = [batch(["a"]).bytes().clone(), bad, batch(["b"]).bytes().clone()]
        .into_iter()
        .map(|bytes| node.broker.produce(&node.context, produce_batch("t", 0, bytes)))
        .collect();
    let outcomes: Vec<_> = calls.into_iter().map(|call| node.wait(call).unwrap().remove(0).outcome).collect();
    assert_eq!(outcomes[0].as_ref().unwrap().first_offset.get(), 0);
    assert_eq!(outcomes[1].as_ref().unwrap_err().reason(), Reason::BatchInvalid);
    assert_eq!(outcomes[2].as_ref().unwrap().first_offset.get(), 1);
    assert_eq!(node.read_all("t", 0).unwrap(), ["a", "b"]);
    node.broker.close().unwrap();
}

/// The bytes of a batch, changed, with the checksum put right.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = batch(["a", "b"]).bytes().to_vec();
    change(&mut bytes);
    let wrong = Batch::parse(bytes.clone().into()).map(drop);
    if let Err(logmill_record::BatchError::CrcMismatch { computed, .. }) = wrong {
        bytes[17..21].copy_from_slice(&computed.to_be_bytes());
    }
    bytes.into()
}

#[test]
fn batches_are_checked_whole() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 1).unwrap();
    let mut flipped = batch(["a"]).bytes().to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let two = [batch(["a"]).bytes().to_vec(), batch(["b"]).bytes().to_vec()].concat();
    let cases: [(&str, Bytes, Reason); 11] = [
        ("nothing", Bytes::new(), Reason::BatchInvalid),
        ("a wrong checksum", flipped.into(), Reason::BatchInvalid),
        ("two batches", two.into(), Reason::BatchInvalid),
        ("a record that does not add up", changed(|bytes| bytes[61] ^= 0x10), Reason::BatchInvalid),
        ("a largest timestamp that is not", changed(|bytes| bytes[42] ^= 1), Reason::BatchInvalid),
        ("control", changed(|bytes| bytes[22] |= 0x20), Reason::BatchInvalid),
        ("append time", changed(|bytes| bytes[22] |= 0x08), Reason::BatchInvalid),
        ("a transaction", changed(|bytes| bytes[22] |= 0x10), Reason::BatchUnsupported),
        ("a producer id", changed(|bytes| bytes[43..51].fill(0)), Reason::BatchUnsupported),
        ("compression", changed(|bytes| bytes[22] |= 0x04), Reason::BatchUnsupported),
        ("an old format", changed(|bytes| bytes[16] = 1), Reason::BatchUnsupported),
    ];
    for (what, bytes, reason) in cases {
        let error = failure(&node, produce_batch("t", 0, bytes));
        assert_eq!(error.reason(), reason, "{what}: {error}");
        assert!(error.message().starts_with("the record batch was refused: "), "{what}: {error}");
        assert!(error.metadata().contains(&("topic", "t".to_owned())), "{what}: {error:?}");
    }
    assert_eq!(node.end("t", 0).get(), 0);
    node.broker.close().unwrap();
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 2).unwrap();
    let reason = |produce| failure(&node, produce).reason();
    assert_eq!(reason(records("nowhere", None, ["x"])), Reason::TopicNotFound);
    assert_eq!(reason(records("t", Some(2), ["x"])), Reason::PartitionNotFound);
    assert_eq!(reason(produce_batch("t", 7, batch(["x"]).bytes().clone())), Reason::PartitionNotFound);
    assert_eq!(reason(payload("t", Some(0), Vec::new())), Reason::RequestInvalid);
    let homeless = Produce { partition: None, ..produce_batch("t", 0, batch(["x"]).bytes().clone()) };
    assert_eq!(reason(homeless), Reason::RequestInvalid);
    node.broker.close().unwrap();
}

#[test]
fn a_batch_of_exactly_the_limit_is_taken_and_one_byte_more_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let fits = batch([vec![b'x'; 5_000]]);
    let limit = fits.bytes().len();
    let node = Node::open(Config { max_message_bytes: limit, ..config(&dir) });
    node.create("t", 1).unwrap();
    node.produce(produce_batch("t", 0, fits.bytes().clone())).unwrap().remove(0).outcome.unwrap();
    node.produce(records("t", Some(0), [vec![b'x'; 5_000]])).unwrap().remove(0).outcome.unwrap();

    let over = batch([vec![b'x'; 5_001]]);
    let error = failure(&node, produce_batch("t", 0, over.bytes().clone()));
    assert_eq!(error.reason(), Reason::MessageTooLarge);
    assert!(error.message().contains(&format!("the topic's max.message.bytes is {limit}")), "{error}");
    let error = failure(&node, records("t", Some(0), [vec![b'y'; 10], vec![b'x'; 5_001]]));
    assert_eq!(error.reason(), Reason::MessageTooLarge);
    assert!(error.message().starts_with("record 1 of the request"), "{error}");
    assert_eq!(node.end("t", 0).get(), 2);
    node.broker.close().unwrap();
}

#[test]
fn more_plain_records_than_a_batch_holds_become_several_batches() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(Config { max_message_bytes: 1_000, ..config(&dir) });
    node.create("t", 1).unwrap();
    let values: Vec<String> = (0..100).map(|i| format!("{i:>100}")).collect();
    let appended = node.produce(records("t", Some(0), &values)).unwrap().remove(0).outcome.unwrap();
    assert_eq!((appended.first_offset.get(), appended.last_offset.get()), (0, 99));
    assert_eq!(node.read_all("t", 0).unwrap(), values);

    // So do records whose times lie too far apart for one batch.
    let far = |ms| ProduceRecord { timestamp: Some(TimestampMs(ms)), ..record("far") };
    let far = payload("t", Some(0), vec![far(i64::MIN), far(i64::MAX)]);
    node.produce(far).unwrap().remove(0).outcome.unwrap();
    assert_eq!(node.end("t", 0).get(), 102);
    node.broker.close().unwrap();
}

#[test]
fn without_acks_the_answer_comes_at_once_and_the_records_later() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 1).unwrap();
    let acks = |acks, value| Produce { acks, ..records("t", Some(0), [value]) };
    assert!(node.produce(acks(Acks::None, "none")).unwrap().is_empty());
    let written = node.produce(acks(Acks::Written, "written")).unwrap().remove(0).outcome.unwrap();
    assert_eq!(written.first_offset.get(), 1);
    node.say("t", 0, "durable").unwrap();
    assert_eq!(node.read_all("t", 0).unwrap(), ["none", "written", "durable"]);
    // What cannot be accepted is said all the same.
    let error = node.produce(Produce { partition: Some(9), ..acks(Acks::None, "x") }).unwrap_err();
    assert_eq!(error.reason(), Reason::PartitionNotFound);
    node.broker.close().unwrap();
}

#[test]
fn closing_writes_what_was_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 1).unwrap();
    let calls: Vec<_> = (0..100)
        .map(|i| node.broker.produce(&node.context, records("t", Some(0), [i.to_string()])))
        .collect();
    node.broker.close().unwrap();
    for call in calls {
        node.wait(call).unwrap().remove(0).outcome.unwrap();
    }
    let node = Node::open(config(&dir));
    assert_eq!(node.read_all("t", 0).unwrap().len(), 100);
    node.broker.close().unwrap();
}

/// A node of which the segment files of partition 0 cannot be written until the gate opens.
fn stalled(dir: &tempfile::TempDir, limits: Limits) -> (Node, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let stall = {
        let gate = Arc::clone(&gate);
        move |call, path: &Path| {
            let partition = path.parent().and_then(Path::file_name);
            if call == Call::Write
                && partition == Some("0".as_ref())
                && path.extension() == Some("log".as_ref())
            {
                gate.pass();
            }
            Ok(())
        }
    };
    let node = Node::open(Config { limits, ..with_env(dir, hooked(stall)) });
    node.create("t", 2).unwrap();
    (node, gate)
}

#[test]
fn a_partition_that_stalls_holds_up_itself_alone_and_has_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_partition_queued_bytes: 10_000, ..Limits::default() };
    let (node, gate) = stalled(&dir, limits);
    let big = |partition| records("t", Some(partition), [vec![b'x'; 3_000]]);
    let accepted: Vec<_> = (0..3).map(|_| node.broker.produce(&node.context, big(0))).collect();
    gate.wait_for_someone();

    let error = failure(&node, big(0));
    assert_eq!(error.reason(), Reason::LimitExceeded);
    assert!(error.metadata().contains(&("limit", "max_partition_queued_bytes".to_owned())));
    assert!(error.metadata().contains(&("value", "10000".to_owned())));
    // The other partition and the rest of the node work.
    node.say("t", 1, "past it").unwrap();
    assert_eq!(node.read_all("t", 1).unwrap(), ["past it"]);
    node.create("u", 1).unwrap();

    gate.open();
    for call in accepted {
        node.wait(call).unwrap().remove(0).outcome.unwrap();
    }
    node.produce(big(0)).unwrap().remove(0).outcome.unwrap();
    node.broker.close().unwrap();
}

#[test]
fn the_node_has_a_bound_over_all_partitions() {
    let dir = tempfile::tempdir().unwrap();
    let (node, gate) = stalled(&dir, Limits { max_queued_bytes: 10_000, ..Limits::default() });
    let big = |partition| records("t", Some(partition), [vec![b'x'; 3_000]]);
    let accepted: Vec<_> = (0..3).map(|_| node.broker.produce(&node.context, big(0))).collect();
    let error = failure(&node, big(1));
    assert_eq!(error.reason(), Reason::LimitExceeded);
    assert!(error.metadata().contains(&("limit", "max_queued_bytes".to_owned())), "{error:?}");
    gate.open();
    for call in accepted {
        node.wait(call).unwrap().remove(0).outcome.unwrap();
    }
    node.produce(big(1)).unwrap().remove(0).outcome.unwrap();
    node.broker.close().unwrap();
}

#[test]
fn a_panic_while_writing_harms_only_its_own_records() {
    let dir = tempfile::tempdir().unwrap();
    let armed = Arc::new(AtomicBool::new(false));
    let hook = {
        let armed = Arc::clone(&armed);
        move |call, _: &Path| {
            let panics = call == Call::Write && armed.swap(false, Ordering::SeqCst);
            assert!(!panics, "a fault that this test plants");
            Ok(())
        }
    };
    let node = Node::open(with_env(&dir, hooked(hook)));
    node.create("t", 1).unwrap();
    armed.store(true, Ordering::SeqCst);
    assert_eq!(node.say("t", 0, "lost").unwrap_err().reason(), Reason::InternalFault);
    node.say("t", 0, "kept").unwrap();
    assert_eq!(node.read_all("t", 0).unwrap(), ["kept"]);
    node.broker.close().unwrap();
}

fn simulated(sim: &Sim) -> Node {
    Node::open(Config { env: sim.env(), ..Config::new("/data") })
}

#[test]
fn a_full_disk_is_said_and_works_again_when_there_is_space() {
    let sim = Sim::new(3);
    let node = simulated(&sim);
    node.create("t", 1).unwrap();
    node.say("t", 0, "before").unwrap();
    sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Write).on(Op::Create).on(Op::CreateDir).always());
    let error = node.say("t", 0, "during").unwrap_err();
    assert_eq!(error.reason(), Reason::DiskFull);
    assert!(error.message().contains("make room, and try again"), "{error}");
    assert_eq!(node.create("u", 2).unwrap_err().reason(), Reason::DiskFull);
    assert_eq!(node.delete("t").unwrap_err().reason(), Reason::DiskFull);
    assert_eq!(node.read_all("t", 0).unwrap(), ["before"]);

    sim.fs.clear_rules();
    node.say("t", 0, "after").unwrap();
    node.create("u", 2).unwrap();
    assert_eq!(node.read_all("t", 0).unwrap(), ["before", "after"]);
    node.broker.close().unwrap();
    let node = simulated(&sim);
    assert!(node.broker.open_report().unknown.is_empty());
    assert_eq!(node.broker.open_report().topics, 2);
    node.broker.close().unwrap();
}

#[test]
fn a_failed_sync_is_an_unknown_outcome_and_then_a_failed_partition() {
    let mut sim = Sim::new(4);
    let node = simulated(&sim);
    node.create("t", 2).unwrap();
    node.say("t", 0, "before").unwrap();
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/0/*.log"));
    let error = node.say("t", 0, "during").unwrap_err();
    assert_eq!(error.reason(), Reason::OutcomeUnknown);
    assert!(error.message().contains("before sending them again"), "{error}");
    let error = node.say("t", 0, "after").unwrap_err();
    assert_eq!(error.reason(), Reason::PartitionFailed);

    // What was there can be read, and the rest works.
    assert_eq!(node.read_all("t", 0).unwrap(), ["before"]);
    node.say("t", 1, "other").unwrap();
    for _ in 0..3 {
        assert_eq!(node.produce(records("t", None, ["free"])).unwrap()[0].partition, 1);
    }
    let described = node.wait(node.broker.describe_topic(&node.context, "t")).unwrap();
    assert_eq!(described.partitions[0].error.as_ref().unwrap().reason(), Reason::PartitionFailed);

    sim.crash();
    let node = simulated(&sim);
    node.say("t", 0, "again").unwrap();
    let read = node.read_all("t", 0).unwrap();
    assert!(matches!(&read[..], [first, .., last] if first == "before" && last == "again"), "{read:?}");
    node.broker.close().unwrap();
}

#[test]
fn a_failed_sync_of_the_metadata_undoes_the_change_and_the_next_one_works() {
    let sim = Sim::new(5);
    let node = simulated(&sim);
    node.create("kept", 1).unwrap();
    let fail = || sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/metadata/*.log"));
    fail();
    let error = node.create("lost", 1).unwrap_err();
    assert_eq!(error.reason(), Reason::IoFailed, "{error}");
    assert_eq!(node.say("lost", 0, "x").unwrap_err().reason(), Reason::TopicNotFound);
    fail();
    assert_eq!(node.delete("kept").unwrap_err().reason(), Reason::IoFailed);
    node.say("kept", 0, "x").unwrap();
    node.create("lost", 1).unwrap();
    node.broker.close().unwrap();

    let node = simulated(&sim);
    assert_eq!(node.broker.open_report().topics, 2);
    assert!(node.broker.open_report().failed.is_empty());
    node.broker.close().unwrap();
}

#[test]
fn metadata_that_cannot_be_opened_again_fails_and_says_so() {
    let mut sim = Sim::new(6);
    let node = simulated(&sim);
    node.create("kept", 1).unwrap();
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/metadata/*").always());
    assert_eq!(node.create("lost", 1).unwrap_err().reason(), Reason::OutcomeUnknown);
    assert_eq!(node.create("lost", 1).unwrap_err().reason(), Reason::MetadataFailed);
    node.say("kept", 0, "x").unwrap();
    sim.fs.clear_rules();
    sim.crash();
    let node = simulated(&sim);
    assert!(node.broker.open_report().failed.is_empty());
    assert_eq!(node.read_all("kept", 0).unwrap(), ["x"]);
    node.broker.close().unwrap();
}

#[test]
fn records_in_the_queue_of_a_deleted_topic_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (node, gate) = stalled(&dir, Limits::default());
    let calls: Vec<_> =
        (0..5).map(|_| node.broker.produce(&node.context, records("t", Some(0), ["x"]))).collect();
    gate.wait_for_someone();
    let delete = node.broker.delete_topic(&node.context, "t");
    gate.open();
    node.wait(delete).unwrap();
    for call in calls {
        match node.wait(call).unwrap().remove(0).outcome {
            Ok(_) => {}
            Err(error) => assert_eq!(error.reason(), Reason::TopicNotFound, "{error}"),
        }
    }
    node.broker.close().unwrap();
}
