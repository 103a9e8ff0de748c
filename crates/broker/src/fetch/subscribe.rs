//! Reading on and on, against credit.

use std::future::{Future, pending, poll_fn};
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

use super::cursor::Cursor;
use super::wait::{Woken, wait};
use super::{DEFAULT_FETCH_BYTES, FetchFrom, PartitionData, cursors, read};
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
    /// The room among replies that the last records take, until the next are asked for.
    held: Option<Permit>,
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

#[derive(Debug)]
struct Places {
    cursors: Vec<Cursor>,
    /// Whose turn it is, so that one busy partition does not shut out the others.
    turn: usize,
    /// The one that has something to take.
    ready: Option<usize>,
    /// The room among replies that it takes.
    held: Option<Permit>,
    /// There was none.
    no_room: bool,
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
        let core = Arc::clone(self.core());
        let places = start(&core, context, request);
        async move {
            let (places, credit, place) = places?;
            let locate = |places: &mut Places| places.cursors.iter_mut().for_each(Cursor::locate);
            let mut places = read(&core, places, locate).await.map_err(|_| Error::fault("a read"))?;
            let started = places.cursors.iter_mut().map(Cursor::take).collect();
            let reader = Reader::Idle(places);
            Ok(Subscription { core, reader, started, credit, held: None, _place: place })
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
    let place = core.subscriptions.take_for(1, || "one subscription more".into(), advice)?;
    let cursors = cursors(core, request.partitions)?;
    let places = Places { cursors, turn: 0, ready: None, held: None, no_room: false };
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
            if let Some(index) = places.ready.take() {
                places.turn = index + 1;
                self.held = places.held.take();
                let data = places.cursors[index].take();
                self.credit.spend(data.size_bytes());
                return Ok(data);
            }
            if let Some(error) = places.all_failed() {
                return Err(error);
            }
            let closing = self.core.closing.fired();
            let woken = match self.credit.left() {
                _ if std::mem::take(&mut places.no_room) => {
                    wait(&[], self.core.replies.room(), closing).await;
                    Woken::More
                }
                0 => wait(&[], self.credit.granted(), closing).await,
                _ if places.cursors.iter().any(Cursor::has_more) => Woken::More,
                _ => wait(&places.cursors, pending(), closing).await,
            };
            match woken {
                Woken::Ended(index, error) => {
                    places.cursors[index].end(&error);
                    places.ready = Some(index);
                }
                Woken::More => self.reader.start(&self.core, self.credit.left()),
                Woken::Until | Woken::Closing => {}
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

    fn start(&mut self, core: &Core, max_bytes: usize) {
        match std::mem::replace(self, Self::Lost) {
            Self::Idle(places) => {
                let room = core.replies.clone();
                *self = Self::Reading(read(core, places, move |places| places.read(max_bytes, &room)));
            }
            other => *self = other,
        }
    }
}

impl Places {
    /// Reads from the first in turn that has something, as far as there is room among replies. Blocks.
    fn read(&mut self, max_bytes: usize, room: &Budget) {
        let count = self.cursors.len();
        let Some(mut held) = room.take_up_to(max_bytes.min(DEFAULT_FETCH_BYTES)) else {
            self.no_room = true;
            return;
        };
        for step in 0..count {
            let index = self.turn.wrapping_add(step) % count;
            let cursor = &mut self.cursors[index];
            if !cursor.has_more() {
                continue;
            }
            let came = cursor.read(held.amount(), true).unwrap_or(0);
            if came > 0 || cursor.error().is_some() {
                held.keep(came);
                (self.ready, self.held) = (Some(index), Some(held));
                return;
            }
        }
    }

    fn all_failed(&self) -> Option<Error> {
        let all = self.cursors.iter().all(|cursor| cursor.error().is_some());
        self.cursors.first().and_then(Cursor::error).filter(|_| all).cloned()
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

    fn spend(&self, bytes: usize) {
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
