//! The four compressions, each a feature: bytes in, bytes out, and never more of them than allowed.
//!
//! A codec gets the room that there is, and allocates no more than that, whatever the bytes claim.

#![cfg_attr(
    not(all(feature = "gzip", feature = "snappy", feature = "lz4", feature = "zstd")),
    allow(clippy::ptr_arg, dead_code, unused_variables, reason = "each codec uses its part")
)]

use std::fmt;

use crate::attributes::Compression;
use crate::error::BatchError;

#[cfg(feature = "gzip")]
mod gzip;
#[cfg(feature = "lz4")]
mod lz4;
#[cfg(feature = "snappy")]
mod snappy;
#[cfg(feature = "zstd")]
mod zstd;

/// What codecs keep from batch to batch.
#[derive(Default)]
pub(crate) struct Contexts {
    /// 160 KiB, which cost as much as inflating a few kilobytes.
    #[cfg(feature = "zstd")]
    zstd: Option<zstd_safe::DCtx<'static>>,
}

impl fmt::Debug for Contexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contexts").finish_non_exhaustive()
    }
}

/// Why bytes were not inflated.
#[derive(Debug)]
enum Failure {
    /// There would be more than allowed.
    TooFar,
    /// They are not what the codec writes.
    Problem(String),
    /// The program was built without the codec.
    Unsupported,
}

fn problem(problem: impl Into<String>) -> Failure {
    Failure::Problem(problem.into())
}

fn invalid(error: impl fmt::Display) -> Failure {
    Failure::Problem(error.to_string())
}

/// Appends what `compressed` inflates to, so that `out` is at most `max_len` long.
pub(crate) fn inflate(
    contexts: &mut Contexts,
    compression: Compression,
    compressed: &[u8],
    out: &mut Vec<u8>,
    max_len: usize,
) -> Result<(), BatchError> {
    let start = out.len();
    inflate_with(contexts, compression, compressed, out, max_len).map_err(|failure| match failure {
        Failure::Problem(problem) => BatchError::NotInflated { compression, problem },
        Failure::Unsupported => BatchError::UnsupportedCompression { compression },
        Failure::TooFar => BatchError::InflatesTooFar {
            compression,
            compressed: compressed.len(),
            limit: max_len.saturating_sub(start),
        },
    })
}

fn inflate_with(
    contexts: &mut Contexts,
    compression: Compression,
    compressed: &[u8],
    out: &mut Vec<u8>,
    max_len: usize,
) -> Result<(), Failure> {
    match compression {
        #[cfg(feature = "gzip")]
        Compression::Gzip => gzip::inflate(compressed, out, max_len),
        #[cfg(feature = "snappy")]
        Compression::Snappy => snappy::inflate(compressed, out, max_len),
        #[cfg(feature = "lz4")]
        Compression::Lz4 => lz4::inflate(compressed, out, max_len),
        #[cfg(feature = "zstd")]
        Compression::Zstd => zstd::inflate(&mut contexts.zstd, compressed, out, max_len),
        _ => Err(Failure::Unsupported),
    }
}

/// Appends `records`, compressed.
pub(crate) fn compress(
    compression: Compression,
    level: Option<i32>,
    records: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    match compression {
        #[cfg(feature = "gzip")]
        Compression::Gzip => gzip::compress(records, level, out),
        #[cfg(feature = "snappy")]
        Compression::Snappy => snappy::compress(records, out),
        #[cfg(feature = "lz4")]
        Compression::Lz4 => lz4::compress(records, out),
        #[cfg(feature = "zstd")]
        Compression::Zstd => zstd::compress(records, level, out),
        _ => Err(BatchError::UnsupportedCompression { compression }),
    }
}

fn check_level(field: &'static str, level: i32, min: i32, max: i32) -> Result<i32, BatchError> {
    if (min..=max).contains(&level) {
        return Ok(level);
    }
    Err(BatchError::OutOfRange { field, value: level.into(), min: min.into(), max: max.into() })
}

/// The most that `len` bytes become.
pub(crate) fn max_len(compression: Compression, len: usize) -> usize {
    match compression {
        Compression::None => len,
        // Nine bits for each byte, which is the worst that fixed codes do; header and trailer.
        Compression::Gzip => len + len / 8 + len / 64 + 64,
        // Chunks of 32 KiB, each at most a sixth and 32 bytes longer, behind its length; a header.
        Compression::Snappy => len + len / 6 + 36 * (len / 32_768 + 1) + 16,
        // Blocks of 64 KiB behind their length; header and end mark.
        Compression::Lz4 => len + 4 * (len / 65_536 + 1) + 11,
        // ZSTD_COMPRESSBOUND.
        Compression::Zstd => len + (len >> 8) + ((128_usize << 10).saturating_sub(len) >> 11) + 64,
    }
}
