//! The load: each connection sends on its own, and its acknowledgements are looked at one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use logmill_client::{Client, Delivery, Producer, ProducerOptions, ProducerRecord};
use logmill_log::env::{Clock, SystemClock};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::ProduceArgs;
use super::payload::Payloads;
use super::process::{Process, free_memory_bytes};
use super::target::Target;
use crate::failure::{Exit, Failure};
use crate::node::blocking;
use crate::output::{delay_histogram, to_f64};

/// Deliveries go from the sender to the one who waits for them in packs, which costs less per record.
const PACK: usize = 64;
const PACKS_AHEAD: usize = 16_384;
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// On a machine whose memory nobody has used yet, the first page-cache writes cost several times more.
const MOST_TOUCHED_BYTES: u64 = 1 << 30;

/// What came out.
pub(super) struct Measured {
    /// From when a record should have been sent to its acknowledgement, in µs.
    pub(super) latency_us: Histogram<u64>,
    /// Records acknowledged in the time measured.
    pub(super) acknowledged: u64,
    pub(super) time: Duration,
    pub(super) client: Cost,
    pub(super) server: Option<Cost>,
}

/// What a process spent in the time measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) cpu: Option<Duration>,
    pub(super) peak_anonymous_bytes: Option<u64>,
}

/// When what happens, on one clock.
#[derive(Clone)]
struct Timetable {
    clock: Arc<SystemClock>,
    start: Duration,
    measure: Duration,
    end: Duration,
}

pub(super) async fn run(args: &ProduceArgs, target: &Target) -> Result<Measured, Failure> {
    blocking(touch_memory).await?;
    let admin = Client::connect(&target.url).await?;
    let clock = SystemClock::new();
    let topic: Arc<str> = format!("bench-{}-{}", clock.now(), std::process::id()).into();
    admin.create_topic(&topic, Some(args.partitions)).await?;
    let measured = load(args, target, clock, &topic).await;
    // What was produced has served its purpose, also if something went wrong.
    let deleted = admin.delete_topic(&topic).await;
    let measured = measured?;
    deleted?;
    Ok(measured)
}

async fn load(
    args: &ProduceArgs,
    target: &Target,
    clock: SystemClock,
    topic: &Arc<str>,
) -> Result<Measured, Failure> {
    let mut producers = Vec::new();
    for _ in 0..args.connections {
        producers.push(Client::connect(&target.url).await?.producer(options(args))?);
    }
    let start = clock.monotonic();
    let measure = start + args.warm_up;
    let times = Timetable { clock: Arc::new(clock), start, measure, end: measure + args.time };
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut connections = JoinSet::new();
    for (index, producer) in (0_u64..).zip(producers) {
        let connection = Connection {
            producer: Arc::new(producer),
            payloads: Payloads::new(index, args.record_bytes),
            template: ProducerRecord { topic: Arc::clone(topic), ..Default::default() },
            pace: args.rate.map(|rate| f64::from(args.connections) / rate),
            times: times.clone(),
            acknowledged: Arc::clone(&acknowledged),
        };
        connections.spawn(connection.run());
    }
    let watch = watch(&times, target.process, &acknowledged);
    let (costs, latency_us) = tokio::try_join!(watch, gather(&mut connections))?;
    let (client, server, acknowledged) = costs;
    Ok(Measured { latency_us, acknowledged, time: args.time, client, server })
}

fn options(args: &ProduceArgs) -> ProducerOptions {
    ProducerOptions {
        acks: args.acks.acks(),
        max_batch_bytes: args.batch_bytes,
        max_in_flight_bytes: args.in_flight_bytes,
        max_buffered_bytes: args.in_flight_bytes.saturating_mul(2),
        ..ProducerOptions::default()
    }
}

async fn gather(
    connections: &mut JoinSet<Result<Histogram<u64>, Failure>>,
) -> Result<Histogram<u64>, Failure> {
    let mut all = delay_histogram();
    while let Some(one) = connections.join_next().await {
        let one =
            one.map_err(|error| Failure::new(Exit::Failed, format!("a connection's task ended: {error}")))??;
        // Both have the same bounds.
        let _ = all.add(one);
    }
    Ok(all)
}

struct Connection {
    producer: Arc<Producer>,
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
        let latency = waiting
            .await
            .map_err(|error| Failure::new(Exit::Failed, format!("a connection's task ended: {error}")))?;
        sent?;
        self.producer.close().await?;
        latency
    }

    /// Sends until the end; the time that goes with a record is when it should have been sent.
    async fn send(&mut self, packs: &mpsc::Sender<Pack>) -> Result<(), Failure> {
        let mut pack = Pack::with_capacity(PACK);
        let mut number = 0;
        let mut due = self.times.start;
        while due < self.times.end {
            let now = self.times.clock.monotonic();
            if due > now {
                // Nobody may wait for this pack while we sleep.
                if !pack.is_empty() && packs.send(std::mem::take(&mut pack)).await.is_err() {
                    return Ok(());
                }
                sleep(due - now).await;
            }
            let record = ProducerRecord { value: Some(self.payloads.next()), ..self.template.clone() };
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
                None => self.times.clock.monotonic(),
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
            if due >= times.measure {
                let latency = times.clock.monotonic().saturating_sub(due);
                latency_us.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
            }
        }
    }
    Ok(latency_us)
}

/// Waits for the time measured, and says what both sides spent in it and how much was acknowledged.
async fn watch(
    times: &Timetable,
    server: Option<Process>,
    acknowledged: &AtomicU64,
) -> Result<(Cost, Option<Cost>, u64), Failure> {
    sleep(times.measure.saturating_sub(times.clock.monotonic())).await;
    let mut client = Watched::new(Process::own());
    let mut server = server.map(Watched::new);
    let before = acknowledged.load(Ordering::Relaxed);
    let mut ticks = interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while times.clock.monotonic() < times.end {
        client.sample();
        if let Some(server) = &mut server {
            server.sample();
        }
        ticks.tick().await;
    }
    let count = acknowledged.load(Ordering::Relaxed) - before;
    Ok((client.cost(), server.map(|server| server.cost()), count))
}

struct Watched {
    process: Process,
    cpu_before: Option<Duration>,
    peak_anonymous_bytes: Option<u64>,
}

impl Watched {
    fn new(process: Process) -> Self {
        Self { process, cpu_before: process.cpu_time(), peak_anonymous_bytes: None }
    }

    fn sample(&mut self) {
        self.peak_anonymous_bytes = self.peak_anonymous_bytes.max(self.process.anonymous_bytes());
    }

    fn cost(&self) -> Cost {
        let cpu =
            self.process.cpu_time().zip(self.cpu_before).map(|(after, before)| after.saturating_sub(before));
        Cost { cpu, peak_anonymous_bytes: self.peak_anonymous_bytes }
    }
}

/// Uses free memory once and gives it back, but never so much that others would notice.
fn touch_memory() {
    let bytes = free_memory_bytes().map_or(0, |free| (free / 4).min(MOST_TOUCHED_BYTES));
    let mut memory = vec![0_u8; usize::try_from(bytes).unwrap_or_default()];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    std::hint::black_box(memory);
}
