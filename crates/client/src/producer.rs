//! The producer: records in, batches out, answers back.
//!
//! Callers put records into the [accumulator](accumulator); one task, the [driver], keeps one stream to the
//! node open while there is something to send, and the stream takes batches from the accumulator as the
//! connection has room for them. Batches are numbered: when a stream breaks, what had been sent on it and not
//! answered goes out on the next one, and the node knows what it has already. Without numbers a batch is sent at most
//! once, and what may be stored is reported as of unknown outcome.

mod accumulator;
mod delivery;
mod driver;
mod partitioner;
mod record;
mod rules;
mod send;
mod shared;
mod stream;
mod transactional;

pub use delivery::Delivery;
pub use record::ProducerRecord;
pub(crate) use transactional::ask;
pub use transactional::{TransactionalOptions, TransactionalProducer};

use std::sync::Arc;
use std::time::Duration;

use logmill_record::Compression;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::{Acks, Client, Error};
use accumulator::Identity;
use shared::{Life, Shared};

/// How long a node may take to end a stream of which everything is answered.
const GOODBYE: Duration = Duration::from_secs(1);

/// How a [`Producer`] works.
///
/// ```
/// use logmill_client::{Acks, ProducerOptions};
///
/// let options = ProducerOptions { acks: Acks::Written, ..ProducerOptions::default() };
/// assert_eq!(options.max_batch_bytes, 65_536);
/// ```
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// When the node answers; when the records are on disk unless set.
    pub acks: Acks,
    /// What a batch is filled up to, before it is compressed; 64 KiB unless set, and less for a topic whose
    /// `max.message.bytes` is less. A larger record travels alone.
    pub max_batch_bytes: usize,
    /// How batches are compressed; not at all unless set. A topic whose `compression.type` is not `producer` gets what
    /// that says instead. Each codec is a feature of this crate: `gzip`, `lz4`, `snappy`, `zstd`. A node refuses a batch of
    /// more than 1 MiB that shrinks by more than a thousand times (`MESSAGE_TOO_LARGE`).
    pub compression: Compression,
    /// How many bytes of records may wait to be sent or answered; 32 MiB unless set. While they do,
    /// [`send`](Producer::send) waits.
    pub max_buffered_bytes: usize,
    /// How many bytes may be sent and not answered; 8 MiB unless set. The node's own limit applies as well.
    pub max_in_flight_bytes: usize,
    /// How long a record may take from [`send`](Producer::send) to its answer; 30 s unless set. One that was
    /// not sent by then fails with [`Timeout`](crate::ErrorKind::Timeout) and was not appended; one that was
    /// sent, with [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown).
    pub delivery_timeout: Duration,
    /// Whether records are numbered, so that the node knows those that are sent again; so unless set to `false`.
    /// Without, a record that was sent and not answered when the connection broke is of unknown outcome.
    pub idempotent: bool,
}

impl Default for ProducerOptions {
    fn default() -> ProducerOptions {
        ProducerOptions {
            acks: Acks::Durable,
            max_batch_bytes: 64 << 10,
            compression: Compression::None,
            max_buffered_bytes: 32 << 20,
            max_in_flight_bytes: 8 << 20,
            delivery_timeout: Duration::from_secs(30),
            idempotent: true,
        }
    }
}

impl ProducerOptions {
    /// A semaphore hands out at most so many permits at a time.
    fn buffer_permits(&self) -> usize {
        let most = usize::try_from(u32::MAX).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        self.max_buffered_bytes.clamp(1, most)
    }
}

