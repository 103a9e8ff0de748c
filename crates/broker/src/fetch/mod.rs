//! Records out of partitions: once, or on and on.
//!
//! Reads run on the scheduler's threads for reading; waiting costs no thread. A call that is dropped takes
//! its waiters with it. A read that takes long holds up its own partition, and not the others of its request.

mod cursor;
mod decode;
mod isolation;
mod job;
mod look;
mod offsets;
mod place;
mod places;
mod reader;
mod room;
mod round;
mod subscribe;
mod table;
#[cfg(test)]
mod tests;
mod wait;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cursor::Cursor;
pub use decode::{DecodedRecord, DecodedRecords, decode};
pub(crate) use isolation::Aborted;
pub use isolation::Isolation;
use logmill_log::{AbortedTxn, Chunk};
use logmill_record::{BatchHeader, Offset};
pub(crate) use place::locate;
pub use reader::Credit;
pub(crate) use reader::Reader;
pub(crate) use room::{ReplyPermit, ReplyRoom};
pub use subscribe::{Subscribe, Subscription};
use uuid::Uuid;

use crate::broker::{Broker, Core};
use crate::budget::Budget;
use crate::catalog::TopicState;
use crate::context::RequestContext;
use crate::error::{Error, Reason, shorten};
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
    /// Wait for so many bytes of what may be read; batches of aborted transactions count too.
    pub min_bytes: usize,
    /// Wait at most so long for records; zero does not wait.
    pub max_wait: Duration,
    /// Which records of transactions to read.
    pub isolation: Isolation,
}

impl Fetch {
    /// Up to 1 MiB of the committed records that are there now.
    #[must_use]
    pub fn new(partitions: Vec<FetchFrom>) -> Self {
        let (max_bytes, max_wait) = (DEFAULT_FETCH_BYTES, Duration::ZERO);
        Self { partitions, max_bytes, min_bytes: 1, max_wait, isolation: Isolation::default() }
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

    /// The same with another say on transactions.
    #[must_use]
    pub fn isolation(self, isolation: Isolation) -> Self {
        Self { isolation, ..self }
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
    /// The [`last_epoch`](PartitionData::last_epoch) of what the reader has, if it comes back to go on at an
    /// offset: should the partition have lost what was read, the answer is
    /// [`LogTruncated`](Reason::LogTruncated). Of no meaning with another position.
    pub last_epoch: Option<i32>,
    /// The [`topic_id`](PartitionData::topic_id) of what the reader has, if it comes back: should that topic have
    /// been deleted and another created under its name, the answer is [`TopicNotFound`](Reason::TopicNotFound).
    pub topic_id: Option<Uuid>,
}

impl FetchFrom {
    /// Without a limit of its own, and for a reader that has read nothing before.
    #[must_use]
    pub fn new(topic: impl Into<String>, partition: u32, position: Position) -> Self {
        let topic = topic.into();
        Self { topic, partition, position, max_bytes: None, last_epoch: None, topic_id: None }
    }
}

/// Records of one partition, or why there are none.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PartitionData {
    /// The topic's name.
    pub topic: String,
    /// The topic's UUID, to be [told](FetchFrom::topic_id) when reading goes on; `None` if there is none of that
    /// name, or not the one that was asked for.
    pub topic_id: Option<Uuid>,
    /// The partition's number.
    pub partition: u32,
    /// The offset of the first record that is kept.
    pub start_offset: Offset,
    /// The offset after the last record that readers can see, if they read also what is not committed.
    pub end_offset: Offset,
    /// Up to here every transaction has ended: readers of committed records see so far. Where none is open it is
    /// the end.
    pub last_stable_offset: Offset,
    /// What was asked for: records of the first batch before this offset are not wanted.
    pub from_offset: Offset,
    /// The leader epoch of the last batch before that, if it is known.
    #[cfg_attr(not(feature = "grpc"), expect(dead_code, reason = "it is for replies that are cut"))]
    pub(crate) from_epoch: Option<i32>,
    /// Where to read next. It moves also where `chunks` have no record for the reader, but those of aborted
    /// transactions and the markers that end them.
    pub next_offset: Offset,
    /// The leader epoch of the last batch before `next_offset`, to be [told](FetchFrom::last_epoch) when
    /// reading goes on there; `None` if there is none before it, or it cannot be read.
    pub last_epoch: Option<i32>,
    /// Whole stored batches, in order. [`records`](Self::records) makes records of them, as does [`decode`].
    pub chunks: Vec<Chunk>,
    /// For a reader of committed records: the aborted transactions with records in `chunks`, which are to be
    /// [left out](DecodedRecords::leaving_out). Else empty.
    pub aborted: Vec<AbortedTxn>,
    /// Why this partition could not be read; there are no chunks then.
    pub error: Option<Error>,
}

impl PartitionData {
    /// The bytes of batches.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.batches.len()).sum()
    }

