//! Which partition each record of a request goes to.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use logmill_record::{TimestampMs, murmur2_partition};

use super::lane::{Load, StepPart};
use super::request::{Payload, ProduceRecord};
use super::{check_counts, ingest};
use crate::broker::Core;
use crate::catalog::{Partition, TopicState};
use crate::error::Error;

/// What of a request goes to one partition.
pub(super) struct Share {
    pub(super) partition: u32,
    /// Which of the request's records; empty for all.
    pub(super) record_indexes: Vec<u32>,
    pub(super) load: Load,
}

impl Share {
    fn whole(partition: u32, load: Load) -> Self {
        Self { partition, record_indexes: Vec::new(), load }
    }
}

/// What goes to which partition, in order of the partitions.
pub(super) fn shares(
    core: &Core,
    topic: &TopicState,
    partition: Option<u32>,
    payload: Payload,
) -> Result<Vec<Share>, Error> {
    let now = || core.config.env.clock.now();
    match payload {
        Payload::Batch(bytes) => {
            let partition = named(topic, partition)?;
            ingest::check_size(bytes.len(), topic.rules.max_message_bytes)?;
            Ok(vec![Share::whole(partition, Load::Batch(bytes))])
        }
        Payload::Records(records) => {
            check(core, &records)?;
            of_records(topic, partition, records, now())
        }
        Payload::Numbered(sequence, records) | Payload::InTransaction(sequence, records) => {
            let partition = named(topic, partition)?;
            check(core, &records)?;
            sequence.check()?;
            Ok(vec![Share::whole(partition, Load::Numbered(sequence, records, now()))])
        }
    }
}

/// What a step appends to which partition, in order of the partitions.
pub(crate) fn step_parts(
    core: &Core,
    topic: &TopicState,
    partition: Option<u32>,
    payload: Payload,
) -> Result<Vec<(u32, StepPart)>, Error> {
    if matches!(payload, Payload::Numbered(..) | Payload::InTransaction(..)) {
        return Err(Error::field("producer", "set", "the node numbers the records of a step"));
    }
    let part = |Share { partition, load, .. }| {
        let part = match load {
            Load::Batch(bytes) => StepPart::Batch(bytes),
            Load::Records(records, _) | Load::Numbered(_, records, _) => StepPart::Records(records),
            Load::Step(..) | Load::Internal(_) | Load::InternalOf(..) => return None,
        };
        Some((partition, part))
    };
    Ok(shares(core, topic, partition, payload)?.into_iter().filter_map(part).collect())
}

/// The partition that the request names, as it has to for what goes whole into one.
fn named(topic: &TopicState, partition: Option<u32>) -> Result<u32, Error> {
    let Some(partition) = partition else {
        return Err(Error::missing("partition", "a batch goes whole into one partition"));
    };
    topic.partition(partition).map(|_| partition)
}

/// Whether there may be so many.
fn check(core: &Core, records: &[ProduceRecord]) -> Result<(), Error> {
    if records.is_empty() {
        return Err(Error::missing("records", "a request has at least one record"));
    }
    let headers = records.iter().map(|record| record.headers.len()).sum();
    check_counts(records.len(), headers, &core.bounds)
}

fn of_records(
    topic: &TopicState,
    partition: Option<u32>,
    records: Vec<ProduceRecord>,
    now: TimestampMs,
) -> Result<Vec<Share>, Error> {
    if let Some(partition) = partition {
        topic.partition(partition)?;
        return Ok(vec![Share::whole(partition, Load::Records(records, now))]);
    }
    let count = topic.identity.partition_count;
    let mut keyless = None;
    let mut by_partition: BTreeMap<u32, (Vec<u32>, Vec<ProduceRecord>)> = BTreeMap::new();
    for (index, record) in (0..).zip(records) {
        let partition = match &record.key {
            Some(key) => murmur2_partition(key, count),
            None => *keyless.get_or_insert_with(|| choose(topic)),
        };
        let (indexes, records) = by_partition.entry(partition).or_default();
        indexes.push(index);
        records.push(record);
    }
    let is_one = by_partition.len() == 1;
    let share = |(partition, (indexes, records))| Share {
        partition,
        record_indexes: if is_one { Vec::new() } else { indexes },
        load: Load::Records(records, now),
    };
    Ok(by_partition.into_iter().map(share).collect())
}

/// The partition for records without a key: each in turn, of those that take records.
fn choose(topic: &TopicState) -> u32 {
    let count = topic.identity.partition_count;
    let turn = topic.next_keyless.fetch_add(1, Ordering::Relaxed);
    (0..count)
        .map(|step| turn.wrapping_add(step) % count)
        .find(|partition| topic.partition(*partition).is_ok_and(Partition::takes_records))
        .unwrap_or(turn % count)
}
