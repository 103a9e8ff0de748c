//! What callers wait with: futures that need no runtime. Dropping one leaves no trace.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use logmill_record::{Offset, TimestampMs};

use super::LogInner;
use super::waiters::{End, Ticket};
use crate::env::block_on;
use crate::error::Error;
use crate::set::Place;

/// What an append returns: which offsets the records have, and a way to wait until they are on
/// disk. As a future it resolves when they are, also where readers see records sooner
/// ([`Durability::Relaxed`](crate::Durability::Relaxed)): polling it asks for a sync now.
///
/// Dropping a receipt takes nothing back: the records are written and will be synced.
///
/// ```
/// use logmill_log::env::block_on;
/// use logmill_log::{Log, LogOptions, Receipt, SetOptions};
/// use logmill_record::{BatchBuilder, NewRecord, Offset, TimestampMs};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
/// # let mut batch = BatchBuilder::new();
/// # batch.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"hello"), headers: &[] })?;
/// # let batch = batch.build()?;
/// let receipt: Receipt = log.append(std::slice::from_ref(&batch))?;
/// assert_eq!(receipt.first_offset(), Offset(0));
/// receipt.wait()?; // on a thread ...
///
/// let receipt = log.append(&[batch])?;
/// block_on(&*log.env().scheduler, async { receipt.await })?; // ... or in any runtime
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "an append is durable only when its receipt says so"]
pub struct Receipt {
    on_disk: OnDisk,
    first_offset: Offset,
    appended_at: TimestampMs,
    duplicate: bool,
}

impl Receipt {
    pub(super) fn new(
        log: Arc<LogInner>,
        first_offset: Offset,
        next_offset: Offset,
        appended_at: TimestampMs,
        must_ask: bool,
    ) -> Self {
        let on_disk = OnDisk::new(log, next_offset, must_ask);
        Self { on_disk, first_offset, appended_at, duplicate: false }
    }

    /// Of batches that the log has already.
    pub(super) fn duplicate(
        log: Arc<LogInner>,
        (first, next): (Offset, Offset),
        appended_at: TimestampMs,
        must_ask: bool,
    ) -> Self {
        let mut receipt = Self::new(log, first, next, appended_at, must_ask);
        receipt.duplicate = true;
        receipt
    }

    /// The offset of the first record appended.
    #[must_use]
    pub fn first_offset(&self) -> Offset {
        self.first_offset
    }

    /// The offset of the last record appended.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        Offset(self.on_disk.end.get() - 1)
    }

    /// When the records were appended, by the node's clock.
    #[must_use]
    pub fn appended_at(&self) -> TimestampMs {
        self.appended_at
    }

    /// Whether the log had the batches already: an idempotent producer sent them again. The
    /// offsets and the time are those of the first append, and the receipt resolves when that one
    /// is on disk.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        self.duplicate
    }

    /// Blocks until the records are on disk.
    ///
    /// # Errors
    ///
    /// `OutcomeUnknown` if the sync failed: the records may or may not survive a power cut.
    pub fn wait(self) -> Result<(), Error> {
        let scheduler = Arc::clone(&self.on_disk.log.env.scheduler);
        block_on(&*scheduler, self)
    }

    /// A future of its own for the records up to `offset`, for one of several whose batches went into one
    /// append.
    pub fn on_disk(&self, offset: Offset) -> OnDisk {
        let OnDisk { log, must_ask, .. } = &self.on_disk;
        OnDisk::new(Arc::clone(log), offset.next(), *must_ask)
    }
}

impl Future for Receipt {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.on_disk).poll(context)
    }
}

/// Resolves when the record at an offset is on disk, or with the error that ends the log: what
/// [`Log::on_disk`](super::Log::on_disk) and [`Receipt::on_disk`] return. Polling it asks for a sync, where
/// none is on its way. Dropping it takes nothing back.
///
/// ```
/// use logmill_log::env::block_on;
/// use logmill_log::{Log, LogOptions, OnDisk, SetOptions};
/// use logmill_record::{BatchBuilder, NewRecord, Offset, TimestampMs};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
/// # let mut batch = BatchBuilder::new();
/// # batch.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"hello"), headers: &[] })?;
/// # let batch = batch.build()?;
/// let receipt = log.append(&[batch.clone(), batch])?;
/// let first: OnDisk = receipt.on_disk(Offset(0));
/// block_on(&*log.env().scheduler, first)?;
/// assert!(log.durable_end() > Offset(0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct OnDisk {
    log: Arc<LogInner>,
    /// The offset that the durable end must reach.
    end: Offset,
    /// No sync has been asked for yet: the first poll does.
    must_ask: bool,
    ticket: Ticket,
}

impl OnDisk {
    pub(super) fn new(log: Arc<LogInner>, end: Offset, must_ask: bool) -> Self {
        Self { log, end, must_ask, ticket: Ticket::default() }
    }
}

