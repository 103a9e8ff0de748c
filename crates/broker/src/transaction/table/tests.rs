//! Random schedules of one transactional id against a watcher that knows the rules alone.
//!
//! * Who writes now is the last to whom that was told. No id and epoch is told to two, and whoever was told before is
//!   refused for ever, also after a restart.
//! * A transaction begins with the first record and takes more until somebody asks for its end; then nothing is taken
//!   until another may write. It is ended once.
//! * Asked again, the end answers again who writes now, until somebody takes over. Who was aborted by the node is told.

use std::collections::BTreeSet;

use logmill_log::sim::{Sim, SimRandom};
use logmill_record::TimestampMs;
use uuid::Uuid;

use super::*;
use crate::broker::Broker;
use crate::config::Config;
use crate::context::RequestContext;
use crate::error::Reason;
use crate::topic::CreateTopic;
use crate::transaction::record::{Status, TransactionRecord};

const NAME: &str = "shop";
const NOW: TimestampMs = TimestampMs(1);
const TIMEOUT: Duration = Duration::from_secs(1);

/// Before the last epoch that an id has, so that ids are replaced.
const WORN: i16 = i16::MAX - 6;

/// How the transaction of the id stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Nothing,
    Open,
    /// It was asked for, by the node or by its producer.
    Ending(Outcome, bool),
    /// Another is about to write.
    Shut,
}

struct Watch {
    random: SimRandom,
    lane: Lane,
    table: Table,
    known: TransactionRecords,
    last_id: i64,
    told: BTreeSet<(i64, i16)>,
    now: ProducerEpoch,
    stands: Stands,
    /// Who wrote the last transaction, how it ended, and whether nobody had asked for that.
    last: Option<(ProducerEpoch, Outcome, bool)>,
    /// Who wrote when the node ended, if nobody has written since.
    passed: Option<ProducerEpoch>,
}

impl Watch {
    fn new(seed: u64, lane: Lane) -> Self {
        let random = SimRandom::new(seed);
        let now = ProducerEpoch { id: 0, epoch: if random.one_in(2) { 0 } else { WORN } };
        let known = TransactionRecords::from([(NAME.into(), known(now, None, Status::Empty))]);
        let table = Table::restored(&known);
        let told = BTreeSet::from([(now.id, now.epoch)]);
        Self {
            random,
            lane,
            table,
            known,
            last_id: 0,
            told,
            now,
            stands: Stands::Nothing,
            last: None,
            passed: None,
        }
    }

    fn step(&mut self) {
        match (self.random.below(12), self.stands) {
            (0..4, _) => self.admit(),
            (4..7, _) => self.end(),
            (7, Stands::Nothing | Stands::Open) => self.end_by_node(),
            (8, Stands::Nothing | Stands::Open) => self.take_over(),
            (9, _) if self.random.one_in(3) => self.restart(),
            (_, Stands::Ending(outcome, by_node)) => self.ended(outcome, by_node),
            (_, Stands::Shut) => self.begun(),
            _ => {}
        }
    }

    /// Who writes now, or somebody who did, or never did.
    fn anybody(&self) -> ProducerEpoch {
        if self.random.one_in(2) {
            return self.now;
        }
        let nth = usize::try_from(self.random.below(self.told.len() as u64)).unwrap();
        let (id, epoch) = *self.told.iter().rev().nth(nth.min(6)).unwrap();
        let ahead = i16::from(self.random.one_in(4));
        ProducerEpoch { id, epoch: epoch.saturating_add(ahead) }
    }

    fn tell(&mut self, next: ProducerEpoch) {
        assert!(self.told.insert((next.id, next.epoch)), "{next:?} was told before");
        assert!((0..i16::MAX).contains(&next.epoch), "{next:?}: its markers have the epoch after it");
        self.now = next;
    }

    fn admit(&mut self) {
        let who = self.anybody();
        let at = TopicPartition { topic: Uuid::from_u128(1), partition: 0 };
        let admitted = self.table.admit(who, at, &self.lane, NOW);
        let may = who == self.now && matches!(self.stands, Stands::Nothing | Stands::Open);
        match admitted {
            Ok((_, begun)) => {
                assert!(may, "{who:?} was let in: {self:?}");
                assert_eq!(begun.is_some(), self.stands == Stands::Nothing);
                self.stands = Stands::Open;
            }
            Err(error) => {
                assert!(!may, "{who:?}: {error}");
                self.check_refusal(who, error.reason());
            }
        }
    }

