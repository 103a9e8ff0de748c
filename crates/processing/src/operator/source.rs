//! The source's inside: record batches become typed values that wait, per partition, until the merge takes them.

use std::collections::VecDeque;
use std::ops::Range;

use logmill_record::{Batch, BatchError, Offset, Record, TimestampMs};

use super::{ErasedBatch, Item, Origin, erase, guarded};
use crate::codec::Codec;
use crate::topic::TimeOf;

/// Times outside would overflow when a window or a disorder is added: about 146 million years on either side.
const TIME_RANGE_MS: Range<i64> = i64::MIN / 2..i64::MAX / 2;

/// What the merge has to know about a decoded record.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) offset: Offset,
    /// Event time; the smallest there is for a bad record, which waits for nothing.
    pub(crate) time: i64,
    /// Key and value, in bytes.
    pub(crate) size_bytes: usize,
    /// Why it is set aside; such a record has no value in the decoder.
    pub(crate) bad: Option<Box<str>>,
}

/// A value to take out of the decoder: the next one of this partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drawn {
    pub(crate) partition: usize,
    pub(crate) time: i64,
    pub(crate) origin: Origin,
}

/// A source whose `T` is forgotten.
pub(crate) trait Decoder: Send {
    /// Decodes the records of `offsets`, keeps the good ones, and reports all of them in `entries`.
    /// `limit` is the largest time that is believed.
    fn decode(
        &mut self,
        partition: usize,
        batch: &Batch,
        offsets: Range<Offset>,
        limit: i64,
        entries: &mut VecDeque<Entry>,
    ) -> Result<(), BatchError>;

    /// Takes values out, in this order.
    fn draw(&mut self, order: &[Drawn]) -> Option<ErasedBatch>;

    /// Puts the values of `partition` aside that are decoded but not drawn; the next `decode` starts an empty queue,
    /// and [`restore`](Self::restore) puts them behind it.
    fn set_aside(&mut self, partition: usize);

    /// See [`set_aside`](Self::set_aside).
    fn restore(&mut self, partition: usize);
}

pub(crate) struct SourceDecoder<T> {
    codec: Codec<T>,
    time: Option<TimeOf<T>>,
    ready: Vec<VecDeque<T>>,
    aside: Vec<VecDeque<T>>,
}

impl<T> SourceDecoder<T> {
    pub(crate) fn new(codec: Codec<T>, time: Option<TimeOf<T>>, partitions: usize) -> Self {
        let queues = || (0..partitions).map(|_| VecDeque::new()).collect();
        Self { codec, time, ready: queues(), aside: queues() }
    }

    fn read(&self, batch: &Batch, record: &Record<'_>, limit: i64) -> Result<(T, i64), String> {
        let value = (self.codec.decode)(batch, record)?;
        let time = match &self.time {
            Some(time) => time(&value).ok_or("it has no event time")?,
            None if record.timestamp == TimestampMs::NONE => return Err("it has no timestamp".to_owned()),
            None => record.timestamp.0,
        };
        if !TIME_RANGE_MS.contains(&time) {
            return Err(format!("its event time, {time} ms, is out of range"));
        }
        if time > limit {
            return Err(format!(
                "its event time, {time} ms, is more than an hour after the node stored it: one such record would \
                 close the windows of all others"
            ));
        }
        Ok((value, time))
    }
}

impl<T: Send + 'static> Decoder for SourceDecoder<T> {
    fn decode(
        &mut self,
        partition: usize,
        batch: &Batch,
        offsets: Range<Offset>,
        limit: i64,
        entries: &mut VecDeque<Entry>,
    ) -> Result<(), BatchError> {
        for record in batch.records()? {
            let record = record?;
            if !offsets.contains(&record.offset) {
                continue;
            }
            let size_bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            let (time, bad) = match guarded(|| self.read(batch, &record, limit)).flatten() {
                Ok((value, time)) => {
                    self.ready[partition].push_back(value);
                    (time, None)
                }
                Err(reason) => (i64::MIN, Some(reason.into_boxed_str())),
            };
            entries.push_back(Entry { offset: record.offset, time, size_bytes, bad });
        }
        Ok(())
    }

    fn draw(&mut self, order: &[Drawn]) -> Option<ErasedBatch> {
        let items = order.iter().map(|drawn| Item {
            time: drawn.time,
            origin: drawn.origin,
            value: self.ready[drawn.partition]
                .pop_front()
                .expect("invariant: the merge draws a good entry once, and each has a value"),
        });
        erase(items.collect())
    }

    fn set_aside(&mut self, partition: usize) {
        self.aside[partition] = std::mem::take(&mut self.ready[partition]);
    }

    fn restore(&mut self, partition: usize) {
        let mut aside = std::mem::take(&mut self.aside[partition]);
        self.ready[partition].append(&mut aside);
    }
}
