use std::time::Duration;

use logmill_record::{Inflater, TimestampMs};
use tokio::sync::Semaphore;

use super::*;
use crate::producer::partitioner::Partitioner;
use crate::producer::rules::TopicRules;
use crate::{Error, ErrorKind};

const BUFFER: usize = 1 << 20;

struct Fixture {
    accumulator: Accumulator,
    buffer: Arc<Semaphore>,
    topic: Arc<str>,
    now: Instant,
}

impl Fixture {
    fn new(batch_bytes: usize, bytes_in_flight: usize) -> Fixture {
        Fixture::with(batch_bytes, bytes_in_flight, Identity::Known(7))
    }

    fn with(batch_bytes: usize, bytes_in_flight: usize, identity: Identity) -> Fixture {
        let limits = Limits { batch_bytes, bytes_in_flight, batches_in_flight: 64 };
        let accumulator = Accumulator::new(limits, identity, Compression::None);
        let buffer = Arc::new(Semaphore::new(BUFFER));
        let mut fixture = Fixture { accumulator, buffer, topic: Arc::from("orders"), now: Instant::now() };
        fixture.learn(TopicRules::default());
        fixture
    }

    fn compressing(batch_bytes: usize, bytes_in_flight: usize, compression: Compression) -> Fixture {
        let mut fixture = Fixture::new(batch_bytes, bytes_in_flight);
        fixture.accumulator.compression = compression;
        fixture
    }

    fn learn(&mut self, rules: TopicRules) {
        let partitioner = Partitioner::new(4, self.accumulator.configured.batch_bytes, 0);
        self.accumulator.topics.learn(&self.topic, self.now, partitioner, rules);
    }

    fn try_push(&mut self, partition: u32, value: &[u8], wait: Duration) -> Result<Delivery, Refusal> {
        let permits = u32::try_from(value.len()).unwrap();
        let charge = Arc::clone(&self.buffer).try_acquire_many_owned(permits).unwrap();
        let deadline = self.now + wait;
        let (now, partition) = (self.now, Some(partition));
        let entry = Entry { topic: &self.topic, partition, charge, now, deadline };
        let record = NewRecord { timestamp: TimestampMs(0), key: None, value: Some(value), headers: &[] };
        self.accumulator.push(&record, entry)
    }

    fn push(&mut self, partition: u32, value: &[u8]) {
        drop(self.try_push(partition, value, Duration::from_secs(1)).unwrap());
    }

