//! Records into partitions: which, in what order, and what is refused.

use std::collections::BTreeMap;

use bytes::Bytes;
use logmill_broker::{
    Acks, Config, Fetch, FetchFrom, Limits, Payload, Position, Produce, ProduceRecord, Reason, decode,
};
use logmill_record::{
    Batch, BatchBuilder, BatchOptions, Compression, NewRecord, TimestampMs, murmur2_partition,
};

use crate::common::{Node, batch, config, failure, keyed, produce_batch, record, records};

fn payload(topic: &str, partition: Option<u32>, records: Vec<ProduceRecord>) -> Produce {
    Produce {
        topic: topic.into(),
        partition,
        payload: Payload::Records(records),
        acks: Acks::Durable,
        sent_at: None,
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
    // As a killed process leaves it.
    drop(node);
    let node = Node::open(config(&dir));
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

/// A few kilobytes of zeros that would be a hundred megabytes.
fn bomb() -> Bytes {
    let zeros = vec![0; 100 << 20];
    let options = BatchOptions::new().compression(Compression::Zstd);
    let mut builder = BatchBuilder::with_options(options, 101 << 20);
    let record = NewRecord { timestamp: TimestampMs(0), key: None, value: Some(&zeros), headers: &[] };
    builder.push(&record).unwrap();
    let batch = builder.build().unwrap();
    assert!(batch.bytes().len() < 20_000);
    batch.bytes().clone()
}

#[test]
fn compressed_batches_are_stored_as_they_came_and_read_as_records() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 1).unwrap();
    let codecs = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    for compression in codecs {
        let mut builder = BatchBuilder::with_options(BatchOptions::new().compression(compression), 0);
        for value in ["same", "same", "other"] {
            let record = NewRecord {
                timestamp: TimestampMs(7),
                key: None,
                value: Some(value.as_bytes()),
                headers: &[],
            };
            builder.push(&record).unwrap();
        }
        node.produce(produce_batch("t", 0, builder.build().unwrap().bytes().clone())).unwrap();
    }
    assert_eq!(node.read_all("t", 0).unwrap(), ["same", "same", "other"].repeat(4));
    node.broker.close().unwrap();
}

#[test]
fn batches_are_checked_whole() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 1).unwrap();
    let mut flipped = batch(["a"]).bytes().to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let two = [batch(["a"]).bytes().to_vec(), batch(["b"]).bytes().to_vec()].concat();
    let cases: [(&str, Bytes, Reason); 13] = [
        ("nothing", Bytes::new(), Reason::BatchInvalid),
        ("a wrong checksum", flipped.into(), Reason::BatchInvalid),
        ("two batches", two.into(), Reason::BatchInvalid),
        ("a record that does not add up", changed(|bytes| bytes[61] ^= 0x10), Reason::BatchInvalid),
        ("a largest timestamp that is not", changed(|bytes| bytes[42] ^= 1), Reason::BatchInvalid),
        ("control", changed(|bytes| bytes[22] |= 0x20), Reason::BatchInvalid),
        ("append time", changed(|bytes| bytes[22] |= 0x08), Reason::BatchInvalid),
        ("a transaction without a producer", changed(|bytes| bytes[22] |= 0x10), Reason::BatchInvalid),
        ("a producer id alone", changed(|bytes| bytes[43..51].fill(0)), Reason::BatchInvalid),
        ("compression that is none", changed(|bytes| bytes[22] |= 0x04), Reason::BatchInvalid),
        ("an unknown compression", changed(|bytes| bytes[22] |= 0x05), Reason::BatchUnsupported),
        ("a bomb", bomb(), Reason::MessageTooLarge),
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

#[test]
fn a_request_has_a_bound_on_records_and_on_headers() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_records_per_request: 3, max_headers_per_request: 2, ..Limits::default() };
    let node = Node::open(Config { limits, ..config(&dir) });
    node.create("t", 1).unwrap();
    let with_headers =
        |count| ProduceRecord { headers: vec![(String::new(), None); count], ..ProduceRecord::default() };
    let limit = |error: logmill_broker::Error| {
        assert_eq!(error.reason(), Reason::LimitExceeded, "{error}");
        assert!(error.message().contains("send several requests"), "{error}");
        error.metadata()[0].1.clone()
    };
    node.produce(records("t", Some(0), ["a", "b", "c"])).unwrap();
    assert_eq!(limit(failure(&node, records("t", Some(0), ["x"; 4]))), "max_records_per_request");
    node.produce(payload("t", None, vec![with_headers(1), with_headers(1)])).unwrap();
    let three = payload("t", None, vec![with_headers(1), with_headers(2)]);
    assert_eq!(limit(failure(&node, three)), "max_headers_per_request");
    assert_eq!(node.end("t", 0).get(), 5);
    node.broker.close().unwrap();
}
