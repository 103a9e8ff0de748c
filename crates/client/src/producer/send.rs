//! What happens between a caller's record and its place in a batch: learn the topic, wait for room, push.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};
use tokio::time::{Instant, timeout_at};

use super::accumulator::{Entry, MostBytes, Refusal};
use super::partitioner::Partitioner;
use super::rules::TopicRules;
use super::shared::{Life, closed};
use super::stream::too_large;
use super::transactional::broken;
use super::{Delivery, Producer, ProducerRecord};
use crate::backoff::{Backoff, random};
use crate::clock::deadline_in;
use crate::{Error, ErrorKind};

/// What a record takes in the buffer beyond its bytes.
const RECORD_OVERHEAD_BYTES: usize = 32;

impl Producer {
    /// Gives a record to the producer. Waits while the buffer is full, and for the topic's description when the topic is
    /// first written to and once a minute after that; otherwise returns at once, and the [`Delivery`] tells what
    /// becomes of the record.
    ///
    /// # Errors
    /// The record was not taken and is not sent: [`NotFound`](ErrorKind::NotFound) for a topic or partition
    /// that is not there, [`TooLarge`](ErrorKind::TooLarge) for one that is larger than the topic or the node takes
    /// (the delivery fails in the same way where that turns out later, as it does of compressed ones),
    /// [`Unsupported`](ErrorKind::Unsupported) for a topic whose codec this program was built without,
    /// [`Exhausted`](ErrorKind::Exhausted) if the buffer stayed full for the delivery timeout,
    /// [`Unavailable`](ErrorKind::Unavailable) or [`Timeout`](ErrorKind::Timeout) if the topic could not be
    /// looked up, and [`Closed`](ErrorKind::Closed).
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery, Error> {
        let mut now = Instant::now();
        let deadline = deadline_in(self.shared.options.delivery_timeout);
        let mut looked_again = false;
        loop {
            let charge = self.charge(&record, deadline).await?;
            match self.push(&record, charge, now, deadline)? {
                Ok(delivery) => return Ok(delivery),
                // Not asked yet or long ago; or another record's answer says that it is gone, or asks for other batches by
                // now, and it is for the node to say that.
                Err(Refusal::UnknownTopic) if now < deadline => self.learn(&record.topic, deadline).await?,
                // The topic may have more partitions by now, or take more.
                Err(Refusal::NoPartition { .. } | Refusal::TooLarge { most: MostBytes::Topic(_), .. })
                    if !looked_again =>
                {
                    looked_again = true;
                    self.shared.state.lock().accumulator.topics.forget(&record.topic);
                }
                Err(refusal) => return Err(refused(&record, refusal)),
            }
            now = Instant::now();
        }
    }

