//! What happens when nobody says anything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::names::{MemberId, UnitId};

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// The member's session ends.
    Session(MemberId),
    /// The owner had its time to confirm.
    Revoke(UnitId),
    /// The assignment is tried again.
    Retry(UnitId),
}

/// Each thing that is due at most once, by time.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_time: BTreeSet<(Duration, Due)>,
    times: BTreeMap<Due, Duration>,
}

impl Deadlines {
    /// It is due then, and not when it was before.
    pub(super) fn arm(&mut self, due: Due, at: Duration) {
        self.disarm(&due);
        self.times.insert(due.clone(), at);
        self.by_time.insert((at, due));
    }

    pub(super) fn disarm(&mut self, due: &Due) {
        if let Some((due, at)) = self.times.remove_entry(due) {
            self.by_time.remove(&(at, due));
        }
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// The first that is due by then, which is forgotten.
    pub(super) fn pop(&mut self, now: Duration) -> Option<Due> {
        if self.next()? > now {
            return None;
        }
        let (_, due) = self.by_time.pop_first()?;
        self.times.remove(&due);
        Some(due)
    }
}
