//! What a description has to be before it is a plan.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::graph::{Node, Role};
use super::plan::Plan;
use crate::flow::watermark::millis;
use crate::operator::NodeId;
use crate::sqlite::TableSpec;

/// Kafka's limit, and the node's.
const MAX_NAME_BYTES: usize = 249;

/// Why a pipeline cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A name that cannot be part of a topic's name.
    #[error(
        "{what} {name:?} is not a usable name: it has to have 1 to {MAX_NAME_BYTES} characters of a-z, A-Z, 0-9, \
         '.', '_' and '-', and not to be \".\" or \"..\""
    )]
    Name {
        /// What is named so: the pipeline, a step, a topic.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The name of a topic that the pipeline would make for itself is too long.
    #[error(
        "the topic {name:?} would have more than {MAX_NAME_BYTES} characters: shorten the pipeline's or the step's name"
    )]
    TooLong {
        /// The topic's name.
        name: String,
    },
    /// Two steps have one name.
    #[error("two steps are named {name:?}: give each step a name of its own")]
    DuplicateStep {
        /// The name.
        name: String,
    },
    /// There is nothing to read.
    #[error("pipeline {pipeline:?} has no source: start with `source(Topic::json::<T>(\"topic\"))`")]
    NoSource {
        /// The pipeline.
        pipeline: String,
    },
    /// A topic is read twice.
    #[error("topic {topic:?} is read by two sources: use one, and clone its stream")]
    DuplicateSource {
        /// The topic.
        topic: String,
    },
    /// The records of a step go nowhere.
    #[error("what step {step:?} yields goes nowhere: end its stream with `sink` or `to`")]
    Dangling {
        /// The step.
        step: String,
    },
    /// A pipeline would read what it writes.
    #[error("the pipeline reads topic {topic:?} and writes to it ({writer}): it would never come to an end")]
    Cycle {
        /// The topic.
        topic: String,
        /// What writes to it.
        writer: String,
    },
    /// Windows of windows.
    #[error(
        "step {step:?} aggregates what step {of:?} has aggregated: two windowed steps in a row are not supported by \
         this version. Write the first one's results to a topic, and read that in a second pipeline"
    )]
    WindowOfWindows {
        /// The later step.
        step: String,
        /// The earlier step.
        of: String,
    },
    /// Windows without length.
    #[error("the windows of step {step:?} have no length: give them at least a millisecond")]
    WindowSize {
        /// The step.
        step: String,
    },
    /// No database to keep the position in.
    #[error(
        "pipeline {pipeline:?} has no SQLite sink: the position is committed with the rows of one, and without it \
         every run would start at the beginning. Add `sink(step, Sqlite::upsert::<Row>(file, table).key([..]))`"
    )]
    NoDatabase {
        /// The pipeline.
        pipeline: String,
    },
    /// Two databases cannot be committed at once.
    #[error(
        "the sinks write to two SQLite files, {} and {}: rows and position are committed in one transaction, which \
         has one file. Use one file, or one pipeline per file", .first.display(), .second.display()
    )]
    TwoDatabases {
        /// The file of the first sink.
        first: PathBuf,
        /// Another.
        second: PathBuf,
    },
    /// The table of a sink cannot be.
    #[error("sink {step:?}, table {table:?}: {reason}")]
    Table {
        /// The sink's step.
        step: String,
        /// The table.
        table: String,
        /// What is wrong with it.
        reason: String,
    },
}

pub(super) fn build(pipeline: &str, nodes: &[Node]) -> Result<Plan, BuildError> {
    check_name("pipeline", pipeline)?;
    let names = names_of(nodes)?;
    let consumers = consumers_of(nodes);
    check_sources(pipeline, nodes)?;
    check_ends(nodes, &names, &consumers)?;
    check_windows(nodes, &names)?;
    let database = check_tables(pipeline, nodes, &names)?;
    let plan = Plan::new(pipeline.to_owned(), nodes.to_vec(), &names, consumers, database);
    check_topics(&plan)?;
    Ok(plan)
}

/// A topic's name, by Kafka's rules.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != ".."
}

fn check_name(what: &'static str, name: &str) -> Result<(), BuildError> {
    if is_name(name) { Ok(()) } else { Err(BuildError::Name { what, name: name.to_owned() }) }
}

