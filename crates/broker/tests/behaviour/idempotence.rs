//! Batches that come again, come too early, or come from a producer that was replaced.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Waker};

use logmill_broker::{
    Acks, Appended, Config, CreateTopic, Error, Limits, Payload, Produce, ProduceResult, ProduceStream,
    ProducerSequence, Reason, TopicSettings,
};
use logmill_log::sim::{Fault, Op, Rule, Sim};

use crate::common::hook_fs::{Call, Gate, gated, is_segment};
use crate::common::{Node, batch, config, produce_batch, record, records, simulated, small, with_env};

/// A batch of an idempotent producer, one record per value.
pub(crate) fn numbered<const N: usize>(id: i64, epoch: i16, sequence: i32, values: [&str; N]) -> Produce {
    produce_batch("t", 0, batch(values).with_producer(id, epoch, sequence).bytes().clone())
}

fn send(node: &Node, produce: Produce) -> Result<Appended, Error> {
    node.produce(produce)?.remove(0).outcome
}

/// First offset, and whether it is a duplicate.
fn placed(appended: &Appended) -> (u64, bool) {
    (appended.first_offset.get(), appended.duplicate)
}

fn outcome(results: Result<Vec<ProduceResult>, Error>) -> Result<(u64, bool), Reason> {
    let appended = results.unwrap().remove(0).outcome;
    appended.map(|appended| placed(&appended)).map_err(|error| error.reason())
}

#[test]
fn a_batch_that_comes_again_is_answered_with_its_first_offsets_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::open(config(&dir));
    node.create("t", 1).unwrap();
    let first = send(&node, numbered(7, 0, 0, ["a", "b"])).unwrap();
    node.say("t", 0, "between").unwrap();
    assert_eq!(placed(&send(&node, numbered(7, 0, 2, ["c"])).unwrap()), (3, false));
    for _ in 0..2 {
        let again = send(&node, numbered(7, 0, 0, ["a", "b"])).unwrap();
        assert_eq!(again, Appended { duplicate: true, ..first });
        assert_eq!(placed(&send(&node, numbered(7, 0, 2, ["c"])).unwrap()), (3, true));
        node.broker.close().unwrap();
        node = Node::open(config(&dir));
    }
    assert_eq!(node.read_all("t", 0).unwrap(), ["a", "b", "between", "c"]);
    node.broker.close().unwrap();
}

#[test]
fn what_comes_too_early_too_late_or_from_a_replaced_producer_has_a_reason_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 1).unwrap();
    for sequence in 0..66 {
        send(&node, numbered(7, 1, sequence, ["x"])).unwrap();
    }
    let cases = [
        (numbered(7, 1, 67, ["y"]), Reason::OutOfSequence, "send that one first"),
        (numbered(7, 0, 66, ["y"]), Reason::ProducerFenced, "another instance has taken over"),
        (numbered(7, 1, 0, ["y"]), Reason::SequenceForgotten, "do not send them again"),
        (numbered(7, 2, 66, ["y"]), Reason::OutOfSequence, "0 follows"),
    ];
    for (produce, reason, says) in cases {
        let error = send(&node, produce).unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.message().contains(says), "{error}");
        assert!(error.metadata().contains(&("topic", "t".to_owned())), "{error:?}");
        assert!(error.metadata().contains(&("partition", "0".to_owned())), "{error:?}");
    }
    assert_eq!(placed(&send(&node, numbered(7, 1, 2, ["x"])).unwrap()), (2, true), "the last 64 are known");
    assert_eq!(node.end("t", 0).get(), 66, "nothing of it was stored");
    assert_eq!(placed(&send(&node, numbered(7, 2, 0, ["z"])).unwrap()), (66, false));
    node.broker.close().unwrap();
}

#[test]
fn sequences_go_on_at_zero_after_the_largest() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 1).unwrap();
    assert_eq!(placed(&send(&node, numbered(7, 0, i32::MAX - 1, ["a", "b", "c"])).unwrap()), (0, false));
    assert_eq!(send(&node, numbered(7, 0, 2, ["d"])).unwrap_err().reason(), Reason::OutOfSequence);
    assert_eq!(placed(&send(&node, numbered(7, 0, 1, ["d"])).unwrap()), (3, false));
    assert_eq!(placed(&send(&node, numbered(7, 0, i32::MAX - 1, ["a", "b", "c"])).unwrap()), (0, true));
    node.broker.close().unwrap();
}

