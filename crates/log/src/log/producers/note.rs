//! What the table wants to know of a batch.

use logmill_record::{Batch, BatchError, BatchHeader, ControlType};

/// A batch of an idempotent producer, or a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) last_offset_delta: u32,
    pub(crate) kind: Kind,
}

/// What a batch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Brings records.
    Data {
        first_sequence: i32,
        last_sequence: i32,
        /// They are part of a transaction. A batch that compaction has emptied holds none open.
        opens: bool,
    },
    /// Ends a transaction, and its records stand.
    Commit,
    /// Ends a transaction, and its records are not to be read.
    Abort,
}

impl Note {
    /// Of a batch as it is appended; `None` if the table has nothing to do with it.
    pub(crate) fn of(batch: &Batch) -> Result<Option<Self>, BatchError> {
        let header = batch.header();
        if !concerns(header) {
            return Ok(None);
        }
        let kind = if header.attributes.is_control() { marker(batch)? } else { Some(data(header)) };
        Ok(kind.map(|kind| Self::new(header, kind)))
    }

    /// Of a batch that is found in the log, whose marker `read` gets; `None` if it is damaged.
    pub(crate) fn found<E>(
        header: &BatchHeader,
        read: impl FnOnce() -> Result<Option<Batch>, E>,
    ) -> Result<Option<Self>, E> {
        if !concerns(header) {
            return Ok(None);
        }
        let kind = if header.attributes.is_control() {
            // How a transaction ended whose marker is damaged is not known: nobody is to take its
            // records for committed.
            read()?.map_or(Some(Kind::Abort), |batch| marker(&batch).unwrap_or(Some(Kind::Abort)))
        } else {
            Some(data(header))
        };
        Ok(kind.map(|kind| Self::new(header, kind)))
    }

    fn new(header: &BatchHeader, kind: Kind) -> Self {
        Self {
            producer_id: header.producer_id,
            epoch: header.producer_epoch,
            last_offset_delta: header.last_offset_delta,
            kind,
        }
    }
}

/// Whether a batch changes what is known of a producer.
pub(crate) fn concerns(header: &BatchHeader) -> bool {
    header.producer_id >= 0
}

fn data(header: &BatchHeader) -> Kind {
    Kind::Data {
        first_sequence: header.base_sequence,
        last_sequence: sequence_after(header.base_sequence, header.last_offset_delta),
        opens: header.attributes.is_transactional() && header.record_count > 0,
    }
}

/// What a control batch ends, if anything. One that compaction has emptied ended a transaction of
/// which no record is left, so it does not matter how.
fn marker(batch: &Batch) -> Result<Option<Kind>, BatchError> {
    Ok(match batch.control_record()? {
        Some(record) => match record.kind {
            ControlType::Commit => Some(Kind::Commit),
            ControlType::Abort => Some(Kind::Abort),
            _ => None,
        },
        None => Some(Kind::Commit),
    })
}

/// The sequence that comes so many records later: after 2³¹ − 1 comes 0.
pub(crate) fn sequence_after(sequence: i32, records: u32) -> i32 {
    let sum = i64::from(sequence) + i64::from(records);
    i32::try_from(sum & i64::from(i32::MAX)).expect("it has 31 bits")
}
