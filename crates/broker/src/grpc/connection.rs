//! Connections: how many there are, what each has under way, and the end of those that keep memory from others.
//!
//! A connection beyond the limit is taken all the same, as long as there are few of them, so that its calls can
//! be told why they are refused; as soon as there is room, they are not refused any more.
//!
//! Memory for replies and for requests is bounded over all connections, and a connection's part of it by itself. It
//! is given back when a reply has been sent, or a request has come whole and was taken, and both are in the hand of
//! the client. While it is all in use, and somebody was refused for it, connections that have kept some for too
//! long are cut.
//!
//! Lock order: each lock is a leaf.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::broker::Core;
use crate::budget::{Budget, Permit};
use crate::error::Error;
use crate::exec::Signal;
use crate::fetch::{ReplyPermit, ReplyRoom};
use crate::limits::{Bounds, Limit};

/// So many connections beyond the limit are taken to be told so.
const REFUSED_AT_ONCE: usize = 64;
/// How often it is looked whether memory runs out.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// All connections of a listener.
#[derive(Clone, Debug)]
pub(super) struct Connections(Arc<All>);

#[derive(Debug)]
struct All {
    core: Arc<Core>,
    places: Budget,
    /// Bytes of requests that were not taken yet.
    requests: Budget,
    refused: Arc<Semaphore>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    connections: BTreeMap<u64, Weak<Inner>>,
}

/// A connection, shared by its socket and the calls on it. A clone is the same connection.
#[derive(Clone, Debug)]
pub(super) struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: u64,
    pub(super) peer: Option<SocketAddr>,
    all: Arc<All>,
    place: Mutex<Place>,
    /// Calls under way.
    streams: Budget,
    /// Bytes of its requests that were not taken yet.
    requests: Budget,
    /// Bytes of its replies that were not sent yet.
    replies: Budget,
    held: Mutex<Parts>,
    cut: Signal,
}

/// A connection's place among the others.
#[derive(Debug)]
enum Place {
    Taken(#[expect(dead_code, reason = "given back when it is dropped")] Permit),
    Refused(#[expect(dead_code, reason = "given back when it is dropped")] OwnedSemaphorePermit),
}

/// Parts of the memory that all share which a connection keeps: of which limit, and since when on the monotonic clock.
#[derive(Debug, Default)]
struct Parts {
    next_id: u64,
    since: BTreeMap<u64, (Limit, Duration)>,
}

/// A part of the memory that all connections share, in the hand of one, and of its own part.
#[derive(Debug)]
pub(super) struct Held {
    all: Permit,
    own: Permit,
    connection: Connection,
    of: Limit,
    id: u64,
}

/// Bytes, and the memory that they take.
struct Kept {
    bytes: Bytes,
    _held: Arc<Held>,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Connections {
    pub(super) fn new(core: &Arc<Core>) -> Self {
        let (places, requests) =
            (core.bounds.budget(Limit::MaxConnections), core.bounds.budget(Limit::MaxRequestBytes));
        let refused = Arc::new(Semaphore::new(REFUSED_AT_ONCE));
        Self(Arc::new(All { core: Arc::clone(core), places, requests, refused, open: Mutex::default() }))
    }

    /// A connection more. `None` if there are too many to tell it even that.
    pub(super) fn open(&self, peer: Option<SocketAddr>) -> Option<Connection> {
        let all = &self.0;
        let place = match all.places.take(1) {
            Some(permit) => Place::Taken(permit),
            None => Place::Refused(Arc::clone(&all.refused).try_acquire_owned().ok()?),
        };
        let mut open = all.open.lock();
        open.next_id += 1;
        let id = open.next_id;
        let connection = Arc::new(Inner {
            id,
            peer,
            all: Arc::clone(all),
            place: Mutex::new(place),
            streams: all.core.bounds.budget(Limit::MaxStreamsPerConnection),
            requests: all.core.bounds.budget(Limit::MaxConnectionBytes),
            replies: all.core.bounds.budget(Limit::MaxConnectionReplyBytes),
            held: Mutex::default(),
            cut: Signal::default(),
        });
        open.connections.insert(id, Arc::downgrade(&connection));
        Some(Connection(connection))
    }

    /// Cuts, as long as it runs, the connections that keep from others what these are refused.
    pub(super) async fn cut_those_that_stall(self) {
        let All { core, requests, .. } = &*self.0;
        let mut shared = [
            Watched::new(&core.replies, Limit::MaxReplyBytes),
            Watched::new(requests, Limit::MaxRequestBytes),
        ];
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            for watched in &mut shared {
                if watched.lacks(core) {
                    self.cut_older_than(core.config.stall_timeout, watched.limit);
                }
            }
        }
    }

    /// Cuts those who have kept something of that limit for longer.
    fn cut_older_than(&self, most: Duration, limit: Limit) {
        let now = self.0.core.config.env.clock.monotonic();
        let open: Vec<_> = self.0.open.lock().connections.values().filter_map(Weak::upgrade).collect();
        for connection in open {
            let since = connection.held.lock().since.values().find(|(of, _)| *of == limit).map(|(_, at)| *at);
            if since.is_some_and(|since| now.saturating_sub(since) >= most) && !connection.cut.has_fired() {
                let peer = connection.peer.map(tracing::field::display);
                tracing::warn!(
                    peer,
                    "a connection is cut: it kept memory for replies or requests from others"
                );
                connection.cut.fire();
            }
        }
    }
}

/// A budget that may run out.
struct Watched<'a> {
    budget: &'a Budget,
    limit: Limit,
    /// How often somebody had been refused when there was still plenty.
    refused: u64,
}

impl<'a> Watched<'a> {
    fn new(budget: &'a Budget, limit: Limit) -> Self {
        Self { budget, limit, refused: 0 }
    }

