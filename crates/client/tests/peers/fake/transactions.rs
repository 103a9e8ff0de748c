//! Transactions as a fake node has them: one producer, whose epoch moves with each.

use logmill_proto::v1;
use logmill_proto::v1::transaction_service_server::TransactionService;
use tonic::{Request, Response, Status, Streaming};

use super::Fake;

const PRODUCER_ID: i64 = 100;

#[tonic::async_trait]
impl TransactionService for Fake {
    async fn init_transactions(
        &self,
        _: Request<v1::InitTransactionsRequest>,
    ) -> Result<Response<v1::InitTransactionsResponse>, Status> {
        let producer = Some(v1::ProducerEpoch { id: PRODUCER_ID, epoch: 0 });
        Ok(Response::new(v1::InitTransactionsResponse { producer }))
    }

    async fn end_transaction(
        &self,
        request: Request<v1::EndTransactionRequest>,
    ) -> Result<Response<v1::EndTransactionResponse>, Status> {
        let v1::EndTransactionRequest { producer, outcome, .. } = request.into_inner();
        let v1::ProducerEpoch { id, epoch } = producer.unwrap();
        self.ended.lock().push((id, epoch, outcome));
        if let Some(error) = self.end_errors.lock().pop_front() {
            return Err(error);
        }
        let producer = Some(v1::ProducerEpoch { id, epoch: epoch + 1 });
        Ok(Response::new(v1::EndTransactionResponse { producer }))
    }

    /// Never answers.
    async fn add_offsets(
        &self,
        _: Request<v1::AddOffsetsRequest>,
    ) -> Result<Response<v1::AddOffsetsResponse>, Status> {
        std::future::pending().await
    }

    async fn list_transactions(
        &self,
        _: Request<v1::ListTransactionsRequest>,
    ) -> Result<Response<v1::ListTransactionsResponse>, Status> {
        Err(Status::unimplemented("the fake node lists nothing"))
    }

    async fn describe_transaction(
        &self,
        _: Request<v1::DescribeTransactionRequest>,
    ) -> Result<Response<v1::DescribeTransactionResponse>, Status> {
        Err(Status::unimplemented("the fake node describes nothing"))
    }

    async fn abort_transaction(
        &self,
        _: Request<v1::AbortTransactionRequest>,
    ) -> Result<Response<v1::AbortTransactionResponse>, Status> {
        Err(Status::unimplemented("the fake node has no operator"))
    }

    async fn commit_step(
        &self,
        requests: Request<Streaming<v1::CommitStepRequest>>,
    ) -> Result<Response<v1::CommitStepResponse>, Status> {
        let mut requests = requests.into_inner();
        let first = requests.message().await?.and_then(|first| first.request);
        let Some(v1::commit_step_request::Request::Header(header)) = first else { panic!("{first:?}") };
        while requests.message().await?.is_some() {}
        self.steps.lock().push(header.sequence);
        match self.step_errors.lock().pop_front() {
            Some(error) => Err(error),
            None => Ok(Response::new(v1::CommitStepResponse::default())),
        }
    }
}
