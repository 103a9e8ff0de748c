//! Compaction of this log, in steps of one segment, or of one group that becomes one.
//!
//! Who steps a run holds the compactor's lock, which is taken before what the log keeps. A step
//! that fails ends the run: what earlier steps replaced stands, each on its own, and nothing
//! behind the failure is touched. Damage is such a failure, so nothing behind it goes.

use std::sync::Arc;
use std::time::Duration;

use logmill_record::{Batch, Offset, TimestampMs};

use super::LogInner;
use super::merge::Merged;
use super::state::State;
use crate::compaction::{
    Compacted, CompactionOptions, KeyMap, KeyMemory, KeyRoom, Pass, Rewrite, Rewritten, Run, discard,
    note_keys,
};
use crate::env::{File, Work};
use crate::error::{Error, ErrorKind};
use crate::segment::{DATA, HEAD_LEN, Placed, Sealed, crc32c_extend, path};

/// After a failure, compaction by itself waits so long: what failed is seldom mended in seconds,
/// and every try reads what is new.
const RETRY_AFTER: Duration = Duration::from_mins(10);

/// The run that is under way, and how the last one went.
#[derive(Debug, Default)]
pub(super) struct Compactor {
    run: Option<Run>,
    last: Option<Result<Compacted, Error>>,
    /// Not by itself before this moment of the monotonic clock.
    not_before: Duration,
    /// When tombstones or markers may go that the last run left.
    next_horizon: Option<TimestampMs>,
    /// A sync of the directory failed: which of two files a name stands for after a power cut is
    /// not known, so nothing is replaced any more until the log is opened again. So it is when a merging
    /// failed behind its commit point, which the next open finishes.
    broken: Option<Error>,
}

impl LogInner {
    /// Compacts now, up to the last sealed segment that may be, however little there is to gain.
    pub(super) fn compact(&self) -> Result<Compacted, Error> {
        self.begin_run(|memory, bytes| Some(memory.take_at_once(bytes)))?;
        while self.compact_step()? {}
        self.compactor.lock().last.clone().unwrap_or_else(|| Ok(Compacted::default()))
    }

    /// Begins a run in the background if enough is new since the last one, or tombstones that it left
    /// may go now.
    pub(crate) fn compact_if_due(self: &Arc<Self>) {
        // Held by others only while there is a run.
        let Some(compactor) = self.compactor.try_lock() else { return };
        let idle = compactor.run.is_none() && compactor.broken.is_none();
        if idle && self.env.clock.monotonic() >= compactor.not_before && self.is_due(compactor.next_horizon) {
            drop(compactor);
            // Without room for its keys it is still due the next time.
            if matches!(self.begin_run(KeyMemory::take), Ok(true)) {
                self.spawn_step();
            }
        }
    }

    fn is_due(&self, next_horizon: Option<TimestampMs>) -> bool {
        let now = self.env.clock.now();
        let clean_below = self.kept.lock().meta.clean_below;
        let state = self.state.lock();
        let Some(options) = state.options.compaction.filter(|_| state.check_open().is_ok()) else {
            return false;
        };
        let (mut clean, mut dirty) = (0, 0);
        for segment in compactable(&state, &options, now) {
            *(if segment.end() <= clean_below { &mut clean } else { &mut dirty }) += segment.data_len();
        }
        #[expect(clippy::cast_precision_loss, reason = "a ratio of bytes")]
        let enough = dirty > 0 && dirty as f64 >= options.min_dirty_ratio * (clean + dirty) as f64;
        enough || next_horizon.is_some_and(|horizon| horizon <= now)
    }

    /// One step on the workers for compaction, and then the next: other logs get their turn between.
    fn spawn_step(self: &Arc<Self>) {
        let log = Arc::clone(self);
        let step = move || {
            // An error is logged and counted where it happens.
            if matches!(log.compact_step(), Ok(true)) {
                log.spawn_step();
            }
        };
        self.env.scheduler.spawn(Work::Compaction, Box::new(step));
    }

    /// Waits for the step that is under way, which ends early once the log is closing, and frees
    /// the run's memory.
    pub(super) fn end_compaction(&self) {
        self.compactor.lock().run = None;
    }

