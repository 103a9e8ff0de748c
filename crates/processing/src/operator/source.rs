//! The source's inside: record batches become typed values that wait, per partition, until the merge takes them.

use std::collections::VecDeque;
use std::ops::Range;

use logmill_record::{Batch, BatchError, InflateLimits, Offset, Record, TimestampMs};

use super::{ErasedBatch, Item, Origin, erase, guarded};
use crate::codec::Codec;
use crate::flow::Refused;
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
    pub(crate) bad: Option<Box<Bad>>,
}

/// Why a source sets a record aside.
#[derive(Clone, Debug)]
pub(crate) struct Bad {
    pub(crate) reason: String,
    /// It is for its time, which is not believed.
    pub(crate) is_ahead: bool,
}

impl From<String> for Bad {
    fn from(reason: String) -> Self {
        Self { reason, is_ahead: false }
    }
}

/// Which event times of a batch are believed.
///
/// A verdict is taken once: when a record is read again, the time at which it was stored may be known less exactly
/// than at first, and another verdict would count what has a letter, or lose what was counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Belief<'a> {
    /// Every record before it has its verdict.
    pub(crate) judged: Offset,
    /// Those of them that were refused.
    pub(crate) refused: &'a Refused,
    /// The largest time that is believed of the others.
    pub(crate) limit: i64,
}

impl Belief<'_> {
    fn refuses(&self, offset: Offset, time: i64) -> bool {
        if offset < self.judged { self.refused.contains(offset) } else { time > self.limit }
    }
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
    fn decode(
        &mut self,
        partition: usize,
        batch: &Batch,
        offsets: Range<Offset>,
        belief: Belief<'_>,
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

    fn read(&self, batch: &Batch, record: &Record<'_>, belief: Belief<'_>) -> Result<(T, i64), Bad> {
        let value = (self.codec.decode)(batch, record)?;
        let time = match &self.time {
            Some(time) => time(&value).ok_or_else(|| "it has no event time".to_owned())?,
            None if record.timestamp == TimestampMs::NONE => {
                return Err("it has no timestamp".to_owned().into());
            }
            None => record.timestamp.0,
        };
        if !TIME_RANGE_MS.contains(&time) {
            return Err(format!("its event time, {time} ms, is out of range").into());
        }
        if belief.refuses(record.offset, time) {
            let reason = format!(
                "its event time, {time} ms, is more than an hour after the node stored it: one such record would \
                 close the windows of all others"
            );
            return Err(Bad { reason, is_ahead: true });
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
        belief: Belief<'_>,
        entries: &mut VecDeque<Entry>,
    ) -> Result<(), BatchError> {
        let batch = &batch.inflate(&InflateLimits::default())?;
        for record in batch.records()? {
            let record = record?;
            if !offsets.contains(&record.offset) {
                continue;
            }
            let size_bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            let read = guarded(|| self.read(batch, &record, belief)).map_err(Bad::from).flatten();
            let (time, bad) = match read {
                Ok((value, time)) => {
                    self.ready[partition].push_back(value);
                    (time, None)
                }
                Err(bad) => (i64::MIN, Some(Box::new(bad))),
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
