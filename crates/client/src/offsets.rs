//! How far a group has read: what is committed, and for which assignment.

use logmill_proto::v1;
use logmill_record::Offset;

use crate::convert::partition_to;
use crate::{Error, PartitionData};

/// A unit of a group, and which assignment of it.
///
/// ```
/// use logmill_client::UnitEpoch;
///
/// let unit = UnitEpoch::new("orders/3", 7);
/// assert_eq!(unit.to_string(), "orders/3 (epoch 7)");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct UnitEpoch {
    /// The unit's name: of a group of topics `topic/partition`.
    pub unit: String,
    /// The epoch that the assignment has: whoever owned the unit before had a smaller one.
    pub epoch: i32,
}

impl UnitEpoch {
    /// This unit in this epoch, as an assignment says it.
    #[must_use]
    pub fn new(unit: impl Into<String>, epoch: i32) -> UnitEpoch {
        UnitEpoch { unit: unit.into(), epoch }
    }

    pub(crate) fn to_proto(&self) -> v1::UnitEpoch {
        v1::UnitEpoch { unit: self.unit.clone(), epoch: self.epoch }
    }

    pub(crate) fn received(unit: Option<v1::UnitEpoch>) -> Result<UnitEpoch, Error> {
        match unit {
            Some(v1::UnitEpoch { unit, epoch }) => Ok(UnitEpoch { unit, epoch }),
            None => Err(Error::nonsense("a message of a group does not say of which unit it is")),
        }
    }
}

impl std::fmt::Display for UnitEpoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (epoch {})", self.unit, self.epoch)
    }
}

/// Where a group goes on in a partition.
///
/// ```
/// use logmill_client::OffsetToCommit;
/// use logmill_record::Offset;
///
/// let next = OffsetToCommit::new("orders", 3, Offset(1_200));
/// assert_eq!(next.last_epoch, None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetToCommit {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
    /// The offset of the next record to read.
    pub offset: Offset,
    /// The `last_epoch` that came with what was read; `None` if it is not known.
    pub last_epoch: Option<i32>,
    /// Whatever is to be remembered with it; at most 4,096 bytes.
    pub metadata: String,
}

impl OffsetToCommit {
    /// To go on at this offset, and nothing more.
    #[must_use]
    pub fn new(topic: impl Into<String>, partition: u32, offset: Offset) -> OffsetToCommit {
        OffsetToCommit { topic: topic.into(), partition, offset, last_epoch: None, metadata: String::new() }
    }

    pub(crate) fn to_proto(&self) -> Result<v1::OffsetToCommit, Error> {
        Ok(v1::OffsetToCommit {
            topic: self.topic.clone(),
            partition: partition_to(self.partition)?,
            offset: self.offset.into(),
            last_epoch: self.last_epoch,
            metadata: self.metadata.clone(),
        })
    }
}

/// Behind all that was read.
impl From<&PartitionData> for OffsetToCommit {
    fn from(data: &PartitionData) -> OffsetToCommit {
        let next = OffsetToCommit::new(data.topic.as_str(), data.partition, data.next_offset);
        OffsetToCommit { last_epoch: data.last_epoch, ..next }
    }
}
