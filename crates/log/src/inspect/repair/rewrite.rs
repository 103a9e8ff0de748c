//! Writing a segment anew: its whole batches as they are, headers put right, and an empty batch for
//! each run of offsets that is gone.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logmill_record::{BatchHeader, HEADER_LEN, LEADER_EPOCH, Offset};

use super::files::{read_index, remove};
use super::plan::Segment;
use crate::env::{File, FileStatus, Fs, OpenMode};
use crate::error::Error;
use crate::format::atomic::{self, TEMPORARY};
use crate::log::load_state;
use crate::segment::{AppendTimes, DATA, HEAD_LEN, INDEX, IndexBuilder, Placed, STATE, crc32c_extend, path};
use crate::segment::{Gap, Piece, Survey};

/// Bytes are copied in pieces of this size.
const PIECE_LEN: u64 = 1 << 20;

/// Takes the damage out of a segment. What is taken out is on disk beside it before the segment
/// is replaced. At the positions in `refuted` no header is put right.
pub(super) fn rewrite(
    fs: &dyn Fs,
    dir: &Path,
    segment: Segment,
    refuted: &BTreeSet<u64>,
) -> Result<(), Error> {
    let data = path(dir, segment.base, DATA);
    let index_path = path(dir, segment.base, INDEX);
    let state_path = path(dir, segment.base, STATE);
    let temporary = PathBuf::from(format!("{}{TEMPORARY}", data.display()));
    let failed = |error| Error::io("write anew", &data, error);
    let old = fs.open(&data, OpenMode::Read).map_err(failed)?;
    let status = old.status().map_err(failed)?;
    let old_index = read_index(fs, &index_path, segment.base);
    // It stays true: what producers sent and is gone now must not be taken when it comes again.
    let producers = match &old_index {
        Some((footer, _)) => load_state(fs, dir, footer)?,
        None => None,
    };
    let epoch = match (segment.epochs, &old_index) {
        (Some(epochs), _) => epochs.last(),
        (None, Some((footer, _))) => footer.first_epoch.max(1),
        (None, None) => 1,
    };
    let times = old_index.map(|(footer, rows)| AppendTimes::new(rows, footer.last_appended_at));
    remove(fs, &temporary)?;
    let new = fs.open(&temporary, OpenMode::CreateNew).map_err(failed)?;
    let index = IndexBuilder::new(segment.base);
    let mut writer = Writer { fs, data: &data, new, index, times, status, epoch, refuted };
    writer.run(&*old, segment).and_then(|()| writer.new.sync_data()).map_err(failed)?;
    let sync = || fs.sync_dir(dir).map_err(|error| Error::io("sync", dir, error));
    sync()?;
    // The old index stays until the new one replaces it: without either, a crash here would leave an open
    // nothing to hold the damage against. Beside the new data it speaks for itself only if it is true of it.
    fs.rename(&temporary, &data).map_err(failed)?;
    sync()?;
    let (index, footer) = writer.index.encode();
    match producers {
        Some(producers) => atomic::write_and_rename(fs, &state_path, &producers.encode(&footer))?,
        None => remove(fs, &state_path)?,
    }
    atomic::replace(fs, &index_path, &index)
}

struct Writer<'a> {
    fs: &'a dyn Fs,
    data: &'a Path,
    new: Arc<dyn File>,
    index: IndexBuilder,
    times: Option<AppendTimes>,
    /// Of the old file: an upper bound of when its batches were appended.
    status: FileStatus,
    /// The epoch of the last batch.
    epoch: i32,
    refuted: &'a BTreeSet<u64>,
}

