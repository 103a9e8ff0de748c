//! Making one segment of several small neighbours, so that a crash leaves the old ones or the new.
//!
//! The new segment has the base offset of the first old one. Its files are written beside that
//! one's, as in any compaction, and then a replacement record, which lists the old segments, is
//! made durable: the commit point. The data file is renamed over that of the first old segment, the
//! index follows, the files of the others are removed, and at last the record, each made to last
//! before the next begins. An open that finds a record goes on where the process before it ended.

use std::io;
use std::path::Path;
use std::sync::Arc;

use logmill_record::Offset;

use super::LogInner;
use super::replace::{batches_are, rename_cleaned, settle};
use super::retention::remove_segments;
use super::sidecar::load_state;
use crate::compaction::{Candidate, Most, Rewrite, Rewritten, cleaned_path, discard, next_group};
use crate::env::{Fs, OpenMode};
use crate::error::{Error, ErrorKind};
use crate::format::index::Rows;
use crate::format::replacement::{MERGE, Replacement};
use crate::format::state::StateFile;
use crate::format::{atomic, meta};
use crate::segment::{
    DATA, Gaps, HEAD_LEN, INDEX, Placed, STATE, Sealed, base_with, crc32c_extend, path, rebuild,
};

/// What merging did to one group of segments.
pub(super) struct Merged {
    pub(super) inputs: Vec<Arc<Sealed>>,
    pub(super) bytes_after: u64,
}

impl LogInner {
    /// Merges the first group worth it of the segments between `from` and `limit`, if there is one.
    /// An error that leaves open which segments there will be is put in `broken` too.
    pub(super) fn merge_next(
        &self,
        from: Offset,
        limit: Offset,
        broken: &mut Option<Error>,
    ) -> Result<Option<Merged>, Error> {
        let inputs = self.group(from, limit)?;
        let Some(first) = inputs.first() else { return Ok(None) };
        let merged = self.write_merged(&inputs).and_then(|new| {
            let bytes_after = new.footer.data_len;
            self.put_merged(&inputs, &new, broken)?;
            Ok(bytes_after)
        });
        let bytes_after = merged.inspect_err(|_| {
            // From the commit point on, they are what the next open goes by.
            if broken.is_none() {
                let _ = discard(&*self.env.fs, &self.dir, first.base());
            }
        })?;
        Ok(Some(Merged { inputs, bytes_after }))
    }

    /// The next segments to become one; none if nothing is worth it.
    fn group(&self, from: Offset, limit: Offset) -> Result<Vec<Arc<Sealed>>, Error> {
        let (sealed, most) = {
            let state = self.state.lock();
            state.check_open()?;
            (Arc::clone(&state.sealed), Most::new(&state.options))
        };
        let first = sealed.partition_point(|segment| segment.base() < from);
        let end = sealed.partition_point(|segment| segment.end() <= limit).max(first);
        let candidate = |segment: &Arc<Sealed>| Candidate {
            base: segment.base(),
            end: segment.end(),
            bytes: segment.data_len(),
            first_appended_at: segment.footer().first_appended_at,
            last_appended_at: segment.last_appended_at(),
        };
        let candidates: Vec<_> = sealed[first..end].iter().map(candidate).collect();
        let group = next_group(&candidates, most).unwrap_or_default();
        Ok(sealed[first..end][group].to_vec())
    }

    /// Writes the batches of all inputs beside the first of them. Batches without records that only
    /// told where a segment ends are not needed any more.
    fn write_merged(&self, inputs: &[Arc<Sealed>]) -> Result<Rewritten, Error> {
        let (first, last) = (&inputs[0], &inputs[inputs.len() - 1]);
        let source = first.open_data()?;
        let mut rewrite = Rewrite::new(&*self.env.fs, &self.dir, first.base(), &*source);
        rewrite.begin()?;
        for segment in inputs {
            self.copy_batches(segment, last.end(), &mut rewrite)?;
        }
        let rewritten = rewrite.finish(last.footer())?;
        Ok(rewritten.expect("a rewriting that was begun has been written"))
    }

