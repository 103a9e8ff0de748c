//! What a broker can be told, and the defaults.

use std::path::PathBuf;

use logmill_log::LogOptions;
use logmill_log::env::Env;

use crate::catalog::OnOpen;
use crate::settings::{MessageBytes, SegmentBytes, TopicSettings};

/// The default of [`Config::segment_bytes`]: 128 MiB.
pub const DEFAULT_SEGMENT_BYTES: u64 = 128 * 1024 * 1024;

/// The default of [`Config::max_message_bytes`], which is Kafka's: 1 MiB and a little for the batch itself.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 1_048_588;

/// The default of [`Config::reserve_bytes`]: 16 MiB.
pub const DEFAULT_RESERVE_BYTES: u64 = 16 * 1024 * 1024;

/// The default of [`Config::low_space_bytes`]: 64 MiB, so that a reserve that was used can be written again,
/// which takes twice its size, before records are taken again.
pub const DEFAULT_LOW_SPACE_BYTES: u64 = 64 * 1024 * 1024;

/// How a broker is opened.
///
/// ```
/// use logmill_broker::Config;
///
/// let config = Config { max_message_bytes: 64 * 1024, ..Config::new("/var/lib/logmill") };
/// assert_eq!(config.segment_bytes, 128 * 1024 * 1024);
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory that holds everything. Made, with its parents, if it is not there.
    pub data_dir: PathBuf,
    /// The machine: files, clock, randomness, threads.
    pub env: Env,
    /// The size at which a partition goes on in a new segment file, in bytes, at most 1 GiB: `segment.bytes`.
    pub segment_bytes: u64,
    /// The largest record batch that is taken, in bytes: `max.message.bytes`.
    pub max_message_bytes: usize,
    /// Space that is held back, in a file of that size in the data directory, which is written after the
    /// broker has been opened. When the disk is full it is released for what has to be written all the
    /// same: the deletion of topics, checkpoints, a clean stop, a start. 0 holds none back.
    pub reserve_bytes: u64,
    /// While the disk has less space left than this, records are refused with
    /// [`Reason::DiskFull`](crate::Reason::DiskFull), in bytes. Reading goes on, and so does deleting
    /// topics. 0 takes records until the disk is full.
    pub low_space_bytes: u64,
    /// What holds for topics that do not say otherwise. Where it says something of `segment.bytes` or
    /// `max.message.bytes`, that goes before the two fields above.
    pub topic_defaults: TopicSettings,
    /// Bounds on what is in use at once.
    pub limits: Limits,
    /// Hears how far opening is, which after a kill takes a while where there is much to check.
    pub on_open: Option<OnOpen>,
}

impl Config {
    /// The defaults, on the real machine.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            env: Env::real(),
            segment_bytes: DEFAULT_SEGMENT_BYTES,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            reserve_bytes: DEFAULT_RESERVE_BYTES,
            low_space_bytes: DEFAULT_LOW_SPACE_BYTES,
            topic_defaults: TopicSettings::default(),
            limits: Limits::default(),
            on_open: None,
        }
    }

    /// What the node says of topics: only what differs from the defaults of this version.
    pub(crate) fn node_settings(&self) -> TopicSettings {
        let mut settings = self.topic_defaults.clone();
        let segment_bytes = self.segment_bytes.min(LogOptions::MAX_SEGMENT_BYTES);
        if segment_bytes != DEFAULT_SEGMENT_BYTES {
            settings.segment_bytes.get_or_insert(SegmentBytes(segment_bytes));
        }
        if self.max_message_bytes != DEFAULT_MAX_MESSAGE_BYTES {
            settings.max_message_bytes.get_or_insert(MessageBytes(self.max_message_bytes as u64));
        }
        settings
    }

    /// The largest batch that any topic can take.
    #[cfg(feature = "grpc")]
    pub(crate) fn most_message_bytes(&self) -> usize {
        let node =
            self.node_settings().max_message_bytes.map_or(DEFAULT_MAX_MESSAGE_BYTES, MessageBytes::bytes);
        self.limits.max_batch_bytes.max(node)
    }
}

/// Bounds on what is in use at once. A call that would pass one is answered with
/// [`Reason::LimitExceeded`](crate::Reason::LimitExceeded), which names the limit as the field is named here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of records accepted and not yet written, over all partitions. 256 MiB.
    pub max_queued_bytes: usize,
    /// The same for one partition. 64 MiB.
    pub max_partition_queued_bytes: usize,
    /// Plain records in one produce request. In memory each takes a hundred bytes besides what is in it,
    /// which a message need not spend on it. 100,000.
    pub max_records_per_request: usize,
    /// Headers of all plain records in one produce request together. 100,000.
    pub max_headers_per_request: usize,
    /// What a topic's `max.message.bytes` can be set to. Also what a node takes as one message. 8 MiB.
    pub max_batch_bytes: usize,
    /// Fetches that wait for records. 10,000.
    pub max_waiting_fetches: usize,
    /// Partitions in one fetch or subscription. 1,000.
    pub max_fetch_partitions: usize,
    /// Partitions that one stream of produce requests has under way, or in which one of its requests failed.
    /// 10,000.
    pub max_stream_partitions: usize,
    /// Changes of topics that wait for their turn. 1,000.
    pub max_queued_topic_changes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_queued_bytes: 256 * 1024 * 1024,
            max_partition_queued_bytes: 64 * 1024 * 1024,
            max_records_per_request: 100_000,
            max_headers_per_request: 100_000,
            max_batch_bytes: 8 * 1024 * 1024,
            max_waiting_fetches: 10_000,
            max_fetch_partitions: 1_000,
            max_stream_partitions: 10_000,
            max_queued_topic_changes: 1_000,
        }
    }
}
