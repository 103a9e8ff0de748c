//! Files that stall, disks that fill up, syncs that fail: what it does to producers, and what it does not.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use logmill_broker::{
    Acks, Config, CreateTopic, Fetch, FetchFrom, Limits, Payload, Position, Produce, Reason, SettingChange,
    TopicSettings,
};
use logmill_log::env::Work;
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_record::{Offset, murmur2_partition};
use parking_lot::Mutex;

use crate::common::hook_fs::{Call, Gate, gated, hooked, is_segment, is_segment_of_0};
use crate::common::{Node, failure, keyed, read_batches, records, simulated, small, with_env};

/// A node of which the segment files of partition 0 cannot be written until the gate opens.
pub(crate) fn stalled(dir: &tempfile::TempDir, limits: Limits) -> (Node, Arc<Gate>) {
    let (env, gate) = gated(Call::Write, is_segment_of_0);
    let node = Node::open(Config { limits, ..with_env(dir, env) });
    node.create("t", 2).unwrap();
    gate.arm();
    (node, gate)
}

#[test]
fn a_partition_that_stalls_holds_up_itself_alone_and_has_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_partition_queued_bytes: 13_000, ..Limits::default() };
    let (node, gate) = stalled(&dir, limits);
    let big = |partition| records("t", Some(partition), [vec![b'x'; 3_000]]);
    let accepted: Vec<_> = (0..3).map(|_| node.broker.produce(&node.context, big(0))).collect();
    gate.wait_for_someone();

    let error = failure(&node, big(0));
    assert_eq!(error.reason(), Reason::LimitExceeded);
    assert!(error.metadata().contains(&("limit", "max_partition_queued_bytes".to_owned())));
    assert!(error.metadata().contains(&("value", "13000".to_owned())));
    // The other partition and the rest of the node work.
    node.say("t", 1, "past it").unwrap();
    assert_eq!(node.read_all("t", 1).unwrap(), ["past it"]);
    node.create("u", 1).unwrap();

    gate.open();
    for call in accepted {
        node.wait(call).unwrap().remove(0).outcome.unwrap();
    }
    node.produce(big(0)).unwrap().remove(0).outcome.unwrap();
    node.broker.close().unwrap();
}

/// A key whose records go to that partition of two.
fn key_of(partition: u32) -> String {
    let is_there = |key: &String| murmur2_partition(key.as_bytes(), 2) == partition;
    (0..).map(|n: u32| n.to_string()).find(is_there).unwrap()
}

#[test]
fn what_one_partition_refuses_at_once_is_told_also_where_nobody_waits_for_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_partition_queued_bytes: 13_000, ..Limits::default() };
    let (node, gate) = stalled(&dir, limits);
    let big = "x".repeat(3_000);
    let accepted: Vec<_> =
        (0..3).map(|_| node.broker.produce(&node.context, records("t", Some(0), [&big]))).collect();
    gate.wait_for_someone();
    let send = |partitions: &[u32]| {
        let records_to = partitions.iter().map(|partition| keyed(&key_of(*partition), &big)).collect();
        let payload = Payload::Records(records_to);
        node.produce(Produce { payload, acks: Acks::None, ..records::<&str>("t", None, []) })
    };
    let results = send(&[1, 0, 1]).unwrap();
    assert_eq!((results.len(), results[0].partition, &*results[0].record_indexes), (1, 0, &[1][..]));
    assert_eq!(results[0].outcome.as_ref().unwrap_err().reason(), Reason::LimitExceeded);
    assert_eq!(send(&[0]).unwrap_err().reason(), Reason::LimitExceeded, "all of it");
    node.say("t", 1, "behind it").unwrap();
    assert_eq!(node.end("t", 1), Offset(3), "the other partition took its part");
    gate.open();
    for call in accepted {
        node.wait(call).unwrap().remove(0).outcome.unwrap();
    }
    assert_eq!(node.end("t", 0), Offset(3));
    node.broker.close().unwrap();
}

