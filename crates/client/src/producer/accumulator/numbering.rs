//! How the batches of one partition are numbered, and when the next may go after one has failed.
//!
//! The node stores a batch only if its sequence follows on the last one stored in its epoch, knows one of the last
//! 64 again, and refuses those behind a failed one. So:
//!
//! * A batch that may be stored is sent again under the sequence that it has. The node either knows it, or takes
//!   it in its place.
//! * After a batch that is certainly not stored, those behind it are certainly not stored either. They are numbered
//!   anew, from its sequence on.
//! * After a batch was given up that may be stored, nobody knows which sequence follows. What was not sent, or is
//!   not stored, goes on in the next epoch, at sequence 0, and only when nothing of the present one is under way
//!   or may be stored: numbered anew, it could be stored twice.
//! * After any failure nothing goes out before all that is under way is answered, and the next request says that
//!   it knows.

use tokio::time::Instant;

use crate::backoff::Backoff;

#[derive(Debug, Default)]
pub(super) struct Numbering {
    /// Id and epoch; `None` as long as nothing was sent.
    producer: Option<(i64, i16)>,
    /// The sequence of the next batch that has none yet.
    next: i32,
    /// A batch failed, and nothing goes out while others are under way.
    recovering: bool,
    /// A batch that may be stored was given up: the next batch begins a new epoch.
    given_up: bool,
    /// The next request says that it knows of a failure.
    after_failure: bool,
    /// The node asked for patience.
    not_before: Option<Instant>,
    backoff: Backoff,
}

/// What is the same for all partitions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// `None`: batches are not numbered. Otherwise whether there is an id for those that have none.
    pub(super) numbered: Option<HasId>,
    /// The most batches of a partition under way.
    pub(super) most_in_flight: usize,
    /// The epoch is a transaction's: what was given up ends it, and no batch goes on in another.
    pub(super) one_epoch: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HasId {
    Yes,
    NotYet,
}

/// Under which number a batch goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) id: i64,
    pub(super) epoch: i16,
    pub(super) sequence: i32,
}

impl Numbering {
    /// For another transaction. Where one before it failed, the node hears that this is known.
    pub(super) fn of_transaction(after_failure: bool) -> Numbering {
        Numbering { after_failure, ..Numbering::default() }
    }

    /// Whether the first batch may go; `may_be_stored` if it was sent before and has a sequence.
    pub(super) fn may_send(&self, may_be_stored: bool, in_flight: usize, rules: Rules) -> bool {
        let waits_for_answers = self.recovering || (self.given_up && !may_be_stored);
        let lacks_id = rules.numbered == Some(HasId::NotYet) && self.wants_id(may_be_stored);
        self.not_before.is_none()
            && in_flight < rules.most_in_flight
            && !(waits_for_answers && in_flight > 0)
            && !lacks_id
            && !(rules.one_epoch && self.given_up)
    }

    fn wants_id(&self, may_be_stored: bool) -> bool {
        match self.producer {
            None => true,
            Some((_, epoch)) => self.given_up && epoch == i16::MAX && !may_be_stored,
        }
    }

    /// Whether its id has no epoch left to go on with, so that it is no use to anybody.
    pub(super) fn uses_up(&self, id: i64) -> bool {
        self.given_up && self.producer == Some((id, i16::MAX))
    }

    /// The number of a batch of so many records that goes out now, where batches are numbered.
    ///
    /// `new` is the id, and the epoch that it begins with, for a partition that has neither.
    pub(super) fn number(&mut self, may_be_stored: Option<i32>, records: u32, new: (i64, i16)) -> Number {
        let (id, epoch) = match self.producer {
            Some(producer) if may_be_stored.is_some() || !self.given_up => producer,
            Some((id, epoch)) if epoch < i16::MAX => self.begin(id, epoch + 1),
            _ => self.begin(new.0, new.1),
        };
        let sequence = may_be_stored.unwrap_or_else(|| {
            let sequence = self.next;
            self.next = sequence_after(sequence, records);
            sequence
        });
        Number { id, epoch, sequence }
    }

