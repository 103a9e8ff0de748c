//! A node over the network.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use logmill_client::{Acks, Client, ErrorKind, Fetch, Position};
use logmill_record::{Batch, Offset};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::{
    Backend, BackendError, BackendErrorKind, BoxFuture, Chunk, FetchFrom, Fetched, PartitionState,
    TopicDescription, TopicSpec,
};

/// What a node puts into one reply at most.
const MAX_FETCH_BYTES: usize = 3_900_000;
/// The longest that a node lets a fetch wait.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Runs pipelines on a node that a [`Client`] is connected to.
///
/// Calls run in the tokio runtime that the client lives in, and are waited for outside of it: that runtime has to go on
/// while a pipeline runs.
pub struct Remote {
    client: Client,
    runtime: Handle,
}

impl Remote {
    /// On a client that lives in `runtime`.
    #[must_use]
    pub fn new(client: Client, runtime: Handle) -> Self {
        Self { client, runtime }
    }

    /// Connects to the node at `url`, such as `http://127.0.0.1:7070`, from within a tokio runtime.
    ///
    /// # Errors
    /// No node answers there, or this is not called from within a tokio runtime.
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        let client = Client::connect(url).await.map_err(failed)?;
        let runtime = Handle::try_current()
            .map_err(|error| BackendError::from_source(BackendErrorKind::Invalid, error))?;
        Ok(Self::new(client, runtime))
    }

    /// Runs a call where the client lives.
    fn call<T, F>(&self, call: impl FnOnce(Client) -> F) -> BoxFuture<'static, Result<T, BackendError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, BackendError>> + Send + 'static,
    {
        Box::pin(Call(self.runtime.spawn(call(self.client.clone()))))
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("url", &self.client.url()).finish_non_exhaustive()
    }
}

/// A call that is taken back when nobody waits for it any more.
struct Call<T>(JoinHandle<Result<T, BackendError>>);

impl<T> Future for Call<T> {
    type Output = Result<T, BackendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|joined| {
            joined.unwrap_or_else(|error| {
                let message = "the tokio runtime that the client lives in has ended the call";
                let kind =
                    if error.is_cancelled() { BackendErrorKind::Closed } else { BackendErrorKind::Other };
                Err(BackendError::new(kind, message))
            })
        })
    }
}

impl<T> Drop for Call<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Backend for Remote {
    fn ensure_topics(&self, topics: &[TopicSpec]) -> BoxFuture<'_, Result<(), BackendError>> {
        let topics = topics.to_vec();
        self.call(async move |client| {
            for TopicSpec { name, partitions, internal } in topics {
                if internal {
                    let message =
                        format!("topic {name:?} is internal, and cannot be created over the network");
                    return Err(BackendError::new(BackendErrorKind::Invalid, message));
                }
                match client.create_topic(&name, partitions).await {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
                    _ => {}
                }
            }
            Ok(())
        })
    }

    fn describe(&self, topic: &str) -> BoxFuture<'_, Result<TopicDescription, BackendError>> {
        let topic = topic.to_owned();
        self.call(async move |client| {
            let found = client.describe_topic(&topic).await.map_err(failed)?;
            let latest =
                found.partitions.iter().map(|it| (it.partition, Position::Latest)).collect::<Vec<_>>();
            let latest = client.list_offsets(&topic, &latest).await.map_err(failed)?;
            let partitions =
                found.partitions.into_iter().zip(latest).map(|(partition, latest)| PartitionState {
                    partition: partition.partition,
                    start_offset: partition.start_offset,
                    stable_end: latest.offset,
                });
            Ok(TopicDescription { topic_id: found.topic.topic_id, partitions: partitions.collect() })
        })
    }

    fn fetch(
        &self,
        from: &[FetchFrom],
        max_bytes: usize,
        max_wait: Duration,
    ) -> BoxFuture<'_, Result<Vec<Fetched>, BackendError>> {
        let place = |from: &FetchFrom| {
            let position = Position::Offset(from.offset);
            logmill_client::FetchFrom::new(from.topic.clone(), from.partition, position)
        };
        let fetch = Fetch {
            partitions: from.iter().map(place).collect(),
            max_bytes: max_bytes.clamp(1, MAX_FETCH_BYTES),
            max_wait: max_wait.min(MAX_WAIT),
            ..Fetch::default()
        };
        self.call(async move |client| {
            let answers = client.fetch(fetch).await.map_err(failed)?.into_iter();
            answers.map(taken).collect()
        })
    }

    fn produce(
        &self,
        topic: &str,
        partition: u32,
        batch: Batch,
    ) -> BoxFuture<'_, Result<Offset, BackendError>> {
        let topic = topic.to_owned();
        self.call(async move |client| {
            let delivered = client.produce_batch(&topic, partition, batch, Acks::Durable).await;
            delivered.map(|delivered| delivered.offset).map_err(failed)
        })
    }
}

fn taken(data: logmill_client::PartitionData) -> Result<Fetched, BackendError> {
    if let Some(error) = data.error {
        return Err(failed(error));
    }
    let mut chunks = Vec::with_capacity(data.chunks.len());
    for chunk in &data.chunks {
        let chunk = Chunk {
            batches: chunk.batches.clone(),
            appended_at: chunk.appended_at,
            appended_at_estimated: chunk.appended_at_estimated,
        };
        chunks.extend(chunk.without(|batch| data.is_aborted(batch))?);
    }
    Ok(Fetched {
        topic: data.topic,
        partition: data.partition,
        chunks,
        next_offset: data.next_offset,
        stable_end: data.last_stable_offset,
    })
}

fn failed(error: logmill_client::Error) -> BackendError {
    let kind = match error.kind() {
        ErrorKind::Unavailable => BackendErrorKind::Unavailable,
        ErrorKind::Timeout => BackendErrorKind::Timeout,
        ErrorKind::OutcomeUnknown => BackendErrorKind::OutcomeUnknown,
        ErrorKind::NotFound => BackendErrorKind::NotFound,
        ErrorKind::TooLarge => BackendErrorKind::TooLarge,
        ErrorKind::Invalid => BackendErrorKind::Invalid,
        ErrorKind::OutOfRange | ErrorKind::Truncated => BackendErrorKind::OutOfRange,
        ErrorKind::Exhausted => BackendErrorKind::Full,
        ErrorKind::Denied => BackendErrorKind::Denied,
        ErrorKind::Corrupt => BackendErrorKind::Corrupt,
        ErrorKind::Closed => BackendErrorKind::Closed,
        _ => BackendErrorKind::Other,
    };
    BackendError::from_source(kind, error)
}
