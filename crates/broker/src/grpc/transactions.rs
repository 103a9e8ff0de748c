//! `TransactionService`.

use std::time::Duration;

use logmill_proto::v1;
use logmill_proto::v1::transaction_service_server::TransactionService;
use logmill_record::{Offset, TimestampMs};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

use super::Services;
use super::convert::{known, not_negative, number, partition};
use super::produce::{to_epoch, to_records};
use crate::error::Error;
use crate::offsets::OffsetToCommit;
use crate::produce::Payload;
use crate::transaction::{
    AddOffsets, DEFAULT_TRANSACTION_TIMEOUT, InitTransactions, ListTransactions, Outcome, ProducerEpoch,
    Step, StepAppended, StepHeader, TransactionInfo, TransactionState,
};

#[tonic::async_trait]
impl TransactionService for Services {
    async fn init_transactions(
        &self,
        request: Request<v1::InitTransactionsRequest>,
    ) -> Result<Response<v1::InitTransactionsResponse>, Status> {
        let context = self.context(&request);
        let v1::InitTransactionsRequest { transactional_id, timeout_ms } = request.into_inner();
        let timeout = match timeout_ms {
            Some(timeout_ms) => Duration::from_millis(not_negative("timeout_ms", timeout_ms)?),
            None => DEFAULT_TRANSACTION_TIMEOUT,
        };
        let init = InitTransactions { transactional_id, timeout };
        let producer = self.broker.init_transactions(&context, init).await?;
        Ok(Response::new(v1::InitTransactionsResponse { producer: Some(producer.into()) }))
    }

    async fn add_offsets(
        &self,
        request: Request<v1::AddOffsetsRequest>,
    ) -> Result<Response<v1::AddOffsetsResponse>, Status> {
        let context = self.context(&request);
        let v1::AddOffsetsRequest { transactional_id, producer, group, unit, offsets } = request.into_inner();
        let (unit, unit_epoch) = to_unit(unit)?;
        let producer = to_producer(producer)?;
        let offsets = to_offsets(offsets)?;
        let add = AddOffsets { transactional_id, producer, group, unit, unit_epoch, offsets };
        self.broker.add_offsets(&context, add).await?;
        Ok(Response::new(v1::AddOffsetsResponse {}))
    }

    async fn end_transaction(
        &self,
        request: Request<v1::EndTransactionRequest>,
    ) -> Result<Response<v1::EndTransactionResponse>, Status> {
        let context = self.context(&request);
        let v1::EndTransactionRequest { transactional_id, producer, outcome } = request.into_inner();
        let outcome = match known("outcome", outcome)? {
            v1::Outcome::Commit => Outcome::Commit,
            v1::Outcome::Abort => Outcome::Abort,
            v1::Outcome::Unspecified => {
                return Err(Error::missing("outcome", "it is to commit or to abort").into());
            }
        };
        let producer = to_producer(producer)?;
        let next = self.broker.end_transaction(&context, &transactional_id, producer, outcome).await?;
        Ok(Response::new(v1::EndTransactionResponse { producer: Some(next.into()) }))
    }

    async fn list_transactions(
        &self,
        request: Request<v1::ListTransactionsRequest>,
    ) -> Result<Response<v1::ListTransactionsResponse>, Status> {
        let context = self.context(&request);
        let v1::ListTransactionsRequest { page_size, page_token, ongoing_only } = request.into_inner();
        let page_size = not_negative("page_size", page_size)?;
        let list = ListTransactions { page_size, page_token, ongoing_only };
        let page = self.broker.list_transactions(&context, list).await?;
        Ok(Response::new(v1::ListTransactionsResponse {
            transactions: page.transactions.into_iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }))
    }

    async fn describe_transaction(
        &self,
        request: Request<v1::DescribeTransactionRequest>,
    ) -> Result<Response<v1::DescribeTransactionResponse>, Status> {
        let context = self.context(&request);
        let described =
            self.broker.describe_transaction(&context, &request.get_ref().transactional_id).await?;
        Ok(Response::new(v1::DescribeTransactionResponse { transaction: Some(described.into()) }))
    }

    async fn abort_transaction(
        &self,
        request: Request<v1::AbortTransactionRequest>,
    ) -> Result<Response<v1::AbortTransactionResponse>, Status> {
        let context = self.context(&request);
        let aborted = self.broker.abort_transaction(&context, &request.get_ref().transactional_id).await?;
        Ok(Response::new(v1::AbortTransactionResponse { aborted }))
    }

    async fn commit_step(
        &self,
        request: Request<Streaming<v1::CommitStepRequest>>,
    ) -> Result<Response<v1::CommitStepResponse>, Status> {
        use v1::commit_step_request::Request as Sent;
        const RULE: &str = "the first message is the header, and every later one records";
        let context = self.context(&request);
        let mut messages = request.into_inner();
        let mut step: Option<Step> = None;
        while let Some(message) = self.next_of_step(&mut messages).await? {
            match (message?.request, &mut step) {
                (Some(Sent::Header(header)), None) => {
                    step = Some(self.broker.begin_step(&context, to_header(header)?)?);
                }
                (Some(Sent::Records(records)), Some(step)) => self.append(step, records)?,
                (Some(Sent::Header(_)), Some(_)) => {
                    return Err(Error::field("header", "sent twice", RULE).into());
                }
                (Some(Sent::Records(_)), None) | (None, _) => {
                    return Err(Error::missing("header", RULE).into());
                }
            }
        }
        let step = step.ok_or_else(|| Error::missing("header", RULE))?;
        let committed = step.commit().await?;
        Ok(Response::new(v1::CommitStepResponse {
            appended: committed.appended.into_iter().map(Into::into).collect(),
            duplicate: committed.duplicate,
        }))
    }
}

