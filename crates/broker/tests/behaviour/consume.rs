//! Members that are given the records of their units: what comes, from where on, and when it stops.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use logmill_broker::{
    Assignment, Config, Consume, ConsumeStart, Consumed, Consumer, DeleteRecords, GroupEvent, JoinGroup,
    Limits, LostReason, OffsetToCommit, Reason, Subscribe, UnitData,
};
use logmill_log::env::Clock as _;
use logmill_log::sim::{Fault, Op, Rule, Sim, SimRandom};
use logmill_record::Offset;

use crate::common::members::three_records_each;
use crate::common::{Node, batch, on, produce_batch, simulated, text};

const PLENTY: u64 = 1 << 30;

fn consume(node: &Node, request: Consume) -> Consumer {
    node.broker.consume(&node.context, request).unwrap()
}

fn consumer(node: &Node) -> Consumer {
    consume(node, Consume::new(JoinGroup::topics("g", ["t"]), PLENTY))
}

fn event(node: &Node, consumer: &mut Consumer) -> GroupEvent {
    match node.wait(consumer.next()) {
        Consumed::Event(event) => event,
        Consumed::Data(data) => panic!("{data:?}"),
    }
}

fn assigned(node: &Node, consumer: &mut Consumer) -> Assignment {
    match event(node, consumer) {
        GroupEvent::Assigned(assignment) => assignment,
        other => panic!("{other:?}"),
    }
}

fn data(node: &Node, consumer: &mut Consumer) -> UnitData {
    match node.wait(consumer.next()) {
        Consumed::Data(data) => data,
        Consumed::Event(event) => panic!("{event:?}"),
    }
}

/// All that a partition's records are, until so many have come.
fn read(node: &Node, consumer: &mut Consumer, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    while values.len() < count {
        values.extend(text(&data(node, consumer).data));
    }
    values
}

/// The data among so many things that come.
fn come(node: &Node, consumer: &mut Consumer, count: usize) -> Vec<UnitData> {
    let came = (0..count).map(|_| node.wait(consumer.next()));
    came.filter_map(|came| match came {
        Consumed::Data(data) => Some(data),
        Consumed::Event(_) => None,
    })
    .collect()
}

/// Whether nothing comes, however long one waits.
fn is_quiet(sim: &Sim, consumer: &mut Consumer) -> bool {
    let mut next = pin!(consumer.next());
    let mut context = Context::from_waker(Waker::noop());
    (0..20).all(|_| {
        let pending = next.as_mut().poll(&mut context).is_pending();
        sim.scheduler.run_for(Duration::from_millis(10));
        pending
    })
}

fn commit(node: &Node, consumer: &Consumer, of: &Assignment, offset: u64) {
    let offsets = vec![OffsetToCommit::new("t", of.partitions[0].partition, Offset(offset))];
    node.wait(consumer.handle().commit(&of.unit, of.epoch, offsets)).unwrap();
}

#[test]
fn records_of_all_units_come_in_turn_and_each_says_whose_it_is() {
    let sim = Sim::new(1);
    let node = three_records_each(&sim, 3);
    let mut consumer = consumer(&node);
    let units: Vec<_> = (0..3).map(|_| assigned(&node, &mut consumer)).collect();
    let mut came = BTreeSet::new();
    for _ in 0..3 {
        let data = data(&node, &mut consumer);
        let of = units.iter().find(|of| of.unit == data.unit).unwrap();
        assert_eq!((data.epoch, data.data.partition), (of.epoch, of.partitions[0].partition));
        assert_eq!(text(&data.data), ["a", "b", "c"]);
        came.insert(data.unit);
    }
    assert_eq!(came.len(), 3, "none had a second turn before each had its first: {came:?}");
    assert!(is_quiet(&sim, &mut consumer));
    node.say("t", 1, "d").unwrap();
    let next = data(&node, &mut consumer);
    assert_eq!((&*next.unit, text(&next.data)), ("t/1", vec!["d".to_owned()]));
    node.broker.close().unwrap();
    for _ in 0..2 {
        let closed = event(&node, &mut consumer);
        assert!(matches!(closed, GroupEvent::Closed(error) if error.reason() == Reason::NodeClosing));
    }
}

