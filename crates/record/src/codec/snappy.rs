//! Snappy blocks, bare (as librdkafka sends them) or in the framing of xerial's snappy-java (as Kafka's Java
//! client sends them, and this crate).
//!
//! The framing: eight bytes `0x82 S N A P P Y 0`, a version and the oldest version that can read it (`i32` each,
//! 1), then chunks of a length (`i32`) and a block. Integers are big-endian. A stream may follow a stream, with
//! its own sixteen bytes. A bare block cannot be taken for it: as a block it would begin with a copy of nothing.

use super::{Failure, invalid, problem};
use crate::error::BatchError;

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// What snappy-java puts into one block.
const CHUNK_BYTES: usize = 32 << 10;
/// A copy of 64 bytes takes three, which is the most that a block can grow.
const MAX_GROWTH: usize = 22;

pub(super) fn inflate(compressed: &[u8], out: &mut Vec<u8>, max_len: usize) -> Result<(), Failure> {
    if !compressed.starts_with(&MAGIC) {
        return inflate_block(compressed, out, max_len);
    }
    let mut rest = compressed;
    while !rest.is_empty() {
        if rest.starts_with(&MAGIC) {
            rest = rest.get(HEADER.len()..).ok_or_else(|| problem("its header is cut short"))?;
            continue;
        }
        let (length, after) =
            rest.split_first_chunk().ok_or_else(|| problem("a chunk's length is cut short"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let Some((block, after)) = after.split_at_checked(length) else {
            return Err(problem(format!("a chunk claims {length} bytes, {} remain", after.len())));
        };
        inflate_block(block, out, max_len)?;
        rest = after;
    }
    Ok(())
}

fn inflate_block(block: &[u8], out: &mut Vec<u8>, max_len: usize) -> Result<(), Failure> {
    let len = snap::raw::decompress_len(block).map_err(invalid)?;
    if len > block.len().saturating_mul(MAX_GROWTH) {
        return Err(problem(format!("a block of {} bytes claims to hold {len}", block.len())));
    }
    let start = out.len();
    if len > max_len.saturating_sub(start) {
        return Err(Failure::TooFar);
    }
    out.resize(start + len, 0);
    snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(invalid)?;
    Ok(())
}

pub(super) fn compress(records: &[u8], out: &mut Vec<u8>) -> Result<(), BatchError> {
    let mut encoder = snap::raw::Encoder::new();
    out.extend_from_slice(&HEADER);
    for chunk in records.chunks(CHUNK_BYTES) {
        let start = out.len();
        out.resize(start + 4 + snap::raw::max_compress_len(chunk.len()), 0);
        let written = encoder.compress(chunk, &mut out[start + 4..]);
        let len = written.expect("invariant: a chunk fits the room that the codec asks for");
        let prefix = u32::try_from(len).expect("invariant: a chunk is small");
        out[start..start + 4].copy_from_slice(&prefix.to_be_bytes());
        out.truncate(start + 4 + len);
    }
    Ok(())
}
