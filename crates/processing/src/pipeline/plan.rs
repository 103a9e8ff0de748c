//! A pipeline that was checked, ready to run on any node.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::graph::{Node, Role, SourceSpec};
use crate::error::{Error, ErrorKind};
use crate::operator::{ErasedBatch, NodeId, Operator};
use crate::sqlite::TableSpec;

/// A pipeline that was checked: what [`Mill`](crate::Mill) runs. Cheap to clone.
#[derive(Clone)]
pub struct Plan(Arc<Inner>);

struct Inner {
    name: String,
    nodes: Vec<Node>,
    consumers: Vec<Vec<NodeId>>,
    steps: Vec<StepInfo>,
    dead_topic: String,
    /// By node; empty where there is none.
    late_topics: BTreeMap<NodeId, String>,
    database: PathBuf,
}

/// A step of a plan, as it can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepInfo {
    /// The step's name; one made up from its kind if it was given none.
    pub name: String,
    /// What it does: `source`, `filter`, `map`, `aggregate`, `sqlite`, …
    pub kind: &'static str,
    /// How it was set up.
    pub parameters: BTreeMap<&'static str, String>,
    /// The step before it; none for a source.
    pub input: Option<String>,
}

impl Plan {
    pub(super) fn new(
        name: String,
        nodes: Vec<Node>,
        names: &[String],
        consumers: Vec<Vec<NodeId>>,
        database: PathBuf,
    ) -> Self {
        let mut late_topics = BTreeMap::new();
        let mut steps = Vec::with_capacity(nodes.len());
        for (index, (node, step)) in nodes.iter().zip(names).enumerate() {
            let mut parameters = node.parameters.clone();
            if let Role::Windowed { late_to, .. } = &node.role {
                let topic = late_to.clone().unwrap_or_else(|| format!("{name}.{step}.late"));
                parameters.insert("late_to", topic.clone());
                late_topics.insert(NodeId(index), topic);
            }
            let input = node.input.map(|input| names[input.0].clone());
            steps.push(StepInfo { name: step.clone(), kind: node.kind, parameters, input });
        }
        let dead_topic = format!("{name}.dead");
        Self(Arc::new(Inner { name, nodes, consumers, steps, dead_topic, late_topics, database }))
    }

    /// The pipeline's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its steps, each after the one it gets its records from.
    #[must_use]
    pub fn steps(&self) -> impl ExactSizeIterator<Item = &StepInfo> + DoubleEndedIterator {
        self.0.steps.iter()
    }

    /// The topic that records are set aside in which cannot be processed.
    #[must_use]
    pub fn dead_topic(&self) -> &str {
        &self.0.dead_topic
    }

    pub(crate) fn database(&self) -> &Path {
        &self.0.database
    }

    pub(crate) fn step_name(&self, node: NodeId) -> &str {
        &self.0.steps[node.0].name
    }

    pub(crate) fn late_topic(&self, node: NodeId) -> &str {
        self.0.late_topics.get(&node).map_or(self.dead_topic(), String::as_str)
    }

    pub(crate) fn sources(&self) -> impl Iterator<Item = (NodeId, &SourceSpec)> {
        self.nodes().filter_map(|(id, node)| match &node.role {
            Role::Source(spec) => Some((id, spec)),
            _ => None,
        })
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = (NodeId, &TableSpec)> {
        self.nodes().filter_map(|(id, node)| match &node.role {
            Role::TableSink { table, .. } => Some((id, table)),
            _ => None,
        })
    }

    /// The topics that the steps behind topic sinks write to, by node.
    pub(crate) fn topic_sinks(&self) -> impl Iterator<Item = (NodeId, &str)> {
        self.nodes().filter_map(|(id, node)| match &node.role {
            Role::TopicSink { topic, .. } => Some((id, topic.as_str())),
            _ => None,
        })
    }

    /// Topics for records that were set aside.
    pub(crate) fn letter_topics(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.dead_topic()).chain(self.0.late_topics.values().map(String::as_str))
    }

    /// Every topic that is written to, with what writes there.
    pub(super) fn written_topics(&self) -> impl Iterator<Item = (&str, String)> {
        let dead = std::iter::once((self.dead_topic(), "dead letters".to_owned()));
        let late =
            self.0.late_topics.iter().map(|(id, topic)| {
                (topic.as_str(), format!("late records of step {:?}", self.step_name(*id)))
            });
        let sinks = self.topic_sinks().map(|(id, topic)| (topic, format!("step {:?}", self.step_name(id))));
        dead.chain(late).chain(sinks)
    }

    /// The stateful steps, as they are recorded with the position: a plan with others cannot use it.
    pub(crate) fn state_signature(&self) -> String {
        let stateful = self.nodes().filter_map(|(id, node)| match &node.role {
            Role::Windowed { size, .. } => Some((self.step_name(id), (node.kind, size))),
            _ => None,
        });
        let described: BTreeMap<&str, String> = stateful
            .map(|(name, (kind, size))| {
                (name, format!("{kind} over tumbling windows of {} ms", size.as_millis()))
            })
            .collect();
        serde_json::to_string(&described).expect("invariant: a map of strings is JSON")
    }

    pub(crate) fn consumers(&self, node: NodeId) -> &[NodeId] {
        &self.0.consumers[node.0]
    }

    pub(crate) fn sink_topic(&self, node: NodeId) -> &str {
        match &self.0.nodes[node.0].role {
            Role::TopicSink { topic, .. } => topic,
            _ => self.dead_topic(),
        }
    }

    /// A batch that goes two ways.
    pub(crate) fn copy(&self, from: NodeId, batch: &ErasedBatch) -> ErasedBatch {
        let copy = self.0.nodes[from.0]
            .copy
            .expect("invariant: only a clone of a stream gives it a second consumer");
        copy(batch)
    }

    /// New operators for every node behind a source.
    pub(crate) fn operators_behind(&self, source: NodeId) -> BTreeMap<NodeId, Box<dyn Operator>> {
        let mut waiting = vec![source];
        let mut operators = BTreeMap::new();
        while let Some(node) = waiting.pop() {
            waiting.extend(self.consumers(node));
            operators.extend(self.0.nodes[node.0].role.operator().map(|operator| (node, operator)));
        }
        operators
    }

    /// A panic that no single record can be blamed for.
    pub(crate) fn unblamable(&self, node: NodeId, method: &str, reason: &str) -> Error {
        Error::new(
            ErrorKind::Panicked,
            format!(
                "pipeline {:?}, step {:?}: `{method}` of its aggregate {reason}. No single record can be set aside \
                 for this; nothing of this step was committed. Mend the aggregate, and start again",
                self.name(),
                self.step_name(node),
            ),
        )
    }

    fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.0.nodes.iter().enumerate().map(|(index, node)| (NodeId(index), node))
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("name", &self.name())
            .field("steps", &self.0.steps)
            .finish_non_exhaustive()
    }
}
