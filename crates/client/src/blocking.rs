//! The client for programs without an async runtime: each call here waits for its answer.
//!
//! It is the client that there is, on a runtime of its own in a thread of its own, so that producers send, and consumers
//! stay members, while the program does something else. What has no method here is a [`call`](Client::call) away.
//!
//! ```no_run
//! use logmill_client::blocking::Client;
//! use logmill_client::{ProducerOptions, ProducerRecord};
//!
//! fn main() -> Result<(), logmill_client::Error> {
//!     let client = Client::connect("http://127.0.0.1:7070")?;
//!     client.call(|client| async move { client.create_topic("greetings", Some(1)).await })?;
//!     let producer = client.producer(ProducerOptions::default())?;
//!     let delivery = producer.send(ProducerRecord::new("greetings", "hello").key("world"))?;
//!     println!("stored at offset {}", delivery.wait()?.offset);
//!     producer.close()
//! }
//! ```

use std::future::Future;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::{
    ClientBuilder, CommittedStep, ConsumerBuilder, ConsumerEvent, Delivered, Error, ErrorKind,
    OffsetToCommit, PartitionData, ProducerOptions, ProducerRecord, Step, Subscribe, TransactionalOptions,
    UnitEpoch,
};

/// A connection to a node. A clone shares it, and its thread; that ends with the last of what was made of it.
///
/// No call may be made from within an async runtime, which it would block: it says so with
/// [`Invalid`](ErrorKind::Invalid).
#[derive(Clone, Debug)]
pub struct Client {
    inner: crate::Client,
    runtime: Arc<Runtime>,
}

impl Client {
    /// Connects to the node at `url`, such as `http://127.0.0.1:7070`.
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`], and [`Internal`](ErrorKind::Internal) if no thread can be started.
    pub fn connect(url: &str) -> Result<Client, Error> {
        Client::connect_with(crate::Client::builder(url))
    }

    /// Connects as the builder says.
    ///
    /// # Errors
    /// As [`connect`](Client::connect).
    pub fn connect_with(builder: ClientBuilder) -> Result<Client, Error> {
        let runtime = Arc::new(Runtime::start()?);
        let inner = runtime.wait(builder.connect())??;
        Ok(Client { inner, runtime })
    }

    /// Makes any call of the async client, and waits for its answer.
    ///
    /// # Errors
    /// Those of the call.
    ///
    /// ```no_run
    /// # fn example(client: logmill_client::blocking::Client) -> Result<(), logmill_client::Error> {
    /// for topic in client.call(|client| async move { client.list_topics(false).await })? {
    ///     println!("{}", topic.name);
    /// }
    /// client.call(|client| async move { client.delete_group("billing").await })
    /// # }
    /// ```
    pub fn call<T, F>(&self, call: impl FnOnce(crate::Client) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.runtime.wait(call(self.inner.clone()))?
    }

    /// As [`crate::Client::producer`].
    ///
    /// # Errors
    /// The same.
    pub fn producer(&self, options: ProducerOptions) -> Result<Producer, Error> {
        Ok(Producer { inner: self.inner.producer(options)?, runtime: Arc::clone(&self.runtime) })
    }

    /// As [`crate::Client::subscribe`].
    ///
    /// # Errors
    /// The same.
    pub fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription, Error> {
        let inner = self.runtime.wait(self.inner.subscribe(subscribe))??;
        Ok(Subscription { inner, runtime: Arc::clone(&self.runtime) })
    }

    /// Joins a group, as [`ConsumerBuilder::join`], after `with` has said for what.
    ///
    /// # Errors
    /// The same.
    ///
    /// ```no_run
    /// # fn example(client: logmill_client::blocking::Client) -> Result<(), logmill_client::Error> {
    /// use logmill_client::ConsumerEvent;
    ///
    /// for event in client.consumer("alarms", |consumer| consumer.topics(["readings"]))? {
    ///     if let ConsumerEvent::Records(records) = event? {
    ///         println!("{}: {} bytes", records.unit, records.data.size_bytes());
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn consumer(
        &self,
        group: &str,
        with: impl FnOnce(ConsumerBuilder) -> ConsumerBuilder,
    ) -> Result<Consumer, Error> {
        let inner = self.runtime.wait(with(self.inner.consumer(group)).join())??;
        Ok(Consumer { inner, runtime: Arc::clone(&self.runtime) })
    }

