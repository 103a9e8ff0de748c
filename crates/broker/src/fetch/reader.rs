//! One who reads from places on and on, against credit.

use std::future::{Future, pending, poll_fn, ready};
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

use super::cursor::Cursor;
use super::places::{Obstacle, Places};
use super::wait::unless;
use super::{DEFAULT_FETCH_BYTES, FetchFrom, Isolation, PartitionData, ReplyPermit, ReplyRoom, topic_of};
use crate::broker::Core;
use crate::error::Error;

/// See the module.
#[derive(Debug)]
pub(crate) struct Reader {
    core: Arc<Core>,
    places: Places,
    credit: Credit,
    /// The room among replies that the last records take, until the next are asked for.
    held: Option<ReplyPermit>,
}

/// How much a [`Subscription`](crate::Subscription), or a [`Consumer`](crate::Consumer), may still send. A clone is the
/// same credit.
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

impl Reader {
    pub(super) const fn new(core: Arc<Core>, places: Places, credit: Credit) -> Self {
        Self { core, places, credit, held: None }
    }

    /// One without places yet.
    pub(crate) fn empty(core: Arc<Core>, room: ReplyRoom, credit: Credit) -> Self {
        Self::new(core, Places::new(Vec::new(), room), credit)
    }

    pub(crate) const fn credit(&self) -> &Credit {
        &self.credit
    }

    /// Reads from one more place, which is no search by time; and its number, which nobody has until it goes. What is
    /// wrong with it stands in its data.
    pub(crate) fn add(&mut self, from: FetchFrom, isolation: Isolation) -> usize {
        let topic = topic_of(&self.core, &from);
        self.places.add(Cursor::new(from, topic, isolation))
    }

    /// Nothing more comes from a place, also not what has been read of it already.
    pub(crate) fn remove(&mut self, place: usize) {
        self.places.remove(place);
    }

    /// Waits for the next records of any place, in turn, at most 1 MiB of them or one batch; and from which they are.
    /// `None` if there is no place left to read at. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<(usize, PartitionData)>, Error> {
        self.held = None;
        self.places.go_on();
        loop {
            self.core.check_open()?;
            let left = self.credit.left().min(DEFAULT_FETCH_BYTES);
            // What has come meanwhile goes before the next read: one that always has more would hide the others.
            while !self.places.has_come() && self.places.wait(&self.core, left, ready(())).await.is_none() {}
            if let Some((place, data, held)) = self.places.take() {
                self.held = held;
                self.credit.spend(data.size_bytes());
                return Ok(Some((place, data)));
            }
            if self.places.none_left() {
                return Ok(None);
            }
            self.read_or_wait(left).await;
        }
    }

    /// Why the first place cannot be read.
    pub(super) fn failure(&self) -> Option<Error> {
        self.places.failure()
    }

    /// Nothing more comes from the place that the last data came from, because of `error`.
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
