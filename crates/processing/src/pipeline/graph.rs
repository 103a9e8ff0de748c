//! The graph that streams share while a pipeline is described.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::operator::{Decoder, ErasedBatch, NodeId, Operator};
use crate::sqlite::TableSpec;

pub(crate) type MakeOperator = Arc<dyn Fn() -> Box<dyn Operator> + Send + Sync>;
pub(crate) type MakeDecoder = Arc<dyn Fn(usize) -> Box<dyn Decoder> + Send + Sync>;
pub(crate) type CopyBatch = fn(&ErasedBatch) -> ErasedBatch;

/// A step, with its types forgotten.
#[derive(Clone)]
pub(crate) struct Node {
    /// As the user named it; steps without state may go without.
    pub(crate) name: Option<String>,
    pub(crate) kind: &'static str,
    pub(crate) parameters: BTreeMap<&'static str, String>,
    pub(crate) input: Option<NodeId>,
    pub(crate) role: Role,
    /// How its output is copied; known once its stream has been cloned.
    pub(crate) copy: Option<CopyBatch>,
}

#[derive(Clone)]
pub(crate) enum Role {
    Source(SourceSpec),
    Each { make: MakeOperator },
    Windowed { make: MakeOperator, size: Duration, late_to: Option<String> },
    TopicSink { make: MakeOperator, topic: String },
    TableSink { make: MakeOperator, table: TableSpec },
}

impl Role {
    /// Whether its output has to go somewhere.
    pub(crate) fn has_output(&self) -> bool {
        !matches!(self, Self::TopicSink { .. } | Self::TableSink { .. })
    }

    pub(crate) fn operator(&self) -> Option<Box<dyn Operator>> {
        match self {
            Self::Source(_) => None,
            Self::Each { make }
            | Self::Windowed { make, .. }
            | Self::TopicSink { make, .. }
            | Self::TableSink { make, .. } => Some(make()),
        }
    }
}

/// What a source reads, and how.
#[derive(Clone)]
pub(crate) struct SourceSpec {
    pub(crate) topic: String,
    pub(crate) disorder: Duration,
    pub(crate) idle: Duration,
    pub(crate) make: MakeDecoder,
}

/// Nodes in the order in which they were added: inputs come first.
#[derive(Default)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
}

impl Graph {
    pub(crate) fn next_id(&self) -> NodeId {
        NodeId(self.nodes.len())
    }
}
