//! Streams: handles into the graph that a pipeline is described by.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use super::graph::{Graph, MakeOperator, Node, Role};
use crate::Data;
use crate::aggregate::{Aggregate, Count};
use crate::flow::watermark::millis;
use crate::operator::{self, Each, Erased, NodeId, TableSink, TopicSink, WindowOperator};
use crate::sqlite::UpsertTable;
use crate::topic::SinkTopic;
use crate::window::{Tumbling, Windowed};

/// The records that a step yields, on their way to the next.
///
/// A stream has to end somewhere: [`build`](super::Pipeline::build) refuses one that leads nowhere. A clone is a second
/// way for the same records.
///
/// ```
/// use logmill_processing::{Pipeline, Sqlite, Topic};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Reading {
///     sensor: String,
///     celsius: f64,
/// }
///
/// let readings = Pipeline::new("readings");
/// let all = readings.source(Topic::json::<Reading>("readings"));
/// all.clone()
///     .filter(|reading| reading.celsius > 80.0)
///     .to("hot", Topic::json::<Reading>("readings.hot").key(|reading| reading.sensor.clone()));
/// all.sink("latest", Sqlite::upsert::<Reading>("readings.db", "latest").key(["sensor"]));
/// # readings.build()?;
/// # Ok::<(), logmill_processing::BuildError>(())
/// ```
#[must_use = "a stream that leads nowhere is refused when the pipeline is built"]
pub struct Stream<T> {
    graph: Arc<Mutex<Graph>>,
    node: NodeId,
    of: PhantomData<fn() -> T>,
}

impl<T: Clone + Send + 'static> Clone for Stream<T> {
    fn clone(&self) -> Self {
        self.graph.lock().nodes[self.node.0].copy = Some(operator::copy::<T>);
        self.another()
    }
}

impl<T> fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.node).finish()
    }
}

impl<T> Stream<T> {
    /// Adds a node, which may want to know its own id.
    pub(super) fn add(graph: &Arc<Mutex<Graph>>, node: impl FnOnce(NodeId) -> Node) -> Self {
        let mut inner = graph.lock();
        let id = inner.next_id();
        let node = node(id);
        inner.nodes.push(node);
        drop(inner);
        Self { graph: Arc::clone(graph), node: id, of: PhantomData }
    }

    fn another(&self) -> Self {
        Self { graph: Arc::clone(&self.graph), node: self.node, of: PhantomData }
    }
}

