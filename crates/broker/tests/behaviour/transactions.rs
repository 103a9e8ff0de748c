//! Transactions that a client drives: all of a transaction's records become visible together, or none ever does.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use logmill_broker::{
    Acks, Broker, Config, Error, InitTransactions, Limits, ListTransactions, Outcome, Payload, Produce,
    ProduceRecord, ProduceResult, ProducerEpoch, ProducerSequence, Reason, TransactionState,
};
use logmill_log::sim::{Fault, Op, Rule, Sim};

use crate::common::{Node, on, simulated, until_off};

/// A producer of transactions, and how many records of its epoch it has sent to each of two partitions.
#[derive(Clone)]
pub(crate) struct Writer {
    node: Node,
    id: &'static str,
    producer: ProducerEpoch,
    sent: [i32; 2],
}

impl Writer {
    pub(crate) fn begin(node: &Node, id: &'static str) -> Result<Self, Error> {
        let producer = node.wait(node.broker.init_transactions(&node.context, InitTransactions::new(id)))?;
        Ok(Self { node: node.clone(), id, producer, sent: [0; 2] })
    }

    pub(crate) fn send_with(&mut self, partition: u32, value: &str, acks: Acks) -> Result<(), Error> {
        self.node.wait(self.sending(partition, value, acks))?.remove(0).outcome?;
        self.sent[partition as usize] += 1;
        Ok(())
    }

    pub(crate) fn sending(
        &self,
        partition: u32,
        value: &str,
        acks: Acks,
    ) -> impl Future<Output = Result<Vec<ProduceResult>, Error>> + use<> {
        let ProducerEpoch { id, epoch } = self.producer;
        let sequence = ProducerSequence { id, epoch, base_sequence: self.sent[partition as usize] };
        let record = ProduceRecord { value: Some(value.to_owned().into()), ..ProduceRecord::default() };
        let payload = Payload::InTransaction(sequence, vec![record]);
        let produce = Produce { topic: "t".into(), partition: Some(partition), payload, acks, sent_at: None };
        self.node.broker.produce(&self.node.context, produce)
    }

    pub(crate) fn send(&mut self, partition: u32, value: &str) -> Result<(), Error> {
        self.send_with(partition, value, Acks::Durable)
    }

    fn end(&mut self, outcome: Outcome) -> Result<ProducerEpoch, Error> {
        let next = self.node.wait(self.ending(outcome))?;
        self.go_on(next);
        Ok(next)
    }

    pub(crate) fn ending(
        &self,
        outcome: Outcome,
    ) -> impl Future<Output = Result<ProducerEpoch, Error>> + use<> {
        self.node.broker.end_transaction(&self.node.context, self.id, self.producer, outcome)
    }

    pub(crate) fn go_on(&mut self, next: ProducerEpoch) {
        if next != self.producer {
            (self.producer, self.sent) = (next, [0; 2]);
        }
    }
}

/// A node with a topic of two partitions, on a simulated machine.
pub(crate) fn node(sim: &Sim) -> Node {
    let node = simulated(sim);
    node.create("t", 2).unwrap();
    node
}

pub(crate) fn read(node: &Node) -> [Vec<String>; 2] {
    [0, 1].map(|partition| node.read_all("t", partition).unwrap())
}

#[test]
fn records_of_a_transaction_become_visible_together_and_only_when_it_is_committed() {
    let sim = Sim::new(1);
    let node = node(&sim);
    let mut writer = Writer::begin(&node, "shop").unwrap();
    writer.send(0, "a").unwrap();
    writer.send(1, "b").unwrap();
    node.say("t", 0, "outside, behind it").unwrap();
    assert_eq!(read(&node), [vec![], Vec::<String>::new()], "nothing is read past an open transaction");
    let next = writer.end(Outcome::Commit).unwrap();
    assert_eq!(read(&node), [vec!["a", "outside, behind it"], vec!["b"]]);
    assert_eq!((next.id, next.epoch), (writer.producer.id, 1));

    writer.send(0, "c").unwrap();
    writer.send(1, "d").unwrap();
    writer.end(Outcome::Abort).unwrap();
    writer.send(1, "e").unwrap();
    writer.end(Outcome::Commit).unwrap();
    assert_eq!(read(&node), [vec!["a", "outside, behind it"], vec!["b", "e"]]);
    assert_eq!(
        writer.end(Outcome::Commit).unwrap(),
        writer.producer,
        "without a transaction nothing is written"
    );
    node.broker.close().unwrap();

    let node = simulated(&sim);
    assert_eq!(read(&node), [vec!["a", "outside, behind it"], vec!["b", "e"]]);
    node.broker.close().unwrap();
}

