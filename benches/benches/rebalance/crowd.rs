//! The members of the group: they come, stay for a while, and go in one way or another.

use std::sync::Arc;
use std::time::Duration;

use logmill_bench::Values;
use logmill_client::{Client, Consumer, ConsumerEvent};
use logmill_log::env::{Clock as _, SystemClock};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::ledger::{Ledger, MemberNumber, Why};

/// As short as a node allows.
const SHORT_SESSION: Duration = Duration::from_secs(1);
/// A machine so busy that this runs out is of no use.
const LONG_SESSION: Duration = Duration::from_secs(120);

/// What becomes of a member in the end.
#[derive(Clone, Debug)]
enum Kind {
    /// It leaves.
    Leaves,
    /// Its stream breaks, and its session is short.
    IsDropped,
    /// Its stream breaks, and another one comes with this instance id.
    IsSucceeded(String),
}

#[derive(Debug)]
struct Member {
    kind: Kind,
    end: oneshot::Sender<Why>,
    task: JoinHandle<()>,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) joined: usize,
    pub(crate) left: usize,
    pub(crate) dropped: usize,
    pub(crate) succeeded: usize,
}

/// What members report to.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) clock: SystemClock,
    pub(crate) ledger: Mutex<Ledger>,
}

#[derive(Debug)]
pub(crate) struct Crowd {
    url: String,
    book: Arc<Book>,
    random: Values,
    members: Vec<Member>,
    usual: usize,
    next: MemberNumber,
    counts: Counts,
}

impl Crowd {
    /// So many members; some are dropped in the end, and one in ten has an instance id.
    pub(crate) async fn gather(url: &str, book: Arc<Book>, usual: usize) -> Self {
        let (url, random) = (url.to_owned(), Values::default());
        let mut crowd =
            Self { url, book, random, members: Vec::new(), usual, next: 0, counts: Counts::default() };
        for number in 0..usual {
            match number % 10 {
                0 => crowd.join(Kind::IsSucceeded(format!("instance-{number}"))).await,
                _ => crowd.somebody_joins().await,
            }
        }
        crowd
    }

    /// Something changes by chance; the number of members stays within a tenth of the usual.
    pub(crate) async fn change(&mut self) {
        let slack = self.usual.div_ceil(10);
        let is_few = self.members.len() + slack <= self.usual;
        let is_many = self.members.len() >= self.usual + slack;
        match self.random.below(10) {
            0 | 1 => self.somebody_is_succeeded().await,
            2..6 if !is_many => self.somebody_joins().await,
            _ if is_few => self.somebody_joins().await,
            _ => self.somebody_goes().await,
        }
    }

    /// What happened since this was asked last.
    pub(crate) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// All leave.
    pub(crate) async fn disperse(mut self) {
        for member in std::mem::take(&mut self.members) {
            member.ends(Why::Left).await;
        }
    }

    async fn somebody_joins(&mut self) {
        self.counts.joined += 1;
        let kind = if self.random.below(3) == 0 { Kind::IsDropped } else { Kind::Leaves };
        self.join(kind).await;
    }

    async fn somebody_goes(&mut self) {
        let Some(member) = self.take(|kind| !matches!(kind, Kind::IsSucceeded(_))) else { return };
        if let Kind::IsDropped = member.kind {
            self.counts.dropped += 1;
            member.ends(Why::Dropped).await;
        } else {
            self.counts.left += 1;
            member.ends(Why::Left).await;
        }
    }

    async fn somebody_is_succeeded(&mut self) {
        let Some(member) = self.take(|kind| matches!(kind, Kind::IsSucceeded(_))) else { return };
        self.counts.succeeded += 1;
        let kind = member.kind.clone();
        member.ends(Why::Succeeded).await;
        self.join(kind).await;
    }

    fn take(&mut self, wanted: impl Fn(&Kind) -> bool) -> Option<Member> {
        let all = (0..self.members.len()).filter(|at| wanted(&self.members[*at].kind)).collect::<Vec<_>>();
        let at = usize::try_from(self.random.below(all.len().max(1) as u64)).expect("it is small");
        all.get(at).map(|at| self.members.swap_remove(*at))
    }

    async fn join(&mut self, kind: Kind) {
        let member = self.next;
        self.next += 1;
        let client = Client::connect(&self.url).await.expect("the node can be reached");
        let session = if let Kind::IsDropped = kind { SHORT_SESSION } else { LONG_SESSION };
        let mut consumer = client.consumer(super::GROUP).topics([super::TOPIC]).session_timeout(session);
        if let Kind::IsSucceeded(id) = &kind {
            consumer = consumer.instance_id(id);
        }
        let consumer = consumer.join().await.expect("it may join");
        self.book.ledger.lock().joined(member);
        let (end, ends) = oneshot::channel();
        let works = work(consumer, member, session == SHORT_SESSION, Arc::clone(&self.book), ends);
        self.members.push(Member { kind, end, task: tokio::spawn(works) });
    }
}

impl Member {
    async fn ends(self, why: Why) {
        self.end.send(why).expect("the member works");
        self.task.await.expect("nothing was wrong");
    }
}

/// Reads, and reports what it hears, until it is to end.
async fn work(
    mut consumer: Consumer,
    member: MemberNumber,
    is_short_lived: bool,
    book: Arc<Book>,
    mut ends: oneshot::Receiver<Why>,
) {
    let why = loop {
        let event = tokio::select! {
            event = consumer.next() => event,
            why = &mut ends => break why.expect("somebody says why"),
        };
        let event = event.expect("it stays a member").expect("it goes on");
        let (now, mut ledger) = (book.clock.monotonic(), book.ledger.lock());
        match event {
            ConsumerEvent::Assigned(assignment) => ledger.assigned(member, is_short_lived, &assignment),
            ConsumerEvent::Records(records) => ledger.records(now, member, &records),
            ConsumerEvent::Revoke(unit) => ledger.ended(now, member, &unit, Why::Revoked),
            ConsumerEvent::Lost { unit, .. } if is_short_lived => {
                ledger.ended(now, member, &unit, Why::Dropped);
            }
            other => panic!("member {member} hears of {other:?}"),
        }
    };
    book.ledger.lock().gone(book.clock.monotonic(), member, why);
    match why {
        Why::Left => consumer.close().await.expect("what it has read is committed"),
        _ => drop(consumer),
    }
}
