//! Which records of transactions a reader sees, and which batches are of aborted ones.

use std::sync::Arc;

use logmill_log::{AbortedTxn, Log, ReadOut};
use logmill_record::{BatchHeader, Offset};

/// Which records of transactions a reader sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// Only records outside transactions and of committed ones, in order of their offsets: a transaction that is
    /// open holds back all that lies behind its first record, until it has ended or times out. What has been read
    /// stays true.
    #[default]
    ReadCommitted,
    /// All records, also of open and aborted transactions.
    ReadUncommitted,
}

impl Isolation {
    /// How far readers of a log see.
    pub(super) fn end_of(self, log: &Log) -> Offset {
        match self {
            Self::ReadCommitted => log.last_stable_offset(),
            Self::ReadUncommitted => log.end_offset(),
        }
    }

    pub(super) fn read(
        self,
        log: &Log,
        from: Offset,
        max_bytes: usize,
    ) -> Result<ReadOut, logmill_log::Error> {
        match self {
            Self::ReadCommitted => log.read_committed(from, max_bytes),
            Self::ReadUncommitted => log.read(from, max_bytes),
        }
    }
}

/// Aborted transactions, whose records are to be left out. A clone is the same ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aborted {
    /// By producer, and then by offset. Those of one producer do not overlap.
    txns: Arc<[AbortedTxn]>,
}

impl Aborted {
    pub(crate) fn new(txns: &[AbortedTxn]) -> Self {
        let mut txns = txns.to_vec();
        txns.sort_unstable_by_key(|txn| (txn.producer_id, txn.first_offset));
        Self { txns: txns.into() }
    }

    /// Whether a batch belongs to one of them.
    pub(crate) fn has(&self, batch: &BatchHeader) -> bool {
        if self.txns.is_empty() || !batch.attributes.is_transactional() {
            return false;
        }
        let place = (batch.producer_id, batch.base_offset);
        let behind = self.txns.partition_point(|txn| (txn.producer_id, txn.first_offset) <= place);
        let last = behind.checked_sub(1).and_then(|index| self.txns.get(index));
        last.is_some_and(|txn| txn.producer_id == batch.producer_id && batch.base_offset <= txn.last_offset)
    }
}