    fn begin(&mut self, id: i64, epoch: i16) -> (i64, i16) {
        self.after_failure |= std::mem::take(&mut self.given_up);
        self.next = 0;
        *self.producer.insert((id, epoch))
    }

    /// Whether the request that goes out now says that it knows of a failure. To be asked after its number.
    pub(super) fn take_after_failure(&mut self) -> bool {
        std::mem::take(&mut self.recovering) | std::mem::take(&mut self.after_failure)
    }

    /// A batch under way failed, or one did before it.
    pub(super) fn recover(&mut self) {
        self.recovering = true;
    }

    /// The batch with this sequence is not stored, nor is any behind it.
    pub(super) fn rewind(&mut self, sequence: i32) {
        if self.next.wrapping_sub(sequence) & i32::MAX < 1 << 30 {
            self.next = sequence;
        }
    }

    /// A batch that may be stored is not sent any more, or the node expects another sequence.
    pub(super) fn give_up(&mut self) {
        self.given_up = true;
    }

    pub(super) fn has_given_up(&self) -> bool {
        self.given_up
    }

    /// Nothing goes out for a while.
    pub(super) fn pause(&mut self, now: Instant) {
        self.not_before = Some(now + self.backoff.next());
    }

    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.not_before
    }

    pub(super) fn resume(&mut self) {
        self.not_before = None;
    }

    /// The node took a batch.
    pub(super) fn succeeded(&mut self) {
        self.backoff.reset();
    }
}

/// The sequence that comes so many records later: after 2³¹ − 1 comes 0.
fn sequence_after(sequence: i32, records: u32) -> i32 {
    sequence.wrapping_add_unsigned(records) & i32::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(numbering: &mut Numbering, records: &[u32]) -> Vec<(i16, i32)> {
        let number = |count: &u32| numbering.number(None, *count, (7, 0));
        records.iter().map(number).map(|number| (number.epoch, number.sequence)).collect()
    }

    #[test]
    fn numbers_follow_on_each_other_and_go_round() {
        let mut numbering = Numbering { next: i32::MAX - 3, ..Numbering::default() };
        numbering.producer = Some((7, 0));
        assert_eq!(sequences(&mut numbering, &[2, 4, 1]), [(0, i32::MAX - 3), (0, i32::MAX - 1), (0, 2)]);
        numbering.rewind(i32::MAX - 1);
        numbering.rewind(2);
        assert_eq!(sequences(&mut numbering, &[1]), [(0, i32::MAX - 1)]);
    }

    #[test]
    fn a_new_epoch_begins_at_zero_and_after_the_last_one_comes_a_new_id() {
        let mut numbering = Numbering::default();
        assert_eq!(sequences(&mut numbering, &[3]), [(0, 0)]);
        numbering.give_up();
        assert_eq!(numbering.number(Some(0), 3, (7, 0)), Number { id: 7, epoch: 0, sequence: 0 });
        assert_eq!(sequences(&mut numbering, &[3, 1]), [(1, 0), (1, 3)]);
        assert!(numbering.take_after_failure() && !numbering.take_after_failure());

        numbering.producer = Some((7, i16::MAX));
        numbering.give_up();
        assert!(numbering.uses_up(7) && !numbering.uses_up(8));
        let rules = |has_id| Rules { numbered: Some(has_id), most_in_flight: 1, one_epoch: false };
        assert!(!numbering.may_send(false, 0, rules(HasId::NotYet)));
        assert!(numbering.may_send(true, 0, rules(HasId::NotYet)), "what may be stored has its number");
        assert!(numbering.may_send(false, 0, rules(HasId::Yes)));
        assert_eq!(numbering.number(None, 1, (8, 0)), Number { id: 8, epoch: 0, sequence: 0 });
    }
}
