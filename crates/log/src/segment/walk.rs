//! Walking the headers of consecutive batches in memory, and taking those that a reader asked for.

use std::ops::Range;

use bytes::Bytes;
use logmill_record::{Batch, BatchError, BatchHeader, HEADER_LEN, Inflater, Offset, TimestampMs, check_crc};

use super::Gaps;

/// The first bytes of a batch, from its base offset to its CRC: what index checksums cover.
pub(crate) const HEAD_LEN: usize = 21;

/// How many heads are gathered for one CRC.
const HEADS: usize = 16;

/// How many headers ahead of the walk are asked for.
const AHEAD: usize = 4;

/// Goes on with a CRC-32C.
pub(crate) fn crc32c_extend(crc: u32, bytes: &[u8]) -> u32 {
    let state = u64::from(crc ^ u32::MAX);
    let mut digest = crc_fast::Digest::new_with_init_state(crc_fast::CrcAlgorithm::Crc32Iscsi, state);
    digest.update(bytes);
    u32::try_from(digest.finalize()).expect("a CRC-32 has 32 bits")
}

/// What is wrong with stored bytes where a batch should begin. Nobody sent them like that: the error's advice,
/// which is for producers, does not fit.
#[cold]
pub(super) fn no_batch(error: &BatchError, bytes: &[u8]) -> String {
    match error {
        BatchError::UnsupportedMagic { .. } if bytes.iter().take(HEADER_LEN).all(|byte| *byte == 0) => {
            "there are zeros where a batch should begin".to_owned()
        }
        BatchError::UnsupportedMagic { magic } => {
            format!("a batch claims message format v{magic}, and the log writes only v2")
        }
        _ => error.to_string(),
    }
}

/// The CRC-32C over the first bytes of one batch after the other. They are gathered first: so few bytes
/// at a time cost a CRC ten times what they cost in one go.
struct HeadsCheck {
    crc: u32,
    heads: [u8; HEAD_LEN * HEADS],
    len: usize,
}

impl HeadsCheck {
    fn new() -> Self {
        Self { crc: 0, heads: [0; HEAD_LEN * HEADS], len: 0 }
    }

    fn push(&mut self, head: &[u8]) {
        if self.len == self.heads.len() {
            self.crc = crc32c_extend(self.crc, &self.heads);
            self.len = 0;
        }
        self.heads[self.len..self.len + HEAD_LEN].copy_from_slice(head);
        self.len += HEAD_LEN;
    }

    fn finish(self) -> u32 {
        crc32c_extend(self.crc, &self.heads[..self.len])
    }
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
    let mut headers = Headers::new(bytes, first, gaps);
    let batches = headers.by_ref().collect();
    let Headers { check, damage, cut_off, .. } = headers;
    Walk { batches, check: check.finish(), damage, cut_off }
}

/// The walk itself: one batch after the other, until the end or what ends it before.
struct Headers<'a> {
    bytes: &'a [u8],
    at: usize,
    expected: Offset,
    gaps: Gaps,
    check: HeadsCheck,
    damage: Option<Damage>,
    cut_off: Option<usize>,
}

impl<'a> Headers<'a> {
    fn new(bytes: &'a [u8], first: Offset, gaps: Gaps) -> Self {
        Self { bytes, at: 0, expected: first, gaps, check: HeadsCheck::new(), damage: None, cut_off: None }
    }

    /// Asks for the cache line of a header further on, without waiting for it: batches of a log are
    /// mostly of one length, and each header says only where the next one is.
    fn touch(&self, at: usize) {
        std::hint::black_box(self.bytes.get(at).copied());
    }

    fn damaged(&mut self, what: String) -> Option<Placement> {
        self.damage = Some(Damage { at: self.at, from: self.expected, to: None, what });
        None
    }
}

impl Iterator for Headers<'_> {
    type Item = Placement;

    fn next(&mut self) -> Option<Placement> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return None;
        }
        if rest.len() < HEADER_LEN {
            self.cut_off = Some(HEADER_LEN);
            return None;
        }
        let header = match BatchHeader::parse(rest) {
            Ok(header) => header,
            Err(error) => return self.damaged(no_batch(&error, rest)),
        };
        if let Err(what) = self.gaps.check(&header, self.expected) {
            return self.damaged(what);
        }
        if header.total_len > rest.len() {
            self.cut_off = Some(header.total_len);
            return None;
        }
        self.check.push(&rest[..HEAD_LEN]);
        let at = self.at;
        self.expected = header.next_offset();
        self.at += header.total_len;
        self.touch(self.at + (AHEAD - 1) * header.total_len);
        Some(Placement { at, header })
    }
}

