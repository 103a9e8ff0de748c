//! The power goes at every call that changes the disk, while topics are created, written and deleted.

use std::collections::{BTreeMap, BTreeSet};

use logmill_broker::{Broker, Config, Error, ListTopics, Reason};
use logmill_log::sim::Sim;

use crate::common::{Node, small};

/// What the workload was told before the power went.
#[derive(Debug, Default)]
struct Answered {
    /// Topics of which the creation was answered, and with how many partitions.
    created: BTreeMap<&'static str, u32>,
    /// Topics of which the deletion was asked for.
    deleting: BTreeSet<&'static str>,
    /// Topics of which the deletion was answered.
    deleted: BTreeSet<&'static str>,
    /// Records that were acknowledged, by topic, all in partition 0.
    said: BTreeMap<&'static str, Vec<String>>,
}

fn config(sim: &Sim) -> Config {
    Config { env: sim.env(), ..small("/data") }
}

#[derive(Clone, Copy)]
enum Do {
    Create(&'static str, u32),
    Say(&'static str, &'static str),
    Delete(&'static str),
}

const WORK: [Do; 9] = [
    Do::Create("kept", 2),
    Do::Say("kept", "one"),
    Do::Create("short", 3),
    Do::Say("short", "gone soon"),
    Do::Delete("short"),
    Do::Say("kept", "two"),
    Do::Create("late", 1),
    Do::Delete("late"),
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
                answered.created.insert(name, partitions);
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
    let there: BTreeMap<&str, u32> =
        page.topics.iter().map(|topic| (topic.name.as_str(), topic.partition_count)).collect();
    for (name, partitions) in &answered.created {
        if !answered.deleting.contains(name) {
            assert_eq!(there.get(name), Some(partitions), "{when}: a created topic is there, whole");
        }
    }
    for name in &answered.deleted {
        assert!(!there.contains_key(name), "{when}: {name} was deleted");
    }
    for (name, said) in &answered.said {
        if there.contains_key(name) {
            let read = node.read_all(name, 0).unwrap();
            assert_eq!(read[..said.len()], said[..], "{when}: acknowledged records are there, in order");
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
    let known: BTreeSet<String> = page.topics.iter().map(|topic| topic.id.to_string()).collect();
    for file in sim.fs.files() {
        if let Ok(below) = file.strip_prefix("/data/topics") {
            let dir = below.iter().next().unwrap().to_string_lossy().into_owned();
            assert!(known.contains(&dir), "{when}: {} is left", file.display());
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
    if let Ok(broker) = Broker::open(config(&sim)) {
        let node = Node::of(broker);
        let worked = work(&node, &mut answered);
        assert!(worked.is_ok() || sim.fs.is_off(), "{when}: {worked:?}");
        sim.scheduler.run_until_idle();
    }
    let went = sim.fs.is_off();
    sim.crash();

    let node = Node::open(config(&sim));
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
        assert!(points > 60, "the workload changes the disk often: {points}");
    }
}

#[test]
fn a_start_that_is_cut_off_makes_nothing_worse() {
    for nth in (1..).step_by(3) {
        let mut sim = Sim::new(9);
        let mut answered = Answered::default();
        sim.fs.power_off_at(nth);
        if let Ok(broker) = Broker::open(config(&sim)) {
            let _ = work(&Node::of(broker), &mut answered);
            sim.scheduler.run_until_idle();
        }
        if !sim.fs.is_off() {
            break;
        }
        sim.crash();
        sim.fs.power_off_at(1 + nth % 17);
        if let Ok(broker) = Broker::open(config(&sim)) {
            sim.scheduler.run_until_idle();
            drop(broker);
        }
        sim.crash();
        let node = Node::open(config(&sim));
        check(&node, &answered, &format!("change {nth}, twice"));
        node.broker.close().unwrap();
    }
}

/// A kill loses nothing that was written, but what was not synced may still be lost by a power cut after the
/// next start.
#[test]
fn a_kill_and_then_a_power_cut_lose_nothing_acknowledged() {
    for seed in 1..=5 {
        for steps in 1..=9 {
            let mut sim = Sim::new(seed);
            let mut answered = Answered::default();
            let node = Node::open(config(&sim));
            work_until(&node, &mut answered, steps).unwrap();
            sim.kill();
            drop(Node::open(config(&sim)));
            sim.crash();
            let node = Node::open(config(&sim));
            check(&node, &answered, &format!("seed {seed}, {steps} steps"));
            node.broker.close().unwrap();
        }
    }
}