    fn copy_batches(&self, from: &Sealed, end: Offset, to: &mut Rewrite<'_>) -> Result<(), Error> {
        let data_path = path(&self.dir, from.base(), DATA);
        let file = from.open_data()?;
        let mut times = from.append_times(&*file)?;
        let mut batches = from.batches(&*file, &data_path);
        let producers = self.state.lock().producers.last_offsets();
        let mut check = 0;
        while let Some((position, batch)) = batches.next()? {
            self.state.lock().check_open()?;
            let head: &[u8; HEAD_LEN] = batch.bytes().first_chunk().expect("a batch has a header");
            check = crc32c_extend(check, head);
            let header = batch.header();
            let must_stay = header.next_offset() == end || producers.contains(&header.last_offset());
            if header.record_count == 0 && !must_stay {
                continue;
            }
            let (appended_at, estimated) = times.of(position);
            let (base_offset, epoch) = (header.base_offset, header.leader_epoch);
            to.keep(0, &batch, false, Placed { base_offset, epoch, appended_at, estimated })?;
        }
        from.expect_headers(&data_path, check)
    }

    fn put_merged(
        &self,
        inputs: &[Arc<Sealed>],
        new: &Rewritten,
        broken: &mut Option<Error>,
    ) -> Result<(), Error> {
        let fs = &*self.env.fs;
        let mut kept = self.kept.lock();
        let base = new.footer.base;
        if !self.are_there(inputs)? {
            return discard(fs, &self.dir, base).map_err(|error| Error::io("clean up", &self.dir, error));
        }
        let end = new.footer.next_offset;
        if kept.meta.gaps_below < end {
            let meta = meta::LogMeta { gaps_below: end, ..kept.meta.clone() };
            atomic::replace(fs, &self.dir.join(meta::FILE), &meta.encode())?;
            kept.meta = meta;
        }
        fs.sync_dir(&self.dir).map_err(|error| Error::io("sync", &self.dir, error))?;
        let state = merged_state(fs, &self.dir, inputs)?;
        let record = Replacement::new(&new.footer, inputs.iter().map(|input| input.base()).collect());
        atomic::write_and_rename(fs, &path(&self.dir, base, MERGE), &record.encode())?;
        self.commit_merged(inputs, new, state, &record).inspect_err(|error| *broken = Some(error.clone()))
    }

    fn are_there(&self, segments: &[Arc<Sealed>]) -> Result<bool, Error> {
        let state = self.state.lock();
        state.check_open()?;
        let first = state.sealed.partition_point(|held| held.base() < segments[0].base());
        let held = state.sealed[first..].iter().take(segments.len());
        Ok(held.len() == segments.len() && held.zip(segments).all(|(held, input)| Arc::ptr_eq(held, input)))
    }

    /// From the commit point to the end. What fails in it is finished by the next open.
    fn commit_merged(
        &self,
        inputs: &[Arc<Sealed>],
        new: &Rewritten,
        state: Option<StateFile>,
        record: &Replacement,
    ) -> Result<(), Error> {
        let (fs, dir) = (&*self.env.fs, self.dir.as_path());
        let footer = &new.footer;
        fs.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
        self.rename_merged(inputs, new)?;
        // If it fails, or a crash comes first, what it says is made anew from the data.
        if let Some(state) = state
            && let Err(error) =
                atomic::write_and_rename(fs, &path(dir, footer.base, STATE), &state.encode(footer))
        {
            tracing::warn!(log = %dir.display(), %error, "cannot write what is known of producers");
        }
        remove_merged(fs, dir, footer.base, record)
    }

    /// Gives the new files their names, and lets readers find the new segment.
    fn rename_merged(&self, inputs: &[Arc<Sealed>], new: &Rewritten) -> Result<(), Error> {
        let (fs, dir) = (&*self.env.fs, self.dir.as_path());
        let footer = new.footer;
        let mut names: Vec<_> = inputs.iter().map(|input| input.replace_names()).collect();
        rename_cleaned(fs, dir, footer.base, DATA)?;
        names.iter_mut().for_each(|replaced| **replaced = true);
        let synced = fs.sync_dir(dir).map_err(|error| Error::io("sync", dir, error));
        let index_renamed = synced.and_then(|()| rename_cleaned(fs, dir, footer.base, INDEX));
        let unwritten = index_renamed.is_err().then(|| Rows::from_rows(&new.rows));
        let gaps = Gaps::Below(footer.next_offset);
        let (fs, maps) = (Arc::clone(&self.env.fs), Arc::clone(&self.shared.maps));
        let fresh = Sealed::new(fs, maps, dir, footer, footer.next_offset, gaps, unwritten);
        self.state.lock().put_in_place_of(inputs, Arc::new(fresh));
        index_renamed
    }
}

