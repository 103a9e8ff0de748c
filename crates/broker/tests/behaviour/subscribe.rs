//! Reading on and on, against credit.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use logmill_broker::{Config, Error, FetchFrom, Position, Reason, Subscribe, Subscription};
use logmill_log::sim::Sim;
use logmill_record::Offset;

use crate::common::{Node, batch, config, on, produce_batch, text};

fn subscribe(node: &Node, partitions: Vec<FetchFrom>, credit_bytes: u64) -> Result<Subscription, Error> {
    node.wait(node.broker.subscribe(&node.context, Subscribe::new(partitions, credit_bytes)))
}

fn all(partitions: u32, position: Position) -> Vec<FetchFrom> {
    (0..partitions).map(|partition| FetchFrom::new("t", partition, position)).collect()
}

fn node_with(config: Config, partitions: u32) -> Node {
    let node = Node::open(config);
    node.create("t", partitions).unwrap();
    node
}

#[test]
fn records_come_as_they_are_appended_each_once_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let node = node_with(Config { segment_bytes: 2_000, ..config(&dir) }, 3);
    for partition in 0..3 {
        node.say("t", partition, &format!("{partition} 0")).unwrap();
    }
    let mut subscription = subscribe(&node, all(3, Position::Earliest), 1_000_000).unwrap();
    assert!(subscription.started().iter().all(|data| data.error.is_none() && data.end_offset == Offset(1)));
    let mut read: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 1..100 {
                node.say("t", i % 3, &format!("{} {}", i % 3, i)).unwrap();
            }
        });
        while read.values().map(Vec::len).sum::<usize>() < 102 {
            let data = node.wait(subscription.next()).unwrap();
            assert!(!data.chunks.is_empty());
            read.entry(data.partition).or_default().extend(text(&data));
        }
    });
    for (partition, values) in read {
        let numbers = (1..100).filter(|i| i % 3 == partition).map(|i| format!("{partition} {i}"));
        let expected: Vec<String> = std::iter::once(format!("{partition} 0")).chain(numbers).collect();
        assert_eq!(values, expected);
    }
    node.broker.close().unwrap();
}

#[test]
fn nothing_comes_without_credit() {
    let sim = Sim::new(1);
    let node = node_with(on(&sim), 1);
    let size = batch([vec![b'x'; 1_000]]).bytes().len();
    for _ in 0..10 {
        let bytes = batch([vec![b'x'; 1_000]]).bytes().clone();
        node.produce(produce_batch("t", 0, bytes)).unwrap().remove(0).outcome.unwrap();
    }
    let mut subscription = subscribe(&node, all(1, Position::Earliest), 1).unwrap();
    // The first batch goes whole; what it exceeds the credit by is owed.
    assert_eq!(node.wait(subscription.next()).unwrap().size_bytes(), size);
    let credit = subscription.credit();
    assert!(credit.is_used_up());
    credit.grant(size as u64 - 1);
    {
        let mut next = pin!(subscription.next());
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..5 {
            assert!(next.as_mut().poll(&mut context).is_pending());
            sim.scheduler.run_until_idle();
        }
        // A grant wakes the one who waits.
        credit.grant(3 * size as u64);
        assert_eq!(node.wait(next).unwrap().size_bytes(), 3 * size);
    }
    node.broker.close().unwrap();
}

#[test]
fn a_busy_partition_does_not_shut_out_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let node = node_with(config(&dir), 3);
    for partition in 0..3 {
        for _ in 0..4 {
            let bytes = batch([vec![b'x'; 1_000]]).bytes().clone();
            node.produce(produce_batch("t", partition, bytes)).unwrap().remove(0).outcome.unwrap();
        }
    }
    let partitions =
        all(3, Position::Earliest).into_iter().map(|from| FetchFrom { max_bytes: Some(1), ..from }).collect();
    let mut subscription = subscribe(&node, partitions, 1_000_000).unwrap();
    let order: Vec<u32> = (0..12).map(|_| node.wait(subscription.next()).unwrap().partition).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]);
    node.broker.close().unwrap();
}

