//! Sending: each connection sends on its own, and its acknowledgements are looked at one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use logmill_client::{Acks, Client, Delivery, Producer, ProducerRecord};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::args::Common;
use super::measure::{Tasks, Timetable, ended};
use super::payload::Payloads;
use crate::failure::Failure;
use crate::output::{delay_histogram, to_f64};

/// Deliveries go from the sender to the one who waits for them in packs, which costs less per record.
const PACK: usize = 64;
const PACKS_AHEAD: usize = 16_384;

/// How fast, and with which promise.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) connections: u32,
    /// Records per second over all connections; as fast as it goes without.
    pub(super) rate: Option<f64>,
    pub(super) acks: Acks,
}

/// Connects all producers. The clock starts after it.
pub(super) async fn connect(url: &str, args: &Common, load: Load) -> Result<Vec<Producer>, Failure> {
    let mut producers = Vec::new();
    for _ in 0..load.connections {
        producers.push(Client::connect(url).await?.producer(args.producer_options(load.acks))?);
    }
    Ok(producers)
}

/// Sends until the time is over. The tasks return how long records took from when they were due to
/// their acknowledgement, and `acknowledged` counts them.
pub(super) fn start(
    producers: Vec<Producer>,
    topic: &Arc<str>,
    (args, load): (&Common, Load),
    times: &Timetable,
    acknowledged: &Arc<AtomicU64>,
) -> Tasks {
    let mut tasks = Tasks::new();
    for (index, producer) in (0_u64..).zip(producers) {
        let connection = Connection {
            producer,
            payloads: Payloads::new(index, args.record_bytes),
            template: ProducerRecord { topic: Arc::clone(topic), ..Default::default() },
            pace: load.rate.map(|rate| f64::from(load.connections) / rate),
            times: times.clone(),
            acknowledged: Arc::clone(acknowledged),
        };
        tasks.spawn(connection.run());
    }
    tasks
}

struct Connection {
    producer: Producer,
    payloads: Payloads,
    template: ProducerRecord,
    /// Seconds from one record to the next.
    pace: Option<f64>,
    times: Timetable,
    acknowledged: Arc<AtomicU64>,
}

type Pack = Vec<(Duration, Delivery)>;

impl Connection {
    async fn run(mut self) -> Result<Histogram<u64>, Failure> {
        let (sender, packs) = mpsc::channel(PACKS_AHEAD);
        let waiting =
            tokio::spawn(wait_for_deliveries(packs, self.times.clone(), Arc::clone(&self.acknowledged)));
        let sent = self.send(&sender).await;
        drop(sender);
        let latency = waiting.await.map_err(|error| ended(&error))?;
        sent?;
        self.producer.close().await?;
        latency
    }

    /// Sends until the end; the time that goes with a record is when it should have been sent.
    async fn send(&mut self, packs: &mpsc::Sender<Pack>) -> Result<(), Failure> {
        let mut pack = Pack::with_capacity(PACK);
        let mut number = 0;
        let mut due = self.times.start;
        while !self.times.is_over(due) {
            if self.pace.is_some()
                && let Some(early) = due.checked_sub(self.times.now()).filter(|early| !early.is_zero())
            {
                // Nobody may wait for this pack while we sleep.
                if !pack.is_empty() && packs.send(std::mem::take(&mut pack)).await.is_err() {
                    return Ok(());
                }
                sleep(early).await;
            }
            let record = ProducerRecord { value: Some(self.payloads.next(due)), ..self.template.clone() };
            pack.push((due, self.producer.send(record).await?));
            if pack.len() == PACK
                && packs.send(std::mem::replace(&mut pack, Pack::with_capacity(PACK))).await.is_err()
            {
                // A record failed; whoever waited for it knows why.
                return Ok(());
            }
            number += 1;
            due = match self.pace {
                Some(pace) => self.times.start + Duration::from_secs_f64(pace * to_f64(number)),
                None => self.times.now(),
            };
        }
        // The receiver ends only after this.
        let _ = packs.send(pack).await;
        Ok(())
    }
}

async fn wait_for_deliveries(
    mut packs: mpsc::Receiver<Pack>,
    times: Timetable,
    acknowledged: Arc<AtomicU64>,
) -> Result<Histogram<u64>, Failure> {
    let mut latency_us = delay_histogram();
    while let Some(pack) = packs.recv().await {
        for (due, delivery) in pack {
            delivery.await?;
            acknowledged.fetch_add(1, Ordering::Relaxed);
            times.note(&mut latency_us, due);
        }
    }
    Ok(latency_us)
}
