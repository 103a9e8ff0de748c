//! Opening a log: what is trusted, what is checked, and what damage means.
//!
//! The checkpoint draws the line. Before it, every byte was promised: damage there is corruption,
//! and nothing behind it is touched. After it, a broken batch cannot be told from a write that
//! tore: the tail is saved aside, cut and synced. What is whole after the checkpoint is written
//! again in place and synced before readers see it: after a kill it may be in the page cache
//! only, and after a failed sync the cache can hold clean pages that never reached the disk.

mod active;
mod damaged;
mod scanned;
mod sealed;
mod tail;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Weak};

use logmill_record::Offset;
use parking_lot::Mutex;

use self::active::{Before, Opened};
pub(crate) use self::scanned::{OnRead, Scanned};
use self::sealed::Segments;
use super::merge::{base_of_record, settle_merge};
use super::replace::{base_of_cleaned, settle};
use super::retention::{Kept, remove_segments};
use super::state::{Phase, State};
use super::stats::{CompactionStats, Recovered};
use super::view::Watched;
use super::waiters::Waiters;
use super::{Counters, LogInner};
use crate::env::{Entry, Env, File, Fs, OpenMode};
use crate::error::Error;
use crate::format::atomic::TEMPORARY;
use crate::format::checkpoint::Durable;
use crate::format::meta::LogMeta;
use crate::histogram::Recorder;
use crate::options::LogOptions;
use crate::segment::{DATA, INDEX, Maps, STATE, base_of, base_with, path};
use crate::set::{Dirty, SetInner, Shared, is_on_its_way};

/// What is known of a log before its files are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// How far it was on disk, by the checkpoint or by the poisoned log that it replaces.
    pub(crate) durable: Option<Durable>,
    /// Bytes past that are to be cut: a sync of them failed in this process.
    pub(crate) cut: bool,
    /// It was closed cleanly there.
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
    scanned: Arc<Scanned>,
) -> Result<Arc<LogInner>, Error> {
    let (fs, maps, mended) = (Arc::clone(&env.fs), Arc::clone(&shared.maps), Cell::default());
    let recovery = Recovery { fs, maps, dir, meta, expected, mended, scanned };
    recovery.settle_names(set_dir)?;
    let mut names = recovery.list()?;
    let states = std::mem::take(&mut names.states);
    let (bases, doomed) = recovery.without_those_below_start(names)?;
    let segments = recovery.sealed(bases)?;
    let last = segments.last.map_or_else(|| recovery.first_segment(meta.start_offset), Ok)?;
    let opened = recovery.active(last, &Before { sealed: &segments.sealed, states: &states })?;
    let mut state = recovery.state(segments, opened, options);
    state.active.set_since(&*env.clock);
    let waiters = Waiters::new(state.durable.end, state.last_stable());
    if let Phase::ReadOnly(error) = &state.phase {
        tracing::error!(log = %dir.display(), %error, "the log is damaged and opened for reading only");
        waiters.end(error.clone());
    }
    let recovered = recovery.mended.get();
    shared.recovered.lock().add(recovered);
    Ok(Arc::new(LogInner {
        id: meta.id,
        dir: dir.to_owned(),
        env: env.clone(),
        set,
        dirty: Dirty::new(Arc::clone(&shared.dirty), meta.id),
        last_use: AtomicU64::new(0),
        gives_way: AtomicBool::new(false),
        is_looked_after: AtomicBool::new(false),
        shared,
        recovered,
        counters: Counters::default(),
        append_time: Recorder::default(),
        sync_time: Recorder::default(),
        kept: Mutex::new(Kept { meta: meta.clone(), doomed }),
        compactor: Mutex::default(),
        state: Watched::new(state),
        waiters,
    }))
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

struct Recovery<'a> {
    fs: Arc<dyn Fs>,
    maps: Arc<Maps>,
    dir: &'a Path,
    meta: &'a LogMeta,
    expected: Expected,
    mended: Cell<Recovered>,
    scanned: Arc<Scanned>,
}

