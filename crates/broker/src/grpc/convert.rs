//! Fields of messages, checked and made what the broker takes, and back.

use logmill_proto::v1;
use logmill_record::{Offset, TimestampMs, TimestampType};

use crate::error::Error;
use crate::fetch::Isolation;
use crate::topic::{Position, Setting, SettingSource, Topic};

/// A number that cannot be negative.
pub(super) fn not_negative<T: TryFrom<i64>>(field: &'static str, value: impl Into<i64>) -> Result<T, Error> {
    let value = value.into();
    let converted = if value < 0 { None } else { T::try_from(value).ok() };
    converted.ok_or_else(|| Error::field(field, value, "it cannot be negative"))
}

/// A number that is at least 1.
pub(super) fn positive(field: &'static str, value: i64) -> Result<u64, Error> {
    u64::try_from(value)
        .ok()
        .filter(|value| *value > 0)
        .ok_or_else(|| Error::field(field, value, "it is at least 1"))
}

pub(super) fn partition(value: i32) -> Result<u32, Error> {
    u32::try_from(value).map_err(|_| Error::field("partition", value, "partitions are numbered from 0"))
}

/// The value of an enum that this version knows.
pub(super) fn known<T: TryFrom<i32>>(field: &'static str, value: i32) -> Result<T, Error> {
    T::try_from(value).map_err(|_| Error::field(field, value, "this version has no such value"))
}

pub(super) fn position(position: Option<v1::Position>) -> Result<Position, Error> {
    use v1::position::{At, Edge};
    const RULE: &str = "say where to read: an offset, a timestamp, or an edge";
    match position.and_then(|position| position.at) {
        Some(At::Offset(offset)) => Offset::try_from(offset)
            .map(Position::Offset)
            .map_err(|_| Error::field("offset", offset, "an offset is at least 0")),
        Some(At::TimestampMs(at)) => Ok(Position::Time(TimestampMs(at))),
        Some(At::Edge(edge)) => match known("edge", edge)? {
            Edge::Earliest => Ok(Position::Earliest),
            Edge::Latest => Ok(Position::Latest),
            Edge::Unspecified => Err(Error::missing("edge", "it is the earliest or the latest")),
        },
        None => Err(Error::missing("position", RULE)),
    }
}

/// Which records of transactions a reader sees.
pub(super) fn to_isolation(value: i32) -> Result<Isolation, Error> {
    Ok(match known("isolation", value)? {
        v1::Isolation::Unspecified | v1::Isolation::ReadCommitted => Isolation::ReadCommitted,
        v1::Isolation::ReadUncommitted => Isolation::ReadUncommitted,
    })
}

/// A count of bytes or files: no disk holds more than an `i64` can say.
pub(super) fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A number of a partition, or of partitions, of which a topic has at most 10,000, or of other things that are few.
pub(super) fn number(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

impl From<Topic> for v1::Topic {
    fn from(topic: Topic) -> Self {
        Self {
            name: topic.name,
            topic_id: topic.id.to_string(),
            partition_count: number(topic.partition_count),
            created_at_ms: topic.created_at.get(),
            settings: topic.settings.into_iter().map(Into::into).collect(),
            internal: topic.internal,
        }
    }
}

impl From<Setting> for v1::Setting {
    fn from(setting: Setting) -> Self {
        let source = match setting.source {
            SettingSource::Default => v1::SettingSource::Default,
            SettingSource::Node => v1::SettingSource::Node,
            SettingSource::Topic => v1::SettingSource::Topic,
        };
        Self { name: setting.name.to_owned(), value: setting.value, source: source.into() }
    }
}

pub(super) fn timestamp_type(timestamp_type: TimestampType) -> i32 {
    match timestamp_type {
        TimestampType::CreateTime => v1::TimestampType::CreateTime.into(),
        TimestampType::LogAppendTime => v1::TimestampType::LogAppendTime.into(),
    }
}
