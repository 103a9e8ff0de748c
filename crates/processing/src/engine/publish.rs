//! Records on their way to topics: durable there before the step that made them is committed.
//!
//! Each partition has one batch on its way at a time, so that a batch that has to be sent again is not overtaken.
//!
//! A record that is set aside may be as large as the node takes, and its letter is larger. Where the node refuses it,
//! the letter goes without its value, and `logmill.value.omitted` says how many bytes that was; the value itself is
//! still where it came from.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use logmill_record::{Batch, BatchBuilder, BatchError, NewRecord, murmur2_partition};

use super::calls::{All, Calls, Retry, stopped};
use super::stop::Urgency;
use crate::backend::{BackendError, BackendErrorKind};
use crate::error::{Error, ErrorKind};
use crate::operator::OutRecord;

/// A batch is closed before it would grow past this; a larger record goes alone.
const BATCH_BYTES: usize = 512 * 1024;

/// Writes the records of a step. `partitions` has every topic's number of them; `is_letter_topic` says which topics
/// take records that were set aside.
pub(super) fn publish(
    calls: &Calls,
    records: BTreeMap<String, Vec<OutRecord>>,
    partitions: &BTreeMap<String, u32>,
    is_letter_topic: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let mut lanes = Vec::new();
    for (topic, records) in records {
        let partitions = partitions.get(&topic).copied().unwrap_or(1);
        let is_letter = is_letter_topic(&topic);
        lanes.extend(lanes_of(&topic, is_letter, records, partitions)?);
    }
    let mut retry = Retry::default();
    while !lanes.is_empty() {
        let firsts = lanes.iter().filter_map(|lane| {
            let parcel = lane.parcels.front()?;
            Some(calls.backend.produce(&lane.topic, lane.partition, parcel.batch.clone()))
        });
        let outcomes = calls.stop.block_on(Urgency::Now, All::new(firsts)).ok_or_else(stopped)?;
        let mut failed = None;
        for (lane, outcome) in lanes.iter_mut().zip(outcomes) {
            match outcome {
                Ok(_) => drop(lane.parcels.pop_front()),
                Err(error) if error.kind() == BackendErrorKind::TooLarge => lane.divide_first(error)?,
                Err(error) => failed = Some((format!("cannot write to topic {:?}", lane.topic), error)),
            }
        }
        match failed {
            Some((doing, error)) => retry.after(calls, Urgency::Now, &doing, error)?,
            None => retry = Retry::default(),
        }
        lanes.retain(|lane| !lane.parcels.is_empty());
    }
    Ok(())
}

/// What goes to one partition, in order.
struct Lane {
    topic: String,
    partition: u32,
    is_letter: bool,
    parcels: VecDeque<Parcel>,
}

/// A batch, and what it was made of.
struct Parcel {
    records: Vec<OutRecord>,
    batch: Batch,
}

impl Lane {
    /// The node does not take the first batch: its records go one by one, and a letter that is alone without its value.
    fn divide_first(&mut self, error: BackendError) -> Result<(), Error> {
        let Some(first) = self.parcels.pop_front() else { return Ok(()) };
        let records = match <[OutRecord; 1]>::try_from(first.records) {
            Err(records) => records,
            Ok([record]) if self.is_letter && record.value.is_some() => vec![without_value(record)],
            Ok(_) => {
                let doing = format!("topic {:?} does not take a record that the pipeline wrote", self.topic);
                return Err(Error::backend(doing, error));
            }
        };
        for record in records.into_iter().rev() {
            let parcel = Parcel::new(vec![record]).map_err(|error| unbatchable(&self.topic, error))?;
            self.parcels.push_front(parcel);
        }
        Ok(())
    }
}

impl Parcel {
    fn new(records: Vec<OutRecord>) -> Result<Self, BatchError> {
        let mut builder = BatchBuilder::new();
        for record in &records {
            as_new(record, |record| builder.push(record))?;
        }
        Ok(Self { records, batch: builder.build()? })
    }
}

/// Sorts records by partition, and cuts them into batches.
fn lanes_of(
    topic: &str,
    is_letter: bool,
    records: Vec<OutRecord>,
    partitions: u32,
) -> Result<Vec<Lane>, Error> {
    let mut by_partition: BTreeMap<u32, Vec<OutRecord>> = BTreeMap::new();
    for record in records {
        let partition = match &record.key {
            Some(key) => murmur2_partition(key, partitions),
            None => record.spread % partitions.max(1),
        };
        by_partition.entry(partition).or_default().push(record);
    }
    let mut lanes = Vec::with_capacity(by_partition.len());
    for (partition, records) in by_partition {
        let parcels = cut(records).map_err(|error| unbatchable(topic, error))?;
        lanes.push(Lane { topic: topic.to_owned(), partition, is_letter, parcels });
    }
    Ok(lanes)
}

fn cut(records: Vec<OutRecord>) -> Result<VecDeque<Parcel>, BatchError> {
    let mut parcels = VecDeque::new();
    let mut builder = BatchBuilder::new();
    let mut inside = Vec::new();
    for record in records {
        // A record that the batch refuses has a size without end: it starts the next one.
        if !builder.is_empty() && as_new(&record, |record| builder.size_with(record)) > BATCH_BYTES {
            let batch = std::mem::take(&mut builder).build()?;
            parcels.push_back(Parcel { records: std::mem::take(&mut inside), batch });
        }
        as_new(&record, |record| builder.push(record))?;
        inside.push(record);
    }
    if !builder.is_empty() {
        parcels.push_back(Parcel { records: inside, batch: builder.build()? });
    }
    Ok(parcels)
}

fn without_value(record: OutRecord) -> OutRecord {
    let size = record.value.as_ref().map_or(0, Bytes::len);
    let mut record = OutRecord { value: None, ..record };
    record.headers.push(("logmill.value.omitted".to_owned(), Some(size.to_string().into())));
    record
}

fn as_new<R>(record: &OutRecord, with: impl FnOnce(&NewRecord<'_>) -> R) -> R {
    let headers: Vec<(&str, Option<&[u8]>)> =
        record.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
    with(&NewRecord {
        timestamp: record.timestamp,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: &headers,
    })
}

fn unbatchable(topic: &str, error: BatchError) -> Error {
    Error::new(ErrorKind::Invalid, format!("a record for topic {topic:?} cannot be written: {error}"))
        .caused_by(error)
}
