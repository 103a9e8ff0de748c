//! The one gate: what each operation touches, and whether the caller may.
//!
//! An [`Operation`] names everything that it touches before it starts. [`authorize`] turns it into
//! resources by an exhaustive match, so that an operation added later does not compile before somebody
//! has decided what it needs.

use crate::context::{Principal, RequestContext};
use crate::error::Error;

/// What a caller asks to do.
#[derive(Clone, Debug)]
pub(crate) enum Operation<'a> {
    CreateTopic {
        topic: &'a str,
    },
    /// Lists the topics that the caller may describe.
    ListTopics,
    DescribeTopic {
        topic: &'a str,
    },
    DeleteTopic {
        topic: &'a str,
    },
    AlterTopic {
        topic: &'a str,
    },
    AddPartitions {
        topic: &'a str,
    },
    DeleteRecords {
        topic: &'a str,
    },
    ListOffsets {
        topic: &'a str,
    },
    DescribeNode,
    /// An id for an idempotent producer.
    InitProducerId,
    Produce {
        topic: &'a str,
    },
    Fetch {
        topics: Vec<&'a str>,
    },
    Subscribe {
        topics: Vec<&'a str>,
    },
    /// To begin and end transactions. What is written in them needs the right to write to its topic, too.
    WriteTransactions {
        transactional_id: &'a str,
    },
    /// To commit what a group has read with what was made of it.
    AddOffsets {
        transactional_id: &'a str,
        group: &'a str,
    },
    /// To end another's.
    AbortTransaction {
        transactional_id: &'a str,
    },
    DescribeTransaction {
        transactional_id: &'a str,
    },
    ListTransactions,
    JoinGroup {
        group: &'a str,
        topics: Vec<&'a str>,
    },
    /// Lists the groups that the caller may describe.
    ListGroups,
    DescribeGroup {
        group: &'a str,
    },
    ResetOffsets {
        group: &'a str,
        topics: Vec<&'a str>,
    },
    /// Of all that it has, or of what it has committed for a topic.
    DeleteGroup {
        group: &'a str,
    },
    /// What a unit of a group has made of what it has read.
    CommitStep {
        group: &'a str,
        topics: Vec<&'a str>,
    },
}

/// What can be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Create,
    Describe,
    Alter,
    Delete,
    Read,
    Write,
}

/// On what it can be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource<'a> {
    Topic(&'a str),
    TransactionalId(&'a str),
    Group(&'a str),
    Node,
}

impl<'a> Operation<'a> {
    fn needs(&self) -> Vec<(Access, Resource<'a>)> {
        match self {
            Self::CreateTopic { topic } => vec![(Access::Create, Resource::Topic(topic))],
            Self::DescribeTopic { topic } | Self::ListOffsets { topic } => {
                vec![(Access::Describe, Resource::Topic(topic))]
            }
            Self::DeleteTopic { topic } | Self::DeleteRecords { topic } => {
                vec![(Access::Delete, Resource::Topic(topic))]
            }
            Self::AlterTopic { topic } | Self::AddPartitions { topic } => {
                vec![(Access::Alter, Resource::Topic(topic))]
            }
            // An id alone lets nobody write: what carries it needs the right to write to its topic.
            Self::InitProducerId => vec![(Access::Describe, Resource::Node)],
            Self::WriteTransactions { transactional_id } => {
                vec![(Access::Write, Resource::TransactionalId(transactional_id))]
            }
            Self::AddOffsets { transactional_id, group } => vec![
                (Access::Write, Resource::TransactionalId(transactional_id)),
                (Access::Read, Resource::Group(group)),
            ],
            Self::AbortTransaction { transactional_id } => {
                vec![(Access::Alter, Resource::TransactionalId(transactional_id))]
            }
            Self::DescribeTransaction { transactional_id } => {
                vec![(Access::Describe, Resource::TransactionalId(transactional_id))]
            }
            Self::JoinGroup { group, topics } | Self::ResetOffsets { group, topics } => {
                let topics = topics.iter().map(|topic| (Access::Read, Resource::Topic(topic)));
                topics.chain([(Access::Read, Resource::Group(group))]).collect()
            }
            Self::DescribeGroup { group } => vec![(Access::Describe, Resource::Group(group))],
            Self::DeleteGroup { group } => vec![(Access::Delete, Resource::Group(group))],
            Self::ListGroups | Self::ListTopics | Self::ListTransactions | Self::DescribeNode => {
                vec![(Access::Describe, Resource::Node)]
            }
            Self::Produce { topic } => vec![(Access::Write, Resource::Topic(topic))],
            Self::CommitStep { group, topics } => {
                let topics = topics.iter().map(|topic| (Access::Write, Resource::Topic(topic)));
                topics.chain([(Access::Read, Resource::Group(group))]).collect()
            }
            Self::Fetch { topics } | Self::Subscribe { topics } => {
                topics.iter().map(|topic| (Access::Read, Resource::Topic(topic))).collect()
            }
        }
    }
}

/// Whether the caller may do what it asks for.
///
/// Today everybody who reaches the node may do everything: the program around it, and whoever can open its
/// listener, which binds to loopback.
pub(crate) fn authorize(context: &RequestContext, operation: &Operation<'_>) -> Result<(), Error> {
    for (access, resource) in operation.needs() {
        match context.principal {
            Principal::Embedded | Principal::Anonymous => {
                tracing::trace!(%context, ?access, ?resource, "allowed");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_names_every_topic_that_it_touches() {
        let fetch = Operation::Fetch { topics: vec!["a", "b"] };
        assert_eq!(
            fetch.needs(),
            [(Access::Read, Resource::Topic("a")), (Access::Read, Resource::Topic("b"))]
        );
        let alter = [Operation::AlterTopic { topic: "a" }, Operation::AddPartitions { topic: "a" }];
        assert!(alter.iter().all(|it| it.needs() == [(Access::Alter, Resource::Topic("a"))]));
        let delete = Operation::DeleteRecords { topic: "a" };
        assert_eq!(delete.needs(), [(Access::Delete, Resource::Topic("a"))]);
        let produce = Operation::Produce { topic: "a" };
        assert_eq!(produce.needs(), [(Access::Write, Resource::Topic("a"))]);
    }
}
