//! gzip (RFC 1952). Members may follow one another, as the format allows and Kafka's client reads.

use std::io::{Read, Write};

use flate2::Compression as Level;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::{Failure, invalid};
use crate::error::BatchError;

pub(super) fn inflate(compressed: &[u8], out: &mut Vec<u8>, max_len: usize) -> Result<(), Failure> {
    let room = max_len.saturating_sub(out.len());
    // One byte more than there may be tells the end from the limit.
    let mut reader = MultiGzDecoder::new(compressed).take(room as u64 + 1);
    let read = reader.read_to_end(out).map_err(invalid)?;
    if read > room { Err(Failure::TooFar) } else { Ok(()) }
}

pub(super) fn compress(records: &[u8], level: Option<i32>, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let level = super::check_level("gzip level", level.unwrap_or(6), 0, 9)?;
    let mut encoder = GzEncoder::new(out, Level::new(level.cast_unsigned()));
    let written = encoder.write_all(records).and_then(|()| encoder.finish().map(drop));
    written.expect("invariant: memory takes every write");
    Ok(())
}
