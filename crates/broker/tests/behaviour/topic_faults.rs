//! Syncs, writes and rolls of the list of topics that fail or hang, and deletions of topics whose files do.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use logmill_broker::{Limits, Reason, SettingChange};
use logmill_log::env::Work;
use logmill_log::sim::{Fault, Op, Rule, Sim};

use crate::common::hook_fs::{Call, Gate, hooked};
use crate::common::{Node, records, simulated, with_env};
use crate::faults::stalled;

#[test]
fn a_failed_sync_of_the_metadata_undoes_the_change_and_the_next_one_works() {
    let sim = Sim::new(5);
    let node = simulated(&sim);
    node.create("kept", 1).unwrap();
    let fail = || sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/metadata/*.log"));
    fail();
    let error = node.create("lost", 1).unwrap_err();
    assert_eq!(error.reason(), Reason::IoFailed, "{error}");
    assert_eq!(node.say("lost", 0, "x").unwrap_err().reason(), Reason::TopicNotFound);
    fail();
    assert_eq!(node.delete("kept").unwrap_err().reason(), Reason::IoFailed);
    node.say("kept", 0, "x").unwrap();
    node.create("lost", 1).unwrap();
    node.broker.close().unwrap();

    let node = simulated(&sim);
    assert_eq!(node.broker.open_report().topics, 2);
    assert!(node.broker.open_report().failed.is_empty());
    node.broker.close().unwrap();
}

#[test]
fn metadata_that_cannot_be_opened_again_fails_and_says_so() {
    let mut sim = Sim::new(6);
    let node = simulated(&sim);
    node.create("kept", 1).unwrap();
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/metadata/*").always());
    assert_eq!(node.create("lost", 1).unwrap_err().reason(), Reason::OutcomeUnknown);
    assert_eq!(node.create("lost", 1).unwrap_err().reason(), Reason::MetadataFailed);
    node.say("kept", 0, "x").unwrap();
    sim.fs.clear_rules();
    sim.crash();
    let node = simulated(&sim);
    assert!(node.broker.open_report().failed.is_empty());
    assert_eq!(node.read_all("kept", 0).unwrap(), ["x"]);
    node.broker.close().unwrap();
}

#[test]
fn metadata_is_opened_again_when_the_disk_lets_it() {
    let mut sim = Sim::new(6);
    let node = simulated(&sim);
    node.create("kept", 1).unwrap();
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/metadata/*").always());
    assert_eq!(node.create("lost", 1).unwrap_err().reason(), Reason::OutcomeUnknown);
    for _ in 0..10 {
        sim.clock.advance(Duration::from_secs(60));
        assert_eq!(node.create("lost", 1).unwrap_err().reason(), Reason::MetadataFailed);
    }
    sim.fs.clear_rules();
    // Not at once: a disk that fails is not asked by everyone who comes.
    assert_eq!(node.create("lost", 1).unwrap_err().reason(), Reason::MetadataFailed);
    sim.clock.advance(Duration::from_secs(30));
    node.create("lost", 1).unwrap();
    node.say("lost", 0, "x").unwrap();
    node.wait(node.broker.add_partitions(&node.context, "kept", 3)).unwrap();
    sim.crash();
    let node = simulated(&sim);
    assert_eq!(node.broker.open_report().partitions, 4);
    assert_eq!(node.read_all("lost", 0).unwrap(), ["x"]);
    node.broker.close().unwrap();
}

#[test]
fn a_growth_or_an_alteration_that_fails_changes_nothing_and_works_later() {
    let sim = Sim::new(8);
    let node = simulated(&sim);
    let before = node.create("t", 2).unwrap();
    let grow = || node.wait(node.broker.add_partitions(&node.context, "t", 4));
    let alter = || {
        let changes = vec![SettingChange::set("retention.ms", "5")];
        node.wait(node.broker.alter_topic(&node.context, "t", changes))
    };
    sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Create).on(Op::CreateDir).path("*/3*").always());
    assert_eq!(grow().unwrap_err().reason(), Reason::DiskFull);
    sim.fs.clear_rules();
    for change in [&grow as &dyn Fn() -> _, &alter] {
        sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/metadata/*.log"));
        assert_eq!(change().unwrap_err().reason(), Reason::IoFailed);
    }
    let described = node.wait(node.broker.describe_topic(&node.context, "t")).unwrap();
    assert_eq!(described.topic, before);
    assert!(sim.fs.files().iter().all(|file| !file.to_string_lossy().contains("/2/")));
    assert_eq!(grow().unwrap().partition_count, 4);
    alter().unwrap();
    node.say("t", 3, "x").unwrap();
    node.broker.close().unwrap();
    let node = simulated(&sim);
    assert_eq!(node.broker.open_report().partitions, 4);
    assert!(node.broker.open_report().failed.is_empty());
    node.broker.close().unwrap();
}

#[test]
fn metadata_whose_roll_failed_is_opened_again() {
    let sim = Sim::new(6);
    let node = simulated(&sim);
    node.create("before", 1).unwrap();
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncDir).path("*/internal/metadata").always());
    sim.scheduler.run_for(Duration::from_hours(25));
    sim.fs.clear_rules();
    let error = node.create("t", 1).unwrap_err();
    assert_eq!(error.reason(), Reason::IoFailed);
    assert!(error.message().contains("did not happen: try again"), "{error}");
    node.create("t", 1).unwrap();
    node.broker.close().unwrap();
    let node = simulated(&sim);
    assert_eq!(node.broker.open_report().topics, 2);
    node.broker.close().unwrap();
}

#[test]
fn metadata_whose_failed_write_could_not_be_taken_back_is_opened_again() {
    let sim = Sim::new(6);
    let node = simulated(&sim);
    node.create("before", 1).unwrap();
    sim.fs.inject(Rule::new(Fault::Io).on(Op::Write).on(Op::SetLen).path("*/metadata/*.log").times(2));
    assert_eq!(node.create("t", 1).unwrap_err().reason(), Reason::IoFailed);
    node.create("t", 1).unwrap();
    // Not at once either.
    sim.fs.inject(Rule::new(Fault::Io).on(Op::Write).on(Op::SetLen).path("*/metadata/*.log").times(2));
    sim.fs.inject(Rule::new(Fault::Io).on(Op::Rename).path("/data/set*").always());
    assert_eq!(node.create("u", 1).unwrap_err().reason(), Reason::OutcomeUnknown);
    sim.fs.clear_rules();
    assert_eq!(node.create("u", 1).unwrap_err().reason(), Reason::MetadataFailed);
    sim.clock.advance(Duration::from_secs(30));
    node.create("u", 1).unwrap();
    node.broker.close().unwrap();
}

#[test]
fn a_growth_of_which_the_outcome_is_unknown_keeps_its_directories_however_often_it_is_tried_again() {
    let mut sim = Sim::new(8);
    let node = simulated(&sim);
    node.create("t", 2).unwrap();
    let grow = |count| node.wait(node.broker.add_partitions(&node.context, "t", count));
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/metadata/*.log"));
    // The log is not opened afresh, so the record stays in its file.
    sim.fs.inject(Rule::new(Fault::Io).on(Op::Rename).path("/data/set*").always());
    assert_eq!(grow(4).unwrap_err().reason(), Reason::OutcomeUnknown);
    assert_eq!(grow(4).unwrap_err().reason(), Reason::MetadataFailed);
    assert_eq!(grow(3).unwrap_err().reason(), Reason::MetadataFailed);
    sim.fs.clear_rules();
    drop(node);
    sim.kill();
    let node = simulated(&sim);
    assert!(node.broker.open_report().failed.is_empty(), "{:?}", node.broker.open_report());
    assert_eq!(node.broker.open_report().partitions, 4);
    node.say("t", 3, "x").unwrap();
    node.broker.close().unwrap();
}

#[test]
fn a_topic_of_which_the_deletion_is_uncertain_takes_nothing() {
    let mut sim = Sim::new(7);
    let node = simulated(&sim);
    node.create("doubtful", 2).unwrap();
    node.create("kept", 1).unwrap();
    node.say("doubtful", 1, "before").unwrap();
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/metadata/*").always());
    assert_eq!(node.delete("doubtful").unwrap_err().reason(), Reason::OutcomeUnknown);
    for partition in 0..2 {
        let error = node.say("doubtful", partition, "lost").unwrap_err();
        assert_eq!(error.reason(), Reason::MetadataFailed, "{error}");
        assert!(error.message().contains("start the node again"), "{error}");
    }
    let described = node.wait(node.broker.describe_topic(&node.context, "doubtful")).unwrap();
    assert_eq!(described.partitions[0].error.as_ref().unwrap().reason(), Reason::MetadataFailed);
    assert_eq!(node.read_all("doubtful", 1).unwrap(), ["before"]);
    node.say("kept", 0, "x").unwrap();

    sim.fs.clear_rules();
    sim.crash();
    let node = simulated(&sim);
    match node.say("doubtful", 0, "after") {
        Ok(_) => assert_eq!(node.read_all("doubtful", 1).unwrap(), ["before"]),
        Err(error) => assert_eq!(error.reason(), Reason::TopicNotFound),
    }
    node.broker.close().unwrap();
}

#[test]
fn a_sync_that_hangs_holds_up_no_other_topic_when_its_own_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, armed) = (Arc::new(Gate::default()), Arc::new(AtomicBool::new(false)));
    let hang = {
        let (gate, armed) = (Arc::clone(&gate), Arc::clone(&armed));
        move |call, path: &Path| {
            let data = path.ends_with("0/00000000000000000000.log");
            if call == Call::Sync && data && armed.swap(false, Ordering::SeqCst) {
                gate.pass();
            }
            Ok(())
        }
    };
    let node = Node::open(with_env(&dir, hooked(hang)));
    node.create("t", 1).unwrap();
    armed.store(true, Ordering::SeqCst);
    let produced = node.broker.produce(&node.context, records("t", Some(0), ["x"]));
    gate.wait_for_someone();
    // So that a deletion that waits for the sync fails this test, and does not hang it.
    let late = Arc::clone(&gate);
    let scheduler = Arc::clone(&node.broker.config().env.scheduler);
    scheduler.spawn_after(Work::Read, Duration::from_secs(10), Box::new(move || late.open()));

    node.delete("t").unwrap();
    node.create("t", 1).unwrap();
    node.create("u", 1).unwrap();
    node.delete("u").unwrap();
    assert!(!gate.is_open(), "the changes waited for the sync");
    gate.open();
    // Stored before the deletion ended the log, or refused because of it.
    if let Err(error) = node.wait(produced).unwrap().remove(0).outcome {
        assert_eq!(error.reason(), Reason::TopicNotFound, "{error}");
    }
    node.broker.close().unwrap();
}

#[test]
fn records_in_the_queue_of_a_deleted_topic_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (node, gate) = stalled(&dir, Limits::default());
    let calls: Vec<_> =
        (0..5).map(|_| node.broker.produce(&node.context, records("t", Some(0), ["x"]))).collect();
    gate.wait_for_someone();
    let delete = node.broker.delete_topic(&node.context, "t");
    gate.open();
    node.wait(delete).unwrap();
    for call in calls {
        match node.wait(call).unwrap().remove(0).outcome {
            Ok(_) => {}
            Err(error) => assert_eq!(error.reason(), Reason::TopicNotFound, "{error}"),
        }
    }
    node.broker.close().unwrap();
}