/// A node that holds up these calls for the partition's segment files, until the gate opens.
pub(crate) fn held_up(dir: &tempfile::TempDir, held: Call) -> (Node, Arc<Gate>) {
    let (env, gate) = gated(held, is_segment);
    let node = Node::open(with_env(dir, env));
    node.create("t", 1).unwrap();
    gate.arm();
    (node, gate)
}

#[test]
fn each_batch_of_a_group_gets_its_own_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (node, gate) = held_up(&dir, Call::Write);
    let produce = |produce| node.broker.produce(&node.context, produce);
    let first = produce(numbered(7, 0, 0, ["a"]));
    gate.wait_for_someone();
    // These gather behind it, and are one group.
    let behind = [
        produce(numbered(7, 0, 0, ["a"])),
        produce(records("t", Some(0), ["plain"])),
        produce(numbered(7, 0, 1, ["b", "c"])),
        produce(numbered(7, 0, 9, ["too early"])),
        produce(numbered(7, 0, 1, ["b", "c"])),
        produce(numbered(8, 3, 0, ["of another"])),
        produce(numbered(8, 2, 1, ["of one replaced"])),
    ];
    gate.open();
    assert_eq!(outcome(node.wait(first)), Ok((0, false)));
    let answers = behind.map(|call| outcome(node.wait(call)));
    let expected = [
        Ok((0, true)),
        Ok((1, false)),
        Ok((2, false)),
        Err(Reason::OutOfSequence),
        Ok((2, true)),
        Ok((4, false)),
        Err(Reason::ProducerFenced),
    ];
    assert_eq!(answers, expected);
    assert_eq!(node.read_all("t", 0).unwrap(), ["a", "plain", "b", "c", "of another"]);
    node.broker.close().unwrap();
}

#[test]
fn a_duplicate_is_answered_only_when_the_first_is_on_disk_whatever_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (node, gate) = held_up(&dir, Call::Sync);
    let written = |sequence, value| Produce { acks: Acks::Written, ..numbered(7, 0, sequence, [value]) };
    assert_eq!(placed(&send(&node, written(0, "a")).unwrap()), (0, false), "no sync has ended");
    gate.wait_for_someone();
    let mut again = pin!(node.broker.produce(&node.context, written(0, "a")));
    // Its turn came before this one's.
    assert_eq!(placed(&send(&node, written(1, "b")).unwrap()), (1, false));
    let waits = again.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
    gate.open();
    assert!(waits, "the sync has not ended");
    assert_eq!(outcome(node.wait(again)), Ok((0, true)));
    node.broker.close().unwrap();
}

/// One more than the log knows again, and one.
const FORGOTTEN: i32 = 66;

#[test]
fn what_is_forgotten_is_answered_only_when_it_is_on_disk_whatever_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (node, gate) = held_up(&dir, Call::Sync);
    let written = |sequence| Produce { acks: Acks::Written, ..numbered(7, 0, sequence, ["x"]) };
    for sequence in 0..FORGOTTEN {
        send(&node, written(sequence)).unwrap();
    }
    gate.wait_for_someone();
    let mut again = pin!(node.broker.produce(&node.context, written(0)));
    // Its turn came before this one's.
    send(&node, written(FORGOTTEN)).unwrap();
    let waits = again.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
    gate.open();
    assert!(waits, "the sync has not ended");
    assert_eq!(outcome(node.wait(again)), Err(Reason::SequenceForgotten));
    node.broker.close().unwrap();
}