impl Writer<'_> {
    fn run(&mut self, old: &dyn File, segment: Segment) -> io::Result<()> {
        let end = segment.end;
        if segment.foreign {
            let (from, what) = (segment.base, String::new());
            let all =
                Gap { position: 0, len: segment.len, from, to: None, what, restored: None, is_epoch: false };
            self.save(old, &all)?;
            return self.fill(from, end, 0);
        }
        let mut survey =
            Survey::new(old, segment.len, segment.base, end, segment.gaps).checking(segment.epochs);
        let mut expected = segment.base;
        while let Some(piece) = survey.next()? {
            match piece {
                Piece::Batch(whole) => {
                    let bytes = survey.bytes(&whole)?;
                    self.put(&whole.header, &[&bytes], whole.position)?;
                    expected = whole.header.next_offset();
                }
                Piece::Damage(gap) => {
                    self.save(old, &gap)?;
                    let restored =
                        match gap.restored.as_ref().filter(|_| !self.refuted.contains(&gap.position)) {
                            Some(head) => {
                                let bytes = survey.raw(gap.position, gap.len)?;
                                let mut header = bytes[..HEADER_LEN].to_vec();
                                header[..head.len()].copy_from_slice(head);
                                BatchHeader::parse(&header).ok().map(|parsed| (parsed, header, bytes))
                            }
                            None => None,
                        };
                    if let Some((parsed, header, bytes)) = restored {
                        self.put(&parsed, &[&header, &bytes[HEADER_LEN..]], gap.position)?;
                        expected = parsed.next_offset();
                    } else {
                        let to = gap.to.unwrap_or(end).max(expected);
                        self.fill(expected, to, gap.position)?;
                        expected = to;
                    }
                }
            }
        }
        self.fill(expected, end, segment.len)
    }

    /// Appends a batch to the new file.
    fn put(&mut self, header: &BatchHeader, parts: &[&[u8]], old_position: u64) -> io::Result<()> {
        let at = self.index.footer().data_len;
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        atomic::write_all(&*self.new, &mut slices, at)?;
        let mut head = [0; HEAD_LEN];
        head.copy_from_slice(&parts[0][..HEAD_LEN]);
        let mut placed = Placed::found(header, self.status);
        if let Some(times) = &mut self.times {
            (placed.appended_at, placed.estimated) = times.of(old_position);
        }
        self.epoch = header.leader_epoch;
        self.index.push(&head, header, placed);
        Ok(())
    }

    /// Empty batches for offsets that are gone.
    fn fill(&mut self, mut from: Offset, to: Offset, old_position: u64) -> io::Result<()> {
        while from < to {
            let count = (to.get() - from.get()).min(1 << 31);
            let bytes = empty_batch(from, count, self.epoch);
            let header = BatchHeader::parse(&bytes).map_err(io::Error::other)?;
            self.put(&header, &[&bytes], old_position)?;
            from = header.next_offset();
        }
        Ok(())
    }

    /// Copies damaged bytes into a file beside the segment, named by their place and their bytes,
    /// so that doing it again writes the same file.
    fn save(&self, old: &dyn File, gap: &Gap) -> io::Result<()> {
        let mut crc = 0;
        each_piece(old, gap, |_, piece| {
            crc = crc32c_extend(crc, piece);
            Ok(())
        })?;
        let aside = PathBuf::from(format!("{}.damaged-{}-{crc:08x}", self.data.display(), gap.position));
        atomic::remove_left_over(self.fs, &aside)?;
        let copy = self.fs.open(&aside, OpenMode::CreateNew)?;
        each_piece(old, gap, |at, piece| atomic::write_all(&*copy, &mut [IoSlice::new(piece)], at))?;
        copy.sync_data()
    }
}

fn each_piece(
    file: &dyn File,
    gap: &Gap,
    mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = 0;
    while at < gap.len {
        let len = PIECE_LEN.min(gap.len - at);
        let mut piece = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?];
        atomic::read_exact(file, &mut piece, gap.position + at)?;
        each(at, &piece)?;
        at += len;
    }
    Ok(())
}

/// A record batch without records that takes `count` offsets, as Kafka's compaction leaves them.
fn empty_batch(base: Offset, count: u64, epoch: i32) -> [u8; HEADER_LEN] {
    // From byte 12 to the end.
    const LENGTH: u32 = 49;
    let mut bytes = [0; HEADER_LEN];
    bytes[..8].copy_from_slice(&base.get().to_be_bytes());
    bytes[8..12].copy_from_slice(&LENGTH.to_be_bytes());
    bytes[LEADER_EPOCH].copy_from_slice(&epoch.to_be_bytes());
    bytes[16] = 2;
    let last = u32::try_from(count - 1).unwrap_or(i32::MAX.unsigned_abs());
    bytes[23..27].copy_from_slice(&last.to_be_bytes());
    // No timestamps and no producer: all of these are −1.
    bytes[27..57].fill(0xff);
    let crc = crc32c_extend(0, &bytes[HEAD_LEN..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}