impl Future for OnDisk {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let poll = this.log.waiters.poll_end(End::Durable, this.end, &mut this.ticket, context);
        if poll.is_pending() && std::mem::take(&mut this.must_ask) {
            this.log.want_durable(this.end);
        }
        poll
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        self.log.waiters.forget(&mut self.ticket);
    }
}

/// Resolves when readers can see past an offset, or with the error that ends the log: what
/// [`Log::beyond`](super::Log::beyond) returns, and [`Log::stable_beyond`](super::Log::stable_beyond) for readers of
/// committed records.
///
/// ```
/// use logmill_log::env::block_on;
/// use logmill_log::{Beyond, Log, LogOptions, SetOptions};
/// use logmill_record::{BatchBuilder, NewRecord, Offset, TimestampMs};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
/// # let mut batch = BatchBuilder::new();
/// # batch.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"hello"), headers: &[] })?;
/// # let batch = batch.build()?;
/// let first: Beyond = log.beyond(Offset(0));
/// let receipt = log.append(&[batch])?;
/// block_on(&*log.env().scheduler, first)?; // there is something to read at offset 0
/// # drop(receipt);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Beyond {
    log: Arc<LogInner>,
    which: End,
    offset: Offset,
    ticket: Ticket,
}

impl Beyond {
    pub(super) fn new(log: Arc<LogInner>, offset: Offset) -> Self {
        Self { log, which: End::Visible, offset, ticket: Ticket::default() }
    }

    pub(super) fn stable(log: Arc<LogInner>, offset: Offset) -> Self {
        Self { log, which: End::Stable, offset, ticket: Ticket::default() }
    }
}

impl Future for Beyond {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.log.waiters.poll_end(this.which, this.offset.next(), &mut this.ticket, context)
    }
}

impl Drop for Beyond {
    fn drop(&mut self) {
        self.log.waiters.forget(&mut self.ticket);
    }
}

/// What a step that could not go on waits for: room in the log or in its set, or the end of a roll. When it resolves, try
/// the step again; see [`Step`].
///
/// ```
/// use logmill_log::{Log, LogOptions, SetOptions, Step, WaitFor};
/// use logmill_record::{BatchBuilder, NewRecord, TimestampMs};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
/// let mut batch = BatchBuilder::new();
/// batch.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"hello"), headers: &[] })?;
/// let batch = batch.build()?;
/// let receipt = loop {
///     let wait: WaitFor = match log.try_append(std::slice::from_ref(&batch))? {
///         Step::Done(receipt) => break receipt,
///         Step::Wait(wait) => wait,
///     };
///     logmill_log::env::block_on(&*log.env().scheduler, wait); // or `.await` it
/// };
/// receipt.wait()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct WaitFor(Awaited);

#[derive(Debug)]
enum Awaited {
    /// The log got further than it was.
    Progress { log: Arc<LogInner>, seen: u64, ticket: Ticket },
    /// The set has room.
    Room(Place),
}

impl WaitFor {
    pub(super) fn new(log: Arc<LogInner>, seen: u64) -> Self {
        Self(Awaited::Progress { log, seen, ticket: Ticket::default() })
    }

    pub(super) fn room(place: Place) -> Self {
        Self(Awaited::Room(place))
    }
}

impl Future for WaitFor {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Awaited::Progress { log, seen, ticket } => log.waiters.poll_progress(*seen, ticket, context),
            Awaited::Room(place) => Pin::new(place).poll(context),
        }
    }
}

impl Drop for WaitFor {
    fn drop(&mut self) {
        if let Awaited::Progress { log, ticket, .. } = &mut self.0 {
            log.waiters.forget(ticket);
        }
    }
}

/// The outcome of a step that never blocks.
///
/// ```
/// use logmill_log::{Error, Log, LogOptions, Receipt, SetOptions, Step, WaitFor};
/// use logmill_record::{Batch, BatchBuilder, NewRecord, TimestampMs};
///
/// /// Appends without holding up a thread.
/// async fn append(log: &Log, batches: &[Batch]) -> Result<Receipt, Error> {
///     loop {
///         match log.try_append(batches)? {
///             Step::Done(receipt) => return Ok(receipt),
///             Step::Wait(room) => {
///                 let room: WaitFor = room;
///                 room.await;
///             }
///         }
///     }
/// }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
/// # let mut batch = BatchBuilder::new();
/// # batch.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"hello"), headers: &[] })?;
/// # let batches = [batch.build()?];
/// # logmill_log::env::block_on(&*log.env().scheduler, append(&log, &batches))?.wait()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub enum Step<T> {
    /// It is done.
    Done(T),
    /// It has to wait for this, and then to be tried again.
    Wait(WaitFor),
}
