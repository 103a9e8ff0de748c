//! The broker: opening, the operations on topics, closing.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use logmill_log::env::{Task, Work, block_on};
use logmill_log::{LogSet, SetOptions};

use crate::access::{Operation, authorize};
use crate::budget::{Budget, Permit};
use crate::catalog::{self, Catalog, MetadataLog, OpenReport, Opening};
use crate::config::Config;
use crate::context::RequestContext;
use crate::error::{Error, OpenError, Reason};
use crate::exec::{Receiver, Serial, Signal, Timer, reply};
use crate::settings::SettingChange;
use crate::topic::{CreateTopic, ListTopics, NodeDescription, Topic, TopicDescription, TopicPage};

/// Topics, their partitions, and everything that can be done with them, in this process.
///
/// Cheap to clone; every clone is the same broker. Calls decide at once and return futures that need no
/// runtime: any executor will do, or [`block_on`] without one. Blocking work runs on the threads of the
/// [`Config`]'s environment. Call [`close`](Broker::close) at the end: dropping the last clone instead is
/// like killing the process, from which the next open recovers.
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
    pub(crate) set: LogSet,
    pub(crate) catalog: Catalog,
    pub(crate) metadata: MetadataLog,
    /// Changes of topics, one at a time.
    pub(crate) changes: Arc<Serial>,
    /// Those that wait or run.
    changing: Budget,
    /// What is taken away after the answer, one at a time: it shares its threads with the timers.
    pub(crate) removals: Arc<Serial>,
    /// Deletions that go on after their answer.
    pub(crate) background: Budget,
    /// Bytes that were accepted and are not yet written.
    pub(crate) queued: Budget,
    /// Fetches that wait for records.
    pub(crate) waiting_fetches: Budget,
    pub(crate) timer: Timer,
    /// Fires when the broker begins to close.
    pub(crate) closing: Signal,
    /// Where the next fetch begins to read among its partitions.
    pub(crate) rotation: AtomicUsize,
    report: OpenReport,
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
        let opening = Opening::new(config.on_open.clone());
        let hears = Arc::clone(&opening);
        let options = SetOptions::new(config.env.clone())
            .on_scan(move |log| hears.scanned(log))
            .reserve_bytes(config.reserve_bytes)
            .low_space_bytes(config.low_space_bytes);
        catalog::check_layout(&config.env, &config.data_dir)?;
        let set = LogSet::open(&config.data_dir, options).map_err(OpenError::from_log)?;
        let loaded = catalog::load(&config, &set, &opening).inspect_err(|_| {
            // A directory that was closed cleanly stays so. What stopped the start is what to tell.
            let _ = set.close();
        })?;
        let broker = Self(Arc::new(Core {
            set,
            catalog: loaded.catalog,
            metadata: loaded.metadata,
            changes: Serial::new(Arc::clone(&config.env.scheduler), Work::Append),
            removals: Serial::new(Arc::clone(&config.env.scheduler), Work::Background),
            changing: Budget::new(config.limits.max_queued_topic_changes),
            background: Budget::new(usize::MAX),
            queued: Budget::new(config.limits.max_queued_bytes),
            waiting_fetches: Budget::new(config.limits.max_waiting_fetches),
            timer: Timer::new(config.env.clone()),
            closing: Signal::default(),
            rotation: AtomicUsize::new(0),
            report: loaded.report,
            config,
        }));
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

    /// Creates a topic. It is on disk when the answer comes.
    ///
    /// # Errors
    /// [`TopicNameInvalid`](Reason::TopicNameInvalid), [`PartitionCountInvalid`](Reason::PartitionCountInvalid),
    /// [`TopicExists`](Reason::TopicExists), [`DiskFull`](Reason::DiskFull),
    /// [`OutcomeUnknown`](Reason::OutcomeUnknown), [`MetadataFailed`](Reason::MetadataFailed).
    pub fn create_topic(
        &self,
        context: &RequestContext,
        request: CreateTopic,
    ) -> impl Future<Output = Result<Topic, Error>> + Send + 'static + use<> {
        let allowed = authorize(context, &Operation::CreateTopic { topic: &request.name });
        let checked = allowed.and_then(|()| catalog::check(&request, &self.0.config)).map(drop);
        self.change(checked, "the creation of a topic", |core| catalog::create(core, request))
    }

    /// Deletes a topic and its records. It stays deleted when the answer comes; the name is free at once,
    /// the space a little later.
    ///
    /// # Errors
    /// [`TopicNotFound`](Reason::TopicNotFound), [`DiskFull`](Reason::DiskFull),
    /// [`OutcomeUnknown`](Reason::OutcomeUnknown), [`MetadataFailed`](Reason::MetadataFailed).
    pub fn delete_topic(
        &self,
        context: &RequestContext,
        name: &str,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        let allowed = authorize(context, &Operation::DeleteTopic { topic: name });
        let name = name.to_owned();
        self.change(allowed, "the deletion of a topic", move |core| catalog::delete(core, &name))
    }

    /// Changes settings of a topic, each that is named, and leaves the others as they are. The changes are on
    /// disk when the answer comes, and hold for what is produced after it.
    ///
    /// # Errors
    /// [`SettingInvalid`](Reason::SettingInvalid), [`TopicNotFound`](Reason::TopicNotFound),
    /// [`DiskFull`](Reason::DiskFull), [`OutcomeUnknown`](Reason::OutcomeUnknown),
    /// [`MetadataFailed`](Reason::MetadataFailed). None of the changes is made then, or with `OutcomeUnknown`
    /// perhaps all of them.
    ///
    /// ```
    /// use logmill_broker::{Broker, Config, CreateTopic, RequestContext, SettingChange};
    /// use logmill_log::env::block_on;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let config = Config::new(dir.path());
    /// let scheduler = config.env.scheduler.clone();
    /// let broker = Broker::open(config)?;
    /// let context = RequestContext::embedded();
    /// block_on(&*scheduler, broker.create_topic(&context, CreateTopic::new("readings")))?;
    ///
    /// let week = SettingChange::set("retention.ms", "604800000");
    /// let topic = block_on(&*scheduler, broker.alter_topic(&context, "readings", vec![week]))?;
    /// assert!(topic.settings.iter().any(|it| (it.name, &*it.value) == ("retention.ms", "604800000")));
    /// broker.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alter_topic(
        &self,
        context: &RequestContext,
        name: &str,
        changes: Vec<SettingChange>,
    ) -> impl Future<Output = Result<Topic, Error>> + Send + 'static + use<> {
        let allowed = authorize(context, &Operation::AlterTopic { topic: name });
        let name = name.to_owned();
        self.change(allowed, "the alteration of a topic", move |core| catalog::alter(core, &name, &changes))
    }

    /// Gives a topic more partitions, `count` in all. They are on disk when the answer comes. Records are not
    /// moved: from now on those of a key may go to another partition than before.
    ///
    /// # Errors
    /// [`PartitionCountInvalid`](Reason::PartitionCountInvalid) unless there are more than before,
    /// [`TopicNotFound`](Reason::TopicNotFound), [`DiskFull`](Reason::DiskFull),
    /// [`OutcomeUnknown`](Reason::OutcomeUnknown), [`MetadataFailed`](Reason::MetadataFailed).
    pub fn add_partitions(
        &self,
        context: &RequestContext,
        name: &str,
        count: u32,
    ) -> impl Future<Output = Result<Topic, Error>> + Send + 'static + use<> {
        let allowed = authorize(context, &Operation::AddPartitions { topic: name });
        let checked = allowed.and_then(|()| catalog::check_count(count));
        let name = name.to_owned();
        self.change(checked, "the growth of a topic", move |core| catalog::add_partitions(core, &name, count))
    }

    /// Runs `change` when those before it have ended.
    fn change<T, F>(
        &self,
        allowed: Result<(), Error>,
        doing: &'static str,
        change: F,
    ) -> impl Future<Output = Result<T, Error>> + Send + 'static + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Core>) -> Result<T, Error> + Send + 'static,
    {
        let core = &self.0;
        let held = allowed.and_then(|()| core.check_open()).and_then(|()| core.take_changes(1, doing));
        let answer = held.map(|held| {
            let (sender, receiver) = reply();
            let core = Arc::clone(core);
            let changes = Arc::clone(&core.changes);
            changes.push(Box::new(move || {
                sender.send(change(&core));
                drop(held);
            }));
            receiver
        });
        async move { answer?.await.unwrap_or_else(|_| Err(Error::fault(doing))) }
    }

    /// Lists topics in order of their names, a page at a time.
    ///
    /// # Errors
    /// [`RequestInvalid`](Reason::RequestInvalid) for a page token that no answer gave.
    pub fn list_topics(
        &self,
        context: &RequestContext,
        request: ListTopics,
    ) -> impl Future<Output = Result<TopicPage, Error>> + Send + 'static + use<> {
        let page = authorize(context, &Operation::ListTopics)
            .and_then(|()| self.0.check_open())
            .and_then(|()| catalog::list(&self.0, request));
        std::future::ready(page)
    }

    /// Describes a topic and each of its partitions.
    ///
    /// # Errors
    /// [`TopicNotFound`](Reason::TopicNotFound).
    pub fn describe_topic(
        &self,
        context: &RequestContext,
        name: &str,
    ) -> impl Future<Output = Result<TopicDescription, Error>> + Send + 'static + use<> {
        let topic = authorize(context, &Operation::DescribeTopic { topic: name })
            .and_then(|()| self.0.check_open())
            .and_then(|()| self.0.catalog.topic(name));
        self.0.run(Work::Wake, topic, "a description", |core, topic| Ok(catalog::describe(core, &topic)))
    }

    /// Describes the node.
    ///
    /// # Errors
    /// [`IoFailed`](Reason::IoFailed) if the file system does not say how much space it has.
    pub fn describe_node(
        &self,
        context: &RequestContext,
    ) -> impl Future<Output = Result<NodeDescription, Error>> + Send + 'static + use<> {
        let allowed = authorize(context, &Operation::DescribeNode).and_then(|()| self.0.check_open());
        self.0.run(Work::Wake, allowed, "a description", |core, ()| catalog::describe_node(core))
    }

    /// Ends the broker cleanly: takes nothing more, writes what was accepted, ends those who wait, syncs and
    /// closes every log. Blocks. The next open recovers nothing. Closing twice is no error.
    ///
    /// # Errors
    /// What could not be synced or written; everything that can be closed is closed all the same.
    pub fn close(&self) -> Result<(), Error> {
        let core = &self.0;
        self.drain();
        let scheduler = &*core.config.env.scheduler;
        for empty in [core.queued.empty(), core.changing.empty(), core.background.empty()] {
            // The budgets outlive the wait.
            let _ = block_on(scheduler, empty);
        }
        core.set.close().map_err(|error| {
            let message = format!(
                "the data directory could not be closed cleanly, the next start will check more: {error}"
            );
            Error::new(Reason::IoFailed, message).because(error)
        })
    }

    /// The first half of [`close`](Broker::close): takes nothing more and ends those who wait for records.
    /// What was accepted is still written and answered.
    pub(crate) fn drain(&self) {
        let core = &self.0;
        core.closing.fire();
        for topic in core.catalog.all() {
            for lane in topic.partitions.iter().filter_map(|partition| partition.lane().ok()) {
                lane.refuse(Error::closing());
            }
        }
    }
}

