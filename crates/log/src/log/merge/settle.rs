//! What a merging leaves on disk, until it is finished: by itself, by the next open, or by a repair.

use std::io;
use std::path::Path;

use logmill_record::Offset;

use super::super::replace::{rename_cleaned, settle};
use super::super::retention::remove_segments;
use crate::compaction::cleaned_path;
use crate::env::{Fs, OpenMode};
use crate::error::{Error, ErrorKind};
use crate::format::atomic;
use crate::format::replacement::{MERGE, Replacement};
use crate::segment::{DATA, Gaps, Scan, base_of, base_with, crc32c_extend, path, scan};

/// Removes the old segments, and then the record.
pub(super) fn remove_merged(
    fs: &dyn Fs,
    dir: &Path,
    base: Offset,
    record: &Replacement,
) -> Result<(), Error> {
    remove_segments(fs, dir, &mut record.doomed().to_vec())?;
    let file = path(dir, base, MERGE);
    atomic::remove_left_over(fs, &file).map_err(|error| Error::io("remove", &file, error))?;
    fs.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))
}

/// The replacement record of the segment that begins at `base`, if there is one.
pub(crate) fn read_record(fs: &dyn Fs, dir: &Path, base: Offset) -> Result<Option<Replacement>, Error> {
    let file = path(dir, base, MERGE);
    let bytes = atomic::read(fs, &file)?;
    bytes.map(|bytes| Replacement::decode(&file, &bytes, base)).transpose()
}

/// Whether the new segment of a record has its name already, so that the old ones are to go.
fn has_its_name(fs: &dyn Fs, dir: &Path, base: Offset) -> Result<bool, Error> {
    let cleaned = cleaned_path(dir, base, DATA);
    match fs.open(&cleaned, OpenMode::Read) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::io("open", &cleaned, error)),
    }
}

/// The old segments of a merging that was cut off.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replaced {
    /// Of those that there are, the ones that lie in the new segment.
    pub(crate) bases: Vec<Offset>,
    /// The new segment is as it was written: what lies in it is nowhere else needed.
    pub(crate) whole: bool,
}

/// The segments, of those that begin at `bases`, whose batches lie in the one that begins at `base`
/// and has a replacement record; none before it has its name. Where the record is damaged, the new
/// segment says it, if it is whole: no other reaches into the next one.
pub(crate) fn replaced_by(
    fs: &dyn Fs,
    dir: &Path,
    base: Offset,
    bases: &[Offset],
) -> Result<Replaced, Error> {
    if !has_its_name(fs, dir, base)? {
        return Ok(Replaced::default());
    }
    let there = |is_in: &dyn Fn(Offset) -> bool| bases.iter().copied().filter(|base| is_in(*base)).collect();
    let data = Whole::read(fs, &path(dir, base, DATA), base)?;
    match (read_record(fs, dir, base), data) {
        (Ok(Some(record)), data) => {
            let whole = data.is_some_and(|data| data.is_of(&record));
            Ok(Replaced { bases: there(&|base| record.doomed().contains(&base)), whole })
        }
        (Err(error), Some(data)) if error.kind() == ErrorKind::Corrupt => {
            Ok(Replaced { bases: there(&|other| other > base && other < data.next_offset), whole: true })
        }
        (Err(error), _) if error.kind() != ErrorKind::Corrupt => Err(error),
        (Ok(None) | Err(_), _) => Ok(Replaced::default()),
    }
}

/// A data file of which every byte was read, and is as it was written.
struct Whole {
    next_offset: Offset,
    data_len: u64,
    headers_crc: u32,
}

impl Whole {
    /// `None` if there is no such file, or it is damaged.
    fn read(fs: &dyn Fs, data: &Path, base: Offset) -> Result<Option<Self>, Error> {
        let failed = |error| Error::io("read", data, error);
        let file = match fs.open(data, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let to = file.status().map_err(failed)?.len;
        let gaps = Gaps::Below(Offset::MAX);
        let all = Scan { file: &*file, base, from: 0, offset: base, to, gaps, crc: true };
        let mut headers_crc = 0;
        let found = scan(&all, |head, _| headers_crc = crc32c_extend(headers_crc, head)).map_err(failed)?;
        let whole = Self { next_offset: found.next_offset, data_len: to, headers_crc };
        Ok(found.damage.is_none().then_some(whole))
    }

    /// Whether it is the new segment of this record.
    fn is_of(&self, record: &Replacement) -> bool {
        (self.next_offset, self.data_len, self.headers_crc)
            == (record.next_offset, record.data_len, record.headers_crc)
    }
}

/// Finishes a merging that was cut off behind its commit point, at open. `start` is where the log
/// begins.
pub(crate) fn settle_merge(fs: &dyn Fs, dir: &Path, base: Offset, start: Offset) -> Result<(), Error> {
    let Some(record) = read_record(fs, dir, base)? else { return Ok(()) };
    tracing::info!(log = %dir.display(), %base, "finishing the merging of segments that was cut off");
    let is_new = |data: &Path| {
        Whole::read(fs, data, base).map(|whole| whole.is_some_and(|whole| whole.is_of(&record)))
    };
    let sync = || fs.sync_dir(dir).map_err(|error| Error::io("sync", dir, error));
    if !has_its_name(fs, dir, base)? {
        if !is_new(&cleaned_path(dir, base, DATA))? {
            tracing::warn!(log = %dir.display(), %base, "what they were merged into is damaged: the old segments stay");
            let file = path(dir, base, MERGE);
            fs.remove_file(&file).map_err(|error| Error::io("remove", &file, error))?;
            sync()?;
            return settle(fs, dir, base);
        }
        rename_cleaned(fs, dir, base, DATA)?;
        sync()?;
    }
    settle(fs, dir, base)?;
    let data = path(dir, base, DATA);
    // Retention may have taken the new segment before its record was gone.
    let next_offset = record.next_offset;
    if start < next_offset && !is_new(&data)? {
        let what = "it is not the segment that its replacement record is of, so none of those is removed \
                    that it replaces";
        return Err(Error::corrupt(&data, 0, base..next_offset, what));
    }
    let entries = fs.list(dir).map_err(|error| Error::io("list", dir, error))?;
    let inside = |other: &Offset| *other > base && *other < next_offset;
    let mut others = entries.iter().filter_map(|entry| base_of(&entry.name)).filter(inside);
    if let Some(other) = others.find(|other| !record.doomed().contains(other)) {
        let what = format!("it does not name the segment at {other}, whose offsets the new one holds");
        return Err(Error::corrupt(&path(dir, base, MERGE), 0, base..base, what));
    }
    remove_merged(fs, dir, base, &record)
}

/// The base offset in the name of a replacement record.
pub(crate) fn base_of_record(name: &str) -> Option<Offset> {
    base_with(name, MERGE)
}
