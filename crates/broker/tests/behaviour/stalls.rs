//! Files of one partition whose disk does not answer: what goes on meanwhile.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use logmill_broker::{Config, Fetch, FetchFrom, Limits, Position, Subscribe};
use logmill_log::env::Work;
use logmill_record::{Offset, TimestampMs};

use crate::common::hook_fs::{Call, Gate, gated, is_segment_of_0};
use crate::common::{Node, records, text, with_env};

/// More than the threads that there are for reading.
const READERS: usize = 70;

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
    thread::scope(|scope| {
        let _opens = Opens(&stalled.gate);
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(|| node.read_all("t", 0).unwrap())).collect();
        let searches: Vec<_> = (0..READERS)
            .map(|_| {
                let at = vec![(0, Position::Time(TimestampMs(0)))];
                scope.spawn(|| node.wait(node.broker.list_offsets(&node.context, "t", at)).unwrap())
            })
            .collect();
        stalled.gate.wait_for_someone();
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
