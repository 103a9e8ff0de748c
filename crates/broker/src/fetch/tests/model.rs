//! Random transactions of several producers, and readers that come along: what they are given is what a model says that
//! knows nothing but what was appended, and how far it is on disk.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "the numbers of a test are small"
)]

use std::collections::BTreeMap;

use logmill_log::sim::SimRandom;

use super::*;
use crate::fetch::{Subscribe, Subscription};

const PRODUCERS: i64 = 3;

/// Whose a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// No transaction's.
    None,
    /// One of the model's transactions.
    Transaction(usize),
    /// It is a marker.
    Nobody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// By the marker at this offset.
    Committed(u64),
    Aborted(u64),
}

#[derive(Debug)]
struct Transaction {
    first: u64,
    state: State,
}

#[derive(Default)]
struct Model {
    /// Each offset, in order.
    records: Vec<(Of, String)>,
    transactions: Vec<Transaction>,
    /// Of each producer: its next sequence, and its open transaction.
    producers: BTreeMap<i64, (i32, Option<usize>)>,
}

impl Model {
    fn end(&self) -> u64 {
        self.records.len() as u64
    }

    fn add(&mut self, of: Of, values: &[String]) {
        self.records.extend(values.iter().map(|value| (of, value.clone())));
    }

    /// A restart has aborted what was not decided, of one producer after the other.
    fn started_again(&mut self) {
        for id in 0..PRODUCERS {
            if let Some((_, open @ Some(_))) = self.producers.get_mut(&id)
                && let Some(number) = open.take()
            {
                self.transactions[number].state = State::Aborted(self.end());
                self.add(Of::Nobody, &["marker".to_owned()]);
            }
        }
    }

    /// How far readers of committed records see of a log whose readers see up to `end`, and that is on disk up to
    /// `durable`.
    fn stable(&self, end: u64, durable: u64) -> u64 {
        let holds_back = |transaction: &&Transaction| match transaction.state {
            State::Open => true,
            State::Committed(marker) | State::Aborted(marker) => marker >= durable,
        };
        let first = self.transactions.iter().filter(holds_back).map(|transaction| transaction.first).min();
        first.map_or(end, |first| first.min(end))
    }

    /// What a reader sees of these offsets.
    fn seen(&self, from: u64, to: u64, isolation: Isolation) -> Vec<(u64, String)> {
        let shown = |of: Of| match of {
            Of::None => true,
            Of::Nobody => false,
            Of::Transaction(number) => {
                isolation == Isolation::ReadUncommitted
                    || matches!(self.transactions[number].state, State::Committed(_))
            }
        };
        let offsets = (from..to).filter(|offset| shown(self.records[*offset as usize].0));
        offsets.map(|offset| (offset, self.records[offset as usize].1.clone())).collect()
    }
}

/// A producer does something, which may be on disk when it has, or not.
fn produce(node: &Node, random: &SimRandom, model: &mut Model) {
    let values: Vec<String> = (0..=random.below(3)).map(|i| format!("{}", model.end() + i)).collect();
    let texts: Vec<&str> = values.iter().map(String::as_str).collect();
    let id = random.below(PRODUCERS as u64) as i64;
    let offset = model.end();
    let (sequence, open) = *model.producers.entry(id).or_default();
    let batch = match (random.below(5), open) {
        (0, _) => {
            model.add(Of::None, &values);
            plain(&texts)
        }
        (1 | 2, Some(number)) => {
            let is_commit = random.one_in(2);
            let state = if is_commit { State::Committed(offset) } else { State::Aborted(offset) };
            model.transactions[number].state = state;
            model.producers.insert(id, (sequence, None));
            model.add(Of::Nobody, &["marker".to_owned()]);
            if is_commit { commit(id) } else { abort(id) }
        }
        _ => {
            let number = open.unwrap_or(model.transactions.len());
            if open.is_none() {
                model.transactions.push(Transaction { first: offset, state: State::Open });
            }
            model.producers.insert(id, (sequence + values.len() as i32, Some(number)));
            model.add(Of::Transaction(number), &values);
            in_transaction(id, sequence, &texts)
        }
    };
    let receipt = node.write(batch);
    assert_eq!(receipt.first_offset(), Offset(offset));
    match random.below(3) {
        0 => receipt.wait().unwrap(),
        1 => node.sim.scheduler.run_until_idle(),
        _ => drop(receipt),
    }
}

/// How far readers see, as the log's own ends and the model have it.
fn limit(node: &Node, model: &Model, isolation: Isolation) -> u64 {
    let (end, durable) = (node.log().end_offset().get(), node.log().durable_end().get());
    match isolation {
        Isolation::ReadCommitted => model.stable(end, durable),
        Isolation::ReadUncommitted => end,
    }
}