    /// As [`crate::Client::transactional_producer`].
    ///
    /// # Errors
    /// The same.
    pub fn transactional_producer(
        &self,
        transactional_id: &str,
        options: TransactionalOptions,
    ) -> Result<TransactionalProducer, Error> {
        let inner = self.runtime.wait(self.inner.transactional_producer(transactional_id, options))??;
        Ok(TransactionalProducer { inner, runtime: Arc::clone(&self.runtime) })
    }

    /// As [`crate::Client::commit_step`].
    ///
    /// # Errors
    /// The same.
    pub fn commit_step(&self, step: &Step) -> Result<CommittedStep, Error> {
        self.runtime.wait(self.inner.commit_step(step))?
    }
}

/// A [`crate::Producer`], each of whose calls waits.
#[derive(Debug)]
pub struct Producer {
    inner: crate::Producer,
    runtime: Arc<Runtime>,
}

impl Producer {
    /// As [`crate::Producer::send`]: it waits only while the buffer is full.
    ///
    /// # Errors
    /// The same.
    pub fn send(&self, record: ProducerRecord) -> Result<Delivery, Error> {
        let inner = self.runtime.wait(self.inner.send(record))??;
        Ok(Delivery { inner, runtime: Arc::clone(&self.runtime) })
    }

    /// As [`crate::Producer::flush`].
    ///
    /// # Errors
    /// The same.
    pub fn flush(&self) -> Result<(), Error> {
        self.runtime.wait(self.inner.flush())?
    }

    /// As [`crate::Producer::close`].
    ///
    /// # Errors
    /// The same.
    pub fn close(&self) -> Result<(), Error> {
        self.runtime.wait(self.inner.close())?
    }
}

/// What becomes of a record: it is sent whether or not this is waited for.
#[derive(Debug)]
#[must_use = "only the answer tells whether the record is stored; `flush` tells for all records"]
pub struct Delivery {
    inner: crate::Delivery,
    runtime: Arc<Runtime>,
}

impl Delivery {
    /// The partition that the record goes to.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.inner.partition()
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// As of a [`crate::Delivery`].
    pub fn wait(self) -> Result<Delivered, Error> {
        self.runtime.wait(self.inner)?
    }
}

/// A [`crate::Subscription`], as an iterator that waits for what comes.
#[derive(Debug)]
pub struct Subscription {
    inner: crate::Subscription,
    runtime: Arc<Runtime>,
}

impl Subscription {
    /// The next item, or `None` if none comes in this time.
    ///
    /// # Errors
    /// Those that the iterator gives; [`Closed`](ErrorKind::Closed) after the last item.
    pub fn next_within(&mut self, limit: Duration) -> Result<Option<PartitionData>, Error> {
        let next = async { timeout(limit, self.inner.next()).await };
        within(self.runtime.wait(next)?)
    }
}

impl Iterator for Subscription {
    type Item = Result<PartitionData, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime.wait(self.inner.next()).unwrap_or_else(|error| Some(Err(error)))
    }
}

/// A [`crate::Consumer`], as an iterator that waits for what happens. The program may take as long as it wants between
/// two calls: a thread of its own keeps the consumer a member.
#[derive(Debug)]
pub struct Consumer {
    inner: crate::Consumer,
    runtime: Arc<Runtime>,
}

impl Consumer {
    /// What happens next, or `None` if nothing does in this time: for a program that has to look after something else as
    /// well, such as whether it is to stop.
    ///
    /// # Errors
    /// Those that the iterator gives; [`Closed`](ErrorKind::Closed) after the last item.
    ///
    /// ```no_run
    /// # fn example(mut consumer: logmill_client::blocking::Consumer, stop: &std::sync::atomic::AtomicBool)
    /// # -> Result<(), logmill_client::Error> {
    /// use std::sync::atomic::Ordering;
    /// use std::time::Duration;
    ///
    /// while !stop.load(Ordering::Relaxed) {
    ///     if let Some(event) = consumer.next_within(Duration::from_millis(100))? {
    ///         println!("{event:?}");
    ///     }
    /// }
    /// consumer.close()
    /// # }
    /// ```
    pub fn next_within(&mut self, limit: Duration) -> Result<Option<ConsumerEvent>, Error> {
        let next = async { timeout(limit, self.inner.next()).await };
        within(self.runtime.wait(next)?)
    }

    /// What commits for this consumer, for other threads.
    #[must_use]
    pub fn committer(&self) -> Committer {
        Committer { inner: self.inner.committer(), runtime: Arc::clone(&self.runtime) }
    }

