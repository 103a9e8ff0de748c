//! The values of settings: each type knows its range, its text, and how to say what it takes.

use std::fmt;
use std::time::Duration;

use logmill_log::LogOptions;
use logmill_record::{Compression, TimestampType};

/// A day: long enough for a flush, and far from where sums of times overflow.
const MAX_FLUSH_MS: u64 = 24 * 60 * 60 * 1_000;
/// Two rows of an index: less makes more files than records are worth.
const MIN_SEGMENT_BYTES: u64 = 64 * 1024;
/// What the length of a batch can say.
const MAX_MESSAGE_BYTES: u64 = i32::MAX as u64;

/// A value that can be said as text. Its `Display` is the text in one form, which `parse` takes back.
pub(crate) trait Value: Clone + PartialEq + fmt::Display {
    /// What it can be, as the end of a sentence.
    const RULE: &'static str;

    fn parse(text: &str) -> Option<Self>;
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    // Not "+5", which parses: one form of each value is enough.
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// What becomes of old records. At least one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CleanupPolicy {
    pub(crate) compact: bool,
    pub(crate) delete: bool,
}

impl CleanupPolicy {
    pub(crate) const DELETE: Self = Self { compact: false, delete: true };

    /// With the policies of `other` too.
    pub(crate) fn with(self, other: Self) -> Self {
        Self { compact: self.compact || other.compact, delete: self.delete || other.delete }
    }

    /// Without those of `other`, if one is left.
    pub(crate) fn without(self, other: Self) -> Option<Self> {
        let left = Self { compact: self.compact && !other.compact, delete: self.delete && !other.delete };
        (left.compact || left.delete).then_some(left)
    }
}

impl Value for CleanupPolicy {
    const RULE: &'static str = "it is delete, compact, or compact,delete";

    fn parse(text: &str) -> Option<Self> {
        let mut policy = Self { compact: false, delete: false };
        for name in text.split(',') {
            let seen = match name.trim() {
                "compact" => &mut policy.compact,
                "delete" => &mut policy.delete,
                _ => return None,
            };
            if std::mem::replace(seen, true) {
                return None;
            }
        }
        Some(policy)
    }
}

impl fmt::Display for CleanupPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.compact, self.delete) {
            (true, true) => "compact,delete",
            (true, false) => "compact",
            (false, _) => "delete",
        })
    }
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompressionType {
    /// As the producer sent them.
    Producer,
    /// Like this, also "not at all".
    Topic(Compression),
}

impl Value for CompressionType {
    const RULE: &'static str = "it is producer, uncompressed, gzip, snappy, lz4 or zstd";

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "producer" => Self::Producer,
            "uncompressed" => Self::Topic(Compression::None),
            "gzip" => Self::Topic(Compression::Gzip),
            "snappy" => Self::Topic(Compression::Snappy),
            "lz4" => Self::Topic(Compression::Lz4),
            "zstd" => Self::Topic(Compression::Zstd),
            _ => return None,
        })
    }
}

impl fmt::Display for CompressionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Producer => f.write_str("producer"),
            Self::Topic(Compression::None) => f.write_str("uncompressed"),
            Self::Topic(codec) => codec.fmt(f),
        }
    }
}

/// When readers see a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    Durable,
    Relaxed,
}

impl Value for Durability {
    const RULE: &'static str = "it is durable or relaxed";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "durable" => Some(Self::Durable),
            "relaxed" => Some(Self::Relaxed),
            _ => None,
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Durable => "durable",
            Self::Relaxed => "relaxed",
        })
    }
}

/// Whose time the timestamps are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimestampKind(pub(crate) TimestampType);

impl Value for TimestampKind {
    const RULE: &'static str = "it is CreateTime or LogAppendTime";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "CreateTime" => Some(Self(TimestampType::CreateTime)),
            "LogAppendTime" => Some(Self(TimestampType::LogAppendTime)),
            _ => None,
        }
    }
}

impl fmt::Display for TimestampKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            TimestampType::CreateTime => "CreateTime",
            TimestampType::LogAppendTime => "LogAppendTime",
        })
    }
}

/// A part of the whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio(pub(crate) f64);

/// It is never "not a number".
impl Eq for Ratio {}

impl Value for Ratio {
    const RULE: &'static str = "it is a number from 0 to 1, such as 0.5";

    fn parse(text: &str) -> Option<Self> {
        number::<f64>(text).filter(|ratio| (0.0..=1.0).contains(ratio)).map(|ratio| Self(ratio.abs()))
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A whole number within bounds, as a type of its own.
macro_rules! whole {
    ($(#[$doc:meta])* $name:ident, $range:expr, $rule:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) struct $name(pub(crate) u64);

        impl Value for $name {
            const RULE: &'static str = $rule;

            fn parse(text: &str) -> Option<Self> {
                number(text).filter(|number| ($range).contains(number)).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

whole!(
    /// A length of time in milliseconds.
    Millis, 0..=i64::MAX.cast_unsigned(), "it is a number of milliseconds, at least 0"
);
whole!(
    /// How long an append may stay unsynced, in milliseconds.
    FlushMs, 1..=MAX_FLUSH_MS, "it is a number of milliseconds from 1 to 86400000"
);
whole!(
    /// A size of segments, in bytes.
    SegmentBytes, MIN_SEGMENT_BYTES..=LogOptions::MAX_SEGMENT_BYTES,
    "it is a number of bytes from 65536 to 1073741824"
);
whole!(
    /// A size of batches, in bytes.
    MessageBytes, 1..=MAX_MESSAGE_BYTES, "it is a number of bytes from 1 to 2147483647"
);

impl MessageBytes {
    pub(crate) fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Millis {
    pub(crate) fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// A bound that may be missing, which is −1 as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound(pub(crate) Option<u64>);

impl Bound {
    pub(crate) const NONE: Self = Self(None);

    pub(crate) fn duration(self) -> Option<Duration> {
        self.0.map(Duration::from_millis)
    }
}

impl Value for Bound {
    const RULE: &'static str = "it is a whole number, at least 0, or -1 for no limit";

    fn parse(text: &str) -> Option<Self> {
        match number::<i64>(text)? {
            -1 => Some(Self(None)),
            bound => u64::try_from(bound).ok().map(|bound| Self(Some(bound))),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bound) => bound.fmt(f),
            None => f.write_str("-1"),
        }
    }
}
