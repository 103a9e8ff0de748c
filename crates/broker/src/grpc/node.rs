//! `NodeService`.

use logmill_proto::v1;
use logmill_proto::v1::node_service_server::NodeService;
use tonic::{Request, Response, Status};

use super::Services;
use super::convert::count;

#[tonic::async_trait]
impl NodeService for Services {
    async fn describe_node(
        &self,
        request: Request<v1::DescribeNodeRequest>,
    ) -> Result<Response<v1::DescribeNodeResponse>, Status> {
        let node = self.broker.describe_node(&self.context(&request)).await?;
        Ok(Response::new(v1::DescribeNodeResponse {
            version: node.version.to_owned(),
            node_id: node.node_id.to_string(),
            leader_epoch: node.leader_epoch,
            stored_bytes: count(node.stored_bytes),
            available_bytes: count(node.available_bytes),
            capacity_bytes: count(node.capacity_bytes),
            topic_count: count(node.topic_count),
            partition_count: count(node.partition_count),
        }))
    }
}
