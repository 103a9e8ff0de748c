//! Batches that another client's encoder made (`golden/make_golden.py` says which and how): read exactly as that
//! client reads them, and, where it is a plain producer's batch, written byte for byte the same.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; the lints know only the tests themselves"
)]

use bytes::Bytes;
use logmill_record::{
    Batch, BatchBuilder, BatchError, BatchErrorKind, BatchHeader, BatchOptions, Compression, ControlRecord,
    ControlType, InflateLimits, Inflater, NewRecord, Offset, TimestampMs, TimestampType, murmur2_partition,
    stamped_prefix,
};
use serde_json::Value;

struct Golden {
    name: String,
    bytes: Bytes,
    /// Whether a plain builder makes the same bytes.
    builder: bool,
    header: Value,
    records: Vec<GoldenRecord>,
}

struct GoldenRecord {
    offset_delta: u64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn read_file(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn goldens() -> Vec<Golden> {
    let index: Value = serde_json::from_slice(&read_file("batches.json")).unwrap();
    index["batches"].as_array().unwrap().iter().map(golden).collect()
}

fn golden(entry: &Value) -> Golden {
    let name = entry["name"].as_str().unwrap().to_owned();
    let mut records = Vec::new();
    for record in entry["records"].as_array().unwrap() {
        for i in 0..record["times"].as_u64().unwrap_or(1) {
            let offset_delta = match &entry["offset_deltas"] {
                Value::Null => records.len() as u64,
                deltas => deltas[records.len()].as_u64().unwrap(),
            };
            let step_ms = record["step_ms"].as_i64().unwrap_or(0);
            records.push(GoldenRecord {
                offset_delta,
                timestamp: record["timestamp"].as_i64().unwrap() + i.cast_signed() * step_ms,
                key: unhex(&record["key"]),
                value: unhex(&record["value"]),
                headers: record["headers"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|pair| (pair[0].as_str().unwrap().to_owned(), unhex(&pair[1])))
                    .collect(),
            });
        }
    }
    Golden {
        bytes: read_file(&format!("{name}.bin")).into(),
        name,
        builder: entry["builder"].as_bool().unwrap(),
        header: entry["header"].clone(),
        records,
    }
}

fn unhex(value: &Value) -> Option<Vec<u8>> {
    let text = match value {
        Value::Null => return None,
        value => value.as_str().unwrap(),
    };
    let (digits, times) = match text.split_once('*') {
        Some((digits, times)) => (digits, times.parse().unwrap()),
        None => (text, 1),
    };
    let once: Vec<u8> =
        (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect();
    Some(once.repeat(times))
}

fn is_compressed(golden: &Golden) -> bool {
    golden.header["compression"] != "none"
}

fn is_control(golden: &Golden) -> bool {
    golden.header["control"] == true
}

/// Fewer records than offsets.
fn is_compacted(golden: &Golden) -> bool {
    golden.header["record_count"].as_i64().unwrap() <= golden.header["last_offset_delta"].as_i64().unwrap()
}

#[test]
fn every_golden_file_is_described_and_kinds_are_there() {
    let mut described: Vec<String> = goldens().into_iter().map(|golden| golden.name + ".bin").collect();
    described.sort();
    let dir = format!("{}/tests/golden", env!("CARGO_MANIFEST_DIR"));
    let mut there: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".bin"))
        .collect();
    there.sort();
    assert_eq!(described, there);
    assert!(goldens().iter().filter(|golden| golden.builder).count() >= 9);
    assert!(goldens().iter().any(is_compressed));
    assert!(goldens().iter().any(is_compacted));
}

#[test]
fn headers_are_read_as_the_other_client_reads_them() {
    for golden in goldens() {
        let header = BatchHeader::parse(&golden.bytes).unwrap();
        let of = |field: &str| golden.header[field].as_i64().unwrap();
        let is = |field: &str| golden.header[field].as_bool().unwrap();
        let name = &golden.name;

        assert_eq!(i64::from(header.base_offset), of("base_offset"), "{name}");
        assert_eq!(header.total_len as i64, of("total_len"), "{name}");
        assert_eq!(i64::from(header.leader_epoch), of("leader_epoch"), "{name}");
        assert_eq!(i64::from(header.crc), of("crc"), "{name}");
        assert_eq!(i64::from(header.last_offset_delta), of("last_offset_delta"), "{name}");
        assert_eq!(header.base_timestamp.0, of("base_timestamp"), "{name}");
        assert_eq!(header.max_timestamp.0, of("max_timestamp"), "{name}");
        assert_eq!(header.producer_id, of("producer_id"), "{name}");
        assert_eq!(i64::from(header.producer_epoch), of("producer_epoch"), "{name}");
        assert_eq!(i64::from(header.base_sequence), of("base_sequence"), "{name}");
        assert_eq!(i64::from(header.record_count), of("record_count"), "{name}");
        assert_eq!(i64::from(header.last_offset()), of("base_offset") + of("last_offset_delta"), "{name}");
        assert_eq!(header.next_offset(), header.last_offset().next(), "{name}");

        let attributes = header.attributes;
        assert_eq!(i64::from(attributes.bits()), of("attributes"), "{name}");
        assert_eq!(attributes.compression().to_string(), golden.header["compression"], "{name}");
        assert_eq!(attributes.is_transactional(), is("transactional"), "{name}");
        assert_eq!(attributes.is_control(), is("control"), "{name}");
        let append_time = attributes.timestamp_type() == TimestampType::LogAppendTime;
        assert_eq!(append_time, is("log_append_time"), "{name}");
    }
}

/// Those whose codec this build has.
fn readable() -> impl Iterator<Item = Golden> {
    goldens().into_iter().filter(|golden| has(golden.header["compression"].as_str().unwrap()))
}

fn has(codec: &str) -> bool {
    match codec {
        "none" => true,
        "gzip" => cfg!(feature = "gzip"),
        "snappy" => cfg!(feature = "snappy"),
        "lz4" => cfg!(feature = "lz4"),
        "zstd" => cfg!(feature = "zstd"),
        other => panic!("no such codec: {other}"),
    }
}

/// The records of `batch` are those of `golden`, whatever codec either has.
fn assert_records(batch: &Batch, golden: &Golden, inflater: &mut Inflater) {
    let header = batch.header().clone();
    let append_time = header.attributes.timestamp_type() == TimestampType::LogAppendTime;
    let mut records = batch.records_with(inflater).unwrap();
    for (i, expected) in golden.records.iter().enumerate() {
        let at = format!("record {i} of {}", golden.name);
        let record = records.next().unwrap().unwrap();
        let timestamp = if append_time { header.max_timestamp } else { TimestampMs(expected.timestamp) };
        assert_eq!(record.offset.get(), header.base_offset.get() + expected.offset_delta, "{at}");
        assert_eq!(record.timestamp, timestamp, "{at}");
        assert_eq!(record.key, expected.key.as_deref(), "{at}");
        assert_eq!(record.value, expected.value.as_deref(), "{at}");
        assert_eq!(record.headers().len(), expected.headers.len(), "{at}");
        for (read, (key, value)) in record.headers().zip(&expected.headers) {
            assert_eq!((read.key, read.value), (key.as_str(), value.as_deref()), "{at}");
        }
    }
    assert!(records.next().is_none(), "{}", golden.name);
}

#[test]
fn records_are_read_as_the_other_client_wrote_them() {
    // One for all, as a reader of many batches has it: nothing of a batch may be left in the next.
    let mut inflater = Inflater::default();
    for golden in readable() {
        let batch = Batch::parse(golden.bytes.clone()).unwrap();
        assert_records(&batch, &golden, &mut inflater);
        let inflated = batch.inflate(&inflater.limits()).unwrap();
        assert_eq!(Batch::parse(inflated.bytes().clone()).unwrap(), inflated, "{}", golden.name);
        assert_records(&inflated, &golden, &mut inflater);
    }
}

#[test]
fn what_this_crate_compresses_is_read_back_the_same() {
    let mut inflater = Inflater::default();
    let codecs = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    for golden in goldens().iter().filter(|golden| !is_control(golden)) {
        for compression in codecs.into_iter().filter(|codec| has(&codec.to_string())) {
            let mut builder = BatchBuilder::with_options(options(golden).compression(compression), 0);
            fill(&mut builder, golden);
            let most = builder.max_size_bytes();
            let built = builder.build().unwrap();
            assert!(built.bytes().len() <= most, "{} with {compression}", golden.name);
            assert_eq!(Batch::parse(built.bytes().clone()).unwrap(), built);
            assert_records(&built, golden, &mut inflater);
        }
    }
}

/// The other direction, by hand: `make_golden.py --read DIR` and `MakeGolden.java --read DIR` read what this writes.
#[test]
#[ignore = "writes into the directory that LOGMILL_WRITE_TO names"]
fn writes_batches_for_the_other_clients_to_read() {
    let dir = std::path::PathBuf::from(std::env::var_os("LOGMILL_WRITE_TO").unwrap());
    let codecs =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    for golden in goldens().iter().filter(|golden| !is_control(golden)) {
        for compression in codecs.into_iter().filter(|codec| has(&codec.to_string())) {
            let mut builder = BatchBuilder::with_options(options(golden).compression(compression), 0);
            fill(&mut builder, golden);
            let path = dir.join(format!("{}.{compression}.bin", golden.name));
            #[expect(clippy::disallowed_methods, reason = "nothing of it is to last")]
            std::fs::write(path, builder.build().unwrap().bytes()).unwrap();
        }
    }
}

#[test]
fn a_codec_that_is_not_built_in_is_named() {
    for golden in goldens().iter().filter(|golden| !has(golden.header["compression"].as_str().unwrap())) {
        let batch = Batch::parse(golden.bytes.clone()).unwrap();
        let compression = batch.header().attributes.compression();
        let expected = BatchError::UnsupportedCompression { compression };
        assert_eq!(batch.check_records().unwrap_err(), expected);
        assert_eq!(batch.inflate(&InflateLimits::default()).unwrap_err(), expected);
        assert!(expected.to_string().contains(&format!("the feature `{compression}`")), "{expected}");
        assert_eq!(expected.kind(), BatchErrorKind::Unsupported);
        let mut builder = BatchBuilder::with_options(options(golden).compression(compression), 0);
        fill(&mut builder, golden);
        assert_eq!(builder.build().unwrap_err(), expected);
    }
}

/// What the golden's header says of the batch.
fn options(golden: &Golden) -> BatchOptions {
    let header = BatchHeader::parse(&golden.bytes).unwrap();
    let mut options = BatchOptions::new()
        .producer(header.producer_id, header.producer_epoch, header.base_sequence)
        .offsets(header.base_offset, header.last_offset());
    if header.attributes.is_transactional() {
        options = options.transactional();
    }
    if header.attributes.timestamp_type() == TimestampType::LogAppendTime {
        options = options.log_append_time(header.max_timestamp);
    }
    options
}

fn fill(builder: &mut BatchBuilder, golden: &Golden) {
    let base = Offset(golden.header["base_offset"].as_u64().unwrap());
    for record in &golden.records {
        let headers: Vec<(&str, Option<&[u8]>)> =
            record.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        let new = NewRecord {
            timestamp: TimestampMs(record.timestamp),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        };
        if golden.builder {
            let announced = builder.size_with(&new);
            builder.push(&new).unwrap();
            assert_eq!(builder.size_bytes(), announced, "{}", golden.name);
        } else {
            builder.push_at(base.saturating_add(record.offset_delta), &new).unwrap();
        }
    }
}

#[test]
fn the_builder_writes_the_same_bytes_as_the_other_client() {
    for golden in goldens().iter().filter(|golden| !is_compressed(golden) && !is_control(golden)) {
        let mut builder = match golden.builder {
            true => BatchBuilder::new(),
            false => BatchBuilder::with_options(options(golden), 0),
        };
        fill(&mut builder, golden);
        assert_eq!(builder.len(), golden.records.len());
        assert_eq!(builder.size_bytes(), golden.bytes.len(), "{}", golden.name);
        assert_eq!(builder.max_size_bytes(), golden.bytes.len(), "{}", golden.name);
        let built = builder.build().unwrap();
        let expected = BatchHeader::parse(&golden.bytes).unwrap();
        let prefix = stamped_prefix(built.header(), expected.base_offset, expected.leader_epoch);
        let stamped = [&prefix[..], &built.bytes()[prefix.len()..]].concat();
        assert!(stamped == golden.bytes, "{}: built other bytes", golden.name);
        if golden.builder {
            assert_eq!(built.header(), &expected, "{}", golden.name);
        }
    }
}

#[test]
fn markers_are_the_other_clients_bytes_and_are_read_from_them() {
    for (name, kind) in [("control_commit", ControlType::Commit), ("control_abort", ControlType::Abort)] {
        let golden = Batch::parse(read_file(&format!("{name}.bin")).into()).unwrap();
        let marker = ControlRecord { kind, coordinator_epoch: 12 };
        assert_eq!(golden.control_record(), Ok(Some(marker)), "{name}");
        let built = marker.batch(4711, 3, TimestampMs(1_700_000_000_000)).unwrap();
        assert!(built == golden, "{name}: built other bytes");
    }
    let plain = Batch::parse(read_file("plain.bin").into()).unwrap();
    assert_eq!(plain.control_record(), Ok(None));
}

#[test]
fn the_ingest_check_takes_what_a_producer_sends_and_not_what_a_log_writes() {
    for golden in readable() {
        let batch = Batch::parse(golden.bytes.clone()).unwrap();
        let checked = batch.check_records();
        if is_compacted(&golden) {
            let error = checked.unwrap_err();
            assert_eq!(error.to_string(), "record count is 5, which is not between 9001 and 9001");
        } else if is_control(&golden) {
            assert_eq!(checked, Err(BatchError::NotForProducers { what: "control batches" }));
        } else {
            checked.unwrap_or_else(|error| panic!("{}: {error}", golden.name));
        }
        let stored = batch.check_stored_with(&mut Inflater::default());
        stored.unwrap_or_else(|error| panic!("{}: {error}", golden.name));
    }
}

#[test]
fn a_compressed_batch_is_known_by_its_header_and_not_borrowed_from() {
    let batch = Batch::parse(read_file("gzip.bin").into()).unwrap();
    let compression = Compression::Gzip;
    assert_eq!(batch.header().attributes.compression(), compression);
    assert_eq!(batch.header().record_count, 20);
    let error = batch.records().unwrap_err();
    assert_eq!(error, BatchError::Compressed { compression });
    assert_eq!(error.kind(), BatchErrorKind::Unsupported);
}

#[test]
fn a_run_of_batches_comes_apart_where_they_were_joined() {
    let goldens = goldens();
    let mut run: Bytes = goldens.iter().flat_map(|golden| golden.bytes.to_vec()).collect();
    for golden in &goldens {
        let batch = Batch::split_from(&mut run).unwrap().unwrap();
        assert!(batch.bytes() == &golden.bytes, "{}", golden.name);
    }
    assert_eq!(Batch::split_from(&mut run), Ok(None));
}

/// The log stamps offset and epoch; what the other client stamped the same way must come out the same.
#[test]
fn a_stamped_batch_is_the_other_clients_stamped_batch() {
    let sent = Batch::parse(read_file("headers.bin").into()).unwrap();
    let prefix = stamped_prefix(sent.header(), Offset(9_007_199_254_740_993), 41);
    let stored = [&prefix[..], &sent.bytes()[prefix.len()..]].concat();
    assert!(stored == read_file("stored.bin"));
}

#[test]
fn keys_get_the_partition_that_the_other_client_gives_them() {
    let vectors: Value = serde_json::from_slice(&read_file("murmur2.json")).unwrap();
    let vectors = vectors["key_hash_partitions"].as_array().unwrap();
    assert!(vectors.len() > 40);
    for vector in vectors {
        let key = unhex(&vector[0]).unwrap();
        // 2^31 partitions take no remainder: the whole positive hash.
        assert_eq!(u64::from(murmur2_partition(&key, 1 << 31)), vector[1], "{key:?}");
        for pair in vector[2].as_array().unwrap() {
            let partitions = u32::try_from(pair[0].as_u64().unwrap()).unwrap();
            assert_eq!(u64::from(murmur2_partition(&key, partitions)), pair[1], "{key:?}");
        }
    }
}
