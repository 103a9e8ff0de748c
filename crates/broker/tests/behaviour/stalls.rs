//! Files of one partition whose disk does not answer: what goes on meanwhile.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use logmill_broker::{
    Acks, Assignment, Config, Fetch, FetchFrom, GroupInterest, InitTransactions, JoinGroup, Limits,
    OffsetToCommit, Outcome, Payload, Position, Produce, ProduceRecord, ProducerSequence, Reason, StepHeader,
    Subscribe,
};
use logmill_log::env::Work;
use logmill_record::{Offset, TimestampMs};

use crate::common::hook_fs::{Call, Gate, gated, hooked, is_segment_of_0};
use crate::common::members::assigned;
use crate::common::{Node, records, text, with_env};

/// More than the threads that there are for reading.
const READERS: usize = 70;
/// So many may hang in one partition.
const READS_AT_ONCE: usize = 4;

pub(crate) struct Stalled {
    _dir: tempfile::TempDir,
    pub(crate) node: Node,
    pub(crate) gate: Arc<Gate>,
}

impl Stalled {
    /// A node with partitions 0 and 1 of topic `t`, a record in each, of which such calls to the segment files
    /// of partition 0 wait from now on until the gate opens.
    pub(crate) fn new(calls: Call) -> Self {
        Self::with_limits(calls, Limits::default())
    }

    pub(crate) fn with_limits(calls: Call, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (env, gate) = gated(calls, is_segment_of_0);
        let node = Node::open(Config { segment_bytes: 1 << 20, limits, ..with_env(&dir, env) });
        node.create("t", 2).unwrap();
        node.say("t", 0, "before").unwrap();
        node.say("t", 1, "before").unwrap();
        gate.arm();
        Self { _dir: dir, node, gate }
    }

    pub(crate) fn end(self) {
        self.gate.open();
        self.node.broker.close().unwrap();
    }
}

/// A test that fails does not wait for those who wait at the gate.
pub(crate) struct Opens<'a>(pub(crate) &'a Gate);

impl Drop for Opens<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

pub(crate) fn from(partition: u32, position: Position) -> FetchFrom {
    FetchFrom::new("t", partition, position)
}

/// What is asked of the other partition, and of the node.
fn the_rest_goes_on(node: &Node) {
    node.say("t", 1, "meanwhile").unwrap();
    assert_eq!(node.read_all("t", 1).unwrap(), ["before", "meanwhile"]);
    let subscribe = Subscribe::new(vec![from(1, Position::Earliest)], 1_000);
    let mut subscription = node.wait(node.broker.subscribe(&node.context, subscribe)).unwrap();
    assert_eq!(text(&node.wait(subscription.next()).unwrap()), ["before", "meanwhile"]);
    let by_time = vec![(1, Position::Time(TimestampMs(0)))];
    assert_eq!(
        node.wait(node.broker.list_offsets(&node.context, "t", by_time)).unwrap()[0].offset,
        Offset(0)
    );
    node.create("u", 1).unwrap();
    // All that a client asks first, and how the partition itself stands.
    assert_eq!(node.wait(node.broker.describe_node(&node.context)).unwrap().partition_count, 3);
    assert_eq!(node.end("t", 0), Offset(1));
    let edges = vec![(0, Position::Earliest), (0, Position::Latest)];
    let found = node.wait(node.broker.list_offsets(&node.context, "t", edges)).unwrap();
    assert_eq!((found[0].offset, found[1].offset), (Offset(0), Offset(1)));
    let at_end = node.fetch(Fetch::new(vec![from(0, Position::Latest)])).unwrap().remove(0);
    assert_eq!((at_end.next_offset, at_end.error.is_none()), (Offset(1), true));
}

#[test]
fn a_write_that_stalls_holds_up_what_reads_the_same_file_and_nothing_else() {
    let stalled = Stalled::new(Call::Write);
    let node = &stalled.node;
    let accepted = node.broker.produce(&node.context, records("t", Some(0), ["during"]));
    stalled.gate.wait_for_someone();
    thread::scope(|scope| {
        let _opens = Opens(&stalled.gate);
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(|| node.read_all("t", 0).unwrap())).collect();
        the_rest_goes_on(node);
        stalled.gate.open();
        for reader in readers {
            assert_eq!(reader.join().unwrap()[0], "before");
        }
    });
    node.wait(accepted).unwrap().remove(0).outcome.unwrap();
    assert_eq!(node.read_all("t", 0).unwrap(), ["before", "during"]);
    stalled.end();
}

#[test]
fn a_read_that_stalls_leaves_threads_to_those_who_read_elsewhere() {
    let stalled = Stalled::new(Call::Read);
    let node = &stalled.node;
    let mut member = node.broker.join_group(&node.context, JoinGroup::topics("g", ["t"])).unwrap();
    let mine = [assigned(node, &mut member), assigned(node, &mut member)];
    let of_0 = mine.iter().find(|unit| unit.unit == "t/0").unwrap();
    let begin = OffsetToCommit::new("t", 0, Offset(0));
    node.wait(member.handle().commit(&of_0.unit, of_0.epoch, vec![begin])).unwrap();
    thread::scope(|scope| {
        let _opens = Opens(&stalled.gate);
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(|| node.read_all("t", 0).unwrap())).collect();
        let searches: Vec<_> = (0..READERS)
            .map(|_| {
                let at = vec![(0, Position::Time(TimestampMs(0)))];
                scope.spawn(|| node.wait(node.broker.list_offsets(&node.context, "t", at)).unwrap())
            })
            .collect();
        stalled.gate.wait_for(READS_AT_ONCE);
        // What a monitor asks, again and again: no more reads hang for that.
        let described = || node.wait(node.broker.describe_group(&node.context, "g")).unwrap();
        for _ in 0..READERS {
            let offset = described().offsets.remove(0);
            assert_eq!(
                (offset.lag_records, offset.lag),
                (Some(1), None),
                "how long it has waited is in the file"
            );
        }
        the_rest_goes_on(node);
        stalled.gate.open();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), ["before"]);
        }
        for search in searches {
            assert_eq!(search.join().unwrap()[0].offset, Offset(0));
        }
    });
    stalled.end();
}

