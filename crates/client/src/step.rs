//! Steps: what a unit of a group has made of what it read, and how far it has read, in one transaction and one call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use logmill_proto::v1;
use logmill_proto::v1::commit_step_request::Request;
use logmill_proto::v1::step_records::Payload;
use logmill_record::{Batch, Offset, TimestampMs};

use crate::convert::{offset_from, partition_from, partition_to};
use crate::producer::ask;
use crate::{Client, Error, ErrorKind, OffsetToCommit, ProducerRecord, UnitEpoch};

/// How large a message is made; a node takes at least 4 MiB.
const MESSAGE_BYTES: usize = 1 << 20;
/// What a record or a header takes in a message beyond its bytes, at most.
const OVERHEAD_BYTES: usize = 32;

/// A step to commit; for [`Client::commit_step`].
///
/// ```
/// use logmill_client::{OffsetToCommit, ProducerRecord, Step, UnitEpoch};
/// use logmill_record::Offset;
///
/// # fn main() -> Result<(), logmill_client::Error> {
/// let unit = UnitEpoch::new("orders/3", 7);
/// let step = Step::new("billing", unit, 12)
///     .offset(OffsetToCommit::new("orders", 3, Offset(1_200)))
///     .record(ProducerRecord::new("invoices", "12.50").key("customer-7"))?;
/// assert_eq!(step.total_bytes(), 15);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Step {
    group: String,
    unit: UnitEpoch,
    sequence: i64,
    offsets: Vec<OffsetToCommit>,
    messages: Vec<v1::StepRecords>,
    /// By topic and partition, the message that takes more records, and its size.
    open: HashMap<(String, Option<i32>), (usize, usize)>,
    total_bytes: usize,
    timeout: Duration,
}

impl Step {
    /// The step with this number among those of its unit: one more than the last one, which the assignment says. The
    /// first is 0.
    #[must_use]
    pub fn new(group: impl Into<String>, unit: UnitEpoch, sequence: i64) -> Step {
        Step {
            group: group.into(),
            unit,
            sequence,
            offsets: Vec::new(),
            messages: Vec::new(),
            open: HashMap::new(),
            total_bytes: 0,
            timeout: Duration::from_secs(60),
        }
    }

    /// With where the group is to go on in a partition of the unit.
    #[must_use]
    pub fn offset(mut self, offset: OffsetToCommit) -> Step {
        self.offsets.push(offset);
        self
    }

    /// With one more record. Those of a topic that name the same partition, or none, keep their order; one that names
    /// none goes by its key, and without a key where the node chooses.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a partition that there cannot be.
    pub fn record(mut self, record: ProducerRecord) -> Result<Step, Error> {
        self.push(record)?;
        Ok(self)
    }

    /// Adds a record, as [`record`](Step::record).
    ///
    /// # Errors
    /// As [`record`](Step::record).
    pub fn push(&mut self, record: ProducerRecord) -> Result<(), Error> {
        let partition = record.partition.map(partition_to).transpose()?;
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = record.headers.iter().map(|(name, value)| name.len() + len(value)).sum();
        let data_bytes = len(&record.key) + len(&record.value) + headers;
        let size_bytes = data_bytes + OVERHEAD_BYTES * (1 + record.headers.len());
        let message = self.message_for(record.topic.to_string(), partition, size_bytes);
        if let Some(Payload::Records(v1::RecordSet { records })) = &mut message.payload {
            let header = |(key, value): (String, Option<Bytes>)| v1::Header { key, value };
            records.push(v1::Record {
                key: record.key,
                value: record.value,
                timestamp_ms: record.timestamp.map(TimestampMs::get),
                headers: record.headers.into_iter().map(header).collect(),
            });
        }
        self.total_bytes += data_bytes;
        Ok(())
    }