/// One that always has more must not hide what comes for the others.
#[test]
fn what_is_new_in_a_partition_comes_before_the_backlog_of_another_is_through() {
    let sim = Sim::new(11);
    let node = node_with(on(&sim), 2);
    node.create("u", 1).unwrap();
    for i in 0..100 {
        node.say("t", 0, &i.to_string()).unwrap();
    }
    let mut partitions = all(2, Position::Earliest);
    partitions.push(FetchFrom::new("u", 0, Position::Earliest));
    partitions.iter_mut().for_each(|from| from.max_bytes = Some(1));
    let mut subscription = subscribe(&node, partitions, 1_000_000).unwrap();
    let mut next = || node.wait(subscription.next()).unwrap();
    assert_eq!(text(&next()), ["0"]);

    node.say("t", 1, "news").unwrap();
    let two = [next(), next()];
    assert!(two.iter().any(|data| text(data) == ["news"]), "{two:?}");

    node.delete("u").unwrap();
    sim.scheduler.run_until_idle();
    let two = [next(), next()];
    let gone = two.iter().find_map(|data| data.error.as_ref());
    assert_eq!(gone.map(Error::reason), Some(Reason::TopicNotFound), "{two:?}");
    node.broker.close().unwrap();
}

#[test]
fn a_call_that_is_dropped_loses_nothing_and_leaves_nothing() {
    struct Held;
    impl Wake for Held {
        fn wake(self: Arc<Self>) {}
    }
    let sim = Sim::new(7);
    let node = node_with(on(&sim), 2);
    for i in 0..5 {
        node.say("t", 0, &i.to_string()).unwrap();
    }
    let partitions =
        all(2, Position::Earliest).into_iter().map(|from| FetchFrom { max_bytes: Some(1), ..from }).collect();
    let mut subscription = subscribe(&node, partitions, 1_000_000).unwrap();
    let held = Arc::new(Held);
    let waker = Waker::from(Arc::clone(&held));
    let mut read = Vec::new();
    for i in 0..100 {
        {
            let mut next = pin!(subscription.next());
            if let std::task::Poll::Ready(data) = next.as_mut().poll(&mut Context::from_waker(&waker)) {
                read.extend(text(&data.unwrap()));
            }
        }
        // Dropped, sometimes while the read is under way.
        if i % 3 == 0 {
            sim.scheduler.run_until_idle();
        }
    }
    assert_eq!(read, ["0", "1", "2", "3", "4"]);
    assert_eq!(Arc::strong_count(&held), 2);
    node.broker.close().unwrap();
}

#[test]
fn a_partition_that_goes_is_reported_once_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let node = node_with(config(&dir), 1);
    node.create("u", 1).unwrap();
    let partitions = vec![
        FetchFrom::new("t", 0, Position::Latest),
        FetchFrom::new("u", 0, Position::Latest),
        FetchFrom::new("nowhere", 0, Position::Latest),
    ];
    let mut subscription = subscribe(&node, partitions, 1_000).unwrap();
    let started: Vec<_> = subscription.started().iter().map(|data| data.error.is_some()).collect();
    assert_eq!(started, [false, false, true]);
    node.delete("u").unwrap();
    let data = node.wait(subscription.next()).unwrap();
    assert_eq!((data.topic.as_str(), data.error.unwrap().reason()), ("u", Reason::TopicNotFound));
    node.say("t", 0, "still here").unwrap();
    assert_eq!(text(&node.wait(subscription.next()).unwrap()), ["still here"]);
    node.delete("t").unwrap();
    assert!(node.wait(subscription.next()).unwrap().error.is_some());
    assert_eq!(node.wait(subscription.next()).unwrap_err().reason(), Reason::TopicNotFound);
    node.broker.close().unwrap();
}

#[test]
fn what_makes_no_sense_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = node_with(config(&dir), 2);
    let reason = |partitions, credit| subscribe(&node, partitions, credit).map(drop).unwrap_err().reason();
    assert_eq!(reason(all(1, Position::Latest), 0), Reason::RequestInvalid);
    assert_eq!(reason(Vec::new(), 1), Reason::RequestInvalid);
    let twice = [all(1, Position::Latest), all(1, Position::Earliest)].concat();
    assert_eq!(reason(twice, 1), Reason::RequestInvalid);
    let outside = all(1, Position::Offset(Offset(5)));
    let mut subscription = subscribe(&node, outside, 1).unwrap();
    assert_eq!(node.wait(subscription.next()).unwrap_err().reason(), Reason::OffsetOutOfRange);
    node.broker.close().unwrap();
}

#[test]
fn closing_ends_a_subscription() {
    let dir = tempfile::tempdir().unwrap();
    let node = node_with(config(&dir), 1);
    let mut subscription = subscribe(&node, all(1, Position::Latest), 1_000).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(node.wait(subscription.next()).unwrap_err().reason(), Reason::NodeClosing);
        });
        std::thread::park_timeout(Duration::from_millis(50));
        node.broker.close().unwrap();
    });
}