/// Sends records to topics, in batches.
///
/// Records for one partition are appended in the order in which they were given to [`send`](Producer::send).
/// None is stored twice, and none in another order: if the connection breaks, or the node is killed, what was not
/// answered is sent again when it is back, under the same numbers. When one fails, because it is too large say, those
/// behind it follow without it. If no answer comes within
/// [`delivery_timeout`](ProducerOptions::delivery_timeout), the [`Delivery`] fails with
/// [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown); so it does at once for everything that was sent and not
/// answered if the producer is not [`idempotent`](ProducerOptions::idempotent).
///
/// What a topic asks of batches, its `compression.type` and `max.message.bytes`, is looked up when it is first written
/// to, and again every minute. When it changes in between, the node may refuse records that are sent or batched
/// already, with the reasons `RECORD_REFUSED` and `MESSAGE_TOO_LARGE`: they fail, nothing of them is stored, and
/// what is sent after that follows the new settings.
///
/// All that ends with the producer: another one, of the same program started again for instance, has other numbers.
///
/// Share it among tasks in an [`Arc`]. Dropping it gives up what is not answered; [`close`](Producer::close)
/// waits for it.
///
/// ```no_run
/// use logmill_client::{Client, ProducerOptions, ProducerRecord};
///
/// # async fn example() -> Result<(), logmill_client::Error> {
/// let client = Client::connect("http://127.0.0.1:7070").await?;
/// let producer = client.producer(ProducerOptions::default())?;
/// for i in 0..1_000 {
///     let record = ProducerRecord::new("orders", format!("order {i}")).key(format!("customer {}", i % 7));
///     // Not awaited one by one: `flush` says whether all are stored.
///     let _delivery = producer.send(record).await?;
/// }
/// producer.flush().await?;
/// producer.close().await
/// # }
/// ```
#[derive(Debug)]
pub struct Producer {
    shared: Arc<Shared>,
    /// One describing at a time, however many callers meet a new topic at once.
    describing: tokio::sync::Mutex<()>,
    driver: Mutex<Option<JoinHandle<()>>>,
}

impl Client {
    /// A producer on this connection. It connects its stream when there is something to send.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for options that are 0, and
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a codec that this program was built without.
    pub fn producer(&self, options: ProducerOptions) -> Result<Producer, Error> {
        let identity = if options.idempotent { Identity::Wanted } else { Identity::None };
        self.producer_with(options, identity)
    }

    fn producer_with(&self, options: ProducerOptions, identity: Identity) -> Result<Producer, Error> {
        let ProducerOptions { max_batch_bytes, max_buffered_bytes, max_in_flight_bytes, .. } = options;
        if [max_batch_bytes, max_buffered_bytes, max_in_flight_bytes].contains(&0)
            || options.delivery_timeout.is_zero()
        {
            return Err(Error::invalid(format!("no limit of a producer can be 0: {options:?}")));
        }
        if options.compression != Compression::None {
            rules::check_codec(options.compression, "the compression of a producer")?;
        }
        let shared = Arc::new(Shared::new(self.clone(), options, identity));
        let driver = self.runtime().spawn(driver::run(Arc::clone(&shared)));
        Ok(Producer { shared, describing: tokio::sync::Mutex::new(()), driver: Mutex::new(Some(driver)) })
    }
}

impl Producer {
    /// Waits until every record given to [`send`](Producer::send) before is answered, without waiting for
    /// batches to fill.
    ///
    /// # Errors
    /// The first failure since the last flush, whether or not its [`Delivery`] was awaited.
    pub async fn flush(&self) -> Result<(), Error> {
        let (completions, waker) = {
            let mut state = self.shared.state.lock();
            (state.accumulator.seal(), state.stream_waker.take())
        };
        self.shared.wake(waker);
        for completion in completions {
            completion.wait().await;
        }
        match self.shared.state.lock().failure.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Takes no more records, sends what it has, and waits for the answers. Closing again does nothing.
    ///
    /// # Errors
    /// As [`flush`](Producer::flush).
    pub async fn close(&self) -> Result<(), Error> {
        {
            let mut state = self.shared.state.lock();
            if state.life == Life::Open {
                state.life = Life::Closing;
            }
        }
        let flushed = self.flush().await;
        let driver = self.driver.lock().take();
        if let Some(mut driver) = driver
            && tokio::time::timeout(GOODBYE, &mut driver).await.is_err()
        {
            driver.abort();
        }
        self.shared.shut();
        flushed
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.get_mut().take() {
            driver.abort();
        }
        self.shared.shut();
    }
}
