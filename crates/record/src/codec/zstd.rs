//! Zstandard (RFC 8878), by its reference implementation.
//!
//! Frames are inflated in one go, into room for all their blocks. The streaming decoder would set aside the
//! window that a frame's header claims, up to 128 MiB, whatever follows it.

use zstd_safe::{CCtx, DCtx, ErrorCode};

use super::{Failure, problem};
use crate::error::BatchError;

/// `ZSTD_error_dstSize_tooSmall`.
const NO_ROOM: ErrorCode = 70_usize.wrapping_neg();

pub(super) fn inflate(
    context: &mut Option<DCtx<'static>>,
    compressed: &[u8],
    out: &mut Vec<u8>,
    max_len: usize,
) -> Result<(), Failure> {
    // What the frames claim or, where they do not, what so many blocks may hold: 128 KiB each, for three bytes.
    let bound = zstd_safe::decompress_bound(compressed)
        .map_err(|_| problem("its frames are cut short, or are none"))?;
    let start = out.len();
    let room = max_len.saturating_sub(start);
    let bound = usize::try_from(bound).unwrap_or(usize::MAX);
    out.resize(start + bound.min(room), 0);
    let context = context.get_or_insert_with(DCtx::create);
    match context.decompress(&mut out[start..], compressed) {
        Ok(len) => {
            out.truncate(start + len);
            Ok(())
        }
        Err(NO_ROOM) if bound > room => Err(Failure::TooFar),
        Err(code) => Err(problem(zstd_safe::get_error_name(code))),
    }
}

pub(super) fn compress(records: &[u8], level: Option<i32>, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let level = super::check_level("zstd level", level.unwrap_or(3), -131_072, 22)?;
    let start = out.len();
    out.resize(start + zstd_safe::compress_bound(records.len()), 0);
    let len = CCtx::create()
        .compress(&mut out[start..], records, level)
        .expect("invariant: the output fits the room that the codec asks for");
    out.truncate(start + len);
    Ok(())
}