    /// With a ready batch of no producer, for a partition. It is stored behind what was added for that partition before.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a partition that there cannot be.
    pub fn batch(mut self, topic: &str, partition: u32, batch: &Batch) -> Result<Step, Error> {
        let partition = Some(partition_to(partition)?);
        let bytes = batch.bytes().clone();
        self.total_bytes += bytes.len();
        // Records that come later have to be behind it.
        self.open.remove(&(topic.to_owned(), partition));
        self.messages.push(v1::StepRecords {
            topic: topic.to_owned(),
            partition,
            payload: Some(Payload::Batch(bytes)),
        });
        Ok(self)
    }

    /// For how long the step is sent again when the connection breaks; 60 s unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Step {
        self.timeout = timeout;
        self
    }

    /// Bytes of all that it appends.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.total_bytes
    }

    /// The message that takes so many bytes more, which may be a new one.
    fn message_for(
        &mut self,
        topic: String,
        partition: Option<i32>,
        size_bytes: usize,
    ) -> &mut v1::StepRecords {
        let next = self.messages.len();
        let name_bytes = topic.len() + OVERHEAD_BYTES;
        let (index, used) = self.open.entry((topic.clone(), partition)).or_insert((next, name_bytes));
        if *index < next && *used + size_bytes > MESSAGE_BYTES {
            (*index, *used) = (next, name_bytes);
        }
        *used += size_bytes;
        let index = *index;
        if index == next {
            let payload = Some(Payload::Records(v1::RecordSet { records: Vec::new() }));
            self.messages.push(v1::StepRecords { topic, partition, payload });
        }
        &mut self.messages[index]
    }

    fn header(&self) -> Result<v1::StepHeader, Error> {
        let mut topics: Vec<String> = self.messages.iter().map(|message| message.topic.clone()).collect();
        topics.sort_unstable();
        topics.dedup();
        Ok(v1::StepHeader {
            group: self.group.clone(),
            unit: Some(self.unit.to_proto()),
            sequence: self.sequence,
            offsets: self.offsets.iter().map(OffsetToCommit::to_proto).collect::<Result<_, _>>()?,
            topics,
            total_bytes: i64::try_from(self.total_bytes).unwrap_or(i64::MAX),
        })
    }

    /// An answer was lost, and this came when it was sent again, or nothing better.
    fn outcome_unknown(&self, last: Error) -> Error {
        let message = format!(
            "it is not known whether step {} of unit {:?} of group {:?} is committed, because an answer was lost: \
             {last}; commit the same step again, which finds out",
            self.sequence, self.unit.unit, self.group
        );
        Error::new(ErrorKind::OutcomeUnknown, "OUTCOME_UNKNOWN", message).with_source(last)
    }
}

/// A step that is committed; from [`Client::commit_step`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommittedStep {
    /// Where its records are, one for each partition that it appended to.
    pub appended: Vec<StepAppended>,
    /// It was committed before, and this is the answer of the first time.
    pub duplicate: bool,
}

/// Where records of a step were appended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepAppended {
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