    /// The correlation id, partition and record count of the next batch.
    fn take(&mut self) -> Option<(u64, u32, usize)> {
        match self.accumulator.take() {
            Next::Send(it) => {
                Some((it.correlation_id, it.partition, it.batch.header().record_count as usize))
            }
            Next::Nothing => None,
            next => panic!("{next:?}"),
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
    for id in ids {
        fixture.accumulator.finish(id).unwrap();
    }
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
    fixture.accumulator.set_node_limits(Limits {
        batch_bytes: 1_000,
        bytes_in_flight: 100_000,
        batches_in_flight: 64,
    });
    match fixture.accumulator.take() {
        Next::Refused { size_bytes, most: MostBytes::Node(1_000), .. } => assert!(size_bytes > 5_000),
        next => panic!("{next:?}"),
    }
    assert_eq!(fixture.take().map(|(_, _, records)| records), Some(1), "the one behind goes on");
    let refusal = fixture.try_push(0, &[b'x'; 1_000], Duration::ZERO).unwrap_err();
    assert!(matches!(refusal, Refusal::TooLarge { most: MostBytes::Node(1_000), .. }), "{refusal:?}");
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

    let drained = fixture.accumulator.expire(fixture.now + Duration::from_millis(20));
    assert_eq!((drained.not_stored.len(), drained.unknown.len()), (1, 1));
    drop(drained);
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

/// Sequence, whether it is after a failure, and the number in the first record of the next batch.
impl Fixture {
    fn sent(&mut self) -> Option<Outgoing> {
        match self.accumulator.take() {
            Next::Send(it) => Some(it),
            _ => None,
        }
    }

    fn number(it: &Outgoing) -> (i16, i32, bool) {
        let header = it.batch.header();
        (header.producer_epoch, header.base_sequence, it.after_failure)
    }

    fn refuse(&mut self, it: &Outgoing, refused: Refused) -> Fate {
        let error = Error::invalid("no");
        self.accumulator.refuse(it.correlation_id, refused, &error, self.now)
    }

    /// Sends batches of one record each, all of them under way.
    fn send_full(&mut self, count: usize) -> Vec<Outgoing> {
        (0..count).for_each(|_| self.push(0, &[b'x'; 300]));
        let sent: Vec<Outgoing> = std::iter::from_fn(|| self.sent()).collect();
        assert_eq!(sent.len(), count);
        sent
    }
}

#[test]
fn what_was_on_a_broken_stream_is_sent_again_as_it_was_and_in_order() {
    let mut fixture = Fixture::new(200, 100_000);
    let sent = fixture.send_full(4);
    fixture.accumulator.finish(sent[1].correlation_id).unwrap();
    fixture.push(0, b"behind");
    let broken = Error::invalid("broken");
    let lost = fixture.accumulator.put_all_back(&broken);
    assert!(lost.unknown.is_empty() && lost.not_stored.is_empty());
    assert_eq!(fixture.accumulator.bytes_in_flight, 0);
    let again: Vec<Outgoing> = std::iter::from_fn(|| fixture.sent()).collect();
    assert_eq!(again.len(), 3, "the open batch waits");
    for (before, after) in [&sent[0], &sent[2], &sent[3]].into_iter().zip(&again) {
        assert_eq!(before.batch.bytes(), after.batch.bytes());
    }
    for it in again {
        fixture.accumulator.finish(it.correlation_id).unwrap();
    }
    assert_eq!(fixture.sent().map(|it| Fixture::number(&it)), Some((0, 4, false)));
}

#[test]
fn those_behind_a_batch_that_is_not_stored_are_numbered_anew_once_all_is_answered() {
    let mut fixture = Fixture::new(200, 100_000);
    let sent = fixture.send_full(4);
    let failed = fixture.refuse(&sent[1], Refused::ForGood);
    assert!(matches!(failed, Fate::Fails(_)));
    assert!(matches!(fixture.refuse(&sent[2], Refused::ForOneBefore), Fate::SentAgain));
    assert!(fixture.sent().is_none(), "two are under way");
    fixture.accumulator.finish(sent[0].correlation_id).unwrap();
    assert!(fixture.sent().is_none(), "one is under way");
    assert!(matches!(fixture.refuse(&sent[3], Refused::ForOneBefore), Fate::SentAgain));
    let numbers: Vec<_> = std::iter::from_fn(|| fixture.sent()).map(|it| Fixture::number(&it)).collect();
    assert_eq!(numbers, [(0, 1, true), (0, 2, false)]);
}

#[test]
fn a_stream_that_breaks_in_the_middle_of_a_failure_leaves_no_doubt_about_those_behind() {
    let mut fixture = Fixture::new(200, 100_000);
    let sent = fixture.send_full(3);
    assert!(matches!(fixture.refuse(&sent[0], Refused::ForGood), Fate::Fails(_)));
    drop(fixture.accumulator.put_all_back(&Error::invalid("broken")));
    let numbers: Vec<_> = std::iter::from_fn(|| fixture.sent()).map(|it| Fixture::number(&it)).collect();
    assert_eq!(numbers, [(0, 0, true), (0, 1, false)], "the node stored neither");
}

#[test]
fn a_batch_that_may_be_stored_is_not_taken_for_refused() {
    let mut fixture = Fixture::new(200, 100_000);
    let sent = fixture.send_full(2);
    drop(fixture.accumulator.put_all_back(&Error::invalid("broken")));
    let again = [fixture.sent().unwrap(), fixture.sent().unwrap()];
    assert!(matches!(fixture.refuse(&again[0], Refused::Full), Fate::SentAgain), "there may be room later");
    assert!(matches!(fixture.refuse(&again[1], Refused::ForOneBefore), Fate::SentAgain));
    assert!(fixture.sent().is_none(), "the node asked for patience");
    fixture.accumulator.resume(fixture.now + Duration::from_secs(60));
    let third = [fixture.sent().unwrap(), fixture.sent().unwrap()];
    assert_eq!(third[0].batch.bytes(), sent[0].batch.bytes());
    assert!(third[0].after_failure);
    assert!(matches!(fixture.refuse(&third[0], Refused::ForGood), Fate::Unknown(_)));
    assert!(
        matches!(fixture.refuse(&third[1], Refused::ForOneBefore), Fate::Unknown(_)),
        "it follows on that one"
    );
    fixture.push(0, b"next");
    assert_eq!(fixture.sent().map(|it| Fixture::number(&it)), Some((1, 0, true)));
}

#[test]
fn a_new_epoch_begins_when_the_node_waits_for_a_batch_that_was_acknowledged() {
    let mut fixture = Fixture::new(200, 100_000);
    // Acknowledged as written, and then lost by a failed sync.
    let lost = fixture.send_full(1);
    fixture.accumulator.finish(lost[0].correlation_id).unwrap();
    let behind = fixture.send_full(1);
    assert!(matches!(fixture.refuse(&behind[0], Refused::NotNow), Fate::SentAgain));
    fixture.accumulator.resume(fixture.now + Duration::from_secs(60));
    let again = fixture.sent().unwrap();
    assert_eq!(Fixture::number(&again), (0, 1, true));
    assert!(matches!(fixture.refuse(&again, Refused::ForOneBefore), Fate::SentAgain));
    fixture.accumulator.resume(fixture.now + Duration::from_secs(120));
    assert_eq!(fixture.sent().map(|it| Fixture::number(&it)), Some((1, 0, true)));
}

#[test]
fn after_an_unknown_outcome_a_new_epoch_begins_when_nothing_of_the_old_one_is_open() {
    let mut fixture = Fixture::new(200, 100_000);
    drop(fixture.try_push(0, &[b'x'; 300], Duration::from_millis(10)).unwrap());
    let late = fixture.sent().unwrap();
    let behind = fixture.send_full(2);
    let drained = fixture.accumulator.expire(fixture.now + Duration::from_millis(20));
    assert_eq!((drained.not_stored.len(), drained.unknown.len()), (0, 1));
    assert!(fixture.accumulator.finish(late.correlation_id).is_none(), "a late answer finds nothing");
    fixture.push(0, b"next");
    fixture.accumulator.finish(behind[0].correlation_id).unwrap();
    assert!(fixture.sent().is_none());
    fixture.accumulator.finish(behind[1].correlation_id).unwrap();
    assert_eq!(fixture.sent().map(|it| Fixture::number(&it)), Some((1, 0, true)));
}

#[test]
fn without_numbers_nothing_that_may_be_stored_is_sent_again() {
    let mut fixture = Fixture::with(200, 100_000, Identity::None);
    let sent = fixture.send_full(3);
    assert_eq!(Fixture::number(&sent[0]), (-1, -1, false));
    assert!(matches!(fixture.refuse(&sent[1], Refused::ForGood), Fate::Fails(_)));
    let lost = fixture.accumulator.put_all_back(&Error::invalid("broken"));
    assert_eq!(lost.unknown.len(), 1, "the first one; the third was refused for the second");
    let again = fixture.sent().unwrap();
    assert_eq!(Fixture::number(&again), (-1, -1, true));
    assert!(matches!(fixture.refuse(&again, Refused::Unknown), Fate::Fails(_)));
    let next = fixture.send_full(2);
    assert_eq!(next.len(), 2);
}

#[test]
fn nothing_goes_out_before_there_is_an_id_and_no_more_than_the_node_remembers() {
    let mut fixture = Fixture::with(200, 1 << 20, Identity::Wanted);
    (0..70).for_each(|_| fixture.push(0, &[b'x'; 300]));
    assert!(fixture.sent().is_none() && fixture.accumulator.wants_id());
    fixture.accumulator.set_id(9);
    let sent: Vec<Outgoing> = std::iter::from_fn(|| fixture.sent()).collect();
    assert_eq!(sent.len(), 64);
    assert!(sent.iter().all(|it| it.batch.header().producer_id == 9));
    fixture.accumulator.finish(sent[9].correlation_id).unwrap();
    assert!(fixture.sent().is_some() && fixture.sent().is_none());
}

/// What is to be compressed next.
impl Fixture {
    fn work(&mut self) -> ToCompress {
        match self.accumulator.take() {
            Next::Compress(work) => work,
            next => panic!("{next:?}"),
        }
    }

    fn compress(&mut self, work: ToCompress) {
        assert!(self.accumulator.compressed(work.place, work.builder.build()).is_none());
    }
}

#[test]
fn a_batch_keeps_its_place_while_it_is_compressed() {
    let mut fixture = Fixture::compressing(300, 100_000, Compression::Zstd);
    fixture.push(0, &[b'x'; 250]);
    let work = fixture.work();
    fixture.push(0, &[b'y'; 250]);
    assert!(fixture.sent().is_none(), "nothing overtakes it");
    fixture.push(1, b"elsewhere");
    let other = fixture.work();
    assert_eq!(fixture.accumulator.seal().len(), 3, "who flushes waits for it too");
    fixture.compress(work);
    let sent = fixture.sent().unwrap();
    assert_eq!((sent.partition, Fixture::number(&sent)), (0, (0, 0, false)));
    assert_eq!(sent.batch.header().attributes.compression(), Compression::Zstd);
    assert_eq!(fixture.accumulator.bytes_in_flight, sent.batch.bytes().len());
    let behind = fixture.work();
    fixture.compress(behind);
    fixture.compress(other);
    let next = [fixture.sent().unwrap(), fixture.sent().unwrap()];
    assert_eq!(next.map(|it| (it.partition, it.batch.header().base_sequence)), [(1, 0), (0, 1)]);
    assert!(fixture.sent().is_none() && !fixture.accumulator.has_waiting());
}

#[test]
fn a_batch_that_is_given_up_while_it_is_compressed_holds_nobody_up() {
    let mut fixture = Fixture::compressing(300, 100_000, Compression::Lz4);
    drop(fixture.try_push(0, &[b'x'; 250], Duration::from_millis(10)).unwrap());
    fixture.push(0, &[b'y'; 250]);
    let late = fixture.work();
    let drained = fixture.accumulator.expire(fixture.now + Duration::from_millis(20));
    assert_eq!((drained.not_stored.len(), drained.unknown.len()), (1, 0));
    fixture.compress(late);
    let broken = fixture.work();
    let (failed, error) = fixture.accumulator.compressed(broken.place, Err(BatchError::Empty)).unwrap();
    assert_eq!((failed.record_count, error), (1, BatchError::Empty));
    drop((failed, drained));
    assert!(fixture.accumulator.is_idle());
    assert_eq!(fixture.buffered(), 0);
    fixture.push(0, b"next");
    let next = fixture.work();
    fixture.compress(next);
    assert_eq!(fixture.sent().map(|it| Fixture::number(&it)), Some((0, 0, false)), "no number was used up");
}

#[test]
fn what_a_topic_asks_for_stands_above_the_producers_options() {
    let mut fixture = Fixture::compressing(1_000, 100_000, Compression::Gzip);
    fixture.learn(TopicRules { compression: Some(Compression::None), max_message_bytes: Some(400) });
    (0..4).for_each(|_| fixture.push(0, &[b'x'; 90]));
    let sent = fixture.sent().unwrap();
    assert_eq!(sent.batch.header().attributes.compression(), Compression::None);
    assert_eq!(sent.batch.header().record_count, 3, "three fit into 400 bytes");
    let refusal = fixture.try_push(0, &[b'x'; 400], Duration::ZERO).unwrap_err();
    assert!(matches!(refusal, Refusal::TooLarge { most: MostBytes::Topic(400), .. }), "{refusal:?}");

    // The batch that was begun before stays as it is, and takes no more.
    fixture.learn(TopicRules { compression: Some(Compression::Zstd), max_message_bytes: Some(400) });
    fixture.push(0, &[b'x'; 390]);
    fixture.accumulator.finish(sent.correlation_id).unwrap();
    assert_eq!(fixture.sent().unwrap().batch.header().record_count, 1);
    let work = fixture.work();
    fixture.compress(work);
    let sent = fixture.sent().unwrap();
    assert_eq!(sent.batch.header().attributes.compression(), Compression::Zstd);
    assert!(sent.batch.bytes().len() < 400, "too large before, and not when it is compressed");
}

/// A partition of a node, as the API describes it: what it stores, what it remembers, what it refuses.
#[derive(Default)]
struct Node {
    stored: Vec<u8>,
    /// Epoch and next sequence.
    next: Option<(i16, i32)>,
    remembered: Vec<(i16, i32, u32)>,
    /// The first sequence that failed on the stream.
    failed: Option<(i16, i32)>,
}

impl Node {
    fn take(&mut self, it: &Outgoing, refuse: Option<Refused>) -> Result<(), Refused> {
        let header = it.batch.header();
        let (epoch, sequence) = (header.producer_epoch, header.base_sequence);
        if let Some(failed) = self.failed {
            let goes_on = (epoch, sequence) == failed || (epoch > failed.0 && sequence == 0);
            if !it.after_failure || !goes_on {
                return Err(Refused::ForOneBefore);
            }
            self.failed = None;
        }
        let answer = self.append(it, refuse);
        if answer.is_err() {
            self.failed = Some((epoch, sequence));
        }
        answer
    }

    fn append(&mut self, it: &Outgoing, refuse: Option<Refused>) -> Result<(), Refused> {
        let header = it.batch.header();
        let (epoch, sequence, count) = (header.producer_epoch, header.base_sequence, header.record_count);
        if let Some(refused) = refuse {
            return Err(refused);
        }
        if self.remembered.iter().rev().take(64).any(|known| *known == (epoch, sequence, count)) {
            return Ok(());
        }
        let expected = match self.next {
            Some((known, _)) if epoch < known => return Err(Refused::ForItsNumber),
            Some((known, next)) if epoch == known => Some(next),
            Some(_) => Some(0),
            None => None,
        };
        if expected.is_some_and(|expected| expected != sequence) {
            return Err(Refused::ForItsNumber);
        }
        let mut inflater = Inflater::default();
        let records = it.batch.records_with(&mut inflater).unwrap();
        self.stored.extend(records.map(|record| record.unwrap().value.unwrap()[0]));
        self.remembered.push((epoch, sequence, count));
        self.next = Some((epoch, sequence + count.cast_signed()));
        Ok(())
    }
}

/// Pushes, compresses, takes, refuses, breaks and expires by chance, against a node that keeps to the API. What the node stored
/// is in order and none twice; what was told stored is there, and what was told not stored is not.
#[test]
fn whatever_happens_each_record_is_stored_once_and_in_order() {
    let mut told = [0_u32; 3];
    for seed in 1..=2_000_u64 {
        let mut run = Run::new(seed);
        for _ in 0..300 {
            run.step();
        }
        run.end();
        told.iter_mut().zip(run.told()).for_each(|(sum, count)| *sum += count);
    }
    println!("{} stored, {} not stored, {} of unknown outcome", told[0], told[1], told[2]);
    assert!(told.iter().all(|count| *count > 1_000), "{told:?}");
}

struct Run {
    seed: u64,
    random: Random,
    fixture: Fixture,
    node: Node,
    pushed: u8,
    deliveries: Vec<Delivery>,
    /// Being compressed.
    outside: Vec<ToCompress>,
    /// Sent, and not yet with the node.
    wire: VecDeque<Outgoing>,
    /// What the node has said, and nobody has heard.
    answers: Vec<(u64, Result<(), Refused>)>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let compression = if seed.is_multiple_of(2) { Compression::None } else { Compression::Snappy };
        Run {
            seed,
            random: Random(seed),
            fixture: Fixture::compressing(300, 4_000, compression),
            node: Node::default(),
            pushed: 0,
            deliveries: Vec::new(),
            outside: Vec::new(),
            wire: VecDeque::new(),
            answers: Vec::new(),
        }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..6 if self.pushed < 200 => {
                let size = 1 + self.random.below(250) as usize;
                let wait = Duration::from_millis(20 + u64::from(self.random.below(100)));
                let delivery = self.fixture.try_push(0, &vec![self.pushed; size], wait).unwrap();
                self.deliveries.push(delivery);
                self.pushed += 1;
            }
            6..11 => self.take(),
            11..15 => self.node_takes(),
            15..18 if !self.answers.is_empty() => {
                let index = self.random.below(u32::try_from(self.answers.len()).unwrap()) as usize;
                let answer = self.answers.swap_remove(index);
                self.hear(answer);
            }
            18 => self.pass_time(),
            19 if self.random.below(4) == 0 => self.break_off(),
            _ => {}
        }
    }

    /// Goes on with what is to be sent, or with what was to be compressed before that.
    fn take(&mut self) {
        if !self.outside.is_empty() && self.random.below(2) == 0 {
            let work = self.outside.swap_remove(0);
            return self.fixture.compress(work);
        }
        match self.fixture.accumulator.take() {
            Next::Compress(work) => self.outside.push(work),
            Next::Send(it) => self.wire.push_back(it),
            Next::Nothing => {}
            next => panic!("{next:?}"),
        }
    }

    fn node_takes(&mut self) {
        let Some(it) = self.wire.pop_front() else { return };
        let refuse = match self.random.below(24) {
            0 => Some(Refused::ForGood),
            1 => Some(Refused::NotNow),
            2 => Some(Refused::Full),
            // Stored, and then a sync fails; or not stored.
            3 => {
                let stored = self.random.below(2) == 0 && self.node.failed.is_none();
                if stored && self.node.append(&it, None).is_ok() {
                    let header = it.batch.header();
                    self.node.failed = Some((header.producer_epoch, header.base_sequence));
                    self.answers.push((it.correlation_id, Err(Refused::Unknown)));
                    return;
                }
                Some(Refused::Unknown)
            }
            _ => None,
        };
        let answer = self.node.take(&it, refuse);
        self.answers.push((it.correlation_id, answer));
    }

    fn hear(&mut self, (id, answer): (u64, Result<(), Refused>)) {
        let error = Error::invalid("no");
        match answer {
            Ok(()) => {
                if let Some(tracked) = self.fixture.accumulator.finish(id) {
                    tracked.completion.complete(Ok(appended()));
                }
            }
            Err(refused) => match self.fixture.accumulator.refuse(id, refused, &error, self.fixture.now) {
                Fate::SentAgain => {}
                Fate::Fails(tracked) if refused == Refused::Lost => unknown(vec![tracked]),
                Fate::Fails(tracked) => not_stored(vec![tracked]),
                Fate::Unknown(tracked) => unknown(vec![tracked]),
            },
        }
    }

    fn pass_time(&mut self) {
        self.fixture.now += Duration::from_millis(u64::from(self.random.below(60)));
        self.fixture.accumulator.resume(self.fixture.now);
        let drained = self.fixture.accumulator.expire(self.fixture.now);
        not_stored(drained.not_stored);
        unknown(drained.unknown);
    }

    /// The stream breaks: what is on the wire may still arrive, the answers do not.
    fn break_off(&mut self) {
        while self.random.below(3) > 0 && !self.wire.is_empty() {
            self.node_takes();
        }
        self.wire.clear();
        self.answers.clear();
        self.node.failed = None;
        let lost = self.fixture.accumulator.put_all_back(&Error::invalid("broken"));
        assert!(lost.unknown.is_empty() && lost.not_stored.is_empty());
    }

    fn end(&mut self) {
        drop(self.fixture.accumulator.seal());
        for _ in 0..2_000 {
            self.fixture.now += Duration::from_millis(1);
            self.fixture.accumulator.resume(self.fixture.now + Duration::from_secs(60));
            self.take();
            if let Some(it) = self.wire.pop_front() {
                let answer = self.node.take(&it, None);
                self.answers.push((it.correlation_id, answer));
            }
            if let Some(answer) = self.answers.pop() {
                self.hear(answer);
            }
        }
        let (seed, accumulator) = (self.seed, &self.fixture.accumulator);
        assert!(accumulator.is_idle(), "seed {seed}: {accumulator:?}");
        assert_eq!((self.fixture.buffered(), accumulator.bytes_in_flight), (0, 0), "seed {seed}");
        assert!(self.node.stored.is_sorted_by(|a, b| a < b), "seed {seed}: {:?}", self.node.stored);
    }

    /// How many were told stored, not stored, and of unknown outcome; checked against what is stored.
    fn told(&mut self) -> [u32; 3] {
        let mut told = [0; 3];
        for (number, delivery) in (0_u8..).zip(std::mem::take(&mut self.deliveries)) {
            let is_stored = self.node.stored.contains(&number);
            let mut delivery = std::pin::pin!(delivery);
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let std::task::Poll::Ready(outcome) = delivery.as_mut().poll(&mut context) else {
                panic!("seed {}: record {number} has no end", self.seed)
            };
            let which = match outcome {
                Ok(_) => {
                    assert!(is_stored, "seed {}: record {number} is lost", self.seed);
                    0
                }
                Err(error) if error.kind() == ErrorKind::OutcomeUnknown => 2,
                Err(_) => {
                    assert!(!is_stored, "seed {}: record {number} was told not to be stored", self.seed);
                    1
                }
            };
            told[which] += 1;
        }
        told
    }
}

fn appended() -> crate::produce::Appended {
    let found = logmill_proto::v1::Appended::default();
    let outcome = Some(logmill_proto::v1::produce_result::Outcome::Appended(found));
    let result = logmill_proto::v1::ProduceResult { outcome, ..Default::default() };
    crate::produce::appended(vec![result], 1).unwrap()
}

fn not_stored(batches: Vec<Tracked>) {
    batches.into_iter().for_each(|batch| batch.completion.complete(Err(Error::invalid("not stored"))));
}

fn unknown(batches: Vec<Tracked>) {
    let error = Error::new(ErrorKind::OutcomeUnknown, "OUTCOME_UNKNOWN", "who knows");
    batches.into_iter().for_each(|batch| batch.completion.complete(Err(error.clone())));
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap() % end
    }
}
