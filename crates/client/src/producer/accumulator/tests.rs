use std::time::Duration;

use logmill_record::TimestampMs;
use tokio::sync::Semaphore;

use super::*;
use crate::producer::partitioner::Partitioner;

const BUFFER: usize = 1 << 20;

struct Fixture {
    accumulator: Accumulator,
    buffer: Arc<Semaphore>,
    topic: Arc<str>,
    now: Instant,
}

impl Fixture {
    fn new(batch_bytes: usize, bytes_in_flight: usize) -> Fixture {
        let mut accumulator = Accumulator::new(Limits { batch_bytes, bytes_in_flight });
        let (topic, now) = (Arc::from("orders"), Instant::now());
        accumulator.topics.learn(&topic, now, Partitioner::new(4, batch_bytes, 0));
        Fixture { accumulator, buffer: Arc::new(Semaphore::new(BUFFER)), topic, now }
    }

    fn try_push(&mut self, partition: u32, value: &[u8], wait: Duration) -> Result<Delivery, Refusal> {
        let permits = u32::try_from(value.len()).unwrap();
        let charge = Arc::clone(&self.buffer).try_acquire_many_owned(permits).unwrap();
        let deadline = self.now + wait;
        let entry = Entry { topic: &self.topic, partition: Some(partition), charge, deadline };
        let record = NewRecord { timestamp: TimestampMs(0), key: None, value: Some(value), headers: &[] };
        self.accumulator.push(&record, entry)
    }

    fn push(&mut self, partition: u32, value: &[u8]) {
        drop(self.try_push(partition, value, Duration::from_secs(1)).unwrap());
    }

    /// The correlation id, partition and record count of the next batch.
    fn take(&mut self) -> Option<(u64, u32, usize)> {
        match self.accumulator.take() {
            Next::Send(it) => Some((it.correlation_id, it.partition, it.builder.len())),
            Next::Refused { .. } => panic!("refused"),
            Next::Nothing => None,
        }
    }

    fn buffered(&self) -> usize {
        BUFFER - self.buffer.available_permits()
    }
}

#[test]
fn a_lone_record_goes_at_once_and_those_behind_it_gather_until_it_is_answered() {
    let mut fixture = Fixture::new(1_000, 10_000);
    fixture.push(0, b"first");
    let (id, ..) = fixture.take().unwrap();
    for _ in 0..3 {
        fixture.push(0, b"later");
        assert!(fixture.take().is_none());
    }
    fixture.push(1, b"elsewhere");
    assert_eq!(fixture.take().map(|(_, partition, _)| partition), Some(1));

    assert_eq!(fixture.accumulator.finish(id).unwrap().record_count, 1);
    assert_eq!(fixture.take().map(|(_, partition, records)| (partition, records)), Some((0, 3)));
    assert!(!fixture.accumulator.has_waiting() && !fixture.accumulator.is_idle());
}

#[test]
fn a_full_batch_waits_for_nothing_and_order_holds() {
    let mut fixture = Fixture::new(400, 100_000);
    for _ in 0..10 {
        fixture.push(0, &[b'x'; 90]);
    }
    // 61 bytes of header and 98 per record: three fit into 400.
    let sizes: Vec<usize> = std::iter::from_fn(|| fixture.take()).map(|(_, _, records)| records).collect();
    assert_eq!(sizes, [3, 3, 3], "the last record waits in an open batch");
    let ids: Vec<u64> = fixture.accumulator.in_flight.keys().copied().collect();
    assert_eq!(fixture.accumulator.finish_all().len(), ids.len());
    assert_eq!(fixture.take().map(|(_, _, records)| records), Some(1));
}

#[test]
fn a_record_over_the_batch_size_travels_alone() {
    let mut fixture = Fixture::new(400, 100_000);
    fixture.push(0, b"small");
    fixture.push(0, &[b'x'; 5_000]);
    fixture.push(0, b"small");
    let sizes: Vec<usize> = std::iter::from_fn(|| fixture.take()).map(|(_, _, records)| records).collect();
    assert_eq!(sizes, [1, 1]);
}

#[test]
fn what_the_node_does_not_take_is_refused_before_and_after_it_says_so() {
    let mut fixture = Fixture::new(400, 100_000);
    fixture.push(0, &[b'x'; 5_000]);
    fixture.push(0, b"small");
    fixture.accumulator.set_node_limits(Limits { batch_bytes: 1_000, bytes_in_flight: 100_000 });
    match fixture.accumulator.take() {
        Next::Refused { size_bytes, limit_bytes: 1_000, .. } => assert!(size_bytes > 5_000),
        next => panic!("{next:?}"),
    }
    assert_eq!(fixture.take().map(|(_, _, records)| records), Some(1), "the one behind goes on");
    let refusal = fixture.try_push(0, &[b'x'; 1_000], Duration::ZERO).unwrap_err();
    assert!(matches!(refusal, Refusal::TooLarge { limit_bytes: 1_000, .. }), "{refusal:?}");
}

