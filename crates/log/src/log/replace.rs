//! Putting files in the place of a segment's, so that a crash leaves the old or the new.
//!
//! The new files lie beside the old ones under names of their own, synced, and their names are
//! made to last. Then the data file is renamed over the old one, which is the commit point, and
//! that is made to last before the index follows: so an index never stands beside data that is
//! older than it. What a crash leaves in between is settled at the next open: a new index that is
//! true of the data takes its place, any other goes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use logmill_record::Offset;

use super::LogInner;
use super::retention::Kept;
use super::sidecar::carry_over;
use crate::compaction::{CLEANED, Rewritten, cleaned_path, discard};
use crate::env::{Fs, OpenMode};
use crate::error::Error;
use crate::format::index::{Footer, Rows};
use crate::segment::{DATA, ENDINGS, Gaps, INDEX, Sealed, path, rebuild};

impl LogInner {
    /// Puts the files that were written for `old` in its place. False if it has gone meanwhile.
    /// An error that leaves open which file a name will stand for is put in `broken` too.
    pub(super) fn replace(
        &self,
        old: &Arc<Sealed>,
        new: &Rewritten,
        broken: &mut Option<Error>,
    ) -> Result<bool, Error> {
        let fs = &*self.env.fs;
        let sync = || fs.sync_dir(&self.dir).map_err(|error| Error::io("sync", &self.dir, error));
        let rename = |ending| rename_cleaned(fs, &self.dir, old.base(), ending);
        let mut kept = self.kept.lock();
        let is_there = {
            let state = self.state.lock();
            state.check_open()?;
            state.sealed.iter().any(|segment| Arc::ptr_eq(segment, old))
        };
        if !is_there {
            discard(fs, &self.dir, old.base()).map_err(|error| Error::io("clean up", &self.dir, error))?;
            return Ok(false);
        }
        self.allow_gaps_below(&mut kept, old.end())?;
        sync()?;
        let mut replaced = old.replace_names();
        rename(DATA)?;
        *replaced = true;
        let data_synced = sync();
        let index_renamed = data_synced.and_then(|()| rename(INDEX));
        let unwritten = index_renamed.is_err().then(|| Rows::from_rows(&new.rows));
        let gaps = Gaps::Below(old.end());
        let (env_fs, maps) = (Arc::clone(&self.env.fs), Arc::clone(&self.shared.maps));
        let fresh = Sealed::new(env_fs, maps, &self.dir, new.footer, old.end(), gaps, unwritten);
        self.state.lock().put_in_place_of(std::slice::from_ref(old), Arc::new(fresh));
        drop(replaced);
        // If it fails, or a crash comes first, it does not speak for the new file and is made anew.
        if let Err(error) = carry_over(fs, &self.dir, old.footer(), &new.footer) {
            tracing::warn!(log = %self.dir.display(), %error, "cannot write what is known of producers");
        }
        let outcome = index_renamed.and_then(|()| sync());
        outcome.inspect_err(|error| *broken = Some(error.clone()))?;
        Ok(true)
    }

    /// Notes durably that compaction has been through all below `end`.
    pub(super) fn persist_clean_below(&self, end: Offset) -> Result<(), Error> {
        let mut kept = self.kept.lock();
        self.state.lock().check_open()?;
        self.update_meta(&mut kept, |meta| meta.clean_below = meta.clean_below.max(end))
    }

    /// Notes durably that offsets below `end` may be missing, before any are.
    pub(super) fn allow_gaps_below(&self, kept: &mut Kept, end: Offset) -> Result<(), Error> {
        self.update_meta(kept, |meta| meta.gaps_below = meta.gaps_below.max(end))
    }
}

/// The index that belongs to a segment's data and has not taken its place yet, because a crash came
/// between the renaming of the two.
pub(crate) fn unsettled_index(fs: &dyn Fs, dir: &Path, base: Offset) -> Result<Option<PathBuf>, Error> {
    let new_index = cleaned_path(dir, base, INDEX);
    match Footer::read(fs, &new_index)? {
        Some(footer) if is_true_of(fs, &path(dir, base, DATA), &footer)? => Ok(Some(new_index)),
        _ => Ok(None),
    }
}