#[test]
fn nothing_more_comes_of_a_unit_that_is_to_be_given_up_and_its_next_owner_goes_on_at_the_commit() {
    let sim = Sim::new(2);
    let node = three_records_each(&sim, 2);
    let mut first = consumer(&node);
    let units = [assigned(&node, &mut first), assigned(&node, &mut first)];
    assert_eq!(read(&node, &mut first, 6).len(), 6);
    let mut second = consumer(&node);
    let GroupEvent::Revoke { unit, epoch } = event(&node, &mut first) else { panic!("it has two") };
    let given_up = units.iter().find(|of| of.unit == unit).unwrap();
    for partition in 0..2 {
        node.say("t", partition, "d").unwrap();
    }
    let kept = data(&node, &mut first);
    assert_ne!(kept.unit, unit);
    assert!(is_quiet(&sim, &mut first));
    assert!(is_quiet(&sim, &mut second), "it is not the other's before it was given up");
    commit(&node, &first, given_up, 2);
    first.handle().confirm_revoked(&unit, epoch).unwrap();
    let moved = assigned(&node, &mut second);
    assert_eq!((&moved.unit, moved.epoch), (&unit, epoch + 1));
    let came = data(&node, &mut second);
    assert_eq!((came.epoch, came.data.from_offset), (epoch + 1, Offset(2)));
    assert_eq!(text(&came.data), ["c", "d"]);

    // And back again, when the other has left.
    second.handle().leave().unwrap();
    let back = assigned(&node, &mut first);
    assert_eq!((&back.unit, back.epoch), (&unit, epoch + 2));
    assert_eq!(data(&node, &mut first).data.from_offset, Offset(2), "what it has read before does not count");
    node.broker.close().unwrap();
}

#[test]
fn what_was_read_already_is_not_given_when_the_unit_is_lost_meanwhile() {
    let sim = Sim::new(3);
    let node = three_records_each(&sim, 1);
    let mut consumer = consumer(&node);
    assigned(&node, &mut consumer);
    {
        // It is read, and nobody takes it.
        let mut next = pin!(consumer.next());
        assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        sim.scheduler.run_for(Duration::from_secs(1));
    }
    node.delete("t").unwrap();
    let lost = event(&node, &mut consumer);
    assert!(
        matches!(&lost, GroupEvent::Lost { unit, why: LostReason::Gone, .. } if unit == "t/0"),
        "called as it was assigned: {lost:?}"
    );
    assert!(is_quiet(&sim, &mut consumer));
    // Another topic of its name is another unit, and nothing was committed for it.
    node.create("t", 1).unwrap();
    node.say("t", 0, "new").unwrap();
    assert_eq!(assigned(&node, &mut consumer).unit, "t/0");
    assert_eq!(read(&node, &mut consumer, 1), ["new"]);
    node.broker.close().unwrap();
}

#[test]
fn a_partition_begins_at_the_commit_or_else_where_the_member_says() {
    let sim = Sim::new(4);
    let node = three_records_each(&sim, 2);
    let mut member = consumer(&node);
    let units = [assigned(&node, &mut member), assigned(&node, &mut member)];
    commit(&node, &member, &units[0], 1);
    member.handle().leave().unwrap();
    drop(member);
    let latest = Consume::new(JoinGroup::topics("g", ["t"]), PLENTY);
    let mut member = consume(&node, Consume { start: ConsumeStart::Latest, ..latest });
    let came = come(&node, &mut member, 3);
    let [committed] = &came[..] else { panic!("two assignments, and what one of them has: {came:?}") };
    assert_eq!((&*committed.unit, committed.data.from_offset), ("t/0", Offset(1)));
    assert!(is_quiet(&sim, &mut member));
    node.say("t", 1, "new").unwrap();
    assert_eq!(read(&node, &mut member, 1), ["new"]);
    node.broker.close().unwrap();
}

#[test]
fn whoever_begins_at_the_latest_misses_nothing_that_comes_before_its_first_commit() {
    let sim = Sim::new(12);
    let node = three_records_each(&sim, 1);
    let latest = || {
        let request = Consume::new(JoinGroup::topics("g", ["t"]), PLENTY);
        Consume { start: ConsumeStart::Latest, ..request }
    };
    let mut member = consume(&node, latest());
    let began = assigned(&node, &mut member).partitions.remove(0).committed.unwrap();
    assert_eq!(began.offset, Offset(3));
    // It breaks off and has committed nothing; a record comes; the node is started again.
    drop(member);
    node.say("t", 0, "while nobody was there").unwrap();
    node.broker.close().unwrap();
    let node = simulated(&sim);
    let mut member = consume(&node, latest());
    sim.scheduler.run_for(Duration::from_secs(60));
    assigned(&node, &mut member);
    assert_eq!(read(&node, &mut member, 1), ["while nobody was there"]);
    node.broker.close().unwrap();
}

