//! Settings of topics: which there are, what they can be, and what is in force.
//!
//! A setting has a name, Kafka's where Kafka has it, and its value travels as text. A topic keeps only what
//! was set on it ([`TopicSettings`]); what is not set there is the node's, or the default of this version,
//! and is looked up anew at each start, so that a better default reaches the topics that there are.
//!
//! [`values`] has the types of the values, [`effective`] what follows from all of them together, [`change`]
//! what an alteration says.

mod change;
mod effective;
#[cfg(test)]
mod tests;
mod values;

use std::fmt;

pub use change::{Change, SettingChange};
pub(crate) use effective::{Effective, Rules};
use logmill_record::TimestampType;
use values::{
    Bound, CleanupPolicy, CompressionType, Durability, FlushMs, Millis, Ratio, TimestampKind, Value,
};
pub(crate) use values::{MessageBytes, SegmentBytes};

use crate::config::{DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_SEGMENT_BYTES};
use crate::error::{Error, Reason, shorten};

/// The table of settings, in order of their names: all that has to be said for each of them is made from it.
macro_rules! settings {
    ($($(#[$doc:meta])+ $name:ident $text:literal $field:ident: $type:ty = $default:expr;)+) => {
        /// Which setting of a topic.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum SettingName {
            $($(#[$doc])+ $name,)+
        }

        impl SettingName {
            /// Every setting, in order of the names.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name as it is written, such as `retention.ms`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// What its value can be, as the end of a sentence.
            const fn rule(self) -> &'static str {
                match self {
                    $(Self::$name => <$type as Value>::RULE,)+
                }
            }
        }

        /// The settings that were made, each by hand, for a topic or for all topics of a node.
        ///
        /// ```
        /// use logmill_broker::TopicSettings;
        ///
        /// let settings = TopicSettings::new([("retention.ms", "86400000"), ("cleanup.policy", "delete")])?;
        /// assert_eq!(settings.iter().next(), Some(("cleanup.policy", "delete".to_owned())));
        /// assert!(TopicSettings::new([("retention.ms", "soon")]).is_err());
        /// # Ok::<(), logmill_broker::Error>(())
        /// ```
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct TopicSettings {
            $(pub(crate) $field: Option<$type>,)+
        }

        impl TopicSettings {
            /// Sets one by its text. `None` if that is no value of it.
            fn put(&mut self, name: SettingName, text: &str) -> Option<()> {
                match name {
                    $(SettingName::$name => self.$field = Some(Value::parse(text)?),)+
                }
                Some(())
            }

            /// Takes one back.
            fn clear(&mut self, name: SettingName) {
                match name {
                    $(SettingName::$name => self.$field = None,)+
                }
            }

            /// The text of one, if it is set.
            fn text(&self, name: SettingName) -> Option<String> {
                match name {
                    $(SettingName::$name => self.$field.as_ref().map(ToString::to_string),)+
                }
            }
        }

        /// What is in force: each setting has a value.
        #[derive(Clone, Debug, PartialEq)]
        struct Values {
            $($field: $type,)+
        }

        impl Values {
            fn of(topic: &TopicSettings, node: &TopicSettings) -> Self {
                Self {
                    $($field: topic.$field.clone().or_else(|| node.$field.clone()).unwrap_or($default),)+
                }
            }

            fn text(&self, name: SettingName) -> String {
                match name {
                    $(SettingName::$name => self.$field.to_string(),)+
                }
            }
        }
    };
}

settings! {
    /// What becomes of old records: `delete` takes them by age and size, `compact` all but the last of each key.
    CleanupPolicy "cleanup.policy" cleanup_policy: CleanupPolicy = CleanupPolicy::DELETE;
    /// How batches are compressed; `producer` leaves it to them.
    CompressionType "compression.type" compression_type: CompressionType = CompressionType::Producer;
    /// How long a compacted topic keeps the deletion of a key, in milliseconds.
    DeleteRetentionMs "delete.retention.ms" delete_retention_ms: Millis = Millis(24 * 60 * 60 * 1_000);
    /// Whether readers see a record once it is on disk (`durable`) or once it is written (`relaxed`).
    Durability "durability" durability: Durability = Durability::Durable;
    /// How long a record of a relaxed topic may stay unsynced, in milliseconds.
    FlushMs "flush.ms" flush_ms: FlushMs = FlushMs(1_000);
    /// The largest record batch, in bytes.
    MaxMessageBytes "max.message.bytes" max_message_bytes: MessageBytes =
        MessageBytes(DEFAULT_MAX_MESSAGE_BYTES as u64);
    /// Whether a record's timestamp is its producer's or the time of its append.
    MessageTimestampType "message.timestamp.type" message_timestamp_type: TimestampKind =
        TimestampKind(TimestampType::CreateTime);
    /// The part of a compacted topic that has to be new before it is compacted again.
    MinCleanableDirtyRatio "min.cleanable.dirty.ratio" min_cleanable_dirty_ratio: Ratio = Ratio(0.5);
    /// How long compaction leaves every record alone, in milliseconds.
    MinCompactionLagMs "min.compaction.lag.ms" min_compaction_lag_ms: Millis = Millis(0);
    /// How much of a partition is kept, in bytes.
    RetentionBytes "retention.bytes" retention_bytes: Bound = Bound::NONE;
    /// How long records are kept, in milliseconds after their append.
    RetentionMs "retention.ms" retention_ms: Bound = Bound::NONE;
    /// The size at which a partition goes on in a new file, in bytes.
    SegmentBytes "segment.bytes" segment_bytes: SegmentBytes = SegmentBytes(DEFAULT_SEGMENT_BYTES);
    /// The age at which it does, in milliseconds.
    SegmentMs "segment.ms" segment_ms: Bound = Bound::NONE;
}

impl SettingName {
    /// The setting of that name.
    pub(crate) fn find(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|name| name.as_str() == text)
    }

    /// The same, with an error that lists what there is.
    fn named(text: &str) -> Result<Self, Error> {
        Self::find(text).ok_or_else(|| {
            let shown = shorten(text);
            let all: Vec<&str> = Self::ALL.iter().map(|name| name.as_str()).collect();
            let message = format!("there is no setting {shown:?}: there are {}", all.join(", "));
            Error::new(Reason::SettingInvalid, message).with("setting", shown)
        })
    }

    /// It cannot be `value`, because of `rule`.
    fn refuse(self, value: &str, rule: &str) -> Error {
        let shown = shorten(value);
        let message = format!("the setting {self} cannot be {shown:?}: {rule}");
        Error::new(Reason::SettingInvalid, message).with("setting", self).with("value", shown)
    }

    fn named_twice(self) -> Error {
        let message = format!("the setting {self} is in the request twice: name it once");
        Error::new(Reason::SettingInvalid, message).with("setting", self)
    }
}

impl fmt::Display for SettingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TopicSettings {
    /// Settings by their names, each once.
    ///
    /// # Errors
    /// [`SettingInvalid`](Reason::SettingInvalid) for a name that there is not, a name that comes twice, or a
    /// value that it cannot have.
    pub fn new<N: AsRef<str>, V: AsRef<str>>(
        settings: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, Error> {
        let mut made = Self::default();
        for (name, value) in settings {
            let name = SettingName::named(name.as_ref())?;
            if made.text(name).is_some() {
                return Err(name.named_twice());
            }
            made.set(name, value.as_ref())?;
        }
        Ok(made)
    }

    /// Sets one.
    ///
    /// # Errors
    /// [`SettingInvalid`](Reason::SettingInvalid) if it cannot have that value.
    pub fn set(&mut self, name: SettingName, value: &str) -> Result<(), Error> {
        self.put(name, value.trim()).ok_or_else(|| name.refuse(value, name.rule()))
    }

    /// Those that are set, by name, each in its one form.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        SettingName::ALL.iter().filter_map(|name| Some((name.as_str(), self.text(*name)?)))
    }

    /// One that was stored. `None` if this version has no such name, or the name no such value.
    pub(crate) fn put_stored(&mut self, name: &str, value: &str) -> Option<()> {
        self.put(SettingName::find(name)?, value)
    }
}
