//! The write path: validate, assign offsets, one positioned write, publish.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use logmill_record::{Batch, BatchHeader, Offset, TimestampMs, stamped_prefix};

use super::LogInner;
use super::futures::{Receipt, Step, WaitFor};
use super::group::{Group, Size};
use super::producers::{Note, Verdict};
use super::state::{Phase, Recent, Since, State};
use super::view::Guard;
use crate::env::File;
use crate::error::{Error, ErrorKind};
use crate::format::atomic;
use crate::options::{Durability, LogOptions};
use crate::segment::{DATA, HEAD_LEN, Placed, path};
use crate::set::Place;

/// What the log writes instead of a batch's own first bytes: base offset, length, epoch.
const STAMP_LEN: usize = 16;

impl LogInner {
    /// Works by `options` from now on.
    pub(super) fn set_options(self: &Arc<Self>, options: LogOptions) {
        let mut state = self.state.lock();
        state.options = options;
        if options.durability == Durability::Durable {
            state.wanted = state.written_end();
        }
        self.schedule_sync(&mut state);
        drop(state);
        // More may fit now.
        self.waiters.progressed();
    }

    /// Appends all of `batches` or nothing, or says what to wait for.
    pub(super) fn try_append(self: &Arc<Self>, batches: &[Batch]) -> Result<Step<Receipt>, Error> {
        let group = Group::new(batches)?;
        let step = self.append_or_wait(&group);
        if !matches!(step, Ok(Step::Done(_))) {
            // A file that was opened for nothing is not kept from a log that waits to open its own:
            // no sync of this one may follow that would give it back.
            self.close_file_if_others_wait();
        }
        step
    }

    fn append_or_wait(self: &Arc<Self>, group: &Group<'_>) -> Result<Step<Receipt>, Error> {
        loop {
            match self.append_once(group)? {
                Tried::Done(receipt) => return Ok(Step::Done(receipt)),
                Tried::Wait(wait) => return Ok(Step::Wait(wait)),
                Tried::Again => {}
                Tried::FileIsClosed => {
                    self.unpark()?;
                    if let Some(wait) = self.open_file()? {
                        return Ok(Step::Wait(wait));
                    }
                }
            }
        }
    }

