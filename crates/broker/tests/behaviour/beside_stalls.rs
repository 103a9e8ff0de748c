//! Partitions whose reads stall, and those that are read by the same fetch or subscription.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use logmill_broker::{
    Error, Fetch, FetchFrom, Limit, LimitStats, Limits, PartitionData, Position, Reason, Subscribe,
    Subscription,
};
use logmill_record::{Offset, TimestampMs};

use crate::common::hook_fs::{Call, gated, is_segment};
use crate::common::{Node, records, text, with_env};
use crate::stalls::{Opens, Stalled, from};

fn subscribe(node: &Node, partitions: Vec<FetchFrom>) -> Subscription {
    let subscribe = Subscribe::new(partitions, 1_000_000);
    node.wait(node.broker.subscribe(&node.context, subscribe)).unwrap()
}

/// The good one's records, and how the stalled one stands.
fn is_of_the_good_one_only(data: &[PartitionData]) {
    assert_eq!(text(&data[1]), ["before"]);
    assert!(data[0].chunks.is_empty());
    assert_eq!((data[0].start_offset, data[0].end_offset), (Offset(0), Offset(1)));
}

/// More of them than may read from a partition at once: some find that nothing more is tried.
#[test]
fn a_fetch_of_several_partitions_brings_what_there_is_beside_one_whose_reads_stall() {
    let stalled = Stalled::new(Call::Read);
    let node = &stalled.node;
    let opens = Opens(&stalled.gate);
    for max_wait in [0, 50, 0, 50, 0, 50].map(Duration::from_millis) {
        let partitions = vec![from(0, Position::Earliest), from(1, Position::Earliest)];
        let data = node.fetch(Fetch::new(partitions).max_wait(max_wait)).unwrap();
        is_of_the_good_one_only(&data);
        assert!(data[0].error.is_none());
    }
    let alone = node.fetch(Fetch::new(vec![from(0, Position::Earliest)])).unwrap().remove(0);
    assert_eq!((alone.chunks.len(), alone.next_offset, alone.end_offset), (0, Offset(0), Offset(1)));
    drop(opens);
    assert_eq!(node.read_all("t", 0).unwrap(), ["before"]);
    stalled.end();
}

/// It begins no more reads than it may have at once, and does not ask for turns that it cannot use.
#[test]
fn a_fetch_of_which_every_partition_stalls_says_where_they_stand() {
    let dir = tempfile::tempdir().unwrap();
    let (env, gate) = gated(Call::Read, is_segment);
    let node = Node::open(with_env(&dir, env));
    node.create("t", 8).unwrap();
    for partition in 0..8 {
        node.say("t", partition, "before").unwrap();
    }
    gate.arm();
    {
        let _opens = Opens(&gate);
        let all = (0..8).map(|partition| from(partition, Position::Earliest)).collect();
        let data = node.fetch(Fetch::new(all).max_wait(Duration::from_secs(1))).unwrap();
        assert!(data.iter().all(|data| data.error.is_none() && data.chunks.is_empty()));
        assert!(data.iter().all(|data| data.end_offset == Offset(1)));
        let LimitStats { used, peak, .. } = stands(&node, Limit::MaxPartitionReads);
        assert_eq!((used, peak), (4, 1));
    }
    node.broker.close().unwrap();
}

#[test]
fn a_search_by_time_that_stalls_ends_with_an_error_of_its_own_partition() {
    let stalled = Stalled::new(Call::Read);
    let node = &stalled.node;
    {
        let _opens = Opens(&stalled.gate);
        let by_time = || (0..2).map(|partition| from(partition, Position::Time(TimestampMs(0)))).collect();
        let data = node.fetch(Fetch::new(by_time()).max_wait(Duration::from_millis(50))).unwrap();
        is_of_the_good_one_only(&data);
        assert_eq!(data[0].error.as_ref().unwrap().reason(), Reason::IoFailed);

        let mut subscription = subscribe(node, by_time());
        let errors = subscription.started().iter().map(|data| data.error.as_ref().map(Error::reason));
        assert_eq!(errors.collect::<Vec<_>>(), [Some(Reason::IoFailed), None]);
        assert_eq!(text(&node.wait(subscription.next()).unwrap()), ["before"]);
    }
    stalled.end();
}

#[test]
fn a_subscription_goes_on_beside_a_partition_whose_reads_stall() {
    let stalled = Stalled::new(Call::Read);
    let node = &stalled.node;
    {
        let _opens = Opens(&stalled.gate);
        let mut subscription =
            subscribe(node, vec![from(0, Position::Earliest), from(1, Position::Earliest)]);
        let mut next = || node.wait(subscription.next()).unwrap();
        assert_eq!(text(&next()), ["before"]);
        for value in ["a", "b"] {
            node.say("t", 1, value).unwrap();
            let data = next();
            assert_eq!((data.partition, text(&data)), (1, vec![value.to_owned()]));
        }
        stalled.gate.open();
        let data = next();
        assert_eq!((data.partition, text(&data)), (0, vec!["before".to_owned()]));
        node.say("t", 0, "after").unwrap();
        assert_eq!(text(&next()), ["after"]);
    }
    stalled.end();
}

