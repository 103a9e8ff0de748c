//! The builder: a pipeline is described first, and bound to a node when it runs.
//!
//! [`Pipeline::source`] starts a [`Stream`]; each of its methods adds a step and gives the stream behind it.
//! [`Pipeline::build`] checks the whole and gives a [`Plan`]. Closures are `Fn + Send + Sync + 'static` and synchronous;
//! they should be functions of their arguments alone, because records are processed again after a restart.

mod check;
mod graph;
mod plan;
mod stream;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

pub use check::BuildError;
pub use plan::{Plan, StepInfo};
pub use stream::{KeyedStream, Stream, WindowedStream};

use crate::operator::SourceDecoder;
use crate::topic::SourceTopic;
pub(crate) use graph::SourceSpec;
use graph::{Graph, Node, Role};

/// A pipeline that is being described.
///
/// Its name stays the same from run to run: by it the pipeline finds its position again, and it begins the names of
/// the pipeline's own topics.
///
/// ```
/// use logmill_processing::{Pipeline, Sqlite, Topic, Tumbling, mins, secs};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Hit {
///     page: String,
///     at: i64,
/// }
///
/// #[derive(Serialize, Deserialize)]
/// struct PerMinute {
///     page: String,
///     start: i64,
///     hits: u64,
/// }
///
/// let hits = Pipeline::new("hits");
/// hits.source(Topic::json::<Hit>("hits").time(|hit| hit.at).disorder(secs(5)).idle(secs(2)))
///     .key_by(|hit| hit.page.clone())
///     .window(Tumbling::of(mins(1)).late_to("hits.late"))
///     .count("per_minute")
///     .map(|w| PerMinute { page: w.key, start: w.start.0, hits: w.value })
///     .sink("stats", Sqlite::upsert::<PerMinute>("stats.db", "hits").key(["page", "start"]));
/// let plan = hits.build()?;
///
/// assert_eq!(plan.steps().last().map(|step| step.name.as_str()), Some("stats"));
/// # Ok::<(), logmill_processing::BuildError>(())
/// ```
pub struct Pipeline {
    name: String,
    graph: Arc<Mutex<Graph>>,
}

impl Pipeline {
    /// An empty pipeline.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), graph: Arc::default() }
    }

    /// Reads a topic. A pipeline reads each topic once: what needs it twice takes a clone of the stream.
    pub fn source<T: Send + 'static>(&self, topic: impl Into<SourceTopic<T>>) -> Stream<T> {
        let SourceTopic { topic, time, disorder, idle } = topic.into();
        let codec = topic.codec;
        let parameters = BTreeMap::from([
            ("topic", topic.name.clone()),
            ("codec", codec.name.to_owned()),
            ("disorder", format!("{disorder:?}")),
            ("idle", format!("{idle:?}")),
            ("time", if time.is_some() { "of the value" } else { "of the record" }.to_owned()),
        ]);
        let role = Role::Source(SourceSpec {
            topic: topic.name,
            disorder,
            idle,
            make: Arc::new(move |partitions| Box::new(SourceDecoder::new(codec, time.clone(), partitions))),
        });
        let node = Node { name: None, kind: "source", parameters, input: None, role, copy: None };
        Stream::add(&self.graph, |_| node)
    }

    /// Checks what was described: names, loose ends, tables, and where the position is kept.
    ///
    /// # Errors
    /// The first thing that cannot work.
    pub fn build(&self) -> Result<Plan, BuildError> {
        check::build(&self.name, &self.graph.lock().nodes)
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("name", &self.name)
            .field("steps", &self.graph.lock().nodes.len())
            .finish()
    }
}
