//! Whether a group of batches may be appended.

use std::collections::BTreeMap;

use logmill_record::{Offset, TimestampMs};

use super::note::{Kind, Note, sequence_after};
use super::{Producer, Producers, Remembered};
use crate::error::{Error, ErrorKind};
use crate::format::state::REMEMBERED_BATCHES;

/// What is to be done with a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is to be written.
    Fresh,
    /// The log has all of it already, from this offset up to the second.
    Duplicate(Offset, Offset, TimestampMs),
}

/// How a producer stands after some of the group's batches.
struct Standing {
    epoch: Option<i16>,
    next: Next,
    in_transaction: bool,
}

/// Which sequence may come next.
#[derive(Clone, Copy)]
enum Next {
    Any,
    /// Nothing of the epoch has come yet: only 0.
    First,
    /// What follows on the last one.
    Only(i32),
}

impl Next {
    /// Whether a batch with these sequences may come, and if not, why.
    fn check(self, note: &Note, first: i32, last: i32) -> Result<(), Error> {
        match self {
            Self::Any => Ok(()),
            Self::First if first == 0 => Ok(()),
            Self::First => Err(out_of_sequence(note, first, 0)),
            Self::Only(expected) if first == expected => Ok(()),
            Self::Only(expected) if is_before(first, expected) && is_before(last, expected) => {
                Err(forgotten(note, first, expected))
            }
            Self::Only(expected) => Err(out_of_sequence(note, first, expected)),
        }
    }
}

/// Whether a sequence lies behind another: less than half of all sequences away, on the way round.
fn is_before(sequence: i32, other: i32) -> bool {
    let distance = other.wrapping_sub(sequence) & i32::MAX;
    (1..1 << 30).contains(&distance)
}

impl Standing {
    fn of(producer: Option<&Producer>) -> Self {
        let Some(producer) = producer else {
            return Self { epoch: None, next: Next::Any, in_transaction: false };
        };
        let next = match producer.last_sequence() {
            Some(last) => Next::Only(sequence_after(last, 1)),
            None if producer.starts_anew => Next::First,
            None => Next::Any,
        };
        Self { epoch: Some(producer.epoch), next, in_transaction: producer.transaction.is_some() }
    }

    /// Checks that the batch may come now, and goes on to how the producer stands after it.
    fn advance(&mut self, note: &Note) -> Result<(), Error> {
        if note.epoch < 0 {
            return Err(invalid(format!("producer {} has no epoch", note.producer_id)));
        }
        if let Some(epoch) = self.epoch.filter(|epoch| note.epoch < *epoch) {
            return Err(fenced(note, epoch));
        }
        if self.epoch.is_some_and(|epoch| note.epoch > epoch) {
            self.next = Next::First;
        }
        self.epoch = Some(note.epoch);
        let Kind::Data { first_sequence, last_sequence, opens } = note.kind else {
            self.in_transaction = false;
            return Ok(());
        };
        if first_sequence < 0 {
            return Err(invalid(format!("a batch of producer {} has no sequence", note.producer_id)));
        }
        self.next.check(note, first_sequence, last_sequence)?;
        if self.in_transaction && !opens {
            let message = format!(
                "producer {} is in a transaction, and this batch is not part of it; end the transaction first",
                note.producer_id
            );
            return Err(invalid(message));
        }
        self.in_transaction |= opens;
        self.next = Next::Only(sequence_after(last_sequence, 1));
        Ok(())
    }
}

impl Producers {
    /// Checks the batches of one append, each counting for those after it. `None` is a batch
    /// without a producer.
    pub(crate) fn check(&self, notes: &[Option<Note>]) -> Result<Verdict, Error> {
        if let Some(known) = self.known(notes)? {
            return Ok(known);
        }
        let mut standings = BTreeMap::new();
        let mut new = 0;
        for note in notes.iter().flatten() {
            let standing = standings.entry(note.producer_id).or_insert_with(|| {
                let producer = self.by_id.get(&note.producer_id);
                new += usize::from(producer.is_none());
                Standing::of(producer)
            });
            standing.advance(note)?;
        }
        if self.by_id.len() + new > self.most && self.open.len() + notes.len() > self.most {
            let message = format!(
                "{} producers have a transaction open in this log, which is the most there can be; end some of \
                 them and try again",
                self.open.len()
            );
            return Err(Error::new(ErrorKind::Limit, message));
        }
        Ok(Verdict::Fresh)
    }

    /// Whether the log has the whole group already. One of which it has a part is refused: its
    /// receipt could not say where it is.
    fn known(&self, notes: &[Option<Note>]) -> Result<Option<Verdict>, Error> {
        let mut whole: Option<(Offset, Offset, TimestampMs)> = None;
        let mut count = 0;
        for batch in notes.iter().flatten().filter_map(|note| self.remembered(note)) {
            count += 1;
            let next = batch.last_offset.next();
            whole = match whole {
                None if count == 1 => Some((batch.first_offset, next, batch.appended_at)),
                Some((first, end, at)) if end == batch.first_offset => Some((first, next, at)),
                _ => None,
            };
        }
        match whole {
            _ if count == 0 => Ok(None),
            Some((first, next, at)) if count == notes.len() => Ok(Some(Verdict::Duplicate(first, next, at))),
            _ => Err(invalid(
                "some batches of this group are in the log already and others are not, or lie apart; append \
                 them one by one"
                    .to_owned(),
            )),
        }
    }

    fn remembered(&self, note: &Note) -> Option<Remembered> {
        let Kind::Data { first_sequence, last_sequence, .. } = note.kind else { return None };
        let producer = self.by_id.get(&note.producer_id).filter(|producer| producer.epoch == note.epoch)?;
        let same = |batch: &&Remembered| {
            batch.first_sequence == first_sequence && batch.last_sequence == last_sequence
        };
        producer.batches.iter().rev().find(same).copied()
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

fn fenced(note: &Note, epoch: i16) -> Error {
    let message = format!(
        "producer {} has epoch {} and the log knows epoch {epoch}: another instance has taken over; stop this one",
        note.producer_id, note.epoch
    );
    Error::new(ErrorKind::Fenced, message)
}

fn out_of_sequence(note: &Note, got: i32, expected: i32) -> Error {
    let message = format!(
        "producer {} sent sequence {got} in epoch {} where {expected} follows: a batch before it is missing; send \
         that one first",
        note.producer_id, note.epoch
    );
    Error::new(ErrorKind::OutOfSequence, message)
}

fn forgotten(note: &Note, got: i32, expected: i32) -> Error {
    let message = format!(
        "producer {} sent sequence {got} in epoch {} again, and {expected} follows: these records were appended \
         before, and only the last {REMEMBERED_BATCHES} batches are remembered; do not send them again, and keep \
         fewer batches under way",
        note.producer_id, note.epoch
    );
    Error::new(ErrorKind::SequenceForgotten, message)
}
