//! `logmill bench e2e`: from a producer to a subscriber.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use logmill_client::{Client, Subscription};
use logmill_record::Inflater;
use tokio::sync::watch;
use tokio::time::sleep;

use super::E2eArgs;
use super::measure::{Measured, Tasks, Timetable, gather, measure};
use super::receive::{look_at, subscribe};
use super::send;
use super::target::Target;
use crate::failure::{Exit, Failure};
use crate::output::delay_histogram;

/// How long a record that was acknowledged may stay away before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(args: &E2eArgs, target: &Target, topic: &Arc<str>) -> Result<Measured, Failure> {
    let load = args.load();
    let producers = send::connect(&target.url, &args.common, load).await?;
    let reader = Client::connect(&target.url).await?;
    let subscription = subscribe(&reader, topic, args.common.partitions, args.credit_bytes).await?;
    let times = Timetable::new(&args.common);
    let (acknowledged, received) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (say_total, total) = watch::channel(None);
    let mut senders = send::start(producers, topic, (&args.common, load), &times, &acknowledged);
    let sending = async {
        gather(&mut senders).await?;
        // The receiver ends only after this.
        let _ = say_total.send(Some(acknowledged.load(Ordering::Relaxed)));
        Ok(())
    };
    let mut tasks = Tasks::new();
    let receiver = Receiver {
        subscription,
        record_bytes: args.common.record_bytes,
        times: times.clone(),
        received: Arc::clone(&received),
        total,
    };
    tasks.spawn(receiver.run());
    let (measured, ()) = tokio::try_join!(measure(&times, target.process, &received, &mut tasks), sending)?;
    Ok(measured)
}

struct Receiver {
    subscription: Subscription,
    record_bytes: usize,
    times: Timetable,
    received: Arc<AtomicU64>,
    /// How many records were acknowledged, once all are.
    total: watch::Receiver<Option<u64>>,
}

impl Receiver {
    /// Receives all that is acknowledged; the latencies are from when a record was due to here.
    async fn run(mut self) -> Result<Histogram<u64>, Failure> {
        let mut latency_us = delay_histogram();
        let mut inflater = Inflater::default();
        loop {
            let total = *self.total.borrow_and_update();
            let received = self.received.load(Ordering::Relaxed);
            if let Some(total) = total.filter(|total| received >= *total) {
                return if received == total {
                    Ok(latency_us)
                } else {
                    Err(incomplete(received, Some(total)))
                };
            }
            let data = tokio::select! {
                data = self.subscription.next() => data,
                () = sleep(PATIENCE), if total.is_some() => None,
                changed = self.total.changed(), if total.is_none() => match changed {
                    Ok(()) => continue,
                    // Sending failed, and says so.
                    Err(_) => return Ok(latency_us),
                },
            };
            let Some(data) = data else { return Err(incomplete(received, total)) };
            let note = |due| self.times.note(&mut latency_us, due);
            let count = look_at(&data?, self.record_bytes, &mut inflater, note)?;
            self.received.fetch_add(count, Ordering::Relaxed);
        }
    }
}

fn incomplete(received: u64, acknowledged: Option<u64>) -> Failure {
    let message = match acknowledged {
        Some(acknowledged) => format!("{acknowledged} records were acknowledged and {received} arrived"),
        None => format!("the subscription ended after {received} records"),
    };
    Failure::new(Exit::Failed, message)
}
