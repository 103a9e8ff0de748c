//! Records out of partitions: once, or on and on.
//!
//! Reads run on the scheduler's threads for reading; waiting costs no thread. A call that is dropped takes
//! its waiters with it.

mod cursor;
mod decode;
mod offsets;
mod subscribe;
mod wait;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cursor::Cursor;
pub use decode::{DecodedRecord, DecodedRecords, decode};
use logmill_log::Chunk;
use logmill_log::env::Work;
use logmill_record::Offset;
pub use subscribe::{Credit, Subscribe, Subscription};
use wait::{Woken, wait};

use crate::access::{Operation, authorize};
use crate::broker::{Broker, Core};
use crate::budget::{Budget, Permit};
use crate::context::RequestContext;
use crate::error::{Error, Reason, shorten};
use crate::exec::{Receiver, reply};
use crate::limits::Limit;
use crate::topic::Position;

/// The longest that a fetch waits.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// How much a fetch returns when it does not say: 1 MiB.
pub const DEFAULT_FETCH_BYTES: usize = 1024 * 1024;

/// A read from some partitions.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// What to read; at least one, each partition once.
    pub partitions: Vec<FetchFrom>,
    /// At most about so many bytes of batches. The first batch comes even if it is larger.
    pub max_bytes: usize,
    /// Wait for so many bytes.
    pub min_bytes: usize,
    /// Wait at most so long; zero does not wait.
    pub max_wait: Duration,
}

impl Fetch {
    /// Up to 1 MiB of what is there now.
    #[must_use]
    pub fn new(partitions: Vec<FetchFrom>) -> Self {
        Self { partitions, max_bytes: DEFAULT_FETCH_BYTES, min_bytes: 1, max_wait: Duration::ZERO }
    }

    /// The same, waiting so long if there is nothing yet.
    #[must_use]
    pub fn max_wait(self, max_wait: Duration) -> Self {
        Self { max_wait, ..self }
    }

    /// The same with another bound on the answer.
    #[must_use]
    pub fn max_bytes(self, max_bytes: usize) -> Self {
        Self { max_bytes, ..self }
    }
}

/// A partition and where to read in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchFrom {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
    /// Where to read.
    pub position: Position,
    /// At most about so many bytes from this partition; `None` has no limit of its own.
    pub max_bytes: Option<usize>,
}

impl FetchFrom {
    /// Without a limit of its own.
    #[must_use]
    pub fn new(topic: impl Into<String>, partition: u32, position: Position) -> Self {
        Self { topic: topic.into(), partition, position, max_bytes: None }
    }
}

/// Records of one partition, or why there are none.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PartitionData {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
    /// The offset of the first record that is kept.
    pub start_offset: Offset,
    /// The offset after the last record that readers can see.
    pub end_offset: Offset,
    /// What was asked for: records of the first batch before this offset are not wanted.
    pub from_offset: Offset,
    /// Where to read next.
    pub next_offset: Offset,
    /// Whole stored batches, in order. [`decode`] makes records of them.
    pub chunks: Vec<Chunk>,
    /// Why this partition could not be read; there are no chunks then.
    pub error: Option<Error>,
}

impl PartitionData {
    /// The bytes of batches.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.batches.len()).sum()
    }
}

impl Broker {
    /// Reads stored batches from one or many partitions, once.
    ///
    /// Waits up to `max_wait` for `min_bytes` and answers with what there is, which may be nothing. A
    /// partition that cannot be read says why and ends the waiting. Dropping the future leaves nothing
    /// behind.
    ///
    /// # Errors
    /// [`RequestInvalid`](crate::Reason::RequestInvalid), [`LimitExceeded`](crate::Reason::LimitExceeded).
    /// What is wrong with one partition stands in its data.
    ///
    /// ```
    /// use logmill_broker::{Broker, Config, CreateTopic, Fetch, FetchFrom, Position, RequestContext};
    /// use logmill_log::env::block_on;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let config = Config::new(dir.path());
    /// let scheduler = config.env.scheduler.clone();
    /// let broker = Broker::open(config)?;
    /// let context = RequestContext::embedded();
    /// block_on(&*scheduler, broker.create_topic(&context, CreateTopic::new("readings")))?;
    ///
    /// let fetch = Fetch::new(vec![FetchFrom::new("readings", 0, Position::Earliest)]);
    /// let data = block_on(&*scheduler, broker.fetch(&context, fetch))?;
    /// assert!(data[0].chunks.is_empty());
    /// assert!(data[0].error.is_none());
    /// broker.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fetch(
        &self,
        context: &RequestContext,
        request: Fetch,
    ) -> impl Future<Output = Result<Vec<PartitionData>, Error>> + Send + 'static + use<> {
        let fetched = self.fetch_held(context, request);
        async move { Ok(fetched.await?.data) }
    }

    /// As [`fetch`](Broker::fetch), with the room that the records take among replies.
    pub(crate) fn fetch_held(
        &self,
        context: &RequestContext,
        request: Fetch,
    ) -> impl Future<Output = Result<Fetched, Error>> + Send + 'static + use<> {
        let core = Arc::clone(self.core());
        let round = start(&core, context, request);
        async move { round?.run(&core).await }
    }
}

/// What a fetch brings.
pub(crate) struct Fetched {
    pub(crate) data: Vec<PartitionData>,
    /// To be kept until they are sent.
    #[cfg_attr(not(feature = "grpc"), expect(dead_code, reason = "in one process nothing is sent"))]
    pub(crate) held: Option<Permit>,
}

