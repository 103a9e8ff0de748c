//! Transactions: records of several partitions that become visible together, or never.
//!
//! **One decision record decides.** (1) Records are appended as transactional batches to their own logs, and synced.
//! (2) A decision is appended to `internal/transactions` and synced: from there on it is committed, or aborted. (3) A
//! marker is appended to every partition that was touched, and the call is answered when they are on disk, so that the
//! caller reads its own writes.
//!
//! * [`admit`]: records on their way into a transaction.
//! * [`add_offsets`]: what a group has read, as a part of one.
//! * [`table`]: which transactional ids there are. No I/O.
//! * [`entry`]: how each of them stands.
//! * [`errors`]: what is said where something cannot be.
//! * [`end`]: the protocol above, for one transaction.
//! * [`recover`]: what a restart finds decided is finished, and what it finds undecided aborted, before anybody reads.
//! * [`operations`]: what a client asks for: begin, end, abort.
//! * [`describe`]: which there are, and how one stands.
//! * [`step`]: `CommitStep`, a transaction in one call.
//! * [`record`]: the bytes of the decisions.
//!
//! A producer's epoch moves with each of its transactions
//! ([KIP-890](https://cwiki.apache.org/confluence/display/KAFKA/KIP-890%3A+Transactions+Server-Side+Defense)): the
//! markers carry the next one, so that a batch that is late is refused by the log itself, and can be part of no later
//! transaction. A step's epoch moves only with the owner of its unit: nothing of a step is written before all of it
//! has come, and nobody but the node writes it.
//!
//! Lock order: the table's lock, then a lane's. It is never held while waiting.

mod add_offsets;
mod admit;
mod describe;
mod end;
mod entry;
mod errors;
mod operations;
mod record;
mod recover;
mod step;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use add_offsets::AddOffsets;
pub(crate) use admit::Admitted;
pub use describe::{ListTransactions, TransactionInfo, TransactionPage, TransactionState};
pub use operations::{DEFAULT_TRANSACTION_TIMEOUT, InitTransactions, MAX_TRANSACTION_TIMEOUT};
use parking_lot::Mutex;
use record::TransactionRecord;
pub(crate) use recover::recover;
pub use step::{CommittedStep, Step, StepAppended, StepHeader};

use table::Table;

use crate::error::OpenError;
use crate::internal::InternalLog;

/// Who writes under a transactional id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerEpoch {
    /// The producer's id.
    pub id: i64,
    /// Its epoch; a batch of an older one is refused.
    pub epoch: i16,
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its records stand.
    Commit,
    /// Nobody who reads what is committed ever sees its records.
    Abort,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Commit => "committed",
            Self::Abort => "aborted",
        })
    }
}

/// What was decided last under each transactional id.
pub(crate) type TransactionRecords = BTreeMap<Arc<str>, TransactionRecord>;

/// The transactions of a broker.
#[derive(Debug)]
pub(crate) struct Transactions {
    log: InternalLog,
    table: Mutex<Table>,
}

impl Transactions {
    /// What was decided before, read from the node's log. Blocks.
    pub(crate) fn open(log: InternalLog) -> Result<(Self, TransactionRecords), OpenError> {
        let mut records = TransactionRecords::new();
        log.read(&[], |stored| {
            let name: Arc<str> = record::decode_key(stored.key)?.into();
            match stored.value {
                Some(value) => records.insert(name, record::decode(value)?),
                None => records.remove(&name),
            };
            Ok(())
        })?;
        let table = Mutex::new(Table::restored(&records));
        Ok((Self { log, table }, records))
    }
}
