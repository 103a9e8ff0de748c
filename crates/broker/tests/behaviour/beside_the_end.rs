//! Records that are under way while their transaction is being ended: in it, if they are acknowledged.

use std::future::Future;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use logmill_broker::{Acks, Outcome, Reason};
use logmill_log::sim::{Fault, Op, Rule, Sim};

use crate::common::{Node, config, simulated};
use crate::transactions::{Writer, node, read};

#[test]
fn what_was_answered_beside_the_end_is_committed_with_the_rest_whenever_the_power_goes() {
    let mut committed = 0;
    for nth in 1..40 {
        let mut sim = Sim::new(13);
        let node = node(&sim);
        let mut writer = Writer::begin(&node, "shop").unwrap();
        writer.send(0, "a").unwrap();
        sim.fs.power_off_at(nth);
        let mut sent = Box::pin(writer.sending(1, "b", Acks::Written));
        let mut ended = Box::pin(writer.ending(Outcome::Commit));
        let mut context = Context::from_waker(Waker::noop());
        let mut answered = false;
        while !sim.fs.is_off() && ended.as_mut().poll(&mut context).is_pending() {
            if let (false, Poll::Ready(told)) = (answered, sent.as_mut().poll(&mut context)) {
                answered = told.is_ok_and(|mut results| results.remove(0).outcome.is_ok());
            }
            sim.scheduler.run_for(Duration::from_micros(1));
        }
        drop((node, sent, ended, writer));
        sim.crash();
        let node = simulated(&sim);
        let [first, second] = read(&node);
        assert!(!answered || first.is_empty() == second.is_empty(), "change {nth}: {first:?}, {second:?}");
        committed += first.len();
        node.broker.close().unwrap();
    }
    assert!(committed > 0, "some are");
}

/// Sends a record and ends its transaction right behind it, with a sync of the record's partition that fails. Whether
/// the record was acknowledged and the transaction was committed.
fn send_and_commit_at_once(seed: u64, nth: u64) -> bool {
    let sim = Sim::new(seed);
    let node = node(&sim);
    let mut writer = Writer::begin(&node, "shop").unwrap();
    writer.send(0, "a").unwrap();
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/topics/*/1/*").nth(nth));
    let mut sent = Box::pin(writer.sending(1, "b", Acks::Written));
    let mut ended = Box::pin(writer.ending(Outcome::Commit));
    let mut context = Context::from_waker(Waker::noop());
    // Both are under way before either can be done.
    let (first, second) = (sent.as_mut().poll(&mut context), ended.as_mut().poll(&mut context));
    assert!(first.is_pending() && second.is_pending());
    let answered = node.wait(sent).is_ok_and(|mut results| results.remove(0).outcome.is_ok());
    let committed = node.wait(ended).is_ok();
    let both = (answered, committed);
    sim.scheduler.run_for(Duration::from_secs(5));
    sim.fs.clear_rules();
    let [first, second] = read(&node);
    let of_both = [!first.is_empty(), !second.is_empty()];
    match both {
        (true, true) => assert_eq!(of_both, [true, true], "seed {seed}, sync {nth}"),
        (_, false) => assert_eq!(of_both, [false, false], "seed {seed}, sync {nth}"),
        (false, true) => assert!(of_both[0], "seed {seed}, sync {nth}"),
    }
    node.broker.close().unwrap();
    both == (true, true)
}

#[test]
fn what_was_answered_beside_the_end_is_committed_with_the_rest_or_nothing_is_whatever_sync_fails() {
    let runs = (0..40).flat_map(|seed| (1..4).map(move |nth| send_and_commit_at_once(seed, nth)));
    let committed: Vec<bool> = runs.collect();
    let both = committed.iter().filter(|both| **both).count();
    assert!((10..committed.len() - 10).contains(&both), "some are, and some are not: {both}");
}

#[test]
fn a_transaction_ends_when_a_topic_of_it_whose_deletion_was_uncertain_is_deleted_for_certain() {
    let sim = Sim::new(3);
    let node = node(&sim);
    let mut writer = Writer::begin(&node, "shop").unwrap();
    writer.send(0, "a").unwrap();
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/metadata/*").always());
    assert_eq!(node.delete("t").unwrap_err().reason(), Reason::OutcomeUnknown);
    sim.fs.clear_rules();
    let mut ended = Box::pin(writer.ending(Outcome::Abort));
    let mut is_pending = || ended.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
    sim.scheduler.run_for(Duration::from_secs(60));
    assert!(is_pending(), "only a start can tell, or another deletion");
    node.delete("t").unwrap();
    sim.scheduler.run_for(Duration::from_secs(60));
    assert!(!is_pending(), "there is no partition that has to have its marker");
    node.broker.close().unwrap();
}

/// Sends to a partition until it is told that the transaction takes nothing more; what was acknowledged.
fn send_until_it_ends(mut writer: Writer, partition: u32, round: usize) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let value = format!("{round}.{number}");
        match writer.send_with(partition, &value, Acks::Written) {
            Ok(()) => acknowledged.push(value),
            Err(error) => {
                let ended = matches!(error.reason(), Reason::TransactionEnding | Reason::ProducerFenced);
                assert!(ended, "{error}");
                break;
            }
        }
    }
    acknowledged
}

#[test]
fn what_other_threads_send_while_a_transaction_ends_is_in_it_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 2).unwrap();
    let mut writer = Writer::begin(&node, "shop").unwrap();
    let mut expected = [Vec::new(), Vec::new()];
    for round in 0..16 {
        let next = std::thread::scope(|scope| {
            let sending = [0, 1].map(|partition| {
                let writer = writer.clone();
                scope.spawn(move || send_until_it_ends(writer, partition, round))
            });
            for _ in 0..round * 50 {
                std::thread::yield_now();
            }
            let next = node.wait(writer.ending(Outcome::Commit)).unwrap();
            // It has ended with its answer, whatever is told to those who send.
            let seen = read(&node);
            for (partition, sent) in sending.into_iter().enumerate() {
                expected[partition].extend(sent.join().unwrap());
                assert_eq!(seen[partition], expected[partition], "round {round}");
            }
            next
        });
        writer.go_on(next);
    }
    assert_eq!(read(&node), expected);
    assert!(expected.iter().all(|values| values.len() > 16), "they do send");
    node.broker.close().unwrap();
}
