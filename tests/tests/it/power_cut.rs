//! The broker over a simulated disk that loses power in mid-produce: the same promises as after a
//! kill, where a kill cannot test them. One seed is one identical run.
//!
//! The twin with a disk that only pretends to sync has to fail: a checker that cannot fail proves
//! nothing.

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use logmill_broker::{
    Acks, Broker, Config, CreateTopic, Error, Fetch, FetchFrom, Payload, Position, Produce, ProduceRecord,
    RequestContext, decode,
};
use logmill_log::env::{Env, block_on};
use logmill_log::sim::{Sim, SimRandom};
use logmill_record::Offset;

const TOPIC: &str = "t";
const PARTITIONS: usize = 2;
const SEEDS: u64 = 60;

/// What a reader of one partition may expect.
#[derive(Default)]
struct Expected {
    /// Values in the order sent; whether they were stored or not.
    sent: Vec<Bytes>,
    /// How many of them were acknowledged with an offset: always the first ones of their power cycle.
    acknowledged: Vec<(Offset, Bytes)>,
    /// The longest run of values that a reader was shown.
    shown: Vec<Bytes>,
}

type Answer = Pin<Box<dyn Future<Output = Option<Offset>>>>;

/// A produce call that is under way.
struct UnderWay {
    partition: usize,
    value: Bytes,
    answer: Answer,
}

fn open(env: &Env) -> Broker {
    // Segments of a few batches, so that rolls and sealed segments are part of it.
    let without = Config { reserve_bytes: 0, low_space_bytes: 0, ..Config::new("/data") };
    let config = Config { env: env.clone(), segment_bytes: 2_000, ..without };
    Broker::open(config).expect("the broker opens over what a power cut left")
}

fn produce(broker: &Broker, partition: usize, value: Bytes) -> UnderWay {
    let record = ProduceRecord { value: Some(value.clone()), ..ProduceRecord::default() };
    let request = Produce {
        topic: TOPIC.into(),
        partition: Some(u32::try_from(partition).unwrap()),
        payload: Payload::Records(vec![record]),
        acks: Acks::Durable,
        sent_at: None,
    };
    let answer = broker.produce(&RequestContext::embedded(), request);
    let answer = async move { Some(answer.await.ok()?.pop()?.outcome.ok()?.first_offset) };
    UnderWay { partition, value, answer: Box::pin(answer) }
}

/// All values of a partition; an error only of a machine that has lost its power.
fn read(sim: &Sim, env: &Env, broker: &Broker, partition: usize) -> Result<Vec<Bytes>, Error> {
    let mut values = Vec::new();
    let mut next = Offset(0);
    loop {
        let from = FetchFrom::new(TOPIC, u32::try_from(partition).unwrap(), Position::Offset(next));
        let fetch = broker.fetch(&RequestContext::embedded(), Fetch::new(vec![from]));
        let data = block_on(&*env.scheduler, fetch).map(|mut data| data.remove(0));
        let data = data.and_then(|mut data| data.error.take().map_or(Ok(data), Err));
        let data =
            data.inspect_err(|error| assert!(sim.fs.is_off(), "the partition can be read: {error}"))?;
        for chunk in data.chunks {
            values
                .extend(decode(chunk.batches, data.from_offset).map(|record| record.unwrap().value.unwrap()));
        }
        if data.next_offset == data.end_offset {
            return Ok(values);
        }
        next = data.next_offset;
    }
}

/// Produces and reads at random, until the power goes.
fn work(sim: &Sim, env: &Env, broker: &Broker, random: &SimRandom, expected: &mut [Expected]) {
    let mut under_way: Vec<UnderWay> = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    let steps = 20 + random.below(200);
    if random.one_in(2) {
        // In the middle of a write or a sync, instead of between two steps.
        sim.fs.power_off_at(1 + random.below(steps));
    }
    for _ in 0..steps {
        if random.one_in(2) {
            let partition = usize::try_from(random.below(PARTITIONS as u64)).unwrap();
            let Expected { sent, .. } = &mut expected[partition];
            let filler = "x".repeat(usize::try_from(random.below(700)).unwrap());
            let value = Bytes::from(format!("{} {filler}", sent.len()));
            sent.push(value.clone());
            under_way.push(produce(broker, partition, value));
        } else if random.one_in(20) {
            let partition = usize::try_from(random.below(PARTITIONS as u64)).unwrap();
            if let Ok(shown) = read(sim, env, broker, partition) {
                expected[partition].shown = shown;
            }
        } else {
            sim.scheduler.step();
        }
        under_way.retain_mut(|call| match call.answer.as_mut().poll(&mut cx) {
            Poll::Pending => true,
            Poll::Ready(offset) => {
                if let Some(offset) = offset {
                    expected[call.partition].acknowledged.push((offset, call.value.clone()));
                }
                false
            }
        });
    }
}

/// Acknowledged ⊆ recovered ⊆ sent, in order and once; shown ⊆ recovered.
fn check(found: &[Bytes], expected: &Expected) {
    for (offset, value) in &expected.acknowledged {
        let at = usize::try_from(offset.get()).unwrap();
        assert_eq!(found.get(at), Some(value), "acknowledged at offset {offset}");
    }
    let mut sent = expected.sent.iter();
    for value in found {
        assert!(sent.any(|other| other == value), "{value:?} was never sent, is doubled, or out of order");
    }
    assert!(found.starts_with(&expected.shown), "a reader was shown what the power cut took back");
}

/// Several power cuts over one disk.
fn run(seed: u64, lie: bool) {
    let mut sim = Sim::new(seed);
    let random = sim.random();
    let mut expected: Vec<Expected> = (0..PARTITIONS).map(|_| Expected::default()).collect();
    let mut env = sim.env();
    let broker = open(&env);
    let topic = CreateTopic::new(TOPIC).partitions(u32::try_from(PARTITIONS).unwrap());
    block_on(&*env.scheduler, broker.create_topic(&RequestContext::embedded(), topic)).unwrap();
    drop(broker);
    env = sim.kill();
    sim.fs.lie_about_sync(lie);
    for _ in 0..4 {
        let broker = open(&env);
        for (partition, expected) in expected.iter_mut().enumerate() {
            let found = read(&sim, &env, &broker, partition).unwrap();
            check(&found, expected);
            // What was of unknown outcome is known now.
            expected.shown = found;
        }
        work(&sim, &env, &broker, &random, &mut expected);
        drop(broker);
        env = sim.crash();
    }
    let broker = open(&env);
    for (partition, expected) in expected.iter().enumerate() {
        check(&read(&sim, &env, &broker, partition).unwrap(), expected);
    }
    broker.close().unwrap();
}

#[test]
fn a_power_cut_loses_doubles_and_reorders_nothing() {
    for seed in 0..SEEDS {
        // The seed is all that is needed to see a failure again.
        let failed = catch_unwind(AssertUnwindSafe(|| run(seed, false))).is_err();
        assert!(!failed, "seed {seed}");
    }
}

#[test]
fn without_syncs_the_same_test_fails() {
    let found = RefCell::new(0);
    quietly(|| {
        for seed in 0..SEEDS {
            if catch_unwind(AssertUnwindSafe(|| run(seed, true))).is_err() {
                *found.borrow_mut() += 1;
            }
        }
    });
    let found = found.into_inner();
    println!("{found} of {SEEDS} seeds found the missing sync");
    assert!(found > SEEDS / 4, "only {found} of {SEEDS} seeds found it");
}

/// Without the message of every panic that is expected.
fn quietly(work: impl FnOnce()) {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    work();
    std::panic::set_hook(hook);
}