    /// As [`crate::Consumer::commit`].
    ///
    /// # Errors
    /// The same.
    pub fn commit(&self, unit: &UnitEpoch, offsets: &[OffsetToCommit]) -> Result<(), Error> {
        self.runtime.wait(self.inner.commit(unit, offsets))?
    }

    /// As [`crate::Consumer::close`].
    ///
    /// # Errors
    /// The same.
    pub fn close(self) -> Result<(), Error> {
        self.runtime.wait(self.inner.close())?
    }
}

impl Iterator for Consumer {
    type Item = Result<ConsumerEvent, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime.wait(self.inner.next()).unwrap_or_else(|error| Some(Err(error)))
    }
}

/// A [`crate::Committer`], each of whose commits waits. A clone is the same.
#[derive(Clone, Debug)]
pub struct Committer {
    inner: crate::Committer,
    runtime: Arc<Runtime>,
}

impl Committer {
    /// As [`crate::Committer::commit`].
    ///
    /// # Errors
    /// The same.
    pub fn commit(&self, unit: &UnitEpoch, offsets: &[OffsetToCommit]) -> Result<(), Error> {
        self.runtime.wait(self.inner.commit(unit, offsets))?
    }

    /// As [`crate::Committer::warmed`].
    pub fn warmed(&self, unit: &str) {
        self.inner.warmed(unit);
    }
}

/// What came within a time, of something that may end.
fn within<T>(next: Result<Option<Result<T, Error>>, Elapsed>) -> Result<Option<T>, Error> {
    match next {
        Ok(Some(item)) => item.map(Some),
        Ok(None) => Err(Error::new(ErrorKind::Closed, "CLOSED", "it has ended, and nothing more comes")),
        Err(_) => Ok(None),
    }
}

/// A [`crate::TransactionalProducer`], each of whose calls waits.
#[derive(Debug)]
pub struct TransactionalProducer {
    inner: crate::TransactionalProducer,
    runtime: Arc<Runtime>,
}

impl TransactionalProducer {
    /// As [`crate::TransactionalProducer::send`].
    ///
    /// # Errors
    /// The same.
    pub fn send(&self, record: ProducerRecord) -> Result<Delivery, Error> {
        let inner = self.runtime.wait(self.inner.send(record))??;
        Ok(Delivery { inner, runtime: Arc::clone(&self.runtime) })
    }

    /// As [`crate::TransactionalProducer::add_offsets`].
    ///
    /// # Errors
    /// The same.
    pub fn add_offsets(
        &mut self,
        group: &str,
        unit: &UnitEpoch,
        offsets: &[OffsetToCommit],
    ) -> Result<(), Error> {
        self.runtime.wait(self.inner.add_offsets(group, unit, offsets))?
    }

    /// As [`crate::TransactionalProducer::commit`].
    ///
    /// # Errors
    /// The same.
    pub fn commit(&mut self) -> Result<(), Error> {
        self.runtime.wait(self.inner.commit())?
    }

    /// As [`crate::TransactionalProducer::abort`].
    ///
    /// # Errors
    /// The same.
    pub fn abort(&mut self) -> Result<(), Error> {
        self.runtime.wait(self.inner.abort())?
    }

    /// As [`crate::TransactionalProducer::close`].
    ///
    /// # Errors
    /// The same.
    pub fn close(self) -> Result<(), Error> {
        self.runtime.wait(self.inner.close())?
    }
}

/// A runtime in a thread, which ends when this is dropped.
#[derive(Debug)]
struct Runtime {
    handle: Handle,
    /// The thread waits until it is dropped.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Runtime {
    fn start() -> Result<Runtime, Error> {
        let cannot = |error: std::io::Error| {
            let message = format!("the client cannot start its runtime: {error}");
            Error::new(ErrorKind::Internal, "RUNTIME", message).with_source(error)
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(cannot)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        // All that runs in it is dropped with it, at the end of the thread.
        let run = move || drop(runtime.block_on(stopped));
        let thread =
            std::thread::Builder::new().name("logmill-client".to_owned()).spawn(run).map_err(cannot)?;
        Ok(Runtime { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Waits for a future, which the thread drives on.
    fn wait<T>(&self, future: impl Future<Output = T>) -> Result<T, Error> {
        if Handle::try_current().is_ok() {
            return Err(Error::invalid(
                "a blocking client is used within an async runtime, which it would block: use the async one there",
            ));
        }
        Ok(self.handle.block_on(future))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It panics only if a task of it has, which was said where it happened.
            let _ = thread.join();
        }
    }
}
