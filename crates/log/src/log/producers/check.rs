//! Whether a group of batches may be appended.

use std::collections::BTreeMap;

use logmill_record::{Offset, TimestampMs};

use super::note::{Kind, Note, sequence_after};
use super::{Producer, Producers, Remembered};
use crate::error::{Error, ErrorKind};

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
    Only(i32),
}

impl Standing {
    fn of(producer: Option<&Producer>) -> Self {
        let Some(producer) = producer else {
            return Self { epoch: None, next: Next::Any, in_transaction: false };
        };
        let next = match producer.last_sequence() {
            Some(last) => Next::Only(sequence_after(last, 1)),
            None if producer.starts_anew => Next::Only(0),
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
            self.next = Next::Only(0);
        }
        self.epoch = Some(note.epoch);
        let Kind::Data { first_sequence, last_sequence, opens } = note.kind else {
            self.in_transaction = false;
            return Ok(());
        };
        if first_sequence < 0 {
            return Err(invalid(format!("a batch of producer {} has no sequence", note.producer_id)));
        }
        if let Next::Only(expected) = self.next
            && first_sequence != expected
        {
            return Err(out_of_sequence(note, first_sequence, expected));
        }
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