/// What a reader gets of the batches of one index row.
#[derive(Debug)]
pub(crate) struct RowTaken {
    pub(crate) taken: Taken,
    /// CRC-32C over the first bytes of each batch of the row.
    pub(crate) check: u32,
    /// Why the walk ended before the end of the row, if it did: the batches before are good all
    /// the same, since they stand on their own CRC.
    pub(crate) damage: Option<Damage>,
    /// The CRC of a wanted batch is wrong; the take ended before it.
    pub(crate) bad: Option<Damage>,
}

/// [`walk`] and [`take`] of a row in one pass that keeps nothing: this is where sequential reads
/// spend their time. All headers are walked, for the row's checksum, and only wanted batches are
/// checked against their CRC: those from the one that holds the start of `offsets` on that begin before their end.
/// The first wanted one is taken also if it is larger than `max_bytes` where `whatever_size` says so.
pub(crate) fn take_row(
    bytes: &[u8],
    (first, gaps): (Offset, Gaps),
    offsets: &Range<Offset>,
    max_bytes: usize,
    whatever_size: bool,
) -> RowTaken {
    let mut taken = Taken::nothing(bytes.len(), offsets.start);
    let (mut any, mut full, mut bad) = (false, false, None);
    let mut headers = Headers::new(bytes, first, gaps);
    for batch in headers.by_ref() {
        if full || bad.is_some() || batch.header.last_offset() < offsets.start {
            continue;
        }
        let start = if any { taken.range.start } else { batch.at };
        let is_too_much = (any || !whatever_size) && batch.end() - start > max_bytes;
        if is_too_much || batch.header.base_offset >= offsets.end {
            full = true;
            continue;
        }
        match check_crc(&bytes[batch.at..batch.end()], &batch.header) {
            Ok(()) => {
                taken.range.start = start;
                taken.add(&batch);
                any = true;
            }
            Err(error) => bad = Some(batch.damage(&error)),
        }
    }
    if let (None, Some(len)) = (&headers.damage, headers.cut_off) {
        headers.damaged(format!("a batch claims {len} bytes, past the end of its row"));
    }
    RowTaken { taken, check: headers.check.finish(), damage: headers.damage, bad }
}

/// Batches taken for a reader.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Where they are in the bytes.
    pub(crate) range: Range<usize>,
    /// The offset after the last, and its leader epoch; of no meaning if there are none.
    pub(crate) next_offset: Offset,
    pub(crate) last_epoch: i32,
    /// Whether one of them is part of a transaction, or ends one.
    pub(crate) transactional: bool,
}

impl Taken {
    fn nothing(at: usize, from: Offset) -> Self {
        Self { range: at..at, next_offset: from, last_epoch: -1, transactional: false }
    }

    fn add(&mut self, batch: &Placement) {
        self.range.end = batch.end();
        self.next_offset = batch.header.next_offset();
        self.last_epoch = batch.header.leader_epoch;
        self.transactional |= batch.header.attributes.is_transactional();
    }
}

/// The whole batches from the one that holds the start of `offsets`, or the first behind it, up to about `max_bytes` but
/// at least one, and none that begins at their end or behind it; each checked against its CRC. Damage in the first is an
/// error; before a later one the take ends.
pub(crate) fn take(
    bytes: &[u8],
    batches: &[Placement],
    offsets: &Range<Offset>,
    max_bytes: usize,
) -> Result<Taken, Damage> {
    let first = batches.partition_point(|batch| batch.header.last_offset() < offsets.start);
    let start = batches.get(first).map_or(bytes.len(), |batch| batch.at);
    let mut taken = Taken::nothing(start, offsets.start);
    for batch in &batches[first..] {
        let any = !taken.range.is_empty();
        let is_too_much = any && batch.end() - start > max_bytes;
        if is_too_much || batch.header.base_offset >= offsets.end {
            break;
        }
        match check_crc(&bytes[batch.at..batch.end()], &batch.header) {
            Ok(()) => taken.add(batch),
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