impl Core {
    /// Takes the places of changes that wait or run; `doing` names them.
    pub(crate) fn take_changes(&self, count: usize, doing: &str) -> Result<Permit, Error> {
        let advice = "send again when earlier changes have been answered";
        let limit = self.config.limits.max_queued_topic_changes;
        self.changing
            .take(count)
            .ok_or_else(|| Error::limit("max_queued_topic_changes", limit, doing, advice))
    }

    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.closing.has_fired() { Err(Error::closing()) } else { Ok(()) }
    }

    /// Runs a blocking job on the threads for reading.
    pub(crate) fn read<I, T, F>(
        self: &Arc<Self>,
        input: Result<I, Error>,
        doing: &'static str,
        job: F,
    ) -> impl Future<Output = Result<T, Error>> + Send + 'static + use<I, T, F>
    where
        I: Send + 'static,
        T: Send + 'static,
        F: FnOnce(&Arc<Self>, I) -> Result<T, Error> + Send + 'static,
    {
        self.run(Work::Read, input, doing, job)
    }

    /// Runs a job on the threads for that work. What waits for nothing stays off the reading threads: disks
    /// that do not answer may hold all of those.
    fn run<I, T, F>(
        self: &Arc<Self>,
        work: Work,
        input: Result<I, Error>,
        doing: &'static str,
        job: F,
    ) -> impl Future<Output = Result<T, Error>> + Send + 'static + use<I, T, F>
    where
        I: Send + 'static,
        T: Send + 'static,
        F: FnOnce(&Arc<Self>, I) -> Result<T, Error> + Send + 'static,
    {
        let answer = input.map(|input| {
            let (sender, receiver): (_, Receiver<Result<T, Error>>) = reply();
            let core = Arc::clone(self);
            let task: Task = Box::new(move || sender.send(job(&core, input)));
            self.config.env.scheduler.spawn(work, task);
            receiver
        });
        async move { answer?.await.unwrap_or_else(|_| Err(Error::fault(doing))) }
    }
}