    /// Begins a run unless one is under way; false if `take` finds no room for its table of keys.
    fn begin_run(&self, take: impl FnOnce(&Arc<KeyMemory>, usize) -> Option<KeyRoom>) -> Result<bool, Error> {
        let Some(options) = self.state.lock().options.compaction else {
            let message = format!("{} is not a compacted log; open it as one", self.dir.display());
            return Err(Error::new(ErrorKind::Invalid, message).at_path(&self.dir));
        };
        let mut compactor = self.compactor.lock();
        let now = self.env.clock.now();
        let clean_below = self.kept.lock().meta.clean_below;
        let (range, records) = {
            let state = self.state.lock();
            state.check_open()?;
            let segments = compactable(&state, &options, now);
            let limit = segments.last().map_or(clean_below, |last| last.end());
            let from = clean_below.max(state.start_offset).min(limit);
            let dirty = segments.iter().filter(|segment| segment.end() > from);
            (from..limit, dirty.map(|segment| segment.records()).sum())
        };
        if compactor.run.is_none() {
            let bytes = KeyMap::bytes_for(options.key_map_bytes, records);
            let Some(room) = take(&self.shared.key_memory, bytes) else { return Ok(false) };
            let keys = KeyMap::new(&*self.env.random, options.key_map_bytes, records);
            compactor.run = Some(Run::new(options, now, range, keys, room));
        }
        Ok(true)
    }

    /// Goes one segment further; false once there is nothing left to do.
    fn compact_step(&self) -> Result<bool, Error> {
        let mut compactor = self.compactor.lock();
        let Some(mut run) = compactor.run.take() else { return Ok(false) };
        let stepped = match &compactor.broken {
            Some(error) => Err(error.clone()),
            None => self.step(&mut run, &mut compactor.broken),
        };
        match stepped {
            Ok(true) => {
                compactor.run = Some(run);
                Ok(true)
            }
            Ok(false) => {
                compactor.next_horizon = run.next_horizon;
                compactor.last = Some(Ok(run.done));
                self.state.lock().compaction.note_run();
                Ok(false)
            }
            Err(error) => {
                if error.kind() != ErrorKind::Closed {
                    tracing::warn!(log = %self.dir.display(), %error, "compaction has stopped");
                }
                compactor.not_before = self.env.clock.monotonic().saturating_add(RETRY_AFTER);
                compactor.last = Some(Err(error.clone()));
                self.state.lock().compaction.last_error = Some(error.clone());
                Err(error)
            }
        }
    }

    fn step(&self, run: &mut Run, broken: &mut Option<Error>) -> Result<bool, Error> {
        match &run.pass {
            Pass::Note { at, .. } => {
                let at = *at;
                match self.segment_at(at, run.limit)? {
                    Some(segment) => self.note_segment(run, &segment)?,
                    // Also if the segments that were to come have gone since: the run ends then.
                    None => run.clean_to(run.limit),
                }
                Ok(true)
            }
            Pass::Clean { cleaner, at } => {
                let (end, next_horizon) = (cleaner.end, cleaner.next_horizon);
                match self.segment_at(*at, run.limit)?.filter(|segment| segment.base() < end) {
                    Some(segment) => {
                        self.clean_segment(run, &segment, broken)?;
                        Ok(true)
                    }
                    None => {
                        self.persist_clean_below(end)?;
                        run.next_pass(end, next_horizon);
                        Ok(true)
                    }
                }
            }
            Pass::Merge { at } => match self.merge_next(*at, run.limit, broken)? {
                Some(merged) => {
                    self.note_merged(run, &merged);
                    Ok(true)
                }
                None => Ok(false),
            },
        }
    }

    /// The first segment that ends behind `at`, if it ends at or before `limit`.
    fn segment_at(&self, at: Offset, limit: Offset) -> Result<Option<Arc<Sealed>>, Error> {
        let state = self.state.lock();
        state.check_open()?;
        let next = state.sealed.partition_point(|segment| segment.end() <= at);
        Ok(state.sealed.get(next).filter(|segment| segment.end() <= limit).cloned())
    }

    fn note_segment(&self, run: &mut Run, segment: &Sealed) -> Result<(), Error> {
        let Pass::Note { from, at } = &mut run.pass else { return Ok(()) };
        let data_path = path(&self.dir, segment.base(), DATA);
        let file = segment.open_data()?;
        let aborted = self.aborted(&(segment.base()..segment.end()))?;
        let mut batches = segment.batches(&*file, &data_path);
        while let Some((_, batch)) = batches.next()? {
            self.state.lock().check_open()?;
            if let Some(full) = note_keys(&mut run.keys, &batch, *from, &aborted, &mut run.inflater) {
                run.clean_to(full);
                return Ok(());
            }
        }
        *at = segment.end();
        Ok(())
    }

