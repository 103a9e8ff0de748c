//! The broker: the handle, what its clones share, and opening. Its operations are where their subjects are.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use logmill_log::env::Work;
use logmill_log::{LogSet, SetOptions};

use crate::budget::{Budget, Permit};
use crate::catalog::{self, Catalog, MetadataLog, OpenReport, Opening, SpaceLeft};
use crate::config::Config;
use crate::error::{Error, OpenError};
use crate::exec::{Serial, Signal, Timer, drive, reply};
use crate::group::Groups;
use crate::internal::{InternalLog, Which};
use crate::limits::{Bounds, Limit, LimitStats};
use crate::offsets::Offsets;
use crate::transaction::{self, Transactions};

/// Topics, their partitions, and everything that can be done with them, in this process.
///
/// Cheap to clone; every clone is the same broker. Calls decide at once and return futures that need no
/// runtime: any executor will do, or [`block_on`](logmill_log::env::block_on) without one. Blocking work runs on the threads of the
/// [`Config`]'s environment. Call [`close`](Broker::close) at the end: dropping the last clone instead is
/// like killing the process, from which the next open recovers.
///
/// # Errors of every call
/// Each operation names the [`Reason`](crate::Reason)s that are its own. Any of them may also fail with
/// [`NodeClosing`](crate::Reason::NodeClosing), and then it has not happened; or with
/// [`InternalFault`](crate::Reason::InternalFault), and then it is not known.
///
/// Those that change topics (create, delete, alter, add partitions) run one after the other, and also fail with
/// [`LimitExceeded`](crate::Reason::LimitExceeded) while too many wait, [`DiskFull`](crate::Reason::DiskFull),
/// [`MetadataFailed`](crate::Reason::MetadataFailed), or [`IoFailed`](crate::Reason::IoFailed), also for a sync that
/// failed and could be undone: the change has not happened. After
/// [`OutcomeUnknown`](crate::Reason::OutcomeUnknown) the next start tells.
///
/// ```
/// use logmill_broker::{Broker, Config, CreateTopic, ListTopics, RequestContext};
/// use logmill_log::env::block_on;
///
/// # let dir = tempfile::tempdir()?;
/// let config = Config::new(dir.path());
/// let scheduler = config.env.scheduler.clone();
/// let broker = Broker::open(config)?;
/// let context = RequestContext::embedded();
///
/// let create = CreateTopic::new("readings").partitions(4);
/// let topic = block_on(&*scheduler, broker.create_topic(&context, create))?;
/// assert_eq!(topic.partition_count, 4);
///
/// let page = block_on(&*scheduler, broker.list_topics(&context, ListTopics::default()))?;
/// assert_eq!(page.topics, [topic]);
/// broker.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Broker(Arc<Core>);

/// What the clones of a broker share.
pub(crate) struct Core {
    pub(crate) config: Config,
    /// How the limits stand.
    pub(crate) bounds: Arc<Bounds>,
    pub(crate) set: LogSet,
    pub(crate) catalog: Catalog,
    pub(crate) metadata: MetadataLog,
    /// Changes of topics, one at a time.
    pub(crate) changes: Arc<Serial>,
    /// Those that wait or run.
    pub(crate) changing: Budget,
    /// What is taken away after the answer, one at a time: it shares its threads with the timers.
    pub(crate) removals: Arc<Serial>,
    /// Deletions that go on after their answer, or when their caller has given up.
    pub(crate) background: Budget,
    /// Bytes that were accepted and are not yet written.
    pub(crate) queued: Budget,
    /// Bytes of records that were read for replies and not yet sent.
    pub(crate) replies: Budget,
    /// Bytes of steps that have begun to arrive.
    pub(crate) steps: Budget,
    pub(crate) subscriptions: Budget,
    /// Fetches that wait for records.
    pub(crate) waiting_fetches: Budget,
    pub(crate) timer: Timer,
    pub(crate) transactions: Transactions,
    pub(crate) offsets: Offsets,
    pub(crate) groups: Groups,
    pub(crate) space: SpaceLeft,
    /// Fires when the broker begins to close.
    pub(crate) closing: Signal,
    /// Where the next fetch begins to read among its partitions.
    pub(crate) rotation: AtomicUsize,
    report: OpenReport,
}

/// How a broker stands, in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerStats {
    /// Each limit, in the order of [`Limit::ALL`].
    pub limits: Vec<LimitStats>,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("data_dir", &self.0.config.data_dir).finish_non_exhaustive()
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("data_dir", &self.config.data_dir).finish_non_exhaustive()
    }
}