    /// What somebody is told who is not let in.
    fn check_refusal(&self, who: ProducerEpoch, reason: Reason) {
        let by_node = self.last.is_some_and(|(last, _, by_node)| last == who && by_node);
        let is_passed = |passed: ProducerEpoch| passed.id == who.id && passed.epoch <= who.epoch;
        let expected: &[Reason] = if who == self.now {
            &[Reason::TransactionEnding]
        } else if by_node || self.passed.is_some_and(is_passed) {
            // By an id that was used up nobody is known.
            &[Reason::TransactionAborted, Reason::TransactionNotFound]
        } else {
            &[Reason::ProducerFenced, Reason::TransactionNotFound]
        };
        assert!(expected.contains(&reason), "{who:?} is told {reason}: {self:?}");
        let is_known = who.id == self.now.id || self.passed.is_some_and(is_passed);
        assert!(reason != Reason::TransactionNotFound || !is_known, "{who:?} is known: {self:?}");
    }

    /// Its producer, or somebody who thinks so, asks for the end.
    fn end(&mut self) {
        let (who, outcome) = (self.anybody(), self.outcome());
        let is_again = who != self.now && self.last == Some((who, outcome, false));
        let ends = self.begin_end(&EndRequest::Producer(who), outcome);
        if is_again {
            let now = self.now;
            return assert!(matches!(ends, Ok(ToEnd::Nothing(next)) if next == now), "{ends:?}: {self:?}");
        }
        match ends {
            Ok(ToEnd::Ends(ending)) => {
                assert_eq!((who, ending.producer, self.stands), (self.now, who, Stands::Open));
                self.stands = Stands::Ending(outcome, false);
            }
            Ok(ToEnd::Nothing(next)) => {
                assert_eq!((who, self.stands), (self.now, Stands::Nothing), "{self:?}");
                self.tell(next);
                self.last = Some((who, outcome, false));
            }
            Err(error) => {
                let may = who == self.now && matches!(self.stands, Stands::Nothing | Stands::Open);
                assert!(!may, "{who:?}: {error}");
                self.check_refusal(who, error.reason());
            }
        }
    }

    /// Timeouts and operators abort what is open, and never what another has begun since.
    fn end_by_node(&mut self) {
        let who = self.anybody();
        let is_timeout = self.random.one_in(2);
        let request =
            if is_timeout { EndRequest::TimedOut(who, TIMEOUT) } else { EndRequest::Node("operator".into()) };
        let hits = self.stands == Stands::Open && (!is_timeout || who == self.now);
        match self.begin_end(&request, Outcome::Abort).unwrap() {
            ToEnd::Ends(ending) => {
                assert!(hits && ending.why.is_some(), "{request:?}: {self:?}");
                self.stands = Stands::Ending(Outcome::Abort, true);
            }
            ToEnd::Nothing(producer) => assert!(!hits && producer == self.now, "{request:?}: {self:?}"),
        }
    }

    fn ended(&mut self, outcome: Outcome, by_node: bool) {
        // What was lost is found out at the end.
        let (outcome, by_node) =
            if self.random.one_in(6) { (Outcome::Abort, true) } else { (outcome, by_node) };
        let writer = self.now;
        let next = self.next();
        self.known.insert(NAME.into(), known(next.markers, next.next_id, Status::Complete(outcome)));
        let last = Last { producer: writer, outcome, why: by_node.then(|| "why".to_owned()) };
        self.table.ended(NAME, last, next.producer(), NOW);
        self.tell(next.producer());
        (self.stands, self.last, self.passed) = (Stands::Nothing, Some((writer, outcome, by_node)), None);
    }

    /// Another instance comes: what is open is aborted first.
    fn take_over(&mut self) {
        match self.table.block_writers(NAME, NOW).unwrap() {
            Some(producer) => {
                assert_eq!((producer, self.stands), (self.now, Stands::Nothing));
                self.stands = Stands::Shut;
            }
            None => assert_eq!(self.stands, Stands::Open),
        }
    }

    fn begun(&mut self) {
        if self.random.one_in(3) {
            self.table.set_empty(NAME);
            self.stands = Stands::Nothing;
            return;
        }
        let next = self.next();
        self.known.insert(NAME.into(), known(next.markers, next.next_id, Status::Empty));
        self.table.begun(NAME, next.producer(), TIMEOUT, NOW);
        self.tell(next.producer());
        (self.stands, self.last, self.passed) = (Stands::Nothing, None, None);
    }

