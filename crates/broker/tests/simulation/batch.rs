//! Records that say who sent them.

use bytes::Bytes;
use logmill_broker::ProduceRecord;
use logmill_record::{Batch, BatchBuilder, NewRecord, TimestampMs};

use crate::history::Id;

fn value(id: Id, filler: usize) -> String {
    id.value(&"x".repeat(filler))
}

/// As plain records.
pub(crate) fn records(ids: &[Id], filler: usize) -> Vec<ProduceRecord> {
    let record =
        |id: &Id| ProduceRecord { value: Some(Bytes::from(value(*id, filler))), ..ProduceRecord::default() };
    ids.iter().map(record).collect()
}

/// As a batch that a producer made.
pub(crate) fn built(ids: &[Id], filler: usize) -> Batch {
    let mut builder = BatchBuilder::new();
    for id in ids {
        let value = value(*id, filler);
        let (timestamp, value) = (TimestampMs(1_000), Some(value.as_bytes()));
        builder.push(&NewRecord { timestamp, key: None, value, headers: &[] }).unwrap();
    }
    builder.build().unwrap()
}
