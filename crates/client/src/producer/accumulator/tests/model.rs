//! Pushes, compresses, takes, refuses, breaks and expires by chance, against a node that keeps to the API. What the
//! node stored is in order and none twice; what was told stored is there, and what was told not stored is not.

use logmill_record::Inflater;

use super::*;
use crate::{Error, ErrorKind};

/// A partition of a node, as the API describes it: what it stores, what it remembers, what it refuses.
#[derive(Default)]
struct Node {
    stored: Vec<u8>,
    /// Epoch and next sequence.
    next: Option<(i16, i32)>,
    remembered: Vec<(i16, i32, u32)>,
    /// The first sequence that failed on the stream.
    failed: Option<(i16, i32)>,
}

impl Node {
    fn take(&mut self, it: &Outgoing, refuse: Option<Refused>) -> Result<(), Refused> {
        let header = it.batch.header();
        let (epoch, sequence) = (header.producer_epoch, header.base_sequence);
        if let Some(failed) = self.failed {
            let goes_on = (epoch, sequence) == failed || (epoch > failed.0 && sequence == 0);
            if !it.after_failure || !goes_on {
                return Err(Refused::ForOneBefore);
            }
            self.failed = None;
        }
        let answer = self.append(it, refuse);
        if answer.is_err() {
            self.failed = Some((epoch, sequence));
        }
        answer
    }

    fn append(&mut self, it: &Outgoing, refuse: Option<Refused>) -> Result<(), Refused> {
        let header = it.batch.header();
        let (epoch, sequence, count) = (header.producer_epoch, header.base_sequence, header.record_count);
        if let Some(refused) = refuse {
            return Err(refused);
        }
        if self.remembered.iter().rev().take(64).any(|known| *known == (epoch, sequence, count)) {
            return Ok(());
        }
        let expected = match self.next {
            Some((known, _)) if epoch < known => return Err(Refused::ForItsNumber),
            Some((known, next)) if epoch == known => Some(next),
            Some(_) => Some(0),
            None => None,
        };
        if expected.is_some_and(|expected| expected != sequence) {
            return Err(Refused::ForItsNumber);
        }
        let mut inflater = Inflater::default();
        let records = it.batch.records_with(&mut inflater).unwrap();
        self.stored.extend(records.map(|record| record.unwrap().value.unwrap()[0]));
        self.remembered.push((epoch, sequence, count));
        self.next = Some((epoch, sequence + count.cast_signed()));
        Ok(())
    }
}

#[test]
fn whatever_happens_each_record_is_stored_once_and_in_order() {
    let mut told = [0_u32; 3];
    for seed in 1..=2_000_u64 {
        let mut run = Run::new(seed);
        for _ in 0..300 {
            run.step();
        }
        run.end();
        told.iter_mut().zip(run.told()).for_each(|(sum, count)| *sum += count);
    }
    println!("{} stored, {} not stored, {} of unknown outcome", told[0], told[1], told[2]);
    assert!(told.iter().all(|count| *count > 1_000), "{told:?}");
}

