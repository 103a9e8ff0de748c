//! The node's services as a fake node has them.

use std::sync::atomic::{AtomicU32, Ordering};

use logmill_proto::v1;
use logmill_proto::v1::fetch_service_server::{FetchService, FetchServiceServer};
use logmill_proto::v1::group_service_server::GroupServiceServer;
use logmill_proto::v1::node_service_server::{NodeService, NodeServiceServer};
use logmill_proto::v1::produce_service_server::{ProduceService, ProduceServiceServer};
use logmill_proto::v1::topic_service_server::{TopicService, TopicServiceServer};
use logmill_proto::v1::transaction_service_server::TransactionServiceServer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status, Streaming};

use super::{Fake, Script, Session};

pub(super) type Replies<T> = ReceiverStream<Result<T, Status>>;

impl Fake {
    pub(super) fn router(self) -> Router {
        Server::builder()
            .add_service(NodeServiceServer::new(self.clone()))
            .add_service(TopicServiceServer::new(self.clone()))
            .add_service(ProduceServiceServer::new(self.clone()))
            .add_service(GroupServiceServer::new(self.clone()))
            .add_service(TransactionServiceServer::new(self.clone()))
            .add_service(FetchServiceServer::new(self))
    }

    pub(super) fn play<Req: Send + 'static, Rep: Send + 'static>(
        &self,
        script: &Script<Req, Rep>,
        count: &AtomicU32,
        requests: Streaming<Req>,
    ) -> Response<Replies<Rep>> {
        let (replies, stream) = mpsc::channel(16);
        let number = count.fetch_add(1, Ordering::SeqCst);
        let (log, cues) = (self.log.clone(), self.cues.clone());
        tokio::spawn(script(Session { number, requests, replies, log, cues }));
        Response::new(ReceiverStream::new(stream))
    }

    fn topic(&self, name: &str) -> Result<v1::Topic, Status> {
        let partition_count =
            *self.topics.lock().get(name).ok_or_else(|| Status::not_found(format!("no topic {name}")))?;
        Ok(v1::Topic { name: name.to_owned(), partition_count, ..Default::default() })
    }
}

#[tonic::async_trait]
impl NodeService for Fake {
    async fn describe_node(
        &self,
        _: Request<v1::DescribeNodeRequest>,
    ) -> Result<Response<v1::DescribeNodeResponse>, Status> {
        Ok(Response::new(v1::DescribeNodeResponse { version: "fake".into(), ..Default::default() }))
    }
}

#[tonic::async_trait]
impl TopicService for Fake {
    async fn create_topic(
        &self,
        _: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        Err(Status::unimplemented("a fake node creates no topics"))
    }

    /// A topic a page.
    async fn list_topics(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let after = request.into_inner().page_token;
        let names: Vec<String> = self.topics.lock().keys().filter(|name| **name > after).cloned().collect();
        let topics = names.first().map(|name| self.topic(name)).transpose()?.into_iter().collect();
        let next_page_token = if names.len() > 1 { names[0].clone() } else { String::new() };
        Ok(Response::new(v1::ListTopicsResponse { topics, next_page_token }))
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        tokio::time::sleep(self.describe_delay).await;
        let topic = Some(self.topic(&request.into_inner().name)?);
        Ok(Response::new(v1::DescribeTopicResponse { topic, partitions: Vec::new() }))
    }

    async fn delete_topic(
        &self,
        _: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        Err(Status::unimplemented("a fake node deletes no topics"))
    }

    async fn alter_topic(
        &self,
        _: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        Err(Status::unimplemented("a fake node alters no topics"))
    }

    async fn add_partitions(
        &self,
        _: Request<v1::AddPartitionsRequest>,
    ) -> Result<Response<v1::AddPartitionsResponse>, Status> {
        Err(Status::unimplemented("a fake node adds no partitions"))
    }

    async fn delete_records(
        &self,
        _: Request<v1::DeleteRecordsRequest>,
    ) -> Result<Response<v1::DeleteRecordsResponse>, Status> {
        Err(Status::unimplemented("a fake node deletes no records"))
    }

    /// Whatever is asked for is at offset 100.
    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let positions = request.into_inner().positions;
        let found = |asked: v1::PartitionPosition| v1::PartitionOffset {
            partition: asked.partition,
            offset: 100,
            timestamp_ms: None,
        };
        Ok(Response::new(v1::ListOffsetsResponse { offsets: positions.into_iter().map(found).collect() }))
    }
}

#[tonic::async_trait]
impl ProduceService for Fake {
    type ProduceStreamStream = Replies<v1::ProduceStreamResponse>;

    async fn produce(
        &self,
        request: Request<v1::ProduceRequest>,
    ) -> Result<Response<v1::ProduceResponse>, Status> {
        let result = self.log.append(&request.into_inner());
        match &self.produce_answer {
            Some(status) => Err(status.clone()),
            None => Ok(Response::new(v1::ProduceResponse { results: vec![result] })),
        }
    }

    async fn init_producer_id(
        &self,
        _: Request<v1::InitProducerIdRequest>,
    ) -> Result<Response<v1::InitProducerIdResponse>, Status> {
        if !self.gives_ids {
            return Err(Status::unimplemented("a node of an older version"));
        }
        let producer_id = self.producer_ids.fetch_add(1, Ordering::SeqCst).into();
        Ok(Response::new(v1::InitProducerIdResponse { producer_id, producer_epoch: 0 }))
    }

    async fn produce_stream(
        &self,
        requests: Request<Streaming<v1::ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        Ok(self.play(&self.produce, &self.produce_streams, requests.into_inner()))
    }
}

#[tonic::async_trait]
impl FetchService for Fake {
    type SubscribeStream = Replies<v1::SubscribeResponse>;

    async fn fetch(&self, _: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        Ok(Response::new(v1::FetchResponse::default()))
    }

    async fn subscribe(
        &self,
        requests: Request<Streaming<v1::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        Ok(self.play(&self.subscribe, &self.subscribe_streams, requests.into_inner()))
    }
}
