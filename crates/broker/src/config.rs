//! What a broker can be told, and the defaults.

use std::path::PathBuf;
use std::time::Duration;

use logmill_log::LogOptions;
use logmill_log::env::Env;

use crate::catalog::OnOpen;
use crate::error::OpenError;
use crate::limits::{Bounds, Limit, Limits};
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

/// The default of [`Config::producer_id_expiration`], which is Kafka's: a day.
pub const DEFAULT_PRODUCER_ID_EXPIRATION: Duration = Duration::from_hours(24);

/// The default of [`Config::stall_timeout`]: 30 s.
pub const DEFAULT_STALL_TIMEOUT: Duration = Duration::from_secs(30);

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
    /// A partition forgets an idempotent producer that has sent it nothing for so long:
    /// `producer.id.expiration.ms`. What it sends again after that is stored again.
    pub producer_id_expiration: Duration,
    /// How long a client may keep what others need. A connection is cut that has not begun to speak HTTP/2 so
    /// long after it was made; and, when memory for replies or for requests runs out, one that has kept some of
    /// it for so long, because its client does not read what it asked for, or does not finish what it began to
    /// send.
    pub stall_timeout: Duration,
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
            producer_id_expiration: DEFAULT_PRODUCER_ID_EXPIRATION,
            stall_timeout: DEFAULT_STALL_TIMEOUT,
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

    /// Whether a node can work like this. Settings of topics that there are may ask for more than it would
    /// give to new ones.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        if let Some(limit) = Limit::ALL.iter().find(|limit| self.limits.get(**limit) == 0) {
            return Err(OpenError::limit_of_nothing(*limit));
        }
        let mut settings = self.node_settings();
        settings.max_message_bytes.get_or_insert(MessageBytes(self.max_message_bytes as u64));
        settings.check(&Bounds::new(self.limits.clone())).map_err(OpenError::topic_default)
    }
}