struct Run {
    seed: u64,
    random: Random,
    fixture: Fixture,
    node: Node,
    pushed: u8,
    deliveries: Vec<Delivery>,
    /// Being compressed.
    outside: Vec<ToCompress>,
    /// Sent, and not yet with the node.
    wire: VecDeque<Outgoing>,
    /// What the node has said, and nobody has heard.
    answers: Vec<(u64, Result<(), Refused>)>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let compression = if seed.is_multiple_of(2) { Compression::None } else { Compression::Snappy };
        Run {
            seed,
            random: Random(seed),
            fixture: Fixture::compressing(300, 4_000, compression),
            node: Node::default(),
            pushed: 0,
            deliveries: Vec::new(),
            outside: Vec::new(),
            wire: VecDeque::new(),
            answers: Vec::new(),
        }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..6 if self.pushed < 200 => {
                let size = 1 + self.random.below(250) as usize;
                let wait = Duration::from_millis(20 + u64::from(self.random.below(100)));
                let delivery = self.fixture.try_push(0, &vec![self.pushed; size], wait).unwrap();
                self.deliveries.push(delivery);
                self.pushed += 1;
            }
            6..11 => self.take(),
            11..15 => self.node_takes(),
            15..18 if !self.answers.is_empty() => {
                let index = self.random.below(u32::try_from(self.answers.len()).unwrap()) as usize;
                let answer = self.answers.swap_remove(index);
                self.hear(answer);
            }
            18 => self.pass_time(),
            19 if self.random.below(4) == 0 => self.break_off(),
            _ => {}
        }
    }

    /// Goes on with what is to be sent, or with what was to be compressed before that.
    fn take(&mut self) {
        if !self.outside.is_empty() && self.random.below(2) == 0 {
            let work = self.outside.swap_remove(0);
            return self.fixture.compress(work);
        }
        match self.fixture.accumulator.take() {
            Next::Compress(work) => self.outside.push(work),
            Next::Send(it) => self.wire.push_back(it),
            Next::Nothing => {}
            next => panic!("{next:?}"),
        }
    }

    fn node_takes(&mut self) {
        let Some(it) = self.wire.pop_front() else { return };
        let refuse = match self.random.below(24) {
            0 => Some(Refused::ForGood),
            1 => Some(Refused::NotNow),
            2 => Some(Refused::Full),
            // Stored, and then a sync fails; or not stored.
            3 => {
                let stored = self.random.below(2) == 0 && self.node.failed.is_none();
                if stored && self.node.append(&it, None).is_ok() {
                    let header = it.batch.header();
                    self.node.failed = Some((header.producer_epoch, header.base_sequence));
                    self.answers.push((it.correlation_id, Err(Refused::Unknown)));
                    return;
                }
                Some(Refused::Unknown)
            }
            _ => None,
        };
        let answer = self.node.take(&it, refuse);
        self.answers.push((it.correlation_id, answer));
    }

    fn hear(&mut self, (id, answer): (u64, Result<(), Refused>)) {
        let error = Error::invalid("no");
        match answer {
            Ok(()) => {
                if let Some(tracked) = self.fixture.accumulator.finish(id) {
                    tracked.completion.complete(Ok(appended()));
                }
            }
            Err(refused) => match self.fixture.accumulator.refuse(id, refused, &error, self.fixture.now) {
                Fate::SentAgain => {}
                Fate::Fails(tracked) if refused == Refused::Lost => unknown(vec![tracked]),
                Fate::Fails(tracked) => not_stored(vec![tracked]),
                Fate::Unknown(tracked) => unknown(vec![tracked]),
            },
        }
    }

    fn pass_time(&mut self) {
        self.fixture.now += Duration::from_millis(u64::from(self.random.below(60)));
        self.fixture.accumulator.resume(self.fixture.now);
        let drained = self.fixture.accumulator.expire(self.fixture.now);
        not_stored(drained.not_stored);
        unknown(drained.unknown);
    }

    /// The stream breaks: what is on the wire may still arrive, the answers do not.
    fn break_off(&mut self) {
        while self.random.below(3) > 0 && !self.wire.is_empty() {
            self.node_takes();
        }
        self.wire.clear();
        self.answers.clear();
        self.node.failed = None;
        let lost = self.fixture.accumulator.put_all_back(&Error::invalid("broken"));
        assert!(lost.unknown.is_empty() && lost.not_stored.is_empty());
    }

    fn end(&mut self) {
        drop(self.fixture.accumulator.seal());
        for _ in 0..2_000 {
            self.fixture.now += Duration::from_millis(1);
            self.fixture.accumulator.resume(self.fixture.now + Duration::from_secs(60));
            self.take();
            if let Some(it) = self.wire.pop_front() {
                let answer = self.node.take(&it, None);
                self.answers.push((it.correlation_id, answer));
            }
            if let Some(answer) = self.answers.pop() {
                self.hear(answer);
            }
        }
        let (seed, accumulator) = (self.seed, &self.fixture.accumulator);
        assert!(accumulator.is_idle(), "seed {seed}: {accumulator:?}");
        assert_eq!((self.fixture.buffered(), accumulator.bytes_in_flight), (0, 0), "seed {seed}");
        assert!(self.node.stored.is_sorted_by(|a, b| a < b), "seed {seed}: {:?}", self.node.stored);
    }

    /// How many were told stored, not stored, and of unknown outcome; checked against what is stored.
    fn told(&mut self) -> [u32; 3] {
        let mut told = [0; 3];
        for (number, delivery) in (0_u8..).zip(std::mem::take(&mut self.deliveries)) {
            let is_stored = self.node.stored.contains(&number);
            let mut delivery = std::pin::pin!(delivery);
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let std::task::Poll::Ready(outcome) = delivery.as_mut().poll(&mut context) else {
                panic!("seed {}: record {number} has no end", self.seed)
            };
            let which = match outcome {
                Ok(_) => {
                    assert!(is_stored, "seed {}: record {number} is lost", self.seed);
                    0
                }
                Err(error) if error.kind() == ErrorKind::OutcomeUnknown => 2,
                Err(_) => {
                    assert!(!is_stored, "seed {}: record {number} was told not to be stored", self.seed);
                    1
                }
            };
            told[which] += 1;
        }
        told
    }
}

fn appended() -> crate::produce::Appended {
    let found = logmill_proto::v1::Appended::default();
    let outcome = Some(logmill_proto::v1::produce_result::Outcome::Appended(found));
    let result = logmill_proto::v1::ProduceResult { outcome, ..Default::default() };
    crate::produce::appended(vec![result], 1).unwrap()
}

fn not_stored(batches: Vec<Tracked>) {
    batches.into_iter().for_each(|batch| batch.completion.complete(Err(Error::invalid("not stored"))));
}

fn unknown(batches: Vec<Tracked>) {
    let error = Error::new(ErrorKind::OutcomeUnknown, "OUTCOME_UNKNOWN", "who knows");
    batches.into_iter().for_each(|batch| batch.completion.complete(Err(error.clone())));
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap() % end
    }
}