    /// Whether a batch among the chunks belongs to a transaction that was aborted, so that a reader of committed
    /// records is to leave it out. For one that asked for uncommitted ones none does.
    #[must_use]
    pub fn is_aborted(&self, batch: &BatchHeader) -> bool {
        let has = |txn: &AbortedTxn| {
            txn.producer_id == batch.producer_id
                && (txn.first_offset..=txn.last_offset).contains(&batch.base_offset)
        };
        batch.attributes.is_transactional() && self.aborted.iter().any(has)
    }

    /// The records for the reader: from the offset asked for, without those of aborted transactions. See
    /// [`decode`].
    pub fn records(&self) -> impl Iterator<Item = Result<DecodedRecord, Error>> + use<'_> {
        let aborted = Aborted::new(&self.aborted);
        self.chunks
            .iter()
            .flat_map(move |chunk| decode(chunk.batches.clone(), self.from_offset).without(aborted.clone()))
    }
}

impl Broker {
    /// Reads stored batches from one or many partitions, once.
    ///
    /// Waits up to `max_wait` for `min_bytes` and answers with what there is, which may be nothing. A
    /// partition that cannot be read says why, and the others are waited for all the same: a reader that comes
    /// back at once would else be answered at once, over and over. Where none can be read there is nothing to
    /// wait for. A disk that does not answer is waited for a second longer; then its partition only says where it
    /// starts and ends. Dropping the future leaves nothing behind.
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
        let fetched = self.fetch_held(context, request, Budget::unbounded());
        async move { Ok(fetched.await?.data) }
    }

    /// As [`fetch`](Broker::fetch), with the room that the records take among replies, of which `own` bounds the
    /// connection's part.
    pub(crate) fn fetch_held(
        &self,
        context: &RequestContext,
        request: Fetch,
        own: Budget,
    ) -> impl Future<Output = Result<Fetched, Error>> + Send + 'static + use<> {
        let core = Arc::clone(self.core());
        let round = round::start(&core, context, request, own);
        async move { round?.run(&core).await }
    }
}

/// What a fetch brings.
pub(crate) struct Fetched {
    pub(crate) data: Vec<PartitionData>,
    /// To be kept until they are sent.
    #[cfg_attr(not(feature = "grpc"), expect(dead_code, reason = "in one process nothing is sent"))]
    pub(crate) held: Option<ReplyPermit>,
}

/// The places of a request's partitions, each named once.
fn cursors(core: &Core, partitions: Vec<FetchFrom>, isolation: Isolation) -> Result<Vec<Cursor>, Error> {
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
        let topic = topic_of(core, &from);
        Cursor::new(from, topic, isolation)
    };
    Ok(partitions.into_iter().map(cursor).collect())
}

/// The topic of that name, if it is the one that the reader means.
fn topic_of(core: &Core, from: &FetchFrom) -> Result<Arc<TopicState>, Error> {
    let topic = core.catalog.topic(&from.topic)?;
    match from.topic_id {
        Some(wanted) if wanted != topic.id => Err(Error::topic_replaced(&from.topic, wanted, topic.id)),
        _ => Ok(topic),
    }
}
