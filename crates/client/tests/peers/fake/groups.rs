//! Groups as a fake node has them: streams of members, which follow a script.

use logmill_proto::v1;
use logmill_proto::v1::consume_response::Reply;
use logmill_proto::v1::group_service_server::GroupService;
use tonic::{Request, Response, Status, Streaming};

use super::services::Replies;
use super::{ConsumeSession, Fake};

impl ConsumeSession {
    /// Takes the join, and answers it.
    pub(crate) async fn join(&mut self) -> v1::JoinGroup {
        let request = self.request().await.and_then(|request| request.request);
        let Some(v1::consume_request::Request::Join(join)) = request else { panic!("it joins first") };
        let joined = v1::GroupJoined { member_id: "m".into(), session_timeout_ms: 30_000 };
        self.reply(Reply::Joined(joined)).await;
        join
    }

    /// Waits until the member leaves.
    pub(crate) async fn leave(&mut self) {
        while let Some(request) = self.request().await {
            if let Some(v1::consume_request::Request::Leave(_)) = request.request {
                return;
            }
        }
    }

    async fn reply(&self, reply: Reply) {
        let _ = self.replies.send(Ok(v1::ConsumeResponse { reply: Some(reply) })).await;
    }
}

#[tonic::async_trait]
impl GroupService for Fake {
    type ConsumeStream = Replies<v1::ConsumeResponse>;

    async fn consume(
        &self,
        requests: Request<Streaming<v1::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        Ok(self.play(&self.consume, &self.consume_streams, requests.into_inner()))
    }

    async fn list_groups(
        &self,
        _: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        Err(Status::unimplemented("the fake node lists nothing"))
    }

    async fn describe_group(
        &self,
        _: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        Err(Status::unimplemented("the fake node describes nothing"))
    }

    async fn reset_offsets(
        &self,
        _: Request<v1::ResetOffsetsRequest>,
    ) -> Result<Response<v1::ResetOffsetsResponse>, Status> {
        Err(Status::unimplemented("the fake node has no operator"))
    }

    async fn delete_offsets(
        &self,
        _: Request<v1::DeleteOffsetsRequest>,
    ) -> Result<Response<v1::DeleteOffsetsResponse>, Status> {
        Err(Status::unimplemented("the fake node has no operator"))
    }

    async fn delete_group(
        &self,
        _: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        Err(Status::unimplemented("the fake node has no operator"))
    }
}
