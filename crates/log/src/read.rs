//! What readers get.

use bytes::Bytes;
use logmill_record::{Offset, TimestampMs};

/// Whole record batches that were appended at about the same time.
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
}

/// What a read found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReadOut {
    /// The first offset that is kept.
    pub start_offset: Offset,
    /// The offset after the last record that readers can see.
    pub end_offset: Offset,
    /// Where to read next.
    pub next_offset: Offset,
    /// The batches, in order. The first may begin before the offset that was asked for.
    pub chunks: Vec<Chunk>,
}
