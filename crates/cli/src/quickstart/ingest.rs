//! The feed into its topic: each feature once, durable before it counts, its delay measured.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use logmill_broker::DEFAULT_MAX_MESSAGE_BYTES;
use logmill_client::{Client, Delivery, ErrorKind, Producer, ProducerOptions, ProducerRecord};
use logmill_log::env::{Clock, SystemClock};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::feed::{Feature, Feed};
use super::report::{Percentiles, bytes_per_s};
use super::results::each_record;
use super::{SOURCE, SOURCE_PARTITIONS};
use crate::failure::Failure;
use crate::output::{delay_histogram, to_f64};

/// A batch and a record take so much beside key and value, at most.
const BATCH_OVERHEAD_BYTES: usize = 128;
/// The header that says which step set a record aside.
const STEP: &str = "logmill.step";

/// What was produced, and how fast.
pub(super) struct Ingested {
    pub(super) produced: u64,
    /// Keys and values of what was produced.
    bytes: u64,
    /// From the first send to the last acknowledgement.
    elapsed: Duration,
    /// From sending a record to its durable acknowledgement, in µs.
    delay_us: Histogram<u64>,
}

impl Ingested {
    /// `None` where nothing was missing.
    pub(super) fn rate_per_s(&self) -> Option<f64> {
        (self.produced > 0).then(|| to_f64(self.produced) / self.elapsed.as_secs_f64())
    }

    /// `None` where nothing was missing.
    pub(super) fn bytes_per_s(&self) -> Option<f64> {
        if self.produced > 0 { bytes_per_s(self.bytes, self.elapsed) } else { None }
    }

    pub(super) fn delay(&self) -> Percentiles {
        let ms = |quantile| {
            (!self.delay_us.is_empty()).then(|| to_f64(self.delay_us.value_at_quantile(quantile)) / 1e3)
        };
        Percentiles { p50: ms(0.5), p99: ms(0.99) }
    }
}

/// Creates the topic of the events, unless an earlier run has.
pub(super) async fn ensure_topic(client: &Client) -> Result<(), Failure> {
    ensure(client, SOURCE, SOURCE_PARTITIONS).await
}

async fn ensure(client: &Client, topic: &str, partitions: u32) -> Result<(), Failure> {
    match client.create_topic(topic, Some(partitions)).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Produces the features that the topic does not hold yet, in the feed's order.
///
/// A run that was killed has stored a part of them, of each partition the first ones: what is missing
/// follows in order. A feature is the same if its key and all its bytes are; one that the feed holds
/// twice is stored twice.
pub(super) async fn produce_missing(client: &Client, feed: &Feed) -> Result<Ingested, Failure> {
    let mut stored: HashMap<Identity, u64> = HashMap::new();
    each_record(client, SOURCE, |record| {
        let identity = identity(record.key.as_deref(), record.value.as_deref());
        *stored.entry(identity).or_default() += 1;
    })
    .await?;
    let (fitting, too_large): (Vec<_>, Vec<_>) = feed.features.iter().partition(|feature| fits(feature));
    set_aside(client, &too_large).await?;
    let missing = fitting.into_iter().filter(|feature| {
        match stored.get_mut(&identity(Some(&feature.key), Some(&feature.value))) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        }
    });
    produce(client, missing.cloned().collect()).await
}

/// Whether a record can hold it: the node of the quickstart takes batches up to the default size.
fn fits(feature: &Feature) -> bool {
    feature.key.len() + feature.value.len() + BATCH_OVERHEAD_BYTES <= DEFAULT_MAX_MESSAGE_BYTES
}

