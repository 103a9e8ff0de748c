//! What is in force for a topic, and what follows from it for its logs and for what comes in.

use std::time::Duration;

use logmill_log::{CompactionOptions, Durability as LogDurability, LogOptions};
use logmill_record::{BatchBuilder, BatchOptions, Compression, NewRecord, TimestampMs, TimestampType};

use super::values::{Bound, CompressionType, Durability};
use super::{SettingName, TopicSettings, Values};
use crate::config::Config;
use crate::error::{Error, Reason};
use crate::limits::{Bounds, Limit};
use crate::topic::{Setting, SettingSource};

/// The age at which a compacted topic goes on in a new segment if it says nothing, as Kafka's `segment.ms`:
/// only what lies in older segments is compacted, and a slow topic would never be.
const COMPACTED_SEGMENT_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// Room for 262,144 keys: a log with more of them is compacted in several rounds. All logs together have the
/// set's room, which is that of eight.
const KEY_MAP_BYTES: usize = 8 * 1024 * 1024;

/// The settings in force for a topic.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Effective(Values);

/// What is asked of records that come in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
    pub(crate) max_message_bytes: usize,
    /// The node's time in place of the records' own.
    pub(crate) append_time: bool,
    /// The codec of every batch; `None` takes any.
    pub(crate) compression: Option<Compression>,
    /// Every record has a key.
    pub(crate) needs_key: bool,
}

impl Effective {
    /// Of a topic with `settings` on a node with `config`.
    pub(crate) fn new(config: &Config, settings: &TopicSettings) -> Self {
        let node = config.node_settings();
        let mut values = Values::of(settings, &node);
        let says = settings.segment_ms.is_some() || node.segment_ms.is_some();
        if values.cleanup_policy.compact && !says {
            values.segment_ms = Bound(Some(COMPACTED_SEGMENT_MS));
        }
        Self(values)
    }

    /// How the topic's logs work.
    pub(crate) fn log_options(&self) -> LogOptions {
        let values = &self.0;
        let deletes = |bound: Bound| if values.cleanup_policy.delete { bound } else { Bound::NONE };
        let compaction = values.cleanup_policy.compact.then(|| {
            CompactionOptions::default()
                .min_dirty_ratio(values.min_cleanable_dirty_ratio.0)
                .min_age(values.min_compaction_lag_ms.duration())
                .delete_retention(values.delete_retention_ms.duration())
                .key_map_bytes(KEY_MAP_BYTES)
        });
        let durability = match values.durability {
            Durability::Durable => LogDurability::Durable,
            Durability::Relaxed => {
                LogDurability::Relaxed { flush_interval: Duration::from_millis(values.flush_ms.0) }
            }
        };
        LogOptions::default()
            .segment_bytes(values.segment_bytes.0)
            .segment_age(values.segment_ms.duration())
            .retention_age(deletes(values.retention_ms).duration())
            .retention_bytes(deletes(values.retention_bytes).0)
            .compaction(compaction)
            .durability(durability)
    }

    /// What is asked of records.
    pub(crate) fn rules(&self) -> Rules {
        let values = &self.0;
        Rules {
            max_message_bytes: values.max_message_bytes.bytes(),
            append_time: values.message_timestamp_type.0 == TimestampType::LogAppendTime,
            compression: match values.compression_type {
                CompressionType::Producer => None,
                CompressionType::Topic(codec) => Some(codec),
            },
            needs_key: values.cleanup_policy.compact,
        }
    }

    /// Each setting with where its value comes from.
    pub(crate) fn described(config: &Config, settings: &TopicSettings) -> Vec<Setting> {
        let Self(values) = Self::new(config, settings);
        let node = config.node_settings();
        let source = |name| {
            if settings.text(name).is_some() {
                SettingSource::Topic
            } else if node.text(name).is_some() {
                SettingSource::Node
            } else {
                SettingSource::Default
            }
        };
        let setting = |name: &SettingName| Setting {
            name: name.as_str(),
            value: values.text(*name),
            source: source(*name),
        };
        SettingName::ALL.iter().map(setting).collect()
    }
}

impl TopicSettings {
    /// Whether a node with these bounds can do what a topic with these settings asks for. Only asked when they are
    /// made: what a topic has is kept, also by a node that is told less.
    pub(crate) fn check(&self, bounds: &Bounds) -> Result<(), Error> {
        if let Some(bytes) = self.max_message_bytes {
            let name = SettingName::MaxMessageBytes;
            let (doing, advice) = (|| format!("a {name} of {bytes}"), "set less, or the limit higher");
            bounds
                .check(Limit::MaxBatchBytes, bytes.bytes(), doing, advice)
                .map_err(|error| error.with("setting", name))?;
        }
        match self.compression_type {
            Some(CompressionType::Topic(codec)) => check_codec(codec),
            _ => Ok(()),
        }
    }
}

/// Whether the program was built with the codec.
fn check_codec(codec: Compression) -> Result<(), Error> {
    let mut batch = BatchBuilder::with_options(BatchOptions::new().compression(codec), 0);
    let record = NewRecord { timestamp: TimestampMs(0), key: None, value: None, headers: &[] };
    let built = batch.push(&record).and_then(|()| batch.build());
    built.map(drop).map_err(|error| {
        let name = SettingName::CompressionType;
        Error::new(Reason::SettingInvalid, format!("the setting {name} cannot be {codec}: {error}"))
            .with("setting", name)
            .with("value", codec)
            .because(error)
    })
}