#[test]
fn an_answer_that_was_lost_is_given_again_and_another_one_is_not() {
    let sim = Sim::new(2);
    let node = node(&sim);
    let mut writer = Writer::begin(&node, "shop").unwrap();
    writer.send(0, "a").unwrap();
    let (before, next) = (writer.producer, writer.end(Outcome::Commit).unwrap());
    let again = |outcome| node.wait(node.broker.end_transaction(&node.context, "shop", before, outcome));
    assert_eq!(again(Outcome::Commit).unwrap(), next);
    assert_eq!(again(Outcome::Abort).unwrap_err().reason(), Reason::ProducerFenced);
    node.broker.close().unwrap();
    drop(node);

    let node = simulated(&sim);
    let again = node.broker.end_transaction(&node.context, "shop", before, Outcome::Commit);
    let producer = node.wait(again).unwrap();
    assert_ne!(producer, next, "after a start another producer goes on");
    let mut writer = Writer { node: node.clone(), id: "shop", producer, sent: [0; 2] };
    writer.send(0, "b").unwrap();
    writer.end(Outcome::Commit).unwrap();
    assert_eq!(read(&node)[0], ["a", "b"]);
    node.broker.close().unwrap();
}

#[test]
fn an_end_that_comes_again_late_does_not_end_the_next_transaction() {
    let sim = Sim::new(12);
    let node = node(&sim);
    let mut writer = Writer::begin(&node, "shop").unwrap();
    let before = writer.producer;
    // There was nothing to end.
    let next = writer.end(Outcome::Commit).unwrap();
    assert_ne!(next, before);
    writer.send(0, "half").unwrap();
    let late = node.broker.end_transaction(&node.context, "shop", before, Outcome::Commit);
    assert_eq!(node.wait(late).unwrap(), next);
    assert_eq!(read(&node)[0], Vec::<String>::new(), "it goes on");
    writer.send(1, "the other half").unwrap();
    writer.end(Outcome::Commit).unwrap();
    assert_eq!(read(&node), [["half"], ["the other half"]]);
    node.broker.close().unwrap();
}

#[test]
fn who_begins_anew_fences_who_wrote_before_and_aborts_what_it_left() {
    let sim = Sim::new(3);
    let node = node(&sim);
    let mut old = Writer::begin(&node, "shop").unwrap();
    old.send(0, "left behind").unwrap();
    let mut new = Writer::begin(&node, "shop").unwrap();
    assert_eq!(new.producer.id, old.producer.id);
    assert_eq!(old.send(1, "late").unwrap_err().reason(), Reason::ProducerFenced);
    for outcome in [Outcome::Commit, Outcome::Abort] {
        assert_eq!(
            old.end(outcome).unwrap_err().reason(),
            Reason::ProducerFenced,
            "it is not told the new epoch"
        );
    }
    new.send(0, "new").unwrap();
    new.end(Outcome::Commit).unwrap();
    assert_eq!(read(&node), [vec!["new".to_owned()], vec![]]);
    node.broker.close().unwrap();
    drop(node);

    let node = simulated(&sim);
    let mut old = Writer { node: node.clone(), ..old };
    assert_eq!(old.send(1, "later").unwrap_err().reason(), Reason::ProducerFenced, "also after a start");
    node.broker.close().unwrap();
}

