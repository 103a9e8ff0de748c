//! What becomes of a batch that the node did not take, or of which it does not say whether it did.

use tokio::time::Instant;

use super::{Accumulator, Drained, Identity, InFlight, Tracked};
use crate::{Error, ErrorKind};

/// What an error in an answer says of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::producer) enum Refused {
    /// It is not stored, and sending it again would not help.
    ForGood,
    /// It is not stored, for want of room.
    Full,
    /// It is not stored, and may be if it is sent again.
    NotNow,
    /// It is not stored, because one before it is not.
    ForOneBefore,
    /// It is not stored: the node waits for another sequence, or knows a newer epoch.
    ForItsNumber,
    /// It may be stored. Sent again, the node says.
    Unknown,
    /// It may be stored, and the node does not say.
    Lost,
}

impl Refused {
    pub(in crate::producer) fn by(error: &Error) -> Refused {
        match (error.reason(), error.kind()) {
            ("PRECEDING_FAILED", _) => Refused::ForOneBefore,
            ("OUT_OF_SEQUENCE" | "PRODUCER_FENCED", _) => Refused::ForItsNumber,
            ("OUTCOME_UNKNOWN" | "INTERNAL_FAULT", _) => Refused::Unknown,
            ("SEQUENCE_FORGOTTEN", _) | (_, ErrorKind::OutcomeUnknown) => Refused::Lost,
            (_, ErrorKind::Unavailable) => Refused::NotNow,
            (_, ErrorKind::Exhausted) => Refused::Full,
            _ => Refused::ForGood,
        }
    }
}

/// What the caller has to do with a batch that was refused.
#[derive(Debug)]
pub(in crate::producer) enum Fate {
    /// Nothing: it is sent again, or its time had run out before.
    SentAgain,
    /// It fails with the node's error.
    Fails(Tracked),
    /// It fails, and may be stored from when it was sent before.
    Unknown(Tracked),
}

impl Accumulator {
    /// The node has answered a batch under way with an error.
    pub(in crate::producer) fn refuse(
        &mut self,
        correlation_id: u64,
        refused: Refused,
        error: &Error,
        now: Instant,
    ) -> Fate {
        let Some(it) = self.in_flight.remove(&correlation_id) else { return Fate::SentAgain };
        self.bytes_in_flight -= it.size_bytes;
        let index = it.queue;
        self.queues[index].in_flight -= 1;
        // Those behind it are refused as well, and their stream may break before that is heard of. A batch that may
        // be stored says nothing of them: a sync that failed may have been theirs too.
        if !matches!(refused, Refused::Unknown | Refused::Lost) {
            let behind = self.in_flight.range_mut(correlation_id..).map(|(_, behind)| behind);
            behind.filter(|behind| behind.queue == index).for_each(|behind| behind.doomed = true);
        }
        self.queues[index].numbering.recover();
        let ending = self.decide(it, refused, error, now);
        self.after_giving_up(index);
        self.check_ready();
        ending
    }

    fn decide(&mut self, it: InFlight, refused: Refused, error: &Error, now: Instant) -> Fate {
        let is_numbered = self.identity != Identity::None;
        let is_transactional = self.is_transactional();
        let numbering = &mut self.queues[it.queue].numbering;
        match refused {
            // Its transaction is over, and nobody who reads what is committed sees what is stored of it.
            Refused::ForItsNumber | Refused::ForGood if is_transactional => {
                numbering.give_up();
                Fate::Fails(it.tracked)
            }
            // It has to follow on one that is not sent any more.
            Refused::ForOneBefore if it.may_be_stored && numbering.has_given_up() => {
                Fate::Unknown(it.tracked)
            }
            Refused::ForOneBefore => {
                // It knew of a failure, and the first that failed is none of those that are left: it was acknowledged
                // as written, and a failed sync has lost it. The node waits for that one in this epoch.
                if it.after_failure {
                    numbering.give_up();
                    numbering.pause(now);
                }
                self.put_back(it, false, error)
            }
            Refused::NotNow => {
                numbering.pause(now);
                self.put_back(it, false, error)
            }
            Refused::Unknown if is_numbered => {
                numbering.pause(now);
                self.put_back(it, true, error)
            }
            Refused::Full if it.may_be_stored => {
                numbering.pause(now);
                self.put_back(it, false, error)
            }
            Refused::ForItsNumber if is_numbered && !it.may_be_stored => {
                numbering.give_up();
                self.put_back(it, false, error)
            }
            Refused::ForItsNumber | Refused::ForGood if it.may_be_stored => {
                numbering.give_up();
                Fate::Unknown(it.tracked)
            }
            Refused::Unknown | Refused::Lost => {
                if is_numbered {
                    numbering.give_up();
                }
                Fate::Fails(it.tracked)
            }
            Refused::ForItsNumber | Refused::ForGood | Refused::Full => {
                if let Some(sequence) = it.sequence {
                    numbering.rewind(sequence);
                }
                Fate::Fails(it.tracked)
            }
        }
    }

    /// The stream of what is under way broke. What may be sent again goes back to its queue; the rest is given up.
    pub(in crate::producer) fn put_all_back(&mut self, error: &Error) -> Drained {
        let mut drained = Drained::default();
        for (_, it) in std::mem::take(&mut self.in_flight).into_iter().rev() {
            self.bytes_in_flight -= it.size_bytes;
            self.queues[it.queue].in_flight -= 1;
            match self.identity {
                Identity::None if !it.doomed => drained.unknown.push(it.tracked),
                _ => {
                    let sent = !it.doomed;
                    self.put_back(it, sent, error);
                }
            }
        }
        for index in 0..self.queues.len() {
            self.make_ready(index);
        }
        self.check_ready();
        drained.unknown.reverse();
        drained
    }

    /// Puts a batch back that was under way; `may_be_stored` if it may be from this time.
    fn put_back(&mut self, it: InFlight, may_be_stored: bool, error: &Error) -> Fate {
        let InFlight { queue: index, mut tracked, batch, sequence, may_be_stored: before, .. } = it;
        tracked.put_back = Some(error.clone());
        let queue = &mut self.queues[index];
        let keeps = sequence.filter(|_| may_be_stored || before);
        if let (Some(sequence), None) = (sequence, keeps) {
            queue.numbering.rewind(sequence);
        }
        queue.put_back(batch, tracked, keeps);
        self.waiting += 1;
        self.make_ready(index);
        Fate::SentAgain
    }
}