/// The credit that it was read for went to another one meanwhile.
#[test]
fn what_comes_late_keeps_to_the_credit_that_is_left() {
    let stalled = Stalled::new(Call::Read);
    let node = &stalled.node;
    {
        let _opens = Opens(&stalled.gate);
        let partitions = vec![from(0, Position::Earliest), from(1, Position::Earliest)];
        let subscribe = Subscribe::new(partitions, 1);
        let mut subscription = node.wait(node.broker.subscribe(&node.context, subscribe)).unwrap();
        let size = node.wait(subscription.next()).unwrap().size_bytes() as u64;
        stalled.gate.open();
        while stands(node, Limit::MaxPartitionReads).used > 0 {
            thread::yield_now();
        }
        poll_once(subscription.next());
        let credit = subscription.credit();
        credit.grant(size);
        assert_eq!(text(&node.wait(subscription.next()).unwrap()), ["before"]);
        assert!(credit.is_used_up());
    }
    stalled.end();
}

fn stands(node: &Node, limit: Limit) -> LimitStats {
    node.broker.stats().limits.into_iter().find(|stats| stats.limit == limit).unwrap()
}

/// One read of a partition at a time, and of partition 0 there is one that stalls.
fn with_its_turn_taken() -> Stalled {
    let limits = Limits { max_partition_reads: 1, max_reply_bytes: 1_000, ..Limits::default() };
    let stalled = Stalled::with_limits(Call::Read, limits);
    let stalls = Fetch::new(vec![from(0, Position::Earliest)]).max_bytes(1);
    let fetched = stalled.node.fetch(stalls).unwrap();
    assert!(fetched[0].chunks.is_empty());
    assert_eq!(stands(&stalled.node, Limit::MaxPartitionReads).used, 1);
    stalled
}

#[test]
fn a_partition_whose_turn_has_come_is_read_before_the_backlog_of_another_is_through() {
    let stalled = with_its_turn_taken();
    let node = &stalled.node;
    {
        let _opens = Opens(&stalled.gate);
        for i in 0..10 {
            node.say("t", 1, &i.to_string()).unwrap();
        }
        let both = [0, 1].map(|number| FetchFrom { max_bytes: Some(1), ..from(number, Position::Earliest) });
        let mut subscription = subscribe(node, both.to_vec());
        let mut next = || node.wait(subscription.next()).unwrap();
        assert_eq!([text(&next()), text(&next())], [["before"], ["0"]]);
        assert!(stands(node, Limit::MaxPartitionReads).refused > 0, "it waits for its turn");
        stalled.gate.open();
        while stands(node, Limit::MaxPartitionReads).used > 0 {
            thread::yield_now();
        }
        let two = [next().partition, next().partition];
        assert!(two.contains(&0), "{two:?}");
    }
    stalled.end();
}

/// The credit was used up when the other partition came to its turn: who grants more hears of that partition too.
#[test]
fn credit_that_comes_later_is_used_by_a_partition_that_waited_for_its_turn() {
    let stalled = with_its_turn_taken();
    let node = &stalled.node;
    {
        let _opens = Opens(&stalled.gate);
        let partitions = [0, 1].map(|number| from(number, Position::Earliest)).to_vec();
        let subscribe = Subscribe::new(partitions, 1);
        let mut subscription = node.wait(node.broker.subscribe(&node.context, subscribe)).unwrap();
        let credit = subscription.credit();
        assert_eq!(node.wait(subscription.next()).unwrap().partition, 1);
        let mut next = pin!(subscription.next());
        assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        credit.grant(1_000);
        stalled.gate.open();
        assert_eq!(node.wait(next).unwrap().partition, 0);
    }
    stalled.end();
}

#[test]
fn a_subscription_that_is_not_asked_for_more_keeps_no_turn_from_others() {
    let stalled = with_its_turn_taken();
    let node = &stalled.node;
    {
        let _opens = Opens(&stalled.gate);
        let mut first_in_line = subscribe(node, vec![from(0, Position::Earliest)]);
        poll_once(first_in_line.next());
        assert!(stands(node, Limit::MaxPartitionReads).refused > 0, "it waits for its turn");
        stalled.gate.open();
        assert_eq!(node.read_all("t", 0).unwrap(), ["before"]);
        assert_eq!(text(&node.wait(first_in_line.next()).unwrap()), ["before"]);
    }
    stalled.end();
}

#[test]
fn a_subscription_without_room_for_a_reply_leaves_its_turn_to_others() {
    let stalled = with_its_turn_taken();
    let node = &stalled.node;
    node.produce(records("t", Some(1), [vec![b'x'; 2_000]])).unwrap();
    thread::scope(|scope| {
        let _opens = Opens(&stalled.gate);
        let mut first_in_line = subscribe(node, vec![from(0, Position::Earliest)]);
        poll_once(first_in_line.next());
        let mut holder = subscribe(node, vec![from(1, Position::Offset(Offset(1)))]);
        assert!(node.wait(holder.next()).unwrap().size_bytes() > 1_000, "all the room");
        let refused = stands(node, Limit::MaxReplyBytes).refused;
        let waiting = scope.spawn(move || text(&node.wait(first_in_line.next()).unwrap()));
        stalled.gate.open();
        while stands(node, Limit::MaxReplyBytes).refused == refused {
            thread::yield_now();
        }
        // It has had its turn, and no room.
        let by_time = vec![(0, Position::Time(TimestampMs(0)))];
        let found = node.wait(node.broker.list_offsets(&node.context, "t", by_time)).unwrap();
        assert_eq!(found[0].offset, Offset(0));
        drop(holder);
        assert_eq!(waiting.join().unwrap(), ["before"]);
    });
    stalled.end();
}

fn poll_once(future: impl Future) {
    assert!(pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_pending());
}
