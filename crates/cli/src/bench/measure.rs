//! What a load of any kind is measured by: the timetable, the count, the latencies, and what both
//! sides spend meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use logmill_log::env::{Clock, SystemClock};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::args::Common;
use super::process::{Memory, Process, free_memory_bytes};
use crate::failure::{Exit, Failure};
use crate::output::delay_histogram;

const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// On a machine whose memory nobody has used yet, the first page-cache writes cost several times more.
const MOST_TOUCHED_BYTES: u64 = 1 << 30;

/// What came out.
pub(super) struct Measured {
    /// In µs, from when to when the load says.
    pub(super) latency_us: Histogram<u64>,
    /// Records that reached their end in the time measured.
    pub(super) records: u64,
    pub(super) time: Duration,
    pub(super) client: Cost,
    pub(super) server: Option<Cost>,
}

/// What a process spent in the time measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) cpu: Option<Duration>,
    pub(super) peak: Option<Memory>,
}

/// When what happens, on one clock.
#[derive(Clone)]
pub(super) struct Timetable {
    clock: Arc<SystemClock>,
    pub(super) start: Duration,
    measure: Duration,
    end: Duration,
}

impl Timetable {
    /// From now on.
    pub(super) fn new(args: &Common) -> Self {
        let clock = SystemClock::new();
        let start = clock.monotonic();
        let measure = start + args.warm_up;
        Self { clock: Arc::new(clock), start, measure, end: measure + args.time }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Whether it is over at `time`.
    pub(super) fn is_over(&self, time: Duration) -> bool {
        time >= self.end
    }

    /// Notes how long ago `due` is, unless it lies in the warm-up.
    pub(super) fn note(&self, latency_us: &mut Histogram<u64>, due: Duration) {
        if due >= self.measure {
            let latency = self.now().saturating_sub(due);
            latency_us.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        }
    }
}

/// Tasks under load, each of which returns the latencies that it saw.
pub(super) type Tasks = JoinSet<Result<Histogram<u64>, Failure>>;

/// Waits for all tasks, and measures in the time for it what they count in `records`.
pub(super) async fn measure(
    times: &Timetable,
    server: Option<Process>,
    records: &AtomicU64,
    tasks: &mut Tasks,
) -> Result<Measured, Failure> {
    let (costs, latency_us) = tokio::try_join!(watch(times, server, records), gather(tasks))?;
    let (client, server, records) = costs;
    Ok(Measured { latency_us, records, time: times.end - times.measure, client, server })
}

/// The latencies of all tasks, or the first failure.
pub(super) async fn gather(tasks: &mut Tasks) -> Result<Histogram<u64>, Failure> {
    let mut all = delay_histogram();
    while let Some(one) = tasks.join_next().await {
        let one = one.map_err(|error| ended(&error))??;
        // Both have the same bounds.
        let _ = all.add(one);
    }
    Ok(all)
}

pub(super) fn ended(error: &tokio::task::JoinError) -> Failure {
    Failure::new(Exit::Failed, format!("a connection's task ended: {error}"))
}

/// Waits for the time measured, and says what both sides spent in it and how much was counted.
async fn watch(
    times: &Timetable,
    server: Option<Process>,
    records: &AtomicU64,
) -> Result<(Cost, Option<Cost>, u64), Failure> {
    sleep(times.measure.saturating_sub(times.now())).await;
    let mut client = Watched::new(Process::own());
    let mut server = server.map(Watched::new);
    let before = records.load(Ordering::Relaxed);
    let mut ticks = interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !times.is_over(times.now()) {
        client.sample();
        if let Some(server) = &mut server {
            server.sample();
        }
        ticks.tick().await;
    }
    let count = records.load(Ordering::Relaxed) - before;
    Ok((client.cost(), server.map(|server| server.cost()), count))
}

struct Watched {
    process: Process,
    cpu_before: Option<Duration>,
    peak: Option<Memory>,
}

impl Watched {
    fn new(process: Process) -> Self {
        Self { process, cpu_before: process.cpu_time(), peak: None }
    }

    fn sample(&mut self) {
        if let Some(memory) = self.process.memory() {
            self.peak = Some(self.peak.map_or(memory, |peak| peak.max(memory)));
        }
    }

    fn cost(&self) -> Cost {
        let cpu =
            self.process.cpu_time().zip(self.cpu_before).map(|(after, before)| after.saturating_sub(before));
        Cost { cpu, peak: self.peak }
    }
}

/// Uses free memory once and gives it back, but never so much that others would notice.
pub(super) fn touch_memory() {
    let bytes = free_memory_bytes().map_or(0, |free| (free / 4).min(MOST_TOUCHED_BYTES));
    let mut memory = vec![0_u8; usize::try_from(bytes).unwrap_or_default()];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    std::hint::black_box(memory);
}
