//! `FetchService`: what both of its rpcs do with a request, and the unary one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use logmill_proto::v1;
use logmill_proto::v1::fetch_service_server::FetchService;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::connection::Connection;
use super::convert::{known, not_negative, partition, position, to_isolation};
use super::encode::{Format, MAX_REPLY_BYTES, Room, fill, frame};
use super::guard::connection;
use super::sending::{Nothing, fetched, streamed};
use super::{Services, pieces, subscribe};
use crate::context::RequestContext;
use crate::error::{Error, shorten};
use crate::fetch::{DEFAULT_FETCH_BYTES, Fetch, FetchFrom, Fetched, PartitionData};

/// Taking so many bytes of batches apart costs less than a change of threads and back.
const ENCODE_AT_ONCE_BYTES: usize = 32 * 1024;

#[tonic::async_trait]
impl FetchService for Services {
    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        let (context, connection) = (self.context(&request), connection(&request)?);
        let (fetch, format) = to_fetch(request.into_inner())?;
        let max_bytes = fetch.max_bytes;
        let read = self.fetch_until_stopping(&context, fetch, &connection).await?;
        let Fetched { data, held: _until_made } = read;
        let bytes = data.iter().map(PartitionData::size_bytes).sum();
        let turn = context.request_id;
        let encode = move || pieces::of_fetch(encode(&data, format, max_bytes, turn));
        let pieces = self.encode(format, bytes, encode).await??;
        let held = connection.hold_reply(pieces.iter().map(Bytes::len).sum());
        Ok(fetched(pieces, held))
    }

    type SubscribeStream = Nothing<v1::SubscribeResponse>;

    async fn subscribe(
        &self,
        request: Request<Streaming<v1::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (context, connection) = (self.context(&request), connection(&request)?);
        Ok(streamed(subscribe::start(self, &context, connection, request.into_inner()).await?))
    }
}

impl Services {
    /// Fetches; should the services end meanwhile, with what there is.
    async fn fetch_until_stopping(
        &self,
        context: &RequestContext,
        fetch: Fetch,
        connection: &Connection,
    ) -> Result<Fetched, Error> {
        let at_once = Fetch { max_wait: Duration::ZERO, ..fetch.clone() };
        let fetched = |fetch| self.broker.fetch_held(context, fetch, connection.replies().clone());
        tokio::select! {
            data = fetched(fetch) => data,
            () = self.stopping.fired() => fetched(at_once).await,
        }
    }
}

impl Services {
    /// Runs `encode`; where it would take long, not on a network thread.
    pub(super) async fn encode<T: Send + 'static>(
        &self,
        format: Format,
        bytes: usize,
        encode: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        if format == Format::Batches || bytes <= ENCODE_AT_ONCE_BYTES {
            return Ok(encode());
        }
        // Closed never. It is kept as long as the making goes on, also when whoever wants the reply has gone.
        let turn = Arc::clone(&self.encoders).acquire_owned().await;
        let encode = move || {
            let _turn = turn;
            encode()
        };
        // Not on the threads for reading, all of which may wait for a disk.
        tokio::task::spawn_blocking(encode).await.map_err(|_| Error::fault("the making of a reply"))
    }
}

fn to_fetch(request: v1::FetchRequest) -> Result<(Fetch, Format), Error> {
    let v1::FetchRequest { partitions, max_bytes, min_bytes, max_wait_ms, format, isolation } = request;
    let max_bytes = match not_negative("max_bytes", max_bytes)? {
        0 => DEFAULT_FETCH_BYTES,
        bytes => MAX_REPLY_BYTES.min(bytes),
    };
    let min_bytes: usize = not_negative("min_bytes", min_bytes)?;
    let max_wait = Duration::from_millis(not_negative("max_wait_ms", max_wait_ms)?);
    let partitions = to_partitions(partitions)?;
    let (format, isolation) = (to_format(format)?, to_isolation(isolation)?);
    Ok((Fetch { partitions, max_bytes, min_bytes: min_bytes.max(1), max_wait, isolation }, format))
}

pub(super) fn to_partitions(partitions: Vec<v1::FetchPartition>) -> Result<Vec<FetchFrom>, Error> {
    let convert = |from: v1::FetchPartition| {
        let max_bytes: usize = not_negative("max_bytes", from.max_bytes)?;
        Ok(FetchFrom {
            topic: from.topic,
            partition: partition(from.partition)?,
            position: position(from.position)?,
            max_bytes: (max_bytes > 0).then_some(max_bytes),
            last_epoch: from.last_epoch.map(|epoch| not_negative("last_epoch", epoch)).transpose()?,
            topic_id: from.topic_id.as_deref().map(topic_id).transpose()?,
        })
    };
    partitions.into_iter().map(convert).collect()
}

fn topic_id(text: &str) -> Result<Uuid, Error> {
    let rule = "it is a UUID, such as a reply has it";
    Uuid::try_parse(text).map_err(|_| Error::field("topic_id", shorten(text), rule))
}

pub(super) fn to_format(format: i32) -> Result<Format, Error> {
    match known("format", format)? {
        v1::Format::Unspecified | v1::Format::Records => Ok(Format::Records),
        v1::Format::Batches => Ok(Format::Batches),
    }
}

/// Makes the reply. `turn` says which partition is first to take of its room, so that none goes short each
/// time.
fn encode(data: &[PartitionData], format: Format, max_bytes: usize, turn: u64) -> v1::FetchResponse {
    let mut room = Room::new(max_bytes);
    let mut partitions: Vec<v1::PartitionData> = data.iter().map(|data| frame(data, &mut room)).collect();
    let count = partitions.len();
    let first = usize::try_from(turn % (count.max(1) as u64)).unwrap_or(0);
    for index in (first..count).chain(0..first) {
        let framed = std::mem::take(&mut partitions[index]);
        partitions[index] = fill(&data[index], framed, format, &mut room).data;
    }
    v1::FetchResponse { partitions }
}
