//! `logmill bench consume`: readers of records that are there already.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use logmill_client::{Acks, Client, ProducerRecord};
use logmill_record::Inflater;
use tokio::time::sleep;

use super::ConsumeArgs;
use super::args::Common;
use super::measure::{Measured, Tasks, Timetable, measure};
use super::payload::Payloads;
use super::receive::{look_at, subscribe};
use super::target::Target;
use crate::failure::Failure;
use crate::output::{delay_histogram, to_f64};

pub(super) async fn run(args: &ConsumeArgs, target: &Target, topic: &Arc<str>) -> Result<Measured, Failure> {
    let backlog = fill(&args.common, args.backlog_bytes, &target.url, topic).await?;
    let consumed = Arc::new(AtomicU64::new(0));
    let mut clients = Vec::new();
    for _ in 0..args.connections {
        clients.push(Client::connect(&target.url).await?);
    }
    let times = Timetable::new(&args.common);
    let mut tasks = Tasks::new();
    for client in clients {
        let reader = Reader {
            client,
            topic: Arc::clone(topic),
            backlog,
            partitions: args.common.partitions,
            record_bytes: args.common.record_bytes,
            credit_bytes: args.credit_bytes,
            pace: args.rate.map(|rate| f64::from(args.connections) / rate),
            times: times.clone(),
            consumed: Arc::clone(&consumed),
        };
        tasks.spawn(reader.run());
    }
    measure(&times, target.process, &consumed, &mut tasks).await
}

/// Produces what is read; returns how many records that are.
async fn fill(args: &Common, bytes: u64, url: &str, topic: &Arc<str>) -> Result<u64, Failure> {
    let producer = Client::connect(url).await?.producer(args.producer_options(Acks::Durable))?;
    let mut payloads = Payloads::new(0, args.record_bytes);
    let records = bytes.div_ceil(args.record_bytes as u64).max(1);
    for _ in 0..records {
        let value = Some(payloads.next(Duration::ZERO));
        let record = ProducerRecord { topic: Arc::clone(topic), value, ..Default::default() };
        // Not awaited one by one: closing says whether all are there.
        let _delivery = producer.send(record).await?;
    }
    producer.close().await?;
    Ok(records)
}

struct Reader {
    client: Client,
    topic: Arc<str>,
    backlog: u64,
    partitions: u32,
    record_bytes: usize,
    credit_bytes: usize,
    /// Seconds for each record.
    pace: Option<f64>,
    times: Timetable,
    consumed: Arc<AtomicU64>,
}

impl Reader {
    /// Reads everything again and again until the time is over. A delivery is due when it is asked for,
    /// and with a rate, when the records before it have had their time.
    async fn run(self) -> Result<Histogram<u64>, Failure> {
        let mut latency_us = delay_histogram();
        let mut inflater = Inflater::default();
        let mut total = 0;
        let mut due = self.times.start;
        while !self.times.is_over(due) {
            let mut subscription =
                subscribe(&self.client, &self.topic, self.partitions, self.credit_bytes).await?;
            let mut left = self.backlog;
            while left > 0 && !self.times.is_over(due) {
                // Even a sleep of no time takes a millisecond.
                if let Some(early) = due.checked_sub(self.times.now()).filter(|early| !early.is_zero()) {
                    sleep(early).await;
                }
                let Some(data) = subscription.next().await else { break };
                self.times.note(&mut latency_us, due);
                let count = look_at(&data?, self.record_bytes, &mut inflater, |_| ())?;
                self.consumed.fetch_add(count, Ordering::Relaxed);
                total += count;
                left = left.saturating_sub(count);
                due = match self.pace {
                    Some(pace) => self.times.start + Duration::from_secs_f64(pace * to_f64(total)),
                    None => self.times.now(),
                };
            }
        }
        Ok(latency_us)
    }
}
