//! A record to send.

use std::sync::Arc;

use bytes::Bytes;
use logmill_record::{NewRecord, TimestampMs};

/// A record to send with a [`Producer`](crate::Producer).
///
/// ```
/// use logmill_client::ProducerRecord;
///
/// let record = ProducerRecord::new("orders", "{\"total\": 12}").key("customer-7").header("source", "web");
/// assert_eq!(record.headers.len(), 1);
/// let deletion = ProducerRecord { topic: "orders".into(), key: Some("customer-7".into()), ..Default::default() };
/// assert_eq!(deletion.value, None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerRecord {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition. Without one: by the key, as Kafka's clients choose it; without a key, one partition
    /// after the other, a batch's worth at a time.
    pub partition: Option<u32>,
    /// The key; `None` is null, which is not the same as empty.
    pub key: Option<Bytes>,
    /// The value; `None` is null, which is not the same as empty.
    pub value: Option<Bytes>,
    /// The record's own time; without one, the time of [`send`](crate::Producer::send).
    pub timestamp: Option<TimestampMs>,
    /// Headers, in order; a name may come twice.
    pub headers: Vec<(String, Option<Bytes>)>,
}

impl ProducerRecord {
    /// A record with a value and nothing else.
    #[must_use]
    pub fn new(topic: impl Into<Arc<str>>, value: impl Into<Bytes>) -> ProducerRecord {
        ProducerRecord { topic: topic.into(), value: Some(value.into()), ..ProducerRecord::default() }
    }

    /// With this key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> ProducerRecord {
        self.key = Some(key.into());
        self
    }

    /// For this partition.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> ProducerRecord {
        self.partition = Some(partition);
        self
    }

    /// With this time.
    #[must_use]
    pub fn timestamp(mut self, timestamp: TimestampMs) -> ProducerRecord {
        self.timestamp = Some(timestamp);
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> ProducerRecord {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// Hands the record to `use_it` in the form that a batch takes.
    pub(super) fn with_new<T>(&self, now: TimestampMs, use_it: impl FnOnce(&NewRecord<'_>) -> T) -> T {
        // Most records have no headers, and an empty Vec takes no memory.
        let headers: Vec<(&str, Option<&[u8]>)> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        use_it(&NewRecord {
            timestamp: self.timestamp.unwrap_or(now),
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &headers,
        })
    }
}
