//! Reading on and on, against credit.

use std::future::Future;
use std::sync::Arc;

use super::cursor::Cursor;
use super::places::Places;
use super::reader::{Credit, Reader};
use super::{FetchFrom, Isolation, PartitionData, ReplyRoom, cursors, round};
use crate::access::{Operation, authorize};
use crate::broker::{Broker, Core};
use crate::budget::{Budget, Permit};
use crate::context::RequestContext;
use crate::error::Error;

/// What to read, on and on.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// The partitions and where to start; at least one, each once. `max_bytes` bounds one reply.
    pub partitions: Vec<FetchFrom>,
    /// Bytes of batches that may be sent at once.
    pub credit_bytes: u64,
    /// Which records of transactions to read.
    pub isolation: Isolation,
}

impl Subscribe {
    /// Committed records of these partitions, and so many bytes of batches at once.
    #[must_use]
    pub fn new(partitions: Vec<FetchFrom>, credit_bytes: u64) -> Self {
        Self { partitions, credit_bytes, isolation: Isolation::default() }
    }

    /// The same with another say on transactions.
    #[must_use]
    pub fn isolation(self, isolation: Isolation) -> Self {
        Self { isolation, ..self }
    }
}

/// Records of some partitions as they come. See [`Broker::subscribe`].
#[derive(Debug)]
pub struct Subscription {
    reader: Reader,
    started: Vec<PartitionData>,
    /// Its place among subscriptions.
    _place: Permit,
}

impl Broker {
    /// Reads from partitions on and on, against credit.
    ///
    /// # Errors
    /// [`RequestInvalid`](crate::Reason::RequestInvalid), [`LimitExceeded`](crate::Reason::LimitExceeded).
    /// What is wrong with one partition stands in [`Subscription::started`].
    ///
    /// ```
    /// use logmill_broker::{
    ///     Broker, Config, CreateTopic, FetchFrom, Payload, Position, Produce, ProduceRecord, RequestContext,
    ///     Subscribe, Acks,
    /// };
    /// use logmill_log::env::block_on;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let config = Config::new(dir.path());
    /// let scheduler = config.env.scheduler.clone();
    /// let broker = Broker::open(config)?;
    /// let context = RequestContext::embedded();
    /// block_on(&*scheduler, broker.create_topic(&context, CreateTopic::new("readings")))?;
    ///
    /// let from = FetchFrom::new("readings", 0, Position::Earliest);
    /// let subscribe = Subscribe::new(vec![from], 1024 * 1024);
    /// let mut subscription = block_on(&*scheduler, broker.subscribe(&context, subscribe))?;
    ///
    /// let record = ProduceRecord { value: Some("21.5".into()), ..ProduceRecord::default() };
    /// let payload = Payload::Records(vec![record]);
    /// let produce =
    ///     Produce { topic: "readings".into(), partition: None, payload, acks: Acks::Durable, sent_at: None };
    /// block_on(&*scheduler, broker.produce(&context, produce))?;
    ///
    /// let data = block_on(&*scheduler, subscription.next())?;
    /// assert_eq!(data.next_offset.get(), 1);
    /// subscription.credit().grant(data.size_bytes() as u64);
    /// broker.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn subscribe(
        &self,
        context: &RequestContext,
        request: Subscribe,
    ) -> impl Future<Output = Result<Subscription, Error>> + Send + 'static + use<> {
        self.subscribe_within(context, request, Budget::unbounded())
    }

    /// As [`subscribe`](Broker::subscribe); `own` bounds what is read and not sent of one connection.
    pub(crate) fn subscribe_within(
        &self,
        context: &RequestContext,
        request: Subscribe,
        own: Budget,
    ) -> impl Future<Output = Result<Subscription, Error>> + Send + 'static + use<> {
        let core = Arc::clone(self.core());
        let opened = start(&core, context, request);
        async move {
            let (cursors, credit, place) = opened?;
            let mut cursors = round::settle(&core, cursors).await?;
            let started = cursors.iter_mut().map(Cursor::take).collect();
            let places = Places::new(cursors, ReplyRoom::new(core.replies.clone(), own));
            Ok(Subscription { reader: Reader::new(core, places, credit), started, _place: place })
        }
    }
}

fn start(
    core: &Core,
    context: &RequestContext,
    request: Subscribe,
) -> Result<(Vec<Cursor>, Credit, Permit), Error> {
    core.check_open()?;
    let topics = request.partitions.iter().map(|from| from.topic.as_str()).collect();
    authorize(context, &Operation::Subscribe { topics })?;
    if request.credit_bytes == 0 {
        return Err(Error::field("credit_bytes", 0, "without credit nothing is ever sent: grant at least 1"));
    }
    let advice = "end another one, or read several partitions with one";
    let place = core.subscriptions.take_for(1, || "one subscription more".to_owned(), advice)?;
    let cursors = cursors(core, request.partitions, request.isolation)?;
    let credit = Credit::default();
    credit.grant(request.credit_bytes);
    Ok((cursors, credit, place))
}

impl Subscription {
    /// Where each partition starts and ends, in the order asked; a partition that cannot be read says why,
    /// and nothing comes from it.
    #[must_use]
    pub fn started(&self) -> &[PartitionData] {
        &self.started
    }

    /// The credit, for granting more while [`next`](Subscription::next) waits.
    #[must_use]
    pub fn credit(&self) -> Credit {
        self.reader.credit().clone()
    }

    /// Waits for the next records of any partition, in turn, at most 1 MiB of them or one batch. Dropping
    /// the future loses nothing.
    ///
    /// A partition that can be read no longer says so once, in its data; the others go on. So they do beside one
    /// whose disk does not answer.
    ///
    /// # Errors
    /// [`NodeClosing`](crate::Reason::NodeClosing), and when no partition is left to read the failure of
    /// one of them.
    pub async fn next(&mut self) -> Result<PartitionData, Error> {
        match self.reader.next().await? {
            Some((_, data)) => Ok(data),
            None => Err(self.reader.failure().unwrap_or_else(|| Error::fault("a subscription"))),
        }
    }

    /// Nothing more comes from the partition that the last data came from, because of `error`.
    #[cfg(feature = "grpc")]
    pub(crate) fn end_last(&mut self, error: Error) {
        self.reader.end_last(error);
    }
}
