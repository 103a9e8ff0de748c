//! The public handle of a log.

use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use logmill_record::{Batch, Offset, TimestampMs};
use uuid::Uuid;

use super::LogInner;
use super::futures::{Beyond, OnDisk, Receipt, Step};
use super::read::What;
use super::state::Phase;
use super::stats::LogStats;
use crate::compaction::Compacted;
use crate::env::{Env, block_on, sleep, within};
use crate::error::Error;
use crate::options::{LogOptions, SetOptions};
use crate::read::ReadOut;
use crate::set::LogSet;

/// A log that is open. Cheap to clone; every clone is the same log.
///
/// Dropping the last handle closes nothing cleanly: like a killed process, it leaves what is
/// durable, and the next open does a little more work. (It waits for a sync that is under way.) Call [`Log::close`] or
/// [`LogSet::close`](crate::LogSet::close).
///
/// ```
/// use std::path::Path;
/// use logmill_log::{Log, LogOptions, SetOptions};
/// use logmill_record::{BatchBuilder, NewRecord, Offset, TimestampMs};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
///
/// let mut batch = BatchBuilder::new();
/// batch.push(&NewRecord { timestamp: TimestampMs(0), key: None, value: Some(b"hello"), headers: &[] })?;
/// let receipt = log.append(&[batch.build()?])?;
/// assert_eq!(receipt.first_offset(), Offset(0));
/// receipt.wait()?; // now it is on disk
///
/// let out = log.read(Offset(0), 1 << 20)?;
/// assert_eq!(out.next_offset, Offset(1));
/// log.close()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Log {
    inner: Arc<LogInner>,
    set: LogSet,
}

impl Log {
    pub(crate) fn new(inner: Arc<LogInner>, set: LogSet) -> Self {
        Self { inner, set }
    }

    pub(crate) fn inner(&self) -> &Arc<LogInner> {
        &self.inner
    }

    /// Opens the log in `dir`, or creates it: a set of one, with the set's and the log's files in
    /// that one directory. The directory is locked until the log is closed or the last handle is
    /// gone.
    ///
    /// # Errors
    ///
    /// As [`LogSet::open`](crate::LogSet::open) and [`LogSet::open_log`](crate::LogSet::open_log);
    /// `Invalid` for a directory of many logs.
    pub fn open(dir: impl AsRef<Path>, set: SetOptions, log: LogOptions) -> Result<Self, Error> {
        let set = LogSet::open_single(dir.as_ref(), set)?;
        if set.holds_log(Path::new(""))? { set.open_log("", log) } else { set.create("", &[], log) }
    }

    /// The log's identity, never used again.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.inner.id
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The set that it belongs to.
    #[must_use]
    pub fn set(&self) -> &LogSet {
        &self.set
    }

    /// Appends `batches` one after the other in one write, all or none, with the next offsets and
    /// the set's epoch. Blocks while too much is unsynced or a segment is being sealed.
    ///
    /// The batches are taken as they are: whoever lets batches of strangers in calls
    /// [`Batch::check_records`] first.
    ///
    /// # Errors
    ///
    /// `Full`, `Io`, `Invalid`, `OutOfSequence`, `Fenced`, `Limit`: nothing was appended. `OutcomeUnknown`: a failed
    /// append could not be taken back, and the log is poisoned. `Poisoned`, `ReadOnly`, `Closed`: the log takes
    /// nothing.
    pub fn append(&self, batches: &[Batch]) -> Result<Receipt, Error> {
        loop {
            match self.inner.try_append(batches)? {
                Step::Done(receipt) => return Ok(receipt),
                Step::Wait(wait) => block_on(&*self.inner.env.scheduler, wait),
            }
        }
    }

    /// [`Log::append`] without blocking: where it would wait, it says for what.
    ///
    /// # Errors
    ///
    /// As [`Log::append`].
    pub fn try_append(&self, batches: &[Batch]) -> Result<Step<Receipt>, Error> {
        self.inner.try_append(batches)
    }

    /// Reads whole batches from the one that holds `from`, about `max_bytes` but at least one
    /// batch, and no more than one segment's. Empty at the end.
    ///
    /// # Errors
    ///
    /// `OutOfRange` below the start or above the end; `Corrupt` with the offsets that cannot be
    /// read, after which reading can go on at [`Error::offsets`]' end.
    pub fn read(&self, from: Offset, max_bytes: usize) -> Result<ReadOut, Error> {
        self.inner.read(from, max_bytes, What::All)
    }