/// Checks a fetch and finds its partitions.
fn start(core: &Arc<Core>, context: &RequestContext, request: Fetch) -> Result<Round, Error> {
    core.check_open()?;
    let topics = request.partitions.iter().map(|from| from.topic.as_str()).collect();
    authorize(context, &Operation::Fetch { topics })?;
    if request.max_wait > MAX_WAIT {
        let rule = format!("a fetch waits at most {} ms", MAX_WAIT.as_millis());
        return Err(Error::field("max_wait_ms", request.max_wait.as_millis(), &rule));
    }
    let Fetch { partitions, max_bytes, min_bytes, max_wait } = request;
    let cursors = cursors(core, partitions)?;
    let min_bytes = min_bytes.min(max_bytes);
    let turn = core.rotation.fetch_add(1, Ordering::Relaxed);
    let room = core.replies.clone();
    Ok(Round { cursors, turn, max_bytes, min_bytes, max_wait, bytes: 0, full: false, room, held: None })
}

/// The places of a request's partitions, each named once.
fn cursors(core: &Core, partitions: Vec<FetchFrom>) -> Result<Vec<Cursor>, Error> {
    if partitions.is_empty() {
        return Err(Error::missing("partitions", "name at least one partition to read"));
    }
    let count = partitions.len();
    let doing = || format!("reading {count} partitions at once");
    core.bounds.check(Limit::MaxFetchPartitions, count, doing, "read them in several requests")?;
    let mut named: Vec<(&str, u32)> =
        partitions.iter().map(|from| (from.topic.as_str(), from.partition)).collect();
    named.sort_unstable();
    if let Some([(topic, partition), _]) = named.array_windows().find(|[one, next]| one == next) {
        let topic = shorten(topic);
        let message =
            format!("partition {partition} of topic {topic:?} is asked for twice: name each partition once");
        return Err(Error::new(Reason::RequestInvalid, message)
            .with("field", "partitions")
            .with("topic", topic)
            .with("partition", partition));
    }
    let cursor = |from: FetchFrom| {
        let topic = core.catalog.topic(&from.topic);
        Cursor::new(from, topic)
    };
    Ok(partitions.into_iter().map(cursor).collect())
}

/// A fetch that is under way.
struct Round {
    cursors: Vec<Cursor>,
    /// Which partition is read first; another one each time, so that none starves.
    turn: usize,
    max_bytes: usize,
    min_bytes: usize,
    max_wait: Duration,
    bytes: usize,
    /// A batch was left because it does not fit any more, or there was no room for it among replies.
    full: bool,
    /// Room among replies, and what this one has of it.
    room: Budget,
    held: Option<Permit>,
}

impl Round {
    async fn run(mut self, core: &Arc<Core>) -> Result<Fetched, Error> {
        let timeout = core.timer.sleep(self.max_wait);
        let mut timeout = std::pin::pin!(timeout);
        let mut waiting = None;
        loop {
            self = read(core, self, Self::read).await.map_err(|_| Error::fault("a read"))?;
            if self.is_enough() {
                break;
            }
            if waiting.is_none() {
                let advice = "send again when others have ended, or without max_wait_ms";
                waiting = Some(core.waiting_fetches.take_for(1, || "a fetch that waits".into(), advice)?);
            }
            match wait(&self.cursors, timeout.as_mut(), core.closing.fired()).await {
                Woken::More => {}
                Woken::Ended(index, error) => {
                    self.cursors[index].end(&error);
                    break;
                }
                Woken::Until | Woken::Closing => break,
            }
        }
        if self.full && self.bytes == 0 {
            let advice = "send again when others have read what they asked for";
            return Err(self.room.refusal("a fetch", advice));
        }
        Ok(Fetched { data: self.cursors.iter_mut().map(Cursor::take).collect(), held: self.held })
    }

    /// Reads what there is, up to the limit and as far as there is room among replies. Blocks.
    fn read(&mut self) {
        let count = self.cursors.len();
        // A read ends with its segment: as long as something comes, there may be more.
        let mut came = true;
        while came && !self.full {
            came = false;
            for step in 0..count {
                let cursor = &mut self.cursors[self.turn.wrapping_add(step) % count];
                if !cursor.has_more() {
                    continue;
                }
                let left = self.max_bytes.saturating_sub(self.bytes);
                let first = self.bytes == 0;
                let room = if left > 0 || first { self.room.take_up_to(left.max(1)) } else { None };
                match room.and_then(|room| Some((cursor.read(room.amount().min(left), first)?, room))) {
                    Some((bytes, room)) => {
                        self.bytes += bytes;
                        came |= bytes > 0;
                        let held = self.held.get_or_insert(room);
                        held.keep(self.bytes);
                    }
                    None => {
                        self.full = true;
                        break;
                    }
                }
            }
        }
        // The others still say where they stand.
        self.cursors.iter_mut().for_each(Cursor::locate);
    }

    fn is_enough(&self) -> bool {
        self.max_wait.is_zero()
            || self.full
            || self.bytes >= self.min_bytes
            || self.cursors.iter().any(|cursor| cursor.error().is_some())
            || !self.cursors.iter().any(Cursor::can_have_more)
    }
}

/// Runs a blocking step of a reader on a thread for reading.
fn read<T: Send + 'static>(
    core: &Core,
    mut reader: T,
    step: impl FnOnce(&mut T) + Send + 'static,
) -> Receiver<T> {
    let (sender, receiver) = reply();
    let task = move || {
        step(&mut reader);
        sender.send(reader);
    };
    core.config.env.scheduler.spawn(Work::Read, Box::new(task));
    receiver
}