#[test]
fn what_a_failed_sync_took_is_not_said_to_be_stored_and_forgotten() {
    let sim = Sim::new(5);
    let node = simulated(&sim);
    node.create("t", 1).unwrap();
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/0/*.log"));
    let call = |sequence| node.broker.produce(&node.context, numbered(7, 0, sequence, ["x"]));
    let calls: Vec<_> = (0..FORGOTTEN).map(call).collect();
    let again = call(0);
    for call in calls.into_iter().chain([again]) {
        assert_eq!(outcome(node.wait(call)), Err(Reason::OutcomeUnknown));
    }
}

#[test]
fn a_duplicate_of_what_a_failed_sync_took_is_not_acknowledged() {
    let sim = Sim::new(5);
    let node = simulated(&sim);
    node.create("t", 1).unwrap();
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/0/*.log"));
    let calls = [0, 0].map(|sequence| node.broker.produce(&node.context, numbered(7, 0, sequence, ["a"])));
    for call in calls {
        assert_eq!(outcome(node.wait(call)), Err(Reason::OutcomeUnknown));
    }
}

#[test]
fn a_failed_write_counts_for_nothing() {
    let sim = Sim::new(6);
    let node = simulated(&sim);
    node.create("t", 1).unwrap();
    send(&node, numbered(7, 0, 0, ["a"])).unwrap();
    sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Write).path("*/0/*.log").always());
    assert_eq!(send(&node, numbered(7, 0, 1, ["b"])).unwrap_err().reason(), Reason::DiskFull);
    sim.fs.clear_rules();
    assert_eq!(placed(&send(&node, numbered(7, 0, 1, ["b"])).unwrap()), (1, false));
    assert_eq!(placed(&send(&node, numbered(7, 0, 1, ["b"])).unwrap()), (1, true));
    node.broker.close().unwrap();
}

/// A request whose answer may not be there yet.
type Pending = Pin<Box<dyn Future<Output = Result<Vec<ProduceResult>, Error>>>>;

#[test]
fn what_is_behind_a_failure_on_a_stream_is_not_stored_until_the_sender_knows() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(Config { max_message_bytes: 1_000, ..config(&dir) });
    node.create("t", 2).unwrap();
    let stream = node.broker.produce_stream();
    let send = |produce| stream.send(&node.context, produce);
    let big = "x".repeat(1_000);
    let first = send(records("t", Some(0), ["one"]));
    // Refused before it gets to the queue, and while others wait there.
    let refused = send(produce_batch("t", 0, batch([&big]).bytes().clone()));
    let behind = [send(records("t", Some(0), ["two"])), send(numbered(7, 0, 4, ["of a producer"]))];
    let elsewhere = send(records("t", Some(1), ["elsewhere"]));
    let alone = node.broker.produce(&node.context, records("t", Some(0), ["on no stream"]));

    assert_eq!(outcome(node.wait(first)), Ok((0, false)));
    assert_eq!(node.wait(refused).unwrap_err().reason(), Reason::MessageTooLarge);
    for call in behind {
        assert_eq!(outcome(node.wait(call)), Err(Reason::PrecedingFailed));
    }
    assert_eq!(outcome(node.wait(elsewhere)), Ok((0, false)), "the other partition is not concerned");
    assert_eq!(outcome(node.wait(alone)), Ok((1, false)));
    let again = stream.send_after_failure(&node.context, records("t", Some(0), ["two"]));
    let after = send(records("t", Some(0), ["three"]));
    assert_eq!((outcome(node.wait(again)), outcome(node.wait(after))), (Ok((2, false)), Ok((3, false))));
    assert_eq!(node.read_all("t", 0).unwrap(), ["one", "on no stream", "two", "three"]);
    node.broker.close().unwrap();
}

#[test]
fn a_failure_in_the_middle_of_a_group_holds_back_those_behind_it_of_the_same_stream() {
    let dir = tempfile::tempdir().unwrap();
    let (node, gate) = held_up(&dir, Call::Write);
    let (stream, other) = (node.broker.produce_stream(), node.broker.produce_stream());
    let first = stream.send(&node.context, numbered(7, 0, 0, ["a"]));
    gate.wait_for_someone();
    let call = |stream: &ProduceStream, after_failure, produce| -> Pending {
        if after_failure {
            Box::pin(stream.send_after_failure(&node.context, produce))
        } else {
            Box::pin(stream.send(&node.context, produce))
        }
    };
    let gathered = [
        call(&stream, false, numbered(7, 0, 5, ["too early"])),
        // What would be taken by itself: nothing is known of this producer.
        call(&stream, false, numbered(8, 0, 0, ["behind"])),
        call(&other, false, numbered(9, 0, 0, ["of another stream"])),
        call(&stream, true, numbered(7, 0, 1, ["not the one that failed"])),
        call(&stream, true, numbered(7, 0, 5, ["still too early"])),
        call(&stream, true, numbered(7, 1, 0, ["of a newer epoch"])),
        call(&stream, false, numbered(7, 1, 1, ["and on"])),
    ];
    gate.open();
    assert_eq!(outcome(node.wait(first)), Ok((0, false)));
    let answers = gathered.map(|call| outcome(node.wait(call)));
    let expected = [
        Err(Reason::OutOfSequence),
        Err(Reason::PrecedingFailed),
        Ok((1, false)),
        Err(Reason::PrecedingFailed),
        Err(Reason::OutOfSequence),
        Ok((2, false)),
        Ok((3, false)),
    ];
    assert_eq!(answers, expected);
    node.broker.close().unwrap();
}

#[test]
fn what_a_new_stream_sends_again_while_the_old_one_is_still_queued_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let (node, gate) = held_up(&dir, Call::Write);
    let values = ["a", "b", "c", "d"];
    let send_all = |stream: &ProduceStream| {
        [0, 1, 2, 3].map(|i: i32| {
            stream.send(&node.context, numbered(7, 0, i, [values[usize::try_from(i).unwrap()]]))
        })
    };
    let old = node.broker.produce_stream();
    let sent = send_all(&old);
    gate.wait_for_someone();
    drop(old);
    let again = send_all(&node.broker.produce_stream());
    gate.open();
    let first = sent.map(|call| outcome(node.wait(call)));
    let second = again.map(|call| outcome(node.wait(call)));
    assert_eq!(first, [0, 1, 2, 3].map(|offset| Ok((offset, false))));
    assert_eq!(second, [0, 1, 2, 3].map(|offset| Ok((offset, true))));
    assert_eq!(node.read_all("t", 0).unwrap(), values);
    node.broker.close().unwrap();
}

#[test]
fn a_failed_sync_holds_back_what_follows_also_when_the_partition_is_open_again() {
    for reopened in [false, true] {
        let sim = Sim::new(7);
        let node = simulated(&sim);
        node.create("t", 1).unwrap();
        let stream = node.broker.produce_stream();
        let send = |sequence| node.wait(stream.send(&node.context, numbered(7, 0, sequence, ["x"])));
        // Nothing of the producer is on disk: to the log that is opened again it is new, and any sequence is good.
        sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/0/*.log"));
        assert_eq!(outcome(send(0)), Err(Reason::OutcomeUnknown));
        if reopened {
            sim.scheduler.run_for(std::time::Duration::from_millis(200));
        } else {
            assert_eq!(outcome(send(1)), Err(Reason::PartitionReopening));
            sim.scheduler.run_for(std::time::Duration::from_millis(200));
        }
        let error = send(2).unwrap().remove(0).outcome.unwrap_err();
        assert_eq!(error.reason(), Reason::PrecedingFailed);
        assert!(error.metadata().contains(&("first_failed_sequence", "0".to_owned())), "{error:?}");

        let again = |sequence| {
            let produce = numbered(7, 0, sequence, ["x"]);
            outcome(node.wait(stream.send_after_failure(&node.context, produce)))
        };
        assert_eq!(again(2), Err(Reason::PrecedingFailed), "it is not the first that failed");
        assert_eq!(again(0), Ok((0, false)));
        assert_eq!(outcome(send(1)), Ok((1, false)));
        assert_eq!(node.read_all("t", 0).unwrap(), ["x", "x"]);
        node.broker.close().unwrap();
    }
}

#[test]
fn plain_records_of_a_producer_are_one_batch_that_is_known_again() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(Config { max_message_bytes: 1_000, ..config(&dir) });
    node.create("t", 1).unwrap();
    let of = |epoch, base_sequence| ProducerSequence { id: 7, epoch, base_sequence };
    let plain = |sequence, values: &[&str]| Produce {
        payload: Payload::Numbered(sequence, values.iter().map(record).collect()),
        ..records("t", Some(0), [""])
    };
    assert_eq!(placed(&send(&node, plain(of(0, 0), &["a", "b"])).unwrap()), (0, false));
    assert_eq!(placed(&send(&node, plain(of(0, 0), &["a", "b"])).unwrap()), (0, true));
    assert_eq!(placed(&send(&node, plain(of(0, 2), &["c"])).unwrap()), (2, false));
    let large = "x".repeat(700);
    let error = send(&node, plain(of(0, 3), &[&large, &large])).unwrap_err();
    assert_eq!(error.reason(), Reason::MessageTooLarge);
    assert!(error.message().contains("make one batch"), "{error}");
    for wrong in [of(-1, 0), of(0, -1), ProducerSequence { id: -1, ..of(0, 0) }] {
        assert_eq!(send(&node, plain(wrong, &["a"])).unwrap_err().reason(), Reason::RequestInvalid);
    }
    let homeless = Produce { partition: None, ..plain(of(0, 3), &["d"]) };
    assert_eq!(send(&node, homeless).unwrap_err().reason(), Reason::RequestInvalid);
    assert_eq!(node.read_all("t", 0).unwrap(), ["a", "b", "c"]);
    node.broker.close().unwrap();
}

#[test]
fn every_producer_gets_an_id_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    let id = || node.wait(node.broker.init_producer_id(&node.context));
    let ids: std::collections::BTreeSet<i64> = (0..1_000).map(|_| id().unwrap()).collect();
    assert!(ids.len() == 1_000 && ids.first() >= Some(&0));
    node.broker.close().unwrap();
    assert_eq!(id().unwrap_err().reason(), Reason::NodeClosing);
}

#[test]
fn a_stream_has_a_bound_on_the_partitions_that_it_keeps_in_mind() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_stream_partitions: 2, ..Limits::default() };
    let node = Node::open(Config { limits, ..config(&dir) });
    node.create("t", 4).unwrap();
    let stream = node.broker.produce_stream();
    let send = |partition| node.wait(stream.send(&node.context, records("t", Some(partition), ["x"])));
    for partition in 0..4 {
        assert_eq!(outcome(send(partition)), Ok((0, false)), "what is answered is not kept");
    }
    for nowhere in [4, 5] {
        assert_eq!(send(nowhere).unwrap_err().reason(), Reason::PartitionNotFound);
    }
    let error = send(0).unwrap_err();
    assert_eq!(error.reason(), Reason::LimitExceeded);
    assert!(error.metadata().contains(&("limit", "max_stream_partitions".to_owned())), "{error:?}");
    node.broker.close().unwrap();
}

#[test]
fn what_a_stream_had_no_room_for_holds_back_those_behind_it_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_stream_partitions: 1, ..Limits::default() };
    let node = Node::open(Config { limits, max_message_bytes: 1_000, ..config(&dir) });
    node.create("t", 3).unwrap();
    let stream = node.broker.produce_stream();
    let say = |partition, value: &str| records("t", Some(partition), [value]);
    let send = |produce| node.wait(stream.send(&node.context, produce));
    let again = |produce| node.wait(stream.send_after_failure(&node.context, produce));
    assert_eq!(outcome(send(say(0, &"x".repeat(2_000)))), Err(Reason::MessageTooLarge));
    assert_eq!(send(say(1, "first")).unwrap_err().reason(), Reason::LimitExceeded);
    assert_eq!(outcome(again(say(0, "x"))), Ok((0, false)), "now there is room");
    assert_eq!(send(say(1, "second")).unwrap_err().reason(), Reason::PrecedingFailed);
    assert_eq!(outcome(again(say(1, "first"))), Ok((0, false)));
    assert_eq!(outcome(send(say(1, "second"))), Ok((1, false)));
    assert_eq!(node.read_all("t", 1).unwrap(), ["first", "second"]);
    node.broker.close().unwrap();
}

#[test]
fn a_partition_with_something_that_is_not_on_disk_is_kept_in_mind() {
    let sim = Sim::new(7);
    let limits = Limits { max_stream_partitions: 1, ..Limits::default() };
    let node = Node::open(Config { limits, env: sim.env(), ..small("/data") });
    let relaxed = TopicSettings::new([("durability", "relaxed"), ("flush.ms", "60000")]).unwrap();
    let create = CreateTopic::new("t").partitions(2).settings(relaxed);
    node.wait(node.broker.create_topic(&node.context, create)).unwrap();
    let stream = node.broker.produce_stream();
    let send = |produce| node.wait(stream.send(&node.context, produce));
    let written = Produce { acks: Acks::Written, ..numbered(7, 0, 0, ["lost"]) };
    assert_eq!(outcome(send(written)), Ok((0, false)));
    assert_eq!(send(records("t", Some(1), ["x"])).unwrap_err().reason(), Reason::LimitExceeded);
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/0/*.log"));
    sim.scheduler.run_for(std::time::Duration::from_secs(61));
    // Nobody has told the node so far.
    assert_eq!(outcome(send(numbered(7, 0, 1, ["behind"]))), Err(Reason::PartitionReopening));
    sim.scheduler.run_for(std::time::Duration::from_millis(200));
    let error = send(numbered(7, 0, 1, ["behind"])).unwrap().remove(0).outcome.unwrap_err();
    assert_eq!(error.reason(), Reason::PrecedingFailed, "{error}");
    assert!(error.metadata().contains(&("first_failed_sequence", "0".to_owned())), "{error:?}");
    node.broker.close().unwrap();
}