    /// What was not decided is aborted, and nobody goes on.
    fn restart(&mut self) {
        self.table = Table::restored(&self.known);
        let known = self.known[NAME].clone();
        let before = Next { markers: known.producer, next_id: known.next_id }.producer();
        self.last = match known.status {
            Status::Complete(outcome) => {
                let epoch = known.producer.epoch - 1;
                Some((ProducerEpoch { epoch, ..known.producer }, outcome, false))
            }
            Status::Empty | Status::Decided(_) => None,
        };
        let last_id = &mut self.last_id;
        self.table.fence_all(|| fresh(last_id));
        let now = self.table.get(NAME).unwrap().producer;
        self.tell(now);
        (self.stands, self.passed) = (Stands::Nothing, Some(before));
    }

    fn next(&mut self) -> Next {
        let last_id = &mut self.last_id;
        Next::after(self.now, || fresh(last_id))
    }

    fn begin_end(&mut self, request: &EndRequest, outcome: Outcome) -> Result<ToEnd, Error> {
        let last_id = &mut self.last_id;
        self.table.begin_end(NAME, request, outcome, || fresh(last_id))
    }

    fn outcome(&self) -> Outcome {
        if self.random.one_in(2) { Outcome::Commit } else { Outcome::Abort }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { now, stands, last, passed, .. } = self;
        write!(f, "{now:?} writes, {stands:?}, last {last:?}, passed over {passed:?}")
    }
}

/// An id that nobody has.
fn fresh(last: &mut i64) -> i64 {
    *last += 1;
    *last
}

fn known(producer: ProducerEpoch, next_id: Option<i64>, status: Status) -> TransactionRecord {
    TransactionRecord {
        producer,
        next_id,
        timeout_ms: 1_000,
        status,
        touched: Vec::new(),
        updated_at: NOW,
        started_at: NOW,
        step: None,
    }
}

#[test]
fn whatever_happens_one_producer_writes_and_what_it_writes_ends_once() {
    let sim = Sim::new(1);
    let config = Config { env: sim.env(), reserve_bytes: 0, low_space_bytes: 0, ..Config::new("/data") };
    let broker = Broker::open(config).unwrap();
    let create = broker.create_topic(&RequestContext::embedded(), CreateTopic::new("t").partitions(1));
    logmill_log::env::block_on(&*sim.env().scheduler, create).unwrap();
    let topic = broker.core().catalog.topic("t").unwrap();
    let lane = topic.partition(0).unwrap().lane().unwrap();
    for seed in 0..2_000 {
        let run = || {
            let mut watch = Watch::new(seed, lane.clone());
            (0..200).for_each(|_| watch.step());
        };
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err();
        assert!(!failed, "seed {seed}");
    }
    broker.close().unwrap();
}

#[test]
fn what_is_about_to_be_forgotten_takes_nothing_and_whoever_waits_for_its_turn_sees_that_it_is_gone() {
    let mut table = Table::default();
    let names: [Arc<str>; 2] = ["old".into(), "new".into()];
    for (at, name) in (1..).zip(&names) {
        drop(table.turn(name, || at));
        table.begun(name, ProducerEpoch { id: at, epoch: 0 }, TIMEOUT, TimestampMs(at));
    }
    assert!(table.take_idle(TimestampMs(1)).is_none(), "nobody's last use is before that");
    let turns = table.turn(&names[0], || 3);
    let busy = turns.try_take().unwrap();
    let (other, _turn) = table.take_idle(TimestampMs(9)).unwrap();
    assert_eq!(&*other, "new", "the oldest is being changed");
    assert_eq!(table.block_writers(&other, NOW).unwrap_err().reason(), Reason::TransactionEnding);
    assert!(table.take_idle(TimestampMs(9)).is_none());
    drop(busy);
    let (old, _turn) = table.take_idle(TimestampMs(9)).unwrap();
    assert!(table.has_turns(&old, &turns));
    table.forget(&old);
    assert!(!table.has_turns(&old, &turns));
    let again = table.turn(&old, || 4);
    assert!(table.has_turns(&old, &again) && !table.has_turns(&old, &turns));
}
