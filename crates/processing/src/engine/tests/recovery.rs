//! Whatever the interleaving, wherever a run is cut or killed: the table is what a simple computation over all
//! records gives, and no window that was committed as closed is emitted again.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::Offset;
use crate::{Aggregate, hours};

const WINDOW_MS: i64 = 60_000;
const DISORDER_MS: i64 = 20_000;
/// A time that is not believed of a record that is stored while a test runs. All good ones are long before.
const AHEAD_AT: i64 = EPOCH_MS + 10 * 3_600_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Event {
    key: u8,
    at: i64,
    value: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    key: u8,
    start: i64,
    count: u64,
    sum: i64,
    max: i64,
}

/// Values that the aggregate panics on.
fn is_poison(value: i64) -> bool {
    value % 17 == 13
}

struct Stats;

impl Aggregate for Stats {
    type In = Event;
    type Acc = (u64, i64, i64);
    type Out = (u64, i64, i64);

    fn init(&self) -> Self::Acc {
        (0, 0, i64::MIN)
    }

    fn add(&self, acc: &mut Self::Acc, Event { value, .. }: Event) {
        acc.0 += 1;
        assert!(!is_poison(value), "poison");
        acc.1 += value;
        acc.2 = acc.2.max(value);
    }

    fn merge(&self, acc: &mut Self::Acc, other: Self::Acc) {
        *acc = (acc.0 + other.0, acc.1 + other.1, acc.2.max(other.2));
    }

    fn finish(&self, acc: &Self::Acc) -> Self::Out {
        *acc
    }
}

fn plan(db: &Path) -> Plan {
    let pipeline = Pipeline::new("p");
    let source = Topic::json::<Event>("events").time(|event| event.at);
    let events = pipeline
        .source(source.disorder(crate::millis(20_000)).idle(hours(10_000)))
        .filter(|event| event.value % 5 != 0);
    events
        .clone()
        .map(|event| Row { key: event.key, start: event.at, count: 1, sum: event.value, max: event.value })
        .to("each", Topic::json::<Row>("p.each"));
    let rows = events
        .key_by(|event| event.key)
        .window(Tumbling::of(mins(1)))
        .aggregate("stats", Stats)
        .map(|w| Row { key: w.key, start: w.start.0, count: w.value.0, sum: w.value.1, max: w.value.2 });
    rows.clone().to("out", Topic::json::<Row>("p.out").key(|row| format!("{}/{}", row.key, row.start)));
    rows.sink("table", Sqlite::upsert::<Row>(db, "stats").key(["key", "start"]));
    pipeline.build().unwrap()
}

/// A record to append.
#[derive(Clone, Debug)]
enum Put {
    Event {
        key: u8,
        /// After the largest time so far.
        after_ms: i64,
        value: i64,
    },
    /// An event whose time is not believed.
    Ahead {
        key: u8,
    },
    Nonsense,
}

/// What happens next.
#[derive(Clone, Debug)]
enum Action {
    /// Records for one partition, in one batch.
    Append(usize, Vec<Put>),
    /// A step, by a run that is there or one that is started, which dies at this stage.
    Step(Death),
    /// A run to the end.
    RunToEnd,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    AfterGather,
    AfterSeal,
    AfterPublish,
    AfterCommit,
    Never,
}

fn actions(partitions: usize) -> impl Strategy<Value = Vec<Action>> {
    let record = prop_oneof![
        12 => (0_u8..4, -DISORDER_MS..60_000_i64, -50_i64..200)
            .prop_map(|(key, after_ms, value)| Put::Event { key, after_ms, value }),
        2 => (0_u8..4).prop_map(|key| Put::Ahead { key }),
        1 => Just(Put::Nonsense),
    ];
    let append = (0..partitions, prop::collection::vec(record, 1..8))
        .prop_map(|(at, records)| Action::Append(at, records));
    let death = prop_oneof![
        Just(Death::AfterGather),
        Just(Death::AfterSeal),
        Just(Death::AfterPublish),
        Just(Death::AfterCommit),
        Just(Death::Never),
        Just(Death::Never),
        Just(Death::Never),
    ];
    let action = prop_oneof![6 => append, 5 => death.prop_map(Action::Step), 1 => Just(Action::RunToEnd)];
    prop::collection::vec(action, 1..40)
}