#[test]
fn a_file_system_that_does_not_say_its_space_holds_up_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (env, gate) = gated(Call::Space, |_| true);
    let node = Node::open(with_env(&dir, env));
    node.create("t", 1).unwrap();
    let describe = || node.wait(node.broker.describe_node(&node.context)).unwrap();
    let before = describe();
    gate.arm();
    // So that whatever waits for the space fails this test, and does not hang it.
    let late = Arc::clone(&gate);
    let scheduler = Arc::clone(&node.broker.config().env.scheduler);
    scheduler.spawn_after(Work::Read, Duration::from_secs(20), Box::new(move || late.open()));

    for _ in 0..2 {
        assert_eq!(describe(), before, "what was said before");
    }
    let waits = Fetch::new(vec![from(0, Position::Latest)]).max_wait(Duration::from_millis(1));
    assert!(node.fetch(waits).unwrap()[0].chunks.is_empty());
    assert_eq!(node.end("t", 0), Offset(0));
    node.broker.close_within(Duration::from_secs(5)).unwrap();
    assert!(!gate.is_open(), "something waited for the space");
    gate.open();
}

/// After a failed sync the node's epoch moves on, which is written to a file.
#[test]
fn an_epoch_that_is_being_written_holds_up_no_timer_and_no_marker() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    gate.open();
    let (at, fails) = (Arc::clone(&gate), Arc::new(AtomicBool::new(false)));
    let strikes = Arc::clone(&fails);
    let hook = move |call, path: &Path| {
        if call == Call::Sync && is_segment_of_0(path) && strikes.swap(false, Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let is_of_set = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("set"));
        if call == Call::Sync && is_of_set {
            at.pass();
        }
        Ok(())
    };
    let node = Node::open(with_env(&dir, hooked(hook)));
    node.create("t", 2).unwrap();
    node.say("t", 1, "before").unwrap();
    let init = node.broker.init_transactions(&node.context, InitTransactions::new("x"));
    let producer = node.wait(init).unwrap();
    let sequence = ProducerSequence { id: producer.id, epoch: producer.epoch, base_sequence: 0 };
    let record = ProduceRecord { value: Some("written".into()), ..ProduceRecord::default() };
    let payload = Payload::InTransaction(sequence, vec![record]);
    let (topic, partition) = ("t".to_owned(), Some(1));
    node.produce(Produce { topic, partition, payload, acks: Acks::Durable, sent_at: None }).unwrap();

    gate.arm();
    let _opens = Opens(&gate);
    fails.store(true, Ordering::Relaxed);
    node.say("t", 0, "lost").unwrap_err();
    gate.wait_for_someone();
    node.wait(node.broker.describe_node(&node.context)).unwrap();
    node.wait(node.broker.end_transaction(&node.context, "x", producer, Outcome::Commit)).unwrap();
    let waits = Fetch::new(vec![from(1, Position::Latest)]).max_wait(Duration::from_millis(1));
    assert!(node.fetch(waits).unwrap().remove(0).error.is_none());
    gate.open();
    node.broker.close().unwrap();
}

#[test]
fn steps_to_a_partition_that_stalls_keep_no_threads_and_no_more_room_than_they_have() {
    let stalled = Stalled::new(Call::Write);
    let (node, gate) = (&stalled.node, Arc::clone(&stalled.gate));
    let _opens = Opens(&gate);
    let count = u32::try_from(READERS).unwrap();
    node.create("in", count).unwrap();
    let units = (0..count).map(|unit| (unit.to_string(), vec![("in".to_owned(), unit)])).collect();
    let join = JoinGroup { interest: GroupInterest::Units(units), ..JoinGroup::topics("g", ["in"]) };
    let mut member = node.broker.join_group(&node.context, join).unwrap();
    let mine: Vec<_> = (0..count).map(|_| assigned(node, &mut member)).collect();
    let begin = |of: &Assignment| {
        let header = StepHeader {
            group: "g".into(),
            unit: of.unit.clone(),
            unit_epoch: of.epoch,
            sequence: 0,
            offsets: Vec::new(),
            topics: vec!["t".into()],
            total_bytes: 1,
        };
        node.broker.begin_step(&node.context, header)
    };
    let steps: Vec<_> = mine
        .iter()
        .map(|of| {
            let mut step = begin(of).unwrap();
            let record = ProduceRecord { value: Some("s".into()), ..ProduceRecord::default() };
            step.append("t", Some(0), Payload::Records(vec![record])).unwrap();
            step.commit()
        })
        .collect();
    stalled.gate.wait_for_someone();
    node.say("t", 1, "meanwhile").unwrap();
    assert_eq!(node.read_all("t", 1).unwrap(), ["before", "meanwhile"]);
    // All have begun by now, or are about to.
    for of in &mine {
        while begin(of).map_err(|error| error.reason()).err() != Some(Reason::TransactionEnding) {
            thread::yield_now();
        }
    }
    stalled.gate.open();
    for step in steps {
        node.wait(step).unwrap();
    }
    assert_eq!(node.read_all("t", 0).unwrap().len(), 1 + READERS);
    stalled.end();
}
