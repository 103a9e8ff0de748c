//! Records out of partitions: from where, how much, and how long it waits.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use logmill_broker::{
    Config, Fetch, FetchFrom, InitTransactions, Limits, Outcome, PartitionData, Payload, Position, Produce,
    ProducerSequence, Reason,
};
use logmill_log::sim::Sim;
use logmill_record::{Offset, TimestampMs};

use crate::common::{Node, batch, config, on, produce_batch, record, records, small, text};

const LONG: Duration = Duration::from_secs(30);

fn from(partition: u32, position: Position) -> FetchFrom {
    FetchFrom::new("t", partition, position)
}

fn offset(offset: u64) -> Position {
    Position::Offset(Offset(offset))
}

/// Topic `t` with so many partitions, and in each the values `p-0`, `p-1` … as batches of one.
fn filled(config: Config, partitions: u32, values: usize) -> Node {
    let node = Node::open(config);
    node.create("t", partitions).unwrap();
    for partition in 0..partitions {
        for i in 0..values {
            node.say("t", partition, &format!("{partition}-{i}")).unwrap();
        }
    }
    node
}

fn one(node: &Node, position: Position, max_bytes: usize) -> PartitionData {
    node.fetch(Fetch::new(vec![from(0, position)]).max_bytes(max_bytes)).unwrap().remove(0)
}

#[test]
fn reading_starts_where_asked() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 1).unwrap();
    node.produce(produce_batch("t", 0, batch(["a", "b", "c"]).bytes().clone())).unwrap();
    node.produce(records("t", Some(0), ["d"])).unwrap();

    // A batch comes whole; what lies before the offset asked for is the reader's to drop.
    let data = one(&node, offset(1), 1 << 20);
    assert_eq!((data.from_offset, data.next_offset), (Offset(1), Offset(4)));
    assert_eq!(text(&data), ["b", "c", "d"]);
    assert_eq!(text(&one(&node, Position::Earliest, 1 << 20)), ["a", "b", "c", "d"]);
    assert!(text(&one(&node, Position::Latest, 1 << 20)).is_empty());
    assert_eq!(text(&one(&node, Position::Time(TimestampMs(1_001)), 1 << 20)), ["d"]);
    assert!(text(&one(&node, Position::Time(TimestampMs(i64::MAX)), 1 << 20)).is_empty());
    let at_end = one(&node, offset(4), 1 << 20);
    assert_eq!(
        (at_end.start_offset, at_end.end_offset, at_end.next_offset),
        (Offset(0), Offset(4), Offset(4))
    );
    node.broker.close().unwrap();
}

#[test]
fn what_cannot_be_read_is_said_for_each_partition() {
    let dir = tempfile::tempdir().unwrap();
    let node = filled(config(&dir), 2, 3);
    let partitions =
        vec![from(0, offset(4)), from(1, offset(1)), from(2, offset(0)), FetchFrom::new("u", 0, offset(0))];
    let data = node.fetch(Fetch::new(partitions).max_wait(LONG)).unwrap();
    let reasons: Vec<_> =
        data.iter().map(|data| data.error.as_ref().map(logmill_broker::Error::reason)).collect();
    let expected =
        [Some(Reason::OffsetOutOfRange), None, Some(Reason::PartitionNotFound), Some(Reason::TopicNotFound)];
    assert_eq!(reasons, expected);
    assert_eq!(text(&data[1]), ["1-1", "1-2"]);
    let error = data[0].error.as_ref().unwrap();
    assert!(error.message().contains("can be read from 0 to 3"), "{error}");
    assert!(error.metadata().contains(&("end_offset", "3".to_owned())));
    assert_eq!((data[0].start_offset, data[0].end_offset), (Offset(0), Offset(3)));
    node.broker.close().unwrap();
}