    fn append_once(self: &Arc<Self>, group: &Group<'_>) -> Result<Tried, Error> {
        // Read before the look at the state, so that progress in between is not missed.
        let seen = self.waiters.progress();
        let mut state = self.state.lock();
        state.check_open()?;
        if let Some(receipt) = self.known(&state, &group.notes)? {
            return Ok(Tried::Done(receipt));
        }
        if !state.options.may_use_last_space {
            self.shared.spare.check()?;
        }
        if self.must_wait(&mut state, group.size)? {
            state.wanted = state.written_end();
            self.schedule_sync(&mut state);
            return Ok(Tried::Wait(WaitFor::new(Arc::clone(self), seen)));
        }
        if state.active.open.is_none() || state.active.is_parked {
            return Ok(Tried::FileIsClosed);
        }
        let first = state.written_end();
        let next = first.checked_add(group.size.offsets).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "the log has used up its offsets; create another")
        })?;
        if let Err(place) = self.dirty.take_or_queue(group.size.bytes) {
            drop(state);
            self.sync_others(&place);
            return Ok(Tried::Wait(WaitFor::room(place)));
        }
        let begun = self.env.clock.monotonic();
        match self.write(&mut state, group.batches) {
            Ok(appended_at) => {
                state.producers.apply_all(group.batches, &group.notes, first, appended_at);
                let must_ask = self.note_written(state, next);
                self.count_append(group, begun);
                Ok(Tried::Done(Receipt::new(Arc::clone(self), first, next, appended_at, must_ask)))
            }
            Err(error) => self.not_written(state, group, error),
        }
    }

    /// Whether a group has to wait until something is synced, or a roll is over, which begins here if
    /// the segment is full.
    fn must_wait(self: &Arc<Self>, state: &mut State, size: Size) -> Result<bool, Error> {
        let is_busy = matches!(state.phase, Phase::Rolling | Phase::Undoing);
        if is_busy || self.must_roll(state, size)? {
            return Ok(true);
        }
        let unsynced = state.unsynced_bytes();
        Ok(unsynced > 0 && unsynced + size.bytes > state.options.max_unsynced_bytes)
    }

    /// Checks a group against what is known of its producers; a receipt if the log has it already.
    fn known(self: &Arc<Self>, state: &State, notes: &[Option<Note>]) -> Result<Option<Receipt>, Error> {
        if notes.is_empty() {
            return Ok(None);
        }
        match state.producers.check(notes).map_err(|error| error.at_path(&self.dir))? {
            Verdict::Fresh => Ok(None),
            Verdict::Duplicate(first, next, appended_at) => {
                let must_ask = state.wanted < next;
                Ok(Some(Receipt::duplicate(Arc::clone(self), (first, next), appended_at, must_ask)))
            }
        }
    }

    /// Sees to the sync of what was just written, and shows it to readers if the log is relaxed;
    /// says whether whoever waits for it has to ask for the sync.
    fn note_written(self: &Arc<Self>, mut state: Guard<'_>, next: Offset) -> bool {
        self.note_use();
        let relaxed = state.options.durability != Durability::Durable;
        if relaxed {
            state.show_written();
        }
        let early = state.unsynced_bytes() > state.options.max_unsynced_bytes / 2;
        if !relaxed || early || self.dirty.is_tight() || self.others_wait_for_a_file() {
            state.wanted = next;
        }
        let must_ask = state.wanted < next;
        self.schedule_sync(&mut state);
        let shown = relaxed.then(|| state.last_stable());
        drop(state);
        if let Some(stable) = shown {
            self.waiters.publish_visible(next, stable);
        }
        must_ask
    }

    /// Counts an append that began at `begun`, and has the space looked at now and then.
    fn count_append(&self, group: &Group<'_>, begun: Duration) {
        if self.shared.spare.note_appended(group.size.bytes)
            && let Some(set) = self.set.upgrade()
        {
            set.look_at_space_soon();
        }
        let took = self.env.clock.monotonic().saturating_sub(begun);
        self.note_append(group.appended(), took);
    }

    /// The set has no room for more unsynced bytes: what relaxed logs have not synced yet they
    /// sync now. Once is enough: while somebody waits, they sync what is appended at once.
    fn sync_others(&self, place: &Place) {
        if place.first
            && let Some(set) = self.set.upgrade()
        {
            set.sync_all();
        }
    }

    /// Starts a roll if the segment is full; the appender waits for it.
    fn must_roll(self: &Arc<Self>, state: &mut State, size: Size) -> Result<bool, Error> {
        let active = &state.active;
        let relative_end = state.written_end().get() - active.base().get() + size.offsets;
        let full =
            active.len() + size.bytes > state.options.segment_bytes || relative_end > u64::from(u32::MAX);
        if !full || active.len() == 0 {
            return Ok(false);
        }
        if let Some(error) = state.roll_error.take() {
            return Err(error);
        }
        state.phase = Phase::Rolling;
        state.roll_awaited = true;
        self.schedule_sync(state);
        Ok(true)
    }

    /// The one write, and what becomes known by it.
    fn write(&self, state: &mut State, batches: &[Batch]) -> io::Result<TimestampMs> {
        let stamps = stamps(batches, state.written_end(), state.epoch);
        let mut parts: Vec<IoSlice<'_>> = Vec::with_capacity(batches.len() * 2);
        for (batch, stamp) in batches.iter().zip(&stamps) {
            parts.push(IoSlice::new(stamp));
            parts.push(IoSlice::new(&batch.bytes()[STAMP_LEN..]));
        }
        atomic::write_all(&**state.active.file(), &mut parts, state.active.len())?;
        // The wall clock can jump back; the time of append does not, also not over a roll.
        let sealed = state.sealed.last().map_or(TimestampMs(i64::MIN), |last| last.last_appended_at());
        let last = state.active.index.footer().last_appended_at.max(sealed);
        let appended_at = self.env.clock.now().max(last);
        state.active.pair_is_written = false;
        state.active.used_at = Some(self.env.clock.monotonic());
        state.active.since.get_or_insert_with(|| Since::now(&*self.env.clock));
        for (batch, stamp) in batches.iter().zip(&stamps) {
            place(state, batch.header(), &head(stamp, batch), appended_at);
        }
        Ok(appended_at)
    }

    /// Takes a failed append back; it is tried again if there was no room for it, and now there is.
    fn not_written(
        self: &Arc<Self>,
        mut state: Guard<'_>,
        group: &Group<'_>,
        error: io::Error,
    ) -> Result<Tried, Error> {
        let may_use_last_space = state.options.may_use_last_space;
        state.phase = Phase::Undoing;
        state.undoing = true;
        let (file, base, len) = (Arc::clone(state.active.file()), state.active.base(), state.active.len());
        drop(state);
        self.dirty.release(group.size.bytes);
        let data = path(&self.dir, base, DATA);
        let error = self.undo(&*file, &data, len, Error::io("append to", &data, error));
        if may_use_last_space && error.kind() == ErrorKind::Full && self.env.fs.make_room() {
            return Ok(Tried::Again);
        }
        Err(error)
    }

    /// Takes a failed append back, outside the lock: the file becomes as long as before, for good.
    /// Without the sync a power cut could bring back what the caller is told was not appended.
    fn undo(self: &Arc<Self>, file: &dyn File, data: &Path, len: u64, failed: Error) -> Error {
        let undone = file.set_len(len).and_then(|()| file.sync_data());
        let mut state = self.state.lock();
        state.undoing = false;
        let cause = match undone {
            // A sync that ran beside this one may have met the error, and this one not.
            Ok(()) if state.poisoned => failed,
            Ok(()) => {
                if matches!(state.phase, Phase::Undoing) {
                    state.phase = Phase::Open;
                }
                self.schedule_sync(&mut state);
                drop(state);
                self.waiters.progressed();
                return failed;
            }
            // Torn bytes may stay at the end of the file: nothing may be written behind them.
            Err(error) => Error::io("take back a failed append to", data, error),
        };
        let unknown = self.poisoned(&mut state, &cause);
        drop(state);
        self.give_back();
        self.waiters.end(unknown.clone());
        unknown
    }
}

