//! Records on their way into a transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use logmill_record::Offset;
use parking_lot::Mutex;

use crate::budget::Permit;
use crate::error::Error;
use crate::produce::Lane;
use crate::topic::TopicPartition;

/// A partition that a transaction has touched, and what it has written there.
#[derive(Debug)]
pub(crate) struct Touched {
    pub(super) topic: Arc<str>,
    pub(super) lane: Lane,
    /// The last of its records in each of the partition's logs: one may have lost what it had when the next was opened.
    written: Mutex<BTreeMap<u64, Offset>>,
}

/// The right to append to a partition as a part of a transaction, which does not end before it is given back.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(super) touched: Arc<Touched>,
    pub(super) _under_way: Permit,
}

impl Touched {
    pub(super) fn new(topic: Arc<str>, lane: Lane) -> Arc<Self> {
        Arc::new(Self { topic, lane, written: Mutex::default() })
    }

    /// The last record that was written.
    pub(super) fn last(&self) -> Option<Offset> {
        self.written.lock().last_key_value().map(|(_, last)| *last)
    }

    /// Whether the partition takes nothing, for good or until somebody puts it right, and has nothing of the producer's
    /// transaction: there is nothing to end then. One that is being opened again may have kept what failed half way.
    pub(super) fn has_nothing_of(&self, producer_id: i64) -> bool {
        let open = || self.lane.log().open_transactions();
        !self.lane.is_reopening() && !open().iter().any(|transaction| transaction.producer_id == producer_id)
    }

    /// Resolves when all that was written is on disk; with an error if it is not, and never will be.
    pub(super) async fn durable(&self) -> Result<(), Error> {
        let written = self.written.lock().clone();
        for (generation, last) in written {
            self.lane.confirm(generation, last).await?;
        }
        Ok(())
    }
}

impl Admitted {
    /// The records were written, up to this one, in that one of the partition's logs.
    pub(crate) fn written(self, generation: u64, last: Offset) {
        let mut written = self.touched.written.lock();
        let before = written.entry(generation).or_insert(last);
        *before = last.max(*before);
    }
}

/// What a step or a client's transaction has touched, by partition.
pub(super) type AllTouched = BTreeMap<TopicPartition, Arc<Touched>>;