#[test]
fn bytes_in_flight_are_bounded_but_one_batch_may_always_go() {
    let mut fixture = Fixture::new(100, 500);
    for partition in 0..4 {
        fixture.push(partition, &[b'x'; 200]);
    }
    let first = fixture.take().unwrap();
    assert!(!fixture.accumulator.may_take());
    fixture.push(0, &[b'x'; 2_000]);
    fixture.accumulator.finish(first.0).unwrap();
    let order: Vec<u32> = std::iter::from_fn(|| {
        let (id, partition, _) = fixture.take()?;
        fixture.accumulator.finish(id);
        Some(partition)
    })
    .collect();
    assert_eq!(order, [1, 2, 3, 0], "in turn, the oversize one included");
    assert_eq!(fixture.accumulator.bytes_in_flight, 0);
}

#[test]
fn time_runs_out_for_sent_and_unsent_alike_and_the_buffer_is_given_back() {
    let mut fixture = Fixture::new(1_000, 100_000);
    drop(fixture.try_push(0, b"12345", Duration::from_millis(10)).unwrap());
    let (late, ..) = fixture.take().unwrap();
    drop(fixture.try_push(0, b"12345", Duration::from_millis(20)).unwrap());
    drop(fixture.try_push(1, b"12345", Duration::from_millis(30)).unwrap());
    assert_eq!(fixture.buffered(), 15);

    let (unsent, unanswered) = fixture.accumulator.expire(fixture.now + Duration::from_millis(20));
    assert_eq!((unsent.len(), unanswered.len()), (1, 1));
    drop((unsent, unanswered));
    assert_eq!(fixture.buffered(), 5);
    assert!(fixture.accumulator.finish(late).is_none(), "a late answer finds nothing");
    assert_eq!(fixture.take().map(|(_, partition, _)| partition), Some(1));
    assert!(fixture.take().is_none());
}

#[test]
fn sealing_sends_what_would_have_waited() {
    let mut fixture = Fixture::new(1_000, 100_000);
    fixture.push(0, b"first");
    fixture.take().unwrap();
    fixture.push(0, b"second");
    assert!(fixture.take().is_none());
    assert_eq!(fixture.accumulator.seal().len(), 2);
    fixture.push(0, b"third");
    assert_eq!(fixture.take().map(|(_, _, records)| records), Some(1), "not joined by the third");
}

#[test]
fn a_partition_or_topic_that_is_not_there_is_refused() {
    let mut fixture = Fixture::new(1_000, 100_000);
    let refusal = fixture.try_push(4, b"x", Duration::ZERO).unwrap_err();
    assert!(matches!(refusal, Refusal::NoPartition { count: 4 }), "{refusal:?}");
    fixture.accumulator.topics.forget("orders");
    let refusal = fixture.try_push(0, b"x", Duration::ZERO).unwrap_err();
    assert!(matches!(refusal, Refusal::UnknownTopic), "{refusal:?}");
    assert_eq!(fixture.buffered(), 0);
}

/// Pushes, takes, answers and breaks by chance, and compares with a count per partition.
#[test]
fn whatever_happens_each_record_leaves_once_and_in_order() {
    for seed in 1..=200_u64 {
        let mut random = Random(seed);
        let mut fixture = Fixture::new(300, 1_000);
        let mut pushed = [0_u8; 4];
        let mut left = [0_u8; 4];
        let mut under_way = Vec::new();
        for _ in 0..300 {
            match random.below(10) {
                0..5 => {
                    let partition = random.below(4);
                    let next = &mut pushed[partition as usize];
                    fixture.push(partition, &vec![*next; 1 + random.below(200) as usize]);
                    *next += 1;
                }
                5..8 => under_way.extend(fixture.take_in_order(&mut left, seed)),
                8 if !under_way.is_empty() => {
                    let index = random.below(u32::try_from(under_way.len()).unwrap()) as usize;
                    assert!(
                        fixture.accumulator.finish(under_way.swap_remove(index)).is_some(),
                        "seed {seed}"
                    );
                }
                _ => {
                    assert_eq!(fixture.accumulator.finish_all().len(), under_way.len(), "seed {seed}");
                    under_way.clear();
                }
            }
        }
        fixture.accumulator.finish_all();
        while let Some(id) = fixture.take_in_order(&mut left, seed) {
            fixture.accumulator.finish(id);
        }
        assert_eq!(left, pushed, "seed {seed}");
        assert!(fixture.accumulator.is_idle(), "seed {seed}");
        assert_eq!((fixture.buffered(), fixture.accumulator.bytes_in_flight), (0, 0), "seed {seed}");
    }
}

impl Fixture {
    /// Takes a batch, whose records hold their number in the partition.
    fn take_in_order(&mut self, left: &mut [u8; 4], seed: u64) -> Option<u64> {
        let Next::Send(it) = self.accumulator.take() else { return None };
        for record in it.builder.build().unwrap().records().unwrap() {
            let next = &mut left[it.partition as usize];
            assert_eq!(record.unwrap().value.unwrap()[0], *next, "seed {seed}, partition {}", it.partition);
            *next += 1;
        }
        Some(it.correlation_id)
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap() % end
    }
}