impl<T: Send + 'static> Stream<T> {
    /// Adds a step without state.
    fn each<U, F>(self, kind: &'static str, name: Option<String>, apply: F) -> Stream<U>
    where
        U: Send + 'static,
        F: Fn(T, &mut Vec<U>) -> Result<(), String> + Send + Sync + 'static,
    {
        let apply = Arc::new(apply);
        Stream::add(&self.graph, |id| {
            let make: MakeOperator = Arc::new(move || Box::new(Erased(Each::new(id, Arc::clone(&apply)))));
            let input = Some(self.node);
            Node { name, kind, parameters: BTreeMap::new(), input, role: Role::Each { make }, copy: None }
        })
    }

    /// Keeps the records that `keep` says yes to.
    pub fn filter(self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Stream<T> {
        self.each("filter", None, move |value, out| {
            if keep(&value) {
                out.push(value);
            }
            Ok(())
        })
    }

    /// Turns each record into another.
    pub fn map<U: Send + 'static>(self, map: impl Fn(T) -> U + Send + Sync + 'static) -> Stream<U> {
        self.each("map", None, move |value, out| {
            out.push(map(value));
            Ok(())
        })
    }

    /// Turns each record into none, one or many, all of its time.
    pub fn flat_map<I>(self, map: impl Fn(T) -> I + Send + Sync + 'static) -> Stream<I::Item>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
    {
        self.each("flat_map", None, move |value, out| {
            out.extend(map(value));
            Ok(())
        })
    }

    /// Turns each record into another, or says why it cannot: then it is set aside in `<pipeline>.dead` with that
    /// reason.
    ///
    /// ```
    /// use logmill_processing::{Pipeline, Topic};
    ///
    /// let readings = Pipeline::new("readings");
    /// readings
    ///     .source(Topic::bytes("raw"))
    ///     .try_map("parse", |raw| std::str::from_utf8(&raw).map(str::to_owned))
    ///     .to("clean", Topic::json("readings.clean"));
    /// ```
    pub fn try_map<U, E>(
        self,
        step: impl Into<String>,
        map: impl Fn(T) -> Result<U, E> + Send + Sync + 'static,
    ) -> Stream<U>
    where
        U: Send + 'static,
        E: fmt::Display,
    {
        self.each("try_map", Some(step.into()), move |value, out| {
            out.push(map(value).map_err(|reason| reason.to_string())?);
            Ok(())
        })
    }

    /// Names the key that the steps behind work by.
    pub fn key_by<K>(self, key: impl Fn(&T) -> K + Send + Sync + 'static) -> KeyedStream<K, T>
    where
        K: Data + Clone + Eq + Hash,
        T: Data,
    {
        let pairs = self.each("key_by", None, move |value, out| {
            out.push((key(&value), value));
            Ok(())
        });
        KeyedStream { pairs }
    }

    /// Writes every record to a topic, which is created if it is missing.
    ///
    /// Records are durable there before the step that made them is committed; after a crash in between they are
    /// written a second time. See [`SinkTopic::key`].
    pub fn to(self, step: impl Into<String>, topic: impl Into<SinkTopic<T>>) {
        let SinkTopic { topic, key } = topic.into();
        let name = Some(step.into());
        let parameters =
            BTreeMap::from([("topic", topic.name.clone()), ("codec", topic.codec.name.to_owned())]);
        let _: Stream<()> = Stream::add(&self.graph, |id| {
            let codec = topic.codec;
            let make: MakeOperator =
                Arc::new(move || Box::new(Erased(TopicSink::new(id, codec, key.clone()))));
            let role = Role::TopicSink { make, topic: topic.name };
            Node { name, kind: "topic", parameters, input: Some(self.node), role, copy: None }
        });
    }

    /// Writes every record as a row of a database table, in one transaction with the pipeline's position: each row
    /// takes effect once, whatever crashes.
    pub fn sink(self, step: impl Into<String>, table: UpsertTable<T>)
    where
        T: Serialize,
    {
        let spec = table.spec;
        let name = Some(step.into());
        let parameters = BTreeMap::from([
            ("file", spec.path.display().to_string()),
            ("table", spec.table.clone()),
            ("key", spec.key.join(", ")),
        ]);
        let _: Stream<()> = Stream::add(&self.graph, |id| {
            let columns = spec.columns.clone().unwrap_or_else(|_| Arc::new([]));
            let make: MakeOperator =
                Arc::new(move || Box::new(Erased(TableSink::<T>::new(id, Arc::clone(&columns)))));
            let role = Role::TableSink { make, table: spec };
            Node { name, kind: "sqlite", parameters, input: Some(self.node), role, copy: None }
        });
    }
}

/// A stream whose records belong to keys.
#[must_use = "a stream that leads nowhere is refused when the pipeline is built"]
pub struct KeyedStream<K, T> {
    pairs: Stream<(K, T)>,
}

impl<K, T> KeyedStream<K, T> {
    /// Cuts each key's records into windows by their event time.
    pub fn window(self, windows: Tumbling) -> WindowedStream<K, T> {
        WindowedStream { pairs: self.pairs, windows }
    }
}

impl<K: Clone + Send + 'static, T: Clone + Send + 'static> Clone for KeyedStream<K, T> {
    fn clone(&self) -> Self {
        Self { pairs: self.pairs.clone() }
    }
}

impl<K, T> fmt::Debug for KeyedStream<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyedStream").field(&self.pairs).finish()
    }
}

/// A keyed stream cut into windows, waiting for what to make of each.
#[must_use = "windows yield nothing until they are aggregated"]
pub struct WindowedStream<K, T> {
    pairs: Stream<(K, T)>,
    windows: Tumbling,
}

impl<K, T> WindowedStream<K, T>
where
    K: Data + Clone + Eq + Hash,
    T: Send + 'static,
{
    /// How many records each key has in each window.
    pub fn count(self, step: impl Into<String>) -> Stream<Windowed<K, u64>> {
        self.windowed("count", step.into(), Count::new())
    }

    /// What `aggregate` makes of each key's records in each window: one result when the window closes, whose time is
    /// the last millisecond of the window. [`Aggregate`] has an example of one.
    pub fn aggregate<A>(self, step: impl Into<String>, aggregate: A) -> Stream<Windowed<K, A::Out>>
    where
        A: Aggregate<In = T>,
    {
        self.windowed("aggregate", step.into(), aggregate)
    }

    fn windowed<A>(self, kind: &'static str, name: String, aggregate: A) -> Stream<Windowed<K, A::Out>>
    where
        A: Aggregate<In = T>,
    {
        let Tumbling { size, late_to } = self.windows;
        let parameters = BTreeMap::from([("window", "tumbling".to_owned()), ("size", format!("{size:?}"))]);
        let aggregate = Arc::new(aggregate);
        Stream::add(&self.pairs.graph, |id| {
            let size_ms = millis(size).max(1);
            let make: MakeOperator = Arc::new(move || {
                Box::new(Erased(WindowOperator::<K, A>::new(id, size_ms, Arc::clone(&aggregate))))
            });
            let role = Role::Windowed { make, size, late_to };
            Node { name: Some(name), kind, parameters, input: Some(self.pairs.node), role, copy: None }
        })
    }
}

impl<K, T> fmt::Debug for WindowedStream<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WindowedStream").field("pairs", &self.pairs).field("windows", &self.windows).finish()
    }
}
