//! Making one segment of several small neighbours, so that a crash leaves the old ones or the new.
//!
//! Lock order: what the log keeps, the names of the old segments from front to back, its state.
//!
//! The new segment has the base offset of the first old one. Its files are written beside that
//! one's, as in any compaction, and then a replacement record, which lists the old segments, is
//! made durable: the commit point. The data file is renamed over that of the first old segment, the
//! index follows, the files of the others are removed, and at last the record, each made to last
//! before the next begins. An open that finds a record goes on where the process before it ended.

mod settle;

use std::path::Path;
use std::sync::Arc;

use logmill_record::Offset;

use self::settle::remove_merged;
pub(crate) use self::settle::{Replaced, base_of_record, read_record, replaced_by, settle_merge};
use super::LogInner;
use super::epochs::Rise;
use super::replace::rename_cleaned;
use super::sidecar::load_state;
use crate::compaction::{Candidate, Most, Rewrite, Rewritten, discard, next_group};
use crate::env::Fs;
use crate::error::Error;
use crate::format::atomic;
use crate::format::index::Rows;
use crate::format::replacement::{MERGE, Replacement};
use crate::format::state::StateFile;
use crate::segment::{DATA, Gaps, INDEX, STATE, Sealed, path};

/// What merging did to one group of segments.
pub(super) struct Merged {
    pub(super) inputs: Vec<Arc<Sealed>>,
    /// The bytes of the new segment; `None` if retention took an old one meanwhile, so that there is none.
    pub(super) bytes_after: Option<u64>,
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
            Ok(self.put_merged(&inputs, &new, broken)?.then_some(bytes_after))
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
        let mut epochs = self.epochs_from(first.base());
        for segment in inputs {
            self.copy_batches(segment, last.end(), &mut epochs, &mut rewrite)?;
        }
        let rewritten = rewrite.finish(last.footer())?;
        Ok(rewritten.expect("a rewriting that was begun has been written"))
    }

    fn copy_batches(
        &self,
        from: &Sealed,
        end: Offset,
        epochs: &mut Rise,
        to: &mut Rewrite<'_>,
    ) -> Result<(), Error> {
        let file = from.open_data()?;
        let producers = self.state.lock().producers.last_offsets();
        self.each_batch(from, &*file, |_, batch, placed| {
            let header = batch.header();
            let must_stay = epochs.rises_at(header)
                || header.next_offset() == end
                || producers.contains(&header.last_offset());
            if header.record_count == 0 && !must_stay {
                return Ok(());
            }
            to.keep(0, batch, false, placed)
        })
    }

    /// Puts the new segment in the place of the old ones. False if one of them has gone meanwhile.
    fn put_merged(
        &self,
        inputs: &[Arc<Sealed>],
        new: &Rewritten,
        broken: &mut Option<Error>,
    ) -> Result<bool, Error> {
        let fs = &*self.env.fs;
        let mut kept = self.kept.lock();
        let base = new.footer.base;
        if !self.are_there(inputs)? {
            discard(fs, &self.dir, base).map_err(|error| Error::io("clean up", &self.dir, error))?;
            return Ok(false);
        }
        self.allow_gaps_below(&mut kept, new.footer.next_offset)?;
        fs.sync_dir(&self.dir).map_err(|error| Error::io("sync", &self.dir, error))?;
        let state = merged_state(fs, &self.dir, inputs)?;
        let record = Replacement::new(&new.footer, inputs.iter().map(|input| input.base()).collect());
        atomic::write_and_rename(fs, &path(&self.dir, base, MERGE), &record.encode())?;
        self.commit_merged(inputs, new, state, &record).inspect_err(|error| *broken = Some(error.clone()))?;
        Ok(true)
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
