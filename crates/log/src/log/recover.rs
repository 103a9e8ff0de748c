//! Opening a log: what is trusted, what is checked, and what damage means.
//!
//! The checkpoint draws the line. Before it, every byte was promised: damage there is corruption,
//! and nothing behind it is touched. After it, a broken batch cannot be told from a write that
//! tore: the tail is saved aside, cut and synced. What is whole after the checkpoint is written
//! again in place and synced before readers see it: after a kill it may be in the page cache
//! only, and after a failed sync the cache can hold clean pages that never reached the disk.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

use logmill_record::Offset;
use parking_lot::Mutex;

use super::producers::Producers;
use super::replace::{base_of_cleaned, settle};
use super::retention::{Kept, remove_segments};
use super::sidecar::{Replay, load, producers_after, replay};
use super::state::{Active, Phase, State};
use super::stats::CompactionStats;
use super::waiters::Waiters;
use super::{Counters, LogInner};
use crate::env::{Env, File, FileStatus, Fs, OpenMode};
use crate::error::{Error, ErrorKind};
use crate::format::atomic::{self, TEMPORARY};
use crate::format::checkpoint::Durable;
use crate::format::index::{Footer, Rows};
use crate::format::meta::LogMeta;
use crate::options::LogOptions;
use crate::segment::{
    DATA, Gaps, INDEX, IndexBuilder, Maps, Placed, STATE, Scan, Sealed, base_of, base_with, path, rebuild,
    scan,
};
use crate::set::{Dirty, SetInner, Shared};

/// Files are copied and written again in pieces of this size.
const PIECE_LEN: u64 = 1 << 20;

/// What is known of a log before its files are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// How far it was on disk, by the checkpoint or by the poisoned log that it replaces.
    pub(crate) durable: Option<Durable>,
    /// Bytes past that are to be cut: a sync of them failed in this process.
    pub(crate) cut: bool,
    /// The data directory was closed cleanly before.
    pub(crate) clean: bool,
    /// The epoch for what is appended from now on.
    pub(crate) epoch: i32,
}

/// Opens the log in `dir`.
pub(crate) fn open(
    env: &Env,
    (set_dir, dir): (&Path, &Path),
    meta: &LogMeta,
    expected: Expected,
    options: LogOptions,
    (set, shared): (Weak<SetInner>, Arc<Shared>),
) -> Result<Arc<LogInner>, Error> {
    let recovery = Recovery { fs: Arc::clone(&env.fs), maps: Arc::clone(&shared.maps), dir, meta, expected };
    recovery.settle_names(set_dir)?;
    let mut names = recovery.list()?;
    let states = std::mem::take(&mut names.states);
    let (bases, doomed) = recovery.without_those_below_start(names);
    let (sealed, last) = match recovery.sealed(bases)? {
        (sealed, Some(last)) => (sealed, last),
        (sealed, None) => (sealed, recovery.first_segment(meta.start_offset)?),
    };
    let before = Before { sealed: &sealed, states: &states };
    let Opened { mut active, producers, durable, promised, phase } = recovery.active(last, &before)?;
    if let Phase::ReadOnly(error) = &phase {
        tracing::error!(log = %dir.display(), %error, "the log is damaged and opened for reading only");
    }
    active.set_since(&*env.clock);
    let state = State {
        phase,
        poisoned: false,
        closing: false,
        sealed: Arc::new(sealed),
        active,
        producers,
        options,
        durable,
        visible: durable,
        wanted: durable.end,
        flush_armed: false,
        promised,
        parking: false,
        task_queued: false,
        task_runs_on: None,
        roll_awaited: false,
        roll_error: None,
        epoch: expected.epoch,
        start_offset: meta.start_offset,
        compaction: CompactionStats::default(),
    };
    let waiters = Waiters::new(durable.end);
    if let Phase::ReadOnly(error) = &state.phase {
        waiters.end(error.clone());
    }
    Ok(Arc::new(LogInner {
        id: meta.id,
        dir: dir.to_owned(),
        env: env.clone(),
        set,
        dirty: Dirty::new(Arc::clone(&shared.dirty), meta.id),
        last_use: AtomicU64::new(0),
        shared,
        counters: Counters::default(),
        kept: Mutex::new(Kept { meta: meta.clone(), doomed }),
        compactor: Mutex::default(),
        state: Mutex::new(state),
        waiters,
    }))
}

