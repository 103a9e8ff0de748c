//! Walking the headers of consecutive batches in memory, and taking those that a reader asked for.

use std::ops::Range;

use bytes::Bytes;
use logmill_record::{Batch, BatchError, BatchHeader, Inflater, Offset, TimestampMs, check_crc};

use super::Gaps;

/// The first bytes of a batch, from its base offset to its CRC: what index checksums cover.
pub(crate) const HEAD_LEN: usize = 21;

/// Goes on with a CRC-32C.
pub(crate) fn crc32c_extend(crc: u32, bytes: &[u8]) -> u32 {
    let state = u64::from(crc ^ u32::MAX);
    let mut digest = crc_fast::Digest::new_with_init_state(crc_fast::CrcAlgorithm::Crc32Iscsi, state);
    digest.update(bytes);
    u32::try_from(digest.finalize()).expect("a CRC-32 has 32 bits")
}

/// Damage found in bytes that were read.
#[derive(Debug)]
pub(crate) struct Damage {
    /// Where in the bytes it begins.
    pub(crate) at: usize,
    /// The offsets from there on, as far as they are known; the end is `None` if it is not.
    pub(crate) from: Offset,
    pub(crate) to: Option<Offset>,
    pub(crate) what: String,
}

/// A batch in a run of bytes.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    pub(crate) at: usize,
    pub(crate) header: BatchHeader,
}

impl Placement {
    pub(crate) fn end(&self) -> usize {
        self.at + self.header.total_len
    }

    fn damage(&self, error: &BatchError) -> Damage {
        let header = &self.header;
        Damage {
            at: self.at,
            from: header.base_offset,
            to: Some(header.next_offset()),
            what: error.to_string(),
        }
    }
}

/// The batches of a run of bytes, as far as their headers follow from one another.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) batches: Vec<Placement>,
    /// CRC-32C over the first bytes of each.
    pub(crate) check: u32,
    /// Why the walk ended before the end of the bytes, if it did. The last batch may only be cut
    /// off: then `cut_off` is its length.
    pub(crate) damage: Option<Damage>,
    pub(crate) cut_off: Option<usize>,
}

/// Walks `bytes`, whose first batch must begin at `first`, or behind it where there may be gaps.
pub(crate) fn walk(bytes: &[u8], first: Offset, gaps: Gaps) -> Walk {
    let mut walk = Walk { batches: Vec::new(), check: 0, damage: None, cut_off: None };
    let (mut at, mut expected) = (0, first);
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest.len() < logmill_record::HEADER_LEN {
            walk.cut_off = Some(logmill_record::HEADER_LEN);
            break;
        }
        let damage = |what| Some(Damage { at, from: expected, to: None, what });
        let header = match BatchHeader::parse(rest) {
            Ok(header) => header,
            Err(error) => {
                walk.damage = damage(error.to_string());
                break;
            }
        };
        if let Err(what) = gaps.check(&header, expected) {
            walk.damage = damage(what);
            break;
        }
        if header.total_len > rest.len() {
            walk.cut_off = Some(header.total_len);
            break;
        }
        walk.check = crc32c_extend(walk.check, &rest[..HEAD_LEN]);
        expected = header.next_offset();
        at += header.total_len;
        walk.batches.push(Placement { at: at - header.total_len, header });
    }
    walk
}

/// Batches taken for a reader.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Where they are in the bytes.
    pub(crate) range: Range<usize>,
    /// The offset after the last; of no meaning if there are none.
    pub(crate) next_offset: Offset,
}

/// The whole batches from the one that holds `from`, or the first behind it, up to about `max_bytes` but at least one,
/// each checked against its CRC. Damage in the first is an error; before a later one the take ends.
pub(crate) fn take(
    bytes: &[u8],
    batches: &[Placement],
    from: Offset,
    max_bytes: usize,
) -> Result<Taken, Damage> {
    let first = batches.partition_point(|batch| batch.header.last_offset() < from);
    let start = batches.get(first).map_or(bytes.len(), |batch| batch.at);
    let mut taken = Taken { range: start..start, next_offset: from };
    for batch in &batches[first..] {
        let any = !taken.range.is_empty();
        if any && batch.end() - start > max_bytes {
            break;
        }
        match check_crc(&bytes[batch.at..batch.end()], &batch.header) {
            Ok(()) => {
                taken.range.end = batch.end();
                taken.next_offset = batch.header.next_offset();
            }
            Err(_) if any => break,
            Err(error) => return Err(batch.damage(&error)),
        }
    }
    Ok(taken)
}

/// The first record at or after both `at` and `start` in the given batches.
pub(crate) fn find_record(
    bytes: &Bytes,
    batches: &[Placement],
    at: TimestampMs,
    start: Offset,
) -> Result<Option<(Offset, TimestampMs)>, Damage> {
    let may_hold =
        |batch: &&Placement| batch.header.max_timestamp >= at && batch.header.last_offset() >= start;
    let mut inflater = Inflater::default();
    for placed in batches.iter().filter(may_hold) {
        let damage = |error: BatchError| placed.damage(&error);
        let batch = Batch::parse(bytes.slice(placed.at..placed.end())).map_err(damage)?;
        for record in batch.records_with(&mut inflater).map_err(damage)? {
            let record = record.map_err(damage)?;
            if record.timestamp >= at && record.offset >= start {
                return Ok(Some((record.offset, record.timestamp)));
            }
        }
    }
    Ok(None)
}
