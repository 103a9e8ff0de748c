//! The file `{base:020}.state`: what was known of producers at the end of a segment, written with
//! its index.
//!
//! It speaks for one segment with one content: it repeats the base, the next offset, the length
//! and the checksum of headers that the index's footer has, and is used only where all are equal.
//! Every count is checked against the bytes that are left.

use std::collections::VecDeque;
use std::path::Path;

use logmill_record::{Offset, TimestampMs};

use super::index::Footer;
use super::{Reader, Writer, damaged};
use crate::error::Error;

const MAGIC: [u8; 4] = *b"LMPS";
/// So many batches of a producer are remembered: one of them that comes again is recognised. A producer that
/// keeps no more batches under way can send any of them again.
///
/// ```
/// use logmill_log::REMEMBERED_BATCHES;
///
/// let under_way = 5; // as Kafka's clients allow
/// assert!(under_way <= REMEMBERED_BATCHES);
/// ```
pub const REMEMBERED_BATCHES: usize = 64;
/// In place of the first offset of a transaction: there is none.
const NO_TRANSACTION: u64 = u64::MAX;
/// The producer's next batch must have sequence 0.
const FLAG_STARTS_ANEW: u16 = 1;

const PRODUCER_LEN: usize = 40;
const BATCH_LEN: usize = 32;
const ABORTED_LEN: usize = 24;

/// A batch of an idempotent producer, remembered to recognise it when it is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) first_sequence: i32,
    pub(crate) last_sequence: i32,
    pub(crate) first_offset: Offset,
    pub(crate) last_offset: Offset,
    pub(crate) appended_at: TimestampMs,
}

/// What is known of a producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    /// Its epoch has moved on and no batch of the new one has come: the first has sequence 0.
    pub(crate) starts_anew: bool,
    /// Its newest batches, oldest first, their sequences without a gap.
    pub(crate) batches: VecDeque<Remembered>,
    /// The first offset of its open transaction.
    pub(crate) transaction: Option<Offset>,
    /// The last offset of its last batch, be it a marker; no two producers have the same.
    pub(crate) last_offset: Offset,
    /// When that was appended, or later.
    pub(crate) last_used: TimestampMs,
}

/// A transaction that was aborted: a reader of committed records leaves out the records of this
/// producer between these offsets.
///
/// ```
/// use logmill_log::{AbortedTxn, Log, LogOptions, SetOptions};
/// use logmill_record::{
///     BatchBuilder, BatchOptions, ControlRecord, ControlType, NewRecord, Offset, TimestampMs,
/// };
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
/// let options = BatchOptions::new().producer(4711, 0, 0).transactional();
/// let mut batch = BatchBuilder::with_options(options, 0);
/// batch.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] })?;
/// log.append(&[batch.build()?])?.wait()?;
/// assert_eq!(log.last_stable_offset(), Offset(0)); // nobody knows yet how it ends
///
/// let abort = ControlRecord { kind: ControlType::Abort, coordinator_epoch: 1 };
/// log.append(&[abort.batch(4711, 0, TimestampMs(6))?])?.wait()?;
/// assert_eq!(log.last_stable_offset(), Offset(2));
/// let aborted: Vec<AbortedTxn> = log.aborted(Offset(0)..Offset(2))?;
/// assert_eq!((aborted[0].first_offset, aborted[0].last_offset), (Offset(0), Offset(1)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct AbortedTxn {
    /// Whose it was.
    pub producer_id: i64,
    /// The offset of its first record.
    pub first_offset: Offset,
    /// The offset of the marker that ended it.
    pub last_offset: Offset,
}

/// Which contents of which segment a file was written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpeaksFor {
    base: Offset,
    next_offset: Offset,
    data_len: u64,
    headers_crc: u32,
}

impl SpeaksFor {
    /// Whether it is the segment with this footer.
    pub(crate) fn is(&self, footer: &Footer) -> bool {
        let Footer { base, next_offset, data_len, headers_crc, .. } = *footer;
        *self == Self { base, next_offset, data_len, headers_crc }
    }
}

/// The contents of a `.state`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StateFile {
    /// At the end of the segment, by id.
    pub(crate) producers: Vec<Producer>,
    /// Those whose marker lies in the segment, in the order of their markers.
    pub(crate) aborted: Vec<AbortedTxn>,
}

impl StateFile {
    /// The file that speaks for the segment with this footer.
    pub(crate) fn encode(&self, footer: &Footer) -> Vec<u8> {
        let count = |len: usize| u32::try_from(len).expect("fewer than 2^32 fit in a segment, or in memory");
        let mut writer = Writer::new(MAGIC);
        writer.u64(footer.base.get());
        writer.u64(footer.next_offset.get());
        writer.u64(footer.data_len);
        writer.u32(footer.headers_crc);
        writer.u32(count(self.producers.len()));
        writer.u32(count(self.aborted.len()));
        self.producers.iter().for_each(|producer| encode_producer(producer, &mut writer));
        for aborted in &self.aborted {
            writer.bytes(&aborted.producer_id.to_le_bytes());
            writer.u64(aborted.first_offset.get());
            writer.u64(aborted.last_offset.get());
        }
        writer.finish()
    }