#[test]
fn a_transaction_that_nobody_ends_is_aborted_in_time_and_its_producer_is_told() {
    let sim = Sim::new(4);
    let node = node(&sim);
    let mut writer = Writer::begin(&node, "shop").unwrap();
    writer.send(0, "left behind").unwrap();
    node.say("t", 0, "outside").unwrap();
    sim.scheduler.run_for(Duration::from_secs(59));
    assert!(read(&node)[0].is_empty());
    sim.scheduler.run_for(Duration::from_secs(2));
    assert_eq!(read(&node)[0], ["outside"]);
    for told in [writer.send(0, "late").unwrap_err(), writer.end(Outcome::Commit).unwrap_err()] {
        assert_eq!(told.reason(), Reason::TransactionAborted);
        assert!(told.message().contains("timeout of 60000 ms"), "{told}");
    }
    let mut again = Writer::begin(&node, "shop").unwrap();
    again.send(0, "again").unwrap();
    sim.scheduler.run_for(Duration::from_secs(50));
    again.end(Outcome::Commit).unwrap();
    again.send(0, "next").unwrap();
    // The time of the one before is over, and this one has its own.
    sim.scheduler.run_for(Duration::from_secs(50));
    again.end(Outcome::Commit).unwrap();
    assert_eq!(read(&node)[0], ["outside", "again", "next"]);
    node.broker.close().unwrap();
}

