//! Reading on and on, against credit.

use std::future::{Future, pending, poll_fn, ready};
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

use super::cursor::Cursor;
use super::places::{Obstacle, Places};
use super::wait::unless;
use super::{
    DEFAULT_FETCH_BYTES, FetchFrom, Isolation, PartitionData, ReplyPermit, ReplyRoom, cursors, round,
};
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
    core: Arc<Core>,
    places: Places,
    started: Vec<PartitionData>,
    credit: Credit,
    /// The room among replies that the last records take, until the next are asked for.
    held: Option<ReplyPermit>,
    /// Its place among subscriptions.
    _place: Permit,
}

/// How much a [`Subscription`] may still send. A clone is the same credit.
///
/// While it is above zero a reply may be sent; its first batch goes whole, and what it exceeds the credit by
/// is owed before the next.
#[derive(Clone, Debug, Default)]
pub struct Credit(Arc<Mutex<CreditState>>);

#[derive(Debug, Default)]
struct CreditState {
    bytes: i64,
    waker: Option<Waker>,
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
            Ok(Subscription { core, places, started, credit, held: None, _place: place })
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
        self.credit.clone()
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
        self.held = None;
        self.places.go_on();
        loop {
            self.core.check_open()?;
            let left = self.credit.left().min(DEFAULT_FETCH_BYTES);
            // What has come meanwhile goes before the next read: one that always has more would hide the others.
            while !self.places.has_come() && self.places.wait(&self.core, left, ready(())).await.is_none() {}
            if let Some((data, held)) = self.places.take() {
                self.held = held;
                self.credit.spend(data.size_bytes());
                return Ok(data);
            }
            if let Some(error) = self.places.all_failed() {
                return Err(error);
            }
            self.read_or_wait(left).await;
        }
    }

    /// Nothing more comes from the partition that the last data came from, because of `error`.
    #[cfg(feature = "grpc")]
    pub(crate) fn end_last(&mut self, error: Error) {
        self.places.end_last(error);
    }

    /// Begins the next read, if it can be, and waits until something has come or more can be done.
    async fn read_or_wait(&mut self, left: usize) {
        let obstacle = self.places.read(&self.core, left);
        let (core, credit, closing) = (&self.core, &self.credit, self.core.closing.fired());
        let over = async {
            match obstacle {
                Obstacle::Nothing => pending().await,
                Obstacle::Reading(begun) => {
                    begun.slow(core).await;
                    return true;
                }
                Obstacle::Credit => credit.granted().await,
                Obstacle::Room(room) => room.wait().await,
            }
            false
        };
        if let Some(Some(true)) = unless(self.places.wait(core, left, over), closing).await {
            self.places.takes_long();
        }
    }
}

impl Credit {
    /// So many bytes more may be sent.
    pub fn grant(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let waker = {
            let mut state = self.0.lock();
            state.bytes = state.bytes.saturating_add(bytes);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether nothing may be sent before more is granted.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.left() == 0
    }

    /// So many bytes fewer; what there is not is owed.
    pub(crate) fn spend(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut state = self.0.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    /// What may be sent now; 0 if something is owed.
    fn left(&self) -> usize {
        usize::try_from(self.0.lock().bytes).unwrap_or(0)
    }

    /// Ready when something may be sent.
    fn granted(&self) -> impl Future<Output = ()> {
        poll_fn(|context| {
            let mut state = self.0.lock();
            if state.bytes > 0 {
                return Poll::Ready(());
            }
            state.waker = Some(context.waker().clone());
            Poll::Pending
        })
    }
}
