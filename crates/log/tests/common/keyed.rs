//! Records with keys, a model of what a compacted log must hold, and the check of one against the
//! other.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::must_use_candidate,
    clippy::cast_possible_truncation,
    unreachable_pub,
    missing_docs,
    reason = "shared by several tests, none of which uses all"
)]

use std::collections::BTreeMap;

use logmill_log::Log;
use logmill_log::sim::SimRandom;
use logmill_record::{Batch, BatchBuilder, BatchOptions, Compression, Inflater, NewRecord, TimestampMs};

/// A record as a test knows it: key and value, each perhaps null.
pub type Entry = (Option<u8>, Option<u64>);
pub type Records = BTreeMap<u64, Entry>;

pub fn batch(entries: &[Entry]) -> Batch {
    compressed(entries, Compression::None)
}

pub fn compressed(entries: &[Entry], codec: Compression) -> Batch {
    let mut builder = BatchBuilder::with_options(BatchOptions::new().compression(codec), 0);
    for (key, value) in entries {
        let (key, value) = (key.map(|key| [key]), value.map(u64::to_be_bytes));
        builder
            .push(&NewRecord {
                timestamp: TimestampMs(1_000),
                key: key.as_ref().map(<[u8; 1]>::as_slice),
                value: value.as_ref().map(<[u8; 8]>::as_slice),
                headers: &[],
            })
            .unwrap();
    }
    builder.build().unwrap()
}

/// Appends a batch and notes it in the model.
pub fn append(log: &Log, model: &mut Records, entries: &[Entry]) {
    append_batch(log, model, entries, batch(entries));
}

pub fn append_batch(log: &Log, model: &mut Records, entries: &[Entry], batch: Batch) {
    let receipt = log.append(&[batch]).unwrap();
    let first = receipt.first_offset().get();
    receipt.wait().unwrap();
    model.extend((first..).zip(entries.iter().copied()));
}

/// Every record that is there, by its offset; checks that a reader gets on from everywhere.
pub fn records(log: &Log) -> Records {
    let mut found = Records::new();
    let mut next = log.start_offset();
    while next < log.end_offset() {
        let out = log.read(next, 700).unwrap();
        assert!(out.next_offset > next, "a reader goes on from {next}");
        for chunk in &out.chunks {
            let mut rest = chunk.batches.clone();
            while let Some(batch) = Batch::split_from(&mut rest).unwrap() {
                assert!(batch.header().last_offset() >= next, "nothing below what was asked for");
                for record in batch.records_with(&mut Inflater::default()).unwrap() {
                    let record = record.unwrap();
                    if record.offset < next {
                        continue;
                    }
                    let key = record.key.map(|key| key[0]);
                    let value = record.value.map(|value| u64::from_be_bytes(value.try_into().unwrap()));
                    assert_eq!(record.timestamp, TimestampMs(1_000));
                    let last = found.last_key_value().map(|(offset, _)| *offset);
                    assert!(last.is_none_or(|last| last < record.offset.get()), "offsets grow");
                    found.insert(record.offset.get(), (key, value));
                }
                assert!(batch.header().next_offset() <= chunk.next_offset);
            }
        }
        next = out.next_offset;
    }
    found
}

/// What a table made from the records would hold.
pub fn view(records: &Records) -> BTreeMap<u8, (u64, u64)> {
    let mut view = BTreeMap::new();
    for (offset, (key, value)) in records {
        match (key, value) {
            (Some(key), Some(value)) => drop(view.insert(*key, (*offset, *value))),
            (Some(key), None) => drop(view.remove(key)),
            (None, _) => {}
        }
    }
    view
}

/// What compaction must leave alone, whatever it does: see each assertion.
pub fn check(log: &Log, model: &Records) -> Records {
    let found = records(log);
    let start = log.start_offset().get();
    let kept: Records = model.range(start..).map(|(offset, entry)| (*offset, *entry)).collect();
    for (offset, entry) in &found {
        assert_eq!(kept.get(offset), Some(entry), "the record at {offset} is the one that was written");
    }
    for (offset, (key, _)) in &kept {
        assert!(key.is_some() || found.contains_key(offset), "the record without a key at {offset} stays");
    }
    // A value whose key came below the start too is judged by what is visible.
    assert_eq!(view(&found), view(&kept), "the last value of each key stays, and no older one returns");
    found
}

/// Fills a log with records of few keys, with some tombstones and some without a key.
pub fn fill(log: &Log, model: &mut Records, random: &SimRandom, batches: u64, keys: u64) {
    for _ in 0..batches {
        let entries: Vec<Entry> = (0..=random.below(4))
            .map(|_| {
                let key = (!random.one_in(20)).then(|| random.below(keys) as u8);
                (key, (!random.one_in(6)).then(|| random.below(1 << 40)))
            })
            .collect();
        append(log, model, &entries);
    }
}

/// What a compacted log with all segments sealed holds: per key its last record, if a value.
pub fn least(model: &Records) -> Records {
    let mut last = BTreeMap::new();
    for (offset, (key, _)) in model {
        if let Some(key) = key {
            last.insert(*key, *offset);
        }
    }
    let is_last = |offset: &u64, key: Option<u8>| key.is_none_or(|key| last[&key] == *offset);
    model.iter().filter(|(offset, (key, _))| is_last(offset, *key)).map(|(o, e)| (*o, *e)).collect()
}
