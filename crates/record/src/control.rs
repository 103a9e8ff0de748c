//! Control records: how a transaction ended, written into the log between the batches of it.
//!
//! The bytes are those of Kafka's [control batches](https://kafka.apache.org/documentation/#controlbatch): the
//! key is a version and a type, two `i16`; the value of a commit or abort is a version (`i16`) and the epoch of
//! the transaction coordinator (`i32`). Longer keys and values, of later versions, are read as far as this.

use crate::batch::Batch;
use crate::builder::{BatchBuilder, NewRecord};
use crate::error::{BatchError, RecordProblem};
use crate::header::HEADER_LEN;
use crate::options::BatchOptions;
use crate::units::TimestampMs;

/// What a control record says.
///
/// ```
/// use logmill_record::{ControlRecord, ControlType, TimestampMs};
///
/// let marker = ControlRecord { kind: ControlType::Abort, coordinator_epoch: 12 };
/// let batch = marker.batch(4711, 3, TimestampMs(1_700_000_000_000))?;
/// if let Some(ControlRecord { kind: ControlType::Abort, .. }) = batch.control_record()? {
///     println!("what producer {} wrote before is not to be read", batch.header().producer_id);
/// }
/// # Ok::<(), logmill_record::BatchError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ControlType {
    /// The producer's transaction was aborted: its records are not to be read.
    Abort,
    /// The producer's transaction was committed.
    Commit,
    /// Something that only Kafka's own logs hold, such as a change of leader.
    Other(i16),
}

/// A control record: the end of a transaction, mostly.
///
/// ```
/// use logmill_record::{ControlRecord, ControlType, TimestampMs};
///
/// let marker = ControlRecord { kind: ControlType::Commit, coordinator_epoch: 12 };
/// let batch = marker.batch(4711, 3, TimestampMs(1_700_000_000_000))?;
/// assert!(batch.header().attributes.is_control());
/// assert_eq!(batch.control_record()?, Some(marker));
/// # Ok::<(), logmill_record::BatchError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRecord {
    /// What it says.
    pub kind: ControlType,
    /// The epoch of the coordinator that ended the transaction; −1 where the record has none.
    pub coordinator_epoch: i32,
}

impl ControlRecord {
    /// The batch that ends the transaction of this producer, to be appended to each log that it wrote to.
    ///
    /// # Errors
    /// [`OutOfRange`](BatchError::OutOfRange) for an [`Other`](ControlType::Other): only commit and abort end
    /// a transaction.
    pub fn batch(&self, producer_id: i64, producer_epoch: i16, at: TimestampMs) -> Result<Batch, BatchError> {
        let kind: i16 = match self.kind {
            ControlType::Abort => 0,
            ControlType::Commit => 1,
            ControlType::Other(kind) => return Err(not_an_end(kind)),
        };
        let key = [0, 0, kind.to_be_bytes()[0], kind.to_be_bytes()[1]];
        let mut value = [0; 6];
        value[2..].copy_from_slice(&self.coordinator_epoch.to_be_bytes());
        let options = BatchOptions::new().producer(producer_id, producer_epoch, -1).transactional().control();
        let mut builder = BatchBuilder::with_options(options, 0);
        builder.push(&NewRecord { timestamp: at, key: Some(&key), value: Some(&value), headers: &[] })?;
        builder.build()
    }

    /// Reads key and value of a control record.
    fn read(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<ControlRecord, RecordProblem> {
        let key = known("control key", key, 4)?;
        let kind = match i16::from_be_bytes([key[2], key[3]]) {
            0 => ControlType::Abort,
            1 => ControlType::Commit,
            other => return Ok(ControlRecord { kind: ControlType::Other(other), coordinator_epoch: -1 }),
        };
        let value = known("control value", value, 6)?;
        let coordinator_epoch = i32::from_be_bytes([value[2], value[3], value[4], value[5]]);
        Ok(ControlRecord { kind, coordinator_epoch })
    }
}

impl Batch {
    /// The one control record of a control batch; `None` for any other batch, and for one whose record was
    /// removed by compaction.
    ///
    /// # Errors
    /// A record that does not add up, and a key or value too short for what it is.
    pub fn control_record(&self) -> Result<Option<ControlRecord>, BatchError> {
        if !self.header().attributes.is_control() {
            return Ok(None);
        }
        let Some(record) = self.records()?.next().transpose()? else { return Ok(None) };
        let problem = |problem| BatchError::Record { index: 0, position: HEADER_LEN, problem };
        ControlRecord::read(record.key, record.value).map(Some).map_err(problem)
    }
}

/// The bytes of a field that begins with its version, as far as every version has them.
fn known<'a>(field: &'static str, bytes: Option<&'a [u8]>, len: usize) -> Result<&'a [u8], RecordProblem> {
    let bytes = bytes.unwrap_or_default();
    if bytes.len() < len {
        return Err(RecordProblem::Overrun { field, needed: len as u64, available: bytes.len() });
    }
    match i16::from_be_bytes([bytes[0], bytes[1]]) {
        version @ ..0 => Err(RecordProblem::Negative { field, value: version.into() }),
        _ => Ok(&bytes[..len]),
    }
}

fn not_an_end(kind: i16) -> BatchError {
    BatchError::OutOfRange { field: "control type", value: kind.into(), min: 0, max: 1 }
}
