//! Stream processing over Logmill.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod aggregate;
pub mod backend;
mod clock;
mod codec;
mod engine;
mod error;
mod flow;
mod mill;
mod operator;
mod pipeline;
mod sqlite;
mod stats;
#[cfg(test)]
mod testing;
mod topic;
mod window;

use std::time::Duration;

pub use aggregate::Aggregate;
pub use error::{Error, ErrorKind};
pub use logmill_record::{Offset, TimestampMs};
pub use mill::{AtLeastOnce, Mill, Running};
pub use pipeline::{BuildError, KeyedStream, Pipeline, Plan, StepInfo, Stream, WindowedStream};
pub use sqlite::{Sqlite, UpsertTable};
pub use stats::{Delay, RunReport, StepStats};
pub use topic::{EventTime, SinkTopic, SourceTopic, Topic};
pub use window::{Tumbling, Windowed};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What can cross a topic, or be kept as state.
pub trait Data: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> Data for T {}

/// A number of milliseconds.
#[must_use]
pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A number of seconds.
#[must_use]
pub const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A number of minutes.
#[must_use]
pub const fn mins(mins: u64) -> Duration {
    Duration::from_secs(mins.saturating_mul(60))
}

/// A number of hours.
#[must_use]
pub const fn hours(hours: u64) -> Duration {
    mins(hours.saturating_mul(60))
}

/// A number of days of 24 hours.
#[must_use]
pub const fn days(days: u64) -> Duration {
    hours(days.saturating_mul(24))
}
