//! The same work by Logmill's log and by other crates that keep logs: [commitlog], [raft-engine].
//!
//! ```sh
//! cargo run --release --manifest-path benches/peers/Cargo.toml
//! ```
//!
//! They promise different things. commitlog never syncs its data (its `flush` syncs the map of its
//! index only), so it has no durable row; raft-engine keeps many logs in one stream of files and its
//! entries' places in memory, and syncs if the write asks for it. Neither checks a record when it is
//! appended; both keep a checksum.

use std::path::Path;

use commitlog::message::{MessageBuf, MessageSet as _};
use commitlog::{CommitLog, ReadLimit};
use logmill_bench::{
    Aim, Row, Run, Unit, Values, WARM, batch_of_bytes, compare, open, percentile, single_record_batch,
};
use logmill_log::LogOptions;
use logmill_record::{Batch, Offset};
use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

const RECORD_LEN: usize = 1024;
const BATCH_LEN: usize = 64 * 1024;
/// As many records as one of our batches of that size holds.
const RECORDS: usize = 63;
const REGION: u64 = 1;

fn main() {
    let run = Run::begin("logs of other crates", Path::new("target"), 1 << 30);
    append(&run);
    append_durably(&run);
    read(&run);
}

/// Records without structure, made before the clock runs.
fn records(count: usize) -> Vec<Vec<u8>> {
    let mut values = Values::default();
    (0..count).map(|_| values.next(RECORD_LEN)).collect()
}

fn batches(count: usize) -> Vec<Batch> {
    let mut values = Values::default();
    (0..count).map(|_| batch_of_bytes(&mut values, BATCH_LEN, RECORD_LEN, 0)).collect()
}

fn append(run: &Run) {
    let count = run.pick(2_048, 16);
    let bytes = count * RECORDS * RECORD_LEN;
    let row = |peer| Row {
        title: peer,
        conditions: "128 MB of records of 1 KiB, 63 in a batch; nobody syncs while the clock runs",
        unit: Unit::MegabytesPerS,
        aim: Aim::None,
    };
    let made = batches(count);
    let ours = || {
        let dir = run.directory();
        let options = LogOptions::default().durability(WARM).max_unsynced_bytes(1 << 30);
        let log = open(dir.path(), options);
        let rate = run.megabytes_per_s(bytes, || {
            for batch in &made {
                // As if it had just come in: with all its checks.
                let batch = Batch::parse(batch.bytes().clone()).expect("it is whole");
                drop(log.append(&[batch]).expect("the log takes it"));
            }
        });
        log.close().expect("the log closes");
        rate
    };
    let raw = records(count * RECORDS);
    let commitlog = || {
        let dir = run.directory();
        let mut log = commit_log(dir.path());
        let mut buf = MessageBuf::default();
        run.megabytes_per_s(bytes, || {
            for batch in raw.chunks(RECORDS) {
                buf.clear();
                batch.iter().for_each(|record| buf.push(record).expect("a small record"));
                log.append(&mut buf).expect("the log takes it");
            }
        })
    };
    let raft_engine = || {
        let dir = run.directory();
        let engine = engine(dir.path());
        let mut index = 0;
        run.megabytes_per_s(bytes, || {
            raw.chunks(RECORDS).for_each(|batch| write(&engine, &mut index, batch, false))
        })
    };
    compare(run, &row("append, not synced: commitlog"), ("logmill-log", ours), ("commitlog", commitlog));
    compare(
        run,
        &row("append, not synced: raft-engine"),
        ("logmill-log", ours),
        ("raft-engine", raft_engine),
    );
}

fn append_durably(run: &Run) {
    let count = run.pick(1_000, 20);
    let row = Row {
        title: "append, synced: raft-engine",
        conditions: "one record of 1 KiB after the other, each on disk before the next; p50",
        unit: Unit::Microseconds,
        aim: Aim::None,
    };
    let p50 = |figures: Vec<f64>| percentile(&figures, 50);
    let ours = || {
        let dir = run.directory();
        let log = open(dir.path(), LogOptions::default());
        let mut values = Values::default();
        let batches: Vec<_> = (0..count).map(|_| single_record_batch(&mut values, RECORD_LEN, 0)).collect();
        let figures = run.each_in_us(count, |n| {
            log.append(&[batches[n].clone()]).and_then(logmill_log::Receipt::wait).expect("the log takes it");
        });
        log.close().expect("the log closes");
        p50(figures)
    };
    let raw = records(count);
    let raft_engine = || {
        let dir = run.directory();
        let engine = engine(dir.path());
        let mut index = 0;
        p50(run.each_in_us(count, |n| write(&engine, &mut index, &raw[n..=n], true)))
    };
    compare(run, &row, ("logmill-log", ours), ("raft-engine", raft_engine));
}

