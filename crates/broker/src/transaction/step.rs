//! A step: the outputs of a unit of work and the offsets that it has read, in one transaction and one call.

use logmill_record::{Offset, TimestampMs};

/// Where records of a step were appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepAppend {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
    /// The offset of the first record; the others follow one by one.
    pub first_offset: Offset,
    /// The offset of the last record.
    pub last_offset: Offset,
    /// When the node appended them.
    pub appended_at: TimestampMs,
}