/// Checks what came for a reader at `from`, and returns where it goes on.
fn check(data: &PartitionData, model: &Model, from: u64, isolation: Isolation) -> u64 {
    let next = data.next_offset.get();
    assert!(next >= from, "the reader went back from {from} to {next}");
    assert_eq!(seen(data), model.seen(from, next, isolation));
    assert!(isolation == Isolation::ReadCommitted || data.aborted.is_empty());
    next
}

/// Reads once, from anywhere that it may. What was written may be synced while it does.
fn read(node: &Node, random: &SimRandom, model: &Model, from: u64, isolation: Isolation) -> u64 {
    let limits = || [limit(node, model, isolation), limit(node, model, Isolation::ReadCommitted)];
    let max_bytes = 1 + random.below(1_000) as usize;
    let before = limits();
    let data = node.fetch(Fetch::new(vec![at(from)]).max_bytes(max_bytes).isolation(isolation));
    let after = limits();
    let next = check(&data, model, from, isolation);
    assert!(next <= after[0].max(from), "it saw {next}, and might see {after:?}");
    assert!(next > from || from >= before[0], "nothing came from {from}, and there is {before:?}");
    let stable = data.last_stable_offset.get();
    assert!((before[1]..=after[1]).contains(&stable), "{stable}, and not {before:?} to {after:?}");
    next
}

/// A subscription that is asked now and then.
struct Follower {
    subscription: Subscription,
    isolation: Isolation,
    next: u64,
}

impl Follower {
    fn new(node: &Node, from: u64, isolation: Isolation) -> Self {
        let subscribe = Subscribe::new(vec![at(from)], 1 << 30).isolation(isolation);
        let subscription = node.wait(node.broker.subscribe(&node.context, subscribe)).unwrap();
        Self { subscription, isolation, next: from }
    }

    /// All that there is comes, and then it waits.
    fn catch_up(&mut self, node: &Node, model: &Model) {
        loop {
            let came = Polled::new(self.subscription.next()).run(&node.sim);
            // What was written may have been synced while it ran.
            let limit = limit(node, model, self.isolation);
            let Poll::Ready(data) = came else {
                assert!(
                    self.next >= limit,
                    "it waits at {}, and there is something up to {limit}",
                    self.next
                );
                return;
            };
            let next = check(&data.unwrap(), model, self.next, self.isolation);
            assert!(next > self.next && next <= limit, "it saw {next}, and might see {limit}");
            self.next = next;
        }
    }
}

fn run(seed: u64) {
    let random = SimRandom::new(seed);
    let mut node = if random.one_in(2) { Node::durable(seed) } else { Node::relaxed(seed) };
    let mut model = Model::default();
    let isolations = [Isolation::ReadCommitted, Isolation::ReadUncommitted];
    let mut readers = isolations.map(|isolation| (0, isolation));
    let mut followers = isolations.map(|isolation| Follower::new(&node, 0, isolation));
    for _ in 0..150 {
        match random.below(40) {
            0 => node.log().roll().unwrap(),
            1 => node.sim.scheduler.run_for(FLUSH),
            2 if random.one_in(3) => {
                node.open_again();
                model.started_again();
                for follower in &mut followers {
                    *follower = Follower::new(&node, follower.next, follower.isolation);
                }
            }
            3..13 => {
                let (next, isolation) = &mut readers[random.below(2) as usize];
                *next = read(&node, &random, &model, *next, *isolation);
                // And one that has nothing before.
                let from = random.below(node.log().end_offset().get() + 1);
                read(&node, &random, &model, from, *isolation);
            }
            13..18 => followers[random.below(2) as usize].catch_up(&node, &model),
            _ => produce(&node, &random, &mut model),
        }
    }
    for id in 0..PRODUCERS {
        if let Some((_, Some(number))) = model.producers.get(&id) {
            let offset = node.append(commit(id)).get();
            model.transactions[*number].state = State::Committed(offset);
            model.add(Of::Nobody, &["marker".to_owned()]);
        }
    }
    node.append(plain(&["last"]));
    model.add(Of::None, &["last".to_owned()]);
    for (mut next, isolation) in readers {
        while next < model.end() {
            next = read(&node, &random, &model, next, isolation);
        }
    }
    for follower in &mut followers {
        follower.catch_up(&node, &model);
        assert_eq!(follower.next, model.end());
    }
    drop(followers);
    node.broker.close().unwrap();
}

#[test]
fn readers_see_what_a_model_of_transactions_says() {
    for seed in 0..80 {
        let outcome = std::panic::catch_unwind(|| run(seed));
        if let Err(panic) = outcome {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