impl Client {
    /// Commits a step: its records and its offsets together, or nothing of it. When this returns, readers of committed
    /// records see it.
    ///
    /// The step is sent again when the connection breaks; it has its effect once, however often it is sent, and so it
    /// has if this is called again with the same step.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) with the reason `STALE_ASSIGNMENT` for a unit that is another member's
    /// by now, and `STEP_OUT_OF_SEQUENCE` for a step that does not follow on the last one of its unit, or has its number
    /// and other offsets; [`Unavailable`](crate::ErrorKind::Unavailable) with `UNIT_UNDECLARED` for a named unit before
    /// a member has come after a start of the node; [`Invalid`](crate::ErrorKind::Invalid),
    /// [`NotFound`](crate::ErrorKind::NotFound), and those of every call. After these this call had no effect. After
    /// [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) it may have had it: an answer was lost, and what became of
    /// the step when it was sent again is the [source](std::error::Error::source) of the error. Calling again with the
    /// same step finds out; where the unit is another member's by then, the last step in its next assignment tells.
    ///
    /// ```no_run
    /// use logmill_client::{Client, OffsetToCommit, ProducerRecord, Step, UnitEpoch};
    /// use logmill_record::Offset;
    ///
    /// # async fn example(client: Client, unit: UnitEpoch) -> Result<(), logmill_client::Error> {
    /// let step = Step::new("billing", unit, 0)
    ///     .offset(OffsetToCommit::new("orders", 3, Offset(1)))
    ///     .record(ProducerRecord::new("invoices", "12.50"))?;
    /// let committed = client.commit_step(&step).await?;
    /// println!("{} partitions written", committed.appended.len());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn commit_step(&self, step: &Step) -> Result<CommittedStep, Error> {
        let header = v1::CommitStepRequest { request: Some(Request::Header(step.header()?)) };
        let records = step.messages.iter().cloned().map(Request::Records);
        let records = records.map(|request| v1::CommitStepRequest { request: Some(request) });
        let messages: Vec<_> = std::iter::once(header).chain(records).collect();
        let is_unknown = AtomicBool::new(false);
        let sent = ask(step.timeout, || async {
            let messages = tokio_stream::iter(messages.clone());
            let sent = self.append_call(self.transactions_rpc().commit_step(messages)).await;
            if sent.as_ref().is_err_and(|error| error.kind() == ErrorKind::OutcomeUnknown) {
                is_unknown.store(true, Ordering::Relaxed);
            }
            sent
        });
        let sent = sent.await.map_err(|error| {
            if is_unknown.load(Ordering::Relaxed) { step.outcome_unknown(error) } else { error }
        });
        let v1::CommitStepResponse { appended, duplicate } = sent?;
        let appended = appended.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        Ok(CommittedStep { appended, duplicate })
    }
}

impl TryFrom<v1::StepAppended> for StepAppended {
    type Error = Error;

    fn try_from(appended: v1::StepAppended) -> Result<StepAppended, Error> {
        Ok(StepAppended {
            topic: appended.topic,
            partition: partition_from(appended.partition)?,
            first_offset: offset_from(appended.first_offset)?,
            last_offset: offset_from(appended.last_offset)?,
            appended_at: TimestampMs(appended.appended_at_ms),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bytes: usize, partition: u32) -> ProducerRecord {
        ProducerRecord::new("t", vec![b'x'; bytes]).partition(partition)
    }

    fn sizes(step: &Step) -> Vec<(Option<i32>, usize)> {
        let size = |message: &v1::StepRecords| match &message.payload {
            Some(Payload::Records(set)) => set.records.len(),
            _ => 0,
        };
        step.messages.iter().map(|message| (message.partition, size(message))).collect()
    }

    #[test]
    fn records_share_messages_by_partition_up_to_a_mebibyte() {
        let mut step = Step::new("g", UnitEpoch::new("u", 1), 0);
        for partition in [0, 1, 0] {
            step.push(record(400 << 10, partition)).unwrap();
        }
        step.push(record(400 << 10, 0)).unwrap();
        assert_eq!(sizes(&step), [(Some(0), 2), (Some(1), 1), (Some(0), 1)]);
        step.push(record(2 << 20, 1)).unwrap();
        assert_eq!(sizes(&step)[3], (Some(1), 1), "one that is larger comes alone, for the node to judge");
        assert_eq!(step.total_bytes(), 4 * (400 << 10) + (2 << 20));
        assert_eq!(step.header().unwrap().topics, ["t"]);
    }

    #[test]
    fn records_behind_a_batch_stay_behind_it() {
        let mut builder = logmill_record::BatchBuilder::new();
        let new = logmill_record::NewRecord {
            timestamp: TimestampMs(5),
            key: None,
            value: Some(b"v"),
            headers: &[],
        };
        builder.push(&new).unwrap();
        let step = Step::new("g", UnitEpoch::new("u", 1), 0).record(record(1, 0)).unwrap();
        let step = step.batch("t", 0, &builder.build().unwrap()).unwrap().record(record(1, 0)).unwrap();
        assert_eq!(sizes(&step), [(Some(0), 1), (Some(0), 0), (Some(0), 1)]);
    }
}