impl Services {
    /// The next message of a step. Half sent it holds room that others wait for, and it does so only while it goes on.
    async fn next_of_step<T>(&self, messages: &mut Streaming<T>) -> Result<Option<Result<T, Status>>, Error> {
        let limit = self.broker.config().stall_timeout;
        timeout(limit, messages.next()).await.map_err(|_| {
            let rule = "what follows the header of a step comes without long pauses";
            Error::field("records", format!("nothing for {limit:?}"), rule)
        })
    }

    fn append(&self, step: &mut Step, records: v1::StepRecords) -> Result<(), Error> {
        use v1::step_records::Payload as Sent;
        let v1::StepRecords { topic, partition: to, payload } = records;
        let payload = match payload {
            Some(Sent::Records(set)) => Payload::Records(to_records(set, &self.broker.core().bounds)?),
            Some(Sent::Batch(batch)) => Payload::Batch(batch),
            None => return Err(Error::missing("payload", "send records, or a batch")),
        };
        step.append(&topic, to.map(partition).transpose()?, payload)
    }
}

fn to_header(header: v1::StepHeader) -> Result<StepHeader, Error> {
    let v1::StepHeader { group, unit, sequence, offsets, topics, total_bytes } = header;
    let (unit, unit_epoch) = to_unit(unit)?;
    Ok(StepHeader {
        group,
        unit,
        unit_epoch,
        sequence,
        offsets: to_offsets(offsets)?,
        topics,
        total_bytes: not_negative("total_bytes", total_bytes)?,
    })
}

/// The name of a unit and its epoch.
pub(super) fn to_unit(unit: Option<v1::UnitEpoch>) -> Result<(String, i32), Error> {
    let Some(v1::UnitEpoch { unit, epoch }) = unit else {
        return Err(Error::missing("unit", "say which unit, and the epoch of its assignment"));
    };
    Ok((unit, epoch))
}

pub(super) fn to_offsets(offsets: Vec<v1::OffsetToCommit>) -> Result<Vec<OffsetToCommit>, Error> {
    let to_offset = |sent: v1::OffsetToCommit| {
        let v1::OffsetToCommit { topic, partition: number, offset, last_epoch, metadata } = sent;
        let offset = Offset::try_from(offset)
            .map_err(|_| Error::field("offset", offset, "an offset is at least 0"))?;
        Ok(OffsetToCommit { topic, partition: partition(number)?, offset, last_epoch, metadata })
    };
    offsets.into_iter().map(to_offset).collect()
}

fn to_producer(producer: Option<v1::ProducerEpoch>) -> Result<ProducerEpoch, Error> {
    let Some(v1::ProducerEpoch { id, epoch }) = producer else {
        return Err(Error::missing(
            "producer",
            "it is the one that InitTransactions or EndTransaction answered",
        ));
    };
    Ok(ProducerEpoch { id, epoch: to_epoch(epoch)? })
}

impl From<ProducerEpoch> for v1::ProducerEpoch {
    fn from(producer: ProducerEpoch) -> Self {
        Self { id: producer.id, epoch: producer.epoch.into() }
    }
}

impl From<StepAppended> for v1::StepAppended {
    fn from(append: StepAppended) -> Self {
        Self {
            topic: append.topic,
            partition: number(append.partition),
            first_offset: append.first_offset.into(),
            last_offset: append.last_offset.into(),
            appended_at_ms: append.appended_at.get(),
        }
    }
}

impl From<TransactionInfo> for v1::Transaction {
    fn from(info: TransactionInfo) -> Self {
        let state = match info.state {
            TransactionState::Empty => v1::TransactionState::Empty,
            TransactionState::Ongoing => v1::TransactionState::Ongoing,
            TransactionState::Ending(Outcome::Commit) => v1::TransactionState::Committing,
            TransactionState::Ending(Outcome::Abort) => v1::TransactionState::Aborting,
        };
        let last_outcome = match info.last_outcome {
            None => v1::Outcome::Unspecified,
            Some(Outcome::Commit) => v1::Outcome::Commit,
            Some(Outcome::Abort) => v1::Outcome::Abort,
        };
        let named = |(topic, partition)| v1::TopicPartition { topic, partition: number(partition) };
        Self {
            transactional_id: info.transactional_id,
            producer: Some(info.producer.into()),
            state: state.into(),
            timeout_ms: i64::try_from(info.timeout.as_millis()).unwrap_or(i64::MAX),
            started_at_ms: info.started_at.map(TimestampMs::get),
            partitions: info.partitions.into_iter().map(named).collect(),
            last_outcome: last_outcome.into(),
        }
    }
}
