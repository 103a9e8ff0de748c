mod model;

use std::time::Duration;

use logmill_record::TimestampMs;
use tokio::sync::Semaphore;

use super::*;
use crate::Error;
use crate::producer::partitioner::Partitioner;
use crate::producer::rules::TopicRules;

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
