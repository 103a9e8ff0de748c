//! `GroupService`: its rpcs for operators. That for members is in [`consume`].

use logmill_proto::v1;
use logmill_proto::v1::group_service_server::GroupService;
use tonic::{Request, Response, Status, Streaming};

use super::convert::{count, not_negative, number, partition, position};
use super::guard::connection;
use super::sending::{Nothing, streamed};
use super::{Services, consume};
use crate::error::Error;
use crate::group::{
    GroupDescription, GroupMember, GroupOffset, GroupState, GroupSummary, GroupUnit, ListGroups, OffsetReset,
    ResetOffsets,
};

#[tonic::async_trait]
impl GroupService for Services {
    type ConsumeStream = Nothing<v1::ConsumeResponse>;

    async fn consume(
        &self,
        request: Request<Streaming<v1::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        let (context, connection) = (self.context(&request), connection(&request)?);
        Ok(streamed(consume::start(self, &context, connection, request.into_inner()).await?))
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        let context = self.context(&request);
        let v1::ListGroupsRequest { page_size, page_token } = request.into_inner();
        let page_size = not_negative("page_size", page_size)?;
        let page = self.broker.list_groups(&context, ListGroups { page_size, page_token }).await?;
        Ok(Response::new(v1::ListGroupsResponse {
            groups: page.groups.into_iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }))
    }

    async fn describe_group(
        &self,
        request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        let context = self.context(&request);
        let described = self.broker.describe_group(&context, &request.get_ref().group).await?;
        Ok(Response::new(described.into()))
    }

    async fn reset_offsets(
        &self,
        request: Request<v1::ResetOffsetsRequest>,
    ) -> Result<Response<v1::ResetOffsetsResponse>, Status> {
        let context = self.context(&request);
        let v1::ResetOffsetsRequest { group, topics, to, execute } = request.into_inner();
        let named = |topic: v1::TopicPartitions| {
            let numbers: Result<_, Error> = topic.partitions.into_iter().map(partition).collect();
            Ok((topic.topic, numbers?))
        };
        let topics: Result<_, Error> = topics.into_iter().map(named).collect();
        let reset = ResetOffsets { group, topics: topics?, to: position(to)?, execute };
        let resets = self.broker.reset_offsets(&context, reset).await?;
        Ok(Response::new(v1::ResetOffsetsResponse { resets: resets.into_iter().map(Into::into).collect() }))
    }

    async fn delete_offsets(
        &self,
        request: Request<v1::DeleteOffsetsRequest>,
    ) -> Result<Response<v1::DeleteOffsetsResponse>, Status> {
        let context = self.context(&request);
        let v1::DeleteOffsetsRequest { group, topic } = request.into_inner();
        let count = self.broker.delete_offsets(&context, &group, &topic).await?;
        let partition_count = number(u32::try_from(count).unwrap_or(u32::MAX));
        Ok(Response::new(v1::DeleteOffsetsResponse { partition_count }))
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        let context = self.context(&request);
        self.broker.delete_group(&context, &request.get_ref().group).await?;
        Ok(Response::new(v1::DeleteGroupResponse {}))
    }
}

fn state(state: GroupState) -> i32 {
    let state = match state {
        GroupState::Empty => v1::GroupState::Empty,
        GroupState::Stable => v1::GroupState::Stable,
        GroupState::Rebalancing => v1::GroupState::Rebalancing,
    };
    state.into()
}

impl From<GroupSummary> for v1::GroupSummary {
    fn from(summary: GroupSummary) -> Self {
        let member_count = number(u32::try_from(summary.member_count).unwrap_or(u32::MAX));
        Self { group: summary.group, state: state(summary.state), member_count }
    }
}

impl From<GroupDescription> for v1::DescribeGroupResponse {
    fn from(described: GroupDescription) -> Self {
        let not_committed = described.not_committed.into_iter();
        let not_committed = not_committed
            .map(|(topic, partition)| v1::TopicPartition { topic, partition: number(partition) });
        Self {
            group: described.group,
            state: state(described.state),
            members: described.members.into_iter().map(Into::into).collect(),
            unowned: described.unowned.into_iter().map(Into::into).collect(),
            offsets: described.offsets.into_iter().map(Into::into).collect(),
            not_committed: not_committed.collect(),
        }
    }
}

impl From<GroupMember> for v1::GroupMember {
    fn from(member: GroupMember) -> Self {
        Self {
            member_id: member.member_id,
            instance_id: member.instance_id,
            connected: member.is_connected,
            units: member.units.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<GroupUnit> for v1::GroupUnit {
    fn from(unit: GroupUnit) -> Self {
        let GroupUnit { unit, epoch, status, next_member } = unit;
        Self { unit, epoch, status: status.to_owned(), next_member }
    }
}

impl From<GroupOffset> for v1::GroupOffset {
    fn from(offset: GroupOffset) -> Self {
        Self {
            topic: offset.topic,
            partition: number(offset.partition),
            offset: offset.offset.into(),
            metadata: offset.metadata,
            committed_at_ms: offset.committed_at.get(),
            topic_id: offset.topic_id.to_string(),
            lag_records: offset.lag_records.map(count),
            lag_ms: offset.lag.map(|lag| i64::try_from(lag.as_millis()).unwrap_or(i64::MAX)),
        }
    }
}

impl From<OffsetReset> for v1::OffsetReset {
    fn from(reset: OffsetReset) -> Self {
        Self {
            topic: reset.topic,
            partition: number(reset.partition),
            from: reset.from.map(Into::into),
            to: reset.to.into(),
        }
    }
}