#[test]
fn the_node_has_a_bound_over_all_partitions() {
    let dir = tempfile::tempdir().unwrap();
    let (node, gate) = stalled(&dir, Limits { max_queued_bytes: 13_000, ..Limits::default() });
    let big = |partition| records("t", Some(partition), [vec![b'x'; 3_000]]);
    let accepted: Vec<_> = (0..3).map(|_| node.broker.produce(&node.context, big(0))).collect();
    let error = failure(&node, big(1));
    assert_eq!(error.reason(), Reason::LimitExceeded);
    assert!(error.metadata().contains(&("limit", "max_queued_bytes".to_owned())), "{error:?}");
    gate.open();
    for call in accepted {
        node.wait(call).unwrap().remove(0).outcome.unwrap();
    }
    node.produce(big(1)).unwrap().remove(0).outcome.unwrap();
    node.broker.close().unwrap();
}

#[test]
fn a_panic_while_writing_harms_only_its_own_records() {
    let dir = tempfile::tempdir().unwrap();
    let armed = Arc::new(AtomicBool::new(false));
    let hook = {
        let armed = Arc::clone(&armed);
        move |call, _: &Path| {
            let panics = call == Call::Write && armed.swap(false, Ordering::SeqCst);
            assert!(!panics, "a fault that this test plants");
            Ok(())
        }
    };
    let node = Node::open(with_env(&dir, hooked(hook)));
    node.create("t", 1).unwrap();
    armed.store(true, Ordering::SeqCst);
    assert_eq!(node.say("t", 0, "lost").unwrap_err().reason(), Reason::InternalFault);
    node.say("t", 0, "kept").unwrap();
    assert_eq!(node.read_all("t", 0).unwrap(), ["kept"]);
    node.broker.close().unwrap();
}

#[test]
fn a_full_disk_is_said_and_works_again_when_there_is_space() {
    let sim = Sim::new(3);
    let node = simulated(&sim);
    node.create("t", 1).unwrap();
    node.say("t", 0, "before").unwrap();
    sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Write).on(Op::Create).on(Op::CreateDir).always());
    let error = node.say("t", 0, "during").unwrap_err();
    assert_eq!(error.reason(), Reason::DiskFull);
    assert!(error.message().contains("make room, and try again"), "{error}");
    assert_eq!(node.create("u", 2).unwrap_err().reason(), Reason::DiskFull);
    assert_eq!(node.delete("t").unwrap_err().reason(), Reason::DiskFull);
    assert_eq!(node.read_all("t", 0).unwrap(), ["before"]);

    sim.fs.clear_rules();
    node.say("t", 0, "after").unwrap();
    node.create("u", 2).unwrap();
    assert_eq!(node.read_all("t", 0).unwrap(), ["before", "after"]);
    node.broker.close().unwrap();
    let node = simulated(&sim);
    assert!(node.broker.open_report().unknown.is_empty());
    assert_eq!(node.broker.open_report().topics, 2);
    node.broker.close().unwrap();
}

const MIB: u64 = 1 << 20;

/// The bytes that the disk holds.
fn used_bytes(sim: &Sim) -> u64 {
    let space = sim.env().fs.space("/data".as_ref()).unwrap();
    space.total_bytes - space.available_bytes
}

#[test]
fn below_the_watermark_records_are_refused_and_deleting_a_topic_makes_room() {
    let sim = Sim::new(8);
    sim.fs.set_capacity_bytes(12 * MIB);
    let low_space_bytes = 4 * MIB;
    let node = Node::open(Config { env: sim.env(), low_space_bytes, ..small("/data") });
    node.create("t", 1).unwrap();
    let value = "x".repeat(500_000);
    let error = loop {
        if let Err(error) = node.say("t", 0, &value) {
            break error;
        }
        sim.scheduler.run_until_idle();
    };
    assert_eq!(error.reason(), Reason::DiskFull);
    assert!(error.message().contains("full or nearly so") && error.message().contains("4194304"), "{error}");
    let left = node.wait(node.broker.describe_node(&node.context)).unwrap().available_bytes;
    assert!(left > MIB, "{left} bytes are left for all else");
    node.create("u", 1).unwrap();
    node.delete("t").unwrap();
    sim.scheduler.run_for(Duration::from_secs(11));
    node.say("u", 0, &value).unwrap();
    node.broker.close().unwrap();
}