#[test]
fn fetches_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_fetch_partitions: 3, ..Limits::default() };
    let node = filled(Config { limits, ..config(&dir) }, 4, 1);
    let reason = |fetch| node.fetch(fetch).unwrap_err().reason();
    assert_eq!(reason(Fetch::new(Vec::new())), Reason::RequestInvalid);
    let twice = vec![from(1, offset(0)), from(0, offset(0)), from(1, offset(1))];
    assert_eq!(reason(Fetch::new(twice)), Reason::RequestInvalid);
    let many = (0..4).map(|partition| from(partition, offset(0))).collect();
    assert_eq!(reason(Fetch::new(many)), Reason::LimitExceeded);
    let patient = Fetch::new(vec![from(0, offset(0))]).max_wait(Duration::from_millis(60_001));
    assert_eq!(reason(patient), Reason::RequestInvalid);
    node.broker.close().unwrap();
}

#[test]
fn the_limit_holds_but_the_first_batch_always_comes() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 3).unwrap();
    let size = batch([vec![b'x'; 1_000]]).bytes().len();
    for partition in 0..3 {
        for _ in 0..10 {
            let bytes = batch([vec![b'x'; 1_000]]).bytes().clone();
            node.produce(produce_batch("t", partition, bytes)).unwrap().remove(0).outcome.unwrap();
        }
    }
    let sizes = |max_bytes, own| {
        let partitions =
            (0..3).map(|partition| FetchFrom { max_bytes: own, ..from(partition, offset(0)) }).collect();
        let data = node.fetch(Fetch::new(partitions).max_bytes(max_bytes)).unwrap();
        let mut batches: Vec<usize> = data.iter().map(|data| data.size_bytes() / size).collect();
        assert!(data.iter().all(|data| data.error.is_none() && data.end_offset == Offset(10)));
        batches.sort_unstable();
        batches
    };
    for tiny in [0, 1, size - 1, size, size * 2 - 1] {
        assert_eq!(sizes(tiny, None), [0, 0, 1], "{tiny}");
    }
    assert_eq!(sizes(size * 13 + 5, None), [0, 3, 10]);
    assert_eq!(sizes(usize::MAX, None), [10, 10, 10]);
    assert_eq!(sizes(usize::MAX, Some(size * 2 + 1)), [2, 2, 2]);
    assert_eq!(sizes(usize::MAX, Some(1)), [1, 1, 1]);
    node.broker.close().unwrap();
}

#[test]
fn no_partition_starves_under_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let node = filled(config(&dir), 5, 4);
    let mut seen = [false; 5];
    for _ in 0..5 {
        let partitions = (0..5).map(|partition| from(partition, offset(0))).collect();
        let data = node.fetch(Fetch::new(partitions).max_bytes(1)).unwrap();
        for data in data.iter().filter(|data| !data.chunks.is_empty()) {
            seen[data.partition as usize] = true;
        }
    }
    assert_eq!(seen, [true; 5]);
    node.broker.close().unwrap();
}

#[test]
fn reading_goes_on_over_segments() {
    let dir = tempfile::tempdir().unwrap();
    let node = filled(Config { segment_bytes: 300, ..config(&dir) }, 1, 40);
    let described = node.wait(node.broker.describe_topic(&node.context, "t")).unwrap();
    assert!(described.partitions[0].segment_count > 5);
    let expected: Vec<String> = (0..40).map(|i| format!("0-{i}")).collect();
    let data = one(&node, Position::Earliest, 1 << 20);
    assert_eq!(text(&data), expected, "one fetch reads several segments");
    assert!(data.chunks.iter().all(|chunk| !chunk.appended_at_estimated));
    node.broker.close().unwrap();
}

