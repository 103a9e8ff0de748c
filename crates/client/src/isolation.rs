//! Which records of transactions a reader sees, and which batches are of aborted ones.

use logmill_proto::v1;
use logmill_record::{BatchHeader, Offset};

use crate::Error;
use crate::convert::offset_from;

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

impl From<Isolation> for i32 {
    fn from(isolation: Isolation) -> i32 {
        match isolation {
            Isolation::ReadCommitted => v1::Isolation::ReadCommitted.into(),
            Isolation::ReadUncommitted => v1::Isolation::ReadUncommitted.into(),
        }
    }
}

/// The aborted transactions that a node named with batches. Those of one producer do not overlap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aborted {
    /// By producer, and then by offset.
    ranges: Vec<Range>,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    producer_id: i64,
    first: Offset,
    last: Offset,
}

impl Aborted {
    /// Whether a batch belongs to one of them.
    pub(crate) fn has(&self, batch: &BatchHeader) -> bool {
        if self.ranges.is_empty() || !batch.attributes.is_transactional() {
            return false;
        }
        let place = (batch.producer_id, batch.base_offset);
        let behind = self.ranges.partition_point(|range| (range.producer_id, range.first) <= place);
        let last = behind.checked_sub(1).and_then(|index| self.ranges.get(index));
        last.is_some_and(|range| range.producer_id == batch.producer_id && batch.base_offset <= range.last)
    }
}

impl TryFrom<Vec<v1::AbortedRange>> for Aborted {
    type Error = Error;

    fn try_from(ranges: Vec<v1::AbortedRange>) -> Result<Aborted, Error> {
        let range = |range: v1::AbortedRange| {
            let (first, last) = (offset_from(range.first_offset)?, offset_from(range.last_offset)?);
            Ok(Range { producer_id: range.producer_id, first, last })
        };
        let mut ranges = ranges.into_iter().map(range).collect::<Result<Vec<_>, Error>>()?;
        ranges.sort_unstable_by_key(|range| (range.producer_id, range.first));
        Ok(Aborted { ranges })
    }
}