#[test]
fn a_node_on_a_full_disk_deletes_topics_stops_and_starts_on_its_reserve() {
    let mut sim = Sim::new(9);
    let node = |env| Node::open(Config { env, reserve_bytes: MIB, ..small("/data") });
    let full = node(sim.env());
    assert!(!sim.fs.files().iter().any(|path| path.ends_with("reserve")), "not before it answers");
    full.create("t", 1).unwrap();
    full.create("u", 1).unwrap();
    full.say("t", 0, "kept").unwrap();
    sim.scheduler.run_for(Duration::from_secs(11));
    assert_eq!(sim.fs.read_file("/data/reserve").unwrap().len() as u64, MIB);
    let used = used_bytes(&sim);
    sim.fs.set_capacity_bytes(used);
    assert_eq!(full.say("t", 0, &"x".repeat(5_000)).unwrap_err().reason(), Reason::DiskFull);
    full.delete("u").unwrap();
    full.broker.close().unwrap();
    drop(full);
    let env = sim.kill();
    let used = used_bytes(&sim);
    sim.fs.set_capacity_bytes(used + 100_000);
    let again = node(env);
    assert_eq!(again.read_all("t", 0).unwrap(), ["kept"]);
    assert_eq!(again.broker.open_report().topics, 1);
    sim.fs.set_capacity_bytes(100 * MIB);
    sim.scheduler.run_for(Duration::from_secs(11));
    again.say("t", 0, "and more").unwrap();
    again.broker.close().unwrap();
}