fn read(run: &Run) {
    let count = run.pick(2_048, 16);
    let bytes = count * RECORDS * RECORD_LEN;
    let row = |peer| Row {
        title: peer,
        conditions: "128 MB of records of 1 KiB, in the page cache, from the front in pieces of 1 MiB; checksums checked",
        unit: Unit::MegabytesPerS,
        aim: Aim::None,
    };
    let (our_dir, their_dir, engine_dir) = (run.directory(), run.directory(), run.directory());
    let log = open(our_dir.path(), LogOptions::default());
    logmill_bench::fill(&log, batches(count), 16 << 20);
    log.roll().expect("the segment can be sealed");
    let ours = || {
        run.megabytes_per_s(bytes, || {
            let (mut next, mut seen) = (Offset(0), 0);
            while next < log.end_offset() {
                let out = log.read(next, 1 << 20).expect("the log can be read");
                seen += out.chunks.iter().map(|chunk| chunk.batches.len()).sum::<usize>();
                next = out.next_offset;
            }
            assert!(seen > bytes);
        })
    };
    let raw = records(count * RECORDS);
    let mut peer = commit_log(their_dir.path());
    for record in &raw {
        peer.append_msg(record).expect("the log takes it");
    }
    let commitlog = || {
        run.megabytes_per_s(bytes, || {
            let (mut next, mut seen) = (0, 0);
            while seen < raw.len() {
                let out = peer.read(next, ReadLimit::max_bytes(1 << 20)).expect("the log can be read");
                seen += out.len();
                next = seen as u64;
            }
        })
    };
    let engine = engine(engine_dir.path());
    let mut index = 0;
    raw.chunks(RECORDS).for_each(|batch| write(&engine, &mut index, batch, false));
    let raft_engine = || {
        run.megabytes_per_s(bytes, || {
            let mut next = 1;
            let mut entries = Vec::new();
            while next <= raw.len() as u64 {
                entries.clear();
                let end = (next + 1_024).min(raw.len() as u64 + 1);
                next += engine
                    .fetch_entries_to::<Record>(REGION, next, end, None, &mut entries)
                    .expect("the engine can be read") as u64;
            }
        })
    };
    compare(run, &row("sequential read: commitlog"), ("logmill-log", ours), ("commitlog", commitlog));
    compare(run, &row("sequential read: raft-engine"), ("logmill-log", ours), ("raft-engine", raft_engine));
}

fn commit_log(dir: &Path) -> CommitLog {
    let mut options = commitlog::LogOptions::new(dir);
    options.segment_max_bytes(128 << 20).message_max_bytes(1 << 20);
    CommitLog::new(options).expect("a log opens")
}

fn engine(dir: &Path) -> Engine {
    let config = Config {
        dir: dir.to_str().expect("a plain path").to_owned(),
        // As ours: nothing is compressed.
        batch_compression_threshold: ReadableSize(0),
        ..Config::default()
    };
    Engine::open(config).expect("an engine opens")
}

/// An entry is a record with its index in front.
#[derive(Clone)]
struct Record;

impl MessageExt for Record {
    type Entry = BytesValue;

    fn index(entry: &Self::Entry) -> u64 {
        u64::from_be_bytes(*entry.value.first_chunk().expect("an index comes first"))
    }
}

fn write(engine: &Engine, index: &mut u64, records: &[Vec<u8>], sync: bool) {
    let entry = |record: &Vec<u8>| {
        *index += 1;
        let mut entry = BytesValue::new();
        entry.value = [&index.to_be_bytes()[..], record].concat();
        entry
    };
    let entries: Vec<_> = records.iter().map(entry).collect();
    let mut batch = LogBatch::default();
    batch.add_entries::<Record>(REGION, &entries).expect("entries follow one another");
    engine.write(&mut batch, sync).expect("the engine takes it");
}