/// The active segment as it was found.
struct Opened {
    active: Active,
    producers: Producers,
    durable: Durable,
    /// What was promised beyond that.
    promised: Option<Durable>,
    phase: Phase,
}

/// The files of a log, by the base offsets in their names, in order.
#[derive(Default)]
struct Names {
    bases: Vec<Offset>,
    indexed: Vec<Offset>,
    states: BTreeSet<Offset>,
    /// Segments whose compaction was cut off.
    cleaned: BTreeSet<Offset>,
}

/// Where what is known of producers comes from.
struct Before<'a> {
    sealed: &'a [Arc<Sealed>],
    /// The segments that have a `.state`, good or bad.
    states: &'a BTreeSet<Offset>,
}

struct Recovery<'a> {
    fs: Arc<dyn Fs>,
    maps: Arc<Maps>,
    dir: &'a Path,
    meta: &'a LogMeta,
    expected: Expected,
}

impl Recovery<'_> {
    /// Makes the names of the log's files last, and those of its directories up to the set's: a
    /// process that ended between making a file and syncing its directory has left a name that a
    /// power cut would take back, with everything acknowledged in that file since.
    fn settle_names(&self, set_dir: &Path) -> Result<(), Error> {
        if self.expected.clean {
            return Ok(());
        }
        for dir in self.dir.ancestors().take_while(|dir| dir.starts_with(set_dir)) {
            self.fs.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
        }
        Ok(())
    }

    /// The segments there are; left-overs of a crash are removed.
    fn list(&self) -> Result<Names, Error> {
        let entries = self.fs.list(self.dir).map_err(|error| Error::io("list", self.dir, error))?;
        let mut names = Names::default();
        for entry in entries {
            if let Some(base) = base_of(&entry.name) {
                names.bases.push(base);
            } else if let Some(base) = base_of_cleaned(&entry.name) {
                names.cleaned.insert(base);
            } else if let Some(base) = base_with(&entry.name, INDEX) {
                names.indexed.push(base);
            } else if let Some(base) = base_with(&entry.name, STATE) {
                names.states.insert(base);
            } else if entry.name.ends_with(TEMPORARY) {
                let path = self.dir.join(&entry.name);
                self.fs.remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
            }
        }
        for base in &names.cleaned {
            settle(&*self.fs, self.dir, *base)?;
        }
        Ok(names)
    }

    /// Finishes a removal of segments that was cut off: what lies wholly below the start was to go,
    /// and so was an index there whose data is gone already. Those that cannot be removed now are
    /// tried again later.
    fn without_those_below_start(&self, names: Names) -> (Vec<Offset>, Vec<Offset>) {
        let Names { mut bases, indexed, .. } = names;
        let start = self.meta.start_offset;
        let below = bases.iter().skip(1).filter(|next| **next <= start).count();
        let orphan = |base: &Offset| *base < start && bases.binary_search(base).is_err();
        let mut doomed: Vec<Offset> = indexed.into_iter().filter(orphan).collect();
        doomed.extend(bases.drain(..below));
        if !doomed.is_empty()
            && let Err(error) = remove_segments(&*self.fs, self.dir, &mut doomed)
        {
            tracing::warn!(log = %self.dir.display(), %error, "cannot remove segments below the log's start");
        }
        (bases, doomed)
    }

    /// A log without any segment: its creation was cut off, or its files are gone.
    fn first_segment(&self, start: Offset) -> Result<Offset, Error> {
        if let Some(durable) = self.expected.durable.filter(|durable| durable.end > start) {
            let missing = path(self.dir, start, DATA);
            return Err(Error::corrupt(&missing, 0, start..durable.end, "the segment files are gone"));
        }
        let data = path(self.dir, start, DATA);
        self.fs
            .open(&data, OpenMode::CreateNew)
            .and_then(|_| self.fs.sync_dir(self.dir))
            .map_err(|error| Error::io("create", &data, error))?;
        Ok(start)
    }

    /// All segments but the last, and which is the last.
    fn sealed(&self, bases: Vec<Offset>) -> Result<(Vec<Arc<Sealed>>, Option<Offset>), Error> {
        let mut sealed = Vec::with_capacity(bases.len());
        let mut bases = bases.into_iter();
        let Some(mut base) = bases.next() else { return Ok((sealed, None)) };
        for next in bases {
            match self.sealed_segment(base, next)? {
                Some(segment) => {
                    sealed.push(Arc::new(segment));
                    base = next;
                }
                None => self.remove_stray(next)?,
            }
        }
        Ok((sealed, Some(base)))
    }

    /// Removes the empty file that a roll left which failed after it had made it: the log went on
    /// in the segment before, past the offset in the name.
    fn remove_stray(&self, base: Offset) -> Result<(), Error> {
        let data = path(self.dir, base, DATA);
        tracing::warn!(file = %data.display(), "removing the empty file of a segment that was never begun");
        self.fs
            .remove_file(&data)
            .and_then(|()| self.fs.sync_dir(self.dir))
            .map_err(|error| Error::io("remove", &data, error))
    }

    fn is_empty(&self, base: Offset) -> Result<bool, Error> {
        let data = path(self.dir, base, DATA);
        let status = self.open_file(&data, OpenMode::Read)?.status();
        Ok(status.map_err(|error| Error::io("look at", &data, error))?.len == 0)
    }

    /// Trusts a footer that matches the file's length, or rebuilds the index by a walk of headers.
    /// None if the segment goes on past `end`, where nothing but an empty file is.
    fn sealed_segment(&self, base: Offset, end: Offset) -> Result<Option<Sealed>, Error> {
        let data_path = path(self.dir, base, DATA);
        let file = self.open_file(&data_path, OpenMode::Read)?;
        let status = file.status().map_err(|error| Error::io("look at", &data_path, error))?;
        let gaps = if base < self.meta.gaps_below { Gaps::Below(end) } else { Gaps::None };
        let sealed = |footer, unwritten| {
            let (fs, maps) = (Arc::clone(&self.fs), Arc::clone(&self.maps));
            Sealed::new(fs, maps, self.dir, footer, end, gaps, unwritten)
        };
        if let Some(footer) = self.footer(base)
            && footer.data_len == status.len
            && footer.next_offset == end
        {
            return Ok(Some(sealed(footer, None)));
        }
        let (index, found) =
            rebuild(&*file, base, status, gaps).map_err(|error| Error::io("read", &data_path, error))?;
        if found.next_offset > end && self.is_empty(end)? {
            return Ok(None);
        }
        if let Some(what) = &found.damage {
            tracing::error!(file = %data_path.display(), position = found.end, what, "a sealed segment is damaged");
        } else {
            tracing::warn!(file = %data_path.display(), "rebuilt the index of a sealed segment");
        }
        if found.next_offset > end {
            let what = "it holds offsets that the next segment holds too";
            return Err(Error::corrupt(&data_path, found.end, end..found.next_offset, what));
        }
        let written = found.damage.is_none()
            && atomic::replace(&*self.fs, &path(self.dir, base, INDEX), &index.encode().0).is_ok();
        let unwritten = (!written).then(|| Rows::from_rows(index.rows()));
        Ok(Some(sealed(index.encode().1, unwritten)))
    }

    /// The footer of a segment's index, if there is one that makes sense.
    fn footer(&self, base: Offset) -> Option<Footer> {
        Footer::read(&*self.fs, &path(self.dir, base, INDEX)).filter(|footer| footer.base == base)
    }

    /// The active segment: nothing is read if it was closed cleanly.
    fn active(&self, base: Offset, before: &Before<'_>) -> Result<Opened, Error> {
        let data_path = path(self.dir, base, DATA);
        let file = self.open_file(&data_path, OpenMode::ReadWrite)?;
        let mut status = file.status().map_err(|error| Error::io("look at", &data_path, error))?;
        let floor = self.floor(base)?;
        if self.expected.cut && status.len > floor.position {
            take_back(&*file, floor.position).map_err(|error| Error::io("cut", &data_path, error))?;
            status.len = floor.position;
        }
        if let Some(index) = self.trusted_index(base, status.len, floor) {
            if !self.expected.clean {
                // A kill can fall between the cut of a failed append and its sync.
                file.sync_data().map_err(|error| Error::io("sync", &data_path, error))?;
            }
            let producers = self.producers_of(&*file, index.footer(), status, before)?;
            let mut active = Active::new(index);
            // Whether a `.state` that is needed was there is not known here: it is written again.
            let needs_state = active.index.footer().producers || !producers.is_empty();
            active.pair_is_written = active.len() > 0 && !needs_state;
            return Ok(Opened { active, producers, durable: floor, promised: None, phase: Phase::Open });
        }
        self.scanned(&data_path, &*file, status, floor, before)
    }

    /// The active segment after headers were read up to the floor and whole batches behind it.
    fn scanned(
        &self,
        data_path: &Path,
        file: &dyn File,
        status: FileStatus,
        floor: Durable,
        before: &Before<'_>,
    ) -> Result<Opened, Error> {
        let base = floor.active_base;
        let mut index = IndexBuilder::new(base);
        let mut replay = Replay::new(file, status.modified, self.producers_before(before)?);
        let mut push = |head: &[u8; _], header: &logmill_record::BatchHeader| {
            replay.visit(header);
            index.push(head, header, Placed::found(header, status));
        };
        let before = Scan {
            file,
            base,
            from: 0,
            offset: base,
            to: floor.position.min(status.len),
            gaps: Gaps::None,
            crc: false,
        };
        let promised = scan(&before, &mut push).map_err(|error| Error::io("read", data_path, error))?;
        if promised.end != floor.position || promised.next_offset != floor.end {
            let what = promised.damage.unwrap_or_else(|| "it ends before what was acknowledged".into());
            let offsets = promised.next_offset..floor.end.max(promised.next_offset);
            let error = Error::corrupt(data_path, promised.end, offsets, what);
            let durable = Durable { active_base: base, end: promised.next_offset, position: promised.end };
            let producers = replay.finish().map_err(|error| Error::io("read", data_path, error))?;
            let (active, phase) = (Active::new(index), Phase::ReadOnly(error));
            return Ok(Opened { active, producers, durable, promised: Some(floor), phase });
        }
        let after = Scan {
            file,
            base,
            from: floor.position,
            offset: floor.end,
            to: status.len,
            gaps: Gaps::None,
            crc: true,
        };
        let tail = scan(&after, &mut push).map_err(|error| Error::io("read", data_path, error))?;
        let mut producers = replay.finish().map_err(|error| Error::io("read", data_path, error))?;
        producers.note_durable(tail.next_offset);
        let write_failed = |error| Error::io("write again and sync", data_path, error);
        // Before anything else, since it needs no space: readers are about to see these bytes.
        rewrite(file, floor.position, tail.end).and_then(|()| file.sync_data()).map_err(write_failed)?;
        let durable = Durable { active_base: base, end: tail.next_offset, position: tail.end };
        let mut phase = Phase::Open;
        if let Some(what) = &tail.damage {
            match self.cut_tail(data_path, file, tail.end, status.len, what) {
                Ok(()) => file.sync_data().map_err(write_failed)?,
                Err(error) => phase = Phase::ReadOnly(error),
            }
        }
        Ok(Opened { active: Active::new(index), producers, durable, promised: None, phase })
    }

    /// The producers at the end of an active segment whose index is trusted.
    fn producers_of(
        &self,
        file: &dyn File,
        footer: &Footer,
        status: FileStatus,
        before: &Before<'_>,
    ) -> Result<Producers, Error> {
        if before.states.contains(&footer.base)
            && let Some(state) = load(&*self.fs, self.dir, footer)
        {
            return Ok(Producers::at_end(state));
        }
        let mut producers = self.producers_before(before)?;
        if footer.producers {
            replay(file, footer, Gaps::None, status.modified, &mut producers)
                .map_err(|error| Error::io("read", &path(self.dir, footer.base, DATA), error))?;
            producers.note_durable(footer.next_offset);
        }
        Ok(producers)
    }

    /// The producers at the end of the last sealed segment, whose `.state` is written again if it
    /// was of no use.
    fn producers_before(&self, before: &Before<'_>) -> Result<Producers, Error> {
        let exists = |base: Offset| before.states.contains(&base);
        let (mut producers, was_good) = producers_after(&*self.fs, self.dir, before.sealed, exists)?;
        if let Some(last) = before.sealed.last()
            && !was_good
            && !producers.is_empty()
        {
            let state = path(self.dir, last.base(), STATE);
            if let Err(error) = atomic::replace(&*self.fs, &state, &producers.to_file().encode(last.footer()))
            {
                tracing::warn!(%error, "cannot write what is known of producers");
            }
        }
        producers.take_aborted();
        Ok(producers)
    }

    /// Up to where the active segment was promised.
    fn floor(&self, base: Offset) -> Result<Durable, Error> {
        let start = Durable { active_base: base, end: base, position: 0 };
        match self.expected.durable {
            Some(durable) if durable.active_base == base => Ok(durable),
            // The log was rolled after the checkpoint was written.
            Some(durable) if durable.active_base < base => Ok(start),
            None => Ok(start),
            Some(durable) => {
                let missing = path(self.dir, durable.active_base, DATA);
                let offsets = durable.active_base..durable.end.max(durable.active_base.next());
                Err(Error::corrupt(&missing, 0, offsets, "the file is gone"))
            }
        }
    }

    /// The index of a segment that was closed cleanly.
    fn trusted_index(&self, base: Offset, len: u64, floor: Durable) -> Option<IndexBuilder> {
        if len == 0 && floor.position == 0 {
            return Some(IndexBuilder::new(base));
        }
        let footer = self.footer(base)?;
        if footer.data_len != len || floor.position != len || footer.next_offset != floor.end {
            return None;
        }
        let index_path = path(self.dir, base, INDEX);
        let bytes = atomic::read(&*self.fs, &index_path).ok()??;
        let rows = Rows::new(&index_path, &bytes.into(), &footer).ok()?;
        Some(IndexBuilder::resume(&rows, footer))
    }

    /// Saves a torn tail aside and cuts it off; the caller syncs the cut.
    fn cut_tail(&self, data: &Path, file: &dyn File, end: u64, len: u64, what: &str) -> Result<(), Error> {
        // Named by the epoch too: what an earlier open saved is never replaced.
        let aside = PathBuf::from(format!("{}.torn-{end}-{}", data.display(), self.expected.epoch));
        let copy_and_cut = |copy: Arc<dyn File>| -> std::io::Result<()> {
            for_pieces(end, len, |position, piece_len| {
                let mut piece = vec![0; piece_len];
                atomic::read_exact(file, &mut piece, position)?;
                atomic::write_all(&*copy, &mut [IoSlice::new(&piece)], position - end)
            })?;
            copy.sync_data()?;
            self.fs.sync_dir(self.dir)?;
            file.set_len(end)
        };
        let save = || {
            self.fs.open(&aside, OpenMode::CreateNew).and_then(|copy| {
                // A part of a copy would take the name from the next attempt, and perhaps its space.
                copy_and_cut(copy).inspect_err(|_| drop(self.fs.remove_file(&aside)))
            })
        };
        let saved = match save() {
            Err(error) if is_full(&error) && self.fs.make_room() => save(),
            saved => saved,
        };
        saved.map_err(|error| {
            let message = format!(
                "{} ends in a torn write at byte {end} that cannot be saved to {} ({error}); the log can \
                 be read; free some space and open it again to write",
                data.display(),
                aside.display(),
            );
            Error::new(ErrorKind::ReadOnly, message).at_path(data).because(error)
        })?;
        tracing::warn!(
            file = %data.display(), position = end, bytes = len - end, saved = %aside.display(), what,
            "cut off a torn write that was never acknowledged"
        );
        Ok(())
    }

    fn open_file(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>, Error> {
        self.fs.open(path, mode).map_err(|error| Error::io("open", path, error))
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// Cuts off everything from `position` for good. A sync of it has failed, and a sync of the cut
/// may fail too and then lie when it is tried again: so that what is cut cannot come back as
/// records, its first header goes first.
fn take_back(file: &dyn File, position: u64) -> std::io::Result<()> {
    let nothing = [0; logmill_record::HEADER_LEN];
    atomic::write_all(file, &mut [IoSlice::new(&nothing)], position)?;
    file.sync_data()?;
    file.set_len(position)?;
    file.sync_data()
}

/// Writes the bytes from `from` to `to` again, so that the next sync really puts them on disk.
fn rewrite(file: &dyn File, from: u64, to: u64) -> std::io::Result<()> {
    for_pieces(from, to, |position, len| {
        let mut piece = vec![0; len];
        atomic::read_exact(file, &mut piece, position)?;
        atomic::write_all(file, &mut [IoSlice::new(&piece)], position)
    })
}

/// Calls `each` with the position and length of one piece after another.
fn for_pieces(
    from: u64,
    to: u64,
    mut each: impl FnMut(u64, usize) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut position = from;
    while position < to {
        let len = PIECE_LEN.min(to - position);
        each(position, usize::try_from(len).map_err(|_| std::io::ErrorKind::FileTooLarge)?)?;
        position += len;
    }
    Ok(())
}
