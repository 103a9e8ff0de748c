//! Reading on and on, against credit.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

use super::places::Places;
use super::wait::unless_closing;
use super::{DEFAULT_FETCH_BYTES, FetchFrom, PartitionData, ReplyPermit, ReplyRoom, cursors, read};
use crate::access::{Operation, authorize};
use crate::broker::{Broker, Core};
use crate::budget::{Budget, Permit};
use crate::context::RequestContext;
use crate::error::Error;
use crate::exec::Receiver;

/// What to read, on and on.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// The partitions and where to start; at least one, each once. `max_bytes` bounds one reply.
    pub partitions: Vec<FetchFrom>,
    /// Bytes of batches that may be sent at once.
    pub credit_bytes: u64,
}

/// Records of some partitions as they come. See [`Broker::subscribe`].
#[derive(Debug)]
pub struct Subscription {
    core: Arc<Core>,
    reader: Reader,
    started: Vec<PartitionData>,
    credit: Credit,
    room: ReplyRoom,
    /// What the last records take of it, until the next are asked for.
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

/// The places, or the read that has them.
#[derive(Debug)]
enum Reader {
    Idle(Places),
    /// Goes on when the call that started it was dropped; the next call takes what it brings.
    Reading(Receiver<Places>),
    /// A read panicked.
    Lost,
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
    /// let subscribe = Subscribe {
    ///     partitions: vec![FetchFrom::new("readings", 0, Position::Earliest)],
    ///     credit_bytes: 1024 * 1024,
    /// };
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
        let places = start(&core, context, request);
        async move {
            let (places, credit, place) = places?;
            let mut reader = Reader::Idle(places);
            let started = reader.settle(&core).await?.started();
            let room = ReplyRoom::new(core.replies.clone(), own);
            Ok(Subscription { core, reader, started, credit, room, held: None, _place: place })
        }
    }
}

fn start(
    core: &Core,
    context: &RequestContext,
    request: Subscribe,
) -> Result<(Places, Credit, Permit), Error> {
    core.check_open()?;
    let topics = request.partitions.iter().map(|from| from.topic.as_str()).collect();
    authorize(context, &Operation::Subscribe { topics })?;
    if request.credit_bytes == 0 {
        return Err(Error::field("credit_bytes", 0, "without credit nothing is ever sent: grant at least 1"));
    }
    let advice = "end another one, or read several partitions with one";
    let place = core.subscriptions.take_for(1, || "one subscription more".to_owned(), advice)?;
    let places = Places::new(cursors(core, request.partitions)?);
    let credit = Credit::default();
    credit.grant(request.credit_bytes);
    Ok((places, credit, place))
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
    /// A partition that can be read no longer says so once, in its data; the others go on.
    ///
    /// # Errors
    /// [`NodeClosing`](crate::Reason::NodeClosing), and when no partition is left to read the failure of
    /// one of them.
    pub async fn next(&mut self) -> Result<PartitionData, Error> {
        self.held = None;
        loop {
            self.core.check_open()?;
            let places = self.reader.idle().await?;
            if let Some((data, held)) = places.take() {
                self.held = held;
                self.credit.spend(data.size_bytes());
                return Ok(data);
            }
            if let Some(error) = places.all_failed() {
                return Err(error);
            }
            let closing = self.core.closing.fired();
            let left = self.credit.left().min(DEFAULT_FETCH_BYTES);
            if places.had_no_room() {
                unless_closing(self.room.wait(), closing).await;
            } else if left == 0 {
                unless_closing(self.credit.granted(), closing).await;
            } else if places.has_ready() {
                let room = self.room.clone();
                self.reader.start(&self.core, move |places| places.read(left, &room));
            } else if let Some(woken) = unless_closing(places.wait(), closing).await {
                places.woken(woken);
            }
        }
    }
}

impl Reader {
    /// The places, when the read that has them has ended.
    async fn idle(&mut self) -> Result<&mut Places, Error> {
        if let Self::Reading(receiver) = self {
            *self = receiver.await.map_or(Self::Lost, Self::Idle);
        }
        match self {
            Self::Idle(places) => Ok(places),
            Self::Reading(_) | Self::Lost => Err(Error::fault("a read")),
        }
    }

    /// The places, when it is known where each of them is.
    async fn settle(&mut self, core: &Core) -> Result<&mut Places, Error> {
        loop {
            self.start(core, Places::settle);
            let places = self.idle().await?;
            let Some((index, turn)) = places.not_located() else { break };
            let turn = turn.await;
            places.set_turn(index, turn);
        }
        self.idle().await
    }

    fn start(&mut self, core: &Core, step: impl FnOnce(&mut Places) + Send + 'static) {
        match std::mem::replace(self, Self::Lost) {
            Self::Idle(places) => *self = Self::Reading(read(core, places, step)),
            other => *self = other,
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
