//! The four compressions, each a feature: bytes in, bytes out, never more of them than allowed.

use crate::attributes::Compression;
use crate::error::BatchError;

/// Appends what `compressed` inflates to, so that `out` is at most `max_len` long.
pub(crate) fn inflate(
    compression: Compression,
    compressed: &[u8],
    out: &mut Vec<u8>,
    max_len: usize,
) -> Result<(), BatchError> {
    let _ = (compressed, out, max_len);
    Err(BatchError::UnsupportedCompression { compression })
}

/// Appends `records`, compressed.
pub(crate) fn compress(
    compression: Compression,
    level: Option<i32>,
    records: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    let _ = (level, records, out);
    Err(BatchError::UnsupportedCompression { compression })
}

/// The most that `len` bytes become.
pub(crate) fn max_len(compression: Compression, len: usize) -> usize {
    match compression {
        Compression::None => len,
        // Stored blocks of at most 64 KiB behind five bytes each, header and trailer.
        Compression::Gzip => len + 5 * (len / 16_383 + 1) + 18,
        // Chunks of 32 KiB, each at most a sixth and 32 bytes longer, behind its length; a header.
        Compression::Snappy => len + len / 6 + 36 * (len / 32_768 + 1) + 16,
        // Blocks of 64 KiB behind their length; header and end mark.
        Compression::Lz4 => len + 4 * (len / 65_536 + 1) + 11,
        // ZSTD_COMPRESSBOUND.
        Compression::Zstd => len + (len >> 8) + ((128_usize << 10).saturating_sub(len) >> 11) + 64,
    }
}
