//! The power goes at every call that changes the disk, while topics are created, written, altered, grown and
//! deleted.

use std::collections::{BTreeMap, BTreeSet};

use logmill_broker::{Broker, DeleteRecords, Error, ListTopics, Reason, SettingChange, Topic};
use logmill_log::sim::Sim;
use logmill_record::Offset;

use crate::common::{Node, on, simulated};

/// What the workload was told before the power went.
#[derive(Debug, Default)]
struct Answered {
    /// Topics of which the creation was answered, and with how many partitions: as last answered, and as last
    /// asked for.
    created: BTreeMap<&'static str, (u32, u32)>,
    /// What `retention.ms` was set to: as last answered, and as last asked for.
    retention: BTreeMap<&'static str, (&'static str, &'static str)>,
    /// Records of partition 0 that were deleted: as last answered, and as last asked for.
    dropped: BTreeMap<&'static str, (usize, usize)>,
    /// Topics of which the deletion was asked for.
    deleting: BTreeSet<&'static str>,
    /// Topics of which the deletion was answered.
    deleted: BTreeSet<&'static str>,
    /// Partitions that were added and have a record that was acknowledged.
    newest: Vec<(&'static str, u32)>,
    /// Records that were acknowledged, by topic, all in partition 0.
    said: BTreeMap<&'static str, Vec<String>>,
}

#[derive(Clone, Copy)]
enum Do {
    Create(&'static str, u32),
    Say(&'static str, &'static str),
    Alter(&'static str, &'static str),
    Grow(&'static str, u32),
    Drop(&'static str, usize),
    Delete(&'static str),
}

const WORK: [Do; 15] = [
    Do::Create("kept", 2),
    Do::Say("kept", "one"),
    Do::Alter("kept", "1000000000"),
    Do::Create("short", 3),
    Do::Say("short", "gone soon"),
    Do::Grow("kept", 3),
    Do::Grow("short", 4),
    Do::Delete("short"),
    Do::Say("kept", "two"),
    Do::Create("late", 1),
    Do::Alter("kept", "2000000000"),
    Do::Drop("kept", 1),
    Do::Delete("late"),
    Do::Grow("kept", 5),
    Do::Say("kept", "three"),
];

/// Creates, writes and deletes until the power goes.
fn work(node: &Node, answered: &mut Answered) -> Result<(), Error> {
    work_until(node, answered, WORK.len())
}

fn work_until(node: &Node, answered: &mut Answered, steps: usize) -> Result<(), Error> {
    for step in &WORK[..steps] {
        match *step {
            Do::Create(name, partitions) => {
                node.create(name, partitions)?;
                answered.created.insert(name, (partitions, partitions));
                answered.retention.insert(name, ("-1", "-1"));
                answered.dropped.insert(name, (0, 0));
            }
            Do::Alter(name, retention) => {
                answered.retention.get_mut(name).unwrap().1 = retention;
                let changes = vec![SettingChange::set("retention.ms", retention)];
                node.wait(node.broker.alter_topic(&node.context, name, changes))?;
                answered.retention.get_mut(name).unwrap().0 = retention;
            }
            Do::Grow(name, partitions) => {
                answered.created.get_mut(name).unwrap().1 = partitions;
                node.wait(node.broker.add_partitions(&node.context, name, partitions))?;
                answered.created.get_mut(name).unwrap().0 = partitions;
                // Works at once, and what is acknowledged in it stays.
                node.say(name, partitions - 1, "in the newest")?;
                answered.newest.push((name, partitions - 1));
            }
            Do::Drop(name, count) => {
                answered.dropped.get_mut(name).unwrap().1 = count;
                let partitions = vec![(0, Some(Offset(count as u64)))];
                let request = DeleteRecords { topic: name.to_owned(), partitions };
                let mut deleted = node.wait(node.broker.delete_records(&node.context, request))?;
                deleted.remove(0).outcome?;
                answered.dropped.get_mut(name).unwrap().0 = count;
            }
            Do::Say(name, value) => {
                node.say(name, 0, value)?;
                answered.said.entry(name).or_default().push(value.to_owned());
            }
            Do::Delete(name) => {
                answered.deleting.insert(name);
                node.delete(name)?;
                answered.deleted.insert(name);
            }
        }
    }
    Ok(())
}

/// What must be true after a crash, whenever it came.
fn check(node: &Node, answered: &Answered, when: &str) {
    let report = node.broker.open_report();
    assert!(report.failed.is_empty(), "{when}: {report:?}");
    assert!(report.unknown.is_empty(), "{when}: {report:?}");
    let page = node.wait(node.broker.list_topics(&node.context, ListTopics::default())).unwrap();
    let there: BTreeMap<&str, &Topic> =
        page.topics.iter().map(|topic| (topic.name.as_str(), topic)).collect();
    for (name, (least, most)) in &answered.created {
        if !answered.deleting.contains(name) {
            assert!(there.contains_key(name), "{when}: a created topic is there");
        }
        let Some(topic) = there.get(name) else { continue };
        let count = topic.partition_count;
        assert!(count == *least || count == *most, "{when}: {name} has {count} partitions");
        let retention = &topic.settings.iter().find(|setting| setting.name == "retention.ms").unwrap().value;
        let (before, after) = answered.retention[name];
        assert!(retention == before || retention == after, "{when}: {name} keeps for {retention}");
        for partition in 0..count {
            node.read_all(name, partition).unwrap();
        }
    }
    for name in &answered.deleted {
        assert!(!there.contains_key(name), "{when}: {name} was deleted");
    }
    for (name, partition) in answered.newest.iter().filter(|(name, _)| there.contains_key(name)) {
        assert_eq!(node.read_all(name, *partition).unwrap(), ["in the newest"], "{when}");
    }
    for (name, said) in &answered.said {
        if there.contains_key(name) {
            let read = node.read_all(name, 0).unwrap();
            let (least, most) = answered.dropped[name];
            let start = if most <= said.len() && read.first() == said.get(most) { most } else { least };
            let said = &said[start..];
            assert_eq!(read[..said.len()], *said, "{when}: acknowledged records are there, in order");
        }
    }
    // Whatever is there works, and every name that is not there is free.
    for name in ["kept", "short", "late"] {
        match node.create(name, 1) {
            Ok(_) => assert!(!there.contains_key(name), "{when}"),
            Err(error) => {
                assert_eq!(error.reason(), Reason::TopicExists, "{when}: {error}");
                assert!(there.contains_key(name), "{when}");
            }
        }
        node.say(name, 0, "still works").unwrap();
    }
}

/// After everything has been taken away, nothing is in `topics` but what exists.
fn check_directories(sim: &Sim, node: &Node, when: &str) {
    let page = node.wait(node.broker.list_topics(&node.context, ListTopics::default())).unwrap();
    let known: BTreeMap<String, u32> =
        page.topics.iter().map(|topic| (topic.id.to_string(), topic.partition_count)).collect();
    for file in sim.fs.files() {
        if let Ok(below) = file.strip_prefix("/data/topics") {
            let mut names = below.iter().map(|name| name.to_string_lossy());
            let (topic, partition) = (names.next().unwrap(), names.next().unwrap());
            let is_there = known.get(&*topic).is_some_and(|count| partition.parse::<u32>().unwrap() < *count);
            assert!(is_there, "{when}: {} is left", file.display());
        }
    }
}

/// Runs the workload with the power going at the `nth` change; whether it went.
fn run(seed: u64, nth: Option<u64>) -> bool {
    let mut sim = Sim::new(seed);
    let mut answered = Answered::default();
    if let Some(nth) = nth {
        sim.fs.power_off_at(nth);
    }
    let when = format!("seed {seed}, change {nth:?}");
    // Opening is part of it.
    if let Ok(broker) = Broker::open(on(&sim)) {
        let node = Node::of(broker);
        let worked = work(&node, &mut answered);
        assert!(worked.is_ok() || sim.fs.is_off(), "{when}: {worked:?}");
        sim.scheduler.run_until_idle();
    }
    let went = sim.fs.is_off();
    sim.crash();

    let node = simulated(&sim);
    check(&node, &answered, &when);
    sim.scheduler.run_until_idle();
    check_directories(&sim, &node, &when);
    node.broker.close().unwrap();
    went
}

#[test]
fn topics_are_whole_or_not_there_whenever_the_power_goes() {
    for seed in 1..=3 {
        assert!(!run(seed, None));
        let points = (1..).take_while(|nth| run(seed, Some(*nth))).count();
        assert!(points > 150, "the workload changes the disk often: {points}");
    }
}

#[test]
fn a_start_that_is_cut_off_makes_nothing_worse() {
    for nth in (1..).step_by(3) {
        let mut sim = Sim::new(9);
        let mut answered = Answered::default();
        sim.fs.power_off_at(nth);
        if let Ok(broker) = Broker::open(on(&sim)) {
            let _ = work(&Node::of(broker), &mut answered);
            sim.scheduler.run_until_idle();
        }
        if !sim.fs.is_off() {
            break;
        }
        sim.crash();
        sim.fs.power_off_at(1 + nth % 17);
        if let Ok(broker) = Broker::open(on(&sim)) {
            sim.scheduler.run_until_idle();
            drop(broker);
        }
        sim.crash();
        let node = simulated(&sim);
        check(&node, &answered, &format!("change {nth}, twice"));
        node.broker.close().unwrap();
    }
}

/// A kill loses nothing that was written, but what was not synced may still be lost by a power cut after the
/// next start.
#[test]
fn a_kill_and_then_a_power_cut_lose_nothing_acknowledged() {
    for seed in 1..=5 {
        for steps in 1..=WORK.len() {
            let mut sim = Sim::new(seed);
            let mut answered = Answered::default();
            let node = simulated(&sim);
            work_until(&node, &mut answered, steps).unwrap();
            sim.kill();
            drop(simulated(&sim));
            sim.crash();
            let node = simulated(&sim);
            check(&node, &answered, &format!("seed {seed}, {steps} steps"));
            node.broker.close().unwrap();
        }
    }
}
