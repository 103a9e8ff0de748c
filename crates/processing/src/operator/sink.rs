//! Sinks: an item becomes a record for a topic, or a row for a table.
//!
//! Nothing is written here; a step's records and rows leave when the step is sealed. An item that an earlier run has
//! handled is left out: what it made was committed there.

use std::sync::Arc;

use bytes::Bytes;
use logmill_record::TimestampMs;
use rusqlite::types::Value;
use serde::Serialize;

use super::{Discard, Item, NodeId, OutRecord, Step, Typed, guarded};
use crate::codec::Codec;
use crate::sqlite::{Column, row_of};
use crate::topic::KeyOf;

/// `.to(step, topic)`
pub(crate) struct TopicSink<T> {
    node: NodeId,
    codec: Codec<T>,
    key: Option<KeyOf<T>>,
}

impl<T> TopicSink<T> {
    pub(crate) fn new(node: NodeId, codec: Codec<T>, key: Option<KeyOf<T>>) -> Self {
        Self { node, codec, key }
    }

    fn record_of(&self, item: &Item<T>, spread: u32) -> Result<OutRecord, String> {
        let value = (self.codec.encode)(&item.value)?;
        let key = self.key.as_ref().map(|key| Bytes::from(key(&item.value)));
        let timestamp = TimestampMs(item.time);
        Ok(OutRecord { key, value: Some(value), timestamp, headers: Vec::new(), spread })
    }
}

impl<T: Send + 'static> Typed for TopicSink<T> {
    type In = T;
    type Out = ();

    fn run(&mut self, batch: Vec<Item<T>>, step: &mut Step) -> Result<Vec<Item<()>>, Discard> {
        let node = self.node;
        for item in &batch {
            step.counts(node).records_in += 1;
            if step.is_replayed(item.origin) {
                continue;
            }
            let records = step.records.entry(node).or_default();
            let spread = u32::try_from(records.len()).unwrap_or(u32::MAX);
            match guarded(|| self.record_of(item, spread)).flatten() {
                Ok(record) => {
                    let bytes = record.key.as_ref().map_or(0, Bytes::len)
                        + record.value.as_ref().map_or(0, Bytes::len);
                    records.push(record);
                    let counts = step.counts(node);
                    counts.records_out += 1;
                    counts.bytes_out += bytes as u64;
                }
                Err(reason) => step.dead(node, item.origin, reason),
            }
        }
        Ok(Vec::new())
    }
}

/// `.sink(step, Sqlite::upsert(..))`
pub(crate) struct TableSink<T> {
    node: NodeId,
    columns: Arc<[Column]>,
    takes: std::marker::PhantomData<fn(T)>,
}

impl<T> TableSink<T> {
    pub(crate) fn new(node: NodeId, columns: Arc<[Column]>) -> Self {
        Self { node, columns, takes: std::marker::PhantomData }
    }
}

impl<T: Serialize + Send + 'static> Typed for TableSink<T> {
    type In = T;
    type Out = ();

    fn run(&mut self, batch: Vec<Item<T>>, step: &mut Step) -> Result<Vec<Item<()>>, Discard> {
        let node = self.node;
        for item in &batch {
            step.counts(node).records_in += 1;
            if step.is_replayed(item.origin) {
                continue;
            }
            match guarded(|| row_of(&item.value, &self.columns)).flatten() {
                Ok(row) => {
                    let counts = step.counts(node);
                    counts.records_out += 1;
                    counts.bytes_out += row.iter().map(size_of_value).sum::<u64>();
                    step.rows.entry(node).or_default().push(row);
                }
                Err(reason) => step.dead(node, item.origin, reason),
            }
        }
        Ok(Vec::new())
    }
}

fn size_of_value(value: &Value) -> u64 {
    match value {
        Value::Null => 0,
        Value::Integer(_) | Value::Real(_) => 8,
        Value::Text(text) => text.len() as u64,
        Value::Blob(bytes) => bytes.len() as u64,
    }
}