#[test]
fn a_long_poll_is_woken_by_the_record_it_waits_for() {
    let dir = tempfile::tempdir().unwrap();
    let node = filled(config(&dir), 3, 1);
    let partitions = (0..3).map(|partition| from(partition, Position::Latest)).collect();
    let waiting = node.broker.fetch(&node.context, Fetch::new(partitions).max_wait(LONG));
    let clock = Arc::clone(&node.broker.config().env.clock);
    let start = clock.monotonic();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let data = node.wait(waiting).unwrap();
            assert_eq!(text(&data[2]), ["news"]);
            assert!(data[0].chunks.is_empty());
            assert!(clock.monotonic() - start < LONG / 2);
        });
        // The fetch has to have found the end before there is something new.
        std::thread::park_timeout(Duration::from_millis(50));
        node.say("t", 2, "news").unwrap();
    });
    node.broker.close().unwrap();
}

#[test]
fn a_long_poll_waits_for_as_many_bytes_as_asked_or_for_its_time() {
    let sim = Sim::new(2);
    let node = filled(on(&sim), 1, 1);
    let poll = |min_bytes, max_wait| {
        let fetch = Fetch { min_bytes, ..Fetch::new(vec![from(0, offset(0))]).max_wait(max_wait) };
        let start = node.broker.config().env.clock.monotonic();
        let data = node.fetch(fetch).unwrap().remove(0);
        (text(&data).len(), node.broker.config().env.clock.monotonic() - start)
    };
    assert_eq!(poll(1, LONG), (1, Duration::ZERO));
    assert_eq!(poll(1_000, Duration::from_secs(7)), (1, Duration::from_secs(7)));
    assert_eq!(poll(1_000, Duration::ZERO), (1, Duration::ZERO));
    for _ in 0..20 {
        node.say("t", 0, "more").unwrap();
    }
    assert_eq!(poll(1_000, LONG), (21, Duration::ZERO));
    node.broker.close().unwrap();
}

/// Who reads batches as they are stored is told which transactions were aborted.
#[test]
fn what_transactions_left_is_told_with_the_batches() {
    let dir = tempfile::tempdir().unwrap();
    let node = filled(config(&dir), 1, 1);
    let begin = |name: &str| {
        let init = InitTransactions::new(name);
        let producer = node.wait(node.broker.init_transactions(&node.context, init)).unwrap();
        let sequence = ProducerSequence { id: producer.id, epoch: producer.epoch, base_sequence: 0 };
        let payload = Payload::InTransaction(sequence, vec![record("v")]);
        node.produce(Produce { payload, ..records("t", Some(0), ["v"]) }).unwrap().remove(0).outcome.unwrap();
        producer
    };
    let aborted = begin("a");
    node.wait(node.broker.end_transaction(&node.context, "a", aborted, Outcome::Abort)).unwrap();
    begin("b");

    let data = one(&node, offset(0), 1 << 20);
    assert_eq!((data.end_offset, data.last_stable_offset), (Offset(4), Offset(3)), "one is open");
    let told: Vec<_> =
        data.aborted.iter().map(|it| (it.producer_id, it.first_offset, it.last_offset)).collect();
    assert_eq!(told, [(aborted.id, Offset(1), Offset(2))]);
    assert!(one(&node, offset(3), 1 << 20).aborted.is_empty(), "it lies before");
    node.broker.close().unwrap();
}

/// Answered at once, a reader that comes back at once would never stop asking.
#[test]
fn a_long_poll_waits_also_where_one_of_its_partitions_cannot_be_read() {
    let sim = Sim::new(4);
    let node = filled(on(&sim), 2, 1);
    let clock = Arc::clone(&node.broker.config().env.clock);
    let poll = |partitions: Vec<FetchFrom>| {
        let begun = clock.monotonic();
        let data = node.fetch(Fetch::new(partitions).max_wait(Duration::from_secs(7))).unwrap();
        (data, clock.monotonic() - begun)
    };
    let (data, took) = poll(vec![from(7, offset(0)), from(0, offset(9)), from(1, Position::Latest)]);
    assert_eq!(took, Duration::from_secs(7));
    assert_eq!(data[0].error.as_ref().unwrap().reason(), Reason::PartitionNotFound);
    assert_eq!(data[1].error.as_ref().unwrap().reason(), Reason::OffsetOutOfRange);
    assert!(data[2].error.is_none());
    let (_, took) = poll(vec![from(7, offset(0)), from(1, offset(0))]);
    assert_eq!(took, Duration::ZERO, "there is something");
    let (_, took) = poll(vec![from(7, offset(0)), from(0, offset(9))]);
    assert_eq!(took, Duration::ZERO, "nothing can come");
    node.broker.close().unwrap();
}