    fn push(
        &self,
        record: &ProducerRecord,
        charge: OwnedSemaphorePermit,
        now: Instant,
        deadline: Instant,
    ) -> Result<Result<Delivery, Refusal>, Error> {
        let timestamp = record.timestamp.unwrap_or_else(|| self.shared.client.clock().now());
        let entry = Entry { topic: &record.topic, partition: record.partition, charge, now, deadline };
        let (pushed, waker) = {
            let mut state = self.shared.state.lock();
            if state.life != Life::Open {
                return Err(closed());
            }
            if let Some(cause) = &state.broken {
                return Err(broken(cause));
            }
            let was_idle = state.accumulator.is_idle();
            let pushed = record.with_new(timestamp, |record| state.accumulator.push(record, entry));
            if was_idle {
                self.shared.due.notify_one();
            }
            if !state.stream.started {
                self.shared.work.notify_one();
            }
            (pushed, state.waker_if_any_may_go())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(pushed)
    }

    /// Takes the record's share of the buffer, in turn.
    async fn charge(
        &self,
        record: &ProducerRecord,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, Error> {
        let options = &self.shared.options;
        let bytes = footprint(record).min(options.buffer_permits());
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        match Arc::clone(&self.shared.buffer).try_acquire_many_owned(permits) {
            Ok(charge) => return Ok(charge),
            Err(TryAcquireError::Closed) => return Err(closed()),
            Err(TryAcquireError::NoPermits) => {}
        }
        match timeout_at(deadline, Arc::clone(&self.shared.buffer).acquire_many_owned(permits)).await {
            Ok(Ok(charge)) => Ok(charge),
            Ok(Err(_)) => Err(closed()),
            Err(_) => {
                let message = format!(
                    "the producer's buffer of {} bytes was full for {:?}: send more slowly, or raise \
                     max_buffered_bytes",
                    options.max_buffered_bytes, options.delivery_timeout
                );
                Err(Error::new(ErrorKind::Exhausted, "BUFFER_FULL", message))
            }
        }
    }

    /// Makes sure that the number of the topic's partitions is known, and how it wants its batches. Where that was known
    /// before, and the node does not answer, it is taken to be still so: half of the time that the record has is for
    /// its way to the node.
    async fn learn(&self, topic: &Arc<str>, deadline: Instant) -> Result<(), Error> {
        let look_up = async {
            let _one_at_a_time = self.describing.lock().await;
            let mut backoff = Backoff::default();
            loop {
                if self.shared.state.lock().accumulator.topics.is_fresh(topic, Instant::now()) {
                    return Ok(());
                }
                let Err(error) = self.look_up(topic).await else { return Ok(()) };
                if !error.kind().is_retriable() {
                    return Err(error);
                }
                let pause = backoff.next();
                if Instant::now() + pause >= deadline {
                    return Err(error);
                }
                tokio::time::sleep(pause).await;
            }
        };
        let now = Instant::now();
        let is_known = self.shared.state.lock().accumulator.topics.is_known(topic);
        let until = if is_known { now + (deadline - now) / 2 } else { deadline };
        match timeout_at(until, look_up).await {
            Ok(learned) => learned,
            Err(_) if is_known => {
                self.shared.state.lock().accumulator.topics.keep(topic, Instant::now());
                Ok(())
            }
            Err(_) => {
                let limit = self.shared.options.delivery_timeout;
                Err(self.shared.client.peer().timeout("DescribeTopic", limit))
            }
        }
    }

    async fn look_up(&self, topic: &Arc<str>) -> Result<(), Error> {
        let described = self.shared.client.describe_topic(topic).await;
        let mut state = self.shared.state.lock();
        let topics = &mut state.accumulator.topics;
        match described {
            Ok(described) => {
                let count = described.topic.partition_count;
                if count == 0 {
                    return Err(Error::nonsense(format!("topic {topic} has no partitions")));
                }
                let rules = TopicRules::of(topic, &described.topic.settings)?;
                let turn_bytes = self.shared.options.max_batch_bytes;
                let partitioner = Partitioner::new(count, turn_bytes, random());
                topics.learn(topic, Instant::now(), partitioner, rules);
                Ok(())
            }
            Err(error) if error.kind().is_retriable() && topics.is_known(topic) => {
                topics.keep(topic, Instant::now());
                Ok(())
            }
            Err(error) => {
                topics.forget(topic);
                Err(error)
            }
        }
    }
}

fn footprint(record: &ProducerRecord) -> usize {
    let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + len(value)).sum();
    len(&record.key) + len(&record.value) + headers + RECORD_OVERHEAD_BYTES
}

fn refused(record: &ProducerRecord, refusal: Refusal) -> Error {
    let topic = &record.topic;
    match refusal {
        Refusal::UnknownTopic => {
            let message = format!("topic {topic} was there and not there by turns until the time was up");
            Error::new(ErrorKind::NotFound, "TOPIC_NOT_FOUND", message)
        }
        Refusal::NoPartition { count } => {
            let partition = record.partition.unwrap_or_default();
            let last = count.saturating_sub(1);
            let message = format!(
                "topic {topic} has no partition {partition}: its partitions are numbered 0 to {last}"
            );
            Error::new(ErrorKind::NotFound, "PARTITION_NOT_FOUND", message)
                .with_metadata([("topic", topic.to_string()), ("partition", partition.to_string())])
        }
        Refusal::TooLarge { size_bytes, most } => too_large(topic, size_bytes, most),
        Refusal::Batch(error) => {
            Error::invalid(format!("this record for topic {topic} cannot be in a batch: {error}"))
                .with_source(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::runtime::Handle;
    use tonic::transport::Endpoint;

    use super::*;
    use crate::client::Connection;
    use crate::clock::Clock;
    use crate::error::Peer;
    use crate::{Client, ProducerOptions};

    /// Of no node.
    fn client() -> Client {
        let url = "http://127.0.0.1:1";
        Client(Arc::new(Connection {
            channel: Endpoint::from_static(url).connect_lazy(),
            peer: Peer { url: url.into() },
            runtime: Handle::current(),
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(1),
            max_reply_bytes: 1,
            clock: Clock::system(),
        }))
    }

    #[tokio::test]
    async fn a_record_that_finds_no_room_in_time_is_not_taken() {
        let delivery_timeout = Duration::from_millis(50);
        let options = ProducerOptions { max_buffered_bytes: 100, delivery_timeout, ..Default::default() };
        let producer = client().producer(options).unwrap();
        // Taken by nobody whose own time could be over first, and make room.
        let _taken = Arc::clone(&producer.shared.buffer).try_acquire_many_owned(100).unwrap();
        let error = producer.send(ProducerRecord::new("t", "x")).await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Exhausted, "BUFFER_FULL"));
        assert!(producer.shared.state.lock().accumulator.is_idle());
    }
}