    /// Reads a file; an error also if it speaks for another segment than that with this footer.
    pub(crate) fn decode(path: &Path, bytes: &[u8], footer: &Footer) -> Result<Self, Error> {
        let (of, state) = Self::decode_any(path, bytes)?;
        if !of.is(footer) {
            return Err(damaged(path, "it was written for other contents of its segment"));
        }
        Ok(state)
    }

    /// Reads a file, whatever it speaks for.
    pub(crate) fn decode_any(path: &Path, bytes: &[u8]) -> Result<(SpeaksFor, Self), Error> {
        let mut reader = Reader::open_sidecar(path, bytes, MAGIC)?;
        let of = SpeaksFor {
            base: reader.offset()?,
            next_offset: reader.offset()?,
            data_len: reader.u64()?,
            headers_crc: reader.u32()?,
        };
        let (producers, aborted) = (reader.u32()? as usize, reader.u32()? as usize);
        let least = producers as u64 * PRODUCER_LEN as u64 + aborted as u64 * ABORTED_LEN as u64;
        if least > reader.remaining() as u64 {
            return Err(reader.damaged("it claims more than it holds"));
        }
        let mut state =
            Self { producers: Vec::with_capacity(producers), aborted: Vec::with_capacity(aborted) };
        for _ in 0..producers {
            let producer = decode_producer(&mut reader)?;
            if producer.last_offset >= of.next_offset
                || state.producers.last().is_some_and(|last| last.id >= producer.id)
            {
                return Err(reader.damaged("its producers are out of order"));
            }
            state.producers.push(producer);
        }
        for _ in 0..aborted {
            let producer_id = i64::from_le_bytes(reader.array()?);
            let (first_offset, last_offset) = (reader.offset()?, reader.offset()?);
            if first_offset > last_offset || last_offset >= of.next_offset {
                return Err(reader.damaged("an aborted range ends before it begins, or past the segment"));
            }
            state.aborted.push(AbortedTxn { producer_id, first_offset, last_offset });
        }
        if reader.remaining() > 0 {
            return Err(reader.damaged("it is longer than it says"));
        }
        Ok((of, state))
    }
}

fn encode_producer(producer: &Producer, writer: &mut Writer) {
    writer.bytes(&producer.id.to_le_bytes());
    writer.u64(producer.last_offset.get());
    writer.bytes(&producer.last_used.0.to_le_bytes());
    writer.u64(producer.transaction.map_or(NO_TRANSACTION, Offset::get));
    writer.bytes(&producer.epoch.to_le_bytes());
    writer.u16(if producer.starts_anew { FLAG_STARTS_ANEW } else { 0 });
    writer.u32(u32::try_from(producer.batches.len()).expect("at most 64 are remembered"));
    for batch in &producer.batches {
        writer.bytes(&batch.first_sequence.to_le_bytes());
        writer.bytes(&batch.last_sequence.to_le_bytes());
        writer.u64(batch.first_offset.get());
        writer.u64(batch.last_offset.get());
        writer.bytes(&batch.appended_at.0.to_le_bytes());
    }
}

fn decode_producer(reader: &mut Reader<'_>) -> Result<Producer, Error> {
    let id = i64::from_le_bytes(reader.array()?);
    let last_offset = reader.offset()?;
    let last_used = TimestampMs(i64::from_le_bytes(reader.array()?));
    let transaction = match reader.u64()? {
        NO_TRANSACTION => None,
        first => Some(Offset::new(first).ok_or_else(|| reader.damaged("a transaction has no offset"))?),
    };
    let epoch = i16::from_le_bytes(reader.array()?);
    let flags = u16::from_le_bytes(reader.array()?);
    let count = reader.u32()? as usize;
    if count > REMEMBERED_BATCHES || count * BATCH_LEN > reader.remaining() {
        return Err(reader.damaged("a producer claims more batches than there can be"));
    }
    if id < 0 || transaction.is_some_and(|first| first > last_offset) {
        return Err(reader.damaged("a producer makes no sense"));
    }
    let mut batches = VecDeque::with_capacity(count);
    for _ in 0..count {
        let batch = Remembered {
            first_sequence: i32::from_le_bytes(reader.array()?),
            last_sequence: i32::from_le_bytes(reader.array()?),
            first_offset: reader.offset()?,
            last_offset: reader.offset()?,
            appended_at: TimestampMs(i64::from_le_bytes(reader.array()?)),
        };
        let sound = batch.first_sequence >= 0
            && batch.last_sequence >= 0
            && batch.first_offset <= batch.last_offset
            && batch.last_offset <= last_offset;
        if !sound {
            return Err(reader.damaged("a remembered batch makes no sense"));
        }
        batches.push_back(batch);
    }
    let starts_anew = flags & FLAG_STARTS_ANEW != 0;
    Ok(Producer { id, epoch, starts_anew, batches, transaction, last_offset, last_used })
}
