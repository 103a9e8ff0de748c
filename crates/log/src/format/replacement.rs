//! The file `{base:020}.merge`: the replacement record of several segments that become one.
//!
//! It is the commit point of the merging: written when the new files are on disk beside the old
//! ones, and removed when nothing is left of these. While it is there, a segment that it names may
//! be on disk twice, under its own name and in the new segment.

use std::path::Path;

use logmill_record::Offset;

use super::index::Footer;
use super::{Reader, Writer};
use crate::error::Error;

/// The ending of such files.
pub(crate) const MERGE: &str = "merge";
/// So many segments become one at most: a record has a bound, and so has what a crash leaves.
pub(crate) const MOST_INPUTS: usize = 1_024;

const MAGIC: [u8; 4] = *b"LMRP";

/// Which segments become which one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replacement {
    /// The offset after the new segment's last record.
    pub(crate) next_offset: Offset,
    /// The length of its data.
    pub(crate) data_len: u64,
    /// CRC-32C over the first 21 bytes of every batch of it.
    pub(crate) headers_crc: u32,
    /// The base offsets of the segments that it replaces, in order. Its own is the first.
    pub(crate) inputs: Vec<Offset>,
}

impl Replacement {
    /// The record of the new segment with this footer.
    pub(crate) fn new(footer: &Footer, inputs: Vec<Offset>) -> Self {
        let Footer { next_offset, data_len, headers_crc, .. } = *footer;
        Self { next_offset, data_len, headers_crc, inputs }
    }

    /// The segments whose files go.
    pub(crate) fn doomed(&self) -> &[Offset] {
        &self.inputs[1..]
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        writer.u64(self.next_offset.get());
        writer.u64(self.data_len);
        writer.u32(self.headers_crc);
        writer.u32(u32::try_from(self.inputs.len()).expect("a merging has at most 1,024 inputs"));
        for base in &self.inputs {
            writer.u64(base.get());
        }
        writer.finish()
    }

    /// Reads the record of the segment that begins at `base`.
    pub(crate) fn decode(path: &Path, bytes: &[u8], base: Offset) -> Result<Self, Error> {
        let mut reader = Reader::open(path, bytes, MAGIC)?;
        let (next_offset, data_len) = (reader.offset()?, reader.u64()?);
        let (headers_crc, count) = (reader.u32()?, reader.u32()? as usize);
        if !(2..=MOST_INPUTS).contains(&count) || reader.remaining() != count * size_of::<u64>() {
            return Err(reader.damaged("its length does not match its number of segments"));
        }
        let inputs = (0..count).map(|_| reader.offset()).collect::<Result<Vec<_>, _>>()?;
        let ordered = inputs.is_sorted_by(|one, next| one < next);
        if !ordered || inputs.first() != Some(&base) || inputs.last() >= Some(&next_offset) {
            return Err(reader.damaged("the segments that it names are not one after the other"));
        }
        Ok(Self { next_offset, data_len, headers_crc, inputs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(inputs: &[u64]) -> Replacement {
        let inputs = inputs.iter().copied().map(Offset).collect();
        Replacement { next_offset: Offset(99), data_len: 4_711, headers_crc: 7, inputs }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_none_other_is() {
        let path = Path::new("00000000000000000010.merge");
        let good = record(&[10, 20, 98]);
        assert_eq!(Replacement::decode(path, &good.encode(), Offset(10)).expect("it is whole"), good);
        assert!(Replacement::decode(path, &good.encode(), Offset(20)).is_err(), "of another segment");
        for inputs in [&[10][..], &[10, 10], &[10, 30, 20], &[10, 99]] {
            assert!(Replacement::decode(path, &record(inputs).encode(), Offset(10)).is_err(), "{inputs:?}");
        }
        let bytes = good.encode();
        for len in 0..bytes.len() {
            assert!(Replacement::decode(path, &bytes[..len], Offset(10)).is_err(), "cut to {len} bytes");
        }
    }
}
