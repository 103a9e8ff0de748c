//! Steps, and a disk that fails, a power cut or a node that closes in the middle of one.

use std::time::Duration;

use logmill_broker::{Broker, GroupEvent, JoinGroup, OffsetToCommit, Reason};
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_record::Offset;

use crate::common::members::{assigned, committed};
use crate::common::{Node, on, simulated, until_off};
use crate::steps::{add_offsets, begin, header, join, node, read, records, step};

#[test]
fn a_step_that_fails_anywhere_leaves_nothing_and_is_sent_again() {
    for path in ["*/topics/*", "*/internal/offsets/*"] {
        let sim = Sim::new(3);
        let node = node(&sim);
        let mut member = join(&node, None);
        let mine = assigned(&node, &mut member);
        sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Write).path(path));
        let told = step(&node, mine.epoch, 0, "a", 1).unwrap_err();
        assert_eq!(told.reason(), Reason::DiskFull, "{path}: {told}");
        assert_eq!(read(&node), [vec![], Vec::<String>::new()], "{path}");
        step(&node, mine.epoch, 0, "a", 1).unwrap();
        sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path(path));
        step(&node, mine.epoch, 1, "b", 2).unwrap_err();
        sim.scheduler.run_for(Duration::from_secs(1));
        step(&node, mine.epoch, 1, "b", 2).unwrap();
        assert_eq!(read(&node), [["a", "b"], ["a", "b"]], "{path}");
        node.broker.close().unwrap();
    }
}

#[test]
fn a_step_is_whole_or_not_there_whenever_the_power_goes() {
    for seed in 1..=2 {
        for nth in 1.. {
            let mut sim = Sim::new(seed);
            let node = node(&sim);
            sim.fs.power_off_at(nth);
            let answered = answered(&sim, &node);
            let went = sim.fs.is_off();
            drop(node);
            sim.crash();
            let node = simulated(&sim);
            let mut member = join(&node, Some("m".into()));
            let mine = assigned(&node, &mut member);
            let when = format!("seed {seed}, change {nth}: {answered} answered");
            let done = mine.last_step.map_or(0, |last| last + 1);
            assert!(done >= answered && done <= answered + 1, "{when}: {done} done");
            assert_eq!(committed(&mine).unwrap_or(0), u64::try_from(done).unwrap(), "{when}");
            let expected: Vec<String> = (0..done).map(|n| n.to_string()).collect();
            assert_eq!(read(&node), [expected.clone(), expected], "{when}");
            // It goes on where it was: what was done is answered again, what was not is done.
            for sequence in done.max(1) - 1..6 {
                let offset = u64::try_from(sequence).unwrap() + 1;
                step(&node, mine.epoch, sequence, &format!("{sequence}"), offset).unwrap();
            }
            let expected: Vec<String> = (0..6).map(|n| n.to_string()).collect();
            assert_eq!(read(&node), [expected.clone(), expected], "{when}");
            node.broker.close().unwrap();
            if !went {
                assert!(nth > 50, "the workload changes the disk often: {nth}");
                break;
            }
        }
    }
}

/// How many steps are answered before the power goes: what has to be written is tried for ever.
fn answered(sim: &Sim, node: &Node) -> i64 {
    let mut member = join(node, Some("m".into()));
    let mine = match until_off(sim, member.next()) {
        Some(GroupEvent::Assigned(mine)) => mine,
        Some(other) => panic!("{other:?}"),
        None => return 0,
    };
    for sequence in 0..4 {
        let value = format!("{sequence}");
        let offset = u64::try_from(sequence).unwrap() + 1;
        let begun = node.broker.begin_step(&node.context, header(mine.epoch, sequence, &value, offset));
        let mut step = begun.unwrap();
        for topic in ["out", "log"] {
            step.append(topic, Some(0), records(&value)).unwrap();
        }
        match until_off(sim, step.commit()) {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                assert!(sim.fs.is_off(), "{error}");
                return sequence;
            }
            None => return sequence,
        }
    }
    4
}

#[test]
fn a_step_that_comes_twice_at_once_is_whole_when_the_node_closes_before_its_markers() {
    let sim = Sim::new(17);
    let node = node(&sim);
    let mut member = join(&node, None);
    let mine = assigned(&node, &mut member);
    let begin = || {
        let mut step = node.broker.begin_step(&node.context, header(mine.epoch, 0, "a", 1)).unwrap();
        for topic in ["out", "log"] {
            step.append(topic, Some(0), records("a")).unwrap();
        }
        step
    };
    let [first, second] = [begin(), begin()];
    // Its records are on disk, and its markers are not.
    for topic in ["out", "log"] {
        let described = node.wait(node.broker.describe_topic(&node.context, topic)).unwrap();
        let files = format!("*/topics/{}/*", described.topic.id);
        sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path(files).nth(2).always());
    }
    let both = [Box::pin(first.commit()), Box::pin(second.commit())];
    sim.scheduler.run_for(Duration::from_secs(1));
    let _ = node.broker.close();
    for step in both {
        assert!(node.wait(step).is_err(), "nobody knows yet");
    }
    sim.fs.clear_rules();
    drop((member, node));

    let node = simulated(&sim);
    assert_eq!(read(&node), [["a"], ["a"]], "it was decided");
    node.broker.close().unwrap();
}

#[test]
fn a_start_whose_disk_fails_knows_what_was_committed_behind_a_transaction_that_it_cannot_end() {
    let mut sim = Sim::new(18);
    let node = node(&sim);
    let mut member = join(&node, None);
    let mine = assigned(&node, &mut member);
    let producer = begin(&node);
    node.wait(node.broker.add_offsets(&node.context, add_offsets(producer, &mine, 3))).unwrap();
    let of_h = JoinGroup { group: "h".into(), ..JoinGroup::topics("h", ["in"]) };
    let mut other = node.broker.join_group(&node.context, of_h).unwrap();
    let unit = assigned(&node, &mut other);
    let up_to = OffsetToCommit::new("in", 0, Offset(2));
    node.wait(other.handle().commit(&unit.unit, unit.epoch, vec![up_to])).unwrap();
    drop((member, other, node));
    sim.crash();

    // The disk is full before the marker, and not before the log is open.
    let node = (1..20).find_map(|nth| {
        let full = Rule::new(Fault::NoSpace).on(Op::Write).path("*/internal/offsets/*.log");
        sim.fs.inject(full.nth(nth).always());
        let opened = Broker::open(on(&sim)).ok();
        if opened.is_none() {
            sim.fs.clear_rules();
        }
        opened
    });
    let node = Node::of(node.unwrap());
    assert!(sim.fs.faults() > 0, "it could not write the marker");
    let described = |group: &str| node.wait(node.broker.describe_group(&node.context, group)).unwrap();
    assert_eq!(described("h").offsets[0].offset, Offset(2));
    assert!(described("g").offsets.is_empty(), "its transaction was not decided");
    sim.fs.clear_rules();
    sim.scheduler.run_for(Duration::from_secs(60));
    node.broker.close().unwrap();
}