/// What the run does, and what is to come of it.
struct World {
    memory: Arc<Memory>,
    plan: Plan,
    db: std::path::PathBuf,
    every: std::time::Duration,
    run: Option<Run>,
    /// By how much the times of storing are off that a run is told of what an earlier one has handled; one after
    /// the other, by run.
    off_ms: std::iter::Cycle<std::vec::IntoIter<i64>>,
    largest: Vec<i64>,
    events: Vec<Event>,
    /// Records that the source sets aside.
    bad: usize,
    /// How often records may have been written to topics without the commit beside them.
    unsure: usize,
}

impl World {
    fn append(&mut self, partition: usize, records: &[Put]) {
        let json = |event: &Event| serde_json::to_string(event).unwrap();
        let mut values = Vec::new();
        for record in records {
            match *record {
                Put::Event { key, after_ms, value } => {
                    let at = self.largest[partition] + after_ms;
                    self.largest[partition] = self.largest[partition].max(at);
                    let event = Event { key, at, value };
                    values.push(json(&event));
                    self.events.push(event);
                }
                Put::Ahead { key } => {
                    self.bad += 1;
                    values.push(json(&Event { key, at: AHEAD_AT, value: 1 }));
                }
                Put::Nonsense => {
                    self.bad += 1;
                    values.push("{".to_owned());
                }
            }
        }
        let records: Vec<_> = values
            .iter()
            .map(|value| logmill_record::NewRecord {
                timestamp: crate::TimestampMs(0),
                key: None,
                value: Some(value.as_bytes()),
                headers: &[],
            })
            .collect();
        self.memory.append("events", partition, &records);
    }

    /// Checks what a step is about to commit against what is committed.
    fn check(&self, output: &super::super::StepOutput) {
        let closed = self.closed();
        for row in &output.rows[0] {
            let rusqlite::types::Value::Integer(start) = row[1] else { panic!("{row:?}") };
            assert!(start + WINDOW_MS > closed, "the window at {start} was committed as closed at {closed}");
        }
        for position in &output.positions {
            assert!(position.resume.closed >= closed, "the watermark went back");
            assert!(position.resume.replay <= position.resume.read);
            for refused in position.resume.refused.ranges() {
                assert!(position.resume.replay <= refused.start && refused.end <= position.resume.read);
            }
        }
    }

    fn closed(&self) -> i64 {
        let db = Connection::open(&self.db).unwrap();
        let closed = db.query_row("SELECT max(closed_ms) FROM logmill_positions", [], |row| row.get(0));
        closed.unwrap_or(None).unwrap_or(i64::MIN)
    }

    /// Starts a run, to which what was handled before seems to be stored at another time.
    fn open(&mut self, bounded: bool) -> Run {
        let run = open_with(&self.plan, &self.memory, Mode { every: self.every, bounded }).unwrap();
        let off_ms = self.off_ms.next().unwrap();
        let read = self.read();
        *self.memory.misdated.lock() = Some(Box::new(move |partition, batch| {
            let handled = read.get(&partition).is_some_and(|read| batch.header().last_offset() < *read);
            if handled { off_ms } else { 0 }
        }));
        run
    }

