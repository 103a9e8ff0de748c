//! What readers of committed records get, and when; and what others do.

use logmill_log::sim::{Fault, Op, Rule};

use super::*;
use crate::fetch::{Subscribe, Subscription};

fn subscribe(node: &Node, from: FetchFrom, isolation: Isolation) -> Subscription {
    let subscribe = Subscribe::new(vec![from], 1 << 20).isolation(isolation);
    node.wait(node.broker.subscribe(&node.context, subscribe)).unwrap()
}

#[test]
fn an_open_transaction_holds_back_all_behind_it_and_its_commit_shows_it() {
    let node = Node::durable(1);
    node.append(plain(&["a"]));
    node.append(in_transaction(7, 0, &["b", "c"]));
    node.append(plain(&["d"]));
    let data = node.committed(0);
    assert_eq!(texts(&data), ["a"]);
    assert_eq!(
        (data.next_offset, data.last_stable_offset, data.end_offset),
        (Offset(1), Offset(1), Offset(4))
    );
    // Also from where it may not read yet.
    for from in 1..=4 {
        let data = node.committed(from);
        assert_eq!((texts(&data).len(), data.next_offset), (0, Offset(from)));
    }
    node.append(commit(7));
    assert_eq!(texts(&node.committed(0)), ["a", "b", "c", "d"]);
    assert_eq!(texts(&node.committed(2)), ["c", "d"]);
    assert_eq!(node.committed(0).next_offset, Offset(5));
    node.broker.close().unwrap();
}

#[test]
fn an_abort_hides_the_records_of_its_transaction_and_of_no_other() {
    let node = Node::durable(1);
    node.append(in_transaction(7, 0, &["7 aborted"]));
    node.append(in_transaction(8, 0, &["8 committed"]));
    node.append(in_transaction(7, 1, &["7 aborted too"]));
    node.append(plain(&["plain"]));
    node.append(abort(7));
    node.append(in_transaction(7, 2, &["7 committed"]));
    node.append(commit(8));
    node.append(commit(7));
    let data = node.committed(0);
    assert_eq!(seen(&data), [(1, "8 committed".into()), (3, "plain".into()), (5, "7 committed".into()),]);
    let aborted: Vec<_> =
        data.aborted.iter().map(|txn| (txn.producer_id, txn.first_offset, txn.last_offset)).collect();
    assert_eq!(aborted, [(7, Offset(0), Offset(4))]);
    node.broker.close().unwrap();
}

#[test]
fn a_marker_in_a_later_segment_counts_also_when_the_log_is_opened_again() {
    let mut node = Node::durable(1);
    node.append(in_transaction(7, 0, &["aborted"]));
    node.append(in_transaction(8, 0, &["committed"]));
    node.log().roll().unwrap();
    node.append(plain(&["between"]));
    node.log().roll().unwrap();
    node.append(abort(7));
    node.append(commit(8));
    node.log().roll().unwrap();
    node.append(plain(&["last"]));
    for _ in 0..2 {
        // A read ends with its segment.
        let (mut next, mut texts) = (0, Vec::new());
        while next < 6 {
            let data = node.committed(next);
            assert!(data.next_offset.get() > next);
            texts.extend(super::texts(&data));
            next = data.next_offset.get();
        }
        assert_eq!(texts, ["committed", "between", "last"]);
        node.open_again();
    }
    node.broker.close().unwrap();
}

#[test]
fn readers_of_uncommitted_records_see_all_of_them_and_are_told_of_no_abort() {
    let node = Node::durable(1);
    node.append(in_transaction(7, 0, &["aborted"]));
    node.append(abort(7));
    node.append(in_transaction(8, 0, &["open"]));
    let data = node.read(0, Isolation::ReadUncommitted);
    assert_eq!(seen(&data), [(0, "aborted".into()), (2, "open".into())]);
    assert!(data.aborted.is_empty());
    assert_eq!((data.next_offset, data.last_stable_offset), (Offset(3), Offset(2)));
    let mut subscription = subscribe(&node, at(0), Isolation::ReadUncommitted);
    let data = node.wait(subscription.next()).unwrap();
    assert_eq!((texts(&data), data.aborted.len()), (vec!["aborted".into(), "open".into()], 0));
    node.broker.close().unwrap();
}

