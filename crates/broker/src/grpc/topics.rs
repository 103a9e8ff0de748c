//! `TopicService`.

use logmill_proto::v1;
use logmill_proto::v1::topic_service_server::TopicService;
use logmill_record::Offset;
use tonic::{Request, Response, Status};

use super::Services;
use super::convert::{count, not_negative, number, partition, position, to_isolation};
use crate::catalog::{DeleteRecords, DeletedRecords};
use crate::error::Error;
use crate::names::check_partition_count;
use crate::settings::{Change, SettingChange, TopicSettings};
use crate::topic::{CreateTopic, ListTopics, PartitionInfo, PartitionOffset, Position};

#[tonic::async_trait]
impl TopicService for Services {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let context = self.context(&request);
        let v1::CreateTopicRequest { name, partitions, settings } = request.into_inner();
        let partitions = partitions.map(|count| check_partition_count(count.into())).transpose()?;
        let settings = TopicSettings::new(settings.iter().map(|it| (&it.name, &it.value)))?;
        let create = CreateTopic { name, partitions, internal: false, settings };
        let topic = self.broker.create_topic(&context, create).await?;
        Ok(Response::new(v1::CreateTopicResponse { topic: Some(topic.into()) }))
    }

    async fn list_topics(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let context = self.context(&request);
        let v1::ListTopicsRequest { page_size, page_token, include_internal } = request.into_inner();
        let page_size = not_negative("page_size", page_size)?;
        let list = ListTopics { page_size, page_token, include_internal };
        let page = self.broker.list_topics(&context, list).await?;
        Ok(Response::new(v1::ListTopicsResponse {
            topics: page.topics.into_iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }))
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        let context = self.context(&request);
        let described = self.broker.describe_topic(&context, &request.get_ref().name).await?;
        Ok(Response::new(v1::DescribeTopicResponse {
            topic: Some(described.topic.into()),
            partitions: described.partitions.into_iter().map(Into::into).collect(),
        }))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let context = self.context(&request);
        self.broker.delete_topic(&context, &request.get_ref().name).await?;
        Ok(Response::new(v1::DeleteTopicResponse {}))
    }

    async fn alter_topic(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        let context = self.context(&request);
        let v1::AlterTopicRequest { name, changes } = request.into_inner();
        let changes = changes.into_iter().map(change).collect::<Result<_, Error>>()?;
        let topic = self.broker.alter_topic(&context, &name, changes).await?;
        Ok(Response::new(v1::AlterTopicResponse { topic: Some(topic.into()) }))
    }

    async fn add_partitions(
        &self,
        request: Request<v1::AddPartitionsRequest>,
    ) -> Result<Response<v1::AddPartitionsResponse>, Status> {
        let context = self.context(&request);
        let v1::AddPartitionsRequest { name, partition_count } = request.into_inner();
        let count = check_partition_count(partition_count.into())?;
        let topic = self.broker.add_partitions(&context, &name, count).await?;
        Ok(Response::new(v1::AddPartitionsResponse { topic: Some(topic.into()) }))
    }

    async fn delete_records(
        &self,
        request: Request<v1::DeleteRecordsRequest>,
    ) -> Result<Response<v1::DeleteRecordsResponse>, Status> {
        let context = self.context(&request);
        let v1::DeleteRecordsRequest { topic, partitions } = request.into_inner();
        let partitions = partitions.into_iter().map(deletion).collect::<Result<_, Error>>()?;
        let deleted = self.broker.delete_records(&context, DeleteRecords { topic, partitions }).await?;
        let partitions = deleted.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::DeleteRecordsResponse { partitions }))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let context = self.context(&request);
        let v1::ListOffsetsRequest { topic, positions, isolation } = request.into_inner();
        let isolation = to_isolation(isolation)?;
        let positions: Vec<(u32, Position)> = positions
            .into_iter()
            .map(|place| Ok((partition(place.partition)?, position(place.position)?)))
            .collect::<Result<_, Error>>()?;
        let offsets = self.broker.list_offsets_with(&context, &topic, positions, isolation).await?;
        let offsets = offsets.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListOffsetsResponse { offsets }))
    }
}

fn change(change: v1::SettingChange) -> Result<SettingChange, Error> {
    use v1::setting_change::Change as Sent;
    let v1::SettingChange { name, change } = change;
    let change = match change {
        Some(Sent::Set(value)) => Change::Set(value),
        Some(Sent::Reset(v1::ResetSetting {})) => Change::Reset,
        Some(Sent::Append(value)) => Change::Append(value),
        Some(Sent::Remove(value)) => Change::Remove(value),
        None => {
            return Err(Error::missing(
                "change",
                "say what becomes of the setting: set, reset, append or remove",
            ));
        }
    };
    Ok(SettingChange { name, change })
}

fn deletion(deletion: v1::PartitionDeletion) -> Result<(u32, Option<Offset>), Error> {
    let before = deletion.before_offset.map(|offset| {
        Offset::try_from(offset).map_err(|_| Error::field("before_offset", offset, "an offset is at least 0"))
    });
    Ok((partition(deletion.partition)?, before.transpose()?))
}

impl From<DeletedRecords> for v1::DeletedRecords {
    fn from(deleted: DeletedRecords) -> Self {
        let (start_offset, error) = match deleted.outcome {
            Ok(start) => (start.into(), None),
            Err(error) => (0, Some(error.into())),
        };
        Self { partition: number(deleted.partition), start_offset, error }
    }
}

impl From<PartitionInfo> for v1::Partition {
    fn from(info: PartitionInfo) -> Self {
        Self {
            partition: number(info.partition),
            start_offset: info.start_offset.into(),
            end_offset: info.end_offset.into(),
            stored_bytes: count(info.stored_bytes),
            segment_count: number(info.segment_count),
            leader_epoch: info.leader_epoch,
            error: info.error.map(Into::into),
        }
    }
}

impl From<PartitionOffset> for v1::PartitionOffset {
    fn from(found: PartitionOffset) -> Self {
        Self {
            partition: number(found.partition),
            offset: found.offset.into(),
            timestamp_ms: found.timestamp.map(logmill_record::TimestampMs::get),
        }
    }
}