/// What the inputs know of producers, as the new segment's; `None` if one of them cannot tell, and
/// if there is nothing to tell.
fn merged_state(fs: &dyn Fs, dir: &Path, inputs: &[Arc<Sealed>]) -> Result<Option<StateFile>, Error> {
    let mut merged = None;
    for input in inputs {
        match (load_state(fs, dir, input.footer())?, &mut merged) {
            (Some(state), None) => merged = Some(state),
            (Some(state), Some(before)) => {
                before.producers = state.producers;
                before.aborted.extend(state.aborted);
            }
            (None, None) if !input.footer().producers => {}
            // It is lost, or all producers were forgotten.
            (None, _) => return Ok(None),
        }
    }
    Ok(merged)
}

/// Removes the old segments, and then the record.
fn remove_merged(fs: &dyn Fs, dir: &Path, base: Offset, record: &Replacement) -> Result<(), Error> {
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

/// The segments, of those that begin at `bases`, whose batches lie in the one that begins at `base`
/// and has a replacement record; none before it has its name. Where the record is damaged, the new
/// segment says it: no other reaches into the next one.
pub(crate) fn replaced_by(
    fs: &dyn Fs,
    dir: &Path,
    base: Offset,
    bases: &[Offset],
) -> Result<Vec<Offset>, Error> {
    if !has_its_name(fs, dir, base)? {
        return Ok(Vec::new());
    }
    match read_record(fs, dir, base) {
        Ok(record) => return Ok(record.map_or_else(Vec::new, |record| record.doomed().to_vec())),
        Err(error) if error.kind() != ErrorKind::Corrupt => return Err(error),
        Err(_) => {}
    }
    let data = path(dir, base, DATA);
    let read = fs.open(&data, OpenMode::Read).and_then(|file| {
        let status = file.status()?;
        rebuild(&*file, base, status, Gaps::Below(Offset::MAX))
    });
    let (_, found) = read.map_err(|error| Error::io("read", &data, error))?;
    let inside = |other: &&Offset| **other > base && **other < found.next_offset;
    Ok(if found.damage.is_none() { bases.iter().filter(inside).copied().collect() } else { Vec::new() })
}

/// Finishes a merging that was cut off behind its commit point, at open. `start` is where the log
/// begins.
pub(super) fn settle_merge(fs: &dyn Fs, dir: &Path, base: Offset, start: Offset) -> Result<(), Error> {
    let Some(record) = read_record(fs, dir, base)? else { return Ok(()) };
    tracing::info!(log = %dir.display(), %base, "finishing the merging of segments that was cut off");
    if !has_its_name(fs, dir, base)? {
        rename_cleaned(fs, dir, base, DATA)?;
        fs.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
    }
    settle(fs, dir, base)?;
    let data = path(dir, base, DATA);
    // Retention may have taken the new segment before its record was gone.
    if start < record.next_offset && !is_made_of(fs, &data, base, &record)? {
        let what = "it is not the segment that its replacement record is of, so none of those is removed \
                    that it replaces";
        return Err(Error::corrupt(&data, 0, base..record.next_offset, what));
    }
    remove_merged(fs, dir, base, &record)
}

fn is_made_of(fs: &dyn Fs, data: &Path, base: Offset, record: &Replacement) -> Result<bool, Error> {
    batches_are(fs, data, base, (record.next_offset, record.data_len, record.headers_crc))
}

/// The base offset in the name of a replacement record.
pub(crate) fn base_of_record(name: &str) -> Option<Offset> {
    base_with(name, MERGE)
}