#[test]
fn an_operator_sees_what_holds_readers_up_and_ends_it() {
    let sim = Sim::new(5);
    let node = node(&sim);
    let mut writer = Writer::begin(&node, "shop").unwrap();
    Writer::begin(&node, "idle").unwrap();
    writer.send(1, "a").unwrap();
    let list = |ongoing_only| {
        let request = ListTransactions { ongoing_only, ..ListTransactions::default() };
        node.wait(node.broker.list_transactions(&node.context, request)).unwrap().transactions
    };
    assert_eq!(list(false).len(), 2);
    let [info] = &list(true)[..] else { panic!("one is going on") };
    assert_eq!((&*info.transactional_id, info.state), ("shop", TransactionState::Ongoing));
    assert_eq!(info.partitions, [("t".to_owned(), 1)]);

    node.wait(node.broker.abort_transaction(&node.context, "shop")).unwrap();
    assert!(list(true).is_empty());
    assert_eq!(writer.end(Outcome::Commit).unwrap_err().reason(), Reason::TransactionAborted);
    let info = node.wait(node.broker.describe_transaction(&node.context, "shop")).unwrap();
    assert_eq!((info.state, info.last_outcome), (TransactionState::Empty, Some(Outcome::Abort)));
    let nobody = node.wait(node.broker.describe_transaction(&node.context, "nobody")).unwrap_err();
    assert_eq!(nobody.reason(), Reason::TransactionNotFound);
    node.broker.close().unwrap();
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_is_done() {
    let sim = Sim::new(6);
    let node = node(&sim);
    let init = |id: &str, timeout| {
        let request = InitTransactions { transactional_id: id.to_owned(), timeout };
        node.wait(node.broker.init_transactions(&node.context, request)).unwrap_err().reason()
    };
    let minute = Duration::from_secs(60);
    assert_eq!(init("", minute), Reason::RequestInvalid);
    assert_eq!(init("a\0b", minute), Reason::RequestInvalid);
    assert_eq!(init(&"x".repeat(250), minute), Reason::RequestInvalid);
    assert_eq!(init("x", Duration::ZERO), Reason::RequestInvalid);
    assert_eq!(init("x", Duration::from_secs(901)), Reason::RequestInvalid);
    let mut writer = Writer::begin(&node, "shop").unwrap();
    let known = writer.producer;
    writer.producer = ProducerEpoch { id: 4711, epoch: 0 };
    assert_eq!(writer.send(0, "of nobody").unwrap_err().reason(), Reason::TransactionNotFound);
    writer.producer = ProducerEpoch { epoch: 7, ..known };
    assert_eq!(writer.send(0, "of an epoch to come").unwrap_err().reason(), Reason::ProducerFenced);
    assert_eq!(writer.end(Outcome::Commit).unwrap_err().reason(), Reason::ProducerFenced);
    let end = node.broker.end_transaction(&node.context, "nobody", known, Outcome::Commit);
    assert_eq!(node.wait(end).unwrap_err().reason(), Reason::TransactionNotFound);
    assert_eq!(read(&node), [vec![], Vec::<String>::new()]);
    assert_eq!((node.end("t", 0).get(), node.end("t", 1).get()), (0, 0));
    node.broker.close().unwrap();
}

#[test]
fn a_producer_whose_epochs_are_used_up_goes_on_under_another_id_without_a_gap() {
    let sim = Sim::new(7);
    let node = node(&sim);
    let mut writer = Writer::begin(&node, "shop").unwrap();
    let first = writer.producer;
    let mut committed = Vec::new();
    // Each beginning takes an epoch, and each transaction: the last ones are transactions.
    while writer.producer.epoch < i16::MAX - 3 {
        writer.producer = Writer::begin(&node, "shop").unwrap().producer;
    }
    for n in 0..6 {
        let value = format!("{n}");
        writer.send(0, &value).unwrap();
        writer.end(Outcome::Commit).unwrap();
        committed.push(value);
    }
    assert_ne!(writer.producer.id, first.id);
    assert_eq!(writer.producer.epoch, 3);
    assert_eq!(read(&node)[0], committed);
    node.broker.close().unwrap();
    drop(node);

    let node = simulated(&sim);
    let mut writer = Writer { node: node.clone(), ..writer };
    assert_eq!(writer.send(0, "not begun").unwrap_err().reason(), Reason::TransactionAborted);
    let mut writer = Writer::begin(&node, "shop").unwrap();
    writer.send(0, "after a start").unwrap();
    writer.end(Outcome::Commit).unwrap();
    assert_eq!(read(&node)[0].last().unwrap(), "after a start");
    node.broker.close().unwrap();
}

#[test]
fn what_was_acknowledged_as_written_and_lost_is_never_committed() {
    let sim = Sim::new(8);
    let node = node(&sim);
    let mut writer = Writer::begin(&node, "shop").unwrap();
    writer.send(1, "on disk").unwrap();
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/topics/*"));
    writer.send_with(0, "lost", Acks::Written).unwrap();
    sim.scheduler.run_for(Duration::from_secs(1));
    let told = writer.end(Outcome::Commit).unwrap_err();
    assert_eq!(told.reason(), Reason::TransactionAborted, "{told}");
    assert_eq!(read(&node), [vec![], Vec::<String>::new()]);
    let mut again = Writer::begin(&node, "shop").unwrap();
    again.send(0, "again").unwrap();
    again.end(Outcome::Commit).unwrap();
    assert_eq!(read(&node), [vec!["again".to_owned()], vec![]]);
    node.broker.close().unwrap();
}

/// The partition that has lost a record was opened again, and all that came since is on disk.
#[test]
fn what_was_lost_is_missed_also_where_the_transaction_went_on_in_the_partition() {
    let sim = Sim::new(9);
    let node = node(&sim);
    let mut writer = Writer::begin(&node, "shop").unwrap();
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/topics/*"));
    writer.send_with(0, "lost", Acks::Written).unwrap();
    // With its sync the other one is lost, too.
    writer.send(0, "refused").unwrap_err();
    sim.scheduler.run_for(Duration::from_secs(1));
    // The log that was opened again knows nothing of either.
    writer.sent = [0; 2];
    writer.send(0, "on disk").unwrap();
    let told = writer.end(Outcome::Commit).unwrap_err();
    assert_eq!(told.reason(), Reason::TransactionAborted, "{told}");
    assert_eq!(read(&node), [vec![], Vec::<String>::new()]);
    node.broker.close().unwrap();
}

#[test]
fn what_was_acknowledged_as_written_and_lost_with_the_power_is_never_committed() {
    let mut sim = Sim::new(10);
    let node = node(&sim);
    let mut writer = Writer::begin(&node, "shop").unwrap();
    writer.send_with(0, "lost", Acks::Written).unwrap();
    drop(node);
    sim.crash();
    let node = simulated(&sim);
    let mut writer = Writer { node: node.clone(), ..writer };
    for told in [writer.send(1, "the rest").unwrap_err(), writer.end(Outcome::Commit).unwrap_err()] {
        assert_eq!(told.reason(), Reason::TransactionAborted, "{told}");
    }
    node.broker.close().unwrap();
    drop(node);

    // Also if the node was closed well since.
    let node = simulated(&sim);
    let mut writer = Writer { node: node.clone(), ..writer };
    writer.end(Outcome::Commit).unwrap_err();
    let mut again = Writer::begin(&node, "shop").unwrap();
    again.send(0, "again").unwrap();
    again.end(Outcome::Commit).unwrap();
    assert_eq!(read(&node), [vec!["again".to_owned()], vec![]]);
    node.broker.close().unwrap();
}

#[test]
fn no_record_of_the_old_producer_comes_in_while_the_new_one_begins() {
    let sim = Sim::new(11);
    let node = node(&sim);
    let mut old = Writer::begin(&node, "shop").unwrap();
    // What says who writes is long under way.
    let stall = Rule::new(Fault::Stall(Duration::from_secs(1))).on(Op::SyncData);
    sim.fs.inject(stall.path("*/internal/transactions/*"));
    let mut begins = pin!(node.broker.init_transactions(&node.context, InitTransactions::new("shop")));
    assert!(begins.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    sim.scheduler.run_for(Duration::from_millis(100));
    old.send(0, "late").unwrap_err();
    let producer = node.wait(begins).unwrap();
    let mut new = Writer { node: node.clone(), id: "shop", producer, sent: [0; 2] };
    new.send(1, "new").unwrap();
    new.end(Outcome::Commit).unwrap();
    assert_eq!(read(&node), [vec![], vec!["new".to_owned()]]);
    node.broker.close().unwrap();
}

#[test]
fn a_failed_sync_of_the_decision_or_of_a_marker_only_takes_longer() {
    for (which, path) in [("decision", "*/internal/transactions/*"), ("marker", "*/topics/*")] {
        for nth in 1..=4 {
            let sim = Sim::new(9);
            let node = node(&sim);
            let mut writer = Writer::begin(&node, "shop").unwrap();
            writer.send(0, "a").unwrap();
            writer.send(1, "b").unwrap();
            sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path(path).nth(nth));
            writer.end(Outcome::Commit).unwrap_or_else(|error| panic!("{which} {nth}: {error}"));
            assert_eq!(read(&node), [["a"], ["b"]], "{which} {nth}");
            sim.fs.clear_rules();
            node.broker.close().unwrap();
        }
    }
}

/// What the caller was told, and what it has asked for.
#[derive(Debug, Default)]
struct Told {
    created: bool,
    /// Values of transactions that were committed, and of those of which it is not known.
    committed: Vec<&'static str>,
    perhaps: Option<&'static str>,
    aborted: Vec<&'static str>,
}

/// Two transactions that are committed, one between them that is aborted, one that is left; until the power goes.
fn work(sim: &Sim, node: &Node, told: &mut Told) -> Result<(), Error> {
    node.create("t", 2)?;
    told.created = true;
    let init = node.broker.init_transactions(&node.context, InitTransactions::new("shop"));
    let Some(producer) = until_off(sim, init) else { return Ok(()) };
    let mut writer = Writer { node: node.clone(), id: "shop", producer: producer?, sent: [0; 2] };
    for (value, outcome) in [("one", Outcome::Commit), ("two", Outcome::Abort), ("three", Outcome::Commit)] {
        writer.send(0, value)?;
        writer.send(1, value)?;
        if outcome == Outcome::Commit {
            told.perhaps = Some(value);
        } else {
            told.aborted.push(value);
        }
        let Some(next) = until_off(sim, writer.ending(outcome)) else { return Ok(()) };
        writer.go_on(next?);
        told.committed.extend(told.perhaps.take());
    }
    told.aborted.push("left");
    writer.send(0, "left")?;
    writer.send(1, "left")
}

fn check(node: &Node, told: &Told, when: &str) {
    if !told.created {
        return;
    }
    let [one, other] = read(node);
    assert_eq!(one, other, "{when}: all or none");
    let mut expected: Vec<&str> = told.committed.clone();
    if let Some(perhaps) = told.perhaps.filter(|perhaps| one.iter().any(|value| value == perhaps)) {
        expected.push(perhaps);
    }
    assert_eq!(one, expected, "{when}: {told:?}");
    let request = ListTransactions { ongoing_only: true, ..ListTransactions::default() };
    let open = node.wait(node.broker.list_transactions(&node.context, request)).unwrap();
    assert!(open.transactions.is_empty(), "{when}: nothing dangles");
    let mut writer = Writer::begin(node, "shop").unwrap();
    writer.send(0, "works").unwrap();
    writer.send(1, "works").unwrap();
    writer.end(Outcome::Commit).unwrap();
    let [one, other] = read(node);
    assert_eq!((one.last().unwrap(), &one), (&"works".to_owned(), &other), "{when}");
}

/// Whether the power went at the `nth` change of the disk.
fn run(seed: u64, nth: u64) -> bool {
    let mut sim = Sim::new(seed);
    let mut told = Told::default();
    sim.fs.power_off_at(nth);
    if let Ok(broker) = Broker::open(on(&sim)) {
        let node = Node::of(broker);
        let worked = work(&sim, &node, &mut told);
        assert!(worked.is_ok() || sim.fs.is_off(), "seed {seed}, change {nth}: {worked:?}");
        sim.scheduler.run_for(Duration::from_secs(1));
    }
    let went = sim.fs.is_off();
    sim.crash();
    // A start that is cut off makes nothing worse.
    sim.fs.power_off_at(1 + nth % 13);
    if let Ok(broker) = Broker::open(on(&sim)) {
        sim.scheduler.run_for(Duration::from_secs(1));
        drop(broker);
    }
    sim.crash();
    let node = simulated(&sim);
    check(&node, &told, &format!("seed {seed}, change {nth}"));
    node.broker.close().unwrap();
    went
}

#[test]
fn a_transaction_is_whole_or_not_there_whenever_the_power_goes() {
    for seed in 1..=3 {
        let points = (1..).take_while(|nth| run(seed, *nth)).count();
        assert!(points > 100, "the workload changes the disk often: {points}");
    }
}

#[test]
fn a_record_of_a_transaction_is_not_sent_without_an_answer() {
    let sim = Sim::new(24);
    let node = node(&sim);
    let mut writer = Writer::begin(&node, "shop").unwrap();
    writer.send(0, "a").unwrap();
    // Nobody would hear that it was refused, and the transaction would be committed without it.
    let refused = writer.send_with(1, "b", Acks::None).unwrap_err();
    assert_eq!(refused.reason(), Reason::RequestInvalid, "{refused}");
    writer.end(Outcome::Commit).unwrap();
    assert_eq!(read(&node), [vec!["a"], vec![]]);
    node.broker.close().unwrap();
}

#[test]
fn an_id_that_nobody_has_used_for_a_week_makes_room_for_another() {
    let sim = Sim::new(25);
    let limits = Limits { max_transactional_ids: 2, ..Limits::default() };
    let open = || Node::open(Config { limits: limits.clone(), ..on(&sim) });
    let node = open();
    node.create("t", 2).unwrap();
    let mut old = Writer::begin(&node, "old").unwrap();
    let mut used = Writer::begin(&node, "used").unwrap();
    sim.clock.advance(Duration::from_hours(5 * 24));
    used.send(0, "a").unwrap();
    used.end(Outcome::Commit).unwrap();
    let refused = Writer::begin(&node, "new").err().unwrap();
    assert_eq!(refused.reason(), Reason::LimitExceeded);
    sim.clock.advance(Duration::from_hours(3 * 24));
    let mut new = Writer::begin(&node, "new").unwrap();
    // Neither of the two is a week old.
    assert_eq!(Writer::begin(&node, "newer").err().unwrap().reason(), Reason::LimitExceeded);
    // Whoever wrote under it writes no more.
    assert!(old.send(0, "zombie").is_err());
    assert_eq!(old.end(Outcome::Commit).unwrap_err().reason(), Reason::TransactionNotFound);
    for writer in [&mut used, &mut new] {
        writer.send(1, "b").unwrap();
        writer.end(Outcome::Commit).unwrap();
    }
    assert_eq!(read(&node), [vec!["a"], vec!["b", "b"]]);
    node.broker.close().unwrap();

    let node = open();
    let ids = node.wait(node.broker.list_transactions(&node.context, ListTransactions::default())).unwrap();
    let ids: Vec<_> = ids.transactions.iter().map(|it| &*it.transactional_id).collect();
    assert_eq!(ids, ["new", "used"]);
    node.broker.close().unwrap();
}
