//! What readers get.

use bytes::Bytes;
use logmill_record::{Offset, TimestampMs};

/// Whole record batches that were appended at about the same time.
///
/// ```
/// use logmill_log::{Log, LogOptions, SetOptions};
/// use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
/// # let mut batch = BatchBuilder::new();
/// # batch.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"hello"), headers: &[] })?;
/// # log.append(&[batch.build()?])?.wait()?;
/// for chunk in log.read(Offset(0), 1 << 20)?.chunks {
///     let about = if chunk.appended_at_estimated { "at the latest" } else { "" };
///     println!("up to offset {}, appended {about} at {}", chunk.next_offset, chunk.appended_at.0);
///     let mut batches = chunk.batches;
///     while let Some(batch) = Batch::split_from(&mut batches)? {
///         assert_eq!(batch.records()?.count(), 1);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Chunk {
    /// The batches, one after the other, each checked against its CRC. Bytes of sealed segments
    /// are the mapped file itself, not a copy.
    pub batches: Bytes,
    /// When the first of them was appended, by the node's clock.
    pub appended_at: TimestampMs,
    /// The time of append was lost and `appended_at` is an upper bound.
    pub appended_at_estimated: bool,
    /// The offset after the last of them.
    pub next_offset: Offset,
    /// The leader epoch of the last of them: the directory's open counter when it was appended.
    pub last_epoch: i32,
    /// Whether one of them is part of a transaction, or ends one: only then can [`Log::aborted`] tell of
    /// records among them.
    ///
    /// [`Log::aborted`]: crate::Log::aborted
    pub transactional: bool,
}

/// What a read found. Reading on from `next_offset` until it is `end_offset` reads everything:
///
/// ```
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
/// let mut next = log.start_offset();
/// loop {
///     let out = log.read(next, 1 << 20)?;
///     println!("{} bytes", out.chunks.iter().map(|chunk| chunk.batches.len()).sum::<usize>());
///     next = out.next_offset;
///     if next == out.end_offset {
///         break;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReadOut {
    /// The first offset that is kept.
    pub start_offset: Offset,
    /// The offset after the last record that readers can see.
    pub end_offset: Offset,
    /// How far a reader of committed records may read: see
    /// [`Log::last_stable_offset`](crate::Log::last_stable_offset).
    pub last_stable_offset: Offset,
    /// Where to read next.
    pub next_offset: Offset,
    /// The batches, in order. The first may begin before the offset that was asked for.
    pub chunks: Vec<Chunk>,
}