/// What came of trying to append.
enum Tried {
    Done(Receipt),
    Wait(WaitFor),
    /// There was no room, and now there is.
    Again,
    /// The active segment's file must be opened first, or its index loaded.
    FileIsClosed,
}

fn stamps(batches: &[Batch], first: Offset, epoch: i32) -> Vec<[u8; STAMP_LEN]> {
    let mut base = first;
    batches
        .iter()
        .map(|batch| {
            let stamp = stamped_prefix(batch.header(), base, epoch);
            base = base.saturating_add(u64::from(batch.header().last_offset_delta) + 1);
            stamp
        })
        .collect()
}

/// The first bytes of a batch as they were written.
fn head(stamp: &[u8; STAMP_LEN], batch: &Batch) -> [u8; HEAD_LEN] {
    let mut head = [0; HEAD_LEN];
    head[..STAMP_LEN].copy_from_slice(stamp);
    head[STAMP_LEN..].copy_from_slice(&batch.bytes()[STAMP_LEN..HEAD_LEN]);
    head
}

fn place(state: &mut State, header: &BatchHeader, head: &[u8; HEAD_LEN], appended_at: TimestampMs) {
    let recent = Recent { offset: state.written_end(), position: state.active.len(), appended_at };
    let placed = Placed { base_offset: recent.offset, epoch: state.epoch, appended_at, estimated: false };
    state.active.index.push(head, header, placed);
    state.active.remember(recent);
}
