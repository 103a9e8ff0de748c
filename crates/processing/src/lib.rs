//! Stream processing over Logmill: typed pipelines, event time, windows, results in SQLite and in topics.
//!
//! A [`Pipeline`] describes what is to happen to the records of topics; [`build`](Pipeline::build) checks it and gives a
//! [`Plan`]; a [`Mill`] runs the plan: on a broker in the same process, or on a node over the network.
//!
//! ```
//! use std::sync::Arc;
//!
//! use logmill_broker::{Acks, Broker, Config, CreateTopic, Payload, Produce, ProduceRecord, RequestContext};
//! use logmill_processing::backend::Embedded;
//! use logmill_processing::{AtLeastOnce, Mill, Pipeline, Sqlite, Topic, Tumbling, millis, mins, secs};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Hit {
//!     page: String,
//!     at: i64, // ms since 1970
//! }
//!
//! #[derive(Serialize, Deserialize)]
//! struct PerMinute {
//!     page: String,
//!     start: i64,
//!     hits: u64,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let (data, stats) = (dir.path().join("data"), dir.path().join("stats.db"));
//! // A broker in this process, and some hits.
//! let broker = Broker::open(Config::new(data))?;
//! let context = RequestContext::embedded();
//! broker.create_topic(&context, CreateTopic::new("hits")).await?;
//! let hit = |page: &str, at| serde_json::to_vec(&Hit { page: page.to_owned(), at });
//! let mut records = Vec::new();
//! for value in [hit("/home", 1_000)?, hit("/home", 2_000)?, hit("/docs", 61_000)?, b"not a hit".to_vec()] {
//!     records.push(ProduceRecord { value: Some(value.into()), ..ProduceRecord::default() });
//! }
//! let (topic, payload) = ("hits".to_owned(), Payload::Records(records));
//! broker.produce(&context, Produce { topic, partition: None, payload, acks: Acks::Durable, sent_at: None }).await?;
//!
//! // Hits per page and minute, as a table.
//! let hits = Pipeline::new("hits");
//! hits.source(Topic::json::<Hit>("hits").time(|hit| hit.at).disorder(secs(5)))
//!     .key_by(|hit| hit.page.clone())
//!     .window(Tumbling::of(mins(1)))
//!     .count("per_minute")
//!     .map(|w| PerMinute { page: w.key, start: w.start.0, hits: w.value })
//!     .sink("stats", Sqlite::upsert::<PerMinute>(&stats, "hits").key(["page", "start"]));
//! let plan = hits.build()?;
//!
//! let mill = Mill::new(Arc::new(Embedded::new(broker.clone())));
//! let report = mill.run_to_end(&plan, AtLeastOnce::every(millis(100))).await?;
//!
//! assert_eq!(report.records_in(), 4);
//! assert_eq!(report.dead(), 1); // "not a hit" is in topic hits.dead now, with the reason
//! let db = rusqlite::Connection::open(&stats)?;
//! let home: i64 = db.query_row("SELECT hits FROM hits WHERE page = '/home'", [], |row| row.get(0))?;
//! assert_eq!(home, 2);
//! # drop(mill);
//! broker.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Time
//!
//! Windows are about *event time*: what the source's `time` takes out of a value, else the record's own timestamp. The
//! **watermark** says how far event time has certainly come; a window closes, and yields its results, when the
//! watermark reaches its end.
//!
//! * A partition's watermark is its largest event time less the source's `disorder`, and the source's is the smallest
//!   of its partitions'. So a record within `disorder` of the largest time before it in its own partition is never
//!   late, in whatever order partitions are read; only silence can change that:
//! * a partition that was silent for `idle`, and has nothing more to read, stops holding the others back; when all are
//!   silent, the watermark goes on with the clock.
//! * A record whose window is closed is **late**: it is counted, and goes to the topic `<pipeline>.<step>.late`, or to
//!   the one that [`late_to`](Tumbling::late_to) names.
//! * A time more than an hour after the node stored the record is not believed: a dead letter. That is decided when
//!   it is first handled, and kept: a node may know the time of storing less exactly later.
//!
//! [`run_to_end`](Mill::run_to_end) ends where the topics end when it starts. Open windows then yield what they have
//! so far, and stay open: a later run counts on, and its results replace those.
//!
//! # Records that cannot be processed
//!
//! A record that cannot be decoded, that a [`try_map`](Stream::try_map) refuses, that makes a closure panic, or whose row
//! SQLite cannot hold, is a **dead letter**: it goes to the topic `<pipeline>.dead` as it came, with its own key, value,
//! timestamp and headers, and the pipeline goes on. These headers are added (to late records too):
//!
//! | header | value |
//! |---|---|
//! | `logmill.origin.topic` | the topic it was read from |
//! | `logmill.origin.partition`, `logmill.origin.offset` | its place there, as decimal text |
//! | `logmill.step` | the step that set it aside; `source:<topic>` if it could not be decoded |
//! | `logmill.error` | why; at most 1,024 bytes |
//! | `logmill.window.start`, `logmill.window.end` | in ms: of a late record, the window that is closed; of a letter from behind a window, the one whose result it was |
//! | `logmill.value.omitted` | how many bytes the value had, if the letter was too large for the node with it |
//!
//! The result of a window is made of many records: a letter about one has no key, no value and no offset.
//!
//! # Restarts
//!
//! With the rows, in the same SQLite transaction, go per source partition the read position, the replay position (the
//! smallest offset that an open window needs), the offsets in between that were refused for their time, and the closed
//! watermark. A run that follows, after a crash or an orderly end, reads from the replay position; what was handled
//! before goes into the windows that were open, and nowhere else. A window that was committed as closed is not emitted
//! again. So:
//!
//! * **rows** of an SQLite table show every record once, wherever a run is killed;
//! * **records** in topics (results, late ones, dead letters) are durable before that commit, and can come twice if a
//!   run dies in between: at-least-once, under the same keys if [`key`](SinkTopic::key) makes them of what the result
//!   is about.
//!
//! This needs closures that are functions of their arguments alone. The position is found by the pipeline's name, in
//! the file of its SQLite sinks, in tables that start with `logmill_`; a pipeline without such a sink cannot be built
//! yet. A plan whose windowed steps have changed is refused rather than mixed up with its past. One run at a time: a
//! second one takes over, and the first is [told](ErrorKind::Fenced) at its next commit.
//!
//! # Features
//!
//! * `embedded` (default): pipelines on a `logmill_broker::Broker` in the same process;
//! * `remote` (default): pipelines on a node, through `logmill_client`, in the tokio runtime that the client lives in.
//!
//! Without both, the crate runs on any other [`Backend`](backend::Backend).

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