/// A reader that stayed where it is would come back for it over and over.
#[test]
fn a_page_without_a_record_for_the_reader_moves_it_on_and_is_not_waited_with() {
    let node = Node::durable(1);
    for sequence in 0..20 {
        node.append(in_transaction(7, sequence, &["aborted"]));
    }
    node.append(abort(7));
    let (clock, mut next, mut pages) = (node.clock(), 0, 0);
    let begun = clock.monotonic();
    while next < 21 {
        let fetch = Fetch { min_bytes: 150, ..Fetch::new(vec![at(next)]).max_bytes(200).max_wait(LONG) };
        let data = node.fetch(fetch);
        assert!(data.next_offset.get() > next && texts(&data).is_empty());
        next = data.next_offset.get();
        pages += 1;
    }
    assert!(pages > 5, "{pages}");
    assert!(clock.monotonic() - begun <= LONG, "only the last is less than what is waited for");
    node.broker.close().unwrap();
}

#[test]
fn what_is_waited_for_is_counted_in_what_may_be_read() {
    let node = Node::durable(1);
    node.append(plain(&["a"]));
    node.append(in_transaction(7, 0, &["b"]));
    for _ in 0..20 {
        node.append(plain(&["c"]));
    }
    let clock = node.clock();
    let poll = |min_bytes| {
        let begun = clock.monotonic();
        let data = node.fetch(Fetch { min_bytes, ..Fetch::new(vec![at(0)]).max_wait(LONG) });
        (texts(&data).len(), clock.monotonic() - begun)
    };
    assert_eq!(poll(1), (1, Duration::ZERO));
    assert_eq!(poll(500), (1, LONG), "more than that is there, and may not be read");
    node.append(abort(7));
    assert_eq!(poll(500), (21, Duration::ZERO));
    node.broker.close().unwrap();
}

#[test]
fn a_reader_that_is_held_back_sleeps_until_the_marker() {
    let node = Node::durable(1);
    node.append(in_transaction(7, 0, &["a"]));
    let subscription = &mut subscribe(&node, at(0), Isolation::ReadCommitted);
    let fetch = Fetch::new(vec![at(0)]).max_wait(LONG);
    let mut fetch = Polled::new(node.broker.fetch(&node.context, fetch));
    let mut next = Polled::new(subscription.next());
    assert!(fetch.run(&node.sim).is_pending() && next.run(&node.sim).is_pending());
    let before = (fetch.wakes(), next.wakes());
    for _ in 0..10 {
        node.append(plain(&["b"]));
        assert!(fetch.run(&node.sim).is_pending() && next.run(&node.sim).is_pending());
    }
    assert_eq!((fetch.wakes(), next.wakes()), before, "woken for what it may not read");
    node.append(commit(7));
    let Poll::Ready(Ok(mut data)) = fetch.run(&node.sim) else { panic!("it may read now") };
    assert_eq!(texts(&data.remove(0)).len(), 11);
    let Poll::Ready(Ok(data)) = next.run(&node.sim) else { panic!("it may read now") };
    assert_eq!(texts(&data).len(), 11);
    drop((fetch, next));
    node.broker.close().unwrap();
}

/// There the end moves with the write, and with the sync only what is stable.
#[test]
fn readers_of_a_relaxed_topic_are_woken_by_the_sync_of_the_marker() {
    let node = Node::relaxed(1);
    let clock = node.clock();
    for (sequence, wait) in [(0, false), (1, true)] {
        let from = node.log().end_offset();
        let subscription = &mut subscribe(&node, at(from.get()), Isolation::ReadCommitted);
        drop(node.write(in_transaction(7, sequence, &["a"])));
        let receipt = node.write(commit(7));
        assert_eq!(
            (node.log().end_offset(), node.log().last_stable_offset()),
            (Offset(from.get() + 2), from)
        );
        let fetch = Fetch::new(vec![at(from.get())]).max_wait(LONG);
        let mut fetch = Polled::new(node.broker.fetch(&node.context, fetch));
        let mut next = Polled::new(subscription.next());
        assert!(fetch.run(&node.sim).is_pending() && next.run(&node.sim).is_pending());
        let begun = clock.monotonic();
        if wait {
            receipt.wait().unwrap();
            assert_eq!(clock.monotonic(), begun);
        } else {
            drop(receipt);
            node.sim.scheduler.run_for(FLUSH);
        }
        let Poll::Ready(Ok(mut data)) = fetch.run(&node.sim) else { panic!("the marker is on disk") };
        assert_eq!(texts(&data.remove(0)), ["a"]);
        let Poll::Ready(Ok(data)) = next.run(&node.sim) else { panic!("the marker is on disk") };
        assert_eq!(texts(&data), ["a"]);
        drop((fetch, next));
    }
    node.broker.close().unwrap();
}