    /// Whether somebody was refused, and there is not much more room now.
    fn lacks(&mut self, core: &Core) -> bool {
        let refused = core.bounds.refused(self.limit);
        if self.budget.is_tight() {
            return refused > self.refused;
        }
        self.refused = refused;
        false
    }
}

impl Connection {
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.0.peer
    }

    /// Fires when it is to end.
    pub(super) fn cut(&self) -> &Signal {
        &self.0.cut
    }

    /// Begins a call.
    pub(super) fn begin(&self) -> Result<Permit, Error> {
        let all = &self.0.all;
        let mut place = self.0.place.lock();
        if matches!(*place, Place::Refused(_)) {
            let advice =
                "close connections that nobody needs, use one for many calls, or set the limit higher";
            *place = Place::Taken(all.places.take_for(1, || "one connection more".to_owned(), advice)?);
        }
        drop(place);
        let doing = || "one call or stream more on a connection".to_owned();
        self.0.streams.take_for(1, doing, "use another connection")
    }

    pub(super) fn bounds(&self) -> &Bounds {
        &self.0.all.core.bounds
    }

    /// What it may have of what is read for replies.
    pub(super) fn replies(&self) -> &Budget {
        &self.0.replies
    }

    /// The same, and that of all connections.
    pub(super) fn reply_room(&self) -> ReplyRoom {
        ReplyRoom::new(self.0.all.core.replies.clone(), self.0.replies.clone())
    }

    /// Memory for a reply, which is there already.
    pub(super) fn hold_reply(&self, bytes: usize) -> Held {
        let (all, own) = (self.0.all.core.replies.overdraw(bytes), self.0.replies.overdraw(bytes));
        self.hold(all, own, Limit::MaxReplyBytes)
    }

    /// Memory for a reply, which was taken before it was there.
    pub(super) fn hold_answer(&self, permit: ReplyPermit) -> Held {
        let (all, own) = permit.into_parts();
        self.hold(all, own, Limit::MaxReplyBytes)
    }

    /// Memory for a request that has begun to arrive, of this connection's part and of that of all.
    pub(super) fn hold_request(&self, bytes: usize) -> Result<Held, Error> {
        let (doing, advice) = (|| format!("{bytes} bytes more of a request"), "send fewer requests at once");
        let own = self.0.requests.take_for(bytes, doing, advice)?;
        let all = self.0.all.requests.take_for(bytes, doing, advice)?;
        Ok(self.hold(all, own, Limit::MaxRequestBytes))
    }

    fn hold(&self, all: Permit, own: Permit, of: Limit) -> Held {
        Held { all, own, connection: self.clone(), of, id: self.note_held(of) }
    }

    /// From now on it keeps something more.
    fn note_held(&self, of: Limit) -> u64 {
        let now = self.0.all.core.config.env.clock.monotonic();
        let mut held = self.0.held.lock();
        held.next_id += 1;
        let id = held.next_id;
        held.since.insert(id, (of, now));
        id
    }
}

impl Held {
    /// The same bytes, which keep this for as long as they are anywhere: HTTP/2 has them until they are sent.
    pub(super) fn keep_with(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Kept { bytes, _held: Arc::clone(self) })
    }

    /// Takes more for a request.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        let refused = if !self.own.grow(bytes) {
            &self.connection.0.requests
        } else if !self.all.grow(bytes) {
            &self.connection.0.all.requests
        } else {
            return Ok(());
        };
        Err(refused.refusal(&format!("{bytes} bytes more of a request"), "send fewer requests at once"))
    }

    pub(super) fn amount(&self) -> usize {
        self.own.amount()
    }

    /// Keeps `bytes` of it, for something that has begun only now.
    pub(super) fn keep(&mut self, bytes: usize) {
        self.own.keep(bytes);
        self.all.keep(bytes);
        let id = self.connection.note_held(self.of);
        self.connection.0.held.lock().since.remove(&std::mem::replace(&mut self.id, id));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.connection.0.held.lock().since.remove(&self.id);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.all.open.lock().connections.remove(&self.id);
    }
}
