//! Reading everything back.

use std::collections::BTreeMap;

use logmill_log::{Error, Log};
use logmill_record::{Batch, ControlType, Record};

use crate::model::{By, Entry, What};

/// The key of markers, which no record has.
pub(crate) const MARKER: u8 = u8::MAX;

/// Every record from the start to the end that readers can see.
pub(crate) fn read(log: &Log) -> Result<BTreeMap<u64, Entry>, Error> {
    let mut found = BTreeMap::new();
    let mut next = log.start_offset();
    loop {
        let out = log.read(next, 3_000)?;
        if out.chunks.is_empty() {
            assert_eq!(next, out.end_offset, "an empty read is the end");
            return Ok(found);
        }
        for chunk in out.chunks {
            let mut rest = chunk.batches;
            while let Some(batch) = Batch::split_from(&mut rest).unwrap() {
                for record in batch.records().unwrap() {
                    let record = record.unwrap();
                    if record.offset >= next {
                        let before = found.insert(record.offset.get(), entry(&batch, &record));
                        assert!(before.is_none(), "one record at {}", record.offset);
                    }
                }
            }
        }
        assert!(out.next_offset > next, "a read that is not empty goes on");
        next = out.next_offset;
    }
}

fn entry(batch: &Batch, record: &Record<'_>) -> Entry {
    let header = batch.header();
    let (epoch, is_last) = (header.leader_epoch, record.offset == header.last_offset());
    let by = |sequence, what| {
        let (id, epoch) = (header.producer_id, header.producer_epoch);
        (id >= 0).then_some(By { id, epoch, sequence, what })
    };
    if let Some(marker) = batch.control_record().unwrap() {
        let what = if marker.kind == ControlType::Abort { What::Abort } else { What::Commit };
        let id = record.timestamp.0.cast_unsigned();
        return Entry { id, key: MARKER, epoch, is_last, by: by(-1, what) };
    }
    let nth = i64::try_from(record.offset.get() - header.base_offset.get()).unwrap();
    let what = if header.attributes.is_transactional() { What::InTransaction } else { What::Plain };
    let by = by(sequence_after(header.base_sequence, nth), what);
    let id = u64::from_be_bytes(*record.value.unwrap().first_chunk().unwrap());
    Entry { id, key: record.key.unwrap()[0], epoch, is_last, by }
}

/// Sequences go from the largest number on to 0.
pub(crate) fn sequence_after(sequence: i32, count: i64) -> i32 {
    i32::try_from((i64::from(sequence) + count) % (1 << 31)).unwrap()
}