    fn clean_segment(
        &self,
        run: &mut Run,
        segment: &Arc<Sealed>,
        broken: &mut Option<Error>,
    ) -> Result<(), Error> {
        let rewritten = self.rewrite(run, segment).and_then(|rewritten| match rewritten {
            Some(rewritten) => Ok(self.replace(segment, &rewritten, broken)?.then_some(rewritten)),
            None => Ok(None),
        });
        let rewritten = rewritten.inspect_err(|_| {
            // Of what was renamed already nothing is left to remove.
            if broken.is_none() {
                let _ = discard(&*self.env.fs, &self.dir, segment.base());
            }
        })?;
        if let Some(Rewritten { footer, .. }) = rewritten {
            run.done.segments += 1;
            run.done.bytes_before += segment.data_len();
            run.done.bytes_after += footer.data_len;
            self.state.lock().compaction.note_segment(segment.data_len(), footer.data_len);
        }
        if let Pass::Clean { at, .. } = &mut run.pass {
            *at = segment.end();
        }
        Ok(())
    }

    fn note_merged(&self, run: &mut Run, merged: &Merged) {
        if let Some(after) = merged.bytes_after {
            let gone = merged.inputs.len() as u64 - 1;
            let before = merged.inputs.iter().map(|input| input.data_len()).sum();
            run.done.merged += gone;
            run.done.bytes_before += before;
            run.done.bytes_after += after;
            self.state.lock().compaction.note_merged(gone, before, after);
        }
        if let Pass::Merge { at } = &mut run.pass {
            *at = merged.inputs.last().map_or(*at, |last| last.end());
        }
    }

    /// Writes what is left of a segment beside it; `None` if that is everything.
    fn rewrite(&self, run: &mut Run, segment: &Sealed) -> Result<Option<Rewritten>, Error> {
        let Pass::Clean { cleaner, .. } = &mut run.pass else { return Ok(None) };
        let file = segment.open_data()?;
        cleaner.enter(self.aborted(&(segment.base()..segment.end()))?);
        let mut rewrite = Rewrite::new(&*self.env.fs, &self.dir, segment.base(), &*file);
        // What is known of producers follows from these batches, which stay also without records.
        let producers = self.state.lock().producers.last_offsets();
        let mut epochs = self.epochs_from(segment.base());
        self.each_batch(segment, &*file, |position, batch, placed| {
            let cleaned = cleaner.clean(&run.keys, batch);
            let (before, after) = (batch.header(), cleaned.header());
            let must_stay = epochs.rises_at(before) || producers.contains(&before.last_offset());
            if after.record_count == 0 && before.next_offset() < segment.end() && !must_stay {
                return rewrite.leave_out(position);
            }
            rewrite.keep(position, &cleaned, after != before, placed)
        })?;
        rewrite.finish(segment.footer())
    }

    /// Calls `each` with every batch of a segment, whose data is `file`: where it lies in the file, and
    /// where it belongs. Ends early once the log is closing, and with an error at the end if the headers
    /// are not those that were written.
    pub(super) fn each_batch(
        &self,
        segment: &Sealed,
        file: &dyn File,
        mut each: impl FnMut(u64, &Batch, Placed) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let data_path = path(&self.dir, segment.base(), DATA);
        let mut times = segment.append_times(file)?;
        let mut batches = segment.batches(file, &data_path);
        let mut check = 0;
        while let Some((position, batch)) = batches.next()? {
            self.state.lock().check_open()?;
            let head: &[u8; HEAD_LEN] = batch.bytes().first_chunk().expect("a batch has a header");
            check = crc32c_extend(check, head);
            let (base_offset, epoch) = (batch.header().base_offset, batch.header().leader_epoch);
            let (appended_at, estimated) = times.of(position);
            each(position, &batch, Placed { base_offset, epoch, appended_at, estimated })?;
        }
        segment.expect_headers(&data_path, check)
    }
}

/// The segments that may be compacted: sealed, whole, and old enough.
fn compactable<'a>(state: &'a State, options: &CompactionOptions, now: TimestampMs) -> &'a [Arc<Sealed>] {
    let min_age_ms = i64::try_from(options.min_age.as_millis()).unwrap_or(i64::MAX);
    let may_be = |segment: &&Arc<Sealed>| {
        segment.end() <= state.durable.end.min(state.last_stable())
            && !segment.is_short()
            && now.0.saturating_sub(segment.last_appended_at().0) >= min_age_ms
    };
    let count = state.sealed.iter().take_while(may_be).count();
    &state.sealed[..count]
}
