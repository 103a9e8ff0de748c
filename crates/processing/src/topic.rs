//! Topics, as a pipeline names them: where it reads and where it writes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use logmill_record::TimestampMs;

use crate::Data;
use crate::codec::Codec;

/// How long a partition may be silent before it stops holding back the watermark, unless the source says.
const DEFAULT_IDLE: Duration = Duration::from_secs(10);

pub(crate) type TimeOf<T> = Arc<dyn Fn(&T) -> Option<i64> + Send + Sync>;
pub(crate) type KeyOf<T> = Arc<dyn Fn(&T) -> Vec<u8> + Send + Sync>;

/// A topic and how its values are encoded: a source for [`Pipeline::source`](crate::Pipeline::source), or where
/// [`Stream::to`](crate::Stream::to) writes.
///
/// ```
/// use logmill_processing::{Topic, secs};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Hit {
///     page: String,
///     at: i64,
/// }
///
/// let read = Topic::json::<Hit>("hits").time(|hit| hit.at).disorder(secs(5)).idle(secs(2));
/// let write = Topic::json::<Hit>("hits.clean").key(|hit| hit.page.clone());
/// ```
#[must_use]
pub struct Topic<T = ()> {
    pub(crate) name: String,
    pub(crate) codec: Codec<T>,
}

impl Topic {
    /// Values are JSON, one document each. A value that is not what `T` expects is a
    /// [dead letter](crate#records-that-cannot-be-processed). JSON has no NaN and no infinity: written, they are
    /// `null`.
    pub fn json<T: Data>(name: impl Into<String>) -> Topic<T> {
        Topic { name: name.into(), codec: Codec::json() }
    }

    /// Values are bytes as they are. A record without a value (null) is a dead letter.
    pub fn bytes(name: impl Into<String>) -> Topic<Bytes> {
        Topic { name: name.into(), codec: Codec::bytes() }
    }
}

impl<T> Topic<T> {
    /// As a source: [`SourceTopic::time`].
    pub fn time<M: EventTime>(self, time: impl Fn(&T) -> M + Send + Sync + 'static) -> SourceTopic<T> {
        SourceTopic::from(self).time(time)
    }

    /// As a source: [`SourceTopic::disorder`].
    pub fn disorder(self, disorder: Duration) -> SourceTopic<T> {
        SourceTopic::from(self).disorder(disorder)
    }

    /// As a source: [`SourceTopic::idle`].
    pub fn idle(self, idle: Duration) -> SourceTopic<T> {
        SourceTopic::from(self).idle(idle)
    }

    /// To write to: [`SinkTopic::key`].
    pub fn key<K: AsRef<[u8]>>(self, key: impl Fn(&T) -> K + Send + Sync + 'static) -> SinkTopic<T> {
        SinkTopic::from(self).key(key)
    }
}

impl<T> fmt::Debug for Topic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic").field("name", &self.name).field("codec", &self.codec.name).finish()
    }
}

/// A topic to read, with what the engine has to know about its time.
#[must_use]
pub struct SourceTopic<T> {
    pub(crate) topic: Topic<T>,
    pub(crate) time: Option<TimeOf<T>>,
    pub(crate) disorder: Duration,
    pub(crate) idle: Duration,
}

impl<T> SourceTopic<T> {
    /// Takes the event time out of the value; without this it is the record's own timestamp. `None` makes the
    /// record a dead letter.
    pub fn time<M: EventTime>(mut self, time: impl Fn(&T) -> M + Send + Sync + 'static) -> Self {
        self.time = Some(Arc::new(move |value| time(value).event_time().map(|time| time.0)));
        self
    }

    /// How far behind the largest time before it in its partition a record may come and never be late. Default: 0.
    pub fn disorder(mut self, disorder: Duration) -> Self {
        self.disorder = disorder;
        self
    }

    /// How long a partition may be silent before windows close without it. Default: 10 s.
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }
}

impl<T> From<Topic<T>> for SourceTopic<T> {
    fn from(topic: Topic<T>) -> Self {
        Self { topic, time: None, disorder: Duration::ZERO, idle: DEFAULT_IDLE }
    }
}

impl<T> fmt::Debug for SourceTopic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceTopic")
            .field("topic", &self.topic)
            .field("disorder", &self.disorder)
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}

/// A topic to write to, with the key of its records.
#[must_use]
pub struct SinkTopic<T> {
    pub(crate) topic: Topic<T>,
    pub(crate) key: Option<KeyOf<T>>,
}

impl<T> SinkTopic<T> {
    /// The key of each record, which decides its partition as in Kafka's clients. Without it records have no key
    /// and are spread over the partitions.
    ///
    /// A step that is repeated after a crash writes its records again: with a key made of what the result is about
    /// (its own key and window), readers can tell the second copy from news.
    pub fn key<K: AsRef<[u8]>>(mut self, key: impl Fn(&T) -> K + Send + Sync + 'static) -> Self {
        self.key = Some(Arc::new(move |value| key(value).as_ref().to_vec()));
        self
    }
}

impl<T> From<Topic<T>> for SinkTopic<T> {
    fn from(topic: Topic<T>) -> Self {
        Self { topic, key: None }
    }
}

impl<T> fmt::Debug for SinkTopic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkTopic").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// What an event time can be given as: milliseconds since 1970-01-01 UTC, or nothing.
pub trait EventTime {
    /// The time; `None` if the record has none.
    fn event_time(self) -> Option<TimestampMs>;
}

impl EventTime for TimestampMs {
    fn event_time(self) -> Option<TimestampMs> {
        Some(self)
    }
}

impl EventTime for i64 {
    fn event_time(self) -> Option<TimestampMs> {
        Some(TimestampMs(self))
    }
}

impl<T: EventTime> EventTime for Option<T> {
    fn event_time(self) -> Option<TimestampMs> {
        self.and_then(T::event_time)
    }
}
