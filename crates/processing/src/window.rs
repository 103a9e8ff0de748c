//! Windows over event time, and what they yield.

use std::time::Duration;

use logmill_record::TimestampMs;
use serde::{Deserialize, Serialize};

/// Windows of one size, one after the other, without a gap: every time belongs to exactly one.
///
/// They are aligned to 1970-01-01T00:00:00Z, so one-day windows are UTC days. A window contains its start and not
/// its end, and closes when the watermark reaches its end: see [time](crate#time).
///
/// ```
/// use logmill_processing::{Tumbling, days};
///
/// let per_day = Tumbling::of(days(1)).late_to("visits.late");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Tumbling {
    pub(crate) size: Duration,
    pub(crate) late_to: Option<String>,
}

impl Tumbling {
    /// Windows of `size`, in whole milliseconds; anything less than one is refused by
    /// [`build`](crate::Pipeline::build).
    pub fn of(size: Duration) -> Self {
        Self { size, late_to: None }
    }

    /// Where records go whose window is closed already: instead of `<pipeline>.<step>.late`, this topic.
    pub fn late_to(mut self, topic: impl Into<String>) -> Self {
        self.late_to = Some(topic.into());
        self
    }
}

/// The result for one key and one window.
///
/// ```
/// # use logmill_processing::{TimestampMs, Windowed};
/// let hits = Windowed { key: "/home", start: TimestampMs(0), end: TimestampMs(60_000), value: 17_u64 };
/// assert!(hits.start < hits.end);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Windowed<K, V> {
    /// The key.
    pub key: K,
    /// The first millisecond of the window.
    #[serde(with = "as_ms")]
    pub start: TimestampMs,
    /// The first millisecond after it. The result's own time is one less.
    #[serde(with = "as_ms")]
    pub end: TimestampMs,
    /// What was aggregated.
    pub value: V,
}

mod as_ms {
    use logmill_record::TimestampMs;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde's `with` calls")]
    pub(super) fn serialize<S: Serializer>(time: &TimestampMs, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(time.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TimestampMs, D::Error> {
        i64::deserialize(deserializer).map(TimestampMs)
    }
}