#[test]
fn a_failed_sync_is_an_unknown_outcome_and_then_the_partition_is_opened_again() {
    let sim = Sim::new(4);
    let node = simulated(&sim);
    node.create("t", 2).unwrap();
    node.say("t", 0, "before").unwrap();
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/0/*.log"));
    let error = node.say("t", 0, "during").unwrap_err();
    assert_eq!(error.reason(), Reason::OutcomeUnknown);
    assert!(error.message().contains("before sending them again"), "{error}");
    let error = node.say("t", 0, "too early").unwrap_err();
    assert_eq!(error.reason(), Reason::PartitionReopening);
    assert!(error.message().contains("look at the disk if it stays so"), "{error}");
    let wait_ms = error.metadata().iter().find(|(name, _)| *name == "retry_after_ms").unwrap().1.clone();
    assert!((1..=100).contains(&wait_ms.parse::<u64>().unwrap()), "{error:?}");

    // What was there can be read, and the rest works.
    assert_eq!(node.read_all("t", 0).unwrap(), ["before"]);
    node.say("t", 1, "other").unwrap();
    for _ in 0..3 {
        assert_eq!(node.produce(records("t", None, ["free"])).unwrap()[0].partition, 1);
    }
    let described =
        || node.wait(node.broker.describe_topic(&node.context, "t")).unwrap().partitions.remove(0);
    let (first, before) = (described(), described().leader_epoch);
    assert_eq!(first.error.unwrap().reason(), Reason::PartitionReopening);

    sim.scheduler.run_for(Duration::from_millis(200));
    assert!(described().error.is_none());
    assert!(described().leader_epoch > before);
    assert_eq!(node.say("t", 0, "again").unwrap().first_offset.get(), 1);
    assert_eq!(node.read_all("t", 0).unwrap(), ["before", "again"]);
    node.broker.close().unwrap();
    let node = simulated(&sim);
    assert_eq!(node.read_all("t", 0).unwrap(), ["before", "again"]);
    node.broker.close().unwrap();
}

/// The epoch of the newest batch of a partition.
fn stamped(node: &Node, partition: u32) -> i32 {
    read_batches(node, "t", partition).last().unwrap().header().leader_epoch
}

#[test]
fn a_partition_that_is_open_again_has_a_new_epoch_that_is_on_disk_and_the_others_keep_theirs() {
    for seed in 0..16 {
        let mut sim = Sim::new(seed);
        let node = simulated(&sim);
        node.create("t", 2).unwrap();
        for partition in 0..2 {
            node.say("t", partition, "before").unwrap();
        }
        let before = stamped(&node, 0);
        let epochs = |node: &Node| {
            let described = node.wait(node.broker.describe_topic(&node.context, "t")).unwrap();
            [0, 1].map(|partition| described.partitions[partition].leader_epoch)
        };
        assert_eq!(epochs(&node), [before; 2]);
        sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/0/*.log"));
        assert_eq!(node.say("t", 0, "during").unwrap_err().reason(), Reason::OutcomeUnknown);
        // As long as the new epoch is not on disk, nobody is served in it.
        sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("/data/set*"));
        sim.scheduler.run_for(Duration::from_millis(150));
        assert_eq!(node.say("t", 0, "early").unwrap_err().reason(), Reason::PartitionReopening);
        sim.scheduler.run_for(Duration::from_millis(500));
        for partition in 0..2 {
            node.say("t", partition, "after").unwrap();
        }
        let after = stamped(&node, 0);
        assert!(after > before, "{after} follows {before}");
        assert_eq!((stamped(&node, 1), epochs(&node)), (before, [after, before]), "seed {seed}");
        drop(node);
        sim.crash();
        let node = simulated(&sim);
        let [next, other] = epochs(&node);
        assert!(next > after && next == other, "seed {seed}: {next} and {other} follow {after}");
        node.broker.close().unwrap();
    }
}

/// A node with a topic of which the next sync of each partition fails, and every call to its segment file after
/// that waits until the gate opens.
fn breaks_and_hangs(dir: &tempfile::TempDir, partitions: u32) -> (Node, Arc<Gate>) {
    let (gate, failed) = (Arc::new(Gate::default()), Mutex::new(BTreeSet::new()));
    gate.open();
    let at = Arc::clone(&gate);
    let hook = move |call, path: &Path| {
        if !is_segment(path) || !path.components().any(|part| part.as_os_str() == "topics") {
            return Ok(());
        }
        if call == Call::Sync && !at.is_open() && failed.lock().insert(path.to_owned()) {
            return Err(std::io::Error::other("a fault that this test plants"));
        }
        if failed.lock().contains(path) {
            at.pass();
        }
        Ok(())
    };
    let node = Node::open(with_env(dir, hooked(hook)));
    node.create("t", partitions).unwrap();
    gate.arm();
    (node, gate)
}

#[test]
fn partitions_that_hang_when_they_are_opened_again_keep_no_other_broker_of_the_process_from_it() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    // As many as are opened at once.
    let (hangs, gate) = breaks_and_hangs(&dirs[0], 4);
    for partition in 0..4 {
        assert_eq!(hangs.say("t", partition, "lost").unwrap_err().reason(), Reason::OutcomeUnknown);
    }
    gate.wait_for(4);
    // So that a broker that waits for them fails this test, and does not hang it.
    let late = Arc::clone(&gate);
    let scheduler = Arc::clone(&hangs.broker.config().env.scheduler);
    scheduler.spawn_after(Work::Read, Duration::from_secs(10), Box::new(move || late.open()));

    let (other, its_gate) = breaks_and_hangs(&dirs[1], 1);
    assert_eq!(other.say("t", 0, "lost").unwrap_err().reason(), Reason::OutcomeUnknown);
    its_gate.open();
    while let Err(error) = other.say("t", 0, "after") {
        assert_eq!(error.reason(), Reason::PartitionReopening, "{error}");
        assert!(!gate.is_open(), "it waited for those of the other broker");
    }
    other.broker.close().unwrap();
    gate.open();
}

#[test]
fn a_partition_that_cannot_be_opened_again_is_tried_with_growing_pauses_and_says_so() {
    let sim = Sim::new(5);
    let node = simulated(&sim);
    node.create("t", 1).unwrap();
    node.say("t", 0, "before").unwrap();
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/0/*.log").always());
    assert_eq!(node.say("t", 0, "during").unwrap_err().reason(), Reason::OutcomeUnknown);
    let mut tries = Vec::new();
    for _ in 0..8 {
        let error = node.say("t", 0, "meanwhile").unwrap_err();
        assert_eq!(error.reason(), Reason::PartitionReopening, "{error}");
        let wait_ms = error.metadata().iter().find(|(name, _)| *name == "retry_after_ms").unwrap().1.clone();
        let wait_ms: u64 = wait_ms.parse().unwrap();
        tries.push(wait_ms);
        let read = node.read_all("t", 0);
        assert!(
            read.as_ref()
                .map_or_else(|error| error.reason() == Reason::PartitionReopening, |it| it == &["before"]),
            "{read:?}"
        );
        sim.scheduler.run_for(Duration::from_millis(wait_ms + 1));
    }
    assert!(tries.is_sorted() && tries[7] > 8 * tries[0], "{tries:?}");
    sim.fs.clear_rules();
    sim.scheduler.run_for(Duration::from_secs(31));
    node.say("t", 0, "after").unwrap();
    assert_eq!(node.read_all("t", 0).unwrap(), ["before", "after"]);

    // One that waits to be opened again can be deleted.
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/0/*.log"));
    assert_eq!(node.say("t", 0, "during").unwrap_err().reason(), Reason::OutcomeUnknown);
    node.delete("t").unwrap();
    sim.scheduler.run_for(Duration::from_secs(31));
    assert!(sim.fs.files().iter().all(|path| !path.starts_with("/data/topics")), "{:?}", sim.fs.files());
    node.create("t", 1).unwrap();
    node.say("t", 0, "of another topic").unwrap();
    node.broker.close().unwrap();
}

#[test]
fn an_alteration_while_a_partition_is_opened_again_holds_for_the_log_that_is_opened() {
    const SYNC_FAILS: u8 = 1;
    const RECOVERY_WAITS: u8 = 2;
    const SYNC_WAITS: u8 = 3;
    let dir = tempfile::tempdir().unwrap();
    let (opening, syncing) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    let stage = Arc::new(AtomicU8::new(0));
    let hook = {
        let (opening, syncing, stage) = (Arc::clone(&opening), Arc::clone(&syncing), Arc::clone(&stage));
        move |call, path: &Path| {
            let is_0 = path.parent().and_then(Path::file_name) == Some("0".as_ref());
            match (stage.load(Ordering::SeqCst), call) {
                (SYNC_FAILS, Call::Sync) if is_0 => {
                    stage.store(RECOVERY_WAITS, Ordering::SeqCst);
                    return Err(std::io::Error::other("a fault that this test plants"));
                }
                (RECOVERY_WAITS, Call::Read) if is_0 => opening.pass(),
                (SYNC_WAITS, Call::Sync) if is_0 => syncing.pass(),
                _ => {}
            }
            Ok(())
        }
    };
    let node = Node::open(with_env(&dir, hooked(hook)));
    let relaxed = TopicSettings::new([("durability", "relaxed")]).unwrap();
    let create = CreateTopic::new("t").settings(relaxed);
    node.wait(node.broker.create_topic(&node.context, create)).unwrap();
    node.create("u", 1).unwrap();
    stage.store(SYNC_FAILS, Ordering::SeqCst);
    assert_eq!(node.say("t", 0, "fails").unwrap_err().reason(), Reason::OutcomeUnknown);
    opening.wait_for_someone();
    let durable = vec![SettingChange::set("durability", "durable")];
    node.wait(node.broker.alter_topic(&node.context, "t", durable)).unwrap();
    // Whoever is to tell the log has come round before that is done.
    node.delete("u").unwrap();
    opening.open();
    while let Err(error) = node.say("t", 0, "synced") {
        assert_eq!(error.reason(), Reason::PartitionReopening, "{error}");
        std::thread::yield_now();
    }
    let synced = node.read_all("t", 0).unwrap();
    stage.store(SYNC_WAITS, Ordering::SeqCst);
    let written = Produce { acks: Acks::Written, ..records("t", Some(0), ["only written"]) };
    node.produce(written).unwrap().remove(0).outcome.unwrap();
    let read = node.read_all("t", 0).unwrap();
    syncing.open();
    assert_eq!(read, synced, "a durable topic shows what is on disk");
    node.broker.close().unwrap();
}

#[test]
fn readers_go_on_when_their_partition_is_opened_again() {
    let sim = Sim::new(6);
    let node = simulated(&sim);
    node.create("t", 1).unwrap();
    node.say("t", 0, "before").unwrap();
    let from = FetchFrom::new("t", 0, Position::Offset(Offset(1)));
    let fetch = Fetch::new(vec![from]).max_wait(Duration::from_secs(30));
    let mut waiting = std::pin::pin!(node.broker.fetch(&node.context, fetch));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    sim.scheduler.run_until_idle();
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/0/*.log"));
    assert_eq!(node.say("t", 0, "lost").unwrap_err().reason(), Reason::OutcomeUnknown);
    sim.scheduler.run_for(Duration::from_millis(200));
    assert!(waiting.as_mut().poll(&mut context).is_pending(), "it has not ended");
    node.say("t", 0, "kept").unwrap();
    let data = node.wait(waiting).unwrap().remove(0);
    assert!(data.error.is_none(), "{:?}", data.error);
    assert_eq!(crate::common::text(&data), ["kept"]);
    node.broker.close().unwrap();
}