#[test]
fn a_unit_is_not_told_before_its_latest_place_is_on_disk_however_often_that_takes() {
    let sim = Sim::new(13);
    let node = three_records_each(&sim, 1);
    // The first sync is that of the assignment, the second that of the place.
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/internal/offsets/*").nth(2));
    let request = Consume::new(JoinGroup::topics("g", ["t"]), PLENTY);
    let mut member = consume(&node, Consume { start: ConsumeStart::Latest, ..request });
    let before = sim.clock.monotonic();
    let mine = assigned(&node, &mut member);
    assert_eq!(sim.fs.faults(), 1);
    assert!(sim.clock.monotonic() - before >= Duration::from_millis(100), "tried again after a pause");
    assert_eq!(mine.partitions[0].committed.as_ref().unwrap().offset, Offset(3));
    let described = node.wait(node.broker.describe_group(&node.context, "g")).unwrap();
    assert_eq!(described.offsets[0].offset, Offset(3));
    node.broker.close().unwrap();
}

#[test]
fn a_unit_whose_latest_place_is_not_on_disk_yet_keeps_nothing_from_the_others() {
    let sim = Sim::new(14);
    let node = three_records_each(&sim, 2);
    let mut member = consumer(&node);
    for _ in 0..2 {
        let unit = assigned(&node, &mut member);
        if unit.unit == "t/0" {
            commit(&node, &member, &unit, 1);
        }
    }
    member.handle().leave().unwrap();
    drop(member);
    sim.scheduler.run_for(Duration::from_secs(1));
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/internal/offsets/*").nth(2));
    let request = Consume::new(JoinGroup::topics("g", ["t"]), PLENTY);
    let mut member = consume(&node, Consume { start: ConsumeStart::Latest, ..request });
    assert_eq!(assigned(&node, &mut member).unit, "t/0");
    assert_eq!(read(&node, &mut member, 2), ["b", "c"], "before the place in t/1 is on disk");
    assert_eq!(assigned(&node, &mut member).unit, "t/1");
    assert_eq!(sim.fs.faults(), 1);
    node.say("t", 1, "new").unwrap();
    assert_eq!(read(&node, &mut member, 1), ["new"]);
    node.broker.close().unwrap();
}

#[test]
fn a_group_goes_on_at_the_earliest_where_retention_has_taken_what_it_had_not_read() {
    let sim = Sim::new(5);
    let node = three_records_each(&sim, 1);
    let delete = |before| {
        let request = DeleteRecords { topic: "t".into(), partitions: vec![(0, Some(Offset(before)))] };
        node.wait(node.broker.delete_records(&node.context, request)).unwrap();
    };
    let join = |credit| {
        let request = Consume::new(JoinGroup::topics("g", ["t"]), credit);
        consume(&node, Consume { start: ConsumeStart::Latest, ..request })
    };
    let mut member = consumer(&node);
    let mine = assigned(&node, &mut member);
    commit(&node, &member, &mine, 1);
    member.handle().leave().unwrap();
    delete(2);
    // At its join.
    let mut member = join(0);
    assigned(&node, &mut member);
    assert!(is_quiet(&sim, &mut member), "it has no credit");
    node.say("t", 0, "d").unwrap();
    // And while it waits for credit.
    delete(3);
    member.credit().grant(PLENTY);
    let came = data(&node, &mut member);
    assert_eq!(
        (came.data.from_offset, came.data.start_offset, &came.data.error.is_none()),
        (Offset(3), Offset(3), &true)
    );
    assert_eq!(text(&came.data), ["d"]);
    node.broker.close().unwrap();
}

#[test]
fn an_offset_that_is_not_there_any_more_is_told_and_the_other_partitions_go_on() {
    let sim = Sim::new(6);
    let node = three_records_each(&sim, 2);
    let mut member = consumer(&node);
    let units = [assigned(&node, &mut member), assigned(&node, &mut member)];
    let beyond = OffsetToCommit { last_epoch: Some(0), ..OffsetToCommit::new("t", 0, Offset(3)) };
    node.wait(member.handle().commit(&units[0].unit, units[0].epoch, vec![beyond])).unwrap();
    member.handle().leave().unwrap();
    let mut member = consumer(&node);
    let came = come(&node, &mut member, 4);
    let reason = |it: &UnitData| it.data.error.as_ref().map(logmill_broker::Error::reason);
    let mut told: Vec<_> = came.iter().map(|it| (it.unit.clone(), reason(it))).collect();
    told.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(told, [("t/0".to_owned(), Some(Reason::LogTruncated)), ("t/1".to_owned(), None)]);
    assert!(is_quiet(&sim, &mut member), "it is said once");
    node.say("t", 1, "d").unwrap();
    assert_eq!(read(&node, &mut member, 1), ["d"]);
    node.broker.close().unwrap();
}

#[test]
fn all_units_share_one_credit_and_none_is_read_without() {
    let sim = Sim::new(7);
    let node = simulated(&sim);
    node.create("t", 5).unwrap();
    for partition in 0..5 {
        for _ in 0..4 {
            let batch = batch(["x".repeat(10_000)]);
            node.produce(produce_batch("t", partition, batch.bytes().clone())).unwrap();
        }
    }
    let mut member = consume(&node, Consume::new(JoinGroup::topics("g", ["t"]), 0));
    for _ in 0..5 {
        assigned(&node, &mut member);
    }
    assert!(is_quiet(&sim, &mut member));
    let (mut granted, mut came, mut units) = (0, 0, BTreeSet::new());
    while came < 20 * 10_000 {
        member.credit().grant(15_000);
        granted += 15_000;
        loop {
            let mut next = pin!(member.next());
            let mut context = Context::from_waker(Waker::noop());
            let mut polled = next.as_mut().poll(&mut context);
            for _ in 0..50 {
                if polled.is_pending() {
                    sim.scheduler.run_for(Duration::from_millis(1));
                    polled = next.as_mut().poll(&mut context);
                }
            }
            let Poll::Ready(Consumed::Data(data)) = polled else { break };
            came += data.data.size_bytes();
            units.insert(data.unit);
            assert!(came < granted + 11_000, "one batch may exceed it, and no more: {came} of {granted}");
        }
    }
    assert_eq!(units.len(), 5);
    node.broker.close().unwrap();
}

#[test]
fn members_are_no_subscriptions() {
    let sim = Sim::new(8);
    let limits = Limits { max_subscriptions: 1, max_fetch_partitions: 1, ..Limits::default() };
    let node = Node::open(Config { limits, ..on(&sim) });
    node.create("t", 3).unwrap();
    let from = logmill_broker::FetchFrom::new("t", 0, logmill_broker::Position::Earliest);
    let subscribe = node.broker.subscribe(&node.context, Subscribe::new(vec![from], 1));
    let _subscription = node.wait(subscribe).unwrap();
    let mut members = [consumer(&node), consumer(&node)];
    assert!(matches!(event(&node, &mut members[0]), GroupEvent::Assigned(_)));
    node.broker.close().unwrap();
}

/// The posts of a member that hears nothing are bounded by its units, and not by what becomes of them.
#[test]
fn units_that_came_and_went_before_the_member_listened_are_not_told() {
    let sim = Sim::new(9);
    let node = three_records_each(&sim, 1);
    let mut deaf = consumer(&node);
    sim.scheduler.run_for(Duration::from_secs(1));
    for _ in 0..5 {
        node.delete("t").unwrap();
        sim.scheduler.run_for(Duration::from_secs(1));
        node.create("t", 1).unwrap();
        sim.scheduler.run_for(Duration::from_secs(1));
    }
    node.say("t", 0, "last").unwrap();
    assert_eq!(assigned(&node, &mut deaf).unit, "t/0");
    assert_eq!(read(&node, &mut deaf, 1), ["last"]);
    node.broker.close().unwrap();
}

/// A consumer, and where it is in each of its units: the epoch, and the next offset.
struct Reading {
    consumer: Consumer,
    units: BTreeMap<String, (i32, u64)>,
}

impl Reading {
    fn join(node: &Node, member_id: Option<String>, credit: u64) -> Self {
        let join = JoinGroup { member_id, ..JoinGroup::topics("g", ["t"]) };
        Self { consumer: consume(node, Consume::new(join, credit)), units: BTreeMap::new() }
    }

    fn commit(&self, node: &Node, unit: &str) {
        let (epoch, next) = self.units[unit];
        let partition = unit.strip_prefix("t/").unwrap().parse().unwrap();
        let offsets = vec![OffsetToCommit::new("t", partition, Offset(next))];
        node.wait(self.consumer.handle().commit(unit, epoch, offsets)).unwrap();
    }

    fn leave(self, node: &Node) {
        self.units.keys().for_each(|unit| self.commit(node, unit));
        self.consumer.handle().leave().unwrap();
    }

    /// Asks a few times what comes, and then no more.
    fn ask(&mut self, sim: &Sim, times: u64) -> Option<Consumed> {
        let mut next = pin!(self.consumer.next());
        for _ in 0..times {
            if let Poll::Ready(came) = next.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return Some(came);
            }
            sim.scheduler.run_for(Duration::from_micros(100));
        }
        None
    }

    fn take(&mut self, node: &Node, came: Consumed) {
        match came {
            Consumed::Event(GroupEvent::Assigned(mine)) => {
                let next = mine.partitions[0].committed.as_ref().map_or(0, |it| it.offset.get());
                self.units.insert(mine.unit, (mine.epoch, next));
            }
            Consumed::Event(GroupEvent::Revoke { unit, epoch }) => {
                self.commit(node, &unit);
                self.units.remove(&unit);
                self.consumer.handle().confirm_revoked(&unit, epoch).unwrap();
            }
            Consumed::Event(other) => panic!("{other:?}"),
            Consumed::Data(UnitData { unit, epoch, data, .. }) => {
                let (of, next) = self.units.get_mut(&unit).unwrap_or_else(|| panic!("{unit} is not its"));
                assert_eq!((*of, *next), (epoch, data.from_offset.get()), "{unit}");
                let offsets: Vec<u64> = data.records().map(|record| record.unwrap().offset.get()).collect();
                assert_eq!(offsets, (*next..data.next_offset.get()).collect::<Vec<_>>(), "{unit}");
                *next = data.next_offset.get();
            }
        }
    }
}

fn come_and_go(seed: u64) {
    const PARTITIONS: u32 = 5;
    let sim = Sim::new(seed);
    let random = SimRandom::new(seed);
    let node = simulated(&sim);
    node.create("t", PARTITIONS).unwrap();
    let mut all = vec![Reading::join(&node, None, 300)];
    for _ in 0..600 {
        let index = usize::try_from(random.below(all.len() as u64)).unwrap();
        match random.below(12) {
            0..=2 => {
                let partition = u32::try_from(random.below(PARTITIONS.into())).unwrap();
                node.say("t", partition, "x").unwrap();
            }
            3 => all[index].consumer.credit().grant(random.below(400)),
            4 if random.one_in(4) && all.len() < 4 => all.push(Reading::join(&node, None, random.below(300))),
            5 if random.one_in(6) && all.len() > 1 => all.swap_remove(index).leave(&node),
            6 if random.one_in(6) => {
                let lost = all.swap_remove(index);
                let id = lost.consumer.id();
                drop(lost);
                sim.scheduler.run_for(Duration::from_millis(random.below(5)));
                all.push(Reading::join(&node, Some(id), random.below(300)));
            }
            _ => {
                let reading = &mut all[index];
                if let Some(came) = reading.ask(&sim, random.below(6)) {
                    reading.take(&node, came);
                }
            }
        }
    }
    let ends: u64 = (0..PARTITIONS).map(|partition| node.end("t", partition).get()).sum();
    for _ in 0..10_000 {
        let read = all.iter().flat_map(|reading| reading.units.values()).map(|(_, next)| next).sum::<u64>();
        if read == ends {
            all.into_iter().for_each(|reading| reading.leave(&node));
            node.broker.close().unwrap();
            return;
        }
        for reading in &mut all {
            reading.consumer.credit().grant(100);
            if let Some(came) = reading.ask(&sim, 5) {
                reading.take(&node, came);
            }
        }
    }
    panic!("not all of {ends} records came");
}

#[test]
fn whoever_comes_and_goes_each_owner_reads_on_without_a_gap_or_a_double() {
    for seed in 0..60 {
        if let Err(panic) = std::panic::catch_unwind(|| come_and_go(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