impl Recovery<'_> {
    /// Counts what was mended.
    fn note_mended(&self, what: Recovered) {
        let mut mended = self.mended.get();
        mended.add(what);
        self.mended.set(mended);
    }

    fn note_rebuilt(&self) {
        self.note_mended(Recovered { rebuilt_sidecars: 1, ..Recovered::default() });
    }

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

    fn entries(&self) -> Result<Vec<Entry>, Error> {
        self.fs.list(self.dir).map_err(|error| Error::io("list", self.dir, error))
    }

    /// The segments there are; left-overs of a crash are removed.
    fn list(&self) -> Result<Names, Error> {
        let mut entries = self.entries()?;
        let merges: Vec<_> = entries.iter().filter_map(|entry| base_of_record(&entry.name)).collect();
        if !merges.is_empty() {
            for base in merges {
                settle_merge(&*self.fs, self.dir, base, self.meta.start_offset)?;
            }
            entries = self.entries()?;
        }
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
            } else if entry.name.ends_with(TEMPORARY) && !is_on_its_way(&entry.name) {
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
    fn without_those_below_start(&self, names: Names) -> Result<(Vec<Offset>, Vec<Offset>), Error> {
        let Names { mut bases, indexed, .. } = names;
        let start = self.meta.start_offset;
        let below = self.below_start(&mut bases)?;
        let orphan = |base: &Offset| *base < start && bases.binary_search(base).is_err();
        let mut doomed: Vec<Offset> = indexed.into_iter().filter(orphan).collect();
        doomed.extend(bases.drain(..below));
        if !doomed.is_empty()
            && let Err(error) = remove_segments(&*self.fs, self.dir, &mut doomed)
        {
            tracing::warn!(log = %self.dir.display(), %error, "cannot remove segments below the log's start");
        }
        Ok((bases, doomed))
    }

    /// How many segments lie wholly below the start. One that was never begun ends none: the records of the
    /// segment before it can reach past the start.
    fn below_start(&self, bases: &mut Vec<Offset>) -> Result<usize, Error> {
        let mut below = 0;
        while let Some(next) = bases.get(below + 1).copied().filter(|next| *next <= self.meta.start_offset) {
            if self.was_never_begun(bases[below], next)? {
                self.remove_stray(next)?;
                bases.remove(below + 1);
            } else {
                below += 1;
            }
        }
        Ok(below)
    }

    /// A log without any segment: its creation was cut off, or its files are gone and one of them
    /// was the newest.
    fn first_segment(&self, start: Offset) -> Result<Offset, Error> {
        if let Some(durable) = self.expected.durable.filter(|durable| durable.end > start) {
            return Ok(durable.active_base);
        }
        let data = path(self.dir, start, DATA);
        self.fs
            .open(&data, OpenMode::CreateNew)
            .and_then(|_| self.fs.sync_dir(self.dir))
            .map_err(|error| Error::io("create", &data, error))?;
        Ok(start)
    }

    /// What the log then knows of itself: from here on it takes appends, unless it may only be read.
    fn state(&self, segments: Segments, opened: Opened, options: LogOptions) -> State {
        let Segments { mut sealed, trouble, .. } = segments;
        let Opened { damaged, active, producers, durable, promised, phase } = opened;
        sealed.extend(damaged);
        let phase = match (phase, trouble) {
            (Phase::Open, Some(error)) => Phase::ReadOnly(error),
            (phase, _) => phase,
        };
        State {
            phase,
            poisoned: false,
            closed_cleanly: false,
            found_clean: self.expected.clean,
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
            undoing: false,
            task_queued: false,
            task_runs_on: None,
            roll_awaited: false,
            roll_error: None,
            epoch: self.expected.epoch,
            start_offset: self.meta.start_offset,
            compaction: CompactionStats::default(),
        }
    }

    fn open_file(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>, Error> {
        let file = self.fs.open(path, mode).map_err(|error| Error::io("open", path, error))?;
        Ok(self.scanned.count(file))
    }
}
