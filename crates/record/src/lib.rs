//! Kafka's record batch v2: the one unit that is produced, checked, stored, served and consumed.
//!
//! This crate owns the bytes of a batch and every check on them. It does no I/O, starts no threads, holds no
//! `unsafe` code, and copies a record's bytes exactly once: into the batch that the [`BatchBuilder`] makes.
//! From then on a batch is one [`Bytes`](bytes::Bytes), and keys, values and headers are slices of it, or, where
//! the batch is compressed, of the one buffer that it was inflated to.
//!
//! # The format
//!
//! Specified by Kafka's [message format](https://kafka.apache.org/documentation/#messageformat), and introduced by
//! [KIP-98](https://cwiki.apache.org/confluence/display/KAFKA/KIP-98+-+Exactly+Once+Delivery+and+Transactional+Messaging).
//! Integers of the header are big-endian; those inside records are zig-zag varints.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..8 | base offset | `i64`; stamped by the log |
//! | 8..12 | batch length | `i32`; counts from byte 12 to the end |
//! | 12..16 | partition leader epoch | `i32`; stamped by the log |
//! | 16 | magic | `i8`; 2 |
//! | 17..21 | CRC-32C | `u32`; of byte 21 to the end |
//! | 21..23 | attributes | `i16`; see [`Attributes`] |
//! | 23..27 | last offset delta | `i32` |
//! | 27..35 | base timestamp | `i64`; ms; or the [delete horizon](BatchHeader::delete_horizon) |
//! | 35..43 | largest timestamp | `i64`; ms; or the time of append |
//! | 43..51 | producer id | `i64`; -1 is none |
//! | 51..53 | producer epoch | `i16`; -1 is none |
//! | 53..57 | base sequence | `i32`; -1 is none |
//! | 57..61 | record count | `i32` |
//! | 61.. | records | compressed as a whole, or one after another |
//!
//! The first 16 bytes lie before the CRC, so a log can give a batch its offset and epoch without touching
//! the rest: see [`stamped_prefix`].
//!
//! # What is checked where
//!
//! * [`BatchHeader::parse`] needs the 61 bytes of the header only. It checks magic, lengths and counts against
//!   each other, so that nothing behind it can be made to allocate or to overflow by a claim in the header.
//! * [`Batch::parse`] and [`Batch::split_from`] add that the bytes are there and that the CRC is right: a
//!   [`Batch`] that exists is whole. This is enough for bytes that were checked once already.
//! * [`Batch::check_records`] walks every record, and belongs wherever a batch comes in from outside: it holds
//!   a producer to what readers and the time index rely on.
//! * [`Batch::check_stored_with`] is the same walk for what a log holds: gaps and empty batches that compaction
//!   leaves are right there, and so are control batches.
//!
//! The iterators never panic either way: a record that does not add up is an error of the iterator.
//!
//! # Compression
//!
//! | feature | codec | reads | writes |
//! |---|---|---|---|
//! | `gzip` | flate2 on zlib-rs | one member or several | one |
//! | `snappy` | snap | xerial's framing, bare blocks | xerial's framing, as Kafka's Java client |
//! | `lz4` | `lz4_flex` | frames of any kind but with dictionaries | independent blocks of 64 KiB, as that client |
//! | `zstd` | zstd, in C | frames of any kind but with dictionaries | one frame |
//!
//! None is on by default. Without its feature a compressed batch is parsed, stamped and passed on as any other, and
//! looking into it is [`UnsupportedCompression`](BatchError::UnsupportedCompression).
//!
//! [`Batch::records`] borrows from uncompressed batches, for free. [`Batch::records_with`] borrows from any,
//! with the memory of an [`Inflater`] that is used again; [`Batch::inflate`] makes an uncompressed batch of any, for
//! records that are to outlive it. [`InflateLimits`] hold for all of them, and nothing is allocated for a length
//! that compressed bytes only claim.
//!
//! # What logs do to batches
//!
//! [`stamped_prefix`] gives a batch its place, [`Batch::into_log_append_time`] its time, where the topic wants the
//! broker's. [`ControlRecord`] ends a transaction. [`Batch::retain_records`] is compaction, one batch at a time:
//! what is left covers the same offsets and keeps codec, producer and sequence, down to a header alone.
//!
//! # Example
//!
//! ```
//! use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs};
//!
//! let mut builder = BatchBuilder::new();
//! builder.push(&NewRecord {
//!     timestamp: TimestampMs(1_700_000_000_000),
//!     key: Some(b"sensor-7"),
//!     value: Some(b"21.5"),
//!     headers: &[("unit", Some(b"C"))],
//! })?;
//! builder.push(&NewRecord {
//!     timestamp: TimestampMs(1_700_000_000_250),
//!     key: Some(b"sensor-7"),
//!     value: None, // a tombstone: null is not the same as empty
//!     headers: &[],
//! })?;
//! let sent = builder.build()?;
//!
//! // On the other side: one run of bytes, as many batches as were written.
//! let mut run = sent.bytes().clone();
//! while let Some(batch) = Batch::split_from(&mut run)? {
//!     batch.check_records()?;
//!     for record in batch.records()? {
//!         let record = record?;
//!         println!("{}: {:?} = {:?}", record.offset, record.key, record.value);
//!     }
//!     assert_eq!(batch.header().last_offset(), Offset(1));
//! }
//! # Ok::<(), logmill_record::BatchError>(())
//! ```

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod attributes;
mod batch;
mod builder;
mod codec;
mod control;
mod encode;
mod error;
mod header;
mod inflate;
mod options;
mod partition;
mod record;
mod rewrite;
mod units;
mod varint;

pub use attributes::{Attributes, Compression, TimestampType};
pub use batch::{Batch, check_crc, stamped_prefix};
pub use builder::{BatchBuilder, NewRecord};
pub use control::{ControlRecord, ControlType};
pub use error::{BatchError, BatchErrorKind, RecordProblem};
pub use header::{BatchHeader, HEADER_LEN, LEADER_EPOCH, MAX_BATCH_LEN};
pub use inflate::{InflateLimits, Inflater};
pub use options::BatchOptions;
pub use partition::murmur2_partition;
pub use record::{Header, Headers, Record, Records};
pub use units::{Offset, OffsetOutOfRange, TimestampMs};
