//! A producer that writes to every partition at a steady rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use logmill_client::{Acks, Client, Producer, ProducerOptions, ProducerRecord};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

const TICK: Duration = Duration::from_millis(5);

/// A producer at work.
#[derive(Debug)]
pub(crate) struct Feed {
    stop: Arc<AtomicBool>,
    task: JoinHandle<u64>,
}

/// The value of a partition's record at an offset.
pub(crate) fn value(partition: u32, offset: u64) -> String {
    format!("{partition} {offset} {}", "x".repeat(80))
}

impl Feed {
    /// Begins: each partition gets a record in each turn of `every`, spread evenly over it.
    pub(crate) fn begin(client: &Client, partitions: u32, every: Duration) -> Self {
        let options = ProducerOptions { acks: Acks::Written, ..ProducerOptions::default() };
        let producer = client.producer(options).expect("the options are good");
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(send(producer, partitions, every, Arc::clone(&stop)));
        Self { stop, task }
    }

    /// Stops; gives how many records each partition has.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("it sends to its end")
    }
}

async fn send(producer: Producer, partitions: u32, every: Duration, stop: Arc<AtomicBool>) -> u64 {
    let topic: Arc<str> = super::TOPIC.into();
    let between = every / partitions;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut due = Duration::ZERO;
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            producer.close().await.expect("every record was appended");
            return turn;
        }
        for partition in 0..partitions {
            while due >= TICK {
                ticks.tick().await;
                due -= TICK;
            }
            due += between;
            let record = ProducerRecord::new(Arc::clone(&topic), value(partition, turn)).partition(partition);
            let _delivery = producer.send(record).await.expect("the node takes records");
        }
    }
    unreachable!("it was stopped")
}