/// What is committed after it has begun lies behind the last stable offset, and may lie before the end.
#[test]
fn the_latest_place_is_the_end_of_what_the_reader_sees() {
    let node = Node::durable(1);
    node.append(plain(&["a"]));
    node.append(in_transaction(7, 0, &["b"]));
    node.append(plain(&["c"]));
    let latest = || FetchFrom::new("t", 0, Position::Latest);
    for (isolation, offset) in [(Isolation::ReadCommitted, 1), (Isolation::ReadUncommitted, 3)] {
        let data = node.fetch(Fetch::new(vec![latest()]).isolation(isolation));
        assert_eq!((data.from_offset, data.next_offset), (Offset(offset), Offset(offset)));
        let places = vec![(0, Position::Latest)];
        let found = node.broker.list_offsets_with(&node.context, "t", places.clone(), isolation);
        assert_eq!(node.wait(found).unwrap()[0].offset, Offset(offset));
    }
    let found = node.broker.list_offsets(&node.context, "t", vec![(0, Position::Latest)]);
    assert_eq!(node.wait(found).unwrap()[0].offset, Offset(1));
    let mut committed = subscribe(&node, latest(), Isolation::ReadCommitted);
    let mut all = subscribe(&node, latest(), Isolation::ReadUncommitted);
    node.append(commit(7));
    assert_eq!(texts(&node.wait(committed.next()).unwrap()), ["b", "c"]);
    let data = node.wait(all.next()).unwrap();
    assert_eq!((texts(&data).len(), data.from_offset, data.next_offset), (0, Offset(3), Offset(4)));
    node.broker.close().unwrap();
}

#[test]
fn a_place_given_by_time_is_the_same_for_every_reader() {
    let node = Node::durable(1);
    node.append(in_transaction(7, 0, &["a"]));
    node.append(plain(&["b"]));
    for (time, offset) in [(5, 0), (6, 2)] {
        for isolation in [Isolation::ReadCommitted, Isolation::ReadUncommitted] {
            let from = FetchFrom::new("t", 0, Position::Time(TimestampMs(time)));
            let data = node.fetch(Fetch::new(vec![from]).isolation(isolation));
            assert_eq!((data.error.is_none(), data.from_offset), (true, Offset(offset)), "{isolation:?}");
        }
    }
    node.broker.close().unwrap();
}

#[test]
fn a_reader_that_is_held_back_is_told_when_the_broker_closes_or_the_topic_goes() {
    let node = Node::durable(1);
    node.append(in_transaction(7, 0, &["a"]));
    let fetch = || Fetch::new(vec![at(0)]).max_wait(LONG);
    let mut waiting = Polled::new(node.broker.fetch(&node.context, fetch()));
    assert!(waiting.run(&node.sim).is_pending());
    node.wait(node.broker.delete_topic(&node.context, "t")).unwrap();
    let Poll::Ready(Ok(mut data)) = waiting.run(&node.sim) else { panic!("nothing will come") };
    assert!(data.remove(0).error.is_some());
    drop(waiting);
    node.broker.close().unwrap();
}

#[test]
fn a_reader_that_is_held_back_goes_on_in_the_log_that_takes_the_place_of_one_that_failed() {
    let node = Node::durable(1);
    node.append(in_transaction(7, 0, &["a"]));
    let failed = node.log();
    let subscription = &mut subscribe(&node, at(0), Isolation::ReadCommitted);
    let fetch = Fetch::new(vec![at(0)]).max_wait(LONG);
    let mut fetch = Polled::new(node.broker.fetch(&node.context, fetch));
    let mut next = Polled::new(subscription.next());
    assert!(fetch.run(&node.sim).is_pending() && next.run(&node.sim).is_pending());
    node.sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*.log"));
    assert!(node.write(plain(&["lost"])).wait().is_err());
    for _ in 0..10 {
        assert!(fetch.run(&node.sim).is_pending() && next.run(&node.sim).is_pending());
        node.sim.scheduler.run_for(Duration::from_secs(1));
    }
    assert!(node.log().stats().epoch > failed.stats().epoch, "it was opened again");
    node.append(commit(7));
    let Poll::Ready(Ok(mut data)) = fetch.run(&node.sim) else { panic!("it may read now") };
    assert_eq!(texts(&data.remove(0)), ["a"]);
    let Poll::Ready(Ok(data)) = next.run(&node.sim) else { panic!("it may read now") };
    assert_eq!(texts(&data), ["a"]);
    drop((fetch, next));
    node.broker.close().unwrap();
}
