//! The node itself.

use logmill_proto::v1;

use crate::convert::count_from;
use crate::{Client, Error};

/// A node as it stands; from [`Client::describe_node`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeInfo {
    /// The version of the program.
    pub version: String,
    /// The UUID of the data directory.
    pub node_id: String,
    /// The directory's open counter: the epoch of what was opened last. Moved on by each start, and before a
    /// partition, or the node's list of topics, is opened again after a failed sync; other partitions keep their
    /// epoch then.
    pub leader_epoch: i32,
    /// Bytes of record batches on disk, over all topics.
    pub stored_bytes: u64,
    /// Bytes that the file system of the data directory can still take.
    pub available_bytes: u64,
    /// The size of that file system in bytes.
    pub capacity_bytes: u64,
    /// The number of topics.
    pub topic_count: u64,
    /// The number of partitions.
    pub partition_count: u64,
}

impl Client {
    /// What the node is and how it stands.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn describe_node(&self) -> Result<NodeInfo, Error> {
        let request = v1::DescribeNodeRequest {};
        self.call("DescribeNode", self.node_rpc().describe_node(request)).await?.try_into()
    }
}

impl TryFrom<v1::DescribeNodeResponse> for NodeInfo {
    type Error = Error;

    fn try_from(node: v1::DescribeNodeResponse) -> Result<NodeInfo, Error> {
        Ok(NodeInfo {
            version: node.version,
            node_id: node.node_id,
            leader_epoch: node.leader_epoch,
            stored_bytes: count_from("stored_bytes", node.stored_bytes)?,
            available_bytes: count_from("available_bytes", node.available_bytes)?,
            capacity_bytes: count_from("capacity_bytes", node.capacity_bytes)?,
            topic_count: count_from("topic_count", node.topic_count)?,
            partition_count: count_from("partition_count", node.partition_count)?,
        })
    }
}