    /// How far each partition is handled.
    fn read(&self) -> BTreeMap<u32, Offset> {
        let db = Connection::open(&self.db).unwrap();
        let mut query = db.prepare("SELECT partition, read_offset FROM logmill_positions").unwrap();
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)));
        rows.unwrap().map(Result::unwrap).map(|(at, read)| (at, Offset::try_from(read).unwrap())).collect()
    }

    fn step(&mut self, death: Death) {
        let mut run = match self.run.take() {
            Some(run) => run,
            None => self.open(false),
        };
        run.gather();
        if death == Death::AfterGather || !run.engine.has_work() {
            return;
        }
        let output = run.engine.seal(false).unwrap();
        self.check(&output);
        if death == Death::AfterSeal {
            return;
        }
        let output = run.engine.publish(output).unwrap();
        if death == Death::AfterPublish {
            self.unsure += 1;
            return;
        }
        run.engine.commit(&output).unwrap();
        if death == Death::Never {
            self.run = Some(run);
        }
    }

    fn run_to_end(&mut self) {
        self.run = None;
        let mut run = self.open(true);
        loop {
            run.stop.reset();
            let gathered = run.engine.gather().unwrap();
            let output = run.engine.seal(gathered == Gathered::Done).unwrap();
            self.check(&output);
            let output = run.engine.publish(output).unwrap();
            run.engine.commit(&output).unwrap();
            if gathered == Gathered::Done {
                return;
            }
        }
    }

    /// What the table has to be.
    fn oracle(&self) -> Vec<Row> {
        let mut rows: BTreeMap<(u8, i64), Row> = BTreeMap::new();
        for Event { key, at, value } in &self.events {
            if value % 5 == 0 || is_poison(*value) {
                continue;
            }
            let start = at - at.rem_euclid(WINDOW_MS);
            let row = rows.entry((*key, start)).or_insert(Row {
                key: *key,
                start,
                count: 0,
                sum: 0,
                max: i64::MIN,
            });
            row.count += 1;
            row.sum += value;
            row.max = row.max.max(*value);
        }
        rows.into_values().collect()
    }

    fn table(&self) -> Vec<Row> {
        let db = Connection::open(&self.db).unwrap();
        let mut query =
            db.prepare("SELECT key, start, count, sum, max FROM stats ORDER BY key, start").unwrap();
        let rows = query.query_map([], |row| {
            let count: i64 = row.get(2)?;
            let count = u64::try_from(count).unwrap();
            Ok(Row { key: row.get(0)?, start: row.get(1)?, count, sum: row.get(3)?, max: row.get(4)? })
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    fn check_letters(&self) {
        let dead = self.memory.all("p.dead");
        let places: BTreeSet<_> = dead
            .iter()
            .map(|letter| (letter.header("logmill.origin.partition"), letter.header("logmill.origin.offset")))
            .collect();
        let poisoned =
            self.events.iter().filter(|event| event.value % 5 != 0 && is_poison(event.value)).count();
        assert_eq!(places.len(), self.bad + poisoned);
        if self.unsure == 0 {
            assert_eq!(dead.len(), places.len(), "each once, where no run died between topics and commit");
        }
        assert_eq!(self.memory.all("p.stats.late"), [], "nothing was late");
    }

    /// What went past the windows.
    fn check_each(&self) {
        let written = self.memory.all("p.each").len();
        let expected = self.events.iter().filter(|event| event.value % 5 != 0).count();
        assert!(written >= expected);
        if self.unsure == 0 {
            assert_eq!(written, expected, "each once, where no run died between topics and commit");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_record_has_its_effect_once(
        (partitions, actions) in (1_usize..4).prop_flat_map(|partitions| (Just(partitions), actions(partitions))),
        batches_per_fetch in 1_usize..4,
        every_ms in prop_oneof![Just(0_u64), Just(1_000)],
        off_ms in prop::collection::vec(-2 * EPOCH_MS..2 * EPOCH_MS, 1..4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("p.db");
        let memory = Memory::new();
        memory.create("events", partitions);
        *memory.batches_per_fetch.lock() = Some(batches_per_fetch);
        let mut world = World {
            plan: plan(&db),
            memory,
            db,
            every: crate::millis(every_ms),
            run: None,
            off_ms: off_ms.into_iter().cycle(),
            largest: vec![0; partitions],
            events: Vec::new(),
            bad: 0,
            unsure: 0,
        };
        for action in &actions {
            match action {
                Action::Append(partition, records) => world.append(*partition, records),
                Action::Step(death) => world.step(*death),
                Action::RunToEnd => world.run_to_end(),
            }
        }
        world.run_to_end();
        prop_assert_eq!(world.table(), world.oracle());
        world.check_letters();
        world.check_each();
    }
}