/// Finishes or takes back the replacing of a segment that was cut off, at open.
pub(super) fn settle(fs: &dyn Fs, dir: &Path, base: Offset) -> Result<(), Error> {
    if let Some(new_index) = unsettled_index(fs, dir, base)? {
        let index = path(dir, base, INDEX);
        tracing::info!(log = %dir.display(), %base, "finished a compaction that was cut off");
        fs.rename(&new_index, &index).map_err(|error| Error::io("replace", &index, error))?;
    }
    discard(fs, dir, base)
        .and_then(|()| fs.sync_dir(dir))
        .map_err(|error| Error::io("clean up after compaction in", dir, error))
}

/// Gives a file that was written beside a segment's own its name.
pub(super) fn rename_cleaned(fs: &dyn Fs, dir: &Path, base: Offset, ending: &str) -> Result<(), Error> {
    let to = path(dir, base, ending);
    fs.rename(&cleaned_path(dir, base, ending), &to).map_err(|error| Error::io("replace", &to, error))
}

/// Whether the batches in a data file are those that an index was written for.
fn is_true_of(fs: &dyn Fs, data: &Path, footer: &Footer) -> Result<bool, Error> {
    let Ok(file) = fs.open(data, OpenMode::Read) else { return Ok(false) };
    let failed = |error| Error::io("read", data, error);
    let status = file.status().map_err(failed)?;
    if status.len != footer.data_len {
        return Ok(false);
    }
    let (index, found) =
        rebuild(&*file, footer.base, status, Gaps::Below(footer.next_offset)).map_err(failed)?;
    Ok(found.damage.is_none() && index.footer().headers_crc == footer.headers_crc)
}

/// The base offset in the name of a file that was to replace another.
pub(super) fn base_of_cleaned(name: &str) -> Option<Offset> {
    let name = name.strip_suffix(CLEANED)?.strip_suffix('.')?;
    ENDINGS.into_iter().find_map(|ending| crate::segment::base_with(name, ending))
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use std::sync::Arc;

    use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs};

    use crate::sim::Sim;
    use crate::{CompactionOptions, ErrorKind, Log, LogOptions, SetOptions};

    fn batch(value: u8) -> Batch {
        let mut builder = BatchBuilder::new();
        for value in [[value], [value + 1]] {
            let (key, value) = (Some(&b"key"[..]), Some(&value[..]));
            let record = NewRecord { timestamp: TimestampMs(0), key, value, headers: &[] };
            builder.push(&record).expect("a small record");
        }
        builder.build().expect("two records")
    }

    /// A view from before a compaction reads the old file, if it has it open, or nothing: never the
    /// new file by the old index.
    #[test]
    fn a_view_from_before_never_reads_what_came_after() {
        for opened in [false, true] {
            let sim = Sim::new(1);
            let options = LogOptions::default().compaction(Some(CompactionOptions::default()));
            let log = Log::open("/data", SetOptions::new(sim.env()), options).expect("an empty disk");
            for value in [1, 3] {
                log.append(&[batch(value)]).and_then(crate::Receipt::wait).expect("no fault");
                log.roll().expect("no fault");
            }
            let view = Arc::clone(&log.inner().state.lock().sealed[0]);
            let all = Offset(0)..Offset::MAX;
            let before = opened.then(|| view.read(&all, 1_000).expect("no fault"));
            assert_eq!(log.compact().expect("no fault").segments, 2);
            match (before, view.read(&all, 1_000)) {
                (Some(before), now) => {
                    assert_eq!(before[0].batches, now.expect("its file is open")[0].batches);
                }
                (None, now) => {
                    assert_eq!(now.expect_err("its file has gone").kind(), ErrorKind::NotFound);
                }
            }
            let now = log.read(Offset(0), 1_000).expect("there is another view");
            let left = Batch::parse(now.chunks[0].batches.clone()).expect("a whole batch");
            assert_eq!((left.header().record_count, left.header().next_offset()), (1, Offset(4)));
        }
    }
}