impl Broker {
    /// Opens the data directory, or makes a new one, and every partition in it. Blocks.
    ///
    /// A partition that cannot be opened does not stop the others: see [`open_report`](Broker::open_report).
    ///
    /// # Errors
    /// See [`OpenErrorKind`](crate::OpenErrorKind): the directory is in use, is none, cannot be written, is
    /// of a newer version; or the node's own metadata is damaged, without which it knows no topics.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        config.check()?;
        let bounds = Arc::new(Bounds::new(config.limits.clone()));
        let opening = Opening::new(config.on_open.clone());
        let hears = Arc::clone(&opening);
        let options = SetOptions::new(config.env.clone())
            .on_scan(move |log| hears.scanned(log))
            .reserve_bytes(config.reserve_bytes)
            .low_space_bytes(config.low_space_bytes);
        catalog::check_layout(&config.env, &config.data_dir)?;
        let set = LogSet::open(&config.data_dir, options).map_err(OpenError::from_log)?;
        let loaded = catalog::load(&config, &bounds, &set, &opening).inspect_err(|_| {
            // A directory that was closed cleanly stays so. What stopped the start is what to tell.
            let _ = set.close();
        })?;
        let transactions = InternalLog::open(&set, &bounds, Which::Transactions).and_then(Transactions::open);
        let (transactions, decided) = transactions.inspect_err(|_| {
            let _ = set.close();
        })?;
        let offsets = InternalLog::open(&set, &bounds, Which::Offsets).inspect_err(|_| {
            let _ = set.close();
        })?;
        let broker = Self(Arc::new(Core {
            set,
            transactions,
            offsets: Offsets::new(offsets),
            groups: Groups::default(),
            catalog: loaded.catalog,
            metadata: loaded.metadata,
            changes: Serial::new(Arc::clone(&config.env.scheduler), Work::Append),
            removals: Serial::new(Arc::clone(&config.env.scheduler), Work::Background),
            changing: bounds.budget(Limit::MaxQueuedTopicChanges),
            background: Budget::unbounded(),
            queued: bounds.budget(Limit::MaxQueuedBytes),
            replies: bounds.budget(Limit::MaxReplyBytes),
            steps: bounds.budget(Limit::MaxStepBytes),
            subscriptions: bounds.budget(Limit::MaxSubscriptions),
            waiting_fetches: bounds.budget(Limit::MaxWaitingFetches),
            bounds,
            timer: Timer::new(config.env.clone()),
            space: SpaceLeft::default(),
            closing: Signal::default(),
            rotation: AtomicUsize::new(0),
            report: loaded.report,
            config,
        }));
        // What groups have committed is read when it is known which transactions have.
        let undone = transaction::recover(&broker.0, &decided);
        let owners = broker.0.offsets.read_all(&undone).inspect_err(|_| {
            let _ = broker.0.set.close();
        })?;
        broker.0.groups.restore(&broker.0, owners);
        for leftover in loaded.leftovers {
            catalog::take_away(&broker.0, leftover);
        }
        Ok(broker)
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.0
    }

    /// What opening found: partitions that failed, directories that nobody knows.
    #[must_use]
    pub fn open_report(&self) -> &OpenReport {
        &self.0.report
    }

    /// The configuration that it was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// How much is in use of each limit, was at most, and how often somebody was refused for it. Costs little,
    /// and waits for nothing.
    ///
    /// ```
    /// use logmill_broker::{Broker, Config, Limit};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let broker = Broker::open(Config::new(dir.path()))?;
    /// let stats = broker.stats();
    /// let queued = stats.limits.iter().find(|it| it.limit == Limit::MaxQueuedBytes).unwrap();
    /// assert_eq!((queued.used, queued.refused), (0, 0));
    /// broker.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> BrokerStats {
        let (topics, partitions) = self.0.catalog.count();
        let mut limits = self.0.bounds.stats();
        for stats in &mut limits {
            let there_are = match stats.limit {
                Limit::MaxTopics => topics,
                Limit::MaxPartitions => partitions,
                _ => continue,
            };
            (stats.used, stats.peak) = (there_are, stats.peak.max(there_are));
        }
        BrokerStats { limits }
    }
}

impl Core {
    /// Takes the place of a change that waits or runs; `doing` names it.
    pub(crate) fn take_change(&self, doing: &str) -> Result<Permit, Error> {
        let advice = "send again when earlier changes have been answered";
        self.changing.take_for(1, || doing.to_owned(), advice)
    }

    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.closing.has_fired() { Err(Error::closing()) } else { Ok(()) }
    }

    /// Runs a job that may block, on the threads for reading.
    pub(crate) fn read<T, F>(
        self: &Arc<Self>,
        doing: &'static str,
        job: F,
    ) -> impl Future<Output = Result<T, Error>> + Send + 'static + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Self>) -> Result<T, Error> + Send + 'static,
    {
        let (sender, receiver) = reply();
        let core = Arc::clone(self);
        let task = move || {
            let outcome = job(&core);
            drop(core);
            sender.send(outcome);
        };
        self.config.env.scheduler.spawn(Work::Read, Box::new(task));
        async move { receiver.await.unwrap_or_else(|_| Err(Error::fault(doing))) }
    }

    /// Runs what never blocks to its end, also when nobody waits for it any more; a close waits for it.
    pub(crate) fn carry_on<T, F>(
        &self,
        doing: &'static str,
        work: F,
    ) -> impl Future<Output = Result<T, Error>> + Send + 'static + use<T, F>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.carry_on_with(Work::Wake, doing, work)
    }

    /// The same on these threads, for what asks a log that may be busy writing.
    pub(crate) fn carry_on_with<T, F>(
        &self,
        threads: Work,
        doing: &'static str,
        work: F,
    ) -> impl Future<Output = Result<T, Error>> + Send + 'static + use<T, F>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let held = self.background.take(1);
        let (sender, receiver) = reply();
        drive(&self.config.env.scheduler, threads, async move {
            let outcome = work.await;
            drop(held);
            sender.send(outcome);
        });
        async move { receiver.await.unwrap_or_else(|_| Err(Error::fault(doing))) }
    }

    /// Runs what never blocks on the thread for waking. Not on the reading threads: disks that do not answer may hold
    /// all of those.
    pub(crate) fn look<T, F>(
        &self,
        doing: &'static str,
        look: F,
    ) -> impl Future<Output = Result<T, Error>> + Send + 'static + use<T, F>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let (sender, receiver) = reply();
        drive(&self.config.env.scheduler, Work::Wake, async move { sender.send(look.await) });
        async move { receiver.await.unwrap_or_else(|_| Err(Error::fault(doing))) }
    }
}
