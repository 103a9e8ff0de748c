//! A broker in the same process.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use logmill_broker::{
    Acks, Broker, Config, CreateTopic, Fetch, MAX_WAIT, OpenError, OpenErrorKind, Payload, Position, Produce,
    Reason, RequestContext,
};
use logmill_record::{Batch, Offset};

use super::{
    Backend, BackendError, BackendErrorKind, BoxFuture, Chunk, FetchFrom, Fetched, PartitionState,
    TopicDescription, TopicSpec,
};

/// Runs pipelines on a [`Broker`] of the same process.
///
/// ```
/// use std::sync::Arc;
///
/// use logmill_broker::{Broker, Config};
/// use logmill_processing::Mill;
/// use logmill_processing::backend::Embedded;
///
/// # let dir = tempfile::tempdir()?;
/// let broker = Broker::open(Config::new(dir.path()))?;
/// let mill = Mill::new(Arc::new(Embedded::new(broker.clone())));
/// // … run pipelines, and produce to the broker beside them …
/// drop(mill);
/// broker.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Embedded {
    broker: Broker,
    context: RequestContext,
    /// Whether the broker was opened here, and is closed with this.
    owned: bool,
}

impl Embedded {
    /// On a broker that the caller has opened, and closes.
    #[must_use]
    pub fn new(broker: Broker) -> Self {
        Self { broker, context: RequestContext::embedded(), owned: false }
    }

    /// Opens the data directory, or makes a new one; it is closed when this is dropped. Blocks.
    ///
    /// # Errors
    /// The directory is in use, is none, cannot be written, is damaged or of a newer version.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, BackendError> {
        let broker = Broker::open(Config::new(dir.as_ref())).map_err(not_opened)?;
        Ok(Self { broker, context: RequestContext::embedded(), owned: true })
    }

    async fn create(&self, spec: TopicSpec) -> Result<(), BackendError> {
        let TopicSpec { name, partitions, internal } = spec;
        let create = CreateTopic { partitions, internal, ..CreateTopic::new(name) };
        match self.broker.create_topic(&self.context, create).await {
            Err(error) if error.reason() != Reason::TopicExists => Err(failed(error)),
            _ => Ok(()),
        }
    }
}

impl Backend for Embedded {
    fn ensure_topics(&self, topics: &[TopicSpec]) -> BoxFuture<'_, Result<(), BackendError>> {
        let topics = topics.to_vec();
        Box::pin(async move {
            for spec in topics {
                self.create(spec).await?;
            }
            Ok(())
        })
    }

    fn describe(&self, topic: &str) -> BoxFuture<'_, Result<TopicDescription, BackendError>> {
        let topic = topic.to_owned();
        Box::pin(async move {
            let found = self.broker.describe_topic(&self.context, &topic).await.map_err(failed)?;
            let latest = found.partitions.iter().map(|it| (it.partition, Position::Latest)).collect();
            let latest = self.broker.list_offsets(&self.context, &topic, latest).await.map_err(failed)?;
            let partitions =
                found.partitions.into_iter().zip(latest).map(|(partition, latest)| PartitionState {
                    partition: partition.partition,
                    start_offset: partition.start_offset,
                    stable_end: latest.offset,
                });
            Ok(TopicDescription { topic_id: found.topic.id.to_string(), partitions: partitions.collect() })
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
            logmill_broker::FetchFrom::new(from.topic.clone(), from.partition, position)
        };
        let places = from.iter().map(place).collect();
        let request = Fetch::new(places).max_bytes(max_bytes).max_wait(max_wait.min(MAX_WAIT));
        let fetched = self.broker.fetch(&self.context, request);
        Box::pin(async move {
            let answers = fetched.await.map_err(failed)?.into_iter();
            answers.map(taken).collect()
        })
    }

    fn produce(
        &self,
        topic: &str,
        partition: u32,
        batch: Batch,
    ) -> BoxFuture<'_, Result<Offset, BackendError>> {
        let request = Produce {
            topic: topic.to_owned(),
            partition: Some(partition),
            payload: Payload::Batch(batch.bytes().clone()),
            acks: Acks::Durable,
            sent_at: None,
        };
        let produced = self.broker.produce(&self.context, request);
        Box::pin(async move {
            let result = produced.await.map_err(failed)?.into_iter().next();
            let outcome = result.map(|result| result.outcome).ok_or_else(|| {
                BackendError::new(BackendErrorKind::Other, "the broker did not say what became of a batch")
            })?;
            outcome.map(|appended| appended.first_offset).map_err(failed)
        })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = self.broker.close()
        {
            tracing::error!("{error}");
        }
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("broker", &self.broker).finish_non_exhaustive()
    }
}

fn taken(data: logmill_broker::PartitionData) -> Result<Fetched, BackendError> {
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

fn failed(error: logmill_broker::Error) -> BackendError {
    let kind = match error.reason() {
        Reason::TopicNotFound | Reason::PartitionNotFound => BackendErrorKind::NotFound,
        Reason::OffsetOutOfRange | Reason::LogTruncated => BackendErrorKind::OutOfRange,
        Reason::MessageTooLarge => BackendErrorKind::TooLarge,
        Reason::LimitExceeded | Reason::DiskFull => BackendErrorKind::Full,
        Reason::OutcomeUnknown => BackendErrorKind::OutcomeUnknown,
        Reason::DataCorrupt => BackendErrorKind::Corrupt,
        Reason::PartitionReopening => BackendErrorKind::Unavailable,
        Reason::NodeClosing => BackendErrorKind::Closed,
        Reason::RequestInvalid
        | Reason::TopicNameInvalid
        | Reason::PartitionCountInvalid
        | Reason::BatchInvalid
        | Reason::BatchUnsupported => BackendErrorKind::Invalid,
        _ => BackendErrorKind::Other,
    };
    BackendError::from_source(kind, error)
}

fn not_opened(error: OpenError) -> BackendError {
    let kind = match error.kind() {
        OpenErrorKind::InUse => BackendErrorKind::Busy,
        OpenErrorKind::Denied => BackendErrorKind::Denied,
        OpenErrorKind::Full => BackendErrorKind::Full,
        OpenErrorKind::Damaged => BackendErrorKind::Corrupt,
        OpenErrorKind::NotADataDirectory | OpenErrorKind::NewerFormat => BackendErrorKind::Invalid,
        _ => BackendErrorKind::Other,
    };
    BackendError::from_source(kind, error)
}