/// Features that no record can hold become dead letters without their value, once each.
async fn set_aside(client: &Client, features: &[&Feature]) -> Result<(), Failure> {
    if features.is_empty() {
        return Ok(());
    }
    let dead = format!("{SOURCE}.dead");
    ensure(client, &dead, 1).await?;
    let mut known = HashSet::new();
    each_record(client, &dead, |letter| {
        if letter.headers.iter().any(|(name, value)| name == STEP && value.as_deref() == Some(b"produce")) {
            known.extend(letter.key.clone());
        }
    })
    .await?;
    let producer = client.producer(ProducerOptions::default())?;
    for feature in features.iter().filter(|feature| !known.contains(&feature.key)) {
        let omitted = feature.value.len().to_string();
        let record = ProducerRecord {
            topic: Arc::from(&*dead),
            key: Some(feature.key.clone()),
            timestamp: feature.time,
            ..ProducerRecord::default()
        }
        .header(STEP, "produce")
        .header("logmill.error", "it is larger than a record can be")
        .header("logmill.value.omitted", omitted);
        let _answered_by_close =
            producer.send(record).await.map_err(|error| of_feature(&feature.key, error))?;
    }
    Ok(producer.close().await?)
}

type Identity = [u8; 32];

fn identity(key: Option<&[u8]>, value: Option<&[u8]>) -> Identity {
    let mut hash = Sha256::new();
    let key = key.unwrap_or_default();
    hash.update((key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(value.unwrap_or_default());
    hash.finalize().into()
}

async fn produce(client: &Client, features: Vec<Feature>) -> Result<Ingested, Failure> {
    let producer = client.producer(ProducerOptions::default())?;
    let bar = progress_bar(features.len() as u64);
    let clock = SystemClock::new();
    let produced = features.len() as u64;
    let bytes = features.iter().map(|feature| (feature.key.len() + feature.value.len()) as u64).sum();
    let (sender, deliveries) = mpsc::unbounded_channel();
    let (sent, delay_us) =
        tokio::join!(send(&producer, features, &clock, sender), acknowledged(deliveries, &clock, &bar));
    let elapsed = clock.monotonic();
    bar.finish_and_clear();
    sent?;
    let delay_us = delay_us?;
    producer.close().await?;
    Ok(Ingested { produced, bytes, elapsed, delay_us })
}

/// On standard error, and only if that is a terminal.
fn progress_bar(length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("storing {bar:30} {pos} of {len} records, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}

struct Sent {
    at: Duration,
    key: Bytes,
    delivery: Delivery,
}

async fn send(
    producer: &Producer,
    features: Vec<Feature>,
    clock: &SystemClock,
    // Bounded by the features, which are all in memory.
    deliveries: mpsc::UnboundedSender<Sent>,
) -> Result<(), Failure> {
    let topic: Arc<str> = SOURCE.into();
    for Feature { key, value, time } in features {
        let record = ProducerRecord {
            topic: Arc::clone(&topic),
            key: Some(key.clone()),
            value: Some(value),
            timestamp: time,
            ..ProducerRecord::default()
        };
        let at = clock.monotonic();
        let delivery = producer.send(record).await.map_err(|error| of_feature(&key, error))?;
        if deliveries.send(Sent { at, key, delivery }).is_err() {
            // A record before this one failed: whoever waited for it says why.
            return Ok(());
        }
    }
    Ok(())
}

async fn acknowledged(
    mut deliveries: mpsc::UnboundedReceiver<Sent>,
    clock: &SystemClock,
    bar: &ProgressBar,
) -> Result<Histogram<u64>, Failure> {
    let mut delay_us = delay_histogram();
    while let Some(Sent { at, key, delivery }) = deliveries.recv().await {
        delivery.await.map_err(|error| of_feature(&key, error))?;
        let delay = clock.monotonic().saturating_sub(at);
        delay_us.saturating_record(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX));
        bar.inc(1);
    }
    Ok(delay_us)
}

fn of_feature(key: &[u8], error: logmill_client::Error) -> Failure {
    let name = String::from_utf8_lossy(key).into_owned();
    Failure::from(error).while_doing(format_args!("feature {name} of the feed"))
}