/// A name for each step: the user's, or one that no user can give.
fn names_of(nodes: &[Node]) -> Result<Vec<String>, BuildError> {
    let mut seen = BTreeSet::new();
    let mut names = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let name = match (&node.name, &node.role) {
            (Some(name), _) => {
                check_name("step", name)?;
                name.clone()
            }
            (None, Role::Source(source)) => format!("source:{}", source.topic),
            (None, _) => format!("{}:{index}", node.kind),
        };
        if !seen.insert(name.clone()) && node.name.is_some() {
            return Err(BuildError::DuplicateStep { name });
        }
        names.push(name);
    }
    Ok(names)
}

fn consumers_of(nodes: &[Node]) -> Vec<Vec<NodeId>> {
    let mut consumers = vec![Vec::new(); nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        if let Some(input) = node.input {
            consumers[input.0].push(NodeId(index));
        }
    }
    consumers
}

fn check_sources(pipeline: &str, nodes: &[Node]) -> Result<(), BuildError> {
    let mut topics = BTreeSet::new();
    for node in nodes {
        if let Role::Source(source) = &node.role {
            check_name("topic", &source.topic)?;
            if !topics.insert(&source.topic) {
                return Err(BuildError::DuplicateSource { topic: source.topic.clone() });
            }
        }
    }
    if topics.is_empty() { Err(BuildError::NoSource { pipeline: pipeline.to_owned() }) } else { Ok(()) }
}

fn check_ends(nodes: &[Node], names: &[String], consumers: &[Vec<NodeId>]) -> Result<(), BuildError> {
    for ((node, name), consumers) in nodes.iter().zip(names).zip(consumers) {
        if node.role.has_output() && consumers.is_empty() {
            return Err(BuildError::Dangling { step: name.clone() });
        }
    }
    Ok(())
}

fn check_windows(nodes: &[Node], names: &[String]) -> Result<(), BuildError> {
    for (node, name) in nodes.iter().zip(names) {
        let Role::Windowed { size, .. } = &node.role else { continue };
        if millis(*size) == 0 {
            return Err(BuildError::WindowSize { step: name.clone() });
        }
        let mut before = node.input;
        while let Some(id) = before {
            if matches!(nodes[id.0].role, Role::Windowed { .. }) {
                return Err(BuildError::WindowOfWindows { step: name.clone(), of: names[id.0].clone() });
            }
            before = nodes[id.0].input;
        }
    }
    Ok(())
}

/// Every sink's table, and the one file that they are in.
fn check_tables(pipeline: &str, nodes: &[Node], names: &[String]) -> Result<PathBuf, BuildError> {
    let mut database: Option<&Path> = None;
    for (node, name) in nodes.iter().zip(names) {
        let Role::TableSink { table, .. } = &node.role else { continue };
        check_table(table).map_err(|reason| BuildError::Table {
            step: name.clone(),
            table: table.table.clone(),
            reason,
        })?;
        match database {
            Some(first) if absolute(first) != absolute(&table.path) => {
                return Err(BuildError::TwoDatabases { first: first.to_owned(), second: table.path.clone() });
            }
            _ => database = Some(&table.path),
        }
    }
    database.map(Path::to_owned).ok_or_else(|| BuildError::NoDatabase { pipeline: pipeline.to_owned() })
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn check_table(table: &TableSpec) -> Result<(), String> {
    let columns = table.columns.as_ref().map_err(Clone::clone)?;
    let name = table.table.to_ascii_lowercase();
    if name.is_empty() || name.contains('\0') {
        return Err("a table needs a name".to_owned());
    }
    if name.starts_with("sqlite_") || name.starts_with("logmill_") {
        return Err("names that start with sqlite_ or logmill_ are taken; choose another".to_owned());
    }
    if table.key.is_empty() {
        return Err("it has no key: say which columns tell rows apart, with `.key([..])`".to_owned());
    }
    for key in &table.key {
        match columns.iter().find(|column| column.name == *key) {
            None => {
                let known: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
                return Err(format!(
                    "its key names column {key:?}, and its columns are {}",
                    known.join(", ")
                ));
            }
            Some(column) if column.nullable => {
                return Err(format!(
                    "key column {key:?} is an Option: SQLite takes every NULL for another key"
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The topics that are written to: names, and that none is read by the same pipeline.
fn check_topics(plan: &Plan) -> Result<(), BuildError> {
    for (topic, writer) in plan.written_topics() {
        if topic.len() > MAX_NAME_BYTES {
            return Err(BuildError::TooLong { name: topic.to_owned() });
        }
        check_name("topic", topic)?;
        if plan.sources().any(|(_, source)| source.topic == topic) {
            return Err(BuildError::Cycle { topic: topic.to_owned(), writer });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
