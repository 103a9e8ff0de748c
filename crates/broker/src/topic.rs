//! What a topic, a partition and the node look like from outside.

use logmill_record::{Offset, TimestampMs};
use uuid::Uuid;

use crate::error::Error;
use crate::settings::TopicSettings;

/// A partition of a topic that is told from every other, also from one of the same name before or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TopicPartition {
    pub(crate) topic: Uuid,
    pub(crate) partition: u32,
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopic {
    /// The name: see [`check_topic_name`](crate::check_topic_name).
    pub name: String,
    /// How many partitions, from 1 to 10,000; `None` is 1.
    pub partitions: Option<u32>,
    /// Made by a pipeline for itself, and hidden from lists by default.
    pub internal: bool,
    /// What is set for it; the rest is the node's.
    pub settings: TopicSettings,
}

impl CreateTopic {
    /// A topic of one partition.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), partitions: None, internal: false, settings: TopicSettings::default() }
    }

    /// The same with so many partitions.
    #[must_use]
    pub fn partitions(self, partitions: u32) -> Self {
        Self { partitions: Some(partitions), ..self }
    }

    /// The same with these settings.
    ///
    /// ```
    /// use logmill_broker::{CreateTopic, TopicSettings};
    ///
    /// let settings = TopicSettings::new([("cleanup.policy", "compact")])?;
    /// let latest = CreateTopic::new("latest-by-sensor").settings(settings);
    /// # Ok::<(), logmill_broker::Error>(())
    /// ```
    #[must_use]
    pub fn settings(self, settings: TopicSettings) -> Self {
        Self { settings, ..self }
    }
}

/// A topic and what is in force for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// The name.
    pub name: String,
    /// Never used again, also if a topic of the same name is created later.
    pub id: Uuid,
    /// How many partitions.
    pub partition_count: u32,
    /// When it was created.
    pub created_at: TimestampMs,
    /// The settings in force, by name.
    pub settings: Vec<Setting>,
    /// Made by a pipeline for itself, and hidden from lists by default.
    pub internal: bool,
}

/// A setting, its value, and where the value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The name, such as `retention.ms`.
    pub name: &'static str,
    /// The value, as text.
    pub value: String,
    /// Where it comes from.
    pub source: SettingSource,
}

/// Where the value of a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettingSource {
    /// The default of this version.
    Default,
    /// The node's configuration.
    Node,
    /// The topic itself.
    Topic,
}

/// A topic and each of its partitions.
#[derive(Clone, Debug)]
pub struct TopicDescription {
    /// The topic.
    pub topic: Topic,
    /// Its partitions, in order of their numbers.
    pub partitions: Vec<PartitionInfo>,
}

/// A partition as it stands.
#[derive(Clone, Debug)]
pub struct PartitionInfo {
    /// Its number, from 0.
    pub partition: u32,
    /// The offset of the first record that is kept.
    pub start_offset: Offset,
    /// The offset after the last record that readers can see, committed or not.
    pub end_offset: Offset,
    /// Bytes of record batches on disk.
    pub stored_bytes: u64,
    /// Segment files.
    pub segment_count: u32,
    /// The epoch that is stamped into batches written now; −1, with offsets and sizes 0, if the partition could
    /// not be opened.
    pub leader_epoch: i32,
    /// Why the partition cannot be written, if it cannot.
    pub error: Option<Error>,
}

/// Which topics to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListTopics {
    /// At most so many; 0 means 1,000, which is also the most.
    pub page_size: usize,
    /// The last page's `next_page_token`, or empty for the first page.
    pub page_token: String,
    /// Also those that pipelines made for themselves.
    pub include_internal: bool,
}

/// A page of topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicPage {
    /// The topics, in order of their names.
    pub topics: Vec<Topic>,
    /// Where the next page starts; empty at the end.
    pub next_page_token: String,
}

/// The node as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDescription {
    /// The version of the program.
    pub version: &'static str,
    /// The UUID of the data directory.
    pub node_id: Uuid,
    /// The directory's open counter: the epoch of what was opened last. Moved on by each start, and before a
    /// partition, or the node's list of topics, is opened again after a failed sync; other partitions keep their
    /// epoch then.
    pub leader_epoch: i32,
    /// Bytes of record batches on disk, over all topics.
    pub stored_bytes: u64,
    /// Bytes that the file system of the data directory can still take, as it last said.
    pub available_bytes: u64,
    /// The size of that file system in bytes.
    pub capacity_bytes: u64,
    /// The number of topics.
    pub topic_count: u64,
    /// The number of partitions.
    pub partition_count: u64,
}

/// A place in a partition, for a reader to start at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// This offset, between the partition's start and its end, both included.
    Offset(Offset),
    /// The first record whose timestamp is at or after this time, be it committed or not; the end if there is none.
    Time(TimestampMs),
    /// The first record that is still kept.
    Earliest,
    /// The end of what the reader sees: only records that it could not have read before. For one of committed
    /// records, that is the last stable offset: what is committed from now on lies behind it.
    Latest,
}

/// The offset at a place of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionOffset {
    /// The partition's number.
    pub partition: u32,
    /// The offset of the record found, or the partition's end.
    pub offset: Offset,
    /// The timestamp of the record found, for a place given by time that holds one.
    pub timestamp: Option<TimestampMs>,
}
