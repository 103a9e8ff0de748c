//! What tests of members that are frozen and killed share: a feed of numbered records, what came out, and a look at the
//! group's commits all the while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use logmill_client::{Client, Fetch, FetchFrom, ProducerOptions, ProducerRecord};
use logmill_record::Offset;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Nothing that is waited for takes nearly as long.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_millis(5);

/// Something that goes on beside the test, until it is stopped.
struct Beside<T> {
    stop: Arc<AtomicBool>,
    task: JoinHandle<T>,
}

impl<T: Send + 'static> Beside<T> {
    fn begin<F>(runtime: &Runtime, work: impl FnOnce(Arc<AtomicBool>) -> F) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        Self { task: runtime.spawn(work(Arc::clone(&stop))), stop }
    }

    fn stop(self, runtime: &Runtime) -> T {
        self.stop.store(true, Ordering::Relaxed);
        runtime.block_on(self.task).unwrap()
    }
}

/// Writes the numbers from 0 to each partition of a topic, one every few milliseconds.
pub(crate) struct Feed(Beside<u64>);

impl Feed {
    /// Begins with so many in each partition at once.
    pub(crate) fn begin(
        runtime: &Runtime,
        client: &Client,
        topic: &str,
        partitions: u32,
        at_once: u64,
    ) -> Self {
        let options = ProducerOptions { delivery_timeout: LIMIT, ..ProducerOptions::default() };
        let producer = runtime.block_on(async { client.producer(options).unwrap() });
        let topic: Arc<str> = topic.into();
        Self(Beside::begin(runtime, |stop| async move {
            for number in 0.. {
                for partition in 0..partitions {
                    let record = ProducerRecord::new(Arc::clone(&topic), number.to_string());
                    let _delivery = producer.send(record.partition(partition)).await.unwrap();
                }
                if number + 1 == at_once {
                    producer.flush().await.unwrap();
                } else if number >= at_once {
                    sleep(EVERY).await;
                }
                if number >= at_once && stop.load(Ordering::Relaxed) {
                    producer.close().await.unwrap();
                    return number + 1;
                }
            }
            unreachable!()
        }))
    }

    /// How many records each partition has.
    pub(crate) fn stop(self, runtime: &Runtime) -> u64 {
        self.0.stop(runtime)
    }
}

/// Looks at what a group has committed all the while: it never goes back.
pub(crate) struct Commits(Beside<()>);

impl Commits {
    pub(crate) fn watch(runtime: &Runtime, client: &Client, group: &'static str) -> Self {
        let client = client.clone();
        Self(Beside::begin(runtime, |stop| async move {
            let mut last = BTreeMap::new();
            while !stop.load(Ordering::Relaxed) {
                // There may be no group yet, and no node at the moment.
                for now in client.describe_group(group).await.map_or(Vec::new(), |group| group.offsets) {
                    let before = last.insert(now.partition, now.offset);
                    assert!(before <= Some(now.offset), "{before:?} was committed before {now:?}");
                }
                sleep(Duration::from_millis(20)).await;
            }
        }))
    }

    pub(crate) fn stop(self, runtime: &Runtime) {
        self.0.stop(runtime);
    }
}

/// What is committed of a partition, from its first record on, as soon as it is so many records.
pub(crate) async fn read_committed(client: &Client, topic: &str, partition: u32, count: u64) -> Vec<String> {
    let since = Instant::now();
    let (mut found, mut next) = (Vec::new(), Offset(0));
    loop {
        let data = client.fetch(Fetch::from(FetchFrom::new(topic, partition, next))).await.unwrap().remove(0);
        assert!(data.error.is_none(), "{:?}", data.error);
        for record in data.records() {
            found.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
        }
        next = data.next_offset;
        if found.len() as u64 >= count && next == data.end_offset {
            return found;
        }
        assert!(since.elapsed() < LIMIT, "{} of {count} records of {topic}/{partition} came", found.len());
        sleep(Duration::from_millis(5)).await;
    }
}

/// Each number is there once and in order, and nobody has written in an epoch after another one was in a later one.
pub(crate) fn check_steps(found: &[String], count: u64) {
    let found = found.iter().map(|value| {
        let (number, epoch) = value.split_once(' ').unwrap();
        (number.parse::<u64>().unwrap(), epoch.parse::<i32>().unwrap())
    });
    let (numbers, epochs): (Vec<_>, Vec<_>) = found.unzip();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "each once, and in order");
    assert!(epochs.is_sorted(), "{epochs:?}");
}

/// The group commits behind everything, if it is given a moment.
pub(crate) async fn check_committed(client: &Client, group: &str, partitions: u32, count: u64) {
    let expected = (0..partitions).map(|partition| (partition, count)).collect::<BTreeMap<_, _>>();
    let since = Instant::now();
    loop {
        let offsets = client.describe_group(group).await.unwrap().offsets;
        let offsets = offsets.iter().map(|of| (of.partition, of.offset.get())).collect::<BTreeMap<_, _>>();
        if offsets == expected {
            return;
        }
        assert!(since.elapsed() < LIMIT, "{offsets:?} are committed, and not {count} of each");
        sleep(Duration::from_millis(5)).await;
    }
}