    /// The first record whose timestamp is at or after `at`: its offset and its timestamp.
    ///
    /// # Errors
    ///
    /// `Corrupt` where the search meets damage; `Io`, `Closed`.
    pub fn find_time(&self, at: TimestampMs) -> Result<Option<(Offset, TimestampMs)>, Error> {
        self.inner.find_time(at)
    }

    /// The first offset that is kept.
    #[must_use]
    pub fn start_offset(&self) -> Offset {
        self.inner.state.seen(|view| view.start_offset)
    }

    /// The offset after the last record that readers can see. Unless the log is
    /// [relaxed](crate::Durability::Relaxed), everything below it is on disk.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        // Not the end that waiters are told, which comes a moment later: a reader never finds itself past it.
        self.inner.state.seen(|view| view.visible.end)
    }

    /// The offset after the last record that is on disk.
    #[must_use]
    pub fn durable_end(&self) -> Offset {
        self.inner.waiters.durable_end()
    }

    /// The offset after the last record written, on disk or not.
    #[must_use]
    pub fn written_end(&self) -> Offset {
        self.inner.state.seen(|view| view.active.next_offset)
    }

    /// Resolves when readers can see the record at `offset`, with an error when they never will.
    pub fn beyond(&self, offset: Offset) -> Beyond {
        Beyond::new(Arc::clone(&self.inner), offset)
    }

    /// Resolves when the record at `offset` is on disk, with an error when it never will be. Where readers see
    /// records sooner ([`Durability::Relaxed`](crate::Durability::Relaxed)), polling it asks for a sync.
    pub fn on_disk(&self, offset: Offset) -> OnDisk {
        OnDisk::new(Arc::clone(&self.inner), offset.next(), true)
    }

    /// Blocks until readers can see the record at `offset`, but not longer than `timeout`; says
    /// whether they can.
    ///
    /// # Errors
    ///
    /// As the log's end: `Closed`, `OutcomeUnknown`; of a damaged log, what is the matter with it.
    pub fn wait_beyond(&self, offset: Offset, timeout: Duration) -> Result<bool, Error> {
        let scheduler = &*self.inner.env.scheduler;
        let mut beyond = pin!(self.beyond(offset));
        let mut timeout = pin!(sleep(scheduler, timeout));
        let either = poll_fn(|context| match beyond.as_mut().poll(context) {
            Poll::Ready(outcome) => Poll::Ready(outcome.map(|()| true)),
            Poll::Pending => timeout.as_mut().poll(context).map(|()| Ok(false)),
        });
        block_on(scheduler, either)
    }

    /// Seals the active segment now, if it holds anything, and waits for it.
    ///
    /// # Errors
    ///
    /// `Full` if the next segment could not be begun; the log goes on in the old one.
    pub fn roll(&self) -> Result<(), Error> {
        self.inner.request_roll()?;
        self.inner.wait_until(|state| !matches!(state.phase, Phase::Rolling | Phase::Undoing));
        let mut state = self.inner.state.lock();
        state.check_open()?;
        state.roll_error.take().map_or(Ok(()), Err)
    }

    /// Forgets the records below `offset`: the log starts there from now on, also after a crash,
    /// and a read below it is `OutOfRange`. Segments that hold nothing else are removed; `offset`
    /// may lie inside one. An offset at or below the start changes nothing. Returns where the log
    /// starts now.
    ///
    /// # Errors
    ///
    /// `OutOfRange` past what readers can see; `Poisoned`, `Closed`; `Full`, `Io` if it could not
    /// be made to last, or if files could not be removed: these are tried again later.
    ///
    /// ```
    /// use logmill_log::{ErrorKind, Log, LogOptions, SetOptions};
    /// use logmill_record::{BatchBuilder, NewRecord, Offset, TimestampMs};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
    /// for value in [b"a", b"b", b"c"] {
    ///     let mut batch = BatchBuilder::new();
    ///     let record = NewRecord { timestamp: TimestampMs(0), key: None, value: Some(value), headers: &[] };
    ///     batch.push(&record)?;
    ///     log.append(&[batch.build()?])?.wait()?;
    /// }
    /// assert_eq!(log.set_start_offset(Offset(2))?, Offset(2));
    /// assert_eq!(log.read(Offset(1), 100).unwrap_err().kind(), ErrorKind::OutOfRange);
    /// assert_eq!(log.read(Offset(2), 100)?.next_offset, Offset(3));
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_start_offset(&self, offset: Offset) -> Result<Offset, Error> {
        self.inner.set_start_offset(offset)
    }

    /// Replaces what the owner keeps with the log, which [`LogSet::read_meta`](crate::LogSet::read_meta) tells
    /// without opening it. It is on disk when this returns.
    ///
    /// # Errors
    ///
    /// `Invalid` for more than 1 MiB; `Poisoned`, `Closed`; `Full`, `Io`: it is as it was, or as it was to be.
    ///
    /// ```
    /// use logmill_log::{LogOptions, LogSet, SetOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let set = LogSet::open(dir.path(), SetOptions::default())?;
    /// let log = set.create("orders", b"currency=EUR", LogOptions::default())?;
    /// log.set_owner(b"currency=CHF")?;
    /// assert_eq!(set.read_meta("orders")?.owner.as_ref(), b"currency=CHF");
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_owner(&self, owner: &[u8]) -> Result<(), Error> {
        self.inner.set_owner(owner)
    }

    /// Removes the oldest segments as far as [`LogOptions::retention_age`] and
    /// [`LogOptions::retention_bytes`] say, now; sealing the active one first if all of it is too
    /// old. Returns where the log starts now.
    ///
    /// A damaged segment goes when its time has come, as any other, and the program's log says so;
    /// a log that was opened [read-only](crate::LogState::ReadOnly) loses nothing.
    ///
    /// # Errors
    ///
    /// As [`Log::set_start_offset`]; `ReadOnly` for a log that was opened read-only.
    pub fn apply_retention(&self) -> Result<Offset, Error> {
        if self.inner.active_expired() {
            self.roll()?;
        }
        self.inner.retain()
    }

    /// Compacts the log now: of all records with the same key in its sealed segments only the last
    /// stays. A log that was not opened with [`LogOptions::compaction`] is refused.
    ///
    /// # Errors
    ///
    /// `Invalid`; `Full`, `Io`, `Corrupt`: what was compacted until then stays so, the rest is as
    /// it was. Compaction stops at damage, since what lies before it may hold the only whole record
    /// of a key. `Poisoned`, `ReadOnly`, `Closed`.
    pub fn compact(&self) -> Result<Compacted, Error> {
        self.inner.compact()
    }

    /// How the log stands.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        self.inner.stats()
    }

    /// Changes how the log works from now on. A segment that is too large or too old by the new
    /// options is sealed at the next append or the next look at its age. What readers have seen
    /// they go on seeing, also when a relaxed log becomes a durable one.
    pub fn set_options(&self, options: LogOptions) {
        self.inner.set_options(options);
    }

    /// Closes the log: syncs what is written, writes the index, and takes no more calls. Blocks as
    /// long as the disk does: see [`Log::close_within`]. The next
    /// open reads nothing but that index. Closing twice is no error.
    ///
    /// A log that was opened by itself, with [`Log::open`], closes its set too, and gives the
    /// directory back.
    ///
    /// # Errors
    ///
    /// If the last bytes could not be synced or the index not be written; the log is closed all
    /// the same, and its set is not.
    pub fn close(&self) -> Result<(), Error> {
        let closed = self.inner.close();
        self.set.forget(&self.inner);
        closed?;
        if self.set.is_single(&self.inner) { self.set.close() } else { Ok(()) }
    }

    /// [`Log::close`], but waits no longer than `timeout` for a disk that may hang. After that the
    /// close goes on by itself, its outcome unknown; opening the log again waits for it.
    ///
    /// # Errors
    ///
    /// As [`Log::close`]; `OutcomeUnknown` if it takes longer.
    pub fn close_within(&self, timeout: Duration) -> Result<(), Error> {
        let log = self.clone();
        let closed = within(&*self.inner.env.scheduler, timeout, move || log.close());
        closed.unwrap_or_else(|| Err(Error::not_closed_within(&self.inner.dir, timeout)))
    }

    /// Closes the log without writing anything more, because its directory is about to go.
    pub fn retire(&self) {
        self.inner.abandon();
        self.set.retire(&self.inner);
    }

    /// The environment it runs in.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.inner.env
    }
}
