//! What whoever asks something of transactions is told where it cannot be.

use super::ProducerEpoch;
use crate::error::{Error, Reason, shorten};

pub(super) fn not_found(name: &str) -> Error {
    let shown = shorten(name);
    let message = format!(
        "there is no transactional id {shown:?}: see which there are ('logmill txn ls'); one begins when a producer initializes it"
    );
    Error::new(Reason::TransactionNotFound, message).with("transactional_id", shown)
}

pub(super) fn unknown_producer(producer: ProducerEpoch) -> Error {
    let message = format!(
        "no transactional id has the producer {}: initialize transactions, and use the producer in the answer",
        producer.id
    );
    Error::new(Reason::TransactionNotFound, message).with("producer_id", producer.id)
}

pub(super) fn fenced(name: &str, producer: ProducerEpoch, now: ProducerEpoch) -> Error {
    let message = format!(
        "the producer {} with epoch {} is not the one that writes under the transactional id {name:?} now: another \
         instance has taken over, or its transaction has ended; stop this one, or begin again with InitTransactions",
        producer.id, producer.epoch
    );
    let error = Error::new(Reason::ProducerFenced, message).with("transactional_id", name);
    error.with("producer_epoch", producer.epoch).with("current_epoch", now.epoch)
}

pub(super) fn aborted(name: &str, why: &str) -> Error {
    let message = format!(
        "the node has aborted the transaction of {name:?}, and nobody sees its records: {why}; begin again with \
         InitTransactions, and send them again"
    );
    Error::new(Reason::TransactionAborted, message).with("transactional_id", name)
}

pub(super) fn step_out_of_sequence(sequence: i64, expected: i64) -> Error {
    let message = format!(
        "the step has the sequence {sequence}, and {expected} follows on the last one that was committed: what was \
         committed is not done again, and nothing is left out; go on from the last sequence and the offsets that the \
         assignment says"
    );
    let error = Error::new(Reason::StepOutOfSequence, message);
    error.with("sequence", sequence).with("expected_sequence", expected)
}

/// What has read something else comes under the number of the last step.
pub(super) fn step_differs(sequence: i64) -> Error {
    let message = format!(
        "the step {sequence} was committed, with other offsets than this one, which had no effect: a step is sent again \
         as it was; make the next one of what follows on what the group has committed"
    );
    let error = Error::new(Reason::StepOutOfSequence, message);
    error.with("sequence", sequence).with("expected_sequence", sequence.saturating_add(1))
}

pub(super) fn already_ending(name: &str) -> Error {
    let message = format!(
        "the transaction of {name:?} is being ended and takes nothing more: wait for the answer, and go on with the \
         epoch that it has"
    );
    Error::new(Reason::TransactionEnding, message).with("transactional_id", name)
}

pub(super) fn step_running(group: &str, unit: &str) -> Error {
    let message = format!(
        "a step of unit {unit:?} of group {group:?} is being committed, perhaps this one when it was sent before: send \
         this one again a little later; if it stays so, a partition cannot be written: look at the disk"
    );
    Error::new(Reason::TransactionEnding, message).with("group", group)
}
