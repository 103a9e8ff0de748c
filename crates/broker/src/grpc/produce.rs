//! `ProduceService`: what both of its rpcs do with a request, and the unary one.

use logmill_proto::v1;
use logmill_proto::v1::produce_service_server::ProduceService;
use logmill_record::TimestampMs;
use tonic::{Request, Response, Status, Streaming};

use super::convert::{known, number, partition};
use super::guard::connection;
use super::produce_stream::Answers;
use super::{Services, produce_stream};
use crate::error::Error;
use crate::limits::Bounds;
use crate::produce::{Acks, Payload, Produce, ProduceRecord, ProduceResult, ProducerSequence, check_counts};

#[tonic::async_trait]
impl ProduceService for Services {
    async fn produce(
        &self,
        request: Request<v1::ProduceRequest>,
    ) -> Result<Response<v1::ProduceResponse>, Status> {
        let context = self.context(&request);
        let produce = to_produce(request.into_inner(), &self.broker.core().bounds)?;
        let results = self.broker.produce(&context, produce).await?;
        let failures = || results.iter().map(|result| result.outcome.as_ref().err());
        // Nothing was appended: the rpc fails, with the first reason.
        if let Some(Some(first)) = failures().next()
            && failures().all(|failure| failure.is_some())
        {
            return Err(first.clone().into());
        }
        Ok(Response::new(v1::ProduceResponse { results: results.into_iter().map(Into::into).collect() }))
    }

    async fn init_producer_id(
        &self,
        request: Request<v1::InitProducerIdRequest>,
    ) -> Result<Response<v1::InitProducerIdResponse>, Status> {
        let producer_id = self.broker.init_producer_id(&self.context(&request)).await?;
        Ok(Response::new(v1::InitProducerIdResponse { producer_id, producer_epoch: 0 }))
    }

    type ProduceStreamStream = Answers;

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let (context, connection) = (self.context(&request), connection(&request)?);
        Ok(Response::new(produce_stream::start(self, context, connection, request.into_inner())))
    }
}

/// Refuses what has too many records before anything waits for it or is made of it.
pub(super) fn to_produce(request: v1::ProduceRequest, bounds: &Bounds) -> Result<Produce, Error> {
    use v1::produce_request::Payload as Sent;
    let v1::ProduceRequest { topic, partition: to, payload, acks, sent_at_ms, producer } = request;
    let payload = match payload {
        Some(Sent::Records(set)) => {
            let records = to_records(set, bounds)?;
            match producer {
                Some(producer) if producer.transactional => {
                    Payload::InTransaction(to_sequence(producer)?, records)
                }
                Some(producer) => Payload::Numbered(to_sequence(producer)?, records),
                None => Payload::Records(records),
            }
        }
        Some(Sent::Batch(_)) if producer.is_some() => {
            let rule = "a batch names its producer in its own header: leave the field out";
            return Err(Error::field("producer", "set", rule));
        }
        Some(Sent::Batch(batch)) => Payload::Batch(batch),
        None => return Err(Error::missing("payload", "send records, or a batch")),
    };
    let acks = match known("acks", acks)? {
        v1::Acks::Unspecified | v1::Acks::Durable => Acks::Durable,
        v1::Acks::Written => Acks::Written,
        v1::Acks::None => Acks::None,
    };
    let partition = to.map(partition).transpose()?;
    Ok(Produce { topic, partition, payload, acks, sent_at: sent_at_ms.map(TimestampMs) })
}

fn to_sequence(producer: v1::ProducerState) -> Result<ProducerSequence, Error> {
    let v1::ProducerState { id, epoch, base_sequence, .. } = producer;
    Ok(ProducerSequence { id, epoch: to_epoch(epoch)?, base_sequence })
}

/// The epoch of a producer.
pub(super) fn to_epoch(epoch: i32) -> Result<i16, Error> {
    i16::try_from(epoch).map_err(|_| Error::field("producer.epoch", epoch, "an epoch is from 0 to 32767"))
}

/// Plain records, unless there are too many.
pub(super) fn to_records(set: v1::RecordSet, bounds: &Bounds) -> Result<Vec<ProduceRecord>, Error> {
    let v1::RecordSet { records } = set;
    let headers = records.iter().map(|record| record.headers.len()).sum();
    check_counts(records.len(), headers, bounds)?;
    Ok(records.into_iter().map(Into::into).collect())
}

impl From<v1::Record> for ProduceRecord {
    fn from(record: v1::Record) -> Self {
        Self {
            key: record.key,
            value: record.value,
            timestamp: record.timestamp_ms.map(TimestampMs),
            headers: record.headers.into_iter().map(|header| (header.key, header.value)).collect(),
        }
    }
}

impl From<ProduceResult> for v1::ProduceResult {
    fn from(result: ProduceResult) -> Self {
        use v1::produce_result::Outcome;
        let outcome = match result.outcome {
            Ok(appended) => Outcome::Appended(v1::Appended {
                first_offset: appended.first_offset.into(),
                last_offset: appended.last_offset.into(),
                appended_at_ms: appended.appended_at.get(),
                duplicate: appended.duplicate,
            }),
            Err(error) => Outcome::Error(error.into()),
        };
        Self {
            partition: number(result.partition),
            record_indexes: result.record_indexes.into_iter().map(number).collect(),
            outcome: Some(outcome),
        }
    }
}
