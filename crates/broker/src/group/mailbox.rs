//! What the machine has said to a member, and the member has not heard yet.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::task::{Poll, Waker};

use parking_lot::Mutex;

use super::machine::{AssignmentEpoch, CloseWhy, LostWhy, MemberStream, UnitId};

/// What is on its way to a member.
#[derive(Debug)]
pub(super) struct Mailbox {
    stream: MemberStream,
    /// It lives as long as its handle in this process.
    is_local: bool,
    state: Mutex<MailboxState>,
}

#[derive(Debug, Default)]
struct MailboxState {
    posts: VecDeque<Post>,
    waker: Option<Waker>,
}

/// What the machine has to say to a member.
#[derive(Clone, Debug)]
pub(super) enum Post {
    Assign(UnitId, AssignmentEpoch),
    Revoke(UnitId, AssignmentEpoch),
    WarmUp(UnitId),
    CancelWarmUp(UnitId),
    Lost(UnitId, AssignmentEpoch, LostWhy),
    Close(CloseWhy),
}

impl Post {
    pub(super) fn unit(&self) -> Option<&UnitId> {
        match self {
            Self::Assign(unit, _)
            | Self::Revoke(unit, _)
            | Self::WarmUp(unit)
            | Self::CancelWarmUp(unit)
            | Self::Lost(unit, _, _) => Some(unit),
            Self::Close(_) => None,
        }
    }

    /// Whether `self`, which was not heard yet, need not be heard, since it is over with `later`.
    fn is_over_with(&self, later: &Self) -> bool {
        match (self, later) {
            (Self::WarmUp(before), Self::CancelWarmUp(unit)) => before == unit,
            (Self::Assign(before, of) | Self::Revoke(before, of), Self::Lost(unit, epoch, _)) => {
                before == unit && of == epoch
            }
            _ => false,
        }
    }

    /// Whether it means something only to those who heard of what it ends.
    fn only_cancels(&self, before: &Self) -> bool {
        matches!(before, Self::WarmUp(_) | Self::Assign(..)) && before.is_over_with(self)
    }
}

impl MailboxState {
    /// As the last one. What is over before it was heard of is forgotten with what says so: a member that hears nothing
    /// is owed a few of them for each unit, however often that comes and goes.
    fn push(&mut self, post: Post) {
        let mut was_heard_of = true;
        if matches!(post, Post::CancelWarmUp(_) | Post::Lost(..)) {
            self.posts.retain(|before| {
                was_heard_of &= !post.only_cancels(before);
                !before.is_over_with(&post)
            });
        }
        if was_heard_of {
            self.posts.push_back(post);
        }
    }
}

impl Mailbox {
    /// An empty one.
    pub(super) fn new(stream: MemberStream, is_local: bool) -> Self {
        Self { stream, is_local, state: Mutex::default() }
    }

    /// Whose it is.
    pub(super) fn stream(&self) -> &MemberStream {
        &self.stream
    }

    pub(super) fn post(&self, post: Post) {
        let waker = {
            let mut state = self.state.lock();
            state.push(post);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Its stream, if it needs no heartbeat.
    pub(super) fn local(&self) -> Option<MemberStream> {
        self.is_local.then(|| self.stream.clone())
    }

    /// Waits for the next post. Dropping the future loses nothing.
    pub(super) fn next(&self) -> impl Future<Output = Post> + '_ {
        poll_fn(|context| {
            let mut state = self.state.lock();
            if let Some(post) = state.posts.pop_front() {
                return Poll::Ready(post);
            }
            state.waker = Some(context.waker().clone());
            Poll::Pending
        })
    }
}