/// Counts how many wakers of it are held anywhere.
struct Held;

impl Wake for Held {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_dropped_long_poll_leaves_no_waiter_behind() {
    let sim = Sim::new(3);
    let limits = Limits { max_waiting_fetches: 1, ..Limits::default() };
    let node = filled(Config { env: sim.env(), limits, ..small("/data") }, 3, 1);
    let held = Arc::new(Held);
    let waker = Waker::from(Arc::clone(&held));
    for _ in 0..10 {
        let partitions = (0..3).map(|partition| from(partition, Position::Latest)).collect();
        let mut fetch = Box::pin(node.broker.fetch(&node.context, Fetch::new(partitions).max_wait(LONG)));
        for _ in 0..3 {
            assert!(fetch.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            sim.scheduler.run_until_idle();
        }
        assert!(Arc::strong_count(&held) > 5, "it waits for three logs, a timer and the end of the broker");
        drop(fetch);
        assert_eq!(Arc::strong_count(&held), 2, "only the waker of this test is left");
    }
    node.broker.close().unwrap();
}

#[test]
fn fetches_that_wait_have_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_waiting_fetches: 2, ..Limits::default() };
    let node = filled(Config { limits, ..config(&dir) }, 1, 0);
    let wait = || {
        let fetch = Fetch::new(vec![from(0, Position::Latest)]).max_wait(LONG);
        Box::pin(node.broker.fetch(&node.context, fetch))
    };
    let mut waiting: Vec<_> = (0..3).map(|_| wait()).collect();
    let mut refused = node.wait(std::future::poll_fn(|context| {
        for (index, fetch) in waiting.iter_mut().enumerate() {
            if let Poll::Ready(outcome) = fetch.as_mut().poll(context) {
                return Poll::Ready((index, outcome.unwrap_err()));
            }
        }
        Poll::Pending
    }));
    assert_eq!(refused.1.reason(), Reason::LimitExceeded);
    assert!(refused.1.metadata().contains(&("limit", "max_waiting_fetches".to_owned())));
    drop(waiting.remove(std::mem::take(&mut refused.0)));
    node.say("t", 0, "x").unwrap();
    for fetch in waiting {
        assert_eq!(text(&node.wait(fetch).unwrap()[0]), ["x"]);
    }
    node.broker.close().unwrap();
}

#[test]
fn deletion_and_closing_end_those_who_wait() {
    let dir = tempfile::tempdir().unwrap();
    let node = filled(config(&dir), 1, 0);
    node.create("u", 1).unwrap();
    let wait = |topic: &str| {
        let fetch = Fetch::new(vec![FetchFrom::new(topic, 0, Position::Latest)]).max_wait(LONG);
        node.broker.fetch(&node.context, fetch)
    };
    let (on_deleted, on_closed) = (wait("u"), wait("t"));
    std::thread::scope(|scope| {
        let deleted = scope.spawn(|| {
            let error = node.wait(on_deleted).unwrap().remove(0).error.unwrap();
            assert_eq!(error.reason(), Reason::TopicNotFound, "{error}");
        });
        scope.spawn(|| {
            let data = node.wait(on_closed).unwrap().remove(0);
            assert!(data.chunks.is_empty());
        });
        std::thread::park_timeout(Duration::from_millis(50));
        node.delete("u").unwrap();
        // A moment later, and a node that closes ends everyone's wait.
        deleted.join().unwrap();
        node.broker.close().unwrap();
    });
}
